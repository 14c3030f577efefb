/** What kvm_vcpu_read_guest() and kvm_vcpu_write_guest() have in common: they go page by page. */
import { PAGE_MASK, PAGE_SIZE, WORD_BYTES, wrap64 } from '../core/abi.ts';
import { fd, u32, u64 } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { fails } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { clip } from '../core/ranges.ts';
import { known, type Label, type State } from '../core/state.ts';
import type { Accepted, DescriptorCheck, EnvironmentError, Guard } from '../core/transition.ts';
import { bytes, chooseFd, chooseGfn, choosePage, chooseWordOffset } from '../gmem/choose.ts';
import { isWordAligned, readWord, wordIndex, writeWord, type Place } from '../gmem/content.ts';
import { mayFailWithin } from '../gmem/direct-map-fault.ts';
import { faultIn, gfnAt, isFound, vmOfVcpu, type Found } from '../gmem/guest-fault.ts';
import { findHindered, HINDRANCES, reach, reinserts, type Hindrance, type HindranceRow } from './reach.ts';

export interface KvmAccess {
  readonly vcpu: Label;
  readonly gpa: bigint;
  readonly length: bigint;
}

export const kvmAccessArgs = {
  vcpu: fd('vcpu'),
  gpa: u64(),
  length: u32({ boundaries: [8n, 16n, 64n, 72n] }),
} as const;

/** A longer access crosses into another page as well as this one does. */
const LONGEST = 64n;

/** The part of an access that lies in one page. */
export interface Piece {
  readonly found: Found;
  readonly places: readonly Place[];
}

export interface Pieces {
  readonly pieces: readonly Piece[];
  /** Why KVM gets no further; undefined where it gets to the end. */
  readonly hindrance: Hindrance | undefined;
}

/** The pages of a range in which KVM accesses it one after the other, up to the first that it cannot reach. */
export function piecesOf(state: State, vm: Label, gpa: bigint, length: bigint, writes: boolean): Pieces {
  const pieces: Piece[] = [];
  let at = gpa;
  while (at < gpa + length) {
    const end = [gpa + length, (at & ~PAGE_MASK) + PAGE_SIZE].reduce((a, b) => (a < b ? a : b));
    const found = reach(state, vm, gfnAt(at), writes);
    if (!isFound(found)) return { pieces, hindrance: found };
    const { inode, page } = found;
    const places: Place[] = [];
    for (; at < end; at += WORD_BYTES) places.push({ inode, page, word: wordIndex(at) });
    pieces.push({ found, places });
  }
  return { pieces, hindrance: undefined };
}

const ofVcpu = ({ vcpu, gpa, length }: KvmAccess, state: State, writes: boolean): Pieces =>
  piecesOf(state, vmOfVcpu(state, vcpu), gpa, length, writes);

const toRead = rememberLast((args: KvmAccess, state: State) => ofVcpu(args, state, false));
const toWrite = rememberLast((args: KvmAccess, state: State) => ofVcpu(args, state, true));
export const piecesTo = { read: toRead, write: toWrite } as const;

/** The sum of the words, modulo 2^64. */
export function readPieces(before: State, pieces: readonly Piece[]): Accepted {
  const state = touchPieces(before, pieces);
  const words = pieces.flatMap(({ places }) => places.map((place) => readWord(state, place)));
  return { state, value: wrap64(words.reduce((sum, word) => sum + word, 0n)) };
}

/** Every word gets the value. */
export const writePieces = (state: State, pieces: readonly Piece[], value: bigint): State =>
  pieces
    .flatMap(({ places }) => places)
    .reduce((after, place) => writeWord(after, place, value), touchPieces(state, pieces));

/** The pages are there, and the host process's page table shows those that were reached through it. */
export const touchPieces = (state: State, pieces: readonly Piece[]): State =>
  pieces.reduce((after, { found }) => faultIn(after, found, 1), state);

export const crossesPage = ({ gpa, length }: KvmAccess): boolean => (gpa & PAGE_MASK) + length > PAGE_SIZE;

