/** Guests come, start anew, move to another host, and go. */
import { choice, fresh } from '../core/domain.ts';
import type { McGuest, McPage } from '../core/machine-check.ts';
import { pick } from '../core/random.ts';
import { withEntry, withoutEntry, type Label, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import {
  BOOTED,
  GFNS,
  guestOf,
  isVirtual,
  LINES,
  newFrame,
  newPage,
  pageAt,
  UNUSED,
  withGuest,
  withMachine,
} from './machine.ts';
import { hostDone, hostFailed, hostWorkOf, isNews, vmmKilled } from './memory-failure.ts';
import {
  aimed,
  chooseAside,
  ended,
  guestDomains,
  guestLabel,
  HARNESS,
  isAfflicted,
  noGuest,
  type OnGuest,
} from './rows.ts';
import { isConsumed, toVmm } from './touching.ts';

const MOST_GUESTS = 3;

export const guestCreate = defineTransition({
  name: 'guest.create',
  realm: 'mc',
  summary: 'A guest starts, on memory that the VMM has mapped or on a guest_memfd; without a VMM, a machine.',
  does: 'KVM_CREATE_VM, a slot of four frames of `memory`, two vCPUs with KVM_X86_SETUP_MCE of two banks; the kernel boots and has two tasks',
  source: 'arch/x86/kvm/x86.c: kvm_vcpu_ioctl_x86_setup_mce()',
  args: { guest: fresh('guest'), memory: choice('ordinary', 'gmem') },
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 4,
  guards: [],
  accepts: [
    {
      id: 'guest.create/created',
      when: 'always',
      accept: ({ guest, memory }, state) => {
        const { nextFrame, guests } = state.mc;
        const made: McGuest = {
          ...BOOTED,
          ...{ memory, isDisturbed: false, reboots: 0, replaced: 0 },
          pages: GFNS.map((_gfn, index) => newPage(nextFrame + index)),
        };
        return {
          state: withMachine(state, { guests: withEntry(guests, guest, made), nextFrame: nextFrame + GFNS.length }),
        };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) =>
    state.mc.guests.size >= MOST_GUESTS
      ? undefined
      : { guest: label('guest'), memory: pick(random, ['ordinary', 'ordinary', 'gmem']) },
});

const rebootDomains = { guest: guestLabel, replace: choice('yes', 'no') } as const;
type Reboot = ArgsOf<typeof rebootDomains>;

/** The guest as its kernel finds it when it boots. */
function rebooted(state: State, label: Label, replaces: boolean): State {
  let { nextFrame } = state.mc;
  const pages = guestOf(state, label).pages.map((page): McPage | undefined => {
    if (page === undefined) return undefined;
    if (!(replaces && page.isTaken)) return { ...page, ...UNUSED };
    return newPage(nextFrame++);
  });
  const { reboots, replaced } = guestOf(state, label);
  const after = withGuest(state, label, {
    ...BOOTED,
    ...{ pages, reboots: reboots + 1, replaced: replaced + (replaces ? 1 : 0) },
  });
  return withMachine(after, { nextFrame });
}

const isReplacing = ({ replace }: Reboot, state: State): boolean => isVirtual(state) && replace === 'yes';

export const guestReboot = defineTransition({
  name: 'guest.reboot',
  realm: 'mc',
  summary: 'A guest starts anew. What the host took stays so, unless the VMM puts other memory there.',
  does: 'the VMM resets the guest; with `replace` it first maps other memory over what the host took, or punches it out',
  source: `virt/kvm/guest_memfd.c: kvm_gmem_punch_hole(); mm/memory.c: zap_nonpresent_ptes(); ${HARNESS}`,
  args: rebootDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noGuest<Reboot>('guest.reboot'),
    aimed<Reboot>(
      {},
      {
        id: 'guest.reboot/killed',
        group: 'threads',
        only: { feature: 'virtual' },
        errno: 'EIO',
        when: 'the VMM of the guest was killed',
        source: HARNESS,
        violated: (args, state) => guestOf(state, args.guest).state === 'killed',
      },
    ),
    aimed<Reboot>(
      {},
      {
        id: 'guest.reboot/vmm-killed',
        group: 'threads',
        only: { feature: 'virtual' },
        result: 'SIGBUS to the VMM',
        when: 'the thread of a vCPU has work of the host left, about a frame of gmem: it does that on its way out, and is killed',
        source: 'arch/x86/kernel/cpu/mce/core.c: kill_me_maybe(), kill_me_now()',
        violated: (args, state) =>
          guestOf(state, args.guest).memory === 'gmem' &&
          hostWorkOf(state, args.guest).some((each) => isNews(state, args.guest, each.gfn)),
        outcome: () => toVmm('none'),
        leaves: (args, state) => vmmKilled(state, args.guest, hostWorkOf(state, args.guest)),
      },
    ),
  ],
  accepts: [
    {
      id: 'guest.reboot/replaced',
      only: { feature: 'virtual' },
      when: 'the VMM replaces what the host took',
      applies: isReplacing,
      accept: (args, state) => ({ state: rebooted(hostDone(state, args.guest), args.guest, true) }),
    },
    {
      id: 'guest.reboot/carried',
      when: 'the frames are those that they were: the kernel knows nothing of what is bad in them',
      accept: (args, state) => ({ state: rebooted(hostDone(state, args.guest), args.guest, false) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state, (guest) =>
      guest.state === 'running' ? guest.isDisturbed && random.below(4) === 0 : guest.state !== 'killed',
    );
    return label === undefined ? undefined : { guest: label, replace: pick(random, ['yes', 'no']) };
  },
});

export const guestDestroy = defineTransition({
  name: 'guest.destroy',
  realm: 'mc',
  summary: 'A guest goes, and its memory with it. What the host knows to be poisoned is not used again.',
  does: 'the VMM exits',
  source: 'mm/page_alloc.c: free_pages_prepare(); virt/kvm/kvm_main.c: kvm_vm_release()',
  args: guestDomains,
  mayAlso: [],
  weight: 2,
  guards: [noGuest<OnGuest>('guest.destroy')],
  accepts: [
    {
      id: 'guest.destroy/destroyed',
      when: 'always',
      accept: ({ guest }, state) => {
        const done = hostDone(state, guest);
        return { state: withMachine(done, { guests: withoutEntry(done.mc.guests, guest) }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state, (guest) => guest.state !== 'running' || guest.isDisturbed);
    return label === undefined ? undefined : { guest: label };
  },
});

/** The first guest frame that cannot be copied. */
const unreadable = (state: State, label: Label): string | undefined =>
  GFNS.find((gfn) => {
    const page = pageAt(guestOf(state, label), gfn);
    return page !== undefined && LINES.some((line) => isConsumed(page, line, 'copyin'));
  });

/** Both CPUs run. */
export const bothRun = <A extends OnGuest>(command: string): Guard<A> =>
  aimed<A>(
    {},
    {
      id: `${command}/busy`,
      errno: 'EBUSY',
      when: 'a CPU is out of the guest, or in the handler of machine checks',
      source: HARNESS,
      violated: (args, state) => guestOf(state, args.guest).cpus.some(({ stage }) => stage !== 'runs'),
    },
  );

const migrated = (state: State, label: Label): State => {
  let { nextFrame } = state.mc;
  const pages = guestOf(state, label).pages.map((page): McPage | undefined => {
    if (page === undefined) return undefined;
    if (page.backing === undefined) return { ...page, detached: undefined };
    const lines = page.backing.lines.map(({ value }) => ({ value, isBad: false, cached: undefined }));
    return { ...page, backing: { ...newFrame(nextFrame++), lines } };
  });
  return withMachine(withGuest(state, label, { pages }), { nextFrame });
};

export const guestMigrate = defineTransition({
  name: 'guest.migrate',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary: 'A guest moves to another host, which is told what was taken from it.',
  does: 'the VMM copies memory and state to another host, and has UFFDIO_POISON stand there for what was taken',
  source: 'fs/userfaultfd.c: userfaultfd_poison(); mm/userfaultfd.c: mfill_atomic_pte_poison()',
  args: guestDomains,
  mayAlso: [],
  weight: 3,
  guards: [
    noGuest<OnGuest>('guest.migrate'),
    ended<OnGuest>('guest.migrate'),
    aimed<OnGuest>(
      {},
      {
        id: 'guest.migrate/cannot-be-read',
        errno: 'EOPNOTSUPP',
        when: 'the memory is a guest_memfd, which the VMM cannot read',
        source: HARNESS,
        violated: (args, state) => guestOf(state, args.guest).memory === 'gmem',
      },
    ),
    bothRun<OnGuest>('guest.migrate'),
    aimed<OnGuest>(
      {},
      {
        id: 'guest.migrate/bad-line',
        errno: 'EFAULT',
        when: 'a system call of the VMM meets a bad line: the host knows of it then, and takes the first such frame',
        source: 'arch/x86/kernel/cpu/mce/core.c: kill_me_never()',
        violated: (args, state) => unreadable(state, args.guest) !== undefined,
        leaves: (args, state) => hostFailed(state, { guest: args.guest, gfn: unreadable(state, args.guest) ?? '0' }),
      },
    ),
  ],
  accepts: [
    {
      id: 'guest.migrate/moved',
      when: 'all that can be read is copied to good memory; what was taken is so there, too',
      accept: (args, state) => ({ state: migrated(state, args.guest) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(
      random,
      state,
      (guest) =>
        guest.state === 'running' &&
        guest.memory === 'ordinary' &&
        guest.pages.some((page) => page !== undefined && isAfflicted(page)),
    );
    return label === undefined ? undefined : { guest: label };
  },
});
