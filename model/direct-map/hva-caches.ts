/**
 * gfn_to_hva_caches: the host address of a guest range, kept until the slots change. A range that goes on in another page
 * has none, and is accessed page by page. Where an address that is kept would be used, the slots are those that it was
 * looked up in: so what it shows is asked of the slots that there are.
 * Source: virt/kvm/kvm_main.c: kvm_gfn_to_hva_cache_init(), kvm_read_guest_offset_cached(), kvm_write_guest_offset_cached().
 */
import { KVM_MEM, PAGE_SHIFT, WORD_BYTES, wrap64 } from '../core/abi.ts';
import { hvaCache, u32 } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { known, withEntry, type HvaCache, type Label, type State } from '../core/state.ts';
import type { Guard } from '../core/transition.ts';
import { isWordAligned } from '../gmem/content.ts';
import { mayFailWithin } from '../gmem/direct-map-fault.ts';
import { slotAt } from '../gmem/slots.ts';
import { hindranceRows, piecesOf, tooLong, type Pieces } from './kvm-access.ts';
import { HINDRANCES } from './reach.ts';

export const ghc = hvaCache();

interface OnHvaCache {
  readonly ghc: Label;
}

export const cachedAccessArgs = {
  ghc,
  offset: u32({ boundaries: [8n, 4088n, 4096n] }),
  length: u32({ boundaries: [8n, 16n, 64n, 72n] }),
} as const;

export interface CachedAccess extends OnHvaCache {
  readonly offset: bigint;
  readonly length: bigint;
}

/** Why no host address can be kept for a range. */
export type NoAddress = 'empty-or-wraps' | 'no-slot' | 'read-only';

interface GuestRange {
  readonly gpa: bigint;
  readonly length: bigint;
}

const lastFrame = ({ gpa, length }: GuestRange): bigint => wrap64(gpa + length - 1n) >> PAGE_SHIFT;

/** Whether the range goes on in another page. */
export const goesOn = (range: GuestRange): boolean => lastFrame(range) !== range.gpa >> PAGE_SHIFT;

/** __kvm_gfn_to_hva_cache_init(): every page must be in a slot that can be written, also where only reading is meant. */
export function addressless(state: State, vmLabel: Label, range: GuestRange): NoAddress | undefined {
  const vm = known(state.vms, vmLabel);
  const last = lastFrame(range);
  let gfn = range.gpa >> PAGE_SHIFT;
  if (gfn > last) return 'empty-or-wraps';
  while (gfn <= last) {
    const slot = slotAt(vm, Number(gfn));
    if (slot === undefined) return 'no-slot';
    if ((slot.flags & KVM_MEM.READONLY) !== 0n) return 'read-only';
    gfn = BigInt(slot.baseGfn + slot.pages);
  }
  return undefined;
}

export const withHvaCache = (state: State, label: Label, change: Partial<HvaCache>): State => ({
  ...state,
  hvaCaches: withEntry(state.hvaCaches, label, { ...known(state.hvaCaches, label), ...change }),
});

/** The cache has looked for a host address and found none. */
export const losesAddress = ({ ghc: label }: OnHvaCache, state: State): State =>
  withHvaCache(state, label, { lost: true });

export const noHvaCache = <A extends OnHvaCache>(command: string): Guard<A> => ({
  id: `${command}/no-cache`,
  unmodelled: 'a cache is a part of a vCPU, and nobody can name one that is not there',
  when: 'there is no cache of a host address of that name, its VM is gone, or a slot could not be moved for want of memory while it had lost its address',
  violated: ({ ghc: label }, state) => !state.hvaCaches.has(label),
});

const pieces = ({ ghc: label, offset, length }: CachedAccess, state: State, writes: boolean): Pieces => {
  const { vm, gpa } = known(state.hvaCaches, label);
  return piecesOf(state, vm, gpa + offset, length, writes);
};

export const cachedPieces = {
  read: rememberLast((args: CachedAccess, state: State) => pieces(args, state, false)),
  write: rememberLast((args: CachedAccess, state: State) => pieces(args, state, true)),
} as const;

