/**
 * Pages that KVM keeps mapped for itself: gfn_to_pfn_cache. Source: virt/kvm/pfncache.c, and for private memory RFC v1
 * (patch 6) and RFC v2 (patches 7 to 9) of "Unmapping guest_memfd from Direct Map".
 */
import { INVALID_GPA, KVM_MEM, PAGE_MASK, PAGE_SIZE, toPages } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import type { PagesAre } from './attributes.ts';
import { Faults } from './faults.ts';
import type { Folio } from './frames.ts';
import { KVM_MEMSLOT_INVALID } from './gmem.ts';
import { newLock, Oops, PART, WouldBlock } from './kernel.ts';
import type { Inode, Kvm, MemSlot, PfnCache } from './objects.ts';

const READONLY = Number(KVM_MEM.READONLY);

/** So many rounds without another task running will not get anywhere. */
const MAX_ROUNDS = 64;

/** What a lookup has found: a page with a reference, and whether it was put into the direct map for the cache. */
interface Found {
  readonly folio: Folio;
  readonly private: boolean;
  /** The cache had it already, and nothing was done for it. */
  readonly kept?: true;
}

export abstract class PfnCaches extends Faults {
  readonly caches = new Map<Label, PfnCache>();

  /** kvm_gpc_init() */
  kvmGpcInit(kvm: Kvm, label: Label): PfnCache {
    return {
      label,
      kvm: kvm.address,
      lock: newLock('gpc->lock'),
      refreshLock: newLock('gpc->refresh_lock'),
      gpa: INVALID_GPA,
      generation: 0,
      memslot: undefined,
      userspacePage: undefined,
      pfn: undefined,
      active: false,
      valid: false,
      private: false,
    };
  }

  /** A cache that is part of a vCPU, such as pv_time. */
  vcpuCache(kvm: Kvm, label: Label): void {
    const gpc = this.kvmGpcInit(kvm, label);
    kvm.caches.add(gpc);
    this.caches.set(label, gpc);
    this.stale |= PART.CACHES;
  }

  /** kvm_gpc_is_valid_len() */
  kvmGpcIsValidLen(gpa: bigint, length: bigint): boolean {
    const offset = gpa === INVALID_GPA ? 0n : gpa & PAGE_MASK;
    return offset + length <= PAGE_SIZE;
  }

  /** kvm_gpc_check() */
  kvmGpcCheck(gpc: PfnCache, length: bigint): boolean {
    if (!gpc.active || gpc.generation !== this.kvms.at(gpc.kvm).generation) return false;
    return gpc.userspacePage !== undefined && this.kvmGpcIsValidLen(gpc.gpa, length) && gpc.valid;
  }

  /** kvm_gpc_activate() */
  kvmGpcActivate(gpc: PfnCache, gpa: bigint, length: bigint): Errno | undefined {
    if (gpa === INVALID_GPA || !this.kvmGpcIsValidLen(gpa, length)) return 'EINVAL';
    this.lock(gpc.refreshLock);
    if (!gpc.active) {
      this.kvms.at(gpc.kvm).gpcList.add(gpc);
      gpc.active = true;
    }
    const error = this.kvmGpcRefreshLocked(gpc, gpa);
    this.unlock(gpc.refreshLock);
    return error;
  }

  /** kvm_gpc_refresh() */
  kvmGpcRefresh(gpc: PfnCache, length: bigint): Errno | undefined {
    this.lock(gpc.refreshLock);
    const fits = this.kvmGpcIsValidLen(gpc.gpa, length) && gpc.gpa !== INVALID_GPA;
    const error = fits ? this.kvmGpcRefreshLocked(gpc, gpc.gpa) : 'EINVAL';
    this.unlock(gpc.refreshLock);
    return error;
  }

  /** __kvm_gpc_refresh(), for caches that are keyed by gpa. */
  kvmGpcRefreshLocked(gpc: PfnCache, gpa: bigint): Errno | undefined {
    this.lock(gpc.lock);
    if (!gpc.active) {
      this.unlock(gpc.lock);
      return 'EINVAL';
    }
    this.stale |= PART.CACHES;
    const old = this.heldBy(gpc);
    const moved = this.kvmGpcResolve(gpc, gpa);
    if (gpc.valid && gpc.userspacePage !== undefined && !moved) {
      this.unlock(gpc.lock);
      return undefined;
    }
    const error = gpc.userspacePage === undefined ? 'EFAULT' : this.hvaToPfnRetry(gpc);
    if (error !== undefined) {
      gpc.valid = false;
      gpc.private = false;
      gpc.pfn = undefined;
    }
    this.putOld(gpc, this.countsShares() || this.heldBy(gpc) !== old ? old : undefined);
    return error;
  }

