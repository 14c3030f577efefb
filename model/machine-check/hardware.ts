/** What the hardware does by itself: lines go bad, the scrubber finds them, and devices read. */
import type { TouchEvent } from '../core/machine-check.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { GFNS, guestOf, isVirtual, lineOf, LINES, pageOf, withEvents, withLine, withPage } from './machine.ts';
import { foundByHardware, hostFailed, isKnownToHost } from './memory-failure.ts';
import {
  aimed,
  chooseFrame,
  chooseAside,
  ended,
  frameDomains,
  gfn,
  guestLabel,
  HARNESS,
  isAfflicted,
  line,
  MCE_SOURCE,
  MF_SOURCE,
  noFrame,
  noGuest,
  noMemory,
  unplugged,
  type OnFrame,
} from './rows.ts';
import { isConsumed } from './touching.ts';

const lineDomains = { guest: guestLabel, gfn, line } as const;
type OnLine = ArgsOf<typeof lineDomains>;

export const hwPoison = defineTransition({
  name: 'hw.poison',
  realm: 'mc',
  summary: 'A line of memory goes bad, and nobody knows.',
  does: 'the line of the frame that backs the guest frame goes bad',
  source: 'Intel SDM, volume 3, 17.6: recovery of uncorrected recoverable errors',
  args: lineDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 12,
  guards: [
    noGuest<OnLine>('hw.poison'),
    noMemory<OnLine>('hw.poison'),
    unplugged<OnLine>('hw.poison'),
    noFrame<OnLine>('hw.poison'),
  ],
  accepts: [
    {
      id: 'hw.poison/bad',
      when: 'always',
      accept: (args, state) => {
        const { backing } = pageOf(state, args.guest, args.gfn);
        const change = { backing: backing && withLine(backing, args.line, { isBad: true }) };
        return { state: withPage(state, args.guest, args.gfn, change, { isDisturbed: true }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state, (guest) => guest.state === 'running' && random.below(2) === 0);
    if (label === undefined) return undefined;
    const at = chooseFrame(random, guestOf(state, label), ({ use }) => use !== 'free');
    return { guest: label, gfn: at, line: pick(random, LINES) };
  },
});

type Scrub = ArgsOf<typeof frameDomains>;

const isBad = (args: OnFrame, state: State): boolean =>
  pageOf(state, args.guest, args.gfn).backing?.lines.some((each) => each.isBad) === true;

export const hwScrub = defineTransition({
  name: 'hw.scrub',
  realm: 'mc',
  summary: 'The patrol scrubber reads a frame, and reports what is bad in it; nobody has consumed it.',
  does: 'the memory controller reads the frame, and reports a bad line to the kernel on the hardware as one for which action is optional',
  source: `${MCE_SOURCE}: uc_decode_notifier(); ${MF_SOURCE}: memory_failure()`,
  args: frameDomains,
  mayAlso: [],
  weight: 12,
  guards: [
    noGuest<Scrub>('hw.scrub'),
    noMemory<Scrub>('hw.scrub'),
    unplugged<Scrub>('hw.scrub'),
    noFrame<Scrub>('hw.scrub'),
  ],
  accepts: [
    {
      id: 'hw.scrub/good',
      when: 'nothing is bad in the frame',
      applies: (args, state) => !isBad(args, state),
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'hw.scrub/known',
      only: { feature: 'virtual' },
      when: 'the host knows: nothing is left to do',
      applies: (args, state) => isKnownToHost(state, pageOf(state, args.guest, args.gfn)),
      accept: (args, state) => ({ state: foundByHardware(state, args.guest, args.gfn) }),
    },
    {
      id: 'hw.scrub/found-in-gmem',
      only: { feature: 'virtual' },
      when: 'the host takes the frame, which stays in its file and in the direct map; nobody is told, because no process has it mapped and what gmem answers counts as a failure',
      source: `virt/kvm/guest_memfd.c: kvm_gmem_error_folio(); ${MF_SOURCE}: truncate_error_folio()`,
      applies: (args, state) => guestOf(state, args.guest).memory === 'gmem',
      accept: (args, state) => ({ state: foundByHardware(state, args.guest, args.gfn) }),
    },
    {
      id: 'hw.scrub/found',
      only: { feature: 'virtual' },
      when: 'the host takes the frame, from its direct map as well, and the main thread of the VMM is told',
      source: `${MF_SOURCE}: hwpoison_user_mappings(), find_early_kill_thread()`,
      accept: (args, state) => ({ state: foundByHardware(state, args.guest, args.gfn) }),
    },
    {
      id: 'hw.scrub/reported',
      only: { feature: 'no-vmm' },
      when: 'the worker of the kernel has a report to look at',
      accept: (args, state) => ({ state: foundByHardware(state, args.guest, args.gfn) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state, ({ state: now, isDisturbed }) => now !== 'killed' && isDisturbed);
    if (label === undefined) return undefined;
    const at = chooseFrame(
      random,
      guestOf(state, label),
      ({ backing }) => backing?.lines.some((each) => each.isBad) === true,
    );
    return { guest: label, gfn: at };
  },
});

const told = (args: OnLine, state: State): State =>
  withEvents(state, {
    touches: [
      {
        ...{ vm: args.guest, gfn: Number(args.gfn), line: Number(args.line) },
        ...{ by: 'device', how: 'load', comesTo: 'fault' },
      } satisfies TouchEvent,
    ],
  });

const isBadLine = (args: OnLine, state: State): boolean =>
  isConsumed(pageOf(state, args.guest, args.gfn), args.line, 'load');

const deviceRow = (row: Guard<OnLine>): Guard<OnLine> =>
  aimed<OnLine>({ gfn: GFNS, line: LINES }, { ...row, group: 'page' });

export const deviceRead = defineTransition({
  name: 'device.read',
  realm: 'mc',
  summary:
    'A device reads memory of a guest: a part of the VMM that has the host copy it, or, without a VMM, one that does DMA.',
  does: 'a thread of the VMM has a system call copy the word from the host address of the frame; without a VMM, a device loads it',
  tells: 'the word',
  source: 'lib/iov_iter.c: copy_from_user_iter()',
  args: lineDomains,
  mayAlso: [],
  weight: 8,
  guards: [
    noGuest<OnLine>('device.read'),
    ended<OnLine>('device.read'),
    unplugged<OnLine>('device.read'),
    deviceRow({
      id: 'device.read/cannot-be-read',
      only: { feature: 'virtual' },
      errno: 'EFAULT',
      when: 'the memory is a guest_memfd, which the VMM has not mapped',
      source: HARNESS,
      violated: (args, state) => isVirtual(state) && guestOf(state, args.guest).memory === 'gmem',
    }),
    deviceRow({
      id: 'device.read/taken',
      only: { feature: 'virtual' },
      errno: 'EFAULT',
      when: 'the host has taken the frame: the VMM has a poison entry of it',
      source: 'arch/x86/mm/fault.c: kernelmode_fixup_or_oops()',
      violated: (args, state) =>
        guestOf(state, args.guest).memory === 'ordinary' && pageOf(state, args.guest, args.gfn).isTaken,
      leaves: told,
    }),
    deviceRow({
      id: 'device.read/bad-line',
      only: { feature: 'virtual' },
      errno: 'EFAULT',
      when: 'the line is bad, and the copy ends at the machine check: the host takes the frame, and the main thread of the VMM is told',
      source: `${MCE_SOURCE}: kill_me_never()`,
      violated: (args, state) => guestOf(state, args.guest).memory === 'ordinary' && isBadLine(args, state),
      leaves: (args, state) => hostFailed(state, args),
    }),
    deviceRow({
      id: 'device.read/dma-of-bad-line',
      only: { feature: 'no-vmm' },
      errno: 'EIO',
      when: 'the line is bad: the device is told, and no CPU',
      source: 'PCI Express base specification, 2.7.2: error forwarding',
      violated: isBadLine,
      leaves: told,
    }),
  ],
  accepts: [
    {
      id: 'device.read/told',
      when: 'the line is good',
      accept: (args, state) => ({ state, value: lineOf(pageOf(state, args.guest, args.gfn), args.line)?.value ?? 0n }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    const at = chooseFrame(random, guestOf(state, label), random.below(2) === 0 ? isAfflicted : () => true);
    return { guest: label, gfn: at, line: pick(random, LINES) };
  },
});
