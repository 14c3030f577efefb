/** Reading a VM's memory slots. */
import { has } from '../core/ranges.ts';
import { GUARD_PAGES, known, openAs, type Label, type Slot, type State, type Vm } from '../core/state.ts';
import { hasPrivateMemory } from './vm-create.ts';

/** Source: arch/x86/include/asm/kvm_host.h: kvm_arch_nr_memslot_as_ids(). */
export const addressSpacesOf = (state: State, vm: Vm): number =>
  hasPrivateMemory(vm) ? 1 : state.config.machine.addressSpaces;

export const addressSpaceOf = (slotId: number): number => slotId >>> 16;

/** The VM that a descriptor refers to; the caller has checked that it is a VM's. */
export const vmOf = (state: State, vmFd: Label): Vm => known(state.vms, openAs(state, vmFd, 'vm') ?? vmFd);

/** The slot that shows a guest frame to a vCPU that is not in system management mode. */
export function slotAt(vm: Vm, gfn: number): Slot | undefined {
  for (const slot of vm.slots.values())
    if (slot.id <= 0xffff && gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.pages) return slot;
  return undefined;
}

/** Whether the address space has a slot other than `except` that shares a guest frame with the range. */
export function overlapsSlot(vm: Vm, except: number, baseGfn: number, pages: number): Slot | undefined {
  for (const slot of vm.slots.values())
    if (
      slot.id !== except &&
      addressSpaceOf(slot.id) === addressSpaceOf(except) &&
      slot.baseGfn < baseGfn + pages &&
      baseGfn < slot.baseGfn + slot.pages
    )
      return slot;
  return undefined;
}

/** What lies at a host address. */
export interface HostPage {
  readonly mapping: Label;
  /** Page of the mapping, counted from its start. */
  readonly mappingPage: number;
  readonly inode: Label;
  readonly page: number;
}

/** `mappingPage` counts from the start of the mapping, and may be past its end. */
export function hostPage(state: State, base: Label, mappingPage: number): HostPage | 'nothing' | 'unknown' {
  const mapping = state.mappings.get(base);
  const pages = mapping?.pages ?? state.unmapped.get(base);
  if (pages === undefined || mappingPage >= pages + GUARD_PAGES) return 'unknown';
  if (mapping === undefined || mappingPage >= pages) return 'nothing';
  return { mapping: base, mappingPage, inode: mapping.inode, page: mapping.firstPage + mappingPage };
}

/** Whether touching the page ends in a hardware error: the page itself is poisoned, or the mapping remembers that it was. */
export const isHostPoisoned = (state: State, { mapping, mappingPage, inode, page }: HostPage): boolean =>
  has(known(state.inodes, inode).poisoned, page) || has(known(state.mappings, mapping).poisonEntries, mappingPage);