/** Rows of both, in the order in which KVM finds out. `progress` is what is done before a page that KVM cannot reach. */
export const kvmAccessRows = <A extends KvmAccess>(
  command: string,
  kind: keyof typeof piecesTo,
  progress: (args: A, state: State) => State,
): readonly (Guard<A> | DescriptorCheck<A>)[] => [
  { descriptor: 'vcpu', kind: 'vcpu', ioctl: true },
  {
    id: `${command}/unaligned`,
    unmodelled: 'an access is a number of aligned words of eight bytes',
    when: 'the guest address or the length is not a multiple of eight',
    violated: ({ gpa, length }) => !isWordAligned(gpa) || !isWordAligned(length),
  },
  tooLong<A>(command),
  mayFailWithin<A>(command),
  ...hindranceRows<A>(
    command,
    HINDRANCES.filter(({ hindrance }) => kind === 'write' || hindrance !== 'read-only'),
    {
      met: (args, state) => piecesTo[kind](args, state).hindrance,
      progress,
      meet: (args, state, random, hindrance) => {
        const gfn = findHindered(state, vmOfVcpu(state, args.vcpu), hindrance, random);
        if (gfn === undefined) return undefined;
        // The page before it may well be one that can be reached.
        return gfn > 0 && random.below(3) === 0
          ? { ...args, gpa: bytes(gfn) - WORD_BYTES, length: 2n * WORD_BYTES }
          : { ...args, gpa: bytes(gfn), length: WORD_BYTES };
      },
    },
  ),
];

export const tooLong = <A extends { readonly length: bigint }>(command: string): Guard<A> => ({
  id: `${command}/long`,
  unmodelled: 'a longer access has nothing that this one has not',
  when: 'the length is more than 64',
  violated: ({ length }) => length > LONGEST,
});

interface Hindered<A> {
  /** The hindrance that the access meets first. */
  met(args: A, state: State): Hindrance | undefined;
  /** What is done before. */
  progress(args: A, state: State): State;
  /** Arguments that meet the hindrance. */
  meet(args: A, state: State, random: Random, hindrance: Hindrance): A | undefined;
}

/** One row for each hindrance. */
export const hindranceRows = <A>(
  command: string,
  hindrances: readonly HindranceRow[],
  access: Hindered<A>,
): readonly Guard<A>[] =>
  hindrances.map(({ hindrance, errno, unmodelled, ...row }) => ({
    id: `${command}/${hindrance}`,
    group: 'page',
    ...row,
    violated: (args, state) => access.met(args, state) === hindrance,
    violate: (args, state, random) => access.meet(args, state, random, hindrance),
    ...(errno === undefined
      ? { unmodelled: unmodelled ?? '' }
      : { result: errno, outcome: () => fails(errno), leaves: (args, state) => access.progress(args, state) }),
  }));

/** A folio that is not there yet cannot be had; how many pages came before it nobody tells. */
export const ACCESS_MAY_ALSO: readonly EnvironmentError<never>[] = ['ENOMEM'];

/** A frame of a slot mostly, near its start or end; where KVM reinserts pages, often one that it would reinsert. */
export function chooseFrame(random: Random, state: State, vm: Label): number {
  const { slots, private: isPrivate } = known(state.vms, vm);
  if (reinserts(state) && random.below(2) === 0) {
    const ranges = [...slots.values()].flatMap(({ baseGfn, pages, gmem }) =>
      gmem?.file === undefined ? [] : clip(isPrivate, baseGfn, baseGfn + pages),
    );
    const range = pickOr(random, ranges);
    if (range !== undefined) return range.start + random.below(Math.min(range.end - range.start, 2));
  }
  const slot = random.below(12) === 0 ? undefined : pickOr(random, [...slots.values()]);
  return slot === undefined ? chooseGfn(random) : slot.baseGfn + choosePage(random, slot.pages);
}

export function drawAccess(random: Random, state: State): KvmAccess | undefined {
  const vcpu = chooseFd(random, state, 'vcpu');
  if (vcpu === undefined) return undefined;
  const start = bytes(chooseFrame(random, state, vmOfVcpu(state, vcpu)));
  if (random.below(4) === 0 && start > 0n) return { vcpu, gpa: start - WORD_BYTES, length: 2n * WORD_BYTES };
  return {
    vcpu,
    gpa: start + chooseWordOffset(random),
    length: pick(random, [WORD_BYTES, WORD_BYTES, WORD_BYTES, 2n * WORD_BYTES, LONGEST, 0n]),
  };
}
