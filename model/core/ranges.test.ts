import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  add,
  assign,
  clip,
  contains,
  covers,
  EMPTY,
  erase,
  has,
  intersects,
  lookup,
  overlaps,
  remove,
  shift,
  type RangeMap,
  type RangeSet,
} from './ranges.ts';

const PAGES = 48;
const page = fc.nat({ max: PAGES - 1 });
/** Empty and backward ranges too. */
const range = fc.record({ start: page, end: page });
const numbers = (start: number, end: number): number[] =>
  Array.from({ length: Math.max(end - start, 0) }, (_each, index) => start + index);

const edits = fc.array(fc.record({ adds: fc.boolean(), start: page, end: page }), { maxLength: 20 });

/** The same edits on ranges and on a plain set of numbers. */
function edited(list: readonly { adds: boolean; start: number; end: number }[]): [RangeSet, Set<number>] {
  let ranges: RangeSet = EMPTY;
  const plain = new Set<number>();
  for (const { adds, start, end } of list) {
    ranges = adds ? add(ranges, start, end) : remove(ranges, start, end);
    for (const each of numbers(start, end))
      if (adds) plain.add(each);
      else plain.delete(each);
  }
  return [ranges, plain];
}

const membersOf = (set: RangeSet): number[] => set.flatMap(({ start, end }) => numbers(start, end));
const sorted = (set: Iterable<number>): number[] => [...set].sort((a, b) => a - b);

describe('a range set', () => {
  it('holds what a plain set of numbers holds after the same edits', () => {
    fc.assert(
      fc.property(edits, (list) => {
        const [ranges, plain] = edited(list);
        expect(membersOf(ranges)).toEqual(sorted(plain));
      }),
    );
  });

  it('is sorted, disjoint, without neighbours that touch, and without empty ranges', () => {
    fc.assert(
      fc.property(edits, (list) => {
        const [ranges] = edited(list);
        ranges.forEach(({ start, end }, index) => {
          expect(start).toBeLessThan(end);
          expect(start).toBeGreaterThan(ranges[index - 1]?.end ?? -1);
        });
      }),
    );
  });

  it('answers as a plain set does', () => {
    fc.assert(
      fc.property(edits, range, (list, { start, end }) => {
        const [ranges, plain] = edited(list);
        const asked = numbers(start, end);
        expect(has(ranges, start)).toBe(plain.has(start));
        expect(covers(ranges, start, end)).toBe(asked.every((each) => plain.has(each)));
        expect(intersects(ranges, start, end)).toBe(asked.some((each) => plain.has(each)));
        expect(membersOf(clip(ranges, start, end))).toEqual(asked.filter((each) => plain.has(each)));
      }),
    );
  });

  it('stays the same object where an edit changes nothing, and is never changed in place', () => {
    fc.assert(
      fc.property(edits, range, (list, { start, end }) => {
        const [ranges, plain] = edited(list);
        const before = JSON.stringify(ranges);
        const [grown, shrunk] = [add(ranges, start, end), remove(ranges, start, end)];
        const asked = numbers(start, end);
        expect(grown === ranges).toBe(asked.every((each) => plain.has(each)));
        expect(shrunk === ranges).toBe(!asked.some((each) => plain.has(each)));
        expect(JSON.stringify(ranges)).toBe(before);
      }),
    );
  });

  it('moves as a whole', () => {
    expect(shift([{ start: 1, end: 3 }], 4)).toEqual([{ start: 5, end: 7 }]);
    const set = [{ start: 1, end: 3 }];
    expect(shift(set, 0)).toBe(set);
  });

  it('costs what its fragments cost, at the far end of the number range too', () => {
    const last = Number.MAX_SAFE_INTEGER;
    expect(remove(add(EMPTY, 0, last), 5, last - 1)).toEqual([
      { start: 0, end: 5 },
      { start: last - 1, end: last },
    ]);
  });
});

describe('two ranges', () => {
  it('overlap where they share a number, and one contains the other where it has all of its numbers', () => {
    const nonEmpty = range.filter(({ start, end }) => start < end);
    fc.assert(
      fc.property(nonEmpty, nonEmpty, (a, b) => {
        const [mine, theirs] = [numbers(a.start, a.end), numbers(b.start, b.end)];
        expect(overlaps(a, b)).toBe(mine.some((each) => theirs.includes(each)));
        expect(contains(a, b)).toBe(theirs.every((each) => mine.includes(each)));
      }),
    );
  });
});

describe('a range map', () => {
  const same = (a: string, b: string): boolean => a === b;
  const edit = fc.record({ start: page, end: page, value: fc.constantFrom('a', 'b', undefined) });

  it('holds what a plain map holds after the same edits, in spans as long as can be', () => {
    fc.assert(
      fc.property(fc.array(edit, { maxLength: 20 }), (list) => {
        let spans: RangeMap<string> = [];
        const plain = new Map<number, string>();
        for (const { start, end, value } of list) {
          spans = value === undefined ? erase(spans, start, end) : assign(spans, start, end, value, same);
          for (const each of numbers(start, end))
            if (value === undefined) plain.delete(each);
            else plain.set(each, value);
        }
        for (const each of numbers(0, PAGES)) expect(lookup(spans, each)).toBe(plain.get(each));
        spans.forEach((span, index) => {
          const before = spans[index - 1];
          expect(span.start).toBeLessThan(span.end);
          expect(span.start).toBeGreaterThanOrEqual(before?.end ?? 0);
          expect(before?.end === span.start && before.value === span.value).toBe(false);
        });
      }),
    );
  });

  it('stays the same object where an edit changes nothing', () => {
    const spans = assign([], 2, 8, 'a', same);
    expect(assign(spans, 3, 5, 'a', same)).toBe(spans);
    expect(assign(spans, 5, 5, 'b', same)).toBe(spans);
    expect(erase(spans, 8, 20)).toBe(spans);
  });
});
