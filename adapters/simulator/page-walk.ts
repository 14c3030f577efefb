/**
 * KVM's walk of a guest's page tables, and the emulation of an access to MMIO. Source: arch/x86/kvm/mmu/paging_tmpl.h,
 * arch/x86/kvm/emulate.c, and patch 10 of RFC v2, "Unmapping guest_memfd from Direct Map".
 */
import { KVM_MEM, PAGE_MASK, toPages, U64_MAX } from '../../model/core/abi.ts';
import { fails, ok, type Outcome } from '../../model/core/outcome.ts';
import { HvaCaches } from './hva-cache.ts';
import { WouldBlock } from './kernel.ts';
import type { MemSlot, PfnCache, Vcpu } from './objects.ts';

const PRESENT = 1n;
const WRITABLE = 1n << 1n;
const ACCESSED = 1n << 5n;
const DIRTY = 1n << 6n;
const FRAME = ((1n << 52n) - 1n) & ~PAGE_MASK;
const LEVELS = [4, 3, 2, 1] as const;
const READONLY = Number(KVM_MEM.READONLY);

const MAX_WALKS = 64;

/** One entry that the walk has read, and how to write it back. */
interface Entry {
  readonly pte: bigint;
  /** Undefined where the entry cannot be written. False where the table has changed, and the walk must start over. */
  readonly store?: (pte: bigint) => boolean;
}

type Walk = readonly Entry[] | 'fault';

export abstract class PageWalk extends HvaCaches {
  /** KVM_TRANSLATE, and the walk of a fault: the guest physical address, or 2^64 - 1. */
  kvmTranslate(vcpu: Vcpu, cr3: bigint, gva: bigint, write: boolean): Outcome {
    const kvm = this.kvms.at(vcpu.kvm);
    for (let round = 0; round < MAX_WALKS; round++) {
      const caches = LEVELS.map(() => this.kvmGpcInit(kvm, ''));
      const walk = this.walkAddrGeneric(vcpu, cr3, gva, write, caches);
      const again = walk !== 'fault' && !this.updateAccessedDirtyBits(walk, write);
      this.walkDeactivateGpcs(caches);
      if (again) continue;
      const last = walk === 'fault' ? undefined : walk.at(-1);
      return ok(last === undefined ? U64_MAX : (last.pte & FRAME) | (gva & PAGE_MASK));
    }
    throw new WouldBlock('livelock: page tables change under every walk');
  }

  /** RFC v2: FNAME(walk_deactivate_gpcs)() */
  walkDeactivateGpcs(caches: readonly PfnCache[]): void {
    for (const cache of caches) this.kvmGpcDeactivate(cache);
  }

  /** FNAME(walk_addr_generic)() */
  walkAddrGeneric(vcpu: Vcpu, cr3: bigint, gva: bigint, write: boolean, caches: readonly PfnCache[]): Walk {
    const entries: Entry[] = [];
    let table = cr3 & FRAME;
    let writable = true;
    for (const [index, level] of LEVELS.entries()) {
      const offset = ((gva >> BigInt(3 + 9 * level)) & 511n) * 8n;
      const entry = this.readEntry(vcpu, table + offset, caches[index] as PfnCache);
      if (entry === undefined || (entry.pte & PRESENT) === 0n || this.isRsvdBitsSet(entry.pte)) return 'fault';
      writable &&= (entry.pte & WRITABLE) !== 0n;
      table = entry.pte & FRAME;
      entries.push(entry);
    }
    return write && !writable ? 'fault' : entries;
  }

  /** FNAME(is_rsvd_bits_set)(), of address bits that the vCPU does not have. */
  private isRsvdBitsSet(pte: bigint): boolean {
    return (pte & FRAME) >> BigInt(this.config.machine.vcpuPhysicalBits) !== 0n;
  }

  private readEntry(vcpu: Vcpu, gpa: bigint, cache: PfnCache): Entry | undefined {
    const kvm = this.kvms.at(vcpu.kvm);
    const slot = this.gfnToMemslot(kvm, 0, toPages(gpa));
    if (slot === undefined) return undefined;
    if (this.walkReinserts())
      return (slot.flags & READONLY) === 0 ? this.entryInCache(gpa, cache) : this.entryReadOnly(vcpu, gpa);
    return this.entryAtHost(slot, gpa);
  }

  /** RFC v2, patch 10: whether tables may be private, and are had through caches. */
  walkReinserts(): boolean {
    return this.has('direct-map-reinsertion');
  }

  /** 7.3: __get_user(), and later __try_cmpxchg_user(). */
  private entryAtHost(slot: MemSlot, gpa: bigint): Entry | undefined {
    const folio = this.copyUser(slot, toPages(gpa), false);
    if (folio === undefined) return undefined;
    const word = Number((gpa & PAGE_MASK) >> 3n);
    const pte = this.readWord(folio.frame, word);
    if ((slot.flags & READONLY) !== 0) return { pte };
    return {
      pte,
      store: (value) => {
        this.writeWord(folio.frame, word, value);
        return true;
      },
    };
  }

  /** RFC v2: the table stays in a cache until the walk has ended. */
  private entryInCache(gpa: bigint, cache: PfnCache): Entry | undefined {
    if (this.kvmGpcActivate(cache, gpa, 8n) !== undefined) return undefined;
    const pte = this.accessCache(cache);
    if (typeof pte === 'string') return undefined;
    return {
      pte,
      store: (value) => {
        if (!this.kvmGpcCheck(cache, 8n) || cache.pfn === undefined) return false;
        this.accessThroughDirectMap(cache.pfn, gpa, value);
        return true;
      },
    };
  }

  private entryReadOnly(vcpu: Vcpu, gpa: bigint): Entry | undefined {
    const read = this.kvmReadGuest(vcpu, gpa, 8n);
    return read.kind === 'ok' ? { pte: read.value ?? 0n } : undefined;
  }

  /** FNAME(update_accessed_dirty_bits)(): false where the walk has to start over. */
  updateAccessedDirtyBits(walk: readonly Entry[], write: boolean): boolean {
    return walk.every(({ pte, store }, index) => {
      const isLast = index === LEVELS.length - 1;
      const marked = pte | ACCESSED | (write && isLast ? DIRTY : 0n);
      return marked === pte || store === undefined || store(marked);
    });
  }

  /** A guest without paging that executes, at `rip`, a load of a word at `gpa`. */
  guestMmio(vcpu: Vcpu, rip: bigint, gpa: bigint): Outcome {
    const fetched = this.kvmRun(vcpu, rip, undefined);
    if (fetched.kind !== 'ok') return fetched;
    const exit = this.kvmRun(vcpu, gpa, undefined);
    if (exit.kind !== 'mmio') return exit;
    // x86_decode_insn(), kvm_fetch_guest_virt(): all of the instruction is in the page.
    const code = this.kvmReadGuestPage(vcpu, {
      gfn: toPages(rip),
      word: Number((rip & PAGE_MASK) >> 3n),
      words: 1,
    });
    return typeof code === 'string' ? fails(code) : exit;
  }
}