const rangeOf = ({ ghc: label }: OnHvaCache, state: State): HvaCache => known(state.hvaCaches, label);

export const isSlow = (args: OnHvaCache, state: State): boolean => goesOn(rangeOf(args, state));

const isBare = (args: OnHvaCache, state: State): boolean => {
  const cache = rangeOf(args, state);
  return addressless(state, cache.vm, cache) !== undefined;
};

/** A cache, with a part of its range, of which the condition holds. */
function otherPart<A extends CachedAccess>(
  args: A,
  state: State,
  random: Random,
  holds: (args: A) => boolean,
): A | undefined {
  const parts = [...state.hvaCaches]
    .filter(([, { length }]) => length >= WORD_BYTES)
    .map(([label, { length }]): A => {
      const offset = random.below(3) === 0 ? length - WORD_BYTES : 0n;
      return { ...args, ghc: label, offset, length: WORD_BYTES };
    });
  return pickOr(random, parts.filter(holds));
}

/** Rows of both accesses, in the order in which KVM finds out. `progress` is what is done before a page that it cannot reach. */
export const cachedAccessRows = <A extends CachedAccess>(
  command: string,
  kind: keyof typeof cachedPieces,
  progress: (args: A, state: State) => State,
): readonly Guard<A>[] => [
  noHvaCache<A>(command),
  {
    id: `${command}/unaligned`,
    unmodelled: 'an access is a number of aligned words of eight bytes',
    when: 'the offset or the length is not a multiple of eight, or the length is zero',
    violated: ({ offset, length }) => !isWordAligned(offset) || !isWordAligned(length) || length === 0n,
  },
  tooLong<A>(command),
  {
    id: `${command}/beyond-range`,
    errno: 'EINVAL',
    when: 'the access ends behind the range that the cache was last set up for with success; before that, any does',
    violated: (args, state) => args.offset + args.length > rangeOf(args, state).length,
    violate: (args, state) => {
      const { length } = rangeOf(args, state);
      return { ...args, offset: length > 0n ? length - WORD_BYTES : 0n, length: 2n * WORD_BYTES };
    },
  },
  {
    id: `${command}/range-lost`,
    errno: 'EFAULT',
    when: 'the slots have changed, and a page of the range, accessed or not, is in none any more, or in a READONLY one',
    violated: isBare,
    violate: (args, state, random) => otherPart(args, state, random, (other) => isBare(other, state)),
    leaves: losesAddress,
  },
  {
    id: `${command}/no-address`,
    errno: 'EFAULT',
    when: 'the cache has been left without a host address since the slots last changed, though it has a range',
    violated: (args, state) => rangeOf(args, state).lost,
    violate: (args, state, random) =>
      otherPart(args, state, random, (other) => rangeOf(other, state).lost && !isBare(other, state)),
  },
  mayFailWithin<A>(command),
  ...hindranceRows<A>(
    command,
    HINDRANCES.filter(({ hindrance }) => hindrance !== 'no-slot' && hindrance !== 'read-only'),
    {
      met: (args, state) => cachedPieces[kind](args, state).hindrance,
      progress,
      meet: (args, state, random, hindrance) =>
        otherPart(args, state, random, (other) => cachedPieces[kind](other, state).hindrance === hindrance),
    },
  ),
];

/** For both accesses: a cache that has a range mostly, and a part of the range. */
export function drawCachedAccess(random: Random, state: State): CachedAccess | undefined {
  const caches = [...state.hvaCaches].filter(([, { length }]) => length >= WORD_BYTES);
  const found = pickOr(random, caches);
  if (found === undefined) return undefined;
  const [label, range] = found;
  const words = Number(range.length / WORD_BYTES);
  const first = pick(random, [0, 0, 0, words - 1, random.below(Math.min(words, 1024))]);
  const count = Math.min(words - first, pick(random, [1, 1, 1, 2, 8]));
  return { ghc: label, offset: BigInt(first) * WORD_BYTES, length: BigInt(count) * WORD_BYTES };
}
