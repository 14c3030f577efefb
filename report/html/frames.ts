/** Which pages frames hold. */
import _ from 'lodash';
import type { Seen } from './facts.ts';

/** Frames in a row. */
export interface Frames {
  readonly frame: number;
  readonly count: number;
}

interface Piece extends Frames {
  /** The page that the first of them holds, where it is in a page cache. */
  readonly page?: { readonly inode: string; readonly index: number };
}

/** The frames, cut where other pages begin. */
export function pieces({ resident = [] }: Seen, { frame, count }: Frames): readonly Piece[] {
  const end = frame + count;
  const holders = resident.flatMap(({ inode, page, frame: first, count: pages }) =>
    first === undefined || first >= end || first + pages <= frame
      ? []
      : [{ inode, shift: page - first, start: first, end: first + pages }],
  );
  const bounds = [frame, end, ...holders.flatMap((holder) => [holder.start, holder.end])];
  const cuts = _.sortedUniq(_.sortBy(bounds)).filter((cut) => frame <= cut && cut <= end);
  return _.initial(cuts).map((from, index) => {
    const holder = holders.find((each) => each.start <= from && from < each.end);
    return {
      frame: from,
      count: (cuts[index + 1] ?? end) - from,
      ...(holder && { page: { inode: holder.inode, index: from + holder.shift } }),
    };
  });
}
