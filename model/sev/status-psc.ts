/** The same information as SNP guests have it: a buffer of page-state changes, shared with the host. */
import { PAGE_SHIFT } from '../core/abi.ts';
import { choice, u16, u64 } from '../core/domain.ts';
import { pick, type Random } from '../core/random.ts';
import type { State } from '../core/state.ts';
import type { StatusGuest } from '../core/state-status.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import type { Announcement } from './shared-set.ts';
import { counted, guestOf, told, withGuest } from './status-machine.ts';
import { aimed, chooseFrames, chooseGuest, disabled, guest, noGuest, rateRows } from './status-rows.ts';

/** Entries of the buffer that a GHCB has room for. Source: VMGEXIT_PSC_MAX_COUNT. */
const ENTRIES = 253;

const SOURCE = 'arch/x86/kvm/svm/sev.c: snp_begin_psc(), snp_do_psc()';
const ENTRY = u64({ boundaries: [1n << 52n, 2n << 52n] });

const pscDomains = {
  guest,
  cur: u16(),
  end: u16({ boundaries: [1n, 2n, BigInt(ENTRIES - 1), BigInt(ENTRIES)] }),
  e0: ENTRY,
  e1: ENTRY,
  e2: ENTRY,
  race: choice('no', 'yes'),
} as const;
type Psc = ArgsOf<typeof pscDomains>;

/** struct psc_entry. */
interface Entry {
  /** Pages that are done already. */
  readonly done: number;
  readonly gfn: number;
  readonly operation: number;
  readonly pages: number;
}

const field = (entry: bigint, from: bigint, bits: bigint): number => Number((entry >> from) & ((1n << bits) - 1n));

const entryOf = (entry: bigint): Entry => ({
  done: field(entry, 0n, PAGE_SHIFT),
  gfn: field(entry, PAGE_SHIFT, 40n),
  operation: field(entry, 52n, 4n),
  pages: field(entry, 56n, 1n) === 1 ? 512 : 1,
});

const OPERATION = { PRIVATE: 1, SHARED: 2 } as const;

/** Entries behind the third are zero: page 0, and an operation that does nothing. */
const entriesOf = ({ cur, end, e0, e1, e2 }: Psc): readonly Entry[] =>
  [e0, e1, e2].slice(Number(cur), Number(end) + 1).map(entryOf);

const isInvalid = ({ done, gfn, pages }: Entry): boolean => done > pages || gfn % pages !== 0;

/** What the entry announces; undefined where it has nothing left to do, or an operation that nobody knows. */
function announcementOf({ done, gfn, operation, pages }: Entry): Announcement | undefined {
  if (done === pages || (operation !== OPERATION.PRIVATE && operation !== OPERATION.SHARED)) return undefined;
  return { start: gfn + done, end: gfn + pages, private: operation === OPERATION.PRIVATE };
}

/** The guest behind the entries up to the first that is invalid. */
function through(state: State, args: Psc): StatusGuest {
  let current = counted(guestOf(state, args.guest));
  for (const entry of entriesOf(args)) {
    if (isInvalid(entry)) break;
    const announcement = announcementOf(entry);
    if (announcement !== undefined) current = told(state, current, announcement);
  }
  return current;
}

const leaves = (args: Psc, state: State): State => withGuest(state, args.guest, through(state, args));

const answered = (error: string) => {
  const status = `VMGEXIT_PSC_ERROR_${error}`;
  return { result: status, outcome: () => ({ kind: 'status', status }) as const };
};

const packed = ({ done, gfn, operation, pages }: Entry): bigint =>
  BigInt(done) | (BigInt(gfn) << PAGE_SHIFT) | (BigInt(operation) << 52n) | (pages === 1 ? 0n : 1n << 56n);

function drawEntry(random: Random, asker: StatusGuest): bigint {
  const { start } = chooseFrames(random, asker);
  const operation = pick(random, [1, 2, 2, 2, 2, 0, 3]);
  const done = random.below(6) === 0 ? 1 : 0;
  if (random.below(4) > 0) return packed({ done, gfn: Math.min(start, 2 ** 40 - 1), operation, pages: 1 });
  return packed({ done: done * random.below(513), gfn: 512 * random.below(3), operation, pages: 512 });
}

export const statusPsc = defineTransition({
  name: 'status.psc',
  realm: 'page-status',
  summary: 'An SNP guest asks for page-state changes, by a buffer that it can change while the host reads it.',
  does: 'VMGEXIT with a page-state change: `cur_entry` and `end_entry` of the header are `cur` and `end`, the first entries `e0`, `e1` and `e2`, the other 250 zero; with `race`, `end_entry` is 0xffff as soon as it was read once',
  source: SOURCE,
  only: { feature: 'status-host' },
  args: pscDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noGuest<Psc>('status.psc'),
    disabled<Psc>('status.psc'),
    aimed<Psc>({
      ...answered('GENERIC'),
      id: 'status.psc/no-exit',
      when: 'the VMM does not listen; the pages stay what they are',
      violated: ({ guest: label }, state) => !guestOf(state, label).isEnabled,
    }),
    // snp_complete_one_psc() has one answer for whatever user space refuses.
    ...rateRows<Psc>('status.psc', answered('GENERIC')),
    {
      ...answered('INVALID_HDR'),
      id: 'status.psc/bad-header',
      leaves: ({ guest: label }, state) => withGuest(state, label, counted(guestOf(state, label))),
      when: 'the last entry is not within the buffer',
      violated: ({ end }) => end >= BigInt(ENTRIES),
      violate: (args, _state, random) => ({ ...args, end: pick(random, [BigInt(ENTRIES), 0xffffn]) }),
    },
    {
      ...answered('INVALID_ENTRY'),
      id: 'status.psc/bad-entry',
      leaves,
      when: 'an entry has more pages done than it has, or a large page begins where none can; entries before it are done',
      violated: (args) => entriesOf(args).some(isInvalid),
      violate: (args, _state, random) => ({
        ...args,
        cur: 0n,
        end: args.end < 2n ? 2n : args.end,
        [pick(random, ['e0', 'e1', 'e2'])]: pick(random, [
          (1n << 52n) | 2n,
          (2n << 52n) | (1n << 56n) | (1n << PAGE_SHIFT),
        ]),
      }),
    },
  ],
  accepts: [
    {
      id: 'status.psc/done',
      when: 'every entry from the first to the last is in order',
      accept: (args, state) => ({ state: leaves(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ isEnabled }) => isEnabled);
    if (label === undefined) return undefined;
    const asker = guestOf(state, label);
    const [e0, e1, e2] = [0, 1, 2].map(() => drawEntry(random, asker)) as [bigint, bigint, bigint];
    return {
      guest: label,
      cur: BigInt(pick(random, [0, 0, 0, 0, 1, 5])),
      end: BigInt(pick(random, [0, 1, 2, 2, 2, 252])),
      ...{ e0, e1, e2 },
      race: pick(random, ['no', 'no', 'yes']),
    };
  },
});
