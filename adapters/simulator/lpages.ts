/**
 * Which huge pages of a slot have mixed attributes, and so cannot be mapped as one. Nothing here is backed by huge
 * folios, so that only the tracking itself can go wrong. Source: arch/x86/kvm/mmu/mmu.c, arch/x86/kvm/x86.c.
 */
import { ATTRIBUTE_PRIVATE } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import { PART } from './kernel.ts';
import { Mmu, type GfnRange } from './mmu.ts';
import type { Kvm, MemSlot } from './objects.ts';

/** KVM_PAGES_PER_HPAGE(level), from PG_LEVEL_2M to KVM_MAX_HUGEPAGE_LEVEL. */
const PAGES_PER_HPAGE = [512, 512 * 512] as const;
type Level = 0 | 1;
const LEVELS: readonly Level[] = [0, 1];

/** KVM_LPAGE_MIXED_FLAG of disallow_lpage */
const MIXED = 0x8000_0000;

/** gfn_round_for_level() */
const roundDown = (gfn: number, pages: number): number => gfn - (gfn % pages);

/** gfn_to_index() */
const indexOf = (gfn: number, slot: MemSlot, level: Level): number => {
  const pages = PAGES_PER_HPAGE[level];
  return Math.floor(gfn / pages) - Math.floor(slot.baseGfn / pages);
};

export abstract class Lpages extends Mmu {
  /** kvm_get_memory_attributes() */
  kvmGetMemoryAttributes(kvm: Kvm, gfn: number): bigint {
    return kvm.attributes.get(gfn) ?? 0n;
  }

  /** kvm_mem_is_private() */
  kvmMemIsPrivate(kvm: Kvm, gfn: number): boolean {
    return (this.kvmGetMemoryAttributes(kvm, gfn) & ATTRIBUTE_PRIVATE) !== 0n;
  }

  /** kvm_range_has_memory_attributes(): whether all of the frames have just these attributes. */
  kvmRangeHasMemoryAttributes(kvm: Kvm, start: number, end: number, attributes: bigint): boolean {
    const runs = kvm.attributes.slice(start, end);
    if (attributes === 0n) return runs.length === 0;
    const [run] = runs;
    return run?.start === start && run.end === end && run.value === attributes;
  }

  /** kvm_arch_pre_set_memory_attributes(): head and tail may no longer become huge pages while this goes on. */
  addStraddlingHugepages(kvm: Kvm, { slot, start, end }: GfnRange): void {
    for (const level of LEVELS) {
      const pages = PAGES_PER_HPAGE[level];
      const head = roundDown(start, pages);
      const tail = roundDown(end - 1, pages);
      const cut = [];
      if (head !== start || head + pages > end) cut.push(head);
      if (tail !== head && tail + pages > end) cut.push(tail);
      for (const gfn of cut)
        if (this.hugepageWithinSlot(slot, gfn, pages) && !this.hugepageTestMixed(slot, gfn, level))
          this.kvmMmuInvalidateRangeAdd(kvm, gfn, gfn + pages);
    }
  }

  /** kvm_arch_post_set_memory_attributes(). The lower level comes first: the upper one reads what it found. */
  kvmArchPostSetMemoryAttributes(kvm: Kvm, { slot, start, end }: GfnRange, attributes: bigint): void {
    for (const level of LEVELS) {
      const pages = PAGES_PER_HPAGE[level];
      let gfn = roundDown(start, pages);
      if (gfn !== start || gfn + pages > end) {
        if (this.hugepageWithinSlot(slot, gfn, pages)) this.hugepageUpdateMixed(kvm, slot, gfn, level, attributes);
        gfn += pages;
      }
      const tail = roundDown(end, pages);
      if (gfn < tail) this.hugepagesClearMixed(slot, gfn, tail, level);
      gfn = Math.max(gfn, tail);
      if (gfn < end && this.hugepageWithinSlot(slot, gfn, pages))
        this.hugepageUpdateMixed(kvm, slot, gfn, level, attributes);
    }
  }

