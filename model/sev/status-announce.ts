/** The guest says which of its pages are shared. */
import { choice, u64 } from '../core/domain.ts';
import { pick, type Random } from '../core/random.ts';
import type { State } from '../core/state.ts';
import type { StatusGuest } from '../core/state-status.ts';
import { defineTransition, type Accepted, type ArgsOf, type Guard } from '../core/transition.ts';
import { announcementOf, FRAMES, flawOf, MAP_GPA, type Announcement, type Flaw } from './shared-set.ts';
import { allowanceOf, counted, guestOf, has, isPastRate, told, untold, withGuest } from './status-machine.ts';
import {
  aimed,
  chooseFrames,
  chooseGuest,
  disabled,
  gpa,
  guest,
  leavesCount,
  noGuest,
  rateRows,
  THREAD,
  type OnGuest,
} from './status-rows.ts';

/** How a command announces something, where it does. */
interface Announcing<A> {
  readonly isMade: (args: A) => boolean;
  /** What it announces; undefined where the call is ill-formed. */
  readonly made: (args: A, state: State) => Announcement | undefined;
  /** Arguments with which it announces something. */
  readonly make: (args: A) => A;
}

/** What an announcement meets before anyone looks at its arguments. Where the guest keeps the record it is no hypercall. */
export function announcementRows<A extends OnGuest>(command: string, announcing: Announcing<A>): readonly Guard<A>[] {
  const { isMade, made, make } = announcing;
  const onlyMade = (row: Guard<A>): Guard<A> => ({
    ...row,
    violated: (args, state) => isMade(args) && row.violated(args, state),
    violate: (args, state, random) => row.violate?.(make(args), state, random),
  });
  const noExit: Guard<A> = aimed<A>({
    id: `${command}/no-exit`,
    errno: 'ENOSYS',
    leaves: (args, state) => {
      const announcement = made(args, state);
      return announcement === undefined
        ? state
        : withGuest(state, args.guest, untold(guestOf(state, args.guest), announcement));
    },
    when: 'the VMM does not listen; what the guest has changed is missing from the record, which is marked if it was anything new',
    source: 'arch/x86/kvm/x86.c: ____kvm_emulate_hypercall()',
    violated: ({ guest: label }, state) => !guestOf(state, label).isEnabled,
  });
  const ofHypercall = [noExit, ...rateRows<A>(command)].map((row): Guard<A> => ({
    ...row,
    only: { feature: 'status-host' },
  }));
  return [disabled<A>(command), ...ofHypercall].map(onlyMade);
}

const announceDomains = { guest, gpa, pages: u64({ boundaries: [512n, 1n << 40n] }), attributes: u64() } as const;
type Announce = ArgsOf<typeof announceDomains>;

const flaw = ({ gpa: from, pages, attributes }: Announce): Flaw | undefined => flawOf(from, pages, attributes);

/** What the call announces, where nothing is wrong with it. */
const said = ({ gpa: from, pages, attributes }: Announce): Announcement => announcementOf(from, pages, attributes);

/** The guest behind a call with which nothing is wrong. */
const behind = (args: Announce, state: State): StatusGuest => told(state, guestOf(state, args.guest), said(args));

function taken(args: Announce, state: State): Accepted {
  const after = behind(args, state);
  return { state: withGuest(state, args.guest, has(state, 'status-host') ? counted(after) : after) };
}

const KVM = 'arch/x86/kvm/x86.c: ____kvm_emulate_hypercall()';

const ILL_FORMED: readonly {
  readonly flaw: Flaw;
  readonly when: string;
  readonly source: string;
  readonly violate: (args: Announce, random: Random) => Announce;
}[] = [
  {
    flaw: 'unaligned',
    when: '`gpa` is not a multiple of the page size',
    source: KVM,
    violate: (args) => ({ ...args, gpa: args.gpa | 8n }),
  },
  { flaw: 'no-pages', when: 'there are no pages', source: KVM, violate: (args) => ({ ...args, pages: 0n }) },
  {
    flaw: 'wraps',
    when: 'the frame behind the last one is no number of 64 bits',
    source: KVM,
    violate: (args) => ({ ...args, gpa: args.gpa | 0x1000n, pages: (1n << 64n) - 1n }),
  },
  {
    flaw: 'past-the-end',
    when: 'the range ends behind the last guest physical address, that of 52 bits',
    source: `${THREAD}: ranges that a record can hold`,
    violate: (args, random) => ({ ...args, pages: pick(random, [(1n << 40n) + 1n, 1n << 41n]) }),
  },
  {
    flaw: 'reserved-attributes',
    when: 'bits of the attributes are set that are reserved',
    source: 'Documentation/virt/kvm/x86/hypercalls.rst, KVM_HC_MAP_GPA_RANGE',
    violate: (args) => ({ ...args, attributes: args.attributes | 0x20n }),
  },
];

