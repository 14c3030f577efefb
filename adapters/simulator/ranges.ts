/**
 * A map from integers to values that keeps equal neighbours as one run, so that a terabyte costs what its fragmentation
 * costs. Page tables, page caches, xarrays and reference counts of the simulator are kept in it.
 */

export interface Run<V> {
  readonly start: number;
  /** First number past the run. */
  readonly end: number;
  readonly value: V;
}

export class RunMap<V> {
  private readonly runs: Run<V>[] = [];
  private readonly same: (a: V, b: V) => boolean;

  /** `same` says which values may share a run. */
  constructor(same: (a: V, b: V) => boolean = Object.is) {
    this.same = same;
  }

  /** Sorted and disjoint; valid until the next change. */
  get all(): readonly Run<V>[] {
    return this.runs;
  }

  find(key: number): Run<V> | undefined {
    const run = this.runs[this.firstEndingAfter(key)];
    return run !== undefined && run.start <= key ? run : undefined;
  }

  get(key: number): V | undefined {
    return this.find(key)?.value;
  }

  /** Copies of the runs within [start, end), cut to it; later changes of the map do not show in them. */
  slice(start: number, end: number): Run<V>[] {
    const found: Run<V>[] = [];
    for (let at = this.firstEndingAfter(start); ; at++) {
      const run = this.runs[at];
      if (run === undefined || run.start >= end) break;
      const whole = run.start >= start && run.end <= end;
      found.push(whole ? run : { start: Math.max(run.start, start), end: Math.min(run.end, end), value: run.value });
    }
    return found;
  }

  /** The ranges within [start, end) that hold nothing. */
  gaps(start: number, end: number): { readonly start: number; readonly end: number }[] {
    const found: { start: number; end: number }[] = [];
    let from = start;
    for (const run of this.slice(start, end)) {
      if (run.start > from) found.push({ start: from, end: run.start });
      from = run.end;
    }
    if (from < end) found.push({ start: from, end });
    return found;
  }

  /** First number from `key` on that holds something, or `limit`. */
  nextFilled(key: number, limit: number): number {
    const run = this.runs[this.firstEndingAfter(key)];
    return run === undefined ? limit : Math.min(limit, Math.max(key, run.start));
  }

  set(start: number, end: number, value: V): void {
    let first = this.firstEndingAfter(start);
    let last = this.firstStartingFrom(end, first);
    const before = this.runs[first - 1];
    if (before?.end === start && this.same(before.value, value)) first--;
    const after = this.runs[last];
    if (after?.start === end && this.same(after.value, value)) last++;
    this.replace(first, last, start, end, { start, end, value });
  }

  /** Whether anything was there. */
  delete(start: number, end: number): boolean {
    const first = this.firstEndingAfter(start);
    const last = this.firstStartingFrom(end, first);
    if (first === last) return false;
    this.replace(first, last, start, end, undefined);
    return true;
  }

  clear(): void {
    this.runs.length = 0;
  }

  /** Puts `filling` in the place of [start, end), which the runs from `first` to before `last` overlap or touch. */
  private replace(first: number, last: number, start: number, end: number, filling: Run<V> | undefined): void {
    const pieces: Run<V>[] = [];
    let middle = filling;
    const head = this.runs[first];
    const tail = last > first ? this.runs[last - 1] : undefined;
    if (tail !== undefined && head !== undefined && head.start < start) {
      if (middle !== undefined && this.same(head.value, middle.value)) middle = { ...middle, start: head.start };
      else pieces.push({ start: head.start, end: start, value: head.value });
    }
    let rest: Run<V> | undefined;
    if (tail !== undefined && tail.end > end) {
      if (middle !== undefined && this.same(tail.value, middle.value)) middle = { ...middle, end: tail.end };
      else rest = { start: end, end: tail.end, value: tail.value };
    }
    if (middle !== undefined) pieces.push(middle);
    if (rest !== undefined) pieces.push(rest);
    if (pieces.length === 1 && last - first === 1 && middle !== undefined) this.runs[first] = middle;
    else this.runs.splice(first, last - first, ...pieces);
  }

  private firstEndingAfter(key: number): number {
    const { runs } = this;
    let low = 0;
    let high = runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const run = runs[middle];
      if (run !== undefined && run.end <= key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private firstStartingFrom(key: number, from: number): number {
    for (let at = from; ; at++) {
      const run = this.runs[at];
      if (run === undefined || run.start >= key) return at;
    }
  }
}
