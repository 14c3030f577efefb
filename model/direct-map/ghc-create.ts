import { fd, fresh } from '../core/domain.ts';
import { withEntry } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { chooseFd } from '../gmem/choose.ts';
import { vmOfVcpu } from '../gmem/guest-fault.ts';

export const ghcCreate = defineTransition({
  name: 'ghc.create',
  summary: 'A gfn_to_hva_cache of a vCPU, such as the one for its steal time, as it is when the vCPU is created.',
  does: 'nothing that KVM does for itself: the cache is zeroed with its vCPU, `vcpu`',
  source: 'include/linux/kvm_types.h: struct gfn_to_hva_cache; virt/kvm/kvm_main.c: kvm_vm_ioctl_create_vcpu()',
  only: { feature: 'direct-map' },
  args: { ghc: fresh('ghc'), vcpu: fd('vcpu') },
  mayAlso: [],
  builds: true,
  weight: 3,
  guards: [{ descriptor: 'vcpu', kind: 'vcpu', ioctl: true }],
  accepts: [
    {
      id: 'ghc.create/empty',
      when: 'the vCPU is there: the range of the cache has no bytes',
      accept: ({ ghc, vcpu }, state) => {
        const cache = { vm: vmOfVcpu(state, vcpu), gpa: 0n, length: 0n, lost: false };
        return { state: { ...state, hvaCaches: withEntry(state.hvaCaches, ghc, cache) } };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    if (state.hvaCaches.size >= 2 && random.below(8) > 0) return undefined;
    const vcpu = chooseFd(random, state, 'vcpu');
    return vcpu === undefined ? undefined : { ghc: label('ghc'), vcpu };
  },
});
