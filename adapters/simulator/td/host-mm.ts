/**
 * The host's memory management, as far as the memory of guests is concerned: page frames, the page tables of VMMs, pinning,
 * swap, migration, devices. Source: mm/memory.c, mm/gup.c, mm/migrate.c, mm/vmscan.c, mm/memory-failure.c,
 * fs/proc/kcore.c, drivers/iommu/iommufd/ioas.c.
 */
import type { FactParts } from '../../../model/core/facts.ts';
import type { Errno, Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { Kernel, newLock } from '../kernel.ts';
import { LINES, type Width } from './memory-controller.ts';

export type HostWrite = FactParts['hostWrites'][number];
export type Consumption = FactParts['consumptions'][number];

/** Guest frames of every slot. */
export const GFNS: readonly number[] = [0, 1, 2, 3];

/** What a load of the host gives: a word, a word of which the bits mean nothing, or nothing but poison. */
export type Word = bigint | 'ciphertext' | 'poison';

/** What is at a user address: the page, a mapping that has it no more because it is private, or no mapping at all. */
export type Pte = 'present' | 'refused' | 'none';

/** A page of the VMM at the host address of a guest frame. In swap it is its lines, and no frame. */
export interface HostPage {
  pte: Pte;
  frame: number | undefined;
  swapped: readonly Word[];
  /** References that GUP has given out. */
  pins: number;
}

/** The VMM of a guest. */
export interface Process {
  readonly label: Label;
  readonly pages: readonly HostPage[];
  /** IOMMU: guest frame to physical frame, which is pinned. */
  readonly iommu: Map<number, number>;
}

export type Signal = 'SIGBUS' | 'SIGSEGV';

/** The machine is not there any more: it panicked or shut down, or another kernel runs. */
export class Gone extends Error {
  readonly outcome: Outcome;
  constructor(outcome: Outcome) {
    super(outcome.kind);
    this.outcome = outcome;
  }
}

export abstract class HostMm extends Kernel {
  readonly mmapLock = newLock('mmap_lock');
  /** Of iommufd: struct io_pagetable. */
  readonly iovaLock = newLock('iova_rwsem');
  /** Frames that had a machine check: PG_hwpoison, for ever. */
  readonly hwpoison = new Set<number>();
  /** Free frames that have been in use, most recently freed last. */
  readonly freeList: number[] = [];
  private nextFrame = 0;
  /** The core that consumes poison next cannot go on. */
  coreStops = false;
  readonly hostWrites: HostWrite[] = [];
  readonly consumptions: Consumption[] = [];

  /** What the processor gives to code of the host, and takes from it. */
  protected abstract cpuLoad(frame: number, line: number): Word;
  protected abstract cpuStore(frame: number, line: number, value: bigint, width: Width): void;
  protected abstract deviceLoad(frame: number, line: number): Word | Errno;
  protected abstract deviceStore(frame: number, line: number, value: bigint, width: Width): Errno | undefined;
  /** Whether a guest has the page, so that a store of the host is none of its business. */
  protected abstract isGuestPage(frame: number): boolean;
  /** Whether the page at the host address cannot be moved because of what it is. */
  protected abstract isUnmovable(process: Process, gfn: number): boolean;

  /** The machine loses power, or starts another kernel. */
  protected powerOff(): void {
    this.hwpoison.clear();
    this.freeList.length = 0;
    this.nextFrame = 0;
    this.coreStops = false;
    this.mmapLock.writer = false;
    this.mmapLock.readers = 0;
    this.iovaLock.writer = false;
  }

  /** mm/page_alloc.c: alloc_pages() */
  allocPage(): number {
    return this.freeList.pop() ?? this.nextFrame++;
  }

  /** mm/page_alloc.c: free_pages_prepare() keeps poisoned frames away from the free list. */
  freePage(frame: number): void {
    if (!this.hwpoison.has(frame)) this.freeList.push(frame);
  }

  /** A page that nobody has been given yet, and nothing of whoever had it before. */
  allocZeroedPage(): number {
    const frame = this.allocPage();
    this.clearHighpage(frame);
    return frame;
  }

  /** include/linux/highmem.h: clear_highpage(), with whole-line stores. */
  clearHighpage(frame: number): void {
    for (const line of LINES) {
      this.noteHostWrite(frame, line, 'zero');
      this.cpuStore(frame, line, 0n, 'line');
    }
  }

  /** mmap() with MAP_POPULATE, of a page for each guest frame. */
  newProcess(label: Label, pte: Pte): Process {
    const pages = GFNS.map(() => ({ pte, frame: this.allocZeroedPage(), swapped: [], pins: 0 }));
    return { label, pages, iommu: new Map() };
  }

  /** exit_mmap() */
  exitMm({ pages, iommu }: Process): void {
    iommu.clear();
    for (const page of pages) {
      page.pte = 'none';
      if (page.frame !== undefined) this.freePage(page.frame);
      page.frame = undefined;
      page.pins = 0;
    }
  }

  pageAt(process: Process, gfn: number): HostPage {
    const page = process.pages[gfn];
    if (page === undefined) throw new Error(`there is no guest frame ${gfn}`);
    return page;
  }

  /** mm/memory.c: handle_mm_fault(), and what is done with the page while nobody can take it from the page table. */
  withUserPage<T>(process: Process, gfn: number, use: (frame: number, page: HostPage) => T): T | Signal {
    this.lockShared(this.mmapLock);
    const page = this.pageAt(process, gfn);
    const found = page.pte === 'none' ? 'SIGSEGV' : page.pte === 'refused' ? 'SIGBUS' : this.doSwapPage(page);
    const isPoisoned = typeof found === 'number' && this.hwpoison.has(found);
    const result = isPoisoned ? 'SIGBUS' : typeof found === 'string' ? found : use(found, page);
    this.unlockShared(this.mmapLock);
    return result;
  }

  /** mm/gup.c: pin_user_pages(). Whoever has the page has to give it back: unpinUserPage(). */
  pinUserPages(process: Process, gfn: number): number | 'EFAULT' {
    const found = this.withUserPage(process, gfn, (frame, page) => {
      page.pins++;
      return frame;
    });
    return typeof found === 'string' ? 'EFAULT' : found;
  }

  unpinUserPage(process: Process, gfn: number): void {
    this.pageAt(process, gfn).pins--;
  }

  /** mm/memory.c: do_swap_page(), where the page is in swap. */
  doSwapPage(page: HostPage): number {
    if (page.frame !== undefined) return page.frame;
    const frame = this.allocZeroedPage();
    this.fill(frame, page.swapped);
    page.frame = frame;
    page.swapped = [];
    return frame;
  }

  /** The lines of a page, as the host can read them. */
  protected contentsOf(frame: number): readonly Word[] {
    return LINES.map((line) => this.kernelLoad(frame, line));
  }

  /** Makes a page hold what was read of another. */
  protected fill(frame: number, words: readonly Word[]): void {
    words.forEach((word, line) => {
      if (typeof word === 'bigint') this.cpuStore(frame, line, word, 'line');
    });
  }

  /** mm/vmscan.c: pageout() */
  pageout(page: HostPage): void {
    if (page.frame === undefined) return;
    page.swapped = this.contentsOf(page.frame);
    this.freePage(page.frame);
    page.frame = undefined;
  }

  /** mm/migrate.c: migrate_folio() */
  migrateFolio(page: HostPage): void {
    if (page.frame === undefined) return;
    const target = this.allocZeroedPage();
    this.fill(target, this.contentsOf(page.frame));
    this.freePage(page.frame);
    page.frame = target;
  }

  /** Reclaim, swap-in and compaction, each tried on one page. */
  movePage(process: Process, gfn: number, how: 'migrate' | 'swap-out' | 'swap-in'): Errno | undefined {
    const page = this.pageAt(process, gfn);
    if (page.pins > 0 || this.isUnmovable(process, gfn)) return 'EBUSY';
    if ((page.frame === undefined) !== (how === 'swap-in')) return 'ENOENT';
    if (how === 'swap-in') this.doSwapPage(page);
    else if (how === 'swap-out') this.pageout(page);
    else this.migrateFolio(page);
    return undefined;
  }

  /** drivers/iommu/iommufd/ioas.c: iommufd_ioas_map() */
  iommufdIoasMap(process: Process, gfn: number): Errno | undefined {
    return this.withIommu(() => {
      if (process.iommu.has(gfn)) return 'EEXIST';
      const frame = this.pinUserPages(process, gfn);
      if (typeof frame === 'string') return frame;
      process.iommu.set(gfn, frame);
      return undefined;
    });
  }

  /** drivers/iommu/iommufd/ioas.c: iommufd_ioas_unmap() */
  iommufdIoasUnmap(process: Process, gfn: number): Errno | undefined {
    return this.withIommu(() => {
      if (!process.iommu.delete(gfn)) return 'ENOENT';
      this.unpinUserPage(process, gfn);
      return undefined;
    });
  }

  private withIommu(run: () => Errno | undefined): Errno | undefined {
    this.lock(this.iovaLock);
    const error = run();
    this.unlock(this.iovaLock);
    return error;
  }

  /** A load by code of the kernel, which has nobody to give a machine check to. */
  kernelLoad(frame: number, line: number): Exclude<Word, 'poison'> {
    const word = this.cpuLoad(frame, line);
    if (word !== 'poison') return word;
    throw new Gone(this.consume('kernel', frame));
  }

  /** fs/proc/kcore.c: read_kcore_iter() leaves out pages with PG_hwpoison. */
  readKcore(frame: number, line: number): Exclude<Word, 'poison'> {
    return this.isPageHwpoison(frame) ? 0n : this.kernelLoad(frame, line);
  }

  isPageHwpoison(frame: number): boolean {
    return this.hwpoison.has(frame);
  }

  /** A store by the host, of which the guest may have the page. */
  hostStore(frame: number, line: number, value: bigint, width: Width, via: HostWrite['via']): Errno | undefined {
    this.noteHostWrite(frame, line, via);
    if (via === 'dma') return this.deviceStore(frame, line, value, width);
    this.cpuStore(frame, line, value, width);
    return undefined;
  }

  private noteHostWrite(frame: number, line: number, via: HostWrite['via']): void {
    if (this.isGuestPage(frame)) this.hostWrites.push({ frame, line, via });
  }

  /** Poison was consumed: do_machine_check(), memory_failure(); or a core that is beyond that. */
  consume(by: Consumption['by'], frame: number): Outcome {
    const recoverable = !this.coreStops;
    const ended = by === 'guest' && recoverable ? 'guest' : 'machine';
    this.coreStops = false;
    this.consumptions.push({ by, ended, recoverable });
    if (!recoverable) return { kind: 'shutdown' };
    if (ended === 'guest') this.memoryFailure(frame);
    return { kind: 'machine-check', ends: ended };
  }

  /** mm/memory-failure.c: memory_failure() */
  memoryFailure(frame: number): void {
    this.hwpoison.add(frame);
  }
}
