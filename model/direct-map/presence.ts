/** What the direct map shows: every page but those that were taken out and that nobody has put back. */
import { EMPTY, has, remove, type RangeSet } from '../core/ranges.ts';
import { known, type Label, type State } from '../core/state.ts';

/** The caches that keep a page of the inode in the direct map, by page. */
export function sharesOf({ caches }: State, inode: Label): ReadonlyMap<number, readonly Label[]> {
  const holders = new Map<number, Label[]>();
  for (const [label, { page }] of caches) {
    if (page?.inode !== inode || !page.reinserted) continue;
    const others = holders.get(page.page);
    if (others === undefined) holders.set(page.page, [label]);
    else others.push(label);
  }
  return holders;
}

export const isPresent = (state: State, inode: Label, page: number): boolean =>
  !has(known(state.inodes, inode).removed, page) || sharesOf(state, inode).has(page);

/** Pages of the inode that the direct map does not show. */
export function absentPages(state: State, inode: Label): RangeSet {
  const { removed } = known(state.inodes, inode);
  if (removed.length === 0) return EMPTY;
  let absent = removed;
  for (const page of sharesOf(state, inode).keys()) absent = remove(absent, page, page + 1);
  return absent;
}
