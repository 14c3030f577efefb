import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { U64_MAX } from '../core/abi.ts';
import {
  announced,
  announcementOf,
  EMPTY_RECORD,
  FRAMES,
  flawOf,
  MARKED_RECORD,
  notCanonical,
  recorded,
  type Announcement,
} from './shared-set.ts';

const SMALL = 24;

const announcement: fc.Arbitrary<Announcement> = fc
  .record({ start: fc.nat(SMALL - 1), pages: fc.integer({ min: 1, max: 6 }), private: fc.boolean() })
  .map(({ start, pages, private: isPrivate }) => ({ start, end: Math.min(start + pages, SMALL), private: isPrivate }));

/** The same, a page at a time. */
function pageByPage(announcements: readonly Announcement[]): readonly number[] {
  const shared = new Set<number>();
  for (const { start, end, private: isPrivate } of announcements)
    for (let page = start; page < end; page++)
      if (isPrivate) shared.delete(page);
      else shared.add(page);
  return [...shared].sort((a, b) => a - b);
}

describe('announcements', () => {
  it('make the set that they make page by page, and it is canonical', () => {
    fc.assert(
      fc.property(fc.array(announcement), (all) => {
        const ranges = all.reduce(announced, EMPTY_RECORD.ranges);
        expect(ranges.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, at) => start + at))).toEqual(
          pageByPage(all),
        );
        expect(notCanonical(ranges)).toBeUndefined();
      }),
    );
  });

  it('leave the very same set where they say nothing new', () => {
    const ranges = announced(EMPTY_RECORD.ranges, { start: 3, end: 6, private: false });
    expect(announced(ranges, { start: 4, end: 6, private: false })).toBe(ranges);
    expect(announced(ranges, { start: 6, end: 9, private: true })).toBe(ranges);
  });

  it.each([
    [1n, 1n, 0n, 'unaligned'],
    [0n, 0n, 0n, 'no-pages'],
    [0x1000n, U64_MAX, 0n, 'wraps'],
    [0n, U64_MAX, 0n, 'past-the-end'],
    [U64_MAX & ~0xfffn, 1n, 0n, 'past-the-end'],
    [0n, BigInt(FRAMES) + 1n, 0n, 'past-the-end'],
    [0n, 1n, 0x20n, 'reserved-attributes'],
    [1n, 0n, 0x20n, 'unaligned'],
  ] as const)('at %s, of %s pages and with attributes %s, are refused: %s', (gpa, pages, attributes, flaw) => {
    expect(flawOf(gpa, pages, attributes)).toBe(flaw);
  });

  it('reach the last frame, and have a page size that says nothing', () => {
    expect(flawOf(0n, BigInt(FRAMES), 0x1fn)).toBeUndefined();
    expect(flawOf(BigInt(FRAMES - 1) << 12n, 1n, 0n)).toBeUndefined();
    expect(announcementOf(BigInt(FRAMES - 2) << 12n, 2n, 0x12n)).toEqual({
      start: FRAMES - 2,
      end: FRAMES,
      private: true,
    });
  });
});

describe('a record', () => {
  it('is the announced set, or incomplete from the first announcement on that it had no room for', () => {
    fc.assert(
      fc.property(fc.array(announcement), fc.nat(4), (all, ranges) => {
        let [shared, record, isOver] = [EMPTY_RECORD.ranges, EMPTY_RECORD, false];
        for (const each of all) {
          shared = announced(shared, each);
          record = recorded(record, each, { ranges });
          isOver ||= shared.length > ranges;
          expect(record).toEqual(isOver ? MARKED_RECORD : { ranges: shared, incomplete: false });
        }
      }),
    );
  });

  it('of a bitmap has room for what ends within it, and takes what is private anywhere', () => {
    const within = recorded(EMPTY_RECORD, { start: 6, end: 8, private: false }, { frames: 8 });
    expect(within.incomplete).toBe(false);
    expect(recorded(within, { start: 8, end: 99, private: true }, { frames: 8 })).toBe(within);
    expect(recorded(within, { start: 7, end: 9, private: false }, { frames: 8 })).toBe(MARKED_RECORD);
  });
});

describe('ranges', () => {
  it.each([
    [[{ start: 4, end: 4 }], /empty/],
    [[{ start: 5, end: 4 }], /empty/],
    [[{ start: 0, end: FRAMES + 1 }], /not within/],
    [
      [
        { start: 4, end: 6 },
        { start: 6, end: 8 },
      ],
      /touches/,
    ],
    [
      [
        { start: 8, end: 9 },
        { start: 2, end: 3 },
      ],
      /not behind/,
    ],
  ])('%j are not canonical', (ranges, how) => {
    expect(notCanonical(ranges)).toMatch(how);
  });
});
