/**
 * The kernel under test: its handler of machine checks, what it leaves to tasks and to a worker, and how it isolates a page.
 * Source: arch/x86/kernel/cpu/mce/core.c, arch/x86/kernel/cpu/mce/genpool.c, arch/x86/mm/pat/set_memory.c.
 */
import type { McContext } from '../../../model/core/machine-check.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Feature } from '../../../model/core/profile.ts';
import { Stopped, type Access, type Cpu } from './cpu.ts';
import { GuestMm, type Platform } from './guest-mm.ts';
import { isWorse, MCG, MCI, mceSeverity, MISC, type Bank, type Context, type Grade } from './mca.ts';
import { LINES } from './physical-memory.ts';

/** task_work of a task, or what the notifier chain of the worker has to do. */
export interface Work {
  readonly func: 'kill_me_maybe' | 'kill_me_never' | 'uc_decode_notifier';
  readonly pfn: number;
  readonly unmapped: boolean;
  /** What was consumed, for reports. */
  readonly of: Access | undefined;
  /** memory_failure() is behind it, set_mce_nospec() is not. */
  recovered: boolean;
}

/** struct mce, as far as the handler looks at it. */
interface Mce {
  readonly bank: Bank;
  readonly grade: Grade;
  readonly pfn: number;
  readonly unmapped: boolean;
}

/** Machine checks that a task may take before its work is done. */
const MOST_CHECKS = 10;

class Panic extends Error {}

const CONTEXT: Readonly<Record<McContext, Context>> = {
  user: 'user',
  kernel: 'kernel',
  copyin: 'kernel-recov',
  copy: 'kernel-recov',
};

/** CLFLUSH of a line, by its real address. */
type Clflush = (pfn: number, line: number) => Stopped | undefined;

export type Way = 'not-present' | 'uncacheable' | 'nothing';

export class GuestKernel extends GuestMm {
  /** task_works of the task of each CPU. */
  readonly works: readonly Work[][];
  /** mce_event_llist */
  readonly worker: Work[] = [];
  private readonly has: (feature: Feature) => boolean;

  constructor(platform: Platform, gfns: readonly number[], has: (feature: Feature) => boolean) {
    super(platform, gfns);
    this.has = has;
    this.works = this.cpus.map(() => []);
  }

  worksOf({ id }: Cpu): Work[] {
    return this.works[id] as Work[];
  }

  /** do_machine_check(), on a CPU whose handler was raised. */
  doMachineCheck(cpu: Cpu): Outcome {
    try {
      this.handle(cpu);
    } catch (error) {
      if (!(error instanceof Panic)) throw error;
      this.platform.panicked(cpu.access);
      return { kind: 'machine-check', ends: this.has('virtual') ? 'guest' : 'machine' };
    }
    this.mceWrmsrMcgStatus(cpu);
    cpu.stage = 'runs';
    cpu.access = undefined;
    return ok();
  }

  private handle(cpu: Cpu): void {
    if (this.mceNoWayOut(cpu)) throw new Panic('Fatal local machine check');
    const worst = this.mcScanBanks(cpu);
    if (worst?.grade === 'PANIC') throw new Panic('Local fatal machine check!');
    if (worst?.grade !== 'AR') return;
    if (cpu.context === 'user') this.queueTaskWork(cpu, worst, 'kill_me_maybe');
    // A copy with a fixup just fails; one from user space is a report of the page as well.
    else if (cpu.context === 'copyin') this.queueTaskWork(cpu, worst, 'kill_me_never');
  }

  /** Ends the machine check: MCIP is clear again. */
  mceWrmsrMcgStatus(cpu: Cpu): void {
    cpu.mca.mcgStatus = 0n;
  }

  /** error_context() */
  private errorContext({ context, mca: { mcgStatus } }: Cpu): Context {
    const recoverable = (mcgStatus & (MCG.RIPV | MCG.EIPV)) === (MCG.RIPV | MCG.EIPV);
    // Without a valid instruction pointer nobody knows where the CPU was.
    if ((mcgStatus & (MCG.RIPV | MCG.EIPV)) === 0n) return 'kernel';
    return context === 'user' || recoverable ? CONTEXT[context] : 'kernel';
  }

  private gradeOf(cpu: Cpu, { status }: Bank): Grade {
    return mceSeverity(status, cpu.mca.mcgStatus, this.errorContext(cpu));
  }

  /** mce_no_way_out() */
  private mceNoWayOut(cpu: Cpu): boolean {
    return cpu.mca.banks.some((bank) => (bank.status & MCI.VAL) !== 0n && this.gradeOf(cpu, bank) === 'PANIC');
  }

  /** __mc_scan_banks(), mce_clear_state(): the first of the worst reports, of those that were signaled. */
  private mcScanBanks(cpu: Cpu): Mce | undefined {
    let worst: Mce | undefined;
    for (const bank of cpu.mca.banks) {
      if ((bank.status & MCI.VAL) === 0n || (bank.status & MCI.S) === 0n) continue;
      const grade = this.gradeOf(cpu, bank);
      if (grade === 'KEEP' || grade === 'UCNA') continue;
      const pfn = Number(bank.addr >> 12n);
      const mce: Mce = { bank, grade, pfn, unmapped: (bank.misc & MISC.UNMAPPED) !== 0n };
      bank.status = 0n;
      if (grade === 'NO') continue;
      this.mceLog(mce);
      if (isWorse(grade, worst?.grade ?? 'NO')) worst = mce;
    }
    return worst;
  }

