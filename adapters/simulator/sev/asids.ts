/** Address space identifiers: one for each context, used again only behind a flush. Source: arch/x86/kvm/svm/sev.c. */
import type { Errno } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import type { Kvm } from '../objects.ts';
import { Svm } from './svm.ts';

/** CPUID 0x8000001f: ECX and EDX of this machine. ASID 0 is the host's. */
const MAX_SEV_ASID = 4;
const MIN_SEV_ASID = 3;
export const ASIDS: readonly number[] = Array.from({ length: MAX_SEV_ASID }, (_, index) => index + 1);

interface AsidRange {
  readonly min: number;
  readonly max: number;
}

export abstract class Asids extends Svm {
  /** sev_asid_bitmap, sev_reclaim_asid_bitmap */
  readonly asidBitmap = new Set<number>();
  readonly reclaimAsidBitmap = new Set<number>();
  /** For facts alone: whose an ASID was that cannot be given back. */
  readonly leakedAsids = new Map<number, Label>();

  /** sev_asid_new() */
  sevAsidNew(kvm: Kvm): Errno | undefined {
    const asid = this.sevAllocAsid(this.asidRange(this.toKvmSevInfo(kvm).esActive));
    if (asid === undefined) return 'EBUSY';
    this.toKvmSevInfo(kvm).asid = asid;
    return undefined;
  }

  /** SEV-ES and SNP have those below min_sev_asid. */
  asidRange(esActive: boolean): AsidRange {
    return esActive ? { min: 1, max: MIN_SEV_ASID - 1 } : { min: MIN_SEV_ASID, max: MAX_SEV_ASID };
  }

  /** sev_alloc_asid() */
  sevAllocAsid(range: AsidRange): number | undefined {
    this.lock(this.sevBitmapLock);
    let asid = this.findNextZeroBit(range);
    if (asid === undefined && this.sevRecycleAsids(range)) asid = this.findNextZeroBit(range);
    if (asid !== undefined) this.asidBitmap.add(asid);
    this.unlock(this.sevBitmapLock);
    return asid;
  }

  private findNextZeroBit({ min, max }: AsidRange): number | undefined {
    return ASIDS.find((asid) => asid >= min && asid <= max && !this.asidBitmap.has(asid));
  }

  /** __sev_recycle_asids(): a flush is one of all ASIDs. */
  sevRecycleAsids(range: AsidRange): boolean {
    if (this.sevFlushAsids(range) !== undefined) return false;
    for (const asid of this.reclaimAsidBitmap) this.asidBitmap.delete(asid);
    this.reclaimAsidBitmap.clear();
    return true;
  }

  /** sev_flush_asids() */
  sevFlushAsids({ min, max }: AsidRange): Errno | undefined {
    if (![...this.reclaimAsidBitmap].some((asid) => asid >= min && asid <= max)) return 'EBUSY';
    this.wbinvdOnAllCpus();
    return this.sevGuestDfFlush();
  }

  wbinvdOnAllCpus(): void {
    this.memory.wbinvd();
  }

  /** sev_guest_df_flush(), SNP_DF_FLUSH */
  sevGuestDfFlush(): Errno | undefined {
    const error = this.firmware.dfFlush();
    if (error === undefined) this.memory.dfFlush();
    return error;
  }

  /** sev_asid_free() */
  sevAsidFree(asid: number): void {
    this.lock(this.sevBitmapLock);
    this.reclaimAsidBitmap.add(asid);
    this.unlock(this.sevBitmapLock);
  }
}
