/** Pages of the VMM that are pinned. Source: arch/x86/kvm/svm/sev.c, mm/gup.c. */
import { PAGE_SHIFT, wrap64 } from '../../../model/core/abi.ts';
import type { Errno } from '../../../model/core/outcome.ts';
import type { Kvm } from '../objects.ts';
import { Asids } from './asids.ts';

const INT_MAX = 0x7fff_ffffn;

export abstract class Pins extends Asids {
  /** How often each frame is pinned. */
  readonly pinCounts = new Map<number, number>();

  /** sev_pin_memory() */
  sevPinMemory(kvm: Kvm, uaddr: bigint, length: bigint): readonly number[] | Errno {
    if (length === 0n || wrap64(uaddr + length) < uaddr) return 'EINVAL';
    const first = uaddr >> PAGE_SHIFT;
    const npages = ((uaddr + length - 1n) >> PAGE_SHIFT) - first + 1n;
    if (npages > INT_MAX) return 'EINVAL';
    return this.sevCheckPinCount(kvm, npages) ?? this.sevPinUserPages(kvm, Number(first), Number(npages));
  }

  /** sev_check_pin_count(). RLIMIT_MEMLOCK is RLIM_INFINITY. */
  sevCheckPinCount(kvm: Kvm, npages: bigint): Errno | undefined {
    const total = BigInt(this.toKvmSevInfo(kvm).pagesLocked) + npages;
    return total > this.config.machine.memoryBytes >> PAGE_SHIFT ? 'EINVAL' : undefined;
  }

  /** sev_pin_user_pages(): all of them, or none. */
  sevPinUserPages(kvm: Kvm, first: number, npages: number): readonly number[] | Errno {
    const frames: number[] = [];
    while (frames.length < npages) {
      const folio = this.getUserPage(first + frames.length, 1);
      if (folio === undefined || typeof folio === 'string') return 'ENOMEM';
      this.folioPut(folio);
      frames.push(folio.frame);
    }
    for (const frame of frames) this.pinCounts.set(frame, (this.pinCounts.get(frame) ?? 0) + 1);
    this.toKvmSevInfo(kvm).pagesLocked += npages;
    return frames;
  }

  /** sev_unpin_memory() */
  sevUnpinMemory(kvm: Kvm, frames: readonly number[]): void {
    for (const frame of frames) {
      const count = (this.pinCounts.get(frame) ?? 0) - 1;
      if (count === 0) this.pinCounts.delete(frame);
      else this.pinCounts.set(frame, count);
    }
    this.toKvmSevInfo(kvm).pagesLocked -= frames.length;
  }
}
