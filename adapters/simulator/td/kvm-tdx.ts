/**
 * KVM for TDs. Source: arch/x86/kvm/vmx/tdx.c, arch/x86/kvm/mmu, virt/kvm/guest_memfd.c; and for the proposals of 2021 RFC v1
 * "KVM: unmap guest memory using poisoned pages" with its thread.
 */
import type { Facts, FactParts } from '../../../model/core/facts.ts';
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { newLock } from '../kernel.ts';
import { Guests, isGuestRange, SHARED_BIT, U64, wordOutcome, type Guest, type Vcpu, type World } from './guests.ts';
import { GFNS, Gone, type Process, type Word } from './host-mm.ts';
import { LINES, MemoryController, SHARED_KEY, type Width } from './memory-controller.ts';
import { HKIDS, TdxModule, type SeptEntry, type Status, type Td } from './tdx-module.ts';

const MAX_CPUID_ENTRIES = 256n;
const PAGE_SHIFT = 12n;
const PAGE_MASK = 0xfffn;
const MAP_GPA_MAX_LEN = 2n << 20n;
const EAGAIN = 11n;
const EINVAL = 22n;

/** struct vcpu_tdx */
export interface VcpuTdx extends Vcpu {
  tdvpr: number | undefined;
  /** map_gpa_next and map_gpa_end, while complete_userspace_io waits for the VMM. */
  mapGpa: { next: bigint; readonly end: bigint } | undefined;
}

/** struct kvm_tdx */
export interface KvmTdx extends Guest {
  readonly exitsOnHypercall: boolean;
  state: 'uninitialized' | 'initialized' | 'runnable';
  hkid: number | undefined;
  tdr: number | undefined;
  controlPages: number[];
  readonly vcpus: Map<string, VcpuTdx>;
  isDead: boolean;
  /** The mirror of S-EPT: guest frame to frame. */
  readonly mirror: Map<number, number>;
  /** What the host has done to an entry of it on the way to its removal. */
  readonly zapped: Map<number, 'blocked' | 'tracked'>;
  /** The page cache of the guest_memfd, where there is one: fallocate() has filled it. */
  readonly gmem: ReadonlyMap<number, number>;
  isFlushed: boolean;
}

const internalError: Outcome = { kind: 'status', status: 'KVM_EXIT_INTERNAL_ERROR' };
const statusOutcome = (status: Status): Outcome => (status === 'TDX_SUCCESS' ? ok() : { kind: 'status', status });

export class TdxMachine extends Guests<KvmTdx> {
  readonly memory = new MemoryController();
  readonly seam = new TdxModule(this.memory);
  /** tdx_guest_keyid_pool, and what never came back to it. */
  readonly keyidPool = new Map<number, { readonly label: Label; state: 'assigned' | 'leaked' }>();
  private readonly tdxLock = newLock('tdx_lock');
  /** PG_hwpoison as the RFC uses it: the page is private. */
  readonly markedPrivate = new Set<number>();
  private readonly labels = new Map<Td, Label>();

  protected override powerOff(): void {
    super.powerOff();
    this.memory.reset();
    this.seam.reset();
    this.keyidPool.clear();
    this.markedPrivate.clear();
    this.labels.clear();
    this.tdxLock.writer = false;
  }

  protected override cpuLoad(frame: number, line: number): Word {
    return this.memory.load(frame, line, SHARED_KEY);
  }
  protected override cpuStore(frame: number, line: number, value: bigint, width: Width): void {
    this.memory.store(frame, line, SHARED_KEY, value, width);
  }
  protected override deviceLoad(frame: number, line: number): Word {
    return this.cpuLoad(frame, line);
  }
  protected override deviceStore(frame: number, line: number, value: bigint, width: Width): undefined {
    this.cpuStore(frame, line, value, width);
  }

  override isGuestPage(frame: number): boolean {
    return this.seam.pamt.get(frame)?.type === 'REG';
  }

  /** Pages in their place belong to the page tables of the VMM in both worlds. */
  protected override isUnmovable({ label }: Process, gfn: number): boolean {
    return this.has('in-place') && this.guests.get(label)?.private[gfn] === true;
  }

  protected override backing(kvm: KvmTdx, gfn: number): number {
    const folio = kvm.private[gfn] === true ? kvm.gmem.get(gfn) : undefined;
    return folio ?? this.doSwapPage(this.pageAt(kvm.process, gfn));
  }

