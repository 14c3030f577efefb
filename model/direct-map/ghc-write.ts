import { u64 } from '../core/domain.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf } from '../core/transition.ts';
import { chooseValue } from '../gmem/choose.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import { cachedAccessArgs, cachedAccessRows, cachedPieces, drawCachedAccess, isSlow } from './hva-caches.ts';
import { ACCESS_MAY_ALSO, writePieces } from './kvm-access.ts';
import { isReinserted } from './reach.ts';

const domains = { ...cachedAccessArgs, value: u64() } as const;

type CachedWrite = ArgsOf<typeof domains>;

const written = (args: CachedWrite, state: State): State =>
  writePieces(state, cachedPieces.write(args, state).pieces, args.value);

const write = (args: CachedWrite, state: State): Accepted => ({ state: written(args, state) });

export const ghcWrite = defineTransition({
  name: 'ghc.write',
  summary: 'KVM writes a part of the guest range that a cache is set up for: every word gets the value.',
  does: '`kvm_write_guest_offset_cached(kvm, ghc, buffer, offset, length)` with `value` in every word of the buffer',
  source: 'virt/kvm/kvm_main.c: kvm_write_guest_offset_cached()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: ACCESS_MAY_ALSO,
  mayLeavePrefix: true,
  weight: 7,
  guards: cachedAccessRows<CachedWrite>('ghc.write', 'write', written),
  accepts: [
    {
      id: 'ghc.write/page-by-page',
      when: 'the range goes on in another page, whether the access does or not: it is one of kvm_write_guest()',
      applies: isSlow,
      accept: write,
    },
    {
      id: 'ghc.write/reinserted',
      when: 'the frame is private, so that no host address shows it: the access is one of kvm_write_guest(), which puts the page back for as long as it takes',
      source: 'RFC "Unmapping guest_memfd from Direct Map", July 2024, patch 2: kvm_write_guest_offset_cached()',
      only: { feature: 'direct-map-reinsertion' },
      unreachable: withoutPrivateMemory,
      applies: (args, state) => cachedPieces.write(args, state).pieces.some(({ found }) => isReinserted(state, found)),
      accept: write,
    },
    {
      id: 'ghc.write/written',
      when: 'the host address shows the page',
      accept: write,
    },
  ],
  draw: ({ random, state }) => {
    const access = drawCachedAccess(random, state);
    return access && { ...access, value: chooseValue(random) };
  },
});
