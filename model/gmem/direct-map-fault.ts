/**
 * Changes of the direct map that fail. To take one page out, the kernel splits the large entry that shows it, for which it
 * needs memory. Once that is done, so the proposals say, nothing that is done to the page's own entry can fail; what they
 * do where it does all the same differs.
 * Source: arch/x86/mm/pat/set_memory.c: __change_page_attr(), split_large_page(); mm/memory.c of v12 "Direct Map Removal
 * Support for guest_memfd": folio_zap_direct_map(), folio_restore_direct_map().
 */
import { GMEM_FLAG } from '../core/abi.ts';
import { holdsIn } from '../core/profile.ts';
import { add, EMPTY, intersects, remove, type RangeSet } from '../core/ranges.ts';
import { known, withInode, type Inode, type Label, type State } from '../core/state.ts';
import type { Silence } from '../core/transition.ts';

const disarmed = (state: State): State => ({ ...state, directMapFault: undefined });

/** Of pages that are to leave the direct map unless they have, the first that cannot. */
export function stuckPage(state: State, label: Label, start: number, end: number): number | undefined {
  if (state.directMapFault !== 'split') return undefined;
  const inode = known(state.inodes, label);
  if ((inode.flags & GMEM_FLAG.NO_DIRECT_MAP) === 0n) return undefined;
  const [first] = inode.removed.reduce<RangeSet>((left, out) => remove(left, out.start, out.end), [{ start, end }]);
  return first?.start;
}

/**
 * A page could not leave the direct map, and nobody is given it. It stays in the file all the same, and is tried again; but
 * for v13, which takes pages out as they enter the file.
 * Source: RFC v2 "Unmapping guest_memfd from Direct Map", patch 1: kvm_gmem_get_folio(); v12 "Direct Map Removal Support
 * for guest_memfd": kvm_gmem_get_pfn(); its review, of filemap_add_folio().
 */
export function leftStuck(before: State, label: Label, page: number): State {
  const state = disarmed(before);
  const { profile } = state.config;
  const isNeverIn =
    holdsIn(profile, { feature: 'direct-map-on-entry' }) && holdsIn(profile, { feature: 'direct-map-host-address' });
  return isNeverIn
    ? state
    : withInode(state, label, { resident: add(known(state.inodes, label).resident, page, page + 1) });
}

/** Pages that were to leave the direct map as they entered the file, and could not. */
export function stuckPages({ inodes, config: { profile } }: State, label: Label): RangeSet {
  const { flags, resident, removed } = known(inodes, label);
  const isFree = (flags & GMEM_FLAG.NO_DIRECT_MAP) === 0n || !holdsIn(profile, { feature: 'direct-map-on-entry' });
  return isFree ? EMPTY : removed.reduce((left, { start, end }) => remove(left, start, end), resident);
}

/**
 * A thread of the host process touches a page: it faults again where that fails for want of memory.
 * Source: arch/x86/mm/fault.c: do_user_addr_fault(); mm/oom_kill.c: pagefault_out_of_memory().
 */
export const untilRemoved = (state: State, label: Label, page: number): State =>
  stuckPage(state, label, page, page + 1) === undefined ? state : disarmed(state);

/** The pages leave the file, and come back into the direct map first; one that cannot is nobody's any more. */
export const whenRestored = (state: State, { removed }: Inode, start: number, end: number): State =>
  state.directMapFault === 'restore' && intersects(removed, start, end) ? disarmed(state) : state;

/** For commands in which KVM may need pages in the direct map. */
export const mayFailWithin = <A>(command: string): Silence<A> => ({
  id: `${command}/direct-map-may-fail`,
  only: { feature: 'direct-map' },
  requires: 'fault-injection',
  unmodelled: 'what fails then, and what stays of what was done before, differs with the code and not with the design',
  when: 'a change of the direct map is made to fail',
  source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patches 2, 4 and 8',
  violated: (_args, { directMapFault }) => directMapFault !== undefined,
});