  override isPageHwpoison(frame: number): boolean {
    return super.isPageHwpoison(frame) || this.markedPrivate.has(frame);
  }

  /** kvm_create_vm(), tdx_vm_init() */
  kvmCreateVm(label: Label, exitsOnHypercall: boolean): Outcome {
    const process = this.newProcess(label, this.has('explicit-maps') ? 'none' : 'present');
    this.guests.set(label, {
      ...this.newGuest(label, process),
      exitsOnHypercall,
      state: 'uninitialized',
      hkid: undefined,
      tdr: undefined,
      controlPages: [],
      vcpus: new Map(),
      isDead: false,
      mirror: new Map(),
      zapped: new Map(),
      gmem: new Map(this.has('private-file') ? GFNS.map((gfn) => [gfn, this.allocZeroedPage()]) : []),
      isFlushed: false,
    });
    return ok();
  }

  /** kvm_vm_ioctl(), tdx_acquire_vm_state_locks() */
  vmIoctl(kvm: KvmTdx, run: () => Errno | undefined): Errno | undefined {
    if (kvm.isDead) return 'EIO';
    const locks = [kvm.kvmLock, ...[...kvm.vcpus.values()].map(({ mutex }) => mutex), kvm.slotsLock];
    for (const lock of locks) this.lock(lock);
    const error = run();
    for (const lock of locks.toReversed()) this.unlock(lock);
    return error;
  }

  /** KVM_BUG_ON() */
  kvmBug(kvm: KvmTdx): 'EIO' {
    kvm.isDead = true;
    return 'EIO';
  }

  /** tdx_td_init(), setup_tdparams() */
  tdxTdInit(kvm: KvmTdx, flags: bigint, cpuids: bigint): Errno | undefined {
    if (kvm.state !== 'uninitialized') return 'EINVAL';
    if (flags !== 0n) return 'EINVAL';
    if (cpuids > MAX_CPUID_ENTRIES) return 'E2BIG';
    // setup_tdparams_eptp_controls() wants to find 0x80000008.
    if (cpuids === 0n) return 'EINVAL';
    if (GFNS.some((gfn) => this.isReferenced(kvm, gfn))) return 'EAGAIN';
    return this.doTdxTdInit(kvm);
  }

  /** __tdx_td_init() */
  doTdxTdInit(kvm: KvmTdx): Errno | undefined {
    const hkid = this.tdxGuestKeyidAlloc(kvm.label);
    if (hkid === undefined) return 'ENOSPC';
    kvm.hkid = hkid;
    kvm.tdr = this.allocPage();
    kvm.controlPages = [this.allocPage()];
    if (this.seam.mngInit(kvm.tdr, kvm.controlPages[0] as number, hkid) !== 'TDX_SUCCESS') return this.kvmBug(kvm);
    this.labels.set(this.seam.tdAt(kvm.tdr) as Td, kvm.label);
    kvm.state = 'initialized';
    return undefined;
  }

  /** tdx_guest_keyid_alloc() */
  tdxGuestKeyidAlloc(label: Label): number | undefined {
    const hkid = HKIDS.find((each) => !this.keyidPool.has(each));
    if (hkid !== undefined) this.keyidPool.set(hkid, { label, state: 'assigned' });
    return hkid;
  }

  /** tdx_hkid_free() */
  tdxHkidFree(kvm: KvmTdx): void {
    if (kvm.hkid !== undefined) this.keyidPool.delete(kvm.hkid);
    kvm.hkid = undefined;
  }

  /** kvm_vm_ioctl_create_vcpu(), tdx_vcpu_create() */
  kvmVmIoctlCreateVcpu(kvm: KvmTdx, id: string): Errno | undefined {
    if (kvm.isDead) return 'EIO';
    if (kvm.vcpus.has(id)) return 'EEXIST';
    if (kvm.state !== 'initialized') return 'EIO';
    kvm.vcpus.set(id, { mutex: newLock('vcpu->mutex'), tdvpr: undefined, mapGpa: undefined });
    return undefined;
  }

  /** tdx_vcpu_unlocked_ioctl() */
  vcpuUnlockedIoctl(kvm: KvmTdx, id: string, run: (vcpu: VcpuTdx) => Errno | undefined): Errno | undefined {
    const vcpu = kvm.vcpus.get(id);
    if (vcpu === undefined) return 'EBADF';
    return this.vmIoctl(kvm, () => (kvm.hkid === undefined || kvm.state === 'runnable' ? 'EINVAL' : run(vcpu)));
  }

