import { fd, u64 } from '../core/domain.ts';
import { add } from '../core/ranges.ts';
import { known, withVm, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { bytes, chooseFd, chooseGfn, chooseWordOffset } from '../gmem/choose.ts';
import { isWordAligned } from '../gmem/content.ts';
import { faultIn, gfnAt, guestTop, isFound, mapGfns, resolveGfn, vmOfVcpu } from '../gmem/guest-fault.ts';
import { mayFailWithin } from '../gmem/direct-map-fault.ts';
import { chooseFrame } from './kvm-access.ts';
import { reach } from './reach.ts';

const domains = { vcpu: fd('vcpu'), rip: u64(), gpa: u64() } as const;

type GuestMmio = ArgsOf<typeof domains>;

/** The guest executes from the page, and KVM fetches the instruction from it. */
function fetched({ vcpu, rip, gpa }: GuestMmio, before: State): State {
  const vm = vmOfVcpu(before, vcpu);
  const gfn = gfnAt(rip);
  const seen = resolveGfn(before, vm, gfn);
  const executed = isFound(seen) ? mapGfns(before, vm, seen, gfn, gfn + 1) : before;
  const found = reach(executed, vm, gfn, false);
  const state = isFound(found) ? faultIn(executed, found, 1) : executed;
  const target = gfnAt(gpa);
  return withVm(state, vm, { mmio: add(known(state.vms, vm).mmio, target, target + 1) });
}

export const guestMmio = defineTransition({
  name: 'guest.mmio',
  summary:
    'A vCPU executes a load from a guest address that no slot shows: KVM fetches the instruction and asks the VMM.',
  does: 'the guest of `vcpu`, without paging, executes at `rip` a load from `gpa`: `KVM_RUN` until it comes back because of the load',
  source: 'arch/x86/kvm/x86.c: x86_emulate_instruction(), kvm_fetch_guest_virt()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: ['ENOMEM', 'EINTR'],
  weight: 4,
  guards: [
    { descriptor: 'vcpu', kind: 'vcpu', ioctl: true },
    {
      id: 'guest.mmio/unaligned',
      unmodelled: 'an access is one aligned word of eight bytes',
      when: 'the guest address is not a multiple of eight',
      violated: ({ gpa }) => !isWordAligned(gpa),
    },
    {
      id: 'guest.mmio/beyond-guest-physical',
      unmodelled: 'what a guest sees past the width of its physical addresses is up to its page tables',
      when: 'the guest address, or the instruction’s, is wider than the machine’s',
      violated: ({ gpa, rip }, state) => gpa >= guestTop(state) || rip >= guestTop(state),
      violate: (args, state) => ({ ...args, gpa: guestTop(state) }),
    },
    {
      id: 'guest.mmio/not-mmio',
      unmodelled: 'that is a load as any other, or a private one',
      when: 'a slot shows the address, or its frame is private',
      violated: ({ vcpu, gpa }, state) => resolveGfn(state, vmOfVcpu(state, vcpu), gfnAt(gpa)) !== 'no-slot',
      violate: (args) => ({ ...args, gpa: args.rip & ~7n }),
    },
    {
      id: 'guest.mmio/not-executed',
      unmodelled: 'the guest never gets to the load',
      when: 'the guest cannot have the page of the instruction',
      violated: ({ vcpu, rip }, state) => !isFound(resolveGfn(state, vmOfVcpu(state, vcpu), gfnAt(rip))),
      violate: (args) => ({ ...args, rip: args.gpa }),
    },
    {
      id: 'guest.mmio/not-fetched',
      unmodelled: 'KVM cannot emulate what it cannot read, and what it tells the VMM then is not specified',
      when: 'KVM cannot reach the page of the instruction',
      violated: ({ vcpu, rip }, state) => !isFound(reach(state, vmOfVcpu(state, vcpu), gfnAt(rip), false)),
    },
    mayFailWithin<GuestMmio>('guest.mmio'),
    {
      id: 'guest.mmio/fetched',
      result: 'MMIO exit',
      outcome: ({ gpa }) => ({ kind: 'mmio', gpa, write: false }),
      leaves: fetched,
      when: 'KVM reads the instruction from the guest’s page, through the direct map or the host address of the slot',
      violated: () => true,
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const vcpu = chooseFd(random, state, 'vcpu');
    if (vcpu === undefined) return undefined;
    const rip = bytes(chooseFrame(random, state, vmOfVcpu(state, vcpu))) + chooseWordOffset(random);
    return { vcpu, rip, gpa: bytes(chooseGfn(random) + 16) };
  },
});
