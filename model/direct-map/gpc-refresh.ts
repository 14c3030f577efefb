import { WORD_BYTES } from '../core/abi.ts';
import { u32 } from '../core/domain.ts';
import { pickOr } from '../core/random.ts';
import { known, type Label, type State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf } from '../core/transition.ts';
import { chooseCache, crossesPage, gpaOfCache, gpc, noCache, refreshed, reinsertedRow, useRows } from './cache-rows.ts';
import { isCurrent } from './caches.ts';

const domains = { gpc, length: u32({ boundaries: [4096n, 4097n] }) } as const;

type Refresh = ArgsOf<typeof domains>;

const accept = (args: Refresh, state: State): Accepted => ({ state: refreshed(args, state) });

export const gpcRefresh = defineTransition({
  name: 'gpc.refresh',
  summary: 'Looks the page of a cache up again, where what the cache has may be outdated.',
  does: '`kvm_gpc_refresh(gpc, length)`',
  source: 'virt/kvm/pfncache.c: kvm_gpc_refresh(), hva_to_pfn_retry()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: [],
  weight: 5,
  guards: [
    noCache<Refresh>('gpc.refresh'),
    crossesPage<Refresh>('gpc.refresh', gpaOfCache),
    ...useRows<Refresh>('gpc.refresh'),
  ],
  accepts: [
    {
      id: 'gpc.refresh/current',
      when: 'the cache has the page that backs its address: no share is taken a second time',
      applies: ({ gpc: label }, state) => isCurrent(state, label),
      accept: (_args, state) => ({ state }),
    },
    reinsertedRow('gpc.refresh', gpaOfCache, accept),
    {
      id: 'gpc.refresh/refreshed',
      when: 'another page backs the address, or the cache has none: it is looked up, and the old one let go of',
      accept,
    },
  ],
  draw: ({ random, state }) => {
    const isOutdated = (each: Label): boolean => known(state.caches, each).gpa !== undefined && !isCurrent(state, each);
    const outdated = random.below(2) === 0 ? [...state.caches.keys()].filter(isOutdated) : [];
    const label = pickOr(random, outdated) ?? chooseCache(random, state, ({ gpa }) => gpa !== undefined);
    return label === undefined ? undefined : { gpc: label, length: WORD_BYTES };
  },
});