  /** __kvm_gpc_refresh(): reads the slot, and says whether what was cached before is of no use any more. */
  kvmGpcResolve(gpc: PfnCache, gpa: bigint): boolean {
    const kvm = this.kvms.at(gpc.kvm);
    const { userspacePage, gpa: before } = gpc;
    if (gpa === before && gpc.generation === kvm.generation && userspacePage !== undefined) return false;
    const gfn = toPages(gpa);
    const slot = this.gfnToMemslot(kvm, 0, gfn);
    gpc.gpa = gpa;
    gpc.generation = kvm.generation;
    gpc.memslot = slot?.address;
    gpc.userspacePage = slot && this.gfnToHvaMemslot(slot, gfn, true);
    // The host address says nothing of private memory: slots may have the same, and a slot another part of a file.
    return gpc.userspacePage !== userspacePage || this.countsShares();
  }

  /** __gfn_to_hva_many(): the virtual page; none where the slot is going, or is to be written and must not. */
  gfnToHvaMemslot(slot: MemSlot, gfn: number, write: boolean): number | undefined {
    if ((slot.flags & KVM_MEMSLOT_INVALID) !== 0 || (write && (slot.flags & READONLY) !== 0)) return undefined;
    return slot.userspacePage + gfn - slot.baseGfn;
  }

