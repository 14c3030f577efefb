/**
 * The guest keeps the ranges, in its own shared memory, and the host reads them when it wants to know. Source: thread of v2
 * "Add AMD SEV specific Hypercall3", January 2021: Steve Rutherford. Whatever the guest writes there may change while it
 * is read: count and entries are read once, and what was read is checked.
 */
import type { RunMap } from '../ranges.ts';
import { isCanonical, type Range, type Reading, type StatusRecord } from './record.ts';

/** What the host has to remember: where the structure is, and how many entries it has. */
const HOST_BYTES = 16;
const U32_MAX = 0xffff_ffff;

/** A header, and so many entries behind it. */
export class Structure {
  readonly capacity: number;
  /** The header: how many entries count, and whether there would be more. */
  count = 0;
  isIncomplete = false;
  /** base and limit of each. */
  private words: number[] = [];
  /** The entries are those that write() has put there. A guest that wrote others does not mend them. */
  private isIntact = true;
  /** The guest changes the count as soon as it was read. */
  private isRacing = false;
  private wasCountRead = false;
  private readonly onOutside: (what: string) => void;

  constructor(capacity: number, onOutside: (what: string) => void) {
    this.capacity = capacity;
    this.onOutside = onOutside;
  }

  /** What is in memory, in another place. */
  copy(): Structure {
    const copy = new Structure(this.capacity, this.onOutside);
    copy.words = [...this.words];
    copy.count = this.count;
    copy.isIncomplete = this.isIncomplete;
    copy.isIntact = this.isIntact;
    copy.isRacing = this.isRacing;
    return copy;
  }

  /**
   * The guest writes what it shares, of which the first `known` ranges are there already. What does not fit is left out,
   * and the header says so for good. Returns how many entries were written.
   */
  write(ranges: readonly Range[], known: number): number {
    this.isIncomplete ||= ranges.length > this.capacity;
    if (this.isIncomplete || !this.isIntact) return 0;
    for (let index = known; index < ranges.length; index++) {
      const { start, end } = ranges[index] as Range;
      this.words[2 * index] = start;
      this.words[2 * index + 1] = end;
    }
    this.count = ranges.length;
    return ranges.length - known;
  }

  /** The guest writes anything else. */
  scribble(entries: readonly Range[], count = entries.length): void {
    this.words = entries.flatMap(({ start, end }) => [start, end]);
    this.count = count;
    this.isIntact = false;
  }

  race(): void {
    this.isRacing = true;
  }

  readCount(): number {
    if (this.isRacing && this.wasCountRead) return U32_MAX;
    this.wasCountRead = true;
    return this.count;
  }

  readEntry(index: number): Range {
    if (index >= this.capacity) this.onOutside(`the guest's structure: entry ${index} of ${this.capacity}`);
    return { start: this.words[2 * index] ?? 0, end: this.words[2 * index + 1] ?? 0 };
  }

  /** The host has read what it wanted. */
  endRead(): void {
    this.isRacing = false;
    this.wasCountRead = false;
  }
}

/** Index of the first range that ends there or behind. */
function firstEndingFrom(ranges: readonly Range[], frame: number): number {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ranges[middle] as Range).end < frame) low = middle + 1;
    else high = middle;
  }
  return low;
}

export class GuestDonation implements StatusRecord {
  steps = 0;
  /** Entries that the guest has written: work of its own, which the host does not do. */
  written = 0;
  structure: Structure | undefined;
  private readonly pageTables: RunMap<true>;

  constructor(pageTables: RunMap<true>) {
    this.pageTables = pageTables;
  }

  get units(): number {
    return this.structure?.capacity ?? 0;
  }

  get bytes(): number {
    return HOST_BYTES;
  }

  /** The guest writes behind a change of its page tables, and the host hears nothing of it. */
  note(start: number): true {
    const { all } = this.pageTables;
    this.written += this.structure?.write(all, firstEndingFrom(all, start)) ?? 0;
    return true;
  }

  read(): Reading {
    const reading = this.readFrom(this.structure);
    this.structure?.endRead();
    return reading;
  }

  peek(): Reading {
    const { steps } = this;
    const reading = this.readFrom(this.structure?.copy());
    this.steps = steps;
    return reading;
  }

  private readFrom(structure: Structure | undefined): Reading {
    if (structure === undefined) return this.pageTables.all.length === 0 ? [] : 'not-yet';
    if (structure.isIncomplete) return 'broken';
    const count = structure.readCount();
    if (count > structure.capacity) return 'broken';
    const ranges = this.copyEntries(structure, count);
    return this.isGood(ranges) ? ranges : 'broken';
  }

  protected isGood(ranges: readonly Range[]): boolean {
    return isCanonical(ranges);
  }

  protected copyEntries(structure: Structure, count: number): readonly Range[] {
    this.steps += count;
    return Array.from({ length: count }, (_entry, index) => structure.readEntry(index));
  }

  has(frame: number): ReturnType<StatusRecord['has']> {
    const reading = this.read();
    return typeof reading === 'string' ? reading : reading.some(({ start, end }) => start <= frame && frame < end);
  }

  drop(): void {
    // The host has nothing of its own.
  }

  resize(): void {
    // What the guest gave does not grow.
  }
}
