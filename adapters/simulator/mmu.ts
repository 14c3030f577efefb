/** Stage-2 page tables, their invalidation protocol, and the notifier. Source: virt/kvm/kvm_main.c, arch/x86/kvm/mmu/. */
import { VM_TYPE } from '../../model/core/abi.ts';
import { PART, Slab } from './kernel.ts';
import { Mm } from './mm.ts';
import type { Kvm, MemSlot, Spte } from './objects.ts';

/** struct kvm_gfn_range: guest frames of one slot. */
export interface GfnRange {
  readonly slot: MemSlot;
  readonly start: number;
  readonly end: number;
}

export const sameSpte = (a: Spte, b: Spte): boolean =>
  a.delta === b.delta && a.private === b.private && a.writable === b.writable;

export abstract class Mmu extends Mm {
  /** vm_list: the VMs that exist. */
  readonly vmList = new Set<Kvm>();
  readonly kvms = new Slab<Kvm>();
  readonly slots = new Slab<MemSlot>();

  /** virt/kvm/pfncache.c: gfn_to_pfn_cache_invalidate_start(), in virtual pages. */
  protected abstract gfnToPfnCacheInvalidate(kvm: Kvm, start: number, end: number): void;

  /** arch/x86/kvm/mmu/tdp_mmu.c: tdp_mmu_map_handle_target_level() */
  setSptes(kvm: Kvm, asId: number, gfn: number, count: number, spte: Spte): void {
    kvm.roots[asId]?.set(gfn, gfn + count, spte);
    this.stale |= PART.STAGE_TWO;
  }

  /** arch/x86/kvm/mmu/tdp_mmu.c: tdp_mmu_zap_leafs() */
  zapLeafs(kvm: Kvm, asId: number, start: number, end: number): void {
    if (kvm.roots[asId]?.delete(start, end) === true) this.stale |= PART.STAGE_TWO;
  }

  /** arch/x86/kvm/mmu/mmu.c: kvm_unmap_gfn_range(). Private and shared entries share a root, so no filter applies. */
  kvmUnmapGfnRange(kvm: Kvm, range: GfnRange): void {
    this.zapLeafs(kvm, range.slot.asId, range.start, range.end);
  }

  /** arch/x86/kvm/mmu/mmu.c: kvm_mmu_zap_all(), __kvm_mmu_zap_all_fast_front_half() */
  kvmMmuZapAll(kvm: Kvm): void {
    kvm.roots.forEach((_root, asId) => this.zapLeafs(kvm, asId, 0, Number.MAX_SAFE_INTEGER));
  }

  /** arch/x86/kvm/mmu/mmu.c: kvm_arch_flush_shadow_memslot(). The quirk SLOT_ZAP_ALL is on unless a VMM disables it. */
  kvmArchFlushShadowMemslot(kvm: Kvm, slot: MemSlot): void {
    this.lock(kvm.mmuLock);
    if (kvm.type === VM_TYPE.DEFAULT) this.kvmMmuZapAll(kvm);
    else this.kvmUnmapGfnRange(kvm, { slot, start: slot.baseGfn, end: slot.baseGfn + slot.npages });
    this.unlock(kvm.mmuLock);
  }

  /** kvm_mmu_invalidate_start() */
  kvmMmuInvalidateStart(kvm: Kvm): void {
    kvm.mmuInvalidateInProgress++;
    if (kvm.mmuInvalidateInProgress === 1) kvm.mmuInvalidateRange = undefined;
  }

  /** kvm_mmu_invalidate_range_add() */
  kvmMmuInvalidateRangeAdd(kvm: Kvm, start: number, end: number): void {
    const range = kvm.mmuInvalidateRange ?? { start, end };
    kvm.mmuInvalidateRange = { start: Math.min(range.start, start), end: Math.max(range.end, end) };
  }

  /** kvm_mmu_invalidate_end() */
  kvmMmuInvalidateEnd(kvm: Kvm): void {
    kvm.mmuInvalidateSeq++;
    kvm.mmuInvalidateInProgress--;
    if (kvm.mmuInvalidateInProgress < 0) throw new Error('KVM_BUG_ON: mmu_invalidate_in_progress < 0');
  }

  /** kvm_mmu_unmap_gfn_range() */
  kvmMmuUnmapGfnRange(kvm: Kvm, range: GfnRange): void {
    this.kvmMmuInvalidateRangeAdd(kvm, range.start, range.end);
    this.kvmUnmapGfnRange(kvm, range);
  }

  /** include/linux/kvm_host.h: mmu_invalidate_retry_gfn(), for `count` frames that are faulted in together. */
  mmuInvalidateRetryGfn(kvm: Kvm, seq: number, gfn: number, count: number): boolean {
    const range = kvm.mmuInvalidateRange;
    const isUnderWay = kvm.mmuInvalidateInProgress > 0 && range !== undefined;
    if (isUnderWay && gfn + count > range.start && gfn < range.end) return true;
    return kvm.mmuInvalidateSeq !== seq;
  }

  /** arch/x86/kvm/x86.c: kvm_arch_guest_memory_reclaimed() calls kvm_x86_ops.guest_memory_reclaimed(), if there is one. */
  kvmArchGuestMemoryReclaimed(_kvm: Kvm): void {
    // Where caches know nothing of guests there is nothing to do.
  }

  /**
   * kvm_handle_hva_range(): calls `handler` with mmu_lock held for each range of guest frames that the virtual pages
   * back; the first time, `onLock` before it. Whether there was one.
   */
  kvmHandleHvaRange(
    kvm: Kvm,
    startPage: number,
    endPage: number,
    onLock: () => void,
    handler?: (range: GfnRange) => void,
  ): boolean {
    let found = false;
    for (const slots of kvm.memslots) {
      for (const slot of slots.values()) {
        const start = Math.max(startPage, slot.userspacePage);
        const end = Math.min(endPage, slot.userspacePage + slot.npages);
        if (start >= end) continue;
        if (!found) {
          found = true;
          this.lock(kvm.mmuLock);
          onLock();
        }
        const delta = slot.baseGfn - slot.userspacePage;
        handler?.({ slot, start: start + delta, end: end + delta });
      }
    }
    if (found) this.unlock(kvm.mmuLock);
    return found;
  }

  /** kvm_mmu_notifier_invalidate_range_start(), for each VM: all belong to the one process. */
  protected override mmuNotifierInvalidateRangeStart(start: number, end: number): void {
    for (const kvm of this.vmList) {
      kvm.mnActiveInvalidateCount++;
      this.gfnToPfnCacheInvalidate(kvm, start, end);
      const found = this.kvmHandleHvaRange(
        kvm,
        start,
        end,
        () => this.kvmMmuInvalidateStart(kvm),
        (range) => this.kvmMmuUnmapGfnRange(kvm, range),
      );
      if (found) this.kvmArchGuestMemoryReclaimed(kvm);
    }
  }

  /** kvm_mmu_notifier_invalidate_range_end() */
  protected override mmuNotifierInvalidateRangeEnd(start: number, end: number): void {
    for (const kvm of this.vmList) {
      this.kvmHandleHvaRange(kvm, start, end, () => this.kvmMmuInvalidateEnd(kvm));
      kvm.mnActiveInvalidateCount--;
    }
  }
}
