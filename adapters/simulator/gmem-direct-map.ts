/**
 * Files of guest memory that are out of the direct map. Source: "Unmapping guest_memfd from Direct Map", RFC of July 2024
 * (v1) and RFC v2 of September 2024; "Direct Map Removal Support for guest_memfd", v12 of April 2026.
 */
import type { ShareEvent } from '../../model/core/facts.ts';
import { GMEM_FLAG } from '../../model/core/abi.ts';
import { Attributes } from './attributes.ts';
import type { Folio } from './frames.ts';
import { newLock, PART, type Lock } from './kernel.ts';
import type { Inode } from './objects.ts';
import { RunMap } from './ranges.ts';

export abstract class GmemDirectMap extends Attributes {
  /** PG_private: frames that direct-map removal has to do with. In v1 cleared while a cache has put them back. */
  readonly pagePrivate = new RunMap<true>();
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

  /** kvm_gmem_folio_set_private(). The RFC of July 2024 leaves the TLB alone, for speed. */
  kvmGmemFolioSetPrivate(folio: Folio): void {
    this.setDirectMapInvalidNoflush(folio);
    if (!this.has('direct-map-one-cache')) this.flushTlbKernelRange(folio);
    this.pagePrivate.set(folio.frame, folio.frame + folio.count, true);
  }

  /** kvm_gmem_folio_clear_private() */
  kvmGmemFolioClearPrivate(folio: Folio): void {
    this.setDirectMapDefaultNoflush(folio);
  }

  /** kvm_gmem_get_folio(): what becomes of pages that have just been added to the file. */
  kvmGmemAdded(inode: Inode, folio: Folio): boolean {
    if (!this.kvmGmemTestNoDirectMap(inode) || !this.has('direct-map-on-entry')) return false;
    this.clearHighpage(folio);
    this.kvmGmemFolioSetPrivate(folio);
    return true;
  }

  /** v12, kvm_gmem_folio_zap_direct_map(): at the end of kvm_gmem_get_pfn() and kvm_gmem_fault_user_mapping(). */
  kvmGmemUsed(inode: Inode, { frame, count }: Folio): void {
    if (!this.kvmGmemTestNoDirectMap(inode) || this.has('direct-map-on-entry')) return;
    for (const { start, end } of this.pagePrivate.gaps(frame, frame + count))
      this.kvmGmemFolioSetPrivate({ frame: start, count: end - start });
  }

  /** kvm_gmem_invalidate_folio(). A page that is shared is in the direct map already; its count goes with it. */
  protected override invalidateFolio({ frame, count }: Folio): void {
    for (const { start, end } of this.pagePrivate.slice(frame, frame + count)) {
      this.kvmGmemFolioClearPrivate({ frame: start, count: end - start });
      for (const shared of this.sharingCounts.keys())
        if (shared >= start && shared < end) this.sharingCounts.delete(shared);
      this.pagePrivate.delete(start, end);
    }
  }

  /** RFC v2, kvm_gmem_get_pfn() with KVM_GMEM_GET_PFN_SHARED, under the folio lock: the first share maps the page. */
  kvmGmemShare(folio: Folio): void {
    const { frame } = folio;
    if (this.pagePrivate.get(frame) !== true) return;
    const count = this.sharingCounts.get(frame) ?? 0;
    if (count === 0) this.kvmGmemFolioClearPrivate(folio);
    this.setSharingCount(frame, count + 1);
    this.shareEvents.push({ event: 'share', frame });
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
