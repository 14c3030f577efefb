/** What the four designs have in common: the record of which frames of one guest are shared. */
import type { Range } from '../../../model/core/ranges.ts';

export type { Range };

/** Guest frames are numbered below this. */
export const FRAMES = 2 ** 40;

/**
 * Ranges that are sorted, disjoint, not adjacent and not empty; `broken` where they are not, or not all; `not-yet` where
 * nobody has said where they are.
 */
export type Reading = readonly Range[] | 'broken' | 'not-yet';

export interface StatusRecord {
  /** What the VMM allows the host to spend: ranges, words of 64 pages, or entries that the guest gave. */
  readonly units: number;
  /** Bytes that the host holds. */
  readonly bytes: number;
  /** Nodes and elements that were visited, words that were written, entries that were read, since it was made. */
  readonly steps: number;
  /** Notes that the frames are shared, or are not. False, and nothing is noted, where that takes more units than there are. */
  note(start: number, end: number, shared: boolean): boolean;
  /** All of it, for user space. */
  read(): Reading;
  /** What read() would tell, without doing it. */
  peek(): Reading;
  /** Whether one frame is shared. */
  has(frame: number): boolean | Exclude<Reading, readonly Range[]>;
  /** Forgets everything. */
  drop(): void;
  /** The guest has so many frames of memory now. */
  resize(frames: number): void;
}

/** Whether a reader may count on the ranges. */
export function isCanonical(ranges: readonly Range[]): boolean {
  let before = -1;
  for (const { start, end } of ranges) {
    if (start <= before || end <= start || end > FRAMES) return false;
    before = end;
  }
  return true;
}
