/** Physical memory: page frames with contents and reference counts, and the page allocator. */
import { Kernel, PART } from './kernel.ts';
import { RunMap } from './ranges.ts';

/** Frames that follow one another and are treated as one folio. */
export interface Folio {
  readonly frame: number;
  readonly count: number;
}

export abstract class Frames extends Kernel {
  /** References that page caches and page tables hold, by frame; absent where there is none. */
  readonly references = new RunMap<number>();
  /** References on the way: taken with a folio and to be put again before the operation ends. By head frame. */
  readonly pins = new Map<number, number>();
  /** Frames with a memory failure. The reference that memory_failure() keeps on them is not counted. */
  readonly poisoned = new Set<number>();
  /** Free frames that have been in use, most recently freed last. */
  readonly freeRuns: Folio[] = [];
  /** Words that are not zero, by frame and by index within it; absent where there is none. */
  private readonly contents = new Map<number, Map<number, bigint>>();
  /** Frames from here on have never been in use. There is no end: memory for pages does not run out. */
  private firstUnused = 0;
  /** Number of frames with references. */
  referenced = 0;

  /** mm/page_alloc.c: alloc_pages(). Up to `count` frames in a row; the most recently freed ones first. */
  allocFrames(count: number): Folio {
    const top = this.freeRuns.at(-1);
    if (top === undefined) {
      const frame = this.firstUnused;
      this.firstUnused += count;
      return { frame, count };
    }
    this.stale |= PART.FREE;
    this.freeRuns.pop();
    if (top.count <= count) return top;
    const left = top.count - count;
    this.freeRuns.push({ frame: top.frame, count: left });
    return { frame: top.frame + left, count };
  }

  /** mm/page_alloc.c: free_pages_prepare() keeps poisoned frames away from the free list. Contents stay as they are. */
  freeFrames(frame: number, count: number): void {
    this.stale |= PART.FREE;
    let from = frame;
    for (const bad of [...this.poisoned].sort((a, b) => a - b)) {
      if (bad < from || bad >= frame + count) continue;
      if (bad > from) this.freeRuns.push({ frame: from, count: bad - from });
      from = bad + 1;
    }
    if (from < frame + count) this.freeRuns.push({ frame: from, count: frame + count - from });
  }

  /** folio_ref_add() for each of the frames. */
  getFrames(frame: number, count: number): void {
    this.stale |= PART.RESIDENT;
    const end = frame + count;
    const known = count === 1 ? this.references.get(frame) : undefined;
    if (known !== undefined) {
      this.references.set(frame, end, known + 1);
      return;
    }
    for (const gap of this.references.gaps(frame, end)) this.referenced += gap.end - gap.start;
    const held = this.references.slice(frame, end);
    this.references.set(frame, end, 1);
    for (const run of held) this.references.set(run.start, run.end, run.value + 1);
  }

  /** folio_put() for each of the frames: the last reference frees it. */
  putFrames(frame: number, count: number): void {
    this.stale |= PART.RESIDENT;
    for (const run of this.references.slice(frame, frame + count)) {
      if (run.value > 1) {
        this.references.set(run.start, run.end, run.value - 1);
        continue;
      }
      this.references.delete(run.start, run.end);
      this.referenced -= run.end - run.start;
      this.freeUnpinned(run.start, run.end);
    }
  }

  private freeUnpinned(start: number, end: number): void {
    let from = start;
    for (const pinned of [...this.pins.keys()].sort((a, b) => a - b)) {
      if (pinned < from || pinned >= end) continue;
      if (pinned > from) this.freeFrames(from, pinned - from);
      from = pinned + 1;
    }
    if (from < end) this.freeFrames(from, end - from);
  }

  /** folio_get() */
  folioGet(folio: Folio): void {
    this.pins.set(folio.frame, (this.pins.get(folio.frame) ?? 0) + 1);
  }

  /** folio_put() */
  folioPut(folio: Folio): void {
    const pins = this.pins.get(folio.frame) ?? 0;
    if (pins > 1) {
      this.pins.set(folio.frame, pins - 1);
      return;
    }
    this.pins.delete(folio.frame);
    if (this.references.get(folio.frame) === undefined) this.freeFrames(folio.frame, 1);
  }

  /** include/linux/highmem.h: clear_highpage(), for each frame of the folio. */
  clearHighpage(folio: Folio): void {
    for (const frame of this.framesWithContents(folio)) this.contents.delete(frame);
  }

  /** The frames of the folio that do not read as zero. */
  framesWithContents({ frame, count }: Folio): number[] {
    if (count === 1) return this.contents.has(frame) ? [frame] : [];
    return [...this.contents.keys()].filter((each) => each >= frame && each < frame + count);
  }

  readWord(frame: number, word: number): bigint {
    return this.contents.get(frame)?.get(word) ?? 0n;
  }

  writeWord(frame: number, word: number, value: bigint): void {
    let words = this.contents.get(frame);
    if (words === undefined) this.contents.set(frame, (words = new Map<number, bigint>()));
    if (value === 0n) words.delete(word);
    else words.set(word, value);
    if (words.size === 0) this.contents.delete(frame);
  }
}
