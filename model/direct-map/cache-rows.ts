/** What the commands on caches have in common: rows, and how they are drawn. */
import { PAGE_MASK, PAGE_SIZE, WORD_BYTES } from '../core/abi.ts';
import { cache } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { fails } from '../core/outcome.ts';
import { pickOr, type Random } from '../core/random.ts';
import type { Cache, Label, State } from '../core/state.ts';
import type { Acceptance, Guard } from '../core/transition.ts';
import { mayFailWithin } from '../gmem/direct-map-fault.ts';
import { isFound } from '../gmem/guest-fault.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import { finds, isReinsertedFor, lookedUp } from './caches.ts';
import { isSilent } from './reach.ts';

export const gpc = cache();

export interface OnCache {
  readonly gpc: Label;
}

/** The address that the cache is activated for. */
export const gpaOfCache = ({ gpc: label }: OnCache, state: State): bigint | undefined => state.caches.get(label)?.gpa;

/** The cache looks the page at its address up, where it does not have it. */
export const refreshed = (args: OnCache, state: State): State =>
  lookedUp(state, args.gpc, gpaOfCache(args, state) ?? 0n);

export const noCache = <A extends OnCache>(command: string): Guard<A> => ({
  id: `${command}/no-cache`,
  unmodelled: 'a cache is a part of a vCPU, and nobody can name one that is not there',
  when: 'no cache was set up under the label, or its VM is gone',
  violated: ({ gpc: label }, state) => !state.caches.has(label),
});

export const crossesPage = <A extends OnCache & { readonly length: bigint }>(
  command: string,
  gpaOf: (args: A, state: State) => bigint | undefined,
): Guard<A> => ({
  id: `${command}/crosses-page`,
  errno: 'EINVAL',
  when: 'the access does not fit into the page',
  source: 'virt/kvm/pfncache.c: kvm_gpc_is_valid_len()',
  violated: (args, state) => ((gpaOf(args, state) ?? 0n) & PAGE_MASK) + args.length > PAGE_SIZE,
  violate: (args) => ({ ...args, length: PAGE_SIZE + WORD_BYTES }),
});

/** Rows of commands that use what an active cache has, and look it up anew where that is outdated. */
export function useRows<A extends OnCache>(command: string): readonly Guard<A>[] {
  const found = rememberLast((args: A, state: State) => {
    const gpa = gpaOfCache(args, state);
    return gpa === undefined ? undefined : finds(state, args.gpc, gpa);
  });
  const isHindered = (args: A, state: State, silently: boolean): boolean => {
    const hindrance = found(args, state);
    return hindrance !== undefined && !isFound(hindrance) && isSilent(hindrance) === silently;
  };
  return [
    mayFailWithin<A>(command),
    {
      id: `${command}/inactive`,
      group: 'page',
      errno: 'EINVAL',
      when: 'the cache is not active',
      source: 'virt/kvm/pfncache.c: __kvm_gpc_refresh()',
      violated: (args, state) => gpaOfCache(args, state) === undefined,
      violate: (args, state, random) =>
        otherCache(args, state, random, (other) => gpaOfCache(other, state) === undefined),
    },
    {
      id: `${command}/unknown-memory`,
      group: 'page',
      unmodelled: 'what KVM would take for the page is not specified, as in gpc.activate',
      when: 'what the cache has is outdated, and the specification does not say what KVM would find',
      source: 'virt/kvm/pfncache.c: hva_to_pfn_retry()',
      violated: (args, state) => isHindered(args, state, true),
    },
    {
      id: `${command}/page-lost`,
      group: 'page',
      result: 'EFAULT',
      outcome: () => fails('EFAULT'),
      leaves: refreshed,
      when: 'what the cache has is outdated, and a cache cannot be activated for its address any more: it stays active without a page',
      source: 'virt/kvm/pfncache.c: __kvm_gpc_refresh(), hva_to_pfn_retry()',
      violated: (args, state) => isHindered(args, state, false),
      violate: (args, state, random) => otherCache(args, state, random, (other) => isHindered(other, state, false)),
    },
  ];
}

/** A cache is a long-term user: the page stays in the direct map until the cache lets go of it. */
export const reinsertedRow = <A extends OnCache>(
  command: string,
  gpaOf: (args: A, state: State) => bigint | undefined,
  accept: Acceptance<A>['accept'],
): Acceptance<A> => ({
  id: `${command}/reinserted`,
  when: 'the cache does not have the page, which is private and out of the direct map: it is put back, or shared with who put it back, until the cache lets go of it; one that the cache had is let go of',
  source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patches 4 and 8: kvm_gmem_get_pfn(), hva_to_pfn_retry()',
  only: { feature: 'direct-map-reinsertion' },
  unreachable: withoutPrivateMemory,
  applies: (args, state) => {
    const gpa = gpaOf(args, state);
    return gpa !== undefined && isReinsertedFor(state, args.gpc, gpa);
  },
  accept,
});

function otherCache<A extends OnCache>(
  args: A,
  state: State,
  random: Random,
  wanted: (args: A) => boolean,
): A | undefined {
  const others = [...state.caches.keys()].map((label) => ({ ...args, gpc: label }));
  return pickOr(random, others.filter(wanted));
}

/** A cache of the wanted kind; now and then any. */
export const chooseCache = (random: Random, state: State, wanted: (cache: Cache) => boolean): Label | undefined =>
  pickOr(
    random,
    [...state.caches].filter(([, each]) => random.below(8) === 0 || wanted(each)).map(([label]) => label),
  );