  /** tdx_vcpu_init(), tdx_td_vcpu_init() */
  tdxVcpuInit(kvm: KvmTdx, vcpu: VcpuTdx, flags: bigint): Errno | undefined {
    if (flags !== 0n) return 'EINVAL';
    if (vcpu.tdvpr !== undefined) return 'EINVAL';
    const page = this.allocPage();
    if (this.seam.vpInit(kvm.tdr, page) !== 'TDX_SUCCESS') {
      this.freePage(page);
      return this.kvmBug(kvm);
    }
    vcpu.tdvpr = page;
    kvm.controlPages.push(page);
    return undefined;
  }

  /** tdx_vcpu_init_mem_region(), kvm_gmem_populate() */
  tdxVcpuInitMemRegion(kvm: KvmTdx, vcpu: VcpuTdx, gfn: number, pages: bigint, value: bigint): Errno | undefined {
    if (vcpu.tdvpr === undefined) return 'EINVAL';
    if (!isGuestRange(gfn, pages)) return 'EINVAL';
    for (let at = gfn; BigInt(at) < BigInt(gfn) + pages; at++) {
      const error = this.doKvmGmemPopulate(kvm, at, value);
      if (error !== undefined) return error;
    }
    return undefined;
  }

  /** __kvm_gmem_populate(), tdx_gmem_post_populate(), tdx_mem_page_add() */
  doKvmGmemPopulate(kvm: KvmTdx, gfn: number, value: bigint): Errno | undefined {
    if (!GFNS.includes(gfn)) return 'EINVAL';
    const frame = this.kvmGmemGetPfn(kvm, gfn);
    if (typeof frame === 'string') return frame;
    if (kvm.private[gfn] !== true) return 'EINVAL';
    if (kvm.mirror.has(gfn)) return 'EIO';
    if (this.seam.memPageAdd(kvm.tdr, gfn, frame, value) !== 'TDX_SUCCESS') return this.kvmBug(kvm);
    kvm.mirror.set(gfn, frame);
    return undefined;
  }

  /** kvm_gmem_get_pfn(); without a guest_memfd it is the page at the host address, which KVM alone may still take. */
  kvmGmemGetPfn(kvm: KvmTdx, gfn: number): number | Errno {
    const frame = kvm.gmem.get(gfn) ?? this.doSwapPage(this.pageAt(kvm.process, gfn));
    return this.hwpoison.has(frame) ? 'EHWPOISON' : frame;
  }

  /** tdx_td_finalize() */
  tdxTdFinalize(kvm: KvmTdx): Errno | undefined {
    if (kvm.hkid === undefined || kvm.state === 'runnable') return 'EINVAL';
    const status = this.seam.mrFinalize(kvm.tdr);
    if (status === 'TDX_OPERAND_BUSY') return 'EBUSY';
    if (status !== 'TDX_SUCCESS') return this.kvmBug(kvm);
    kvm.state = 'runnable';
    return undefined;
  }

  /** kvm_vm_ioctl_set_mem_attributes(), of one frame */
  setMemAttributes(kvm: KvmTdx, gfn: number, isPrivate: boolean): Errno | undefined {
    if (kvm.isDead) return 'EIO';
    this.lock(kvm.slotsLock);
    const error = kvm.private[gfn] === isPrivate ? undefined : this.convert(kvm, gfn, isPrivate);
    this.unlock(kvm.slotsLock);
    return error;
  }

  private convert(kvm: KvmTdx, gfn: number, isPrivate: boolean): Errno | undefined {
    const error = isPrivate ? this.unshare(kvm, gfn) : this.kvmArchPreSetMemoryAttributes(kvm, gfn);
    if (error !== undefined) return error;
    kvm.private[gfn] = isPrivate;
    if (!isPrivate) this.share(kvm, gfn);
    return undefined;
  }

  /** kvm_arch_pre_set_memory_attributes(), of a frame that becomes shared */
  kvmArchPreSetMemoryAttributes(kvm: KvmTdx, gfn: number): Errno | undefined {
    return this.kvmUnmapPrivate(kvm, gfn);
  }

  /** Nobody of user space may have the page, or get it, when it becomes private. */
  unshare(kvm: KvmTdx, gfn: number): Errno | undefined {
    if (!this.has('in-place')) return undefined;
    if (this.isReferenced(kvm, gfn)) return 'EAGAIN';
    this.doSwapPage(this.pageAt(kvm.process, gfn));
    this.lock(this.mmapLock);
    this.unmapUserPage(kvm, gfn);
    this.unlock(this.mmapLock);
    return undefined;
  }

