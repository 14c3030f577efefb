/** Memory slots: KVM_SET_USER_MEMORY_REGION(2). Source: virt/kvm/kvm_main.c, arch/x86/kvm/x86.c. */
import {
  isPageAligned,
  KVM_MEM,
  KVM_MEM_MAX_NR_PAGES,
  KVM_USER_MEM_SLOTS,
  PAGE_SHIFT,
  toPages,
  U16_MAX,
  wrap64,
} from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import { Gmem, KVM_MEMSLOT_INVALID } from './gmem.ts';
import { PART, WouldBlock } from './kernel.ts';
import type { GmemFile, Kvm, MemSlot } from './objects.ts';

/** struct kvm_userspace_memory_region2 */
export interface MemoryRegion {
  readonly slot: bigint;
  readonly flags: bigint;
  readonly guestPhysAddr: bigint;
  readonly memorySize: bigint;
  readonly userspaceAddr: bigint;
  readonly guestMemfd: Label;
  readonly guestMemfdOffset: bigint;
}

type Change = 'CREATE' | 'DELETE' | 'MOVE' | 'FLAGS_ONLY';

const V1_FLAGS = KVM_MEM.LOG_DIRTY_PAGES | KVM_MEM.READONLY;
const GUEST_MEMFD = Number(KVM_MEM.GUEST_MEMFD);
const READONLY = Number(KVM_MEM.READONLY);

export abstract class Slots extends Gmem {
  /** kvm_vm_ioctl(), for both versions of the call. */
  kvmVmIoctlSetMemoryRegion(kvm: Kvm, mem: MemoryRegion, version: 'v1' | 'v2'): Errno | undefined {
    if (version === 'v1' && (mem.flags & ~V1_FLAGS) !== 0n) return 'EINVAL';
    if ((mem.slot & U16_MAX) >= KVM_USER_MEM_SLOTS) return 'EINVAL';
    this.lock(kvm.slotsLock);
    const error = this.kvmSetMemoryRegion(kvm, mem);
    this.unlock(kvm.slotsLock);
    return error;
  }

  /** check_memory_region_flags() */
  checkMemoryRegionFlags(mem: MemoryRegion): boolean {
    const gmem = (mem.flags & KVM_MEM.GUEST_MEMFD) !== 0n;
    const valid = gmem ? KVM_MEM.GUEST_MEMFD : KVM_MEM.LOG_DIRTY_PAGES | KVM_MEM.READONLY;
    return (mem.flags & ~valid) === 0n;
  }

  /** kvm_set_memory_region(), up to the look at the slots that exist. */
  checkMemoryRegion(kvm: Kvm, mem: MemoryRegion): boolean {
    const { memorySize: size, guestPhysAddr: gpa, userspaceAddr: hva, guestMemfdOffset: offset } = mem;
    if (!this.checkMemoryRegionFlags(mem)) return false;
    if (!isPageAligned(size) || !isPageAligned(gpa)) return false;
    if (!isPageAligned(hva) || !this.accessOk(hva, size)) return false;
    if ((mem.flags & KVM_MEM.GUEST_MEMFD) !== 0n && (!isPageAligned(offset) || wrap64(offset + size) < offset))
      return false;
    if (mem.slot >> 16n >= BigInt(kvm.memslots.length)) return false;
    if (wrap64(gpa + size) < gpa) return false;
    return size >> PAGE_SHIFT <= KVM_MEM_MAX_NR_PAGES;
  }

  /** access_ok() */
  accessOk(address: bigint, size: bigint): boolean {
    const end = wrap64(address + size);
    return end >= address && end <= this.config.machine.userTop;
  }

