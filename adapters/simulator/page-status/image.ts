/** What travels to another machine: the record as an array behind a header, and the guest's memory. */
import type { Structure } from './guest-donation.ts';
import { FRAMES, isCanonical, type Range } from './record.ts';

export interface Image {
  readonly header: { readonly count: number; readonly isIncomplete: boolean };
  readonly ranges: readonly Range[];
  /** Page tables, which say what the guest shares, and its structure where it has one. */
  readonly memory: { readonly shared: readonly Range[]; readonly structure: Structure | undefined };
}

/** Whoever reads an image trusts nothing in it. */
export const isValid = ({ header, ranges }: Image): boolean =>
  header.count === ranges.length && isCanonical(ranges) && !(header.isIncomplete && ranges.length > 0);

export type Damage = 'unsorted' | 'overlap' | 'adjacent' | 'empty' | 'past-end' | 'short';

/** Ranges that no reader must take, each bad in one way. */
export const BAD_RANGES: Readonly<Record<Exclude<Damage, 'short'>, readonly Range[]>> = {
  unsorted: [
    { start: 4, end: 5 },
    { start: 1, end: 2 },
  ],
  overlap: [
    { start: 1, end: 4 },
    { start: 3, end: 5 },
  ],
  adjacent: [
    { start: 1, end: 3 },
    { start: 3, end: 5 },
  ],
  empty: [{ start: 1, end: 1 }],
  'past-end': [{ start: FRAMES - 1, end: FRAMES + 1 }],
};

export function damaged(image: Image, how: Damage): Image {
  if (how === 'short') return { ...image, header: { ...image.header, count: image.ranges.length + 1 } };
  const ranges = BAD_RANGES[how];
  return { ...image, header: { ...image.header, count: ranges.length }, ranges };
}