export const statusAnnounce = defineTransition({
  name: 'status.announce',
  realm: 'page-status',
  summary: 'The guest makes pages private or shared, and says so.',
  does: 'the guest changes the pages in its page tables; then KVM_HC_MAP_GPA_RANGE with `gpa`, `pages` and `attributes`, or, with the donation, it writes its structure',
  source: `${KVM}; ${THREAD}`,
  args: announceDomains,
  mayAlso: [],
  weight: 12,
  guards: [
    noGuest<Announce>('status.announce'),
    ...announcementRows<Announce>('status.announce', {
      isMade: () => true,
      made: (args) => (flaw(args) === undefined ? said(args) : undefined),
      make: (args) => args,
    }),
    ...ILL_FORMED.map(({ flaw: what, when, source, violate }): Guard<Announce> => ({
      id: `status.announce/${what}`,
      group: 'ill-formed',
      errno: 'EINVAL',
      when,
      source,
      leaves: (args, state) => (has(state, 'status-host') ? leavesCount(args, state) : state),
      violated: (args) => flaw(args) === what,
      violate: (args, _state, random) => violate(args, random),
    })),
  ],
  accepts: [
    {
      id: 'status.announce/redundant',
      when: 'the pages are what they are to be already: nothing changes',
      applies: (args, state) => behind(args, state).announced === guestOf(state, args.guest).announced,
      accept: taken,
    },
    {
      id: 'status.announce/unrecorded',
      when: 'the record is marked, or the guest has not said yet where it keeps one: nothing is recorded',
      applies: ({ guest: label }, state) => {
        const before = guestOf(state, label);
        return before.record.incomplete || allowanceOf(state, before) === undefined;
      },
      accept: taken,
    },
    {
      id: 'status.announce/marks',
      when: 'the record would need more than the host may spend, or the guest has given: it is marked, and its ranges are dropped',
      applies: (args, state) => behind(args, state).record.incomplete,
      accept: taken,
    },
    {
      id: 'status.announce/recorded',
      when: 'the record can take it',
      accept: taken,
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, (each) => each.isEnabled || !has(state, 'status-host'));
    if (label === undefined) return undefined;
    const { start, pages } = chooseFrames(random, guestOf(state, label));
    const attributes = random.below(5) < 3 ? 0n : MAP_GPA.ENCRYPTED;
    return { guest: label, gpa: BigInt(start) * 4096n, pages: BigInt(pages), attributes };
  },
});

const floodDomains = {
  guest,
  pattern: choice('same', 'alternate', 'huge'),
  count: choice('4', '16', '64'),
} as const;

type Flood = ArgsOf<typeof floodDomains>;

/** The announcement that a flood makes in its so-manieth step. */
function floods(pattern: string, step: number): Announcement {
  if (pattern === 'alternate') return { start: 2 * step, end: 2 * step + 1, private: false };
  return { start: 0, end: pattern === 'huge' ? FRAMES : 1, private: step % 2 === 1 };
}

/** The guest behind one announcement of many, and whether it was a success. */
function oneOfMany(
  state: State,
  before: StatusGuest,
  what: Announcement,
): { readonly after: StatusGuest; readonly ok: boolean } {
  if (!has(state, 'status-host')) return { after: told(state, before, what), ok: true };
  if (!before.isEnabled) return { after: untold(before, what), ok: false };
  if (isPastRate(before)) return { after: { ...before, isDisabled: before.policy === 'disable' }, ok: false };
  return { after: counted(told(state, before, what)), ok: true };
}

export const statusFlood = defineTransition({
  name: 'status.flood',
  realm: 'page-status',
  summary: 'A guest announces again and again.',
  does: '`count` announcements in a row, up to the first that is refused: the same page in turn shared and private, every second page shared, or the whole address space in turn',
  tells: 'how many announcements were a success',
  source: `${THREAD}: Ashish Kalra on a guest that calls for ever, Steve Rutherford on malicious guests`,
  args: floodDomains,
  mayAlso: [],
  weight: 3,
  guards: [noGuest<Flood>('status.flood'), disabled<Flood>('status.flood')],
  accepts: [
    {
      id: 'status.flood/flooded',
      when: 'always',
      accept: ({ guest: label, pattern, count }, state) => {
        let current = guestOf(state, label);
        let taking = 0;
        for (; taking < Number(count); taking++) {
          const { after, ok } = oneOfMany(state, current, floods(pattern, taking));
          current = after;
          if (!ok) break;
        }
        return { state: withGuest(state, label, current), value: BigInt(taking) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, (each) => each.isEnabled || !has(state, 'status-host'));
    if (label === undefined) return undefined;
    return {
      guest: label,
      pattern: pick(random, ['same', 'alternate', 'alternate', 'huge']),
      count: pick(random, ['4', '16', '64']),
    };
  },
});
