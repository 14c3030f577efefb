/** Guest memory accesses: stage-2 walks and faults, KVM_RUN, KVM_PRE_FAULT_MEMORY. Source: arch/x86/kvm/mmu/mmu.c. */
import { isPageAligned, KVM_MEM, PAGE_SHIFT, PAGE_SIZE, toPages, VM_TYPE, wrap64 } from '../../model/core/abi.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import type { Folio } from './frames.ts';
import { KVM_MEMSLOT_GMEM_ONLY, KVM_MEMSLOT_INVALID } from './gmem.ts';
import { WouldBlock } from './kernel.ts';
import { Slots } from './slots.ts';
import type { Kvm, MemSlot, Vcpu } from './objects.ts';

const GUEST_MEMFD = Number(KVM_MEM.GUEST_MEMFD);
const READONLY = Number(KVM_MEM.READONLY);

/** vCPUs run outside of system management mode. */
const AS_ID = 0;

/** So many faults in a row, with nobody else running, will not get anywhere any more. */
const MAX_RETRIES = 64;

/** struct kvm_page_fault */
export interface PageFault {
  readonly gfn: number;
  readonly write: boolean;
  readonly prefetch: boolean;
  readonly isPrivate: boolean;
  readonly slot: MemSlot | undefined;
  /** How many frames from `gfn` on are wanted; one unless there is a range to fill. */
  readonly max: number;
  mmuSeq: number;
  /** pfn, with a reference. */
  folio: Folio | undefined;
  mapWritable: boolean;
}

/** RET_PF_*, or an error. */
export type PageFaultResult = 'RET_PF_CONTINUE' | 'RET_PF_RETRY' | 'RET_PF_EMULATE' | 'RET_PF_FIXED' | Errno;

/** struct kvm_pre_fault_memory */
export interface PreFaultMemory {
  readonly gpa: bigint;
  readonly size: bigint;
  readonly flags: bigint;
}

export abstract class Faults extends Slots {
  /** kvm_mmu_prepare_memory_fault_exit() */
  kvmMmuPrepareMemoryFaultExit(vcpu: Vcpu, fault: PageFault): void {
    vcpu.memoryFault = { gpa: BigInt(fault.gfn) << PAGE_SHIFT, private: fault.isPrivate };
  }

  /** kvm_mmu_faultin_pfn_gmem() */
  kvmMmuFaultinPfnGmem(vcpu: Vcpu, fault: PageFault, slot: MemSlot): PageFaultResult {
    const folio = (slot.flags & GUEST_MEMFD) === 0 ? 'EFAULT' : this.kvmGmemGetPfn(slot, fault.gfn, fault.max);
    if (typeof folio === 'string') {
      this.kvmMmuPrepareMemoryFaultExit(vcpu, fault);
      return folio;
    }
    fault.folio = folio;
    fault.mapWritable = (slot.flags & READONLY) === 0;
    return 'RET_PF_CONTINUE';
  }

  /** virt/kvm/kvm_main.c: __kvm_faultin_pfn(), hva_to_pfn(), kvm_handle_error_pfn() */
  kvmFaultinPfnUser(vcpu: Vcpu, fault: PageFault, slot: MemSlot): PageFaultResult {
    const readonly = (slot.flags & READONLY) !== 0;
    if (readonly && fault.write) return 'RET_PF_EMULATE';
    const page = slot.userspacePage + fault.gfn - slot.baseGfn;
    const folio = this.getUserPages(page, fault.max);
    if (folio === undefined || folio === 'VM_FAULT_SIGBUS' || folio === 'VM_FAULT_OOM') return 'EFAULT';
    if (folio === 'VM_FAULT_HWPOISON') {
      vcpu.sigbus = true;
      return 'RET_PF_RETRY';
    }
    fault.folio = folio;
    fault.mapWritable = !readonly;
    return 'RET_PF_CONTINUE';
  }

  /** kvm_mmu_faultin_pfn() */
  kvmMmuFaultinPfn(vcpu: Vcpu, kvm: Kvm, fault: PageFault): PageFaultResult {
    const { slot, gfn } = fault;
    fault.mmuSeq = kvm.mmuInvalidateSeq;
    this.handOver('page_fault');
    if (fault.isPrivate !== this.kvmMemIsPrivate(kvm, gfn)) {
      this.kvmMmuPrepareMemoryFaultExit(vcpu, fault);
      return 'EFAULT';
    }
    if (slot === undefined) return this.kvmHandleNoslotFault(vcpu, fault);
    if ((slot.flags & KVM_MEMSLOT_INVALID) !== 0) return fault.prefetch ? 'EAGAIN' : 'RET_PF_RETRY';
    if (this.mmuInvalidateRetryGfn(kvm, fault.mmuSeq, gfn, fault.max)) return 'RET_PF_RETRY';
    return fault.isPrivate || (slot.flags & KVM_MEMSLOT_GMEM_ONLY) !== 0
      ? this.kvmMmuFaultinPfnGmem(vcpu, fault, slot)
      : this.kvmFaultinPfnUser(vcpu, fault, slot);
  }

