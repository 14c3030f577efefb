/** The address space of the host process: mappings, user page tables, and their reverse map. Source: mm/. */
import { PAGE_SHIFT, wrap64 } from '../../model/core/abi.ts';
import type { Config } from '../../model/core/profile.ts';
import type { Address, Label } from '../../model/core/state.ts';
import { Files } from './files.ts';
import type { Folio } from './frames.ts';
import { newLock, PART } from './kernel.ts';
import { HWPOISON_ENTRY, type AnonymousFile, type GmemFile, type Inode, type Pte, type Vma } from './objects.ts';
import { RunMap } from './ranges.ts';

export const ARENA = 'arena';
export const ARENA_PAGES = 64;

/** The bits of vm_fault_t that a fault can fail with here. */
export type VmFault = 'VM_FAULT_SIGBUS' | 'VM_FAULT_HWPOISON' | 'VM_FAULT_OOM';

/** Virtual pages below this one are not given out, and as many stay free between two mappings. */
const GAP = 512;

export abstract class Mm extends Files {
  readonly mmapLock = newLock('mmap_lock');
  /** Mappings that exist, by label. */
  readonly vmas = new Map<Label, Vma>();
  /** First virtual page of every mapping that ever was; addresses are not used again. */
  private readonly addresses = new Map<Label, number>();
  private nextPage = GAP;

  constructor(config: Config) {
    super(config);
    this.mapArena();
  }

  /** Whether get_user_pages() gives out no page of the inode, though the process has them. */
  abstract gupRefuses(inode: Inode): boolean;
  /** A fault handler of the mapped file: up to `max` pages, with a reference. */
  protected abstract faultUserMapping(vma: Vma, page: number, max: number): Folio | VmFault;
  /** include/linux/mmu_notifier.h, in virtual pages. */
  protected abstract mmuNotifierInvalidateRangeStart(start: number, end: number): void;
  protected abstract mmuNotifierInvalidateRangeEnd(start: number, end: number): void;

  /** mmap(NULL, 64 pages, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE) before the program starts. */
  private mapArena(): void {
    const inode = this.newInode(ARENA, ARENA_PAGES, 0n);
    const file = this.files.allocate<AnonymousFile>((address) => ({
      address,
      kind: 'anonymous',
      label: ARENA,
      count: 1,
      inode,
    }));
    const folio = this.allocFrames(ARENA_PAGES);
    this.filemapAddFolio(inode, 0, folio);
    this.noteFirstTouch(inode, 0, folio);
    this.firstTouches.length = 0;
    const vma = this.mmapRegion(ARENA, file, 0, ARENA_PAGES);
    if (vma !== undefined) this.setPtes(vma, 0, folio);
    this.folioPut(folio);
    this.fput(file);
  }

  /** mm/vma.c: mmap_region(); undefined where no gap is left that is long enough. */
  mmapRegion(label: Label, file: GmemFile | AnonymousFile, pgoff: number, pages: number): Vma | undefined {
    const start = this.nextPage;
    if (start + pages > Number(this.config.machine.userTop >> PAGE_SHIFT)) return undefined;
    this.nextPage = start + pages + GAP;
    const vma: Vma = { label, file, start, pages, pgoff, ptes: new RunMap<Pte>() };
    file.count++;
    file.inode.mappings.add(vma);
    this.vmas.set(label, vma);
    this.addresses.set(label, start);
    this.stale |= PART.USER;
    return vma;
  }

  /** mm/vma.c: do_vmi_munmap() */
  munmap(vma: Vma): void {
    const end = vma.start + vma.pages;
    this.mmuNotifierInvalidateRangeStart(vma.start, end);
    this.zapPtes(vma, 0, vma.pages);
    this.mmuNotifierInvalidateRangeEnd(vma.start, end);
    this.vmas.delete(vma.label);
    vma.file.inode.mappings.delete(vma);
    this.stale |= PART.USER;
    this.fput(vma.file);
  }

  /** mmap_read_lock(): no mapping comes or goes meanwhile. */
  withMappings<T>(run: () => T): T {
    this.lockShared(this.mmapLock);
    const result = run();
    this.unlockShared(this.mmapLock);
    return result;
  }

  /** The number behind an address. A label that was never mapped stands for NULL. */
  resolve({ base, offset }: Address): bigint {
    return wrap64((BigInt(this.addresses.get(base) ?? 0) << PAGE_SHIFT) + offset);
  }

  /** vma_lookup() */
  vmaLookup(page: number): Vma | undefined {
    for (const vma of this.vmas.values()) if (page >= vma.start && page < vma.start + vma.pages) return vma;
    return undefined;
  }

