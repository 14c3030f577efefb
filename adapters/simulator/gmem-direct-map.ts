/**
 * Files of guest memory that are out of the direct map. Source: "Unmapping guest_memfd from Direct Map", RFC of July 2024
 * (v1) and RFC v2 of September 2024; "Direct Map Removal Support for guest_memfd", v12 of April 2026.
 */
import type { ShareEvent } from '../../model/core/facts.ts';
import { GMEM_FLAG } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import { Attributes } from './attributes.ts';
import type { Folio } from './frames.ts';
import { newLock, Oops, PART, type Lock } from './kernel.ts';
import type { Inode } from './objects.ts';
import { RunMap } from './ranges.ts';

export abstract class GmemDirectMap extends Attributes {
  /** PG_private: frames that direct-map removal has to do with. In v1 cleared while a cache has put them back. */
  readonly pagePrivate = new RunMap<true>();
  /** Frames of files with the flag that could not leave the direct map, and that nobody has been given since. */
  readonly unremoved = new RunMap<true>();
  /** RFC v2, patch 5: the sharing count of each frame, without the one that stands for "no sharing". */
  readonly sharingCounts = new Map<number, number>();
  /** Tracepoints kvm_gmem_share and kvm_gmem_unshare since the last command. */
  readonly shareEvents: ShareEvent[] = [];
  private readonly folioLocks = new Map<number, Lock>();

  /** folio_lock(), of folios of one page. */
  folioLock({ frame }: Folio): void {
    const lock = this.folioLocks.get(frame) ?? newLock('folio_lock');
    // Another task may have taken and dropped it before this one has it.
    this.lock(lock);
    this.folioLocks.set(frame, lock);
  }

  /** folio_unlock() */
  folioUnlock({ frame }: Folio): void {
    const lock = this.folioLocks.get(frame);
    if (lock === undefined) throw new Error(`kernel BUG: folio_unlock() of frame ${frame}, which is not locked`);
    this.folioLocks.delete(frame);
    this.unlock(lock);
  }

  /** kvm_gmem_test_no_direct_map() */
  kvmGmemTestNoDirectMap({ flags }: Inode): boolean {
    return (flags & GMEM_FLAG.NO_DIRECT_MAP) !== 0n;
  }

  /** v12, mm/gup.c: check_vma_flags(), of a mapping with AS_NO_DIRECT_MAP. */
  override gupRefuses(inode: Inode): boolean {
    return this.kvmGmemTestNoDirectMap(inode);
  }

  /** kvm_gmem_folio_set_private(). The RFC of July 2024 leaves the TLB alone, for speed. */
  kvmGmemFolioSetPrivate(folio: Folio): Errno | undefined {
    const error = this.setDirectMapInvalidNoflush(folio);
    if (error !== undefined) return error;
    if (!this.has('direct-map-one-cache')) this.flushTlbKernelRange(folio);
    this.pagePrivate.set(folio.frame, folio.frame + folio.count, true);
    this.unremoved.delete(folio.frame, folio.frame + folio.count);
    return undefined;
  }

  /**
   * kvm_gmem_folio_clear_private(). RFC v2 marks a page that cannot be put back as poisoned, so that nobody touches it any
   * more; v12 warns, and goes on.
   */
  kvmGmemFolioClearPrivate(folio: Folio): Errno | undefined {
    const error = this.setDirectMapDefaultNoflush(folio);
    if (error === undefined || !this.countsShares()) return error;
    this.folioSetHwpoison(folio);
    return 'EHWPOISON';
  }

  folioSetHwpoison({ frame }: Folio): void {
    this.poisoned.add(frame);
    this.stale |= PART.POISONED;
  }

  /** Whether shares are counted, so that a page may have several users. */
  countsShares(): boolean {
    return this.has('direct-map-reinsertion') && !this.has('direct-map-one-cache');
  }

  /** kvm_gmem_get_folio(): what becomes of pages that have just been added to the file; they are zeroed by it. */
  kvmGmemAdded(folio: Folio): Errno | undefined {
    this.clearHighpage(folio);
    const error = this.kvmGmemFolioSetPrivate(folio);
    if (error !== undefined) this.unremoved.set(folio.frame, folio.frame + folio.count, true);
    return error;
  }

  /** kvm_gmem_get_folio(), v13 filemap_add_folio(): whether the pages of the file leave the direct map as they enter it. */
  leavesOnEntry(inode: Inode): boolean {
    return this.kvmGmemTestNoDirectMap(inode) && this.has('direct-map-on-entry');
  }

