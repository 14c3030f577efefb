/** Memory failures that somebody makes up, and what takes them back. */
import { choice } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { GFNS, guestOf, isOwnOfKernel, isVirtual, pageAt, pageOf, withPage } from './machine.ts';
import { frameOf, guestFailed, hostFailed, hostUnpoisoned, isKnownToHost } from './memory-failure.ts';
import {
  aimed,
  chooseFrame,
  chooseAside,
  ended,
  gfn,
  guestLabel,
  HARNESS,
  isAfflicted,
  MF_SOURCE,
  noGuest,
  noMemory,
  unplugged,
} from './rows.ts';

const domains = { guest: guestLabel, gfn, where: choice('guest', 'host') } as const;
type Where = ArgsOf<typeof domains>;

const isOfHost = ({ where }: Where, state: State): boolean => isVirtual(state) && where === 'host';

/** A kernel that has ended answers nobody; the host's is there as long as the memory is. */
const endedThere = (command: string): readonly Guard<Where>[] => {
  const row = ended<Where>(command);
  const memory = noMemory<Where>(command);
  return [
    {
      ...aimed<Where>(
        { where: ['guest', 'host'] },
        { ...row, violated: (args, state) => !isOfHost(args, state) && row.violated(args, state) },
      ),
      group: 'ended',
    },
    {
      ...aimed<Where>(
        { where: ['guest', 'host'] },
        {
          ...memory,
          only: { feature: 'virtual' },
          violated: (args, state) => isOfHost(args, state) && memory.violated(args, state),
        },
      ),
      group: 'ended',
    },
  ];
};

const row = (each: Guard<Where>): Guard<Where> => aimed<Where>({ gfn: GFNS, where: ['guest', 'host'] }, each);

const pageIn = (args: Where, state: State) => pageOf(state, args.guest, args.gfn);
const isGmem = (args: Where, state: State): boolean => guestOf(state, args.guest).memory === 'gmem';

/** Whether the kernel that is asked knows the frame to be poisoned. */
const isKnown = (args: Where, state: State): boolean =>
  isOfHost(args, state) ? isKnownToHost(state, pageIn(args, state)) : pageIn(args, state).isPoisoned;

/** What the failure comes to in that kernel. */
const failed = (args: Where, state: State): State =>
  isOfHost(args, state)
    ? hostFailed(state, { guest: args.guest, gfn: args.gfn, isSimulated: true })
    : guestFailed(state, args.guest, args.gfn, true);

const SIMULATED = `mm/hwpoison-inject.c: hwpoison_inject(); ${MF_SOURCE}: memory_failure()`;

const draw: Parameters<typeof defineTransition<string, typeof domains>>[0]['draw'] = ({ random, state }) => {
  const label = chooseAside(random, state, (guest) => guest.state !== 'killed');
  if (label === undefined) return undefined;
  const guest = guestOf(state, label);
  const at = chooseFrame(random, guest, random.below(2) === 0 ? isAfflicted : ({ use }) => use !== 'free');
  const isOwn = pageAt(guest, at) !== undefined && isOwnOfKernel(pageOf(state, label, at));
  return { guest: label, gfn: at, where: isOwn && random.below(4) > 0 ? 'guest' : pick(random, ['guest', 'host']) };
};