  /** Whether somebody has a reference that conversion must wait for, where the design waits. */
  isReferenced({ process }: KvmTdx, gfn: number): boolean {
    return this.has('explicit-maps') && this.pageAt(process, gfn).pins > 0;
  }

  /** A poison entry; or the entry is gone, and a fault finds that the page is private. GUP finds the same. */
  unmapUserPage(kvm: KvmTdx, gfn: number): void {
    const page = this.pageAt(kvm.process, gfn);
    if (page.pte === 'present') page.pte = 'refused';
    if (this.has('poison-entries') && page.frame !== undefined) this.markedPrivate.add(page.frame);
  }

  /** User space may touch the page again, when nothing of the guest is in it. */
  share(kvm: KvmTdx, gfn: number): void {
    if (!this.has('in-place')) return;
    const page = this.pageAt(kvm.process, gfn);
    if (page.pte === 'refused') page.pte = 'present';
    if (page.frame !== undefined) this.markedPrivate.delete(page.frame);
  }

  /** kvm_unmap_gfn_range(), for private entries */
  kvmUnmapPrivate(kvm: KvmTdx, gfn: number): Errno | undefined {
    if (!kvm.mirror.has(gfn)) return undefined;
    this.lock(kvm.mmuLock);
    const error = this.tdxSeptRemoveLeafSpte(kvm, gfn);
    this.unlock(kvm.mmuLock);
    return error;
  }

  /** tdx_sept_remove_leaf_spte() */
  tdxSeptRemoveLeafSpte(kvm: KvmTdx, gfn: number): Errno | undefined {
    const frame = kvm.mirror.get(gfn);
    if (frame === undefined) return undefined;
    if (!kvm.zapped.has(gfn)) {
      if (this.tdhDoNoVcpus(() => this.seam.memRangeBlock(kvm.tdr, gfn)) !== 'TDX_SUCCESS') return this.kvmBug(kvm);
      kvm.zapped.set(gfn, 'blocked');
    }
    if (kvm.zapped.get(gfn) === 'blocked' && this.tdxTrack(kvm) !== undefined) return 'EIO';
    if (this.tdhDoNoVcpus(() => this.seam.memPageRemove(kvm.tdr, gfn)) !== 'TDX_SUCCESS') return this.kvmBug(kvm);
    kvm.mirror.delete(gfn);
    kvm.zapped.delete(gfn);
    this.takeBack(kvm, frame);
    return undefined;
  }

  /** The page is the host's again: written back for its key, and reset. */
  takeBack(kvm: KvmTdx, frame: number): void {
    if (kvm.hkid !== undefined) this.seam.phymemPageWbinvd(kvm.hkid, frame);
    this.tdxQuirkResetPaddr(frame);
  }

  /** tdh_do_no_vcpus(): tried once more where a vCPU was in the way. */
  tdhDoNoVcpus(call: () => Status): Status {
    const status = call();
    return status === 'TDX_OPERAND_BUSY' ? call() : status;
  }

  /** tdx_track() */
  tdxTrack(kvm: KvmTdx): Errno | undefined {
    if (kvm.state !== 'runnable') return undefined;
    if (this.tdhDoNoVcpus(() => this.seam.memTrack(kvm.tdr)) !== 'TDX_SUCCESS') return this.kvmBug(kvm);
    this.noteTracked(kvm);
    return undefined;
  }

  /** kvm_make_all_cpus_request(): every vCPU has been out of the guest. */
  private noteTracked({ zapped }: KvmTdx): void {
    for (const gfn of zapped.keys()) zapped.set(gfn, 'tracked');
  }

  /** tdx_quirk_reset_paddr(): MOVDIR64B to every line. */
  tdxQuirkResetPaddr(frame: number): void {
    for (const line of LINES) this.memory.store(frame, line, SHARED_KEY, 0n, 'line');
  }

  /** kvm_arch_vcpu_pre_fault_memory() */
  preFaultMemory(kvm: KvmTdx, id: string, gfn: number): Errno | undefined {
    const vcpu = kvm.vcpus.get(id);
    if (vcpu === undefined) return 'EBADF';
    if (kvm.isDead) return 'EIO';
    this.lock(vcpu.mutex);
    const error = kvm.state === 'runnable' ? this.kvmTdpPagePrefault(kvm, gfn) : 'EOPNOTSUPP';
    this.unlock(vcpu.mutex);
    return error;
  }

