import { u64 } from '../core/domain.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf } from '../core/transition.ts';
import { chooseValue } from '../gmem/choose.ts';
import { writeWord } from '../gmem/content.ts';
import { chooseCache, gpaOfCache, gpc, noCache, refreshed, reinsertedRow, useRows } from './cache-rows.ts';
import { cachedPlace, isCurrent } from './caches.ts';

const domains = { gpc, value: u64() } as const;

type Write = ArgsOf<typeof domains>;

function write(args: Write, before: State): Accepted {
  const state = refreshed(args, before);
  return { state: writeWord(state, cachedPlace(state, args.gpc), args.value) };
}

export const gpcWrite = defineTransition({
  name: 'gpc.write',
  summary: 'KVM writes a word through a cache, which is refreshed first if kvm_gpc_check() says so.',
  does: '`kvm_gpc_refresh(gpc, 8)` while `kvm_gpc_check(gpc, 8)` fails; then `*(u64 *)gpc->khva = value`',
  source: 'arch/x86/kvm/x86.c: kvm_setup_guest_pvclock()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: [],
  weight: 7,
  guards: [noCache<Write>('gpc.write'), ...useRows<Write>('gpc.write')],
  accepts: [
    {
      id: 'gpc.write/current',
      when: 'the cache has the page that backs its address',
      applies: (args, state) => isCurrent(state, args.gpc),
      accept: write,
    },
    reinsertedRow<Write>('gpc.write', gpaOfCache, write),
    {
      id: 'gpc.write/refreshed',
      when: 'another page backs the address, or the cache has none: it is looked up first',
      accept: write,
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseCache(random, state, ({ gpa }) => gpa !== undefined);
    return label === undefined ? undefined : { gpc: label, value: chooseValue(random) };
  },
});
