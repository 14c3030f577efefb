import type { State } from '../core/state.ts';
import { defineTransition, type Accepted } from '../core/transition.ts';
import { readWord } from '../gmem/content.ts';
import {
  chooseCache,
  gpaOfCache,
  gpc,
  noCache,
  refreshed,
  reinsertedRow,
  useRows,
  type OnCache,
} from './cache-rows.ts';
import { cachedPlace, isCurrent } from './caches.ts';

function read(args: OnCache, before: State): Accepted {
  const state = refreshed(args, before);
  return { state, value: readWord(state, cachedPlace(state, args.gpc)) };
}

export const gpcRead = defineTransition({
  name: 'gpc.read',
  readsSecrets: true,
  summary: 'KVM reads a word through a cache, which is refreshed first if kvm_gpc_check() says so.',
  does: '`kvm_gpc_refresh(gpc, 8)` while `kvm_gpc_check(gpc, 8)` fails; then `*(u64 *)gpc->khva`',
  tells: 'the word',
  source: 'virt/kvm/pfncache.c: kvm_gpc_check(), kvm_gpc_refresh(); arch/x86/kvm/xen.c: kvm_xen_set_evtchn_fast()',
  only: { feature: 'direct-map' },
  args: { gpc },
  mayAlso: [],
  weight: 7,
  guards: [noCache('gpc.read'), ...useRows('gpc.read')],
  accepts: [
    {
      id: 'gpc.read/current',
      when: 'the cache has the page that backs its address',
      applies: (args, state) => isCurrent(state, args.gpc),
      accept: read,
    },
    reinsertedRow('gpc.read', gpaOfCache, read),
    {
      id: 'gpc.read/refreshed',
      when: 'another page backs the address, or the cache has none: it is looked up first',
      accept: read,
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseCache(random, state, ({ gpa }) => gpa !== undefined);
    return label === undefined ? undefined : { gpc: label };
  },
});