export const pageSimulate = defineTransition({
  name: 'page.simulate',
  realm: 'mc',
  summary: 'Somebody says to the host, or to the kernel of a guest, that a frame is bad.',
  does: 'the number of the frame is written to corrupt-pfn of hwpoison-inject, in that kernel',
  source: SIMULATED,
  args: domains,
  mayAlso: [],
  weight: 8,
  guards: [
    noGuest<Where>('page.simulate'),
    ...endedThere('page.simulate'),
    unplugged<Where>('page.simulate'),
    row({
      id: 'page.simulate/known',
      group: 'page',
      errno: 'EHWPOISON',
      when: 'the kernel knows the frame to be poisoned',
      violated: isKnown,
    }),
    row({
      id: 'page.simulate/no-frame',
      group: 'page',
      only: { feature: 'virtual' },
      errno: 'ENOENT',
      when: 'nothing backs the guest frame that the host could be asked about',
      source: HARNESS,
      violated: (args, state) =>
        isOfHost(args, state) && !isKnown(args, state) && pageIn(args, state).backing === undefined,
    }),
    row({
      id: 'page.simulate/own-of-kernel',
      group: 'page',
      errno: 'EBUSY',
      when: 'the page is the kernel’s own: it is poisoned, and nothing else is done',
      source: `${MF_SOURCE}: get_hwpoison_page(), action_result()`,
      violated: (args, state) => !isOfHost(args, state) && !isKnown(args, state) && isOwnOfKernel(pageIn(args, state)),
      leaves: failed,
    }),
    row({
      id: 'page.simulate/gmem',
      group: 'page',
      only: { feature: 'virtual' },
      errno: 'EBUSY',
      when: 'the frame is one of gmem: the host takes it, and what gmem answers counts as a failure',
      source: `virt/kvm/guest_memfd.c: kvm_gmem_error_folio(); ${MF_SOURCE}: truncate_error_folio()`,
      violated: (args, state) => isOfHost(args, state) && !isKnown(args, state) && isGmem(args, state),
      leaves: failed,
    }),
  ],
  accepts: [
    {
      id: 'page.simulate/poisoned',
      when: 'the kernel takes the page from those who have it, but leaves it in its own map',
      accept: (args, state) => ({ state: failed(args, state) }),
    },
  ],
  draw,
});

const hadFailure = (args: Where, state: State): boolean =>
  isOfHost(args, state) ? state.mc.hadFailure : guestOf(state, args.guest).hadFailure;

/** What unpoisoning gives back. Whoever has a poison entry of the page keeps it. */
function unpoisoned(args: Where, state: State): State {
  if (!isOfHost(args, state)) return withPage(state, args.guest, args.gfn, { isPoisoned: false, use: 'free' });
  const frame = frameOf(pageIn(args, state));
  return frame === undefined ? state : hostUnpoisoned(state, frame);
}

export const pageUnpoison = defineTransition({
  name: 'page.unpoison',
  realm: 'mc',
  summary: 'Somebody asks the host, or the kernel of a guest, to take a frame for good again.',
  does: 'the number of the frame is written to unpoison-pfn of hwpoison-inject, in that kernel',
  source: `${MF_SOURCE}: unpoison_memory()`,
  args: domains,
  mayAlso: [],
  weight: 8,
  guards: [
    noGuest<Where>('page.unpoison'),
    ...endedThere('page.unpoison'),
    unplugged<Where>('page.unpoison'),
    row({
      id: 'page.unpoison/hardware-failure',
      errno: 'EOPNOTSUPP',
      when: 'the kernel has had a memory failure of the hardware since it booted',
      violated: hadFailure,
    }),
    row({
      id: 'page.unpoison/good',
      group: 'page',
      errno: 'EBUSY',
      when: 'the kernel does not know the frame to be poisoned',
      violated: (args, state) => !isKnown(args, state),
    }),
    row({
      id: 'page.unpoison/own-of-kernel',
      group: 'page',
      errno: 'EBUSY',
      when: 'the page is in use by the kernel',
      violated: (args, state) =>
        !isOfHost(args, state) &&
        isKnown(args, state) &&
        isOwnOfKernel(pageIn(args, state)) &&
        !pageIn(args, state).isLost,
    }),
    row({
      id: 'page.unpoison/gmem',
      group: 'page',
      only: { feature: 'virtual' },
      errno: 'EBUSY',
      when: 'the frame is in a file of guest memory',
      violated: (args, state) => isOfHost(args, state) && isKnown(args, state) && isGmem(args, state),
    }),
  ],
  accepts: [
    {
      id: 'page.unpoison/unpoisoned',
      when: 'the frame is poisoned and nobody has it: it is free; poison entries in page tables stay',
      accept: (args, state) => ({ state: unpoisoned(args, state) }),
    },
  ],
  draw,
});
