/** guest_memfd. Source: virt/kvm/guest_memfd.c. */
import { GMEM_FLAG, isPageAligned, toPages, wrap64 } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import type { PagesAre } from './attributes.ts';
import type { CachedFolio } from './files.ts';
import type { Folio } from './frames.ts';
import { GmemDirectMap } from './gmem-direct-map.ts';
import { PART } from './kernel.ts';
import type { VmFault } from './mm.ts';
import type { File, GmemFile, Inode, Kvm, MemSlot, Vma } from './objects.ts';
import { RunMap } from './ranges.ts';

/** flags of struct kvm_memory_slot that userspace cannot set. Source: include/linux/kvm_host.h. */
export const KVM_MEMSLOT_INVALID = 1 << 16;
export const KVM_MEMSLOT_GMEM_ONLY = 1 << 17;

const PAST_ALL_PAGES = Number.MAX_SAFE_INTEGER;

/** What a pointer to a gmem file points at. */
function asGmemFile(file: File): GmemFile {
  if (file.kind !== 'gmem') throw new Error(`kernel oops: a memslot refers to a ${file.kind} file as its gmem file`);
  return file;
}

export abstract class Gmem extends GmemDirectMap {
  /** kvm_get_kvm(), kvm_put_kvm() */
  abstract kvmGetKvm(kvm: Kvm): void;
  abstract kvmPutKvm(kvm: Kvm): void;

  /** Called before a slot loses its file: what its caches hold is given back while the pages are there. */
  protected abstract gfnToPfnCacheRevoke(kvm: Kvm, slot: MemSlot): void;

  /** RFC v2, patch 9: kvm_gmem_invalidate_begin(), before stage 2 is zapped. Ranges are those of the slots. */
  kvmGmemInvalidateCachesStart(file: GmemFile, start: number, end: number, pages: PagesAre): void {
    const kvm = this.kvms.at(file.kvm);
    kvm.gpcInvalidateInProgress++;
    if (!this.has('direct-map')) return;
    for (const run of file.bindings.slice(start, end)) {
      const slot = this.slots.at(run.value);
      const delta = slot.baseGfn - slot.gmem.pgoff;
      this.gfnToPfnCacheInvalidateGfns(kvm, run.start + delta, run.end + delta, pages);
    }
  }

  kvmGmemInvalidateCachesEnd(file: GmemFile): void {
    this.kvms.at(file.kvm).gpcInvalidateInProgress--;
  }

  /** include/linux/kvm_host.h: kvm_gmem_get_supported_flags() */
  kvmGmemGetSupportedFlags(kvm: Kvm | undefined): bigint {
    const always = GMEM_FLAG.MMAP | (this.has('direct-map') ? GMEM_FLAG.NO_DIRECT_MAP : 0n);
    return kvm?.hasPrivateMem === true ? always : always | GMEM_FLAG.INIT_SHARED;
  }

  /** kvm_gmem_create(). `size` is read as a loff_t. */
  kvmGmemCreate(kvm: Kvm, label: Label, size: bigint, flags: bigint): GmemFile | Errno {
    if ((flags & ~this.kvmGmemGetSupportedFlags(kvm)) !== 0n) return 'EINVAL';
    if (BigInt.asIntN(64, size) <= 0n || !isPageAligned(size)) return 'EINVAL';
    // The gmem_file, the inode, and the file.
    if (!this.kzalloc() || !this.kzalloc() || !this.kzalloc()) return 'ENOMEM';
    return this.kvmGmemNewFile(kvm, label, this.newInode(label, toPages(size), flags));
  }

  /** RFC v2 (2025), KVM_LINK_GUEST_MEMFD: a new file for another VM on the inode of `from`. */
  kvmGmemLink(kvm: Kvm, label: Label, from: Label, flags: bigint): GmemFile | Errno {
    if (flags !== 0n) return 'EINVAL';
    const source = this.fget(from);
    if (source === undefined) return 'EINVAL';
    const linked = source.kind === 'gmem' ? this.kvmGmemLinkFile(kvm, label, source) : 'EINVAL';
    this.fput(source);
    return linked;
  }

  kvmGmemLinkFile(kvm: Kvm, label: Label, source: GmemFile): GmemFile | Errno {
    if (source.kvm === kvm.address) return 'EINVAL';
    // The gmem_file and the file.
    if (!this.kzalloc() || !this.kzalloc()) return 'ENOMEM';
    source.inode.count++;
    return this.kvmGmemNewFile(kvm, label, source.inode);
  }