  /** mm/gup.c: get_user_pages(): as below, but for mappings that are nobody's affair but the process's. */
  getUserPages(page: number, max: number): Folio | VmFault | undefined {
    // check_vma_flags()
    const file = this.vmaLookup(page)?.file;
    const isRefused = file !== undefined && (file.kind === 'secret' || this.gupRefuses(file.inode));
    return isRefused ? 'VM_FAULT_SIGBUS' : this.getUserPage(page, max);
  }

  /** What a process has behind a virtual page, with a reference; undefined where nothing is mapped. */
  getUserPage(page: number, max: number): Folio | VmFault | undefined {
    return this.withMappings(() => {
      const vma = this.vmaLookup(page);
      if (vma === undefined) return undefined;
      const folio = this.handleMmFault(vma, page - vma.start, max);
      if (typeof folio !== 'string') this.folioGet(folio);
      return folio;
    });
  }

  /** mm/memory.c: handle_mm_fault(). What is behind a page of the mapping, and behind up to `max` pages from it on. */
  handleMmFault(vma: Vma, page: number, max: number): Folio | VmFault {
    const run = vma.ptes.find(page);
    if (run !== undefined) {
      if (run.value === HWPOISON_ENTRY) return 'VM_FAULT_HWPOISON';
      return { frame: page + run.value, count: Math.min(max, run.end - page) };
    }
    const hole = vma.ptes.nextFilled(page, vma.pages) - page;
    const most = Math.min(max, hole);
    const folio = vma.file.kind === 'gmem' ? this.faultUserMapping(vma, page, most) : this.anonymousFault(vma, page);
    if (typeof folio === 'string') return folio;
    // __do_fault()
    if (this.poisoned.has(folio.frame)) {
      this.folioPut(folio);
      return 'VM_FAULT_HWPOISON';
    }
    this.setPtes(vma, page, folio);
    this.folioPut(folio);
    return folio;
  }

  /** mm/shmem.c: shmem_fault(), mm/secretmem.c: secretmem_fault(). No mapping is longer than its file. */
  private anonymousFault({ file: { inode }, pgoff }: Vma, page: number): Folio {
    const index = pgoff + page;
    const run = inode.pageCache.find(index);
    if (run !== undefined) {
      const folio = { frame: index + run.value.delta, count: 1 };
      this.folioGet(folio);
      return folio;
    }
    const folio = this.allocFrames(1);
    this.clearHighpage(folio);
    this.filemapAddFolio(inode, index, folio);
    this.noteFirstTouch(inode, index, folio);
    return folio;
  }

  setPtes(vma: Vma, page: number, folio: Folio): void {
    vma.ptes.set(page, page + folio.count, folio.frame - page);
    this.getFrames(folio.frame, folio.count);
    this.stale |= PART.USER;
  }

  /** mm/memory.c: zap_page_range_single(). Poison entries go only with the mapping itself. */
  zapPtes(vma: Vma, start: number, end: number): void {
    for (const run of vma.ptes.slice(start, end)) {
      if (run.value === HWPOISON_ENTRY) continue;
      vma.ptes.delete(run.start, run.end);
      this.putFrames(run.start + run.value, run.end - run.start);
      this.stale |= PART.USER;
    }
  }

  /** mm/memory.c: unmap_mapping_folio(), which does nothing for pages that no entry maps. */
  protected override unmapMappingRange(inode: Inode, start: number, end: number): void {
    for (const vma of inode.mappings) {
      const first = Math.max(start - vma.pgoff, 0);
      const past = Math.min(end - vma.pgoff, vma.pages);
      if (first >= past) continue;
      for (const run of vma.ptes.slice(first, past)) {
        if (run.value === HWPOISON_ENTRY) continue;
        this.mmuNotifierInvalidateRangeStart(vma.start + run.start, vma.start + run.end);
        this.zapPtes(vma, run.start, run.end);
        this.mmuNotifierInvalidateRangeEnd(vma.start + run.start, vma.start + run.end);
      }
    }
  }

  /**
   * mm/memory-failure.c: unmap_poisoned_folio(). The entries that it leaves behind outlive the page: they do not map it,
   * so that truncating it does not find them.
   */
  unmapPoisonedFolio(inode: Inode, index: number, folio: Folio): void {
    for (const vma of inode.mappings) {
      const page = index - vma.pgoff;
      if (vma.ptes.get(page) !== folio.frame - page) continue;
      this.mmuNotifierInvalidateRangeStart(vma.start + page, vma.start + page + 1);
      this.zapPtes(vma, page, page + 1);
      vma.ptes.set(page, page + 1, HWPOISON_ENTRY);
      this.mmuNotifierInvalidateRangeEnd(vma.start + page, vma.start + page + 1);
    }
  }
}
