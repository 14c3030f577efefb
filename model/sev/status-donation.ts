/** The guest keeps the record in memory of its own, and says where. */
import { PAGE_MASK, PAGE_SIZE } from '../core/abi.ts';
import { choice, u32 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { MARKED_RECORD } from './shared-set.ts';
import { donated, guestOf, withGuest } from './status-machine.ts';
import { aimed, ATTACK, chooseGuest, disabled, gpa, guest, noGuest, THREAD, type OnGuest } from './status-rows.ts';

/** A header of 16 bytes, and as much for each range. */
const ENTRY_BYTES = 16n;

const donateDomains = { guest, gpa, entries: u32({ boundaries: [2n, 3n] }) } as const;
type Donate = ArgsOf<typeof donateDomains>;

const hasDonated = ({ guest: label }: OnGuest, state: State): boolean => guestOf(state, label).donation !== undefined;

const isPastMemory = ({ guest: label, gpa: base, entries }: Donate, state: State): boolean =>
  base + ENTRY_BYTES * (entries + 1n) > BigInt(guestOf(state, label).memory) * PAGE_SIZE;

export const statusDonate = defineTransition({
  name: 'status.donate',
  realm: 'page-status',
  summary: 'The guest says where it keeps the ranges that it shares; with them in it.',
  does: 'a hypercall with the address `gpa` of a structure in shared memory of the guest, which has room for `entries` ranges',
  source: `${THREAD}: Steve Rutherford on a model based on memory donation`,
  only: { feature: 'status-donation' },
  args: donateDomains,
  mayAlso: [],
  builds: true,
  weight: 8,
  guards: [
    noGuest<Donate>('status.donate'),
    disabled<Donate>('status.donate'),
    aimed<Donate>({
      id: 'status.donate/no-exit',
      errno: 'ENOSYS',
      when: 'the VMM does not listen',
      violated: ({ guest: label }, state) => !guestOf(state, label).isEnabled,
    }),
    aimed<Donate>({
      ...ATTACK,
      id: 'status.donate/attacks-twice',
      group: 'twice',
      when: 'the guest has donated before, and the policy disables: the guest is disabled',
      source: `${THREAD}: Ashish Kalra: the hypervisor will expect only one hypercall`,
      violated: (args, state) => hasDonated(args, state) && guestOf(state, args.guest).policy === 'disable',
    }),
    aimed<Donate>({
      id: 'status.donate/twice',
      group: 'twice',
      errno: 'EEXIST',
      when: 'the guest has donated before',
      source: `${THREAD}: Ashish Kalra: the hypervisor will expect only one hypercall`,
      violated: (args, state) => hasDonated(args, state) && guestOf(state, args.guest).policy !== 'disable',
    }),
    {
      id: 'status.donate/unaligned',
      errno: 'EINVAL',
      when: '`gpa` is not a multiple of the page size',
      violated: ({ gpa: base }) => (base & PAGE_MASK) !== 0n,
      violate: (args) => ({ ...args, gpa: args.gpa | 8n }),
    },
    {
      id: 'status.donate/no-entries',
      errno: 'EINVAL',
      when: 'there is room for no range',
      violated: ({ entries }) => entries === 0n,
      violate: (args) => ({ ...args, entries: 0n }),
    },
    {
      id: 'status.donate/past-memory',
      errno: 'EINVAL',
      when: 'the structure, with its header of 16 bytes and 16 for each range, does not lie within the guest’s memory',
      violated: isPastMemory,
      violate: (args, state) => ({ ...args, gpa: BigInt(guestOf(state, args.guest).memory) * PAGE_SIZE }),
    },
  ],
  accepts: [
    {
      id: 'status.donate/too-small',
      when: 'there is not room for all ranges that the guest shares: the guest marks the record',
      applies: ({ guest: label, entries }, state) => donated(guestOf(state, label), Number(entries)).record.incomplete,
      accept: ({ guest: label, entries }, state) => ({
        state: withGuest(state, label, donated(guestOf(state, label), Number(entries))),
      }),
    },
    {
      id: 'status.donate/donated',
      when: 'there is room',
      accept: ({ guest: label, entries }, state) => ({
        state: withGuest(state, label, donated(guestOf(state, label), Number(entries))),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ isEnabled, donation }) => isEnabled && donation === undefined);
    if (label === undefined) return undefined;
    return { guest: label, gpa: BigInt(random.below(16)) * PAGE_SIZE, entries: BigInt(pick(random, [1, 2, 3, 4, 64])) };
  },
});

const scribbleDomains = {
  guest,
  how: choice('race', 'unsorted', 'overlap', 'adjacent', 'empty', 'past-end', 'count'),
} as const;
type Scribble = ArgsOf<typeof scribbleDomains>;

export const statusScribble = defineTransition({
  name: 'status.scribble',
  realm: 'page-status',
  summary: 'The guest makes its structure what it must not be, or changes it while the host reads.',
  does: 'the guest writes ranges that are not canonical, or a count that is larger than the structure; `race`: the count that it has is read once, and 2^32 − 1 from then on until the host is through',
  source: `${THREAD}: Steve Rutherford on the additional complexity of memory donation`,
  only: { feature: 'status-donation' },
  args: scribbleDomains,
  mayAlso: [],
  weight: 3,
  guards: [
    noGuest<Scribble>('status.scribble'),
    disabled<Scribble>('status.scribble'),
    aimed<Scribble>({
      id: 'status.scribble/no-structure',
      unmodelled: 'a guest that has said nothing of a structure has none',
      when: 'the guest has not donated',
      violated: (args, state) => !hasDonated(args, state),
    }),
  ],
  accepts: [
    {
      id: 'status.scribble/raced',
      when: 'the count changes behind the first look at it: the host does not look again',
      applies: ({ how }) => how === 'race',
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'status.scribble/found-out',
      when: 'what is there is not canonical, or more than fits: the host finds the record incomplete, and it stays so',
      accept: ({ guest: label }, state) => ({ state: withGuest(state, label, { record: MARKED_RECORD }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ donation, isDisabled }) => donation !== undefined && !isDisabled);
    return label === undefined
      ? undefined
      : { guest: label, how: pick(random, scribbleDomains.how.words ?? []) as 'race' };
  },
});
