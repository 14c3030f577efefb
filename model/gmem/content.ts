/**
 * What memory holds. A page that has no folio reads as zero once it gets one; punching takes the folio and its content
 * away. A page of a file with NO_DIRECT_MAP leaves the direct map when it gets its folio, or when it is first used.
 * Source: virt/kvm/guest_memfd.c: kvm_gmem_get_folio(), kvm_gmem_punch_hole(), kvm_gmem_get_pfn().
 */
import { GMEM_FLAG, PAGE_SHIFT, WORD_BYTES } from '../core/abi.ts';
import { holdsIn } from '../core/profile.ts';
import { add, erase, intersects, remove, type Range, type RangeMap } from '../core/ranges.ts';
import {
  known,
  withEntry,
  withInode,
  withoutEntry,
  type Cache,
  type HvaCache,
  type Inode,
  type Label,
  type Mapping,
  type PageWords,
  type Slot,
  type StageTwoTarget,
  type State,
} from '../core/state.ts';
import { whenRestored } from './direct-map-fault.ts';

/** A word of memory: page of an inode, and index of the 8-byte word in the page. */
export interface Place {
  readonly inode: Label;
  readonly page: number;
  readonly word: number;
}

export const wordIndex = (byteAddress: bigint): number => Number((byteAddress & 0xfffn) / WORD_BYTES);
export const isWordAligned = (byteAddress: bigint): boolean => byteAddress % WORD_BYTES === 0n;

export const readWord = (state: State, { inode, page, word }: Place): bigint =>
  known(state.inodes, inode).words.get(page)?.get(word) ?? 0n;

const NO_WORDS: PageWords = new Map();

export function writeWord(state: State, { inode, page, word }: Place, value: bigint): State {
  const { words } = known(state.inodes, inode);
  const before = words.get(page) ?? NO_WORDS;
  if ((before.get(word) ?? 0n) === value) return state;
  const after = value === 0n ? withoutEntry(before, word) : withEntry(before, word, value);
  return withInode(state, inode, {
    words: after.size === 0 ? withoutEntry(words, page) : withEntry(words, page, after),
  });
}

export const isOutOfDirectMap = ({ flags }: Inode): boolean => (flags & GMEM_FLAG.NO_DIRECT_MAP) !== 0n;

/** The pages get folios. */
export function makeResident(state: State, label: Label, start: number, end: number): State {
  const inode = known(state.inodes, label);
  const resident = add(inode.resident, start, end);
  const after = resident === inode.resident ? state : withInode(state, label, { resident });
  const leaves = isOutOfDirectMap(inode) && holdsIn(state.config.profile, { feature: 'direct-map-on-entry' });
  return leaves ? removeFromDirectMap(after, label, start, end) : after;
}

/** The pages get folios, and a guest, the host process or KVM uses them from now on. */
export function usePages(state: State, label: Label, start: number, end: number): State {
  const resident = makeResident(state, label, start, end);
  return isOutOfDirectMap(known(resident.inodes, label)) ? removeFromDirectMap(resident, label, start, end) : resident;
}

function removeFromDirectMap(state: State, label: Label, start: number, end: number): State {
  const inode = known(state.inodes, label);
  const removed = add(inode.removed, start, end);
  return removed === inode.removed ? state : withInode(state, label, { removed });
}

/** The host process touched pages of a mapping: its page table shows them from now on. */
export function touchMapping(state: State, label: Label, page: number, pages = 1): State {
  const map = known(state.mappings, label);
  const touched = add(map.touched, page, page + pages);
  return touched === map.touched
    ? state
    : { ...state, mappings: withEntry(state.mappings, label, { ...map, touched }) };
}

/** Changes what the page tables of the host process show of the range, in every mapping of the inode. */
export function changeMappings(
  state: State,
  inode: Label,
  range: Range,
  change: (map: Mapping, start: number, end: number) => Partial<Mapping>,
): State {
  let { mappings } = state;
  for (const [label, map] of state.mappings) {
    const start = Math.max(range.start - map.firstPage, 0);
    const end = Math.min(range.end - map.firstPage, map.pages);
    if (map.inode === inode && intersects(map.touched, start, end))
      mappings = withEntry(mappings, label, { ...map, ...change(map, start, end) });
  }
  return mappings === state.mappings ? state : { ...state, mappings };
}

/**
 * Takes the pages of the range away from the inode, and every entry of stage 2 and of user space that shows one. Poison
 * entries of user space show no page, so that truncating the page does not find them.
 * Source: mm/truncate.c: truncate_cleanup_folio(); mm/memory.c: zap_nonpresent_ptes().
 */
export function punch(before: State, label: Label, start: number, end: number): State {
  const state = changeMappings(before, label, { start, end }, (map, first, last) => ({
    touched: remove(map.touched, first, last),
  }));
  const inode = known(state.inodes, label);
  const words = new Map([...inode.words].filter(([page]) => page < start || page >= end));
  const change: Partial<Inode> = {
    resident: remove(inode.resident, start, end),
    removed: remove(inode.removed, start, end),
    words: words.size === inode.words.size ? inode.words : words,
    poisoned: remove(inode.poisoned, start, end),
  };
  return withInode(
    forgetPages(zapInode(whenRestored(state, inode, start, end), label, start, end), label, start, end),
    label,
    change,
  );
}

