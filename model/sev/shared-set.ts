/**
 * The set of guest frames that a guest shares, as announcements build it, and what a host records of it within what it
 * may spend. Plain functions over ranges: no state, no commands, so that a recorded log can be held against them as well.
 */
import { PAGE_MASK, PAGE_SHIFT, U64_MAX } from '../core/abi.ts';
import { add, EMPTY, remove, type Range, type RangeSet } from '../core/ranges.ts';

/** Frames are numbered below this: a guest physical address has at most 52 bits. */
export const FRAMES = 2 ** 40;

/** Attributes of KVM_HC_MAP_GPA_RANGE. Source: arch/x86/include/uapi/asm/kvm_para.h. */
export const MAP_GPA = { PAGE_SIZE_MASK: 0xfn, ENCRYPTED: 0x10n } as const;

/** Frames from `start` up to `end` become private, or shared. */
export interface Announcement extends Range {
  readonly private: boolean;
}

/** What a host knows: the shared ranges, or that it does not know. A record that is incomplete holds no ranges. */
export interface SharedRecord {
  readonly ranges: RangeSet;
  readonly incomplete: boolean;
}

/** What the host may spend: so many ranges, or a bit for each frame below a number. */
export type Allowance = { readonly ranges: number } | { readonly frames: number };

export const EMPTY_RECORD: SharedRecord = { ranges: EMPTY, incomplete: false };
export const MARKED_RECORD: SharedRecord = { ranges: EMPTY, incomplete: true };

/** What is wrong with the arguments of a call. */
export type Flaw = 'unaligned' | 'no-pages' | 'wraps' | 'past-the-end' | 'reserved-attributes';

/** What KVM itself refuses; with the others the call gets to user space. Source: arch/x86/kvm/x86.c: ____kvm_emulate_hypercall(). */
export const REFUSED_BY_KVM: ReadonlySet<Flaw> = new Set<Flaw>(['unaligned', 'no-pages', 'wraps']);

/** The first thing that is wrong with the arguments of KVM_HC_MAP_GPA_RANGE, in the order in which KVM looks, and then a host that records. */
export function flawOf(gpa: bigint, pages: bigint, attributes: bigint): Flaw | undefined {
  if ((gpa & PAGE_MASK) !== 0n) return 'unaligned';
  if (pages === 0n) return 'no-pages';
  const end = (gpa >> PAGE_SHIFT) + pages;
  if (end > U64_MAX) return 'wraps';
  if (end > BigInt(FRAMES)) return 'past-the-end';
  return (attributes & ~(MAP_GPA.PAGE_SIZE_MASK | MAP_GPA.ENCRYPTED)) === 0n ? undefined : 'reserved-attributes';
}

/** The announcement that arguments without a flaw make. */
export function announcementOf(gpa: bigint, pages: bigint, attributes: bigint): Announcement {
  const start = Number(gpa >> PAGE_SHIFT);
  return { start, end: start + Number(pages), private: (attributes & MAP_GPA.ENCRYPTED) !== 0n };
}

/** The shared set behind an announcement; the same set where it says nothing new. */
export const announced = (shared: RangeSet, { start, end, private: isPrivate }: Announcement): RangeSet =>
  isPrivate ? remove(shared, start, end) : add(shared, start, end);

/** Whether the set can be recorded with what the host may spend. */
export const fits = (shared: RangeSet, allowance: Allowance): boolean =>
  'ranges' in allowance ? shared.length <= allowance.ranges : (shared.at(-1)?.end ?? 0) <= allowance.frames;

/** The record behind an announcement. Once it is incomplete it stays so. */
export function recorded(record: SharedRecord, announcement: Announcement, allowance: Allowance): SharedRecord {
  if (record.incomplete) return record;
  const ranges = announced(record.ranges, announcement);
  if (ranges === record.ranges) return record;
  return fits(ranges, allowance) ? { ranges, incomplete: false } : MARKED_RECORD;
}

/** What keeps the ranges from being canonical, in words, or undefined where they are. */
export function notCanonical(ranges: readonly Range[]): string | undefined {
  let last = -1;
  for (const { start, end } of ranges) {
    if (start >= end) return `range ${start} to ${end} is empty`;
    if (start < 0 || end > FRAMES) return `range ${start} to ${end} is not within the address space`;
    if (start <= last)
      return `range ${start} to ${end} is not behind the one before it, which ends at ${last}, or touches it`;
    last = end;
  }
  return undefined;
}
