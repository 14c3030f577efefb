/** What the VMM asks of the record: one page, or all of it. */
import { u32 } from '../core/domain.ts';
import { has as hasFrame } from '../core/ranges.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { FRAMES } from './shared-set.ts';
import { guestOf, recordOf } from './status-machine.ts';
import { aimed, chooseFrames, chooseGuest, gpa, guest, noGuest, THREAD, type OnGuest } from './status-rows.ts';

const recorded = ({ guest: label }: OnGuest, state: State) => recordOf(state, guestOf(state, label));

const INCOMPLETE = `${THREAD}: Steve Rutherford on a list that is now incomplete`;

const pageDomains = { guest, gpa } as const;
type OnPage = ArgsOf<typeof pageDomains>;

export const statusPage = defineTransition({
  name: 'status.page',
  realm: 'page-status',
  summary: 'Migration asks how it must send a page.',
  does: 'the record is asked for the frame of `gpa`',
  tells: '1 where the page is shared, and goes as it is; 0 where it is private, and goes encrypted',
  source: `${THREAD}: Ashish Kalra: what is not in the list is encrypted`,
  args: pageDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noGuest<OnPage>('status.page'),
    {
      id: 'status.page/past-the-end',
      errno: 'EINVAL',
      when: 'no guest physical address is that large',
      violated: ({ gpa: address }) => address >> 12n >= BigInt(FRAMES),
      violate: (args, _state, random) => ({ ...args, gpa: pick(random, [1n << 52n, (1n << 64n) - 1n]) }),
    },
    aimed<OnPage>({
      id: 'status.page/incomplete',
      errno: 'ENODATA',
      when: 'the record is incomplete, and of no use to a migration',
      source: INCOMPLETE,
      violated: (args, state) => recorded(args, state).incomplete,
    }),
  ],
  accepts: [
    {
      id: 'status.page/shared',
      when: 'the page is shared',
      applies: (args, state) => hasFrame(recorded(args, state).ranges, Number(args.gpa >> 12n)),
      accept: (_args, state) => ({ state, value: 1n }),
    },
    {
      id: 'status.page/private',
      when: 'the page is private',
      accept: (_args, state) => ({ state, value: 0n }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state);
    if (label === undefined) return undefined;
    const { start, pages } = chooseFrames(random, guestOf(state, label));
    return { guest: label, gpa: BigInt(Math.min(start + random.below(pages + 1), FRAMES - 1)) * 4096n };
  },
});

/** Bytes of a range in the buffer: base and limit. */
const ENTRY_BYTES = 16;

const listDomains = { guest, size: u32({ boundaries: [15n, 16n, 17n, 32n] }) } as const;
type List = ArgsOf<typeof listDomains>;

const needed = (args: OnGuest, state: State): bigint => BigInt(ENTRY_BYTES * recorded(args, state).ranges.length);

/** A buffer is short, or there is none. */
const SIZE = 'size';

export const statusList = defineTransition({
  name: 'status.list',
  realm: 'page-status',
  summary: 'The VMM takes the record, as an array of bases and limits.',
  does: 'an ioctl with a buffer of `size` bytes for 16 bytes a range, and the mark; with `size` 0 it only asks how many ranges there are',
  tells: 'the number of ranges, where `size` is 0',
  source: `${THREAD}: Steve Rutherford on the serialization format`,
  args: listDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noGuest<List>('status.list'),
    aimed<List>({
      id: 'status.list/incomplete',
      group: SIZE,
      errno: 'ENODATA',
      when: 'only the number is asked for, and the record is incomplete: 0 would say that nothing is shared',
      source: INCOMPLETE,
      violated: (args, state) => args.size === 0n && recorded(args, state).incomplete,
    }),
    {
      id: 'status.list/too-short',
      group: SIZE,
      errno: 'E2BIG',
      when: 'the buffer is too short for all ranges; nothing is written',
      violated: (args, state) => args.size > 0n && args.size < needed(args, state),
      violate: (args, state) => ({ ...args, size: needed(args, state) - 1n }),
    },
    {
      id: 'status.list/listed',
      result: 'RANGES',
      outcome: (args, state) => ({ kind: 'ranges', ...recorded(args, state) }),
      when: 'there is room for all ranges; of a record that is incomplete there are none',
      violated: ({ size }) => size > 0n,
    },
  ],
  accepts: [
    {
      id: 'status.list/counted',
      when: 'the buffer has no bytes at all, and the record is complete',
      accept: (args, state) => ({ state, value: BigInt(recorded(args, state).ranges.length) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state);
    return label === undefined ? undefined : { guest: label, size: BigInt(pick(random, [0, 16, 48, 4096, 4096])) };
  },
});