  private kvmTdpPagePrefault(kvm: KvmTdx, gfn: number): Errno | undefined {
    if (kvm.private[gfn] === true) return this.kvmTdpMmuMap(kvm, gfn);
    this.doSwapPage(this.pageAt(kvm.process, gfn));
    return undefined;
  }

  /** kvm_tdp_mmu_map(), tdx_mem_page_aug() */
  kvmTdpMmuMap(kvm: KvmTdx, gfn: number): Errno | undefined {
    if (kvm.mirror.has(gfn)) return undefined;
    const frame = this.kvmGmemGetPfn(kvm, gfn);
    if (typeof frame === 'string') return frame;
    this.lockShared(kvm.mmuLock);
    const status = this.seam.memPageAug(kvm.tdr, gfn, frame);
    if (status === 'TDX_SUCCESS') kvm.mirror.set(gfn, frame);
    this.unlockShared(kvm.mmuLock);
    return status === 'TDX_SUCCESS' ? undefined : this.kvmBug(kvm);
  }

  /** kvm_arch_vcpu_ioctl_run(), tdx_vcpu_run() */
  kvmRun(kvm: KvmTdx, id: string, run: (td: Td, vcpu: VcpuTdx) => Outcome): Outcome {
    const vcpu = kvm.vcpus.get(id);
    if (vcpu === undefined) return fails('EBADF');
    if (kvm.isDead) return fails('EIO');
    this.lock(vcpu.mutex);
    const outcome = this.vcpuEnterGuest(kvm, vcpu, run);
    this.unlock(vcpu.mutex);
    return outcome;
  }

  /** kvm_x86_vcpu_pre_run(), tdx_vcpu_enter_exit(), and the end of tdx_handle_exit() */
  vcpuEnterGuest(kvm: KvmTdx, vcpu: VcpuTdx, run: (td: Td, vcpu: VcpuTdx) => Outcome): Outcome {
    if (vcpu.tdvpr === undefined || kvm.state !== 'runnable') return fails('EINVAL');
    if (this.seam.vpEnter(vcpu.tdvpr) !== 'TDX_SUCCESS') return internalError;
    return run(this.seam.tdAt(kvm.tdr) as Td, vcpu);
  }

  guestLoad(kvm: KvmTdx, id: string, gfn: number, line: number, world: World): Outcome {
    return this.kvmRun(kvm, id, (td) => {
      if (world === 'shared') return this.sharedAccess(kvm, td, gfn, (frame) => this.cpuLoad(frame, line));
      return this.privateAccess(kvm, td, gfn, (entry) =>
        this.guestWord(td, entry.frame, this.seam.guestLoad(td, entry, line)),
      );
    });
  }

  guestStore(kvm: KvmTdx, id: string, gfn: number, line: number, world: World, width: Width, value: bigint): Outcome {
    return this.kvmRun(kvm, id, (td) => {
      if (world === 'shared')
        return this.sharedAccess(kvm, td, gfn, (frame) => {
          this.cpuStore(frame, line, value, width);
          return undefined;
        });
      return this.privateAccess(kvm, td, gfn, (entry) => {
        this.seam.guestStore(td, entry, line, value, width);
        return ok();
      });
    });
  }

  /** What the guest gets of a line. Poison is a machine check in it, and the end of it. */
  private guestWord(td: Td, frame: number, word: Word): Outcome {
    if (word !== 'poison') return wordOutcome(word);
    const outcome = this.consume('guest', frame);
    if (outcome.kind === 'shutdown') throw new Gone(outcome);
    this.seam.machineCheck(td);
    return outcome;
  }

  /** tdx_handle_ept_violation(), until the access is made or never will be */
  private privateAccess(kvm: KvmTdx, td: Td, gfn: number, access: (entry: SeptEntry) => Outcome): Outcome {
    const entry = this.septEntry(kvm, td, gfn);
    if ('kind' in entry) return entry;
    if (entry.state === 'mapped') return access(entry);
    // "Guest access before accepting"
    return fails(this.kvmBug(kvm));
  }

  /** TDG.MEM.PAGE.ACCEPT */
  guestAccept(kvm: KvmTdx, id: string, gfn: number): Outcome {
    return this.kvmRun(kvm, id, (td) => {
      const entry = this.septEntry(kvm, td, gfn);
      return 'kind' in entry ? entry : statusOutcome(this.seam.memPageAccept(td, entry));
    });
  }

