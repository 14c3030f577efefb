/** Memory attributes: KVM_SET_MEMORY_ATTRIBUTES. Source: virt/kvm/kvm_main.c. */
import { ATTRIBUTE_PRIVATE, isPageAligned, toPages, wrap64 } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import { PART } from './kernel.ts';
import { Lpages } from './lpages.ts';
import type { GfnRange } from './mmu.ts';
import type { Kvm } from './objects.ts';

/** Slots of an xarray node: XA_CHUNK_SIZE. */
const XA_CHUNK_SIZE = 64;

/** What becomes of the pages behind guest frames that are invalidated: a share of one that is gone cannot be put. */
export type PagesAre = 'kept' | 'gone';

/** struct kvm_memory_attributes */
export interface MemoryAttributes {
  readonly address: bigint;
  readonly size: bigint;
  readonly attributes: bigint;
  readonly flags: bigint;
}

export abstract class Attributes extends Lpages {
  /** RFC v2, patch 7: gfn_to_pfn_cache_invalidate_gfns_start() */
  protected abstract gfnToPfnCacheInvalidateGfns(kvm: Kvm, start: number, end: number, pages: PagesAre): void;

  /** kvm_supported_mem_attributes() */
  kvmSupportedMemAttributes(kvm: Kvm | undefined): bigint {
    return kvm === undefined || kvm.hasPrivateMem ? ATTRIBUTE_PRIVATE : 0n;
  }

  /** kvm_vm_ioctl_set_mem_attributes() */
  kvmVmIoctlSetMemAttributes(kvm: Kvm, args: MemoryAttributes): Errno | undefined {
    const { address, size, attributes, flags } = args;
    if (flags !== 0n) return 'EINVAL';
    if ((attributes & ~this.kvmSupportedMemAttributes(kvm)) !== 0n) return 'EINVAL';
    if (size === 0n || wrap64(address + size) < address) return 'EINVAL';
    if (!isPageAligned(address) || !isPageAligned(size)) return 'EINVAL';
    return this.kvmVmSetMemAttributes(kvm, toPages(address), toPages(address + size), attributes);
  }

  /** kvm_vm_set_mem_attributes() */
  kvmVmSetMemAttributes(kvm: Kvm, start: number, end: number, attributes: bigint): Errno | undefined {
    this.lock(kvm.slotsLock);
    let error: Errno | undefined;
    if (!this.kvmRangeHasMemoryAttributes(kvm, start, end, attributes)) {
      error = this.xaReserve(kvm, start, end, attributes);
      if (error === undefined) this.kvmConvert(kvm, start, end, attributes);
    }
    this.unlock(kvm.slotsLock);
    return error;
  }

  /** kvm_vm_set_mem_attributes(), once nothing can fail any more. */
  kvmConvert(kvm: Kvm, start: number, end: number, attributes: bigint): void {
    kvm.gpcInvalidateInProgress++;
    this.gfnToPfnCacheInvalidateGfns(kvm, start, end, 'kept');
    this.kvmHandleGfnRange(
      kvm,
      start,
      end,
      () => this.kvmMmuInvalidateStart(kvm),
      (range) => this.kvmPreSetMemoryAttributes(kvm, range, attributes),
    );
    this.xaStore(kvm, start, end, attributes);
    this.kvmHandleGfnRange(
      kvm,
      start,
      end,
      () => this.kvmMmuInvalidateEnd(kvm),
      (range) => this.kvmArchPostSetMemoryAttributes(kvm, range, attributes),
    );
    kvm.gpcInvalidateInProgress--;
  }

  /**
   * xa_reserve() for each frame. What was allocated before a failure stays: it reads as no attribute. Until 7.3.4 room
   * is reserved for clearing as well, which needs none.
   */
  xaReserve(kvm: Kvm, start: number, end: number, attributes: bigint): Errno | undefined {
    if (attributes === 0n && this.since(7, 3)) return undefined;
    const first = Math.floor(start / XA_CHUNK_SIZE);
    const past = Math.ceil(end / XA_CHUNK_SIZE);
    for (const gap of kvm.attributeNodes.gaps(first, past)) {
      const wanted = gap.end - gap.start;
      const allocated = this.slabAllocate(wanted);
      if (allocated > 0) kvm.attributeNodes.set(gap.start, gap.start + allocated, true);
      if (allocated < wanted) return 'ENOMEM';
    }
    return undefined;
  }

  /** xa_store() for each frame. Nodes that hold nothing any more are freed. */
  xaStore(kvm: Kvm, start: number, end: number, attributes: bigint): void {
    this.stale |= PART.VMS;
    if (attributes !== 0n) {
      kvm.attributes.set(start, end, attributes);
      return;
    }
    kvm.attributes.delete(start, end);
    let first = Math.floor(start / XA_CHUNK_SIZE);
    let past = Math.ceil(end / XA_CHUNK_SIZE);
    if (kvm.attributes.nextFilled(first * XA_CHUNK_SIZE, start) < start) first++;
    if (kvm.attributes.nextFilled(end, past * XA_CHUNK_SIZE) < past * XA_CHUNK_SIZE) past--;
    if (first < past) kvm.attributeNodes.delete(first, past);
  }

  /** kvm_handle_gfn_range() */
  kvmHandleGfnRange(
    kvm: Kvm,
    startGfn: number,
    endGfn: number,
    onLock: () => void,
    handler: (range: GfnRange) => void,
  ): void {
    let found = false;
    for (const slots of kvm.memslots) {
      for (const slot of slots.values()) {
        const start = Math.max(startGfn, slot.baseGfn);
        const end = Math.min(endGfn, slot.baseGfn + slot.npages);
        if (start >= end) continue;
        if (!found) {
          found = true;
          this.lock(kvm.mmuLock);
          onLock();
        }
        handler({ slot, start, end });
      }
    }
    if (found) this.unlock(kvm.mmuLock);
  }

  /** kvm_pre_set_memory_attributes() */
  kvmPreSetMemoryAttributes(kvm: Kvm, range: GfnRange, attributes: bigint): void {
    this.kvmMmuInvalidateRangeAdd(kvm, range.start, range.end);
    this.kvmArchPreSetMemoryAttributes(kvm, range, attributes);
  }

  /** arch/x86/kvm/mmu/mmu.c: kvm_arch_pre_set_memory_attributes() */
  kvmArchPreSetMemoryAttributes(kvm: Kvm, range: GfnRange, _attributes: bigint): void {
    this.addStraddlingHugepages(kvm, range);
    this.kvmUnmapGfnRange(kvm, range);
  }
}
