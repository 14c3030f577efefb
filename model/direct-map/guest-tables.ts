/**
 * Page tables that a guest keeps in its memory, as KVM walks them: four levels of entries of eight bytes.
 * Source: arch/x86/kvm/mmu/paging_tmpl.h: walk_addr_generic(), update_accessed_dirty_bits().
 */
import { INVALID_GPA, KVM_MEM, PAGE_MASK, PAGE_SHIFT } from '../core/abi.ts';
import { rememberLast } from '../core/memo.ts';
import { holdsIn } from '../core/profile.ts';
import { pick, type Random } from '../core/random.ts';
import { has } from '../core/ranges.ts';
import { known, type Label, type State } from '../core/state.ts';
import { bytes, chooseValue } from '../gmem/choose.ts';
import { readWord, writeWord, type Place } from '../gmem/content.ts';
import { faultIn, guestTop, isFound, vmOfVcpu } from '../gmem/guest-fault.ts';
import { isKept } from './caches.ts';
import { chooseFrame, type KvmAccess } from './kvm-access.ts';
import { isReinserted, isSilent, reach } from './reach.ts';

const LEVELS = [4n, 3n, 2n, 1n] as const;
const PTE = { PRESENT: 1n, WRITABLE: 2n, USER: 4n, ACCESSED: 0x20n, DIRTY: 0x40n, PAGE_SIZE: 0x80n } as const;
const FRAME_MASK = 0x000f_ffff_ffff_f000n;
const INDEX_MASK = 511n;

const frameOf = (entry: bigint): number => Number((entry & FRAME_MASK) >> PAGE_SHIFT);
const indexAt = (gva: bigint, level: bigint): number => Number((gva >> (PAGE_SHIFT + 9n * (level - 1n))) & INDEX_MASK);

export interface GuestWalk {
  readonly vcpu: Label;
  readonly cr3: bigint;
  readonly gva: bigint;
  readonly access: 'read' | 'write';
}

/** Why there is no translation, or why the specification does not say. */
type End = 'no-table' | 'table-kept' | 'not-present' | 'reserved' | 'not-writable' | 'large-page' | 'unknown-memory';

interface Walked {
  readonly end: End | 'translated';
  readonly state: State;
  readonly gpa: bigint;
}

interface Entry {
  readonly place: Place;
  readonly canBeMarked: boolean;
}

/** KVM reads one entry after the other; the tables are touched also where there is no translation in the end. */
export const walk = rememberLast(({ vcpu, cr3, gva, access }: GuestWalk, before: State): Walked => {
  const vm = vmOfVcpu(before, vcpu);
  const entries: Entry[] = [];
  let state = before;
  let table = frameOf(cr3);
  let isWritable = true;
  const stop = (end: End): Walked => ({ end, state, gpa: INVALID_GPA });
  for (const level of LEVELS) {
    const found = reach(state, vm, table, false);
    if (!isFound(found)) return stop(isSilent(found) ? 'unknown-memory' : 'no-table');
    const { inode, page, slot } = found;
    const isInUse = entries.some(({ place }) => place.inode === inode && place.page === page);
    if (keepsTables(state) && isReinserted(state, found) && (isInUse || isKept(state, found)))
      return stop('table-kept');
    state = faultIn(state, found, 1);
    const place: Place = { inode, page, word: indexAt(gva, level) };
    const entry = readWord(state, place);
    if ((entry & PTE.PRESENT) === 0n) return stop('not-present');
    if (level > 1n && (entry & PTE.PAGE_SIZE) !== 0n) return stop('large-page');
    if (bytes(frameOf(entry)) >= guestTop(state)) return stop('reserved');
    entries.push({ place, canBeMarked: (slot.flags & KVM_MEM.READONLY) === 0n });
    isWritable &&= (entry & PTE.WRITABLE) !== 0n;
    table = frameOf(entry);
  }
  if (access === 'write' && !isWritable) return stop('not-writable');
  return { end: 'translated', state: mark(state, entries, access), gpa: bytes(table) | (gva & PAGE_MASK) };
});

/** Whether a table that something else keeps in the direct map cannot be read. */
const keepsTables = ({ config: { profile } }: State): boolean => holdsIn(profile, { feature: 'direct-map-one-cache' });

/** Every entry gets the accessed bit; the last one the dirty bit, if the access writes. */
function mark(state: State, entries: readonly Entry[], access: GuestWalk['access']): State {
  return entries.reduce((after, { place, canBeMarked }, index) => {
    if (!canBeMarked) return after;
    const dirty = access === 'write' && index === entries.length - 1 ? PTE.DIRTY : 0n;
    return writeWord(after, place, readWord(after, place) | PTE.ACCESSED | dirty);
  }, state);
}

/** A word for a guest to keep: an entry of a table half of the time, often one that points at the table itself. */
export function chooseGuestWord(random: Random, state: State, { vcpu, gpa }: KvmAccess): bigint {
  if (random.below(3) === 0) return chooseValue(random);
  const { PRESENT, WRITABLE, USER, PAGE_SIZE } = PTE;
  const flags = pick(random, [PRESENT | WRITABLE, PRESENT | WRITABLE, PRESENT | USER, PRESENT | PAGE_SIZE]);
  const frame = random.below(2) === 0 ? bytes(chooseFrame(random, state, vmOfVcpu(state, vcpu))) : gpa & ~PAGE_MASK;
  return (frame & FRAME_MASK) | flags;
}

/** A frame of the VM whose first word is an entry that is present and shows a page or a table, or any frame. */
export function chooseTable(random: Random, state: State, vm: Label): number {
  const tables: number[] = [];
  for (const { baseGfn, pages } of known(state.vms, vm).slots.values())
    for (let gfn = baseGfn; gfn < baseGfn + Math.min(pages, 4); gfn++) {
      const found = reach(state, vm, gfn, false);
      if (!isFound(found) || !has(known(state.inodes, found.inode).resident, found.page)) continue;
      const entry = readWord(state, { inode: found.inode, page: found.page, word: 0 });
      if ((entry & (PTE.PRESENT | PTE.PAGE_SIZE)) === PTE.PRESENT) tables.push(gfn);
    }
  return tables.length === 0 || random.below(6) === 0 ? chooseFrame(random, state, vm) : pick(random, tables);
}