  /** kvm_handle_noslot_fault() */
  kvmHandleNoslotFault(vcpu: Vcpu, fault: PageFault): PageFaultResult {
    if (!fault.isPrivate) return 'RET_PF_EMULATE';
    this.kvmMmuPrepareMemoryFaultExit(vcpu, fault);
    return 'EFAULT';
  }

  /** kvm_tdp_mmu_page_fault() */
  kvmTdpMmuPageFault(vcpu: Vcpu, kvm: Kvm, fault: PageFault): PageFaultResult {
    const result = this.kvmMmuFaultinPfn(vcpu, kvm, fault);
    if (result !== 'RET_PF_CONTINUE' || fault.folio === undefined) return result;
    this.lockShared(kvm.mmuLock);
    const stale = this.isPageFaultStale(kvm, fault);
    if (!stale) this.kvmTdpMmuMap(kvm, fault, fault.folio);
    this.folioPut(fault.folio);
    this.unlockShared(kvm.mmuLock);
    return stale ? 'RET_PF_RETRY' : 'RET_PF_FIXED';
  }

  /** is_page_fault_stale() */
  isPageFaultStale(kvm: Kvm, fault: PageFault): boolean {
    return this.mmuInvalidateRetryGfn(kvm, fault.mmuSeq, fault.gfn, fault.max);
  }

  /** arch/x86/kvm/mmu/tdp_mmu.c: kvm_tdp_mmu_map(). An entry that allows the access already is left as it is. */
  kvmTdpMmuMap(kvm: Kvm, { gfn, write, isPrivate, mapWritable }: PageFault, { frame, count }: Folio): void {
    const present = kvm.roots[AS_ID]?.get(gfn);
    if (present !== undefined && (present.writable || !write)) return;
    this.setSptes(kvm, AS_ID, gfn, count, { delta: frame - gfn, private: isPrivate, writable: mapWritable });
  }

  /** kvm_mmu_do_page_fault() */
  kvmMmuDoPageFault(
    vcpu: Vcpu,
    gfn: number,
    access: 'read' | 'write' | 'prefetch',
    isPrivate: boolean,
    max: number,
  ): PageFaultResult {
    const kvm = this.kvms.at(vcpu.kvm);
    kvm.srcuReaders++;
    const result = this.kvmTdpMmuPageFault(vcpu, kvm, {
      gfn,
      write: access === 'write',
      prefetch: access === 'prefetch',
      isPrivate,
      slot: this.gfnToMemslot(kvm, AS_ID, gfn),
      max,
      mmuSeq: 0,
      folio: undefined,
      mapWritable: false,
    });
    kvm.srcuReaders--;
    return result;
  }

  /** kvm_mmu_page_fault(): for software-protected VMs the attributes say what kind of access it is. */
  kvmMmuPageFault(vcpu: Vcpu, gfn: number, write: boolean): PageFaultResult {
    const kvm = this.kvms.at(vcpu.kvm);
    const isPrivate = kvm.type === VM_TYPE.SW_PROTECTED && this.kvmMemIsPrivate(kvm, gfn);
    return this.kvmMmuDoPageFault(vcpu, gfn, write ? 'write' : 'read', isPrivate, 1);
  }

  /** KVM_RUN of a guest that makes one access: `value` is what it stores, undefined where it loads. */
  kvmRun(vcpu: Vcpu, gpa: bigint, value: bigint | undefined): Outcome {
    const gfn = toPages(gpa);
    const write = value !== undefined;
    vcpu.memoryFault = undefined;
    vcpu.sigbus = false;
    for (let attempt = 0; attempt < MAX_RETRIES; attempt++) {
      const spte = this.kvms.at(vcpu.kvm).roots[AS_ID]?.get(gfn);
      if (spte !== undefined && (spte.writable || !write)) return this.guestAccess(vcpu, gfn + spte.delta, gpa, value);
      const result = this.kvmMmuPageFault(vcpu, gfn, write);
      if (this.signalPending(vcpu)) return { kind: 'signal', signal: 'SIGBUS' };
      if (result === 'RET_PF_EMULATE') return { kind: 'mmio', gpa, write };
      if (!result.startsWith('RET_PF')) return this.exitWithError(vcpu, result as Errno);
    }
    throw new WouldBlock('livelock: the guest faults for ever');
  }

