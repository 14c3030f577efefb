/**
 * Host addresses that KVM keeps: gfn_to_hva_cache. Source: virt/kvm/kvm_main.c, and for private memory patch 2 of the RFC of
 * July 2024, "Unmapping guest_memfd from Direct Map".
 */
import { PAGE_MASK, PAGE_SHIFT, toPages, WORD_BYTES, wrap64 } from '../../model/core/abi.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import { GuestMemory } from './guest-memory.ts';
import { PART } from './kernel.ts';
import type { HvaCache, Kvm } from './objects.ts';

export abstract class HvaCaches extends GuestMemory {
  readonly hvaCaches = new Map<Label, HvaCache>();

  /** A cache that is part of a vCPU, such as arch.st.cache; it is zeroed with it. */
  vcpuHvaCache(kvm: Kvm, label: Label): void {
    const zeroed = { generation: 0, gpa: 0n, len: 0n, userspacePage: 0, memslot: undefined };
    this.hvaCaches.set(label, { label, kvm: kvm.address, ...zeroed });
    this.stale |= PART.CACHES;
  }

  /** What goes with the vCPUs of the VM. */
  freeHvaCaches(kvm: Kvm): void {
    for (const ghc of this.hvaCaches.values()) if (ghc.kvm === kvm.address) this.hvaCaches.delete(ghc.label);
    this.stale |= PART.CACHES;
  }

  /** kvm_gfn_to_hva_cache_init() */
  kvmGfnToHvaCacheInit(ghc: HvaCache, gpa: bigint, len: bigint): Errno | undefined {
    const kvm = this.kvms.at(ghc.kvm);
    const start = gpa >> PAGE_SHIFT;
    const end = wrap64(gpa + len - 1n) >> PAGE_SHIFT;
    this.stale |= PART.CACHES;
    ghc.generation = kvm.generation;
    if (start > end) {
      ghc.userspacePage = undefined;
      return 'EINVAL';
    }
    for (let gfn = start; gfn <= end;) {
      const slot = this.gfnToMemslot(kvm, 0, Number(gfn));
      ghc.memslot = slot?.address;
      ghc.userspacePage = slot && this.gfnToHvaMemslot(slot, Number(gfn), true);
      if (slot === undefined || ghc.userspacePage === undefined) return 'EFAULT';
      gfn = BigInt(slot.baseGfn + slot.npages);
    }
    if (start !== end) ghc.memslot = undefined;
    ghc.gpa = gpa;
    ghc.len = len;
    return undefined;
  }

  /** Whether the slots are others than those that the cache was looked up in. */
  isGhcOutdated(ghc: HvaCache): boolean {
    return this.kvms.at(ghc.kvm).generation !== ghc.generation;
  }

  /** Whether an access is beyond what the cache was set up for. */
  exceedsGhc(ghc: HvaCache, offset: bigint, len: bigint): boolean {
    return len + offset > ghc.len;
  }

  /** Whether the frame has no host address although its slot has one. The RFC of July 2024 asks; 7.3 does not. */
  isHiddenFromHost(kvm: Kvm, gpa: bigint): boolean {
    return this.reinserts(kvm, toPages(gpa));
  }

  /** kvm_read_guest_offset_cached(), and with a value for every word kvm_write_guest_offset_cached() */
  accessGhc(ghc: HvaCache, offset: bigint, len: bigint, value?: bigint): Outcome {
    if (this.exceedsGhc(ghc, offset, len)) return fails('EINVAL');
    if (this.isGhcOutdated(ghc) && this.kvmGfnToHvaCacheInit(ghc, ghc.gpa, ghc.len) !== undefined)
      return fails('EFAULT');
    if (ghc.userspacePage === undefined) return fails('EFAULT');
    const gpa = ghc.gpa + offset;
    if (ghc.memslot === undefined || this.isHiddenFromHost(this.kvms.at(ghc.kvm), gpa))
      return value === undefined ? this.kvmReadGuest(ghc, gpa, len) : this.kvmWriteGuest(ghc, gpa, len, value);
    return this.copyCached(ghc.userspacePage, (ghc.gpa & PAGE_MASK) + offset, len, value);
  }

  /** __copy_from_user(), __copy_to_user(): `len` bytes at `offset` from the start of a virtual page, within one page. */
  private copyCached(page: number, offset: bigint, len: bigint, value: bigint | undefined): Outcome {
    const folio = this.copyUserPage(page + toPages(offset));
    if (folio === undefined) return fails('EFAULT');
    const first = Number((offset & PAGE_MASK) / WORD_BYTES);
    let sum = 0n;
    for (let word = first; word < first + Number(len / WORD_BYTES); word++)
      if (value === undefined) sum += this.readWord(folio.frame, word);
      else this.writeWord(folio.frame, word, value);
    return value === undefined ? ok(wrap64(sum)) : ok();
  }
}
