/**
 * KVM's own accesses to guest memory. Source: virt/kvm/kvm_main.c, and for private memory patch 4 of RFC v2, "Unmapping
 * guest_memfd from Direct Map".
 */
import { PAGE_MASK, PAGE_SIZE, toPages, WORD_BYTES, wrap64 } from '../../model/core/abi.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import type { Folio } from './frames.ts';
import type { Kvm, MemSlot } from './objects.ts';
import { PfnCaches } from './pfncache.ts';

/** Something of a VM, by the address of its struct kvm: a vCPU, or a cache. */
interface OfVm {
  readonly kvm: number;
}

/** Part of one page, in words. */
interface Segment {
  readonly gfn: number;
  readonly word: number;
  readonly words: number;
}

/** next_segment() */
function segmentsOf(gpa: bigint, length: bigint): readonly Segment[] {
  const segments: Segment[] = [];
  for (let at = gpa; at < gpa + length;) {
    const left = PAGE_SIZE - (at & PAGE_MASK);
    const bytes = left < gpa + length - at ? left : gpa + length - at;
    segments.push({
      gfn: toPages(at),
      word: Number((at & PAGE_MASK) / WORD_BYTES),
      words: Number(bytes / WORD_BYTES),
    });
    at += bytes;
  }
  return segments;
}

export abstract class GuestMemory extends PfnCaches {
  /** kvm_read_guest(), kvm_vcpu_read_guest(): the sum of the words. */
  kvmReadGuest(of: OfVm, gpa: bigint, length: bigint): Outcome {
    let sum = 0n;
    for (const segment of segmentsOf(gpa, length)) {
      const words = this.kvmReadGuestPage(of, segment);
      if (typeof words === 'string') return fails(words);
      for (const word of words) sum += word;
    }
    return ok(wrap64(sum));
  }

  /** kvm_write_guest(), kvm_vcpu_write_guest(), with the same value for every word. */
  kvmWriteGuest(of: OfVm, gpa: bigint, length: bigint, value: bigint): Outcome {
    for (const segment of segmentsOf(gpa, length)) {
      const error = this.kvmWriteGuestPage(of, segment, value);
      if (error !== undefined) return fails(error);
    }
    return ok();
  }

  /** kvm_read_guest_page(), kvm_vcpu_read_guest_page() */
  kvmReadGuestPage({ kvm: address }: OfVm, { gfn, word, words }: Segment): bigint[] | Errno {
    const kvm = this.kvms.at(address);
    const numbers = Array.from({ length: words }, (_, index) => word + index);
    if (this.reinserts(kvm, gfn))
      return this.kvmAccessPrivatePage(kvm, gfn, ({ frame }) => numbers.map((each) => this.kernelLoad(frame, each)));
    const folio = this.userFolio(kvm, gfn, false);
    return folio === undefined ? 'EFAULT' : numbers.map((each) => this.readWord(folio.frame, each));
  }

  /** kvm_write_guest_page(), kvm_vcpu_write_guest_page() */
  kvmWriteGuestPage({ kvm: address }: OfVm, { gfn, word, words }: Segment, value: bigint): Errno | undefined {
    const kvm = this.kvms.at(address);
    if (this.reinserts(kvm, gfn)) {
      const done = this.kvmAccessPrivatePage(kvm, gfn, ({ frame }) => {
        for (let at = word; at < word + words; at++) this.kernelStore(frame, at, value);
      });
      return typeof done === 'string' ? done : undefined;
    }
    const folio = this.userFolio(kvm, gfn, true);
    if (folio === undefined) return 'EFAULT';
    for (let at = word; at < word + words; at++) this.writeWord(folio.frame, at, value);
    return undefined;
  }

  /** Whether KVM takes the page from the gmem file, and not through the host address of its slot. */
  reinserts(kvm: Kvm, gfn: number): boolean {
    return this.has('direct-map-reinsertion') && this.kvmMemIsPrivate(kvm, gfn);
  }

  /** __kvm_read_guest_private_page(), __kvm_write_guest_private_page(): map, access, unmap under the folio lock. */
  kvmAccessPrivatePage<T>(kvm: Kvm, gfn: number, access: (folio: Folio) => T): T | Errno {
    const slot = this.gfnToMemslot(kvm, 0, gfn);
    const folio = slot === undefined ? 'EFAULT' : this.kvmGmemGetPfn(slot, gfn, 1);
    if (typeof folio === 'string') return folio;
    this.folioLock(folio);
    const accessed = this.countsShares() ? this.accessShared(folio, access) : this.accessLocked(folio, access);
    this.folioUnlock(folio);
    this.folioPut(folio);
    return accessed;
  }

  /** RFC v2: KVM_GMEM_GET_PFN_SHARED, and kvm_gmem_put_shared_pfn(). */
  private accessShared<T>(folio: Folio, access: (folio: Folio) => T): T | Errno {
    const error = this.kvmGmemShare(folio);
    if (error !== undefined) return error;
    const accessed = access(folio);
    this.kvmGmemPutSharedPfn(folio);
    return accessed;
  }

  /** RFC v1: a page that a cache has put back is left to it. */
  private accessLocked<T>(folio: Folio, access: (folio: Folio) => T): T | Errno {
    const hidden = this.pagePrivate.get(folio.frame) === true;
    const error = hidden ? this.setDirectMapDefaultNoflush(folio) : undefined;
    if (error !== undefined) return error;
    const accessed = access(folio);
    if (hidden) this.setDirectMapInvalidNoflush(folio);
    return accessed;
  }

  /** __kvm_read_guest_page(), __kvm_write_guest_page(): what the process has at the host address of the slot. */
  userFolio(kvm: Kvm, gfn: number, write: boolean): Folio | undefined {
    const slot = this.gfnToMemslot(kvm, 0, gfn);
    return slot && this.copyUser(slot, gfn, write);
  }

  /** __copy_from_user(), __copy_to_user() */
  copyUser(slot: MemSlot, gfn: number, write: boolean): Folio | undefined {
    const page = this.gfnToHvaMemslot(slot, gfn, write);
    return page === undefined ? undefined : this.copyUserPage(page);
  }

  copyUserPage(page: number): Folio | undefined {
    const folio = this.getUserPage(page, 1);
    if (folio === undefined || typeof folio === 'string') return undefined;
    this.folioPut(folio);
    return folio;
  }
}
