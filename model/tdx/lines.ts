/**
 * Lines of memory: what a load gets and what a store leaves, by who does it. A page that belongs to a TD has lines under
 * the key of the guest; what is under the host's there is foreign.
 */
import {
  withEntry,
  type CachedCopy,
  type Label,
  type Line,
  type State,
  type TdFrame,
  type TdPage,
} from '../core/state.ts';
import { frameOf, guestLine, has, isOwned, isTdx, tdOf, withFrame, withMachine } from './machine.ts';

export type Owner = 'guest' | 'host';

/** Which page of a frame is meant: the guest's, or the one at the host address where that is another. */
export type Which = 'page' | 'vmmPage';

/** What the guest sees through its private or its shared address. */
export const seenByGuest = ({ vmmPage }: TdFrame, world: string): Which =>
  world === 'shared' && vmmPage !== undefined ? 'vmmPage' : 'page';

/** What is at the host address of the frame. */
export const atHostAddress = ({ vmmPage }: TdFrame): Which => (vmmPage === undefined ? 'page' : 'vmmPage');

/** What backs the frame in the world that it is in. */
export const backing = (frame: TdFrame): Which => (frame.private ? 'page' : atHostAddress(frame));

export function pageOf(frame: TdFrame, which: Which): TdPage {
  const page = frame[which];
  if (page === undefined) throw new Error('specification defect: the frame has one page in both worlds');
  return page;
}

export function lineOf(frame: TdFrame, which: Which, line: string): Line {
  const found = pageOf(frame, which).lines[Number(line)];
  if (found === undefined) throw new Error(`specification defect: no line '${line}'`);
  return found;
}

/** Whether the page is the TD's own, and not one that the host may use. */
export const isGuests = (frame: TdFrame, which: Which): boolean => which === 'page' && isOwned(frame);

export interface Spot {
  readonly td: Label;
  readonly gfn: string;
  readonly which: Which;
  readonly line: string;
}

/** A page that was in swap is there again as soon as it is touched. */
const broughtBack = (frame: TdFrame, which: Which): Partial<TdFrame> =>
  frame.isSwapped && which === atHostAddress(frame) ? { isSwapped: false } : {};

export function withLine(state: State, spot: Spot, line: Line): State {
  const frame = frameOf(state, spot.td, spot.gfn);
  const page = pageOf(frame, spot.which);
  const lines = page.lines.map((each, index) => (index === Number(spot.line) ? line : each));
  return withFrame(state, spot.td, spot.gfn, { ...broughtBack(frame, spot.which), [spot.which]: { ...page, lines } });
}

/** The state after the page was touched. */
export function touched(state: State, { td, gfn, which }: Pick<Spot, 'td' | 'gfn' | 'which'>): State {
  const back = broughtBack(frameOf(state, td, gfn), which);
  return back.isSwapped === undefined ? state : withFrame(state, td, gfn, back);
}

/** Whether reading the line as the guest's finds that its integrity is broken. */
export const isBroken = ({ under, poisoned }: Line): boolean => poisoned || under === 'host';

/** Poison where the core can go on: the machine check ends the TD, and the host marks the page. */
export function machineCheck(state: State, spot: Spot): State {
  const frame = frameOf(state, spot.td, spot.gfn);
  const line = lineOf(frame, spot.which, spot.line);
  const poisoned = withLine(state, spot, { ...line, poisoned: true });
  const { tds } = poisoned.td;
  return withMachine(poisoned, {
    tds: withEntry(tds, spot.td, { ...tdOf(poisoned, spot.td), ended: 'machine-check' }),
    poisonedFrames: [...state.td.poisonedFrames, frame.page.frame],
    consumptions: [{ by: 'guest', ended: 'guest', recoverable: true }],
  });
}

/** What a cache, or memory behind it, gives to who asks under that key; undefined is ciphertext. */
export function cached(line: Line, by: Owner): CachedCopy {
  const copy = by === 'guest' ? line.guestCopy : line.hostCopy;
  return copy ?? { value: line.under === by ? line.value : undefined, dirty: false };
}

export const withCopy = (line: Line, by: Owner, copy: CachedCopy | undefined): Line =>
  by === 'guest' ? { ...line, guestCopy: copy } : { ...line, hostCopy: copy };

/** The line after both copies left the caches. Of two that are dirty, memory keeps the one that was written back last. */
export function evicted({ guestCopy, hostCopy, ...memory }: Line, last: Owner): Line {
  const copies = { guest: guestCopy, host: hostCopy };
  const order: readonly Owner[] = last === 'guest' ? ['host', 'guest'] : ['guest', 'host'];
  let line: Line = memory;
  for (const owner of order) {
    const copy = copies[owner];
    if (copy?.dirty === true && copy.value !== undefined) line = { ...line, value: copy.value, under: owner };
  }
  return line;
}

/** The line after a store of the guest. A part of a line cannot mend it. */
export function storedByGuest(state: State, line: Line, isPrivate: boolean, value: bigint, isWhole: boolean): Line {
  if (has(state, 'c-bit')) return withCopy(line, isPrivate ? 'guest' : 'host', { value, dirty: true });
  if (!isPrivate) return { ...line, value };
  return isTdx(state) && isBroken(line) && !isWhole ? { ...line, poisoned: true } : guestLine(value);
}

/** A line that is the TD's; or poisoned, which a part of it does not mend. */
const isPrivate = ({ under, poisoned }: Line): boolean => poisoned || under === 'guest';

/** The line after a store of the host. With the partial-write erratum a part of a line that is the TD's poisons it. */
export function storedByHost(state: State, line: Line, isGuest: boolean, value: bigint, isWhole: boolean): Line {
  if (has(state, 'c-bit')) return withCopy(line, 'host', { value, dirty: true });
  if (isTdx(state) && isGuest && !isWhole && isPrivate(line)) return { ...line, poisoned: true };
  return { value, under: 'host', poisoned: false };
}
