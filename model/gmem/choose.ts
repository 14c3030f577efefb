/** Choices that the argument generators of several commands share. */
import { PAGE_SIZE } from '../core/abi.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { FdKind, Label, State } from '../core/state.ts';

/** An open descriptor of the kind, or undefined. */
export function chooseFd(random: Random, state: State, kind: FdKind): Label | undefined {
  const found: Label[] = [];
  for (const [label, file] of state.fds) if (file.kind === kind) found.push(label);
  return pickOr(random, found);
}

/** Sizes that keep programs small, so that commands meet on the same pages; now and then one that is not. */
export function choosePages(random: Random, most = 8): number {
  if (random.below(40) === 0) return pick(random, [512, 513, 1 << 20, 1 << 28]);
  return 1 + random.below(random.below(3) > 0 ? 3 : most);
}

/** Frames near which something changes: the start, a node of an xarray, a huge page, and far out. */
const BASES = [0, 0, 0, 0, 0, 0, 62, 62, 510, 0x100000, 0x4000000] as const;

/** A guest frame: near zero mostly, else near another landmark, so that slots meet. */
export const chooseGfn = (random: Random): number => pick(random, BASES) + random.below(random.below(2) === 0 ? 4 : 16);

/** A page of a run of `pages`: the first ones, or the last. */
export const choosePage = (random: Random, pages: number): number =>
  random.below(5) === 0 ? pages - 1 : random.below(Math.min(pages, random.below(3) === 0 ? 8 : 2));

export const bytes = (pages: number): bigint => BigInt(pages) * PAGE_SIZE;

/** An entry of a guest's page table that shows frame 0, present and writable: a table at frame 0 then shows itself. */
const SHOWS_FRAME_0 = 3n;

/** A word that tells where it was written, never zero; or one that page tables are made of. */
export const chooseValue = (random: Random): bigint =>
  random.below(8) === 0 ? SHOWS_FRAME_0 : BigInt(1 + random.below(0xffff));

/** Byte offset of one of few words of a page, so that loads meet stores. */
export const chooseWordOffset = (random: Random): bigint => pick(random, [0n, 0n, 0n, 0n, 0n, 0n, 8n, 0xff8n]);
