/**
 * The host's kernel: memory that it gives to VMMs, and what it does about frames that fail. Source: mm/page_alloc.c,
 * mm/memory-failure.c, virt/kvm/guest_memfd.c, arch/x86/mm/pat/set_memory.c.
 */
import { MemoryFailures, type MceSignal, type Mm, type Page, type Thread } from './memory-failure.ts';
import { LINES, PhysicalMemory } from './physical-memory.ts';

/** A thread that runs a vCPU. */
export interface VcpuThread extends Thread {
  /** task_work: the frame of which kill_me_maybe() is to take care. */
  work: number | undefined;
  /** The guest frame at the address of a SIGBUS that it was sent. */
  signal: { readonly code: MceSignal; readonly gfn: number | undefined } | undefined;
}

/** A VMM and its VM. Its memory is mapped, or a guest_memfd. */
export interface Vmm {
  readonly mm: Mm;
  readonly vcpus: readonly VcpuThread[];
  /** Guest frames of early signals, which the main thread takes one by one. */
  readonly told: number[];
  /** The page cache of the guest_memfd, by guest frame. */
  readonly gmem: Map<number, number> | undefined;
  /** Stage 2. */
  readonly ept: Map<number, number>;
}

export class HostKernel extends MemoryFailures {
  readonly memory = new PhysicalMemory();
  readonly vmms = new Set<Vmm>();
  private nextFrame = 0;

  /** alloc_page() with __GFP_ZERO. There is no end of memory that was never used, and it comes first. */
  allocPage(type: 'anon' | 'gmem'): number {
    const page = this.onlinePage(this.nextFrame++);
    page.type = type;
    for (const line of LINES) this.memory.store(page.pfn, line, 0n);
    return page.pfn;
  }

  newVmm(hasGmem: boolean): Vmm {
    const told: number[] = [];
    const mainThread = {} as { mm: Mm };
    const mm: Mm = { ptes: new Map(), earlyThread: mainThread };
    mainThread.mm = mm;
    const vcpus = [0, 1].map((): VcpuThread => ({ mm, work: undefined, signal: undefined }));
    const vmm: Vmm = { mm, vcpus, told, gmem: hasGmem ? new Map() : undefined, ept: new Map() };
    this.mms.add(mm);
    this.vmms.add(vmm);
    return vmm;
  }

  /** mmap() with MAP_POPULATE, or fallocate(). */
  populate({ mm, gmem }: Vmm, gfn: number): void {
    if (gmem !== undefined) gmem.set(gfn, this.allocPage('gmem'));
    else mm.ptes.set(gfn, { kind: 'present', pfn: this.allocPage('anon'), dirty: true });
  }

  /** munmap(), or fallocate() with FALLOC_FL_PUNCH_HOLE. */
  unpopulate(vmm: Vmm, gfn: number): void {
    const frame = this.frameOf(vmm, gfn);
    vmm.ept.delete(gfn);
    vmm.mm.ptes.delete(gfn);
    vmm.gmem?.delete(gfn);
    if (frame !== undefined) this.freePage(this.page(frame));
  }

  /** exit_mm(), kvm_gmem_release(). What threads have left to do is done before they are gone (exit_task_work()). */
  exit(vmm: Vmm): void {
    for (const thread of vmm.vcpus) this.taskWorkRun(thread);
    for (const gfn of [...vmm.mm.ptes.keys(), ...(vmm.gmem?.keys() ?? [])]) this.unpopulate(vmm, gfn);
    this.mms.delete(vmm.mm);
    this.vmms.delete(vmm);
  }

  /** What backs the guest frame: undefined behind an entry that tells of poison, and where nothing is mapped. */
  frameOf({ mm, gmem }: Vmm, gfn: number): number | undefined {
    if (gmem !== undefined) return gmem.get(gfn);
    const pte = mm.ptes.get(gfn);
    return pte?.kind === 'present' ? pte.pfn : undefined;
  }

  /** The frame that did so, where it was taken away. */
  lastFrameOf(vmm: Vmm, gfn: number): number | undefined {
    const pte = vmm.mm.ptes.get(gfn);
    return pte?.kind === 'hwpoison' ? pte.pfn : this.frameOf(vmm, gfn);
  }

  isTaken(vmm: Vmm, gfn: number): boolean {
    const frame = this.frameOf(vmm, gfn);
    return frame === undefined || this.page(frame).hwpoison;
  }

  protected override sendSigbus(thread: Thread, code: MceSignal, pfn: number): void {
    for (const { mm, vcpus, told } of this.vmms) {
      if (mm !== thread.mm) continue;
      const address = [...mm.ptes].find(([, pte]) => pte.kind !== 'marker' && pte.pfn === pfn)?.[0];
      const vcpu = vcpus.find((each) => each === thread);
      if (vcpu !== undefined) vcpu.signal = { code, gfn: address };
      else if (address !== undefined) told.push(address);
    }
  }

  protected override mmuNotifierInvalidate(mm: Mm, address: number): void {
    for (const vmm of this.vmms) if (vmm.mm === mm) vmm.ept.delete(address);
  }

  protected override kvmGmemErrorFolio(pfn: number): void {
    for (const { gmem, ept } of this.vmms) for (const [gfn, frame] of gmem ?? []) if (frame === pfn) ept.delete(gfn);
  }

  /** kill_me_maybe(), on the thread of a vCPU. */
  taskWorkRun(thread: VcpuThread): void {
    const { work } = thread;
    thread.work = undefined;
    if (work !== undefined && this.killMeMaybe(thread, work) === undefined) this.setMceNospec(work);
  }

  /** Poison that nobody has to act upon at once: kill_me_never(), uc_decode_notifier(). */
  reportPoison(pfn: number): void {
    if (this.killMeNever(pfn) === undefined) this.setMceNospec(pfn);
  }

  /** set_mce_nospec() */
  setMceNospec(pfn: number): void {
    this.oneToOne.changePageAttr(this.oneToOne.decoyOf(pfn), { present: false });
  }

  get poisonedFrames(): readonly number[] {
    return this.framesWhere(({ hwpoison }) => hwpoison);
  }
  get freeFrames(): readonly number[] {
    return this.framesWhere(({ type }) => type === 'buddy');
  }
  get absentFrames(): readonly number[] {
    return this.oneToOne.absentBelow(this.nextFrame);
  }
  private framesWhere(wanted: (page: Page) => boolean): readonly number[] {
    return [...this.pages.values()].filter(wanted).map(({ pfn }) => pfn);
  }
}
