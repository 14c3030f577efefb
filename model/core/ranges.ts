/**
 * Sets and maps of page numbers as sorted, disjoint, half-open ranges. What they cost depends on how fragmented they
 * are, never on how many pages they span. Page numbers are integers below 2^53. All values are immutable.
 */

export interface Range {
  readonly start: number;
  /** First number past the range. */
  readonly end: number;
}

export const overlaps = (a: Range, b: Range): boolean => a.start < b.end && b.start < a.end;
export const contains = (outer: Range, inner: Range): boolean => outer.start <= inner.start && inner.end <= outer.end;

/** Ranges that neither overlap nor touch, in rising order. */
export type RangeSet = readonly Range[];

export const EMPTY: RangeSet = [];

/** Index of the first range that ends after `page`. */
function firstEndingAfter(set: readonly Range[], page: number): number {
  let low = 0;
  let high = set.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((set[middle] as Range).end > page) high = middle;
    else low = middle + 1;
  }
  return low;
}

export function has(set: RangeSet, page: number): boolean {
  const range = set[firstEndingAfter(set, page)];
  return range !== undefined && range.start <= page;
}

/** Whether every page of the range from `start` to `end` is in the set. */
export function covers(set: RangeSet, start: number, end: number): boolean {
  if (start >= end) return true;
  const range = set[firstEndingAfter(set, start)];
  return range !== undefined && range.start <= start && range.end >= end;
}

/** Whether any page of the range from `start` to `end` is in the set. */
export function intersects(set: RangeSet, start: number, end: number): boolean {
  if (start >= end) return false;
  const range = set[firstEndingAfter(set, start)];
  return range !== undefined && range.start < end;
}

export function add(set: RangeSet, start: number, end: number): RangeSet {
  if (start >= end || covers(set, start, end)) return set;
  const result: Range[] = [];
  let merged: Range = { start, end };
  let placed = false;
  for (const range of set) {
    if (range.end < merged.start) result.push(range);
    else if (range.start > merged.end) {
      if (!placed) result.push(merged);
      placed = true;
      result.push(range);
    } else merged = { start: Math.min(range.start, merged.start), end: Math.max(range.end, merged.end) };
  }
  if (!placed) result.push(merged);
  return result;
}

export function remove(set: RangeSet, start: number, end: number): RangeSet {
  if (!intersects(set, start, end)) return set;
  const result: Range[] = [];
  for (const range of set) {
    if (range.end <= start || range.start >= end) result.push(range);
    else {
      if (range.start < start) result.push({ start: range.start, end: start });
      if (range.end > end) result.push({ start: end, end: range.end });
    }
  }
  return result;
}

/** The parts of the range from `start` to `end` that are in the set. */
export function clip(set: RangeSet, start: number, end: number): RangeSet {
  const result: Range[] = [];
  for (let index = firstEndingAfter(set, start); index < set.length; index++) {
    const range = set[index] as Range;
    if (range.start >= end) break;
    result.push({ start: Math.max(range.start, start), end: Math.min(range.end, end) });
  }
  return result;
}

/** The set moved by `delta` pages. */
export const shift = (set: RangeSet, delta: number): RangeSet =>
  delta === 0 ? set : set.map(({ start, end }) => ({ start: start + delta, end: end + delta }));

export interface Span<T> extends Range {
  readonly value: T;
}

/** Values by range; ranges are disjoint and in rising order, and neighbours with the same value are merged. */
export type RangeMap<T> = readonly Span<T>[];

export function lookup<T>(map: RangeMap<T>, page: number): T | undefined {
  const span = map[firstEndingAfter(map, page)];
  return span !== undefined && span.start <= page ? span.value : undefined;
}

export function erase<T>(map: RangeMap<T>, start: number, end: number): RangeMap<T> {
  if (!intersects(map, start, end)) return map;
  const result: Span<T>[] = [];
  for (const span of map) {
    if (span.end <= start || span.start >= end) result.push(span);
    else {
      if (span.start < start) result.push({ start: span.start, end: start, value: span.value });
      if (span.end > end) result.push({ start: end, end: span.end, value: span.value });
    }
  }
  return result;
}

/** Gives the range from `start` to `end` the value; `same` says which values may share a span. */
export function assign<T>(
  map: RangeMap<T>,
  start: number,
  end: number,
  value: T,
  same: (a: T, b: T) => boolean,
): RangeMap<T> {
  if (start >= end) return map;
  const index = firstEndingAfter(map, start);
  const current = map[index];
  if (current !== undefined && current.start <= start && current.end >= end && same(current.value, value)) return map;
  const result: Span<T>[] = [];
  const push = (span: Span<T>): void => {
    const last = result[result.length - 1];
    if (last?.end === span.start && same(last.value, span.value))
      result[result.length - 1] = { start: last.start, end: span.end, value: last.value };
    else result.push(span);
  };
  let placed = false;
  for (const span of erase(map, start, end)) {
    if (!placed && span.start >= end) {
      push({ start, end, value });
      placed = true;
    }
    push(span);
  }
  if (!placed) push({ start, end, value });
  return result;
}