  /** kvm_set_memory_region() */
  kvmSetMemoryRegion(kvm: Kvm, mem: MemoryRegion): Errno | undefined {
    if (!this.checkMemoryRegion(kvm, mem)) return 'EINVAL';
    const asId = Number(mem.slot >> 16n);
    const id = Number(mem.slot & U16_MAX);
    const old = kvm.memslots[asId]?.get(id);
    if (mem.memorySize === 0n) return old === undefined ? 'EINVAL' : this.kvmSetMemslot(kvm, old, undefined, 'DELETE');

    const change = old === undefined ? 'CREATE' : this.kvmChangeOf(mem, old);
    if (change === 'EINVAL') return 'EINVAL';
    if (change === undefined) return undefined;
    const baseGfn = toPages(mem.guestPhysAddr);
    const npages = toPages(mem.memorySize);
    if (change !== 'FLAGS_ONLY' && this.kvmCheckMemslotOverlap(kvm, asId, id, baseGfn, baseGfn + npages))
      return 'EEXIST';
    if (!this.kzalloc()) return 'ENOMEM';
    const fresh = this.newSlot({
      birthVm: kvm.label,
      asId,
      id,
      baseGfn,
      npages,
      flags: Number(mem.flags),
      userspacePage: toPages(mem.userspaceAddr),
    });
    const error = this.kvmInstallMemslot(kvm, mem, old, fresh, change);
    if (error !== undefined) this.slots.free(fresh);
    return error;
  }

  private newSlot(values: Omit<MemSlot, 'address' | 'gmem' | 'lpageInfo'>): MemSlot {
    return this.slots.allocate((address) => ({
      ...values,
      address,
      gmem: { file: undefined, pgoff: 0, birthFile: undefined },
      lpageInfo: [new Map(), new Map()],
    }));
  }

  /** kvm_set_memory_region(): what an update of an existing slot changes; undefined where nothing. */
  kvmChangeOf(mem: MemoryRegion, old: MemSlot): Change | 'EINVAL' | undefined {
    const flags = Number(mem.flags);
    if ((flags & GUEST_MEMFD) !== 0) return 'EINVAL';
    if (toPages(mem.userspaceAddr) !== old.userspacePage || toPages(mem.memorySize) !== old.npages) return 'EINVAL';
    if (((flags ^ old.flags) & (READONLY | GUEST_MEMFD)) !== 0) return 'EINVAL';
    if (toPages(mem.guestPhysAddr) !== old.baseGfn) return 'MOVE';
    return flags === old.flags ? undefined : 'FLAGS_ONLY';
  }

  /** kvm_check_memslot_overlap() */
  kvmCheckMemslotOverlap(kvm: Kvm, asId: number, id: number, start: number, end: number): boolean {
    for (const slot of kvm.memslots[asId]?.values() ?? [])
      if (slot.id !== id && slot.baseGfn < end && start < slot.baseGfn + slot.npages) return true;
    return false;
  }

  /** kvm_set_memory_region(), from the look at the gmem file on. */
  kvmInstallMemslot(
    kvm: Kvm,
    mem: MemoryRegion,
    old: MemSlot | undefined,
    fresh: MemSlot,
    change: Change,
  ): Errno | undefined {
    if ((mem.flags & KVM_MEM.GUEST_MEMFD) === 0n) return this.kvmSetMemslot(kvm, old, fresh, change);
    const file = this.kvmGmemPrepareMemoryRegion(kvm, fresh, mem.guestMemfd, mem.guestMemfdOffset);
    if (typeof file === 'string') return file;
    const error = this.since(7, 3, 4)
      ? this.kvmSetMemslot(kvm, old, fresh, change, file)
      : this.kvmBindThenSetMemslot(kvm, fresh, file);
    this.fput(file);
    return error;
  }

  /** kvm_set_memory_region() before 7.3.4: kvm_gmem_bind() came first, and was undone where the slot failed. */
  kvmBindThenSetMemslot(kvm: Kvm, fresh: MemSlot, file: GmemFile): Errno | undefined {
    const unbound = this.kvmGmemCommitMemoryRegion(file, fresh);
    if (unbound !== undefined) return unbound;
    const error = this.kvmSetMemslot(kvm, undefined, fresh, 'CREATE');
    if (error !== undefined) this.kvmGmemUnbind(fresh);
    return error;
  }

