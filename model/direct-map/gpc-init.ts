import { fd, fresh } from '../core/domain.ts';
import { defineTransition } from '../core/transition.ts';
import { chooseFd } from '../gmem/choose.ts';
import { vmOfVcpu } from '../gmem/guest-fault.ts';
import { withCache } from './caches.ts';

export const gpcInit = defineTransition({
  name: 'gpc.init',
  summary: 'Sets up a gfn_to_pfn_cache of a vCPU, such as the one for its kvm-clock.',
  does: '`kvm_gpc_init(gpc, vcpu->kvm)`',
  source: 'virt/kvm/pfncache.c: kvm_gpc_init()',
  only: { feature: 'direct-map' },
  args: { gpc: fresh('gpc'), vcpu: fd('vcpu') },
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 4,
  guards: [{ descriptor: 'vcpu', kind: 'vcpu', ioctl: true }],
  accepts: [
    {
      id: 'gpc.init/inactive',
      when: 'the vCPU is there: the cache is inactive and has no page',
      accept: ({ gpc, vcpu }, state) => ({
        state: withCache(state, gpc, { vm: vmOfVcpu(state, vcpu), gpa: undefined, page: undefined }),
      }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    // Three caches meet on a page often enough.
    if (state.caches.size >= 3 && random.below(8) > 0) return undefined;
    const vcpu = chooseFd(random, state, 'vcpu');
    return vcpu === undefined ? undefined : { gpc: label('gpc'), vcpu };
  },
});