/**
 * Caches let go of pages of the range, and of the shares in them: the pages are gone, or are not to be touched any more.
 * Source: RFC v2 "Unmapping guest_memfd from Direct Map", patch 9: gfn_to_pfn_cache_invalidate_gfns_start().
 */
export const forgetPages = (state: State, inode: Label, start: number, end: number): State =>
  lettingGo(state, ({ page }) => page?.inode === inode && start <= page.page && page.page < end);

/**
 * Caches let go of what they have put back into the direct map through a slot that is deleted. Both RFCs forget that: without
 * the slot nobody tells them when their page is freed.
 */
export const forgetSlot = (state: State, vm: Label, { baseGfn, pages }: Slot): State =>
  lettingGo(state, (cache) => {
    const gfn = cache.gpa === undefined ? -1 : Number(cache.gpa >> PAGE_SHIFT);
    return cache.vm === vm && cache.page?.reinserted === true && baseGfn <= gfn && gfn < baseGfn + pages;
  });

/**
 * Another generation of the slots: caches of host addresses that have none look again.
 * Source: virt/kvm/kvm_main.c: kvm_swap_active_memslots(), kvm_write_guest_offset_cached().
 */
export const slotsChanged = (state: State, vm: Label): State =>
  withLost(state, vm, (hvaCaches, label, cache) => withEntry(hvaCaches, label, { ...cache, lost: false }));

/** Perhaps another generation of them: whether such caches look again nobody can tell, so that nothing is said of them. */
export const slotsPerhapsChanged = (state: State, vm: Label): State => withLost(state, vm, withoutEntry);

function withLost(
  state: State,
  vm: Label,
  change: (caches: State['hvaCaches'], label: Label, cache: HvaCache) => State['hvaCaches'],
): State {
  let { hvaCaches } = state;
  for (const [label, cache] of state.hvaCaches)
    if (cache.vm === vm && cache.lost) hvaCaches = change(hvaCaches, label, cache);
  return hvaCaches === state.hvaCaches ? state : { ...state, hvaCaches };
}

function lettingGo(state: State, isLetGo: (cache: Cache) => boolean): State {
  let { caches } = state;
  for (const [label, cache] of state.caches)
    if (isLetGo(cache)) caches = withEntry(caches, label, { ...cache, page: undefined });
  return caches === state.caches ? state : { ...state, caches };
}

/** Removes the stage-2 entries of every VM that show pages of the range. */
export function zapInode(state: State, inode: Label, start: number, end: number): State {
  let { vms } = state;
  for (const [label, vm] of state.vms) {
    const stageTwo = zapTargets(vm.stageTwo, inode, start, end);
    if (stageTwo !== vm.stageTwo) vms = withEntry(vms, label, { ...vm, stageTwo });
  }
  return vms === state.vms ? state : { ...state, vms };
}

function zapTargets(
  stageTwo: RangeMap<StageTwoTarget>,
  inode: Label,
  start: number,
  end: number,
): RangeMap<StageTwoTarget> {
  let result = stageTwo;
  for (const span of stageTwo) {
    if (span.value.inode !== inode) continue;
    const first = Math.max(span.start, start - span.value.delta);
    const last = Math.min(span.end, end - span.value.delta);
    if (first < last) result = erase(result, first, last);
  }
  return result;
}

/** Whether host user space may touch the pages. Source: kvm_gmem_fault_user_mapping(). */
export const hostMayTouch = (inode: Inode): boolean =>
  inode.kind !== 'gmem' || (inode.flags & GMEM_FLAG.INIT_SHARED) !== 0n;

/** Whether get_user_pages() does not give the pages out, though the process has them. Source: mm/gup.c: check_vma_flags(). */
export const gupRefuses = ({ kind }: Inode): boolean => kind === 'secret';

/** Removes the stage-2 entries that were made through a host mapping. Source: kvm_mmu_notifier_invalidate_range_start(). */
export function zapHostMapping(state: State, mapping: Label): State {
  let { vms } = state;
  for (const [label, vm] of state.vms) {
    let { stageTwo } = vm;
    for (const slot of vm.slots.values()) {
      if (slot.hva.base !== mapping) continue;
      for (const span of clipSpans(stageTwo, slot.baseGfn, slot.baseGfn + slot.pages))
        if (!span.value.private) stageTwo = erase(stageTwo, span.start, span.end);
    }
    if (stageTwo !== vm.stageTwo) vms = withEntry(vms, label, { ...vm, stageTwo });
  }
  return vms === state.vms ? state : { ...state, vms };
}

const clipSpans = (map: RangeMap<StageTwoTarget>, start: number, end: number): RangeMap<StageTwoTarget> =>
  map
    .filter((span) => span.start < end && start < span.end)
    .map((span) => ({ ...span, start: Math.max(span.start, start), end: Math.min(span.end, end) }));