  /** kvm_mmu_faultin_pfn() refuses what is in the other world; a blocked entry makes the guest fault for ever. */
  private septEntry(kvm: KvmTdx, td: Td, gfn: number): SeptEntry | Outcome {
    if (!td.sept.has(gfn)) {
      if (kvm.private[gfn] !== true) return memoryFault(gfn, 'private');
      const error = this.kvmTdpMmuMap(kvm, gfn);
      if (error !== undefined) return fails(error);
    }
    const entry = td.sept.get(gfn);
    return entry === undefined || entry.isBlocked ? fails('EINTR') : entry;
  }

  private sharedAccess(kvm: KvmTdx, td: Td, gfn: number, access: (frame: number) => Word | undefined): Outcome {
    if (kvm.private[gfn] === true) return memoryFault(gfn, 'shared');
    const frame = this.doSwapPage(this.pageAt(kvm.process, gfn));
    const word = access(frame);
    return word === undefined ? ok() : this.guestWord(td, frame, word);
  }

  /** tdx_map_gpa() */
  tdxMapGpa(kvm: KvmTdx, id: string, gpa: bigint, size: bigint): Outcome {
    return this.kvmRun(kvm, id, (_td, vcpu) => {
      const refused = (status: string): Outcome => ({ kind: 'status', status, gpa });
      if (!kvm.exitsOnHypercall) return refused('TDVMCALL_STATUS_SUBFUNC_UNSUPPORTED');
      const end = (gpa + size) & U64;
      const illegal = (each: bigint): boolean => each >> BigInt(this.config.machine.vcpuPhysicalBits) !== 0n;
      if (end <= gpa || illegal(gpa) || illegal(end - 1n) || ((gpa ^ (end - 1n)) & SHARED_BIT) !== 0n)
        return refused('TDVMCALL_STATUS_INVALID_OPERAND');
      if (((gpa | size) & PAGE_MASK) !== 0n) return refused('TDVMCALL_STATUS_ALIGN_ERROR');
      vcpu.mapGpa = { next: gpa, end };
      return this.doTdxMapGpa(vcpu.mapGpa);
    });
  }

  /** __tdx_map_gpa() */
  doTdxMapGpa({ next, end }: { readonly next: bigint; readonly end: bigint }): Outcome {
    const size = end - next > MAP_GPA_MAX_LEN ? MAP_GPA_MAX_LEN : end - next;
    return {
      kind: 'hypercall',
      gpa: next & ~SHARED_BIT,
      pages: size >> PAGE_SHIFT,
      private: (next & SHARED_BIT) === 0n,
    };
  }

  /** KVM_RUN with something to complete: what the guest finds in its registers, or the next exit. */
  mapGpaReturn(kvm: KvmTdx, id: string, ret: bigint, hasEvents: boolean): Outcome {
    const vcpu = kvm.vcpus.get(id);
    if (vcpu === undefined) return fails('EBADF');
    if (kvm.isDead) return fails('EIO');
    const outcome = this.tdxCompleteVmcallMapGpa(vcpu, ret, hasEvents);
    return outcome.kind === 'status' ? this.vcpuEnterGuest(kvm, vcpu, () => outcome) : outcome;
  }

  /** tdx_complete_vmcall_map_gpa() */
  tdxCompleteVmcallMapGpa(vcpu: VcpuTdx, ret: bigint, hasEvents: boolean): Outcome {
    const asked = vcpu.mapGpa;
    vcpu.mapGpa = undefined;
    if (asked === undefined) return fails('EINTR');
    const status = (name: string): Outcome => ({ kind: 'status', status: name, gpa: asked.next });
    if (ret === EAGAIN) return status('TDVMCALL_STATUS_RETRY');
    if (ret === EINVAL) return status('TDVMCALL_STATUS_INVALID_OPERAND');
    if (ret !== 0n) return fails('EINVAL');
    asked.next += MAP_GPA_MAX_LEN;
    if (asked.next >= asked.end) return { kind: 'status', status: 'TDVMCALL_STATUS_SUCCESS' };
    if (hasEvents) return status('TDVMCALL_STATUS_RETRY');
    vcpu.mapGpa = asked;
    return this.doTdxMapGpa(asked);
  }

  /** kvm_destroy_vm(), kvm_gmem_release(), exit_mmap() */
  kvmDestroyVm(kvm: KvmTdx): Outcome {
    kvm.process.iommu.clear();
    for (const gfn of [...kvm.mirror.keys()]) this.kvmUnmapPrivate(kvm, gfn);
    this.tdxMmuReleaseHkid(kvm);
    this.tdxReclaimTdControlPages(kvm);
    this.guests.delete(kvm.label);
    this.freeGuestMemory(kvm);
    return ok();
  }