  /** kvm_mmu_init_memslot_memory_attributes() */
  kvmMmuInitMemslotMemoryAttributes(kvm: Kvm, slot: MemSlot): void {
    if (!kvm.hasPrivateMem) return;
    for (const level of LEVELS) {
      const pages = PAGES_PER_HPAGE[level];
      // Only a huge page in which a run of attributes starts or ends can be mixed.
      for (const run of kvm.attributes.slice(slot.baseGfn, slot.baseGfn + slot.npages)) {
        for (const gfn of [roundDown(run.start, pages), roundDown(run.end - 1, pages)]) {
          if (!this.hugepageWithinSlot(slot, gfn, pages)) continue;
          this.hugepageUpdateMixed(kvm, slot, gfn, level, this.kvmGetMemoryAttributes(kvm, gfn));
        }
      }
    }
  }

  /** Whether the slot has all of the huge page. Of others nothing is tracked: they cannot be mapped anyway. */
  hugepageWithinSlot(slot: MemSlot, gfn: number, pages: number): boolean {
    return gfn >= slot.baseGfn && gfn + pages <= slot.baseGfn + slot.npages;
  }

  /** hugepage_test_mixed() */
  hugepageTestMixed(slot: MemSlot, gfn: number, level: Level): boolean {
    const index = this.lpageInfoSlot(slot, gfn, level);
    return ((slot.lpageInfo[level].get(index) ?? 0) & MIXED) !== 0;
  }

  /** hugepage_has_attrs() */
  hugepageHasAttrs(kvm: Kvm, slot: MemSlot, gfn: number, level: Level, attributes: bigint): boolean {
    const [step] = PAGES_PER_HPAGE;
    const end = gfn + PAGES_PER_HPAGE[level];
    if (level === 0) return this.kvmRangeHasMemoryAttributes(kvm, gfn, end, attributes);
    for (let at = gfn; at < end; at += step) {
      if (this.hugepageTestMixed(slot, at, 0)) return false;
      if (this.kvmGetMemoryAttributes(kvm, at) !== attributes) return false;
    }
    return true;
  }

  /** hugepage_clear_mixed() or hugepage_set_mixed() */
  hugepageUpdateMixed(kvm: Kvm, slot: MemSlot, gfn: number, level: Level, attributes: bigint): void {
    if (this.hugepageHasAttrs(kvm, slot, gfn, level, attributes)) {
      this.hugepagesClearMixed(slot, gfn, gfn + PAGES_PER_HPAGE[level], level);
      return;
    }
    const index = this.lpageInfoSlot(slot, gfn, level);
    const info = slot.lpageInfo[level];
    info.set(index, ((info.get(index) ?? 0) | MIXED) >>> 0);
  }

  /** hugepage_clear_mixed() for each huge page of the range. */
  hugepagesClearMixed(slot: MemSlot, start: number, end: number, level: Level): void {
    const first = this.lpageInfoSlot(slot, start, level);
    const last = this.lpageInfoSlot(slot, end - PAGES_PER_HPAGE[level], level);
    for (const [index, info] of slot.lpageInfo[level])
      if (index >= first && index <= last) slot.lpageInfo[level].set(index, info & ~MIXED);
  }

  /** lpage_info_slot(): the index of an entry. An index outside of the array is a bug of the caller, and is recorded. */
  lpageInfoSlot(slot: MemSlot, gfn: number, level: Level): number {
    const index = indexOf(gfn, slot, level);
    const lpages = this.kvmMmuSlotLpages(slot, level);
    if (index < 0 || index >= lpages) {
      this.stale |= PART.EVENTS;
      this.outOfBounds.push(`lpage_info[${level}] of slot ${slot.id} of ${slot.birthVm}: index ${index} of ${lpages}`);
    }
    return index;
  }

  /** __kvm_mmu_slot_lpages() */
  kvmMmuSlotLpages(slot: MemSlot, level: Level): number {
    return indexOf(slot.baseGfn + slot.npages - 1, slot, level) + 1;
  }

  /** kvm_alloc_memslot_metadata(). A huge page that the slot's edges cut cannot be mapped. */
  kvmAllocMemslotMetadata(kvm: Kvm, slot: MemSlot): Errno | undefined {
    if (!this.kzalloc()) return 'ENOMEM';
    slot.lpageInfo = [new Map(), new Map()];
    for (const level of LEVELS) {
      const pages = PAGES_PER_HPAGE[level];
      const info = slot.lpageInfo[level];
      if (slot.baseGfn % pages !== 0) info.set(0, 1);
      if ((slot.baseGfn + slot.npages) % pages !== 0) info.set(this.kvmMmuSlotLpages(slot, level) - 1, 1);
    }
    this.kvmMmuInitMemslotMemoryAttributes(kvm, slot);
    return undefined;
  }
}
