/**
 * Memory of the kernel under test: its frames, its tasks, what they have. It knows physical memory by guest frame; what is
 * below it is the platform's affair. Source: mm/memory.c, mm/page_alloc.c, kernel/exit.c.
 */
import type { EndingEvent, McHow, McUse } from '../../../model/core/machine-check.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import { Cpu, Stopped, type Access, type Touched } from './cpu.ts';
import { MemoryFailures, type MceSignal, type Mm, type Page, type Thread } from './memory-failure.ts';
import { LINES } from './physical-memory.ts';

export const GFNS: readonly number[] = [0, 1, 2, 3];
export const CPUS: readonly number[] = [0, 1];

/** struct task_struct */
export class Task implements Thread {
  readonly id: number;
  alive = true;
  readonly mm: Mm = { ptes: new Map() };
  /** Pages of its page tables. */
  readonly tables = new Set<number>();
  mceCount = 0;
  mceAddr = 0;
  mceUnmapped = false;

  constructor(id: number) {
    this.id = id;
  }
}

/** What a kernel runs on: a VM, or the machine itself. */
export interface Platform {
  /** One access of a CPU to physical memory: the word that was there, or why it was not made. */
  access(cpu: Cpu, access: Access): Touched;
  /** The CPU is held by the panic. */
  panicked(of: Access | undefined): void;
  ended(event: Omit<EndingEvent, 'vm'>): void;
  isolated(gfn: number, touched: number): void;
}

export type Owner = '0' | '1' | 'both';

const TYPE: Readonly<Record<Exclude<McUse, 'free'>, Page['type']>> = {
  anon: 'anon',
  clean: 'file',
  dirty: 'file',
  kernel: 'slab',
  table: 'table',
};

export class GuestMm extends MemoryFailures {
  readonly platform: Platform;
  readonly cpus: readonly Cpu[] = CPUS.map((id) => new Cpu(id));
  readonly tasks: Task[] = CPUS.map((id) => new Task(id));
  /** Signals that the last step sent. */
  private readonly sent = new Map<Task, MceSignal>();
  /** What made the step necessary that may send one. */
  protected because: Access | undefined;

  constructor(platform: Platform, gfns: readonly number[]) {
    super();
    this.platform = platform;
    for (const { mm } of this.tasks) this.mms.add(mm);
    for (const gfn of gfns) this.onlinePage(gfn);
  }

  taskOf({ id }: Cpu): Task {
    return this.tasks[id] as Task;
  }

  /** A task in the place of one that is gone. */
  fork(id: number): void {
    const task = new Task(id);
    this.tasks[id] = task;
    this.mms.add(task.mm);
  }

  useOf({ pfn, type, dirty }: Page): McUse {
    switch (type) {
      case 'slab':
        return 'kernel';
      case 'table':
        return 'table';
      case 'anon':
        return 'anon';
      case 'file':
        return dirty || this.mappers(pfn).some(({ pte }) => pte.kind === 'present' && pte.dirty) ? 'dirty' : 'clean';
      case 'buddy':
      case 'isolated':
      case 'offlist':
      case 'gmem':
        return 'free';
    }
  }

  protected override mmuNotifierInvalidate(): void {
    // Nobody in the guest follows page tables of tasks.
  }

  protected override kvmGmemErrorFolio(): void {
    throw new Error('the guest has no guest_memfd');
  }

  /** force_sig_mceerr(), send_sig_mceerr(), force_sig(): none of the tasks has a handler. */
  protected override sendSigbus(thread: Thread, code: MceSignal, pfn: number): void {
    const task = this.tasks.find((each) => each === thread);
    if (task?.alive !== true) return;
    this.sent.set(task, code);
    this.doExit(task, { by: 'signal', of: pfn, how: this.because?.how });
  }

  /** The signal that the step which ends here sent to the task. */
  protected signalSent(task: Task): MceSignal | undefined {
    const code = this.sent.get(task);
    this.sent.clear();
    return code;
  }

  /** do_exit() */
  doExit(task: Task, why: Omit<EndingEvent, 'vm' | 'task'>): void {
    this.platform.ended({ ...why, task: task.id });
    task.alive = false;
    const had = [
      ...[...task.mm.ptes.values()].flatMap((pte) => (pte.kind === 'present' ? [pte.pfn] : [])),
      ...task.tables,
    ];
    this.zapPteRange(task.mm);
    task.tables.clear();
    this.mms.delete(task.mm);
    for (const pfn of had) if (!this.isUsed(pfn)) this.freePage(this.page(pfn));
  }

  /** zap_pte_range(): what the entries know of changes to a file is the page's from now on. */
  private zapPteRange({ ptes }: Mm): void {
    for (const pte of ptes.values()) if (pte.kind === 'present' && pte.dirty) this.page(pte.pfn).dirty = true;
    ptes.clear();
  }

