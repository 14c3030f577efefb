/** A guest that calls the host, and what its VMM and its kernel decide beforehand. */
import { choice, fresh, u64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { withEntry, withoutEntry } from '../core/state.ts';
import type { HypercallGuest } from '../core/state-hypercall.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { chooseGuest, guest, guestOf, KVM_HC_MAP_GPA_RANGE, noGuest, THREAD, withGuest } from './hypercall-rows.ts';

/** Source: KVM_X86_QUIRK_FIX_HYPERCALL_INSN. */
const FIX_HYPERCALL = 1n << 5n;
/** Source: KVM_X86_VALID_QUIRKS, of 7.3.4. */
const QUIRKS = 0xfffn;

const MOST_GUESTS = 3;

const guestDomains = {
  guest: fresh('guest'),
  cpu: choice('amd', 'intel'),
  sev: choice('no', 'yes'),
  text: choice('writable', 'read-only'),
} as const;

export const hypercallGuest = defineTransition({
  name: 'hypercall.guest',
  realm: 'hypercall',
  summary: 'Creates a guest on a processor of that make, encrypted or not.',
  does: 'a VM with one vCPU, in which a kernel runs that has not applied alternatives yet; KVM’s emulator can write its text where `text` is `writable`',
  source: 'arch/x86/kvm/svm/sev.c: sev_guest_init()',
  args: guestDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 4,
  guards: [
    {
      id: 'hypercall.guest/no-sev',
      errno: 'EINVAL',
      when: 'the processor has no SEV',
      violated: ({ cpu, sev }) => cpu === 'intel' && sev === 'yes',
      violate: (args) => ({ ...args, cpu: 'intel', sev: 'yes' }),
    },
  ],
  accepts: [
    {
      id: 'hypercall.guest/created',
      when: 'the processor has what is wanted',
      accept: ({ guest: label, cpu, sev, text }, state) => {
        const created: HypercallGuest = {
          cpu,
          isSev: sev === 'yes',
          isTextWritable: text === 'writable',
          exitsToVmm: false,
          isPatchedByKvm: true,
          patched: new Set(),
          hasAlternatives: false,
          pending: undefined,
        };
        return { state: { ...state, hypercall: { guests: withEntry(state.hypercall.guests, label, created) } } };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    if (state.hypercall.guests.size >= MOST_GUESTS) return undefined;
    const cpu = pick(random, ['amd', 'amd', 'intel']);
    const sev = cpu === 'amd' ? pick(random, ['no', 'yes']) : 'no';
    return { guest: label('guest'), cpu, sev, text: pick(random, ['writable', 'writable', 'read-only']) };
  },
});

const maskDomains = { guest, mask: u64({ boundaries: [1n << 12n, FIX_HYPERCALL, QUIRKS, QUIRKS + 1n] }) } as const;
type Mask = ArgsOf<typeof maskDomains>;

export const hypercallExits = defineTransition({
  name: 'hypercall.exits',
  realm: 'hypercall',
  summary: 'The VMM says which hypercalls it wants to see.',
  does: '`KVM_ENABLE_CAP` with KVM_CAP_EXIT_HYPERCALL and `mask`',
  source: 'arch/x86/kvm/x86.c: kvm_vm_ioctl_enable_cap()',
  args: maskDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 4,
  guards: [
    noGuest<Mask>('hypercall.exits'),
    {
      id: 'hypercall.exits/unknown',
      errno: 'EINVAL',
      when: 'a bit is set besides that of KVM_HC_MAP_GPA_RANGE',
      violated: ({ mask }) => (mask & ~(1n << KVM_HC_MAP_GPA_RANGE)) !== 0n,
      violate: (args, _state, random) => ({ ...args, mask: args.mask | pick(random, [1n, 1n << 63n]) }),
    },
  ],
  accepts: [
    {
      id: 'hypercall.exits/set',
      when: 'there is no other bit',
      accept: ({ guest: label, mask }, state) => ({ state: withGuest(state, label, { exitsToVmm: mask !== 0n }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ exitsToVmm }) => !exitsToVmm);
    return label === undefined ? undefined : { guest: label, mask: pick(random, [1n << 12n, 1n << 12n, 0n]) };
  },
});

export const hypercallQuirk = defineTransition({
  name: 'hypercall.quirk',
  realm: 'hypercall',
  summary: 'The VMM disables quirks of KVM: among them, that it patches the guest’s text.',
  does: '`KVM_ENABLE_CAP` with KVM_CAP_DISABLE_QUIRKS2 and `mask`',
  source: 'arch/x86/kvm/x86.c: kvm_vm_ioctl_enable_cap()',
  args: maskDomains,
  mayAlso: [],
  weight: 2,
  guards: [
    noGuest<Mask>('hypercall.quirk'),
    {
      id: 'hypercall.quirk/unknown',
      errno: 'EINVAL',
      when: 'a bit is set that no quirk has',
      violated: ({ mask }) => (mask & ~QUIRKS) !== 0n,
      violate: (args, _state, random) => ({ ...args, mask: args.mask | pick(random, [QUIRKS + 1n, 1n << 63n]) }),
    },
  ],
  accepts: [
    {
      id: 'hypercall.quirk/disabled',
      when: 'all bits are those of quirks; one that is disabled stays so',
      accept: ({ guest: label, mask }, state) => {
        const isPatchedByKvm = guestOf(state, label).isPatchedByKvm && (mask & FIX_HYPERCALL) === 0n;
        return { state: withGuest(state, label, { isPatchedByKvm }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state);
    return label === undefined
      ? undefined
      : { guest: label, mask: pick(random, [FIX_HYPERCALL, FIX_HYPERCALL, 1n, 0n]) };
  },
});

export const hypercallAlternatives = defineTransition({
  name: 'hypercall.alternatives',
  realm: 'hypercall',
  summary: 'The guest’s kernel puts the instruction of its processor where its ordinary hypercalls are.',
  does: 'apply_alternatives() in the guest',
  source: `arch/x86/include/asm/kvm_para.h: KVM_HYPERCALL; ${THREAD}`,
  args: { guest },
  mayAlso: [],
  weight: 2,
  guards: [noGuest('hypercall.alternatives')],
  accepts: [
    {
      id: 'hypercall.alternatives/applied',
      when: 'always',
      accept: ({ guest: label }, state) => ({ state: withGuest(state, label, { hasAlternatives: true }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ hasAlternatives }) => !hasAlternatives);
    return label === undefined ? undefined : { guest: label };
  },
});

export const hypercallClose = defineTransition({
  name: 'hypercall.close',
  realm: 'hypercall',
  summary: 'The guest is gone.',
  does: 'the last descriptor of the guest is closed',
  source: 'virt/kvm/kvm_main.c: kvm_vm_release()',
  args: { guest },
  mayAlso: [],
  weight: 1,
  guards: [noGuest('hypercall.close')],
  accepts: [
    {
      id: 'hypercall.close/closed',
      when: 'always',
      accept: ({ guest: label }, state) => ({
        state: { ...state, hypercall: { guests: withoutEntry(state.hypercall.guests, label) } },
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state);
    return label === undefined || random.below(3) > 0 ? undefined : { guest: label };
  },
});
