import type { State } from '../core/state.ts';
import { defineTransition, type Accepted } from '../core/transition.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import {
  cachedAccessArgs,
  cachedAccessRows,
  cachedPieces,
  drawCachedAccess,
  isSlow,
  type CachedAccess,
} from './hva-caches.ts';
import { ACCESS_MAY_ALSO, readPieces, touchPieces } from './kvm-access.ts';
import { isReinserted } from './reach.ts';

const touch = (args: CachedAccess, state: State): State => touchPieces(state, cachedPieces.read(args, state).pieces);

const read = (args: CachedAccess, state: State): Accepted => readPieces(state, cachedPieces.read(args, state).pieces);

export const ghcRead = defineTransition({
  name: 'ghc.read',
  readsSecrets: true,
  summary: 'KVM reads a part of the guest range that a cache is set up for.',
  does: '`kvm_read_guest_offset_cached(kvm, ghc, buffer, offset, length)`',
  tells: 'the sum of the words, modulo 2^64',
  source: 'virt/kvm/kvm_main.c: kvm_read_guest_offset_cached()',
  only: { feature: 'direct-map' },
  args: cachedAccessArgs,
  mayAlso: ACCESS_MAY_ALSO,
  mayLeavePrefix: true,
  weight: 7,
  guards: cachedAccessRows<CachedAccess>('ghc.read', 'read', touch),
  accepts: [
    {
      id: 'ghc.read/page-by-page',
      when: 'the range goes on in another page, whether the access does or not: it is one of kvm_read_guest()',
      applies: isSlow,
      accept: read,
    },
    {
      id: 'ghc.read/reinserted',
      when: 'the frame is private, so that no host address shows it: the access is one of kvm_read_guest(), which puts the page back for as long as it takes',
      source: 'RFC "Unmapping guest_memfd from Direct Map", July 2024, patch 2: kvm_read_guest_offset_cached()',
      only: { feature: 'direct-map-reinsertion' },
      unreachable: withoutPrivateMemory,
      applies: (args, state) => cachedPieces.read(args, state).pieces.some(({ found }) => isReinserted(state, found)),
      accept: read,
    },
    {
      id: 'ghc.read/read',
      when: 'the host address shows the page',
      accept: read,
    },
  ],
  draw: ({ random, state }) => drawCachedAccess(random, state),
});
