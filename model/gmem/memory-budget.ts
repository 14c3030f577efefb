/**
 * How much memory commands make the kernel allocate. A real machine has so much and no more, and what happens at its end
 * is its own affair: commands that would go there have a row that says so.
 *
 * Only what grows with the arguments is counted, by bounds that hold for a guest with shadow paging as well. Half of the
 * machine's memory is left for all the rest, such as VMs, and the page and the tables that one access takes.
 */
import { clip, type Range } from '../core/ranges.ts';
import type { Label, State } from '../core/state.ts';

/** A page of memory, with what page cache and user page tables need for it. */
const PAGE = 4096 + 32;
/** A stage-2 entry, with its share of the tables. */
const STAGE_TWO_ENTRY = 16;
/**
 * A page of a slot. Source: arch/x86/kvm/x86.c: kvm_alloc_memslot_metadata() with rmap, lpage_info and page tracking;
 * virt/kvm/kvm_main.c: kvm_alloc_dirty_bitmap().
 */
const SLOT_PAGE = 12;
/** A guest frame with an attribute. Source: virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes(), xa_reserve(). */
const ATTRIBUTE = 10;

/** What rows about memory say, and why. */
export const UP_TO_THE_MACHINE = 'how much memory there is, is up to the machine';

const numbersIn = (ranges: readonly Range[]): number => ranges.reduce((sum, { start, end }) => sum + end - start, 0);

export const bytesOfPages = (pages: number): number => pages * PAGE;
export const bytesOfSlot = (pages: number): number => pages * SLOT_PAGE;
export const bytesOfAttributes = (frames: number): number => frames * ATTRIBUTE;

/** What the program has made the kernel allocate so far, and still holds. */
function bytesHeld({ inodes, vms }: State): number {
  let sum = 0;
  for (const { resident } of inodes.values()) sum += bytesOfPages(numbersIn(resident));
  for (const { slots, private: isPrivate, stageTwo } of vms.values()) {
    sum += bytesOfAttributes(numbersIn(isPrivate)) + numbersIn(stageTwo) * STAGE_TWO_ENTRY;
    for (const { pages } of slots.values()) sum += bytesOfSlot(pages);
  }
  return sum;
}

/** What a machine has for all that is counted. */
const budget = (memoryBytes: bigint): number => Number(memoryBytes) / 2;

/** Whether so many more bytes can be had in the state, as far as the specification says. */
export const hasRoomFor = (state: State, bytes: number): boolean =>
  bytesHeld(state) + bytes <= budget(state.config.machine.memoryBytes);

/** A slot count that no program comes near to. */
const MANY_SLOTS = 128;

/** Whether all slots that a program can make surely fit. */
export const hasRoomForSlots = (memoryBytes: bigint, pages: number): boolean =>
  MANY_SLOTS * bytesOfSlot(pages) <= budget(memoryBytes);

/** Pages of the range that the inode has no folio for. */
export function missingPages(state: State, inode: Label, start: number, end: number): number {
  const held = state.inodes.get(inode)?.resident ?? [];
  return end - start - numbersIn(clip(held, start, end));
}