  /** kvm_gmem_get_folio(), of pages that the file has: RFC v2 tries again where one could not leave the direct map. */
  kvmGmemFound(inode: Inode, folio: Folio): Errno | undefined {
    if (!this.leavesOnEntry(inode) || !this.countsShares()) return undefined;
    return this.kvmGmemSetPrivateUnlessSet(folio);
  }

  /** v12, kvm_gmem_folio_zap_direct_map(): at the end of kvm_gmem_get_pfn() and kvm_gmem_fault_user_mapping(). */
  kvmGmemUsed(inode: Inode, folio: Folio): Errno | undefined {
    this.unremoved.delete(folio.frame, folio.frame + folio.count);
    if (!this.kvmGmemTestNoDirectMap(inode) || this.has('direct-map-on-entry')) return undefined;
    return this.kvmGmemSetPrivateUnlessSet(folio);
  }

  /** How many pages from `index` on leave the direct map in the same way, or have left it: one that fails does so alone. */
  protected untilChangeFails(inode: Inode, index: number): number {
    if (this.failing !== 'split' || !this.kvmGmemTestNoDirectMap(inode)) return Infinity;
    const run = inode.pageCache.find(index);
    if (run === undefined) return 1;
    const frame = index + run.value.delta;
    const [present] = this.pagePrivate.gaps(frame, frame + run.end - index);
    return present === undefined ? run.end - index : Math.max(1, present.start - frame);
  }

  private kvmGmemSetPrivateUnlessSet({ frame, count }: Folio): Errno | undefined {
    for (const { start, end } of this.pagePrivate.gaps(frame, frame + count)) {
      const error = this.kvmGmemFolioSetPrivate({ frame: start, count: end - start });
      if (error !== undefined) return error;
    }
    return undefined;
  }

  /** kvm_gmem_invalidate_folio(). A page that is shared is in the direct map already; its count goes with it. */
  protected override invalidateFolio({ frame, count }: Folio): void {
    this.unremoved.delete(frame, frame + count);
    for (const { start, end } of this.pagePrivate.slice(frame, frame + count)) {
      for (const folio of this.foliosFrom(start, end)) this.kvmGmemRestored(folio);
      for (const shared of this.sharingCounts.keys())
        if (shared >= start && shared < end) this.sharingCounts.delete(shared);
      this.pagePrivate.delete(start, end);
    }
    this.collapse({ frame, count });
  }

  /** kvm_gmem_invalidate_folio(), v12 kvm_gmem_free_folio(): a page comes back before it is freed. */
  kvmGmemRestored(folio: Folio): void {
    const error = this.kvmGmemFolioClearPrivate(folio);
    if (error !== undefined && this.has('direct-map-one-cache'))
      throw new Oops('kernel BUG: a page cannot be put back');
  }

  /** Frames in a row may be changed at once, where nothing fails. */
  private foliosFrom(start: number, end: number): readonly Folio[] {
    if (this.failing === undefined || end - start === 1) return [{ frame: start, count: end - start }];
    return [
      { frame: start, count: 1 },
      { frame: start + 1, count: end - start - 1 },
    ];
  }

  /** RFC v2, kvm_gmem_get_pfn() with KVM_GMEM_GET_PFN_SHARED, under the folio lock: the first share maps the page. */
  kvmGmemShare(folio: Folio): Errno | undefined {
    const { frame } = folio;
    if (this.pagePrivate.get(frame) !== true) return undefined;
    const count = this.sharingCounts.get(frame) ?? 0;
    const error = count === 0 ? this.kvmGmemFolioClearPrivate(folio) : undefined;
    if (error !== undefined) return error;
    this.setSharingCount(frame, count + 1);
    this.shareEvents.push({ event: 'share', frame });
    return undefined;
  }

  /** RFC v2, kvm_gmem_put_shared_pfn(), under the folio lock: the last share unmaps it. */
  kvmGmemPutSharedPfn(folio: Folio): void {
    const { frame } = folio;
    if (this.pagePrivate.get(frame) !== true) return;
    const count = this.sharingCounts.get(frame) ?? 0;
    this.setSharingCount(frame, count - 1);
    this.shareEvents.push({ event: 'unshare', frame });
    if (count === 1) this.kvmGmemFolioSetPrivate(folio);
  }

  setSharingCount(frame: number, count: number): void {
    if (count === 0) this.sharingCounts.delete(frame);
    else this.sharingCounts.set(frame, count);
    this.stale |= PART.DIRECT_MAP;
  }
}