  /** hva_to_pfn_retry(). Leaves gpc->lock to the caller, held. */
  hvaToPfnRetry(gpc: PfnCache): Errno | undefined {
    const kvm = this.kvms.at(gpc.kvm);
    gpc.valid = false;
    let found: Found | undefined;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const seq = kvm.mmuInvalidateSeq;
      const gpcSeq = kvm.gpcInvalidateSeq;
      this.unlock(gpc.lock);
      if (found !== undefined) this.putFound(found);
      found = this.kvmGpcLookUp(kvm, gpc);
      this.lock(gpc.lock);
      if (found === undefined) return 'EFAULT';
      if (this.mmuNotifierRetryCache(kvm, seq, gpcSeq)) continue;
      gpc.valid = true;
      gpc.pfn = found.folio.frame;
      gpc.private = found.private;
      this.folioPut(found.folio);
      return undefined;
    }
    throw new WouldBlock('livelock: a cache is invalidated for ever');
  }

  /** mmu_notifier_retry_cache(): whether something was invalidated meanwhile. */
  mmuNotifierRetryCache(kvm: Kvm, seq: number, gpcSeq: number): boolean {
    if (kvm.mnActiveInvalidateCount + kvm.gpcInvalidateInProgress > 0)
      throw new WouldBlock('a cache waits for an invalidation to end');
    return kvm.mmuInvalidateSeq !== seq || kvm.gpcInvalidateSeq !== gpcSeq;
  }

  /** The page that backs the cache now, ready to be accessed by the kernel. */
  kvmGpcLookUp(kvm: Kvm, gpc: PfnCache): Found | undefined {
    const gfn = toPages(gpc.gpa);
    if (this.has('direct-map-reinsertion') && this.kvmMemIsPrivate(kvm, gfn)) {
      const folio = gpc.memslot === undefined ? 'EFAULT' : this.kvmGmemGetPfn(this.slots.at(gpc.memslot), gfn, 1);
      return typeof folio === 'string' ? undefined : this.gpcMapGmem(gpc, folio);
    }
    const folio = this.hvaToPfn(gpc.userspacePage);
    return folio === undefined ? undefined : { folio, private: false };
  }

  /** hva_to_pfn(), with FOLL_WRITE. GUP refuses mappings of files that are not in the direct map. */
  hvaToPfn(page: number | undefined): Folio | undefined {
    const folio = page === undefined ? undefined : this.getUserPages(page, 1);
    return typeof folio === 'string' ? undefined : folio;
  }

  /** Takes the page into the direct map for as long as the cache has it. */
  gpcMapGmem(gpc: PfnCache, folio: Folio): Found | undefined {
    if (!this.countsShares() && this.heldBy(gpc) === folio.frame) return { folio, private: true, kept: true };
    this.folioLock(folio);
    const mapped = this.countsShares() ? this.shared(folio) : this.mappedByOne(folio);
    this.folioUnlock(folio);
    if (mapped) return { folio, private: true };
    this.folioPut(folio);
    return undefined;
  }

  private shared(folio: Folio): boolean {
    return this.kvmGmemShare(folio) === undefined;
  }

  /** RFC v1, gpc_map_gmem(): a page that is present is in use by another cache. */
  private mappedByOne(folio: Folio): boolean {
    const inode = this.folioInode(folio);
    if (!this.kvmGmemTestNoDirectMap(inode)) return true;
    if (this.pagePrivate.get(folio.frame) !== true || this.kvmGmemFolioClearPrivate(folio) !== undefined) return false;
    this.pagePrivate.delete(folio.frame, folio.frame + 1);
    return true;
  }

  /** gpc_unmap(), for a page that was taken into the direct map. */
  gpcUnmapGmem(folio: Folio): void {
    this.folioLock(folio);
    if (this.countsShares()) this.kvmGmemPutSharedPfn(folio);
    else if (this.kvmGmemTestNoDirectMap(this.folioInode(folio))) this.kvmGmemFolioSetPrivate(folio);
    this.folioUnlock(folio);
  }

  /** folio_inode(): the file whose page it is. */
  private folioInode({ frame }: Folio): Inode {
    for (const inode of this.inodes)
      for (const { start, end, value } of inode.pageCache.all)
        if (frame >= start + value.delta && frame < end + value.delta) return inode;
    throw new Oops(`NULL pointer dereference: frame ${frame} belongs to no file any more`);
  }

  private putFound({ folio, private: isPrivate, kept }: Found): void {
    if (isPrivate && kept !== true) this.gpcUnmapGmem(folio);
    this.folioPut(folio);
  }

  private heldBy({ pfn, private: isPrivate }: PfnCache): number | undefined {
    return isPrivate ? pfn : undefined;
  }

  /** Drops gpc->lock and lets go of what the cache had. The page cannot be freed in between. */
  putOld(gpc: PfnCache, old: number | undefined): void {
    const folio = old === undefined ? undefined : { frame: old, count: 1 };
    if (folio !== undefined) this.folioGet(folio);
    this.unlock(gpc.lock);
    if (folio === undefined) return;
    this.gpcUnmapGmem(folio);
    this.folioPut(folio);
  }

  /** kvm_gpc_deactivate() */
  kvmGpcDeactivate(gpc: PfnCache): void {
    this.lock(gpc.refreshLock);
    if (gpc.active) {
      this.lock(gpc.lock);
      const old = this.heldBy(gpc);
      gpc.active = false;
      gpc.valid = false;
      gpc.private = false;
      gpc.pfn = undefined;
      this.kvms.at(gpc.kvm).gpcList.delete(gpc);
      this.stale |= PART.CACHES;
      this.putOld(gpc, old);
    }
    this.unlock(gpc.refreshLock);
  }

  /** What every user of a cache does: looks until it is valid, then accesses the word at its address. */
  accessCache(gpc: PfnCache, value?: bigint): bigint | Errno {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      this.lockShared(gpc.lock);
      if (this.kvmGpcCheck(gpc, 8n) && gpc.pfn !== undefined) {
        const loaded = this.accessThroughDirectMap(gpc.pfn, gpc.gpa, value);
        this.unlockShared(gpc.lock);
        return loaded;
      }
      this.unlockShared(gpc.lock);
      const error = this.kvmGpcRefresh(gpc, 8n);
      if (error !== undefined) return error;
    }
    throw new WouldBlock('livelock: a cache does not become valid');
  }

  accessThroughDirectMap(frame: number, address: bigint, value: bigint | undefined): bigint {
    const word = Number((address & PAGE_MASK) >> 3n);
    if (value === undefined) return this.kernelLoad(frame, word);
    this.kernelStore(frame, word, value);
    return value;
  }

  /** gfn_to_pfn_cache_invalidate_start() */
  protected override gfnToPfnCacheInvalidate(kvm: Kvm, start: number, end: number): void {
    for (const gpc of kvm.gpcList)
      if (gpc.userspacePage !== undefined && gpc.userspacePage >= start && gpc.userspacePage < end)
        this.invalidate(gpc);
  }

  /** gfn_to_pfn_cache_invalidate_gfns_start(). A share of a page that goes is not put: the page is freed without it. */
  protected override gfnToPfnCacheInvalidateGfns(kvm: Kvm, start: number, end: number, pages: PagesAre): void {
    if (!this.countsShares()) return;
    kvm.gpcInvalidateSeq++;
    for (const gpc of kvm.gpcList) {
      const gfn = toPages(gpc.gpa);
      if (gpc.pfn === undefined || gfn < start || gfn >= end) continue;
      this.invalidate(gpc);
      if (pages === 'gone') gpc.private = false;
    }
  }

  /**
   * Not in RFC v2, where a cache whose slot is gone hears nothing of its page any more, and puts the share of a page that
   * may have been freed long since.
   */
  protected override gfnToPfnCacheRevoke(kvm: Kvm, slot: MemSlot): void {
    if (!this.countsShares()) return;
    kvm.gpcInvalidateSeq++;
    for (const gpc of kvm.gpcList) {
      if (gpc.memslot !== slot.address) continue;
      this.lock(gpc.lock);
      const old = this.heldBy(gpc);
      gpc.valid = false;
      gpc.private = false;
      gpc.pfn = undefined;
      this.stale |= PART.CACHES;
      this.putOld(gpc, old);
    }
  }

  private invalidate(gpc: PfnCache): void {
    this.lock(gpc.lock);
    gpc.valid = false;
    this.stale |= PART.CACHES;
    this.unlock(gpc.lock);
  }
}