  /** __kvm_gmem_create(), from the allocation of the file on. */
  kvmGmemNewFile(kvm: Kvm, label: Label, inode: Inode): GmemFile {
    this.kvmGetKvm(kvm);
    const file = this.files.allocate<GmemFile>((address) => ({
      address,
      kind: 'gmem',
      label,
      count: 1,
      inode,
      kvm: kvm.address,
      bindings: new RunMap(),
      birthVm: kvm.label,
    }));
    inode.gmemFiles.add(file);
    this.stale |= PART.FILES;
    return file;
  }

  /** kvm_gmem_release(): the last reference to the file is gone. The pages stay: they are the inode's. */
  kvmGmemRelease(file: GmemFile): void {
    const { inode } = file;
    const kvm = this.kvms.at(file.kvm);
    this.lock(kvm.slotsLock);
    this.lock(inode.invalidateLock);
    for (const run of file.bindings.all) this.slots.at(run.value).gmem.file = undefined;
    this.kvmGmemInvalidateStartFile(file, 0, PAST_ALL_PAGES, 'gone');
    this.kvmGmemInvalidateEndFile(file, 0, PAST_ALL_PAGES);
    inode.gmemFiles.delete(file);
    this.stale |= PART.FILES | PART.SLOTS;
    this.unlock(inode.invalidateLock);
    this.unlock(kvm.slotsLock);
    file.bindings.clear();
    this.kvmPutKvm(kvm);
  }

  /** kvm_gmem_get_folio(): the pages from `index` on, new ones where there is none; with a reference. */
  kvmGmemGetFolio(inode: Inode, index: number, most: number): CachedFolio | Errno {
    const folio = this.filemapGetFolio(inode, index, most) ?? this.kvmGmemNewFolio(inode, index, most);
    const error = typeof folio === 'string' ? undefined : this.kvmGmemFound(inode, folio);
    if (error === undefined || typeof folio === 'string') return folio;
    this.folioPut(folio);
    return error;
  }

  private kvmGmemNewFolio(inode: Inode, index: number, max: number): CachedFolio | Errno {
    const folio = this.allocFrames(inode.pageCache.nextFilled(index, index + max) - index);
    this.filemapAddFolio(inode, index, folio);
    if (!this.leavesOnEntry(inode)) return { ...folio, uptodate: false };
    const error = this.kvmGmemAdded(folio);
    this.folioMarkUptodate(inode, index, folio);
    if (error === undefined) return { ...folio, uptodate: true };
    if (this.has('direct-map-host-address')) this.filemapAddFails(inode, index, folio);
    this.folioPut(folio);
    return error;
  }

  /** v13, filemap_add_folio(): a page that cannot leave the direct map does not enter the file. */
  filemapAddFails(inode: Inode, index: number, { frame, count }: Folio): void {
    this.deleteFromPageCache(inode, index, index + count, frame - index);
  }

  /** __kvm_gmem_invalidate_start(): zaps what one file's bindings let its VM see of the pages. */
  kvmGmemInvalidateStartFile(file: GmemFile, start: number, end: number, pages: PagesAre): void {
    this.kvmGmemInvalidateCachesStart(file, start, end, pages);
    const kvm = this.kvms.at(file.kvm);
    let found = false;
    for (const run of file.bindings.slice(start, end)) {
      const slot = this.slots.at(run.value);
      if (!found) {
        found = true;
        this.lock(kvm.mmuLock);
        this.kvmMmuInvalidateStart(kvm);
      }
      const delta = slot.baseGfn - slot.gmem.pgoff;
      this.kvmMmuUnmapGfnRange(kvm, { slot, start: run.start + delta, end: run.end + delta });
    }
    if (found) this.unlock(kvm.mmuLock);
  }

  /** __kvm_gmem_invalidate_end() */
  kvmGmemInvalidateEndFile(file: GmemFile, start: number, end: number): void {
    this.kvmGmemInvalidateCachesEnd(file);
    if (file.bindings.nextFilled(start, end) >= end) return;
    const kvm = this.kvms.at(file.kvm);
    this.lock(kvm.mmuLock);
    this.kvmMmuInvalidateEnd(kvm);
    this.unlock(kvm.mmuLock);
  }

  /** kvm_gmem_invalidate_start() */
  kvmGmemInvalidateStart(inode: Inode, start: number, end: number, pages: PagesAre): void {
    for (const file of inode.gmemFiles) this.kvmGmemInvalidateStartFile(file, start, end, pages);
  }

