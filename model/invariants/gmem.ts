import type { BindingFact, FileFact } from '../core/facts.ts';
import type { Condition } from '../core/profile.ts';
import { clause, hex, type Invariant } from './invariant.ts';

const fileOf = (files: readonly FileFact[], label: string): FileFact | undefined =>
  files.find(({ file }) => file === label);

const sameOwner = clause(['files'], ({ before, after }) => {
  for (const { file, vm } of after.files) {
    const earlier = before && fileOf(before.files, file);
    if (earlier !== undefined && earlier.vm !== vm) return `${file} belonged to ${earlier.vm} and now belongs to ${vm}`;
  }
  return undefined;
});

const slotOfOwner = clause(['files', 'slots'], ({ after }) => {
  for (const { file, vm, slot } of after.slots) {
    const owner = file === undefined ? undefined : fileOf(after.files, file);
    if (owner !== undefined && owner.vm !== vm)
      return `slot ${slot} of ${vm} is bound to ${owner.file}, which was created for ${owner.vm}`;
  }
  return undefined;
});

const bindingOfOwner = clause(['files', 'bindings'], ({ after }) => {
  for (const { file, vm, slot } of after.bindings) {
    const owner = fileOf(after.files, file);
    if (owner !== undefined && owner.vm !== vm)
      return `${file}, which was created for ${owner.vm}, binds slot ${slot} of ${vm}`;
  }
  return undefined;
});

const noneOverlap = clause(['bindings'], ({ after: { bindings } }) => {
  for (let i = 0; i < bindings.length; i++) {
    const a = bindings[i] as BindingFact;
    for (let j = i + 1; j < bindings.length; j++) {
      const b = bindings[j] as BindingFact;
      if (a.file === b.file && a.start < b.end && b.start < a.end)
        return `pages ${hex(Math.max(a.start, b.start))} of ${a.file} are bound to slots ${a.slot} and ${b.slot}`;
    }
  }
  return undefined;
});

const withinFile = clause(['bindings', 'files', 'inodes'], ({ after }) => {
  for (const { file, start, end, slot } of after.bindings) {
    const inode = fileOf(after.files, file)?.inode;
    const size = after.inodes.find((each) => each.inode === inode)?.pages;
    if (size !== undefined && end > size)
      return `slot ${slot} is bound to pages ${hex(start)} to ${hex(end)} of ${file}, which has ${hex(size)}`;
  }
  return undefined;
});

const vmPinned = clause(['files', 'vms'], ({ after }) => {
  for (const { file, vm } of after.files)
    if (!after.vms.some((each) => each.vm === vm)) return `${file} outlives ${vm}`;
  return undefined;
});

const filePinned = clause(['slots', 'files'], ({ after }) => {
  for (const { file, vm, slot } of after.slots)
    if (file !== undefined && fileOf(after.files, file) === undefined)
      return `slot ${slot} of ${vm} refers to ${file}, which is gone`;
  return undefined;
});

const noneDangling = clause(['bindings'], ({ after }) => {
  const dangling = after.bindings.find(({ live }) => !live);
  return dangling && `${dangling.file} binds slot ${dangling.slot} of ${dangling.vm}, which is gone`;
});

const slotOfBinding = clause(['bindings', 'slots'], ({ after }) => {
  for (const { file, vm, slot, start, end } of after.bindings) {
    const owner = after.slots.find((each) => each.vm === vm && each.slot === slot);
    if (owner?.file !== file || owner.firstPage !== start || owner.firstPage + owner.pages !== end)
      return `${file} binds pages ${hex(start)} to ${hex(end)} to slot ${slot} of ${vm}, which shows something else`;
  }
  return undefined;
});

const bindingOfSlot = clause(['bindings', 'slots'], ({ after }) => {
  for (const { file, vm, slot, firstPage } of after.slots)
    if (
      file !== undefined &&
      !after.bindings.some(
        (each) => each.file === file && each.slot === slot && each.vm === vm && each.start === firstPage,
      )
    )
      return `slot ${slot} of ${vm} refers to ${file}, which has no binding for it`;
  return undefined;
});

const unchanged = clause(['slots'], ({ before, after }) => {
  if (before === undefined) return undefined;
  for (const { vm, slot, gmem, baseGfn, pages } of before.slots) {
    const now = after.slots.find((each) => each.vm === vm && each.slot === slot);
    if (now === undefined) continue;
    if (gmem !== now.gmem) return `slot ${slot} of ${vm} ${gmem ? 'lost' : 'gained'} GUEST_MEMFD without being deleted`;
    if (gmem && (baseGfn !== now.baseGfn || pages !== now.pages))
      return `slot ${slot} of ${vm} changed without being deleted`;
  }
  return undefined;
});

/** Other realms have no files. */
const only: Condition = { realm: 'guest-memory' };
/** Where VMs have files of guest memory. */
const withFiles: readonly Condition[] = [only, { realm: 'sev', feature: 'gmem-link' }];

const SEED = 'Christopherson and Tng on "KVM: Add KVM_CREATE_GUEST_MEMFD ioctl()", September 2023';

export const gmemInvariants: readonly Invariant[] = [
  {
    id: 'gmem/never-rebinds',
    sentence:
      'A gmem file is usable with the struct kvm that it was created for and with no other, ever, however fds, pointers and ids are reused.',
    source: SEED,
    only: withFiles,
    clauses: [sameOwner, slotOfOwner, bindingOfOwner],
  },
  {
    id: 'gmem/one-slot-per-page',
    sentence: 'Within one gmem file, a file page is bound to at most one slot; a binding lies within the file.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_prepare_memory_region(), before 7.3.4 kvm_gmem_bind()',
    only,
    clauses: [noneOverlap, withinFile],
  },
  {
    id: 'gmem/file-pins-vm',
    sentence: 'The VM outlives each of its gmem files; no slot keeps a reference to a file that is gone.',
    source: 'virt/kvm/guest_memfd.c: __kvm_gmem_create(), kvm_gmem_release()',
    only: withFiles,
    clauses: [vmPinned, filePinned],
  },
  {
    id: 'gmem/bindings-match-slots',
    sentence:
      'A file binds exactly the slots that refer to it, page for page; no binding is left to a slot that is gone.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_commit_memory_region(), before 7.3.4 kvm_gmem_bind(); kvm_gmem_unbind()',
    only,
    clauses: [noneDangling, slotOfBinding, bindingOfSlot],
  },
  {
    id: 'gmem/slot-immutable',
    sentence: 'A slot that shows guest memory can be deleted but not changed, and no slot becomes one.',
    source: 'virt/kvm/kvm_main.c: kvm_set_memory_region()',
    only,
    clauses: [unchanged],
  },
];
