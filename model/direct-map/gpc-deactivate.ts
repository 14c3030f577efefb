import { known } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { chooseCache, gpaOfCache, gpc, noCache } from './cache-rows.ts';
import { withCache } from './caches.ts';

export const gpcDeactivate = defineTransition({
  name: 'gpc.deactivate',
  summary: 'Deactivates a cache: it lets go of its page.',
  does: '`kvm_gpc_deactivate(gpc)`',
  source: 'virt/kvm/pfncache.c: kvm_gpc_deactivate()',
  only: { feature: 'direct-map' },
  args: { gpc },
  mayAlso: [],
  weight: 5,
  guards: [noCache('gpc.deactivate')],
  accepts: [
    {
      id: 'gpc.deactivate/inactive',
      when: 'the cache is not active: nothing happens',
      applies: (args, state) => gpaOfCache(args, state) === undefined,
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'gpc.deactivate/deactivated',
      when: 'the cache is active; a page that it kept in the direct map leaves it with the last share',
      accept: ({ gpc: label }, state) => ({
        state: withCache(state, label, { vm: known(state.caches, label).vm, gpa: undefined, page: undefined }),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseCache(random, state, ({ gpa }) => gpa !== undefined);
    return label === undefined ? undefined : { gpc: label };
  },
});
