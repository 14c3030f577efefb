import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { RunMap } from './ranges.ts';

const SIZE = 40;

const change = fc.record({
  start: fc.nat(SIZE),
  length: fc.integer({ min: 1, max: 12 }),
  value: fc.option(fc.nat(2), { nil: undefined }),
});

describe('a map of runs', () => {
  it('holds what a plain table holds, in as few runs as can be', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), fc.nat(SIZE), (changes, from) => {
        const map = new RunMap<number>();
        const table: (number | undefined)[] = Array.from({ length: SIZE + 12 }, () => undefined);
        for (const { start, length, value } of changes) {
          const end = start + length;
          const filled = table.slice(start, end).some((each) => each !== undefined);
          if (value !== undefined) map.set(start, end, value);
          else if (map.delete(start, end) !== filled) throw new Error('delete() is wrong about what was there');
          table.fill(value, start, end);
        }
        expect(table.map((_value, key) => map.get(key))).toEqual(table);
        map.all.slice(1).forEach((run, index) => {
          const before = map.all[index];
          expect(before?.end).toBeLessThanOrEqual(run.start);
          expect(before?.end === run.start && before.value === run.value).toBe(false);
        });
        const next = table.findIndex((value, key) => key >= from && value !== undefined);
        expect(map.nextFilled(from, SIZE + 12)).toBe(next < 0 ? SIZE + 12 : next);
        const outside = map.gaps(from, SIZE).flatMap(({ start, end }) => table.slice(start, end));
        expect(outside.every((each) => each === undefined)).toBe(true);
        const inside = map.slice(from, SIZE).reduce((sum, { start, end }) => sum + end - start, 0);
        expect(inside + outside.length).toBe(SIZE - from);
      }),
    );
  });
});