  /** signal_pending(), of the thread that runs the vCPU. */
  private signalPending(vcpu: Vcpu): boolean {
    return vcpu.sigbus;
  }

  private exitWithError(vcpu: Vcpu, errno: Errno): Outcome {
    return vcpu.memoryFault === undefined ? fails(errno) : { kind: 'memory-fault', errno, ...vcpu.memoryFault };
  }

  /** What the processor does for the guest, where stage 2 allows it. */
  protected guestAccess(_vcpu: Vcpu, frame: number, gpa: bigint, value: bigint | undefined): Outcome {
    return this.accessFrame(frame, gpa, value);
  }

  /** One access of a processor to memory. Poison is answered by a machine check, which the kernel makes a SIGBUS. */
  accessFrame(frame: number, address: bigint, value: bigint | undefined): Outcome {
    return this.poisoned.has(frame) ? { kind: 'signal', signal: 'SIGBUS' } : this.copyWord(frame, address, value);
  }

  copyWord(frame: number, address: bigint, value: bigint | undefined): Outcome {
    const word = Number((address & (PAGE_SIZE - 1n)) >> 3n);
    if (value === undefined) return ok(this.readWord(frame, word));
    this.writeWord(frame, word, value);
    return ok();
  }

  /** virt/kvm/kvm_main.c: kvm_vcpu_pre_fault_memory() */
  kvmVcpuPreFaultMemory(vcpu: Vcpu, range: PreFaultMemory): Outcome {
    if (range.flags !== 0n) return fails('EINVAL');
    const past = wrap64(range.gpa + range.size);
    if (!isPageAligned(range.gpa) || !isPageAligned(range.size) || past <= range.gpa) return fails('EINVAL');
    const start = toPages(range.gpa);
    const end = toPages(past);
    vcpu.sigbus = false;
    let gfn = start;
    while (gfn < end) {
      const mapped = this.kvmArchVcpuPreFaultMemory(vcpu, gfn, end - gfn);
      if (this.signalPending(vcpu)) return { kind: 'signal', signal: 'SIGBUS' };
      if (typeof mapped === 'string') return gfn === start ? fails(mapped) : ok(BigInt(gfn - start) << PAGE_SHIFT);
      gfn += mapped;
    }
    return ok(range.size);
  }

  /** kvm_arch_vcpu_pre_fault_memory(): how many frames the entry that was made covers, of at most `max`. */
  kvmArchVcpuPreFaultMemory(vcpu: Vcpu, gfn: number, max: number): number | Errno {
    const kvm = this.kvms.at(vcpu.kvm);
    const isPrivate = kvm.hasPrivateMem && this.kvmMemIsPrivate(kvm, gfn);
    return this.kvmTdpPagePrefault(vcpu, kvm, gfn, max, isPrivate);
  }

  /** How many frames from `gfn` on are in one slot, with one attribute, and without or under one run of entries. */
  private alikeFrom(kvm: Kvm, gfn: number): number {
    const slot = this.gfnToMemslot(kvm, AS_ID, gfn);
    if (slot === undefined) return 1;
    let end = slot.baseGfn + slot.npages;
    for (const map of [kvm.attributes, kvm.roots[AS_ID]])
      end = Math.min(end, map?.find(gfn)?.end ?? map?.nextFilled(gfn, end) ?? end);
    return end - gfn;
  }

  /** kvm_tdp_page_prefault() */
  kvmTdpPagePrefault(vcpu: Vcpu, kvm: Kvm, gfn: number, most: number, isPrivate: boolean): number | Errno {
    if (!this.config.machine.twoDimensionalPaging) return 'EOPNOTSUPP';
    for (let attempt = 0; attempt < MAX_RETRIES; attempt++) {
      const max = Math.min(most, this.alikeFrom(kvm, gfn));
      const result = this.kvmMmuDoPageFault(vcpu, gfn, 'prefetch', isPrivate, max);
      if (this.signalPending(vcpu)) return 'EINTR';
      if (result === 'RET_PF_EMULATE') return 'ENOENT';
      if (!result.startsWith('RET_PF')) return result as Errno;
      const run = kvm.roots[AS_ID]?.find(gfn);
      if (result === 'RET_PF_FIXED' && run !== undefined) return Math.min(max, run.end - gfn);
    }
    throw new WouldBlock('livelock: the pre-fault is retried for ever');
  }
}