  /** What the module still owns cannot be used by anybody: it is leaked. */
  freeGuestMemory({ process, gmem }: KvmTdx): void {
    for (const page of process.pages) {
      if (page.frame === undefined) continue;
      this.markedPrivate.delete(page.frame);
      if (this.isGuestPage(page.frame)) page.frame = undefined;
    }
    for (const frame of gmem.values()) if (!this.isGuestPage(frame)) this.freePage(frame);
    this.exitMm(process);
  }

  /** tdx_mmu_release_hkid() */
  tdxMmuReleaseHkid(kvm: KvmTdx): void {
    if (kvm.hkid === undefined) return;
    for (const vcpu of kvm.vcpus.values()) this.seam.vpFlush(vcpu.tdvpr);
    this.lock(this.tdxLock);
    if (this.releasesKey(kvm)) this.tdxHkidFree(kvm);
    else this.leakHkid(kvm);
    this.unlock(this.tdxLock);
  }

  private releasesKey(kvm: KvmTdx): boolean {
    if (this.hasPrivatePages(kvm)) return false;
    if (!kvm.isFlushed && this.seam.mngVpflushdone(kvm.tdr) !== 'TDX_SUCCESS') return false;
    this.smpFuncDoPhymemCacheWb();
    return this.seam.mngKeyFreeid(kvm.tdr) === 'TDX_SUCCESS';
  }

  /** "HKID is released after all private pages have been removed": tdx_sept_remove_leaf_spte() */
  hasPrivatePages({ mirror }: KvmTdx): boolean {
    return mirror.size > 0;
  }

  /** smp_func_do_phymem_cache_wb(), on each package */
  smpFuncDoPhymemCacheWb(): void {
    this.seam.phymemCacheWb();
  }

  /** "HKID is leaked": nobody gets it again. */
  leakHkid({ hkid }: KvmTdx): void {
    const entry = hkid === undefined ? undefined : this.keyidPool.get(hkid);
    if (entry !== undefined) entry.state = 'leaked';
  }

  /** tdx_vcpu_free(), tdx_reclaim_td_control_pages() */
  tdxReclaimTdControlPages(kvm: KvmTdx): void {
    if (kvm.hkid !== undefined) return;
    this.reclaimControl(kvm);
    this.reclaimRoot(kvm);
  }

  /** tdx_reclaim_control_page(), of every control page */
  reclaimControl(kvm: KvmTdx): Status {
    const pages = kvm.controlPages;
    if (pages.length === 0) return this.seam.phymemPageReclaim(undefined);
    for (const page of pages) {
      const status = this.seam.phymemPageReclaim(page);
      if (status !== 'TDX_SUCCESS') return status;
      this.tdxQuirkResetPaddr(page);
      this.freePage(page);
    }
    kvm.controlPages = [];
    return 'TDX_SUCCESS';
  }

  reclaimRoot(kvm: KvmTdx): Status {
    const { tdr } = kvm;
    const status = this.seam.phymemPageReclaim(tdr);
    if (tdr === undefined || status !== 'TDX_SUCCESS') return status;
    this.tdxQuirkResetPaddr(tdr);
    this.freePage(tdr);
    kvm.tdr = undefined;
    return status;
  }

  /** TDH.MEM.RANGE.BLOCK, as a step of its own */
  septBlock(kvm: KvmTdx, gfn: number): Outcome {
    const status = this.seam.memRangeBlock(kvm.tdr, gfn);
    if (status === 'TDX_SUCCESS') kvm.zapped.set(gfn, 'blocked');
    return statusOutcome(status);
  }

  septTrack(kvm: KvmTdx): Outcome {
    if (kvm.state !== 'runnable') return ok();
    const status = this.seam.memTrack(kvm.tdr);
    if (status === 'TDX_SUCCESS') this.noteTracked(kvm);
    return statusOutcome(status);
  }

  septRemove(kvm: KvmTdx, gfn: number): Outcome {
    const status = this.seam.memPageRemove(kvm.tdr, gfn);
    const frame = kvm.mirror.get(gfn);
    if (status === 'TDX_SUCCESS' && frame !== undefined) {
      kvm.mirror.delete(gfn);
      kvm.zapped.delete(gfn);
      this.takeBack(kvm, frame);
    }
    return statusOutcome(status);
  }

