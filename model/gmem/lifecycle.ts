/**
 * Who keeps whom alive. A descriptor or a mapping keeps its file; a file keeps its VM and its inode; a vCPU descriptor
 * keeps its VM. A VM keeps nothing: its slots do not hold a reference to the file that backs them.
 * Source: virt/kvm/kvm_main.c: kvm_vm_release(), kvm_vcpu_release(); virt/kvm/guest_memfd.c: kvm_gmem_release().
 */
import { erase } from '../core/ranges.ts';
import { known, withEntry, withoutEntry, type Label, type OpenFile, type Slot, type State } from '../core/state.ts';
import { forgetPages } from './content.ts';
import { whenRestored } from './direct-map-fault.ts';

function vmIsHeld(state: State, vm: Label): boolean {
  for (const file of state.files.values()) if (file.vm === vm) return true;
  for (const open of state.fds.values()) {
    if (open.kind === 'vm' && open.id === vm) return true;
    if (open.kind === 'vcpu' && state.vcpus.get(open.id)?.vm === vm) return true;
  }
  return false;
}

function fileIsHeld(state: State, file: Label): boolean {
  for (const open of state.fds.values()) if (open.kind === 'gmem' && open.id === file) return true;
  for (const mapping of state.mappings.values()) if (mapping.file === file) return true;
  return false;
}

function destroyVm(state: State, vm: Label): State {
  const vcpus = new Map([...state.vcpus].filter(([, vcpu]) => vcpu.vm !== vm));
  const caches = new Map([...state.caches].filter(([, cache]) => cache.vm !== vm));
  const hvaCaches = new Map([...state.hvaCaches].filter(([, cache]) => cache.vm !== vm));
  return { ...state, vms: withoutEntry(state.vms, vm), vcpus, caches, hvaCaches };
}

const destroyVmUnlessHeld = (state: State, vm: Label): State => (vmIsHeld(state, vm) ? state : destroyVm(state, vm));

/** Nobody has the inode any more: its pages are given back. */
const evicted = (state: State, inode: Label): State =>
  forgetPages(whenRestored(state, known(state.inodes, inode), 0, Infinity), inode, 0, Infinity);

/** The slots stay, without a file; stage 2 forgets what it showed of it; the pages stay with the inode. */
function releaseFile(state: State, label: Label): State {
  const { vm: owner, inode } = known(state.files, label);
  const vm = known(state.vms, owner);
  const slots = new Map(vm.slots);
  let { stageTwo } = vm;
  for (const slot of vm.slots.values()) {
    if (slot.gmem?.file !== label) continue;
    slots.set(slot.id, { ...slot, gmem: { ...slot.gmem, file: undefined } });
    stageTwo = erase(stageTwo, slot.baseGfn, slot.baseGfn + slot.pages);
  }
  const files = withoutEntry(state.files, label);
  const inodeIsHeld = [...files.values()].some((file) => file.inode === inode);
  return destroyVmUnlessHeld(
    {
      ...(inodeIsHeld ? state : evicted(state, inode)),
      vms: withEntry(state.vms, owner, { ...vm, slots, stageTwo }),
      files,
      inodes: inodeIsHeld ? state.inodes : withoutEntry(state.inodes, inode),
    },
    owner,
  );
}

/** What follows when one reference to a file is gone. */
export const dropFile = (state: State, file: Label): State =>
  fileIsHeld(state, file) ? state : releaseFile(state, file);

/** What follows when a descriptor of `open` is gone. */
export function dropDescriptor(state: State, open: OpenFile): State {
  switch (open.kind) {
    case 'gmem':
      return dropFile(state, open.id);
    case 'vm':
      return destroyVmUnlessHeld(state, open.id);
    case 'vcpu':
      return destroyVmUnlessHeld(state, known(state.vcpus, open.id).vm);
    case 'device':
    case 'other':
      return state;
  }
}

/** A bound slot and the VM that has it. */
export interface Binding {
  readonly vm: Label;
  readonly slot: Slot;
  /** First and past-the-end page of the file. */
  readonly start: number;
  readonly end: number;
}

/** The slots that a file backs, which are all in the file's own VM. */
export function bindingsOf(state: State, file: Label): readonly Binding[] {
  const vm = state.files.get(file)?.vm;
  const slots = vm === undefined ? undefined : state.vms.get(vm)?.slots;
  if (vm === undefined || slots === undefined) return [];
  const bindings: Binding[] = [];
  for (const slot of slots.values())
    if (slot.gmem?.file === file)
      bindings.push({ vm, slot, start: slot.gmem.firstPage, end: slot.gmem.firstPage + slot.pages });
  return bindings;
}
