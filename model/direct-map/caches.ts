/**
 * gfn_to_pfn_caches. What a cache has looked up is kept until it is looked up anew or the page goes; whether it is still
 * right is asked whenever it is used, as kvm_gpc_check() does, but of the machine and not of what the kernel remembers.
 * Source: virt/kvm/pfncache.c; RFC v2 "Unmapping guest_memfd from Direct Map", patches 7 to 9.
 */
import { holdsIn } from '../core/profile.ts';
import { known, withEntry, type Cache, type Label, type State } from '../core/state.ts';
import { isOutOfDirectMap, wordIndex, type Place } from '../gmem/content.ts';
import { faultIn, gfnAt, isFound, type Found } from '../gmem/guest-fault.ts';
import { isReinserted, reach, type Hindrance } from './reach.ts';

/** Why a cache cannot have the page of a guest address. */
export type CacheHindrance = Hindrance | 'no-direct-map' | 'kept-by-another';

/** Whether the cache has the page, in the way that it would look it up now. */
const has = ({ page }: Cache, { inode, page: index }: Found, reinserted: boolean): boolean =>
  page?.inode === inode && page.page === index && page.reinserted === reinserted;

/** Whether a cache, other than the one that is named, keeps the page in the direct map. */
export function isKept(state: State, found: Found, except?: Label): boolean {
  for (const [label, cache] of state.caches) if (label !== except && has(cache, found, true)) return true;
  return false;
}

function lookUp(state: State, label: Label, gpa: bigint): Found | CacheHindrance {
  const found = reach(state, known(state.caches, label).vm, gfnAt(gpa), true);
  if (!isFound(found)) return found;
  const isOut = isOutOfDirectMap(known(state.inodes, found.inode));
  // GUP does not give out such pages.
  if (isOut && !found.private) return 'no-direct-map';
  const isAlone = holdsIn(state.config.profile, { feature: 'direct-map-one-cache' });
  return isAlone && isOut && isKept(state, found, label) ? 'kept-by-another' : found;
}

/** What a cache would find at the address; undefined where it has that already. */
export function finds(state: State, label: Label, gpa: bigint): Found | CacheHindrance | undefined {
  const found = lookUp(state, label, gpa);
  return isFound(found) && has(known(state.caches, label), found, isReinserted(state, found)) ? undefined : found;
}

/** Whether the cache has the page that it would find at the address now. */
export const hasPageAt = (state: State, label: Label, gpa: bigint): boolean => finds(state, label, gpa) === undefined;

/** Whether the page that the cache would look up is out of the direct map, and put back for it. */
export function isReinsertedFor(state: State, label: Label, gpa: bigint): boolean {
  const found = finds(state, label, gpa);
  return found !== undefined && isFound(found) && isReinserted(state, found);
}

/** Whether what the cache has looked up is what it would find now. */
export function isCurrent(state: State, label: Label): boolean {
  const { gpa } = known(state.caches, label);
  return gpa !== undefined && hasPageAt(state, label, gpa);
}

/** The cache is activated for the address, and has looked it up; where it cannot, it is active and has no page. */
export function lookedUp(state: State, label: Label, gpa: bigint): State {
  const found = finds(state, label, gpa);
  const { vm, page } = known(state.caches, label);
  if (found === undefined) return withCache(state, label, { vm, gpa, page });
  if (!isFound(found)) return withCache(state, label, { vm, gpa, page: undefined });
  const { inode, page: index } = found;
  const reinserted = isReinserted(state, found);
  return withCache(faultIn(state, found, 1), label, { vm, gpa, page: { inode, page: index, reinserted } });
}

export const withCache = (state: State, label: Label, cache: Cache): State => ({
  ...state,
  caches: withEntry(state.caches, label, cache),
});

/** The word at the address of a cache that is current. */
export function cachedPlace(state: State, label: Label): Place {
  const { gpa, page } = known(state.caches, label);
  if (gpa === undefined || page === undefined) throw new Error(`specification defect: ${label} has no page`);
  return { inode: page.inode, page: page.page, word: wordIndex(gpa) };
}