  /** kvm_gmem_invalidate_end() */
  kvmGmemInvalidateEnd(inode: Inode, start: number, end: number): void {
    for (const file of inode.gmemFiles) this.kvmGmemInvalidateEndFile(file, start, end);
  }

  /** kvm_gmem_punch_hole() */
  kvmGmemPunchHole(inode: Inode, start: number, end: number): void {
    this.lock(inode.invalidateLock);
    this.kvmGmemInvalidateStart(inode, start, end, 'gone');
    this.truncateInodePagesRange(inode, start, end);
    this.kvmGmemInvalidateEnd(inode, start, end);
    this.unlock(inode.invalidateLock);
  }

  /** kvm_gmem_allocate() */
  kvmGmemAllocate(inode: Inode, start: number, end: number): Errno | undefined {
    if (end > inode.pages) return 'EINVAL';
    this.lockShared(inode.invalidateLock);
    let error: Errno | undefined;
    for (let index = start; index < end;) {
      const alike = this.leavesOnEntry(inode) ? this.untilChangeFails(inode, index) : end - index;
      const folio = this.kvmGmemGetFolio(inode, index, Math.min(end - index, alike));
      if (typeof folio === 'string') {
        error = folio;
        break;
      }
      index += folio.count;
      this.folioPut(folio);
    }
    this.unlockShared(inode.invalidateLock);
    return error;
  }

  /** kvm_gmem_fault_user_mapping() */
  protected override faultUserMapping(vma: Vma, page: number, max: number): Folio | VmFault {
    const { inode } = vma.file;
    const index = vma.pgoff + page;
    if (index >= inode.pages) return 'VM_FAULT_SIGBUS';
    if ((inode.flags & GMEM_FLAG.INIT_SHARED) === 0n) return 'VM_FAULT_SIGBUS';
    const folio = this.kvmGmemGetFolio(inode, index, Math.min(max, inode.pages - index, this.asOneFolio(inode, index)));
    // vmf_error()
    if (typeof folio === 'string') return 'VM_FAULT_OOM';
    return this.kvmGmemMakeUptodate(inode, index, folio) === undefined ? folio : 'VM_FAULT_OOM';
  }

  /** The end of kvm_gmem_get_pfn() and kvm_gmem_fault_user_mapping(): zeroed once, when somebody is given the page. */
  kvmGmemMakeUptodate(inode: Inode, index: number, folio: CachedFolio): Errno | undefined {
    if (!folio.uptodate) {
      this.clearHighpage(folio);
      this.folioMarkUptodate(inode, index, folio);
    }
    const error = this.kvmGmemUsed(inode, folio);
    if (error === undefined) this.noteFirstTouch(inode, index, folio);
    else this.folioPut(folio);
    return error;
  }

  /** How many pages may be given to somebody at once. */
  private asOneFolio(inode: Inode, index: number): number {
    return Math.min(this.untilPoison(inode, index), this.untilChangeFails(inode, index));
  }

  /** Poison is a matter of single pages. */
  private untilPoison(inode: Inode, index: number): number {
    const run = this.poisoned.size > 0 ? inode.pageCache.find(index) : undefined;
    if (run === undefined) return PAST_ALL_PAGES;
    const frame = index + run.value.delta;
    const distances = [...this.poisoned].filter((bad) => bad >= frame).map((bad) => bad - frame);
    return Math.max(1, Math.min(PAST_ALL_PAGES, ...distances));
  }

  /**
   * kvm_gmem_prepare_memory_region(): lets a new slot refer to the file, and keeps a reference for the caller. Before
   * 7.3.4 the first half of kvm_gmem_bind().
   */
  kvmGmemPrepareMemoryRegion(kvm: Kvm, slot: MemSlot, fd: Label, offset: bigint): GmemFile | Errno {
    const file = this.fget(fd);
    if (file === undefined) return 'EBADF';
    if (file.kind !== 'gmem' || file.kvm !== kvm.address || !this.kvmGmemFits(file.inode, slot, offset)) {
      this.fput(file);
      return 'EINVAL';
    }
    Object.assign(slot.gmem, { file: file.address, pgoff: toPages(offset), birthFile: file.label });
    if ((file.inode.flags & GMEM_FLAG.MMAP) !== 0n) slot.flags |= KVM_MEMSLOT_GMEM_ONLY;
    return file;
  }