  /** kvm_set_memslot(). `file` is the gmem file that is still to be bound. */
  kvmSetMemslot(
    kvm: Kvm,
    old: MemSlot | undefined,
    fresh: MemSlot | undefined,
    change: Change,
    file?: GmemFile,
  ): Errno | undefined {
    let invalid: MemSlot | undefined;
    if (old !== undefined && (change === 'DELETE' || change === 'MOVE')) {
      if (!this.kzalloc()) return 'ENOMEM';
      invalid = this.kvmInvalidateMemslot(kvm, old);
    }
    let error = fresh === undefined ? undefined : this.kvmArchPrepareMemoryRegion(kvm, old, fresh, change);
    if (error === undefined && file !== undefined && fresh !== undefined)
      error = this.kvmGmemCommitMemoryRegion(file, fresh);
    if (error === undefined) this.kvmReplaceMemslot(kvm, old, fresh);
    else if (old !== undefined && invalid !== undefined) this.kvmReplaceMemslot(kvm, invalid, old);
    if (invalid !== undefined) this.slots.free(invalid);
    if (error === undefined && old !== undefined) this.kvmCommitMemoryRegion(kvm, old, change);
    return error;
  }

  /** kvm_invalidate_memslot(): vCPUs find an invalid slot while the old one's mappings go. */
  kvmInvalidateMemslot(kvm: Kvm, old: MemSlot): MemSlot {
    const invalid = this.newSlot(old);
    invalid.flags |= KVM_MEMSLOT_INVALID;
    invalid.lpageInfo = old.lpageInfo;
    this.kvmReplaceMemslot(kvm, old, invalid);
    this.kvmArchFlushShadowMemslot(kvm, old);
    this.kvmArchGuestMemoryReclaimed(kvm);
    return invalid;
  }

  /** kvm_replace_memslot() and kvm_swap_active_memslots() */
  kvmReplaceMemslot(kvm: Kvm, old: MemSlot | undefined, fresh: MemSlot | undefined): void {
    if (kvm.mnActiveInvalidateCount > 0) throw new WouldBlock('deadlock: slots change during an invalidation');
    const slots = kvm.memslots[(fresh ?? old)?.asId ?? 0];
    if (old !== undefined) slots?.delete(old.id);
    if (fresh !== undefined) slots?.set(fresh.id, fresh);
    kvm.generation++;
    this.stale |= PART.SLOTS | PART.CACHES;
    this.handOver('synchronize_srcu');
    if (kvm.srcuReaders > 0) throw new WouldBlock('deadlock: slots change while somebody reads them');
  }

  /** arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region() */
  kvmArchPrepareMemoryRegion(kvm: Kvm, old: MemSlot | undefined, fresh: MemSlot, change: Change): Errno | undefined {
    if (change === 'FLAGS_ONLY') {
      if (old !== undefined) fresh.lpageInfo = old.lpageInfo;
      return undefined;
    }
    if (fresh.baseGfn + fresh.npages - 1 > this.kvmMmuMaxGfn()) return 'EINVAL';
    return this.kvmAllocMemslotMetadata(kvm, fresh);
  }

  /** arch/x86/kvm/mmu.h: kvm_mmu_max_gfn() */
  kvmMmuMaxGfn(): number {
    return 2 ** (this.config.machine.guestPhysicalBits - 12) - 1;
  }

  /** kvm_commit_memory_region(), where there was a slot before. */
  kvmCommitMemoryRegion(kvm: Kvm, old: MemSlot, change: Change): void {
    if (change === 'DELETE') {
      this.kvmFreeMemslot(kvm, old);
      return;
    }
    // A slot of guest_memfd is neither moved nor changed; should it happen, its bindings must not outlive it.
    if ((old.flags & GUEST_MEMFD) !== 0) this.kvmGmemUnbind(old);
    this.slots.free(old);
  }

  /** kvm_free_memslot() */
  kvmFreeMemslot(_kvm: Kvm, slot: MemSlot): void {
    if ((slot.flags & GUEST_MEMFD) !== 0) this.kvmGmemUnbind(slot);
    this.slots.free(slot);
  }

  /** gfn_to_memslot(), in one address space. */
  gfnToMemslot(kvm: Kvm, asId: number, gfn: number): MemSlot | undefined {
    for (const slot of kvm.memslots[asId]?.values() ?? [])
      if (gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.npages) return slot;
    return undefined;
  }
}