  /** mce_log(), of which uc_decode_notifier() takes what needs no action at once. */
  mceLog({ grade, pfn, unmapped }: Omit<Mce, 'bank'>): void {
    if (grade !== 'AO') return;
    this.worker.push({ func: 'uc_decode_notifier', pfn, unmapped, of: undefined, recovered: false });
  }

  /** queue_task_work() */
  private queueTaskWork(cpu: Cpu, { pfn, unmapped }: Mce, func: Work['func']): void {
    const task = this.taskOf(cpu);
    const count = this.countMachineCheck(cpu);
    if (count === 1) {
      task.mceAddr = pfn;
      task.mceUnmapped = unmapped;
    }
    if (this.areTooMany(count)) throw new Panic('Too many consecutive machine checks while accessing user data');
    if (task.mceAddr !== pfn) throw new Panic('Consecutive machine checks to different user pages');
    if (count > 1) return;
    this.worksOf(cpu).push({ func, pfn, unmapped: task.mceUnmapped, of: cpu.access, recovered: false });
  }

  areTooMany(count: number): boolean {
    return count > MOST_CHECKS;
  }

  /** current->mce_count */
  countMachineCheck(cpu: Cpu): number {
    return ++this.taskOf(cpu).mceCount;
  }

  /** The next thing to do of a CPU, or of the worker, where it is this step. */
  workAt(works: readonly Work[], recovered: boolean): Work | undefined {
    return works[0]?.recovered === recovered ? works[0] : undefined;
  }

  /** kill_me_maybe(), kill_me_never(), uc_decode_notifier(): memory_failure(). */
  recover(cpu: Cpu, works: Work[], work: Work): Outcome {
    const task = this.taskOf(cpu);
    if (work.func !== 'uc_decode_notifier') task.mceCount = 0;
    this.because = work.of;
    const failed = work.func === 'kill_me_maybe' ? this.killMeMaybe(task, work.pfn) : this.killMeNever(work.pfn);
    if (failed === undefined) work.recovered = true;
    else works.shift();
    const code = this.signalSent(task);
    if (code !== undefined) return { kind: 'sigbus', to: 'task', code };
    return failed === undefined ? ok() : fails(failed);
  }

  /** The rest of them: set_mce_nospec(). */
  isolate(cpu: Cpu, works: Work[], work: Work): Outcome {
    const touched: number[] = [];
    const stopped = this.setMceNospec(work.pfn, work.unmapped, (pfn, line) => {
      touched.push(line);
      return this.flush(cpu, pfn, line);
    });
    this.platform.isolated(work.pfn, touched.length);
    if (stopped !== undefined) return stopped.outcome;
    works.shift();
    return ok();
  }

  private flush(cpu: Cpu, pfn: number, line: number): Stopped | undefined {
    const touched = this.throughOneToOne(cpu, pfn, line, 'isolate');
    return touched instanceof Stopped ? touched : undefined;
  }

  /** Which of the ways of the thread this kernel goes. */
  isolationOf(unmapped: boolean): Way {
    if (this.has('isolate-nothing')) return 'nothing';
    if (this.has('isolate-absent') || (this.has('isolate-as-told') && unmapped)) return 'not-present';
    return 'uncacheable';
  }

  /** set_mce_nospec(), by way of a decoy address. CLFLUSH takes real ones only. */
  setMceNospec(pfn: number, unmapped: boolean, clflush: Clflush): Stopped | undefined {
    const way = this.isolationOf(unmapped);
    const decoy = this.oneToOne.decoyOf(pfn);
    if (way === 'not-present') this.setMemoryNp(decoy);
    else if (way === 'uncacheable') return this.setMemoryUc(decoy, clflush);
    return undefined;
  }

  /** set_memory_np(): no attribute of caches is set, so nothing is flushed but TLBs. */
  setMemoryNp(address: bigint): void {
    this.oneToOne.changePageAttr(address, { present: false });
  }

  /** set_memory_uc() */
  setMemoryUc(address: bigint, clflush: Clflush): Stopped | undefined {
    const hasChanged = this.oneToOne.changePageAttr(address, { uncacheable: true });
    return hasChanged ? this.cpaFlush(address, clflush) : undefined;
  }

  /** cpa_flush() */
  protected cpaFlush(address: bigint, clflush: Clflush): Stopped | undefined {
    const pfn = this.oneToOne.pfnOf(this.oneToOne.fixAddr(address));
    if (!this.oneToOne.lookup(pfn).present) return undefined;
    for (const line of LINES) {
      const stopped = clflush(pfn, line);
      if (stopped !== undefined) return stopped;
    }
    return undefined;
  }

  /** corrupt-pfn of mm/hwpoison-inject.c */
  hwpoisonInject(pfn: number): Outcome {
    this.because = undefined;
    const failed = this.memoryFailure(pfn, { simulated: true });
    return failed === undefined ? ok() : fails(failed);
  }

  /** unpoison-pfn of mm/hwpoison-inject.c */
  hwpoisonUnpoison(pfn: number): Outcome {
    const failed = this.unpoisonMemory(pfn);
    return failed === undefined ? ok() : fails(failed);
  }
}