  kvmGmemFits(inode: Inode, slot: MemSlot, offset: bigint): boolean {
    if (!isPageAligned(offset)) return false;
    const end = wrap64(offset + (BigInt(slot.npages) << 12n));
    return end <= BigInt(inode.pages) << 12n;
  }

  /** kvm_gmem_commit_memory_region(): fills the table of bindings. Before 7.3.4 the second half of kvm_gmem_bind(). */
  kvmGmemCommitMemoryRegion(file: GmemFile, slot: MemSlot): Errno | undefined {
    const start = slot.gmem.pgoff;
    const end = start + slot.npages;
    this.lock(file.inode.invalidateLock);
    const error = this.kvmGmemStoreBinding(file, slot, start, end);
    this.unlock(file.inode.invalidateLock);
    return error;
  }

  kvmGmemStoreBinding(file: GmemFile, slot: MemSlot, start: number, end: number): Errno | undefined {
    if (file.bindings.nextFilled(start, end) < end) return this.since(7, 2) ? 'EEXIST' : 'EINVAL';
    // Until 7.3.4 nobody looked at what xa_store_range() returned; there its allocation is taken not to fail.
    if (this.since(7, 3, 4) && !this.kzalloc()) return 'ENOMEM';
    file.bindings.set(start, end, slot.address);
    this.stale |= PART.SLOTS;
    return undefined;
  }

  /** kvm_gmem_unbind() */
  kvmGmemUnbind(slot: MemSlot): void {
    const { file: address, pgoff } = slot.gmem;
    if (address === undefined) return;
    // The file may be on its way out: its bindings can be changed until kvm_gmem_release() gets slots_lock.
    const file = asGmemFile(this.files.at(address));
    this.lock(file.inode.invalidateLock);
    this.gfnToPfnCacheRevoke(this.kvms.at(file.kvm), slot);
    file.bindings.delete(pgoff, pgoff + slot.npages);
    slot.gmem.file = undefined;
    this.stale |= PART.SLOTS;
    this.unlock(file.inode.invalidateLock);
  }

  /** kvm_gmem_get_pfn(): the pages behind a guest frame, zeroed if they are new, with a reference. */
  kvmGmemGetPfn(slot: MemSlot, gfn: number, max: number): Folio | Errno {
    const active = slot.gmem.file === undefined ? undefined : this.getFileActive(slot.gmem.file);
    if (active === undefined) return 'EFAULT';
    const file = asGmemFile(active);
    const index = gfn - slot.baseGfn + slot.gmem.pgoff;
    const folio = this.kvmGmemGetPfnLocked(file, slot, index, max);
    const error = typeof folio === 'string' ? undefined : this.kvmGmemMakeUptodate(file.inode, index, folio);
    this.fput(file);
    return error ?? folio;
  }

  /** __kvm_gmem_get_pfn() */
  kvmGmemGetPfnLocked(file: GmemFile, slot: MemSlot, index: number, max: number): CachedFolio | Errno {
    if (file.address !== slot.gmem.file) return 'EFAULT';
    if (file.bindings.get(index) !== slot.address) return 'EIO';
    const folio = this.kvmGmemGetFolio(file.inode, index, Math.min(max, this.asOneFolio(file.inode, index)));
    if (typeof folio === 'string' || !this.poisoned.has(folio.frame)) return folio;
    this.folioPut(folio);
    return 'EHWPOISON';
  }

  /** mm/memory-failure.c: memory_failure(), for a page in the page cache of an inode of guest_memfd. */
  memoryFailure(inode: Inode, index: number): void {
    const folio = this.filemapGetFolio(inode, index, 1);
    if (folio === undefined) return;
    if (!this.poisoned.has(folio.frame)) {
      this.poisoned.add(folio.frame);
      this.stale |= PART.POISONED;
      this.unmapPoisonedFolio(inode, index, folio);
      this.kvmGmemErrorFolio(inode, index);
    }
    this.folioPut(folio);
  }

  /** kvm_gmem_error_folio(): the page stays where it is, so that whoever touches it is told. */
  kvmGmemErrorFolio(inode: Inode, index: number): void {
    this.lockShared(inode.invalidateLock);
    this.kvmGmemInvalidateStart(inode, index, index + 1, 'kept');
    this.kvmGmemInvalidateEnd(inode, index, index + 1);
    this.unlockShared(inode.invalidateLock);
  }
}