  private isUsed(pfn: number): boolean {
    return this.isMapped(pfn) || this.tasks.some(({ tables }) => tables.has(pfn));
  }

  /** One access through the 1:1 map. */
  throughOneToOne(cpu: Cpu, pfn: number, line: number, how: McHow, value?: bigint): Touched {
    const context = how === 'copy' ? 'copy' : 'kernel';
    const access: Access = { gfn: pfn, line, by: 'kernel', how, context, ...(value === undefined ? {} : { value }) };
    if (!this.oneToOne.lookup(pfn).present) return this.badKernelAddress(cpu, access);
    return this.platform.access(cpu, access);
  }

  /** kernelmode_fixup_or_oops() */
  private badKernelAddress(cpu: Cpu, { how, gfn }: Access): Stopped {
    if (how === 'copy') return new Stopped(fails('EIO'));
    const task = this.taskOf(cpu);
    if (task.alive) this.doExit(task, { by: 'oops', of: gfn, how });
    return new Stopped({ kind: 'oops' });
  }

  /** alloc_page() with __GFP_ZERO, and what its user does with it then. */
  alloc(cpu: Cpu, pfn: number, use: Exclude<McUse, 'free'>, owner: Owner): Outcome {
    const page = this.page(pfn);
    if (this.useOf(page) !== 'free') return fails('EBUSY');
    if (page.hwpoison) return fails('EHWPOISON');
    if (page.type !== 'buddy') return fails('EBUSY');
    for (const line of LINES) {
      const touched = this.throughOneToOne(cpu, pfn, line, 'zero', 0n);
      if (touched instanceof Stopped) return touched.outcome;
    }
    page.type = TYPE[use];
    page.dirty = use === 'dirty';
    for (const task of use === 'kernel' ? [] : this.ownersOf(owner)) {
      // What told of poison at the address of the page makes room.
      task.mm.ptes.delete(pfn);
      if (use === 'table') task.tables.add(pfn);
      else task.mm.ptes.set(pfn, { kind: 'present', pfn, dirty: use === 'anon' });
    }
    return ok();
  }

  ownersOf(owner: Owner): readonly Task[] {
    return owner === 'both' ? this.tasks : this.tasks.filter(({ id }) => String(id) === owner);
  }

  /** Nobody uses the page any more: tasks that have it unmap it. */
  release(pfn: number): Outcome {
    const page = this.page(pfn);
    if (this.useOf(page) === 'free') return fails('ENOENT');
    for (const { mm, address } of this.mappers(pfn)) mm.ptes.delete(address);
    for (const { tables } of this.tasks) tables.delete(pfn);
    this.freePage(page);
    return ok();
  }

  /** offline_pages(): what is in use has nowhere to go, and what is poisoned need not (do_migrate_range()). */
  offline(pfn: number): boolean {
    const page = this.page(pfn);
    if (this.useOf(page) !== 'free' && !page.hwpoison) return false;
    for (const { mm, tables } of this.tasks) {
      tables.delete(pfn);
      mm.ptes.delete(pfn);
    }
    this.pages.delete(pfn);
    return true;
  }

  /** add_memory(), online_pages() */
  online(pfn: number): void {
    this.onlinePage(pfn);
    this.oneToOne.mapAgain(pfn);
  }

  /** A task's own access: by what its page table has. */
  userTouch(cpu: Cpu, pfn: number, line: number, how: McHow, value: bigint): Touched {
    const task = this.taskOf(cpu);
    if (how === 'walk') {
      if (!task.tables.has(pfn)) return new Stopped(fails('ENOENT'));
    } else {
      const pte = task.mm.ptes.get(pfn);
      if (pte === undefined) return new Stopped(fails('ENOENT'));
      if (pte.kind !== 'present') return this.doSwapPage(task, pfn, how);
    }
    const context = how === 'copyin' ? 'copyin' : 'user';
    const access: Access = { gfn: pfn, line, by: 'task', how, context, ...(how === 'store' ? { value } : {}) };
    const touched = this.platform.access(cpu, access);
    const pte = task.mm.ptes.get(pfn);
    if (how === 'store' && !(touched instanceof Stopped) && pte?.kind === 'present') pte.dirty = true;
    return touched;
  }

  /** do_swap_page() of a poison entry: VM_FAULT_HWPOISON, to whoever made the access. */
  private doSwapPage(task: Task, pfn: number, how: McHow): Stopped {
    if (how === 'copyin') return new Stopped(fails('EFAULT'));
    this.because = undefined;
    this.sendSigbus(task, 'AR', pfn);
    this.signalSent(task);
    return new Stopped({ kind: 'sigbus', to: 'task', code: 'AR' });
  }
}
