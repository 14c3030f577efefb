/** Descriptors, struct file, and the page cache of inodes. Source: fs/file.c, fs/file_table.c, mm/filemap.c. */
import type { Label } from '../../model/core/state.ts';
import { DirectMap } from './direct-map.ts';
import type { Folio } from './frames.ts';
import { newLock, PART, Slab } from './kernel.ts';
import type { CachedPages, File, Inode } from './objects.ts';
import { RunMap } from './ranges.ts';

const samePages = (a: CachedPages, b: CachedPages): boolean =>
  a.delta === b.delta && a.uptodate === b.uptodate && a.shown === b.shown;

export interface CachedFolio extends Folio {
  readonly uptodate: boolean;
}

export abstract class Files extends DirectMap {
  readonly files = new Slab<File>();
  /** Inodes that exist. */
  readonly inodes = new Set<Inode>();
  /** Pages in page caches, of all inodes. */
  resident = 0;
  private readonly descriptors: (File | undefined)[] = [];
  private readonly numbers = new Map<Label, number>();
  private nextInode = 1;
  /** Files that the task under way has put the last reference to. */
  private taskWorks: File[] = [];

  /** The file's own release operation. */
  protected abstract releaseFile(file: File): void;
  /** address_space_operations.invalidate_folio(): the pages leave the page cache. */
  protected abstract invalidateFolio(folio: Folio): void;
  /** mm/memory.c: unmap_mapping_range(), in pages of the inode. */
  protected abstract unmapMappingRange(inode: Inode, start: number, end: number): void;

  /** get_unused_fd_flags() and fd_install(): the lowest free number. */
  fdInstall(label: Label, file: File): void {
    let number = this.descriptors.indexOf(undefined);
    if (number < 0) number = this.descriptors.length;
    this.descriptors[number] = file;
    this.numbers.set(label, number);
  }

  /** fget(), with -1 for a label that names no open descriptor. */
  fget(label: Label): File | undefined {
    const file = this.descriptors[this.numbers.get(label) ?? -1];
    if (file !== undefined) file.count++;
    return file;
  }

  /** fput(): the last reference lets the file go when the task returns to user space, with no lock held. */
  fput(file: File): void {
    if (--file.count === 0) this.taskWorks.push(file);
  }

  /** task_work_run(): runs a system call, and after it what the task has left for its return to user space. */
  protected withTaskWork<T>(call: () => T): T {
    const outer = this.taskWorks;
    this.taskWorks = [];
    try {
      const result = call();
      for (let file = this.taskWorks.shift(); file !== undefined; file = this.taskWorks.shift()) this.lastFput(file);
      return result;
    } finally {
      this.taskWorks = outer;
    }
  }

  /** ____fput() */
  private lastFput(file: File): void {
    this.handOver('fput');
    this.releaseFile(file);
    this.files.free(file);
    if ('inode' in file) this.iput(file.inode);
  }

  /** close_fd() */
  closeFd(label: Label): boolean {
    const number = this.numbers.get(label);
    const file = number === undefined ? undefined : this.descriptors[number];
    if (number === undefined || file === undefined) return false;
    this.descriptors[number] = undefined;
    this.numbers.delete(label);
    this.fput(file);
    return true;
  }

  /** get_file_active(): the file at an address, unless its last reference is gone. */
  getFileActive(address: number): File | undefined {
    const file = this.files.at(address);
    if (file.count === 0) return undefined;
    file.count++;
    return file;
  }

  newInode(label: Label, pages: number, flags: bigint): Inode {
    const inode: Inode = {
      label,
      number: this.nextInode++,
      pages,
      flags,
      count: 1,
      invalidateLock: newLock('invalidate_lock'),
      pageCache: new RunMap(samePages),
      mappings: new Set(),
      gmemFiles: new Set(),
    };
    this.inodes.add(inode);
    this.stale |= PART.FILES;
    return inode;
  }

  /** iput(): the last reference evicts the inode and frees its pages. */
  iput(inode: Inode): void {
    if (--inode.count > 0) return;
    this.truncateInodePagesRange(inode, 0, Number.MAX_SAFE_INTEGER);
    this.inodes.delete(inode);
    this.stale |= PART.FILES;
  }

  /** filemap_lock_folio(): the cached pages from `index` on, at most `max` of them, with a reference. */
  filemapGetFolio(inode: Inode, index: number, max: number): CachedFolio | undefined {
    const run = inode.pageCache.find(index);
    if (run === undefined) return undefined;
    const { delta, uptodate } = run.value;
    const folio = { frame: index + delta, count: Math.min(max, run.end - index), uptodate };
    this.folioGet(folio);
    return folio;
  }

  /** filemap_add_folio(): new pages, which hold what their frames held before. */
  filemapAddFolio(inode: Inode, index: number, folio: Folio): void {
    this.getFrames(folio.frame, folio.count);
    const pages = { delta: folio.frame - index, uptodate: false, shown: false };
    inode.pageCache.set(index, index + folio.count, pages);
    this.resident += folio.count;
    this.folioGet(folio);
  }

  /** folio_mark_uptodate() */
  folioMarkUptodate(inode: Inode, index: number, folio: Folio): void {
    for (const { start, end, value } of inode.pageCache.slice(index, index + folio.count))
      inode.pageCache.set(start, end, { delta: value.delta, uptodate: true, shown: value.shown });
  }

  /** Records which pages a guest or the host is given for the first time, and what they would read. */
  noteFirstTouch(inode: Inode, index: number, folio: Folio): void {
    if (inode.pageCache.get(index)?.shown !== false) return;
    this.stale |= PART.EVENTS;
    const dirty = this.framesWithContents(folio);
    // A long run is told by its first page and by those pages that do not read as zero.
    for (let at = 0; at < (folio.count > LONG_RUN ? 1 : folio.count); at++)
      if (!dirty.includes(folio.frame + at))
        this.firstTouches.push({ inode: inode.label, page: index + at, zero: true });
    for (const frame of dirty)
      this.firstTouches.push({ inode: inode.label, page: index + frame - folio.frame, zero: false });
    for (const { start, end, value } of inode.pageCache.slice(index, index + folio.count))
      inode.pageCache.set(start, end, { delta: value.delta, uptodate: value.uptodate, shown: true });
  }

  /** mm/truncate.c: truncate_inode_pages_range(), in whole pages. */
  truncateInodePagesRange(inode: Inode, start: number, end: number): void {
    for (const run of inode.pageCache.slice(start, end)) {
      this.unmapMappingRange(inode, run.start, run.end);
      this.deleteFromPageCache(inode, run.start, run.end, run.value.delta);
    }
  }

  /** mm/filemap.c: delete_from_page_cache_batch() */
  deleteFromPageCache(inode: Inode, start: number, end: number, delta: number): void {
    this.invalidateFolio({ frame: start + delta, count: end - start });
    inode.pageCache.delete(start, end);
    this.resident -= end - start;
    this.putFrames(start + delta, end - start);
  }
}

/** Longer runs are not told page by page. */
const LONG_RUN = 64;