  keyFlushVcpu(kvm: KvmTdx, id: string): Outcome {
    const vcpu = kvm.vcpus.get(id);
    if (vcpu === undefined) return fails('EBADF');
    return vcpu.tdvpr === undefined ? ok() : statusOutcome(this.seam.vpFlush(vcpu.tdvpr));
  }

  /** tdx_mmu_release_hkid(), step by step: nobody begins with it while there is a private page. */
  keyFlushDone(kvm: KvmTdx): Outcome {
    if (this.hasPrivatePages(kvm)) return fails('EBUSY');
    const status = this.seam.mngVpflushdone(kvm.tdr);
    if (status === 'TDX_SUCCESS') kvm.isFlushed = true;
    return statusOutcome(status);
  }

  /** TDH.PHYMEM.CACHE.WB, as a step of its own */
  keyWriteBack(): Outcome {
    return statusOutcome(this.seam.phymemCacheWb());
  }

  keyFree(kvm: KvmTdx): Outcome {
    const status = this.seam.mngKeyFreeid(kvm.tdr);
    if (status === 'TDX_SUCCESS') this.tdxHkidFree(kvm);
    return statusOutcome(status);
  }

  pageReclaim(kvm: KvmTdx, page: 'control' | 'root'): Outcome {
    return statusOutcome(page === 'control' ? this.reclaimControl(kvm) : this.reclaimRoot(kvm));
  }

  /** The VMM maps a frame of the memory object. */
  hostMap(kvm: KvmTdx, gfn: number): Errno | undefined {
    const page = this.pageAt(kvm.process, gfn);
    if (page.pte !== 'none') return 'EEXIST';
    if (kvm.private[gfn] === true) return 'EACCES';
    page.pte = 'present';
    return undefined;
  }

  hostUnmap(kvm: KvmTdx, gfn: number): void {
    this.pageAt(kvm.process, gfn).pte = 'none';
  }

  /** tdx_shutdown(): the module is disabled for good, and with it every TD, before the next kernel begins. */
  kexec(): Outcome {
    throw new Gone(ok());
  }

  override facts(): Facts {
    return {
      ...this.factsOfHost(),
      tdPages: this.tdPages(),
      stageTwo: this.stageTwo(),
      lines: this.lineFacts(),
      keys: HKIDS.map((key) => {
        const flushed = this.memory.isFlushed(key);
        const entry = this.keyidPool.get(key);
        return entry === undefined
          ? { key, state: 'free', flushed }
          : { key, state: entry.state, vm: entry.label, flushed };
      }),
    };
  }

  private septEntries(): { readonly vm: Label; readonly td: Td; readonly gfn: number; readonly entry: SeptEntry }[] {
    return this.seam
      .tds()
      .flatMap((td) => [...td.sept].map(([gfn, entry]) => ({ vm: this.labels.get(td) ?? 'nobody', td, gfn, entry })));
  }

  private tdPages(): FactParts['tdPages'] {
    return this.septEntries().map(({ vm, td, gfn, entry }) => ({
      vm,
      gfn,
      frame: entry.frame,
      key: td.hkid,
      state: entry.isBlocked ? 'blocked' : entry.state,
    }));
  }

  /** What a vCPU could reach. */
  private stageTwo(): FactParts['stageTwo'] {
    return this.septEntries()
      .filter(({ td, entry }) => !td.isFatal && !entry.isBlocked)
      .map(({ vm, gfn, entry }) => ({ vm, gfn, frame: entry.frame, count: 1, private: true }));
  }

  private lineFacts(): FactParts['lines'] {
    const foreign = this.septEntries().flatMap(({ entry: { frame } }) =>
      LINES.filter((line) => {
        const { keyId, isPoisoned } = this.memory.lineAt(frame, line);
        return keyId === SHARED_KEY && !isPoisoned;
      }).map((line) => ({ frame, line, state: 'foreign' as const })),
    );
    const others = this.memory
      .unusual()
      .filter(({ frame, state }) => state.isPoisoned || !this.seam.owns(frame))
      .map(({ frame, line, state }) => ({
        frame,
        line,
        state: state.isPoisoned ? ('poisoned' as const) : ('keyed' as const),
      }));
    return [...foreign, ...others];
  }
}

const memoryFault = (gfn: number, world: World): Outcome => ({
  kind: 'memory-fault',
  errno: 'EFAULT',
  gpa: BigInt(gfn) << PAGE_SHIFT,
  private: world === 'private',
});
