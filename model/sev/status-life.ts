/** The life of a guest that announces its shared pages: created, listened to, given memory, reset, gone. */
import { choice, fresh, u32 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { withEntry, withoutEntry } from '../core/state.ts';
import type { StatusGuest } from '../core/state-status.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { announcementRows } from './status-announce.ts';
import { counted, guestOf, has, memoryOf, SILENT, told, withGuest } from './status-machine.ts';
import { chooseGuest, gib, guest, noGuest, THREAD } from './status-rows.ts';

const MOST_GUESTS = 3;

export const statusCreate = defineTransition({
  name: 'status.create',
  realm: 'page-status',
  summary: 'Creates a guest that shares nothing, and that nobody listens to yet.',
  does: 'a guest with `gib` GiB of memory from frame 0 on; the host may keep `bound` ranges of it, and `policy` says what it does about too many hypercalls; the label `guest` stands for it from then on',
  source: `${THREAD}: Steve Rutherford on an upper bound for the number of ranges`,
  args: {
    guest: fresh('guest'),
    gib,
    bound: u32({ boundaries: [2n, 3n] }),
    policy: choice('none', 'throttle', 'disable'),
  },
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 2,
  guards: [],
  accepts: [
    {
      id: 'status.create/created',
      when: 'always',
      accept: ({ guest: label, gib: size, bound, policy }, state) => {
        const created: StatusGuest = {
          ...SILENT,
          memory: memoryOf(size),
          bound: Number(bound),
          policy,
          isEnabled: false,
        };
        const guests = withEntry(state.status.guests, label, created);
        return { state: { ...state, status: { ...state.status, guests } } };
      },
    },
  ],
  draw: ({ random, state, fresh: newLabel }) =>
    state.status.guests.size >= MOST_GUESTS
      ? undefined
      : {
          guest: newLabel('guest'),
          gib: pick(random, ['2', '2', '64']),
          bound: BigInt(pick(random, [1, 2, 2, 3, 4, 16, 64])),
          policy: pick(random, ['none', 'none', 'throttle', 'disable']),
        },
});

const enableDomains = { guest, on: choice('yes', 'no') } as const;

export const statusEnable = defineTransition({
  name: 'status.enable',
  realm: 'page-status',
  summary: 'The VMM begins to listen to announcements, or stops.',
  does: 'KVM_CAP_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE, or what a design has for it, where `on` is yes; without it where it is no',
  source: 'arch/x86/kvm/x86.c: kvm_vm_ioctl_enable_cap(), KVM_CAP_EXIT_HYPERCALL',
  args: enableDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 4,
  guards: [noGuest<ArgsOf<typeof enableDomains>>('status.enable')],
  accepts: [
    {
      id: 'status.enable/enabled',
      when: 'always',
      accept: ({ guest: label, on }, state) => ({ state: withGuest(state, label, { isEnabled: on === 'yes' }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ isEnabled }) => !isEnabled);
    return label === undefined ? undefined : { guest: label, on: pick(random, ['yes', 'yes', 'yes', 'no']) };
  },
});

const plugDomains = { guest, gib } as const;
type Plug = ArgsOf<typeof plugDomains>;

export const statusPlug = defineTransition({
  name: 'status.plug',
  realm: 'page-status',
  summary: 'Memory hot-plug: the guest gets more memory; what is recorded of it stays.',
  does: 'the guest has `gib` GiB of memory from then on',
  source: `${THREAD}: Ashish Kalra on memory hot-plug from 2 GiB to 64 GiB`,
  args: plugDomains,
  mayAlso: [],
  weight: 2,
  guards: [
    noGuest<Plug>('status.plug'),
    {
      id: 'status.plug/shrinks',
      errno: 'EINVAL',
      when: 'the guest has more memory than that',
      violated: ({ guest: label, gib: size }, state) => memoryOf(size) < guestOf(state, label).memory,
      violate: (args) => ({ ...args, gib: '2' }),
    },
  ],
  accepts: [
    {
      id: 'status.plug/plugged',
      when: 'the guest has no more memory than that',
      accept: ({ guest: label, gib: size }, state) => ({ state: withGuest(state, label, { memory: memoryOf(size) }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state);
    return label === undefined ? undefined : { guest: label, gib: '64' };
  },
});

const resetDomains = { guest, by: choice('reboot', 'kexec') } as const;
type Reset = ArgsOf<typeof resetDomains>;

/** All of the guest's memory becomes private. */
const ofKexec = ({ guest: label }: Reset, state: Parameters<typeof guestOf>[0]) => ({
  start: 0,
  end: guestOf(state, label).memory,
  private: true,
});

export const statusReset = defineTransition({
  name: 'status.reset',
  realm: 'page-status',
  summary: 'The guest starts again: the VMM resets it, or its kernel starts another one.',
  does: '`reboot`: the VMM resets the guest and forgets what it said; `kexec`: the new kernel announces all of the guest’s memory as private, in one call',
  source:
    'thread of v2 "Add AMD SEV specific Hypercall3", December 2020; arch/x86/kernel/kvm.c: kvm_init_platform(), range by range',
  args: resetDomains,
  mayAlso: [],
  weight: 2,
  guards: [
    noGuest<Reset>('status.reset'),
    ...announcementRows<Reset>('status.reset', {
      isMade: ({ by }) => by === 'kexec',
      made: ofKexec,
      make: (args) => ({ ...args, by: 'kexec' }),
    }),
  ],
  accepts: [
    {
      id: 'status.reset/reboot',
      when: 'the VMM resets the guest: nothing is shared, nothing recorded, the mark and a donation are gone',
      applies: ({ by }) => by === 'reboot',
      accept: ({ guest: label }, state) => ({ state: withGuest(state, label, SILENT) }),
    },
    {
      id: 'status.reset/kexec',
      when: 'the new kernel’s announcement arrives: what is shared beyond the guest’s memory stays so, and so does the mark',
      accept: (args, state) => {
        const before = guestOf(state, args.guest);
        const after = told(state, before, ofKexec(args, state));
        return { state: withGuest(state, args.guest, has(state, 'status-host') ? counted(after) : after) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ hasSpoken }) => hasSpoken);
    return label === undefined ? undefined : { guest: label, by: pick(random, ['reboot', 'kexec']) };
  },
});

export const statusTick = defineTransition({
  name: 'status.tick',
  realm: 'page-status',
  summary: 'The time in which a policy counts hypercalls is over, and the next begins.',
  does: 'the host counts the hypercalls of the guest from zero again',
  source: `${THREAD}: Ashish Kalra on a guest that calls for ever`,
  only: { feature: 'status-host' },
  args: { guest },
  mayAlso: [],
  weight: 2,
  guards: [noGuest('status.tick')],
  accepts: [
    {
      id: 'status.tick/counted',
      when: 'always',
      accept: ({ guest: label }, state) => ({ state: withGuest(state, label, { calls: 0 }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ calls }) => calls > 0);
    return label === undefined ? undefined : { guest: label };
  },
});

export const statusDestroy = defineTransition({
  name: 'status.destroy',
  realm: 'page-status',
  summary: 'The guest is gone, and with it what was recorded; images of it are not.',
  does: 'the last descriptor of the guest is closed',
  source: 'virt/kvm/kvm_main.c: kvm_vm_release()',
  args: { guest },
  mayAlso: [],
  weight: 1,
  guards: [noGuest('status.destroy')],
  accepts: [
    {
      id: 'status.destroy/destroyed',
      when: 'always',
      accept: ({ guest: label }, state) => ({
        state: { ...state, status: { ...state.status, guests: withoutEntry(state.status.guests, label) } },
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state);
    return label === undefined || random.below(3) > 0 ? undefined : { guest: label };
  },
});
