/**
 * The simulator with one mistake of mechanism each: bugs that really happened, and others of their kind. A mutant
 * overrides the one function of the kernel in which the mistake sits.
 */
import { PAGE_MASK, PAGE_SHIFT } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import { SimulatorMachine } from '../simulator/index.ts';
import type { MemoryAttributes, PagesAre } from '../simulator/attributes.ts';
import type { CachedFolio } from '../simulator/files.ts';
import type { Folio } from '../simulator/frames.ts';
import { PART } from '../simulator/kernel.ts';
import type { VmFault } from '../simulator/mm.ts';
import type { GfnRange } from '../simulator/mmu.ts';
import type { GmemFile, Inode, Kvm, MemSlot, Vcpu, VcpuFile, Vma } from '../simulator/objects.ts';
import type { MemoryRegion } from '../simulator/slots.ts';
import type { Fault } from './fault.ts';

const GUEST_MEMFD = 4;

/** Replaces a slot of guest memory without removing the binding of the old one. */
class ForgetsToUnbind extends SimulatorMachine {
  override kvmCommitMemoryRegion(...args: Parameters<SimulatorMachine['kvmCommitMemoryRegion']>): void {
    const [, old, change] = args;
    if (change === 'DELETE') super.kvmCommitMemoryRegion(...args);
    else this.slots.free(old);
  }
}

const bindings: readonly Fault[] = [
  {
    id: 'gmem-flag-toggled',
    shortest: 4,
    fault: 'lets KVM_MEM_GUEST_MEMFD be dropped from a slot that exists, and forgets its binding',
    machine: class extends ForgetsToUnbind {
      override kvmChangeOf(mem: MemoryRegion, old: MemSlot): ReturnType<SimulatorMachine['kvmChangeOf']> {
        const change = super.kvmChangeOf(mem, { ...old, flags: old.flags & ~GUEST_MEMFD });
        return change ?? ((old.flags & GUEST_MEMFD) === 0 ? undefined : 'FLAGS_ONLY');
      }
    },
  },
  {
    id: 'unbind-forgotten-on-move',
    shortest: 3,
    fault: 'lets a slot of guest memory be moved, and keeps the old binding',
    machine: class extends ForgetsToUnbind {
      override kvmChangeOf(mem: MemoryRegion, old: MemSlot): ReturnType<SimulatorMachine['kvmChangeOf']> {
        const gmem = BigInt(GUEST_MEMFD);
        const without = { ...old, flags: old.flags & ~GUEST_MEMFD };
        return super.kvmChangeOf({ ...mem, flags: mem.flags & ~gmem }, without);
      }
    },
  },
  {
    id: 'binding-kept-on-delete',
    shortest: 4,
    fault: 'deletes a slot and leaves its binding in the file',
    machine: class extends SimulatorMachine {
      override kvmGmemUnbind(): void {
        // The table of bindings keeps a pointer to the freed slot.
      }
    },
  },
  {
    id: 'file-does-not-pin-vm',
    shortest: 3,
    fault: 'lets a gmem file point to its VM without a reference, so that the VM’s memory is reused under it',
    machine: class extends SimulatorMachine {
      override kvmGmemCreate(kvm: Kvm, label: Label, size: bigint, flags: bigint): GmemFile | Errno {
        const file = super.kvmGmemCreate(kvm, label, size, flags);
        if (typeof file !== 'string') kvm.usersCount--;
        return file;
      }
      override kvmGmemRelease(file: GmemFile): void {
        this.kvms.at(file.kvm).usersCount++;
        super.kvmGmemRelease(file);
      }
    },
  },
  {
    id: 'owner-not-compared',
    shortest: 4,
    fault: 'binds any gmem file, whichever VM it was created for',
    machine: class extends SimulatorMachine {
      override kvmGmemPrepareMemoryRegion(kvm: Kvm, slot: MemSlot, fd: Label, offset: bigint): GmemFile | Errno {
        const file = this.fget(fd);
        if (file !== undefined) this.fput(file);
        const owner = file?.kind === 'gmem' ? this.kvms.at(file.kvm) : kvm;
        return super.kvmGmemPrepareMemoryRegion(owner, slot, fd, offset);
      }
    },
  },
  {
    id: 'bind-offset-overflow',
    shortest: 3,
    fault:
      'adds offset and size of a binding as signed numbers, so that the end of a range far beyond the file is negative',
    machine: class extends SimulatorMachine {
      override kvmGmemFits(inode: Inode, slot: MemSlot, offset: bigint): boolean {
        const end = BigInt.asIntN(64, offset + (BigInt(slot.npages) << PAGE_SHIFT));
        const starts = BigInt.asIntN(64, offset) >= 0n && (offset & PAGE_MASK) === 0n;
        return starts && end <= BigInt(inode.pages) << PAGE_SHIFT;
      }
    },
  },
  {
    id: 'slot-pins-file',
    shortest: 6,
    fault: 'keeps the reference to the file that binding took, so that the file is never released',
    machine: class extends SimulatorMachine {
      override kvmGmemPrepareMemoryRegion(kvm: Kvm, slot: MemSlot, fd: Label, offset: bigint): GmemFile | Errno {
        const file = super.kvmGmemPrepareMemoryRegion(kvm, slot, fd, offset);
        if (typeof file !== 'string') file.count++;
        return file;
      }
    },
  },
  {
    id: 'released-file-stays-in-slot',
    shortest: 4,
    fault: 'releases a file and leaves the pointer to it in the slots',
    machine: class extends SimulatorMachine {
      override kvmGmemRelease(file: GmemFile): void {
        const held = file.bindings.all.map((run) => this.slots.at(run.value));
        super.kvmGmemRelease(file);
        for (const slot of held) slot.gmem.file = file.address;
      }
    },
  },
  {
    id: 'overlap-misses-last-page',
    shortest: 3,
    fault: 'overlooks that two slots share a guest frame where it is the last one of the older slot',
    machine: class extends SimulatorMachine {
      override kvmCheckMemslotOverlap(kvm: Kvm, asId: number, id: number, start: number, end: number): boolean {
        return super.kvmCheckMemslotOverlap(kvm, asId, id, start + 1, end);
      }
    },
  },
  {
    id: 'overlap-sees-neighbour',
    shortest: 3,
    fault: 'takes slots that touch for slots that overlap',
    machine: class extends SimulatorMachine {
      override kvmCheckMemslotOverlap(kvm: Kvm, asId: number, id: number, start: number, end: number): boolean {
        return super.kvmCheckMemslotOverlap(kvm, asId, id, start, end + 1);
      }
    },
  },
  {
    id: 'failed-slot-stays-bound',
    shortest: 3,
    fault: 'leaves the binding where the architecture refuses the slot after it was made',
    profile: 'linux-7.2',
    machine: class extends SimulatorMachine {
      override kvmSetMemslot(...args: Parameters<SimulatorMachine['kvmSetMemslot']>): Errno | undefined {
        const error = super.kvmSetMemslot(...args);
        const [, , fresh, change] = args;
        if (error !== undefined && change === 'CREATE' && fresh !== undefined) fresh.gmem.file = undefined;
        return error;
      }
    },
  },
  {
    id: 'slots-lock-kept-on-error',
    shortest: 4,
    fault: 'returns with slots_lock held where a region is refused',
    machine: class extends SimulatorMachine {
      override kvmSetMemoryRegion(kvm: Kvm, mem: MemoryRegion): Errno | undefined {
        const error = super.kvmSetMemoryRegion(kvm, mem);
        if (error === 'EEXIST') this.handOver('slots_lock');
        if (error === 'EEXIST') kvm.slotsLock.readers++;
        return error;
      }
    },
  },
];

const content: readonly Fault[] = [
  {
    id: 'stale-stage-two-after-punch',
    shortest: 6,
    fault: 'punches pages out and leaves them mapped in stage 2',
    machine: class extends SimulatorMachine {
      override kvmGmemInvalidateStart(): void {
        // Nothing is zapped.
      }
      override kvmGmemInvalidateEnd(): void {
        // Balanced with a start that did nothing.
      }
    },
  },
  {
    id: 'punch-zaps-first-file-only',
    shortest: 8,
    fault: 'zaps, of several files on one inode, only what the first one’s VM has mapped',
    profile: 'gmem-link-rfc',
    machine: class extends SimulatorMachine {
      override kvmGmemInvalidateStart(inode: Inode, start: number, end: number, pages: PagesAre): void {
        const [first] = inode.gmemFiles;
        if (first !== undefined) this.kvmGmemInvalidateStartFile(first, start, end, pages);
      }
      override kvmGmemInvalidateEnd(inode: Inode, start: number, end: number): void {
        const [first] = inode.gmemFiles;
        if (first !== undefined) this.kvmGmemInvalidateEndFile(first, start, end);
      }
    },
  },
  {
    id: 'pages-freed-with-file',
    shortest: 8,
    fault: 'frees the pages with the first file that goes, although they are the inode’s',
    profile: 'gmem-link-rfc',
    machine: class extends SimulatorMachine {
      override kvmGmemRelease(file: GmemFile): void {
        super.kvmGmemRelease(file);
        this.truncateInodePagesRange(file.inode, 0, file.inode.pages);
      }
    },
  },
  {
    id: 'not-zeroed-on-reuse',
    shortest: 6,
    fault: 'gives out pages with what their last owner left in them',
    machine: class extends SimulatorMachine {
      override clearHighpage(): void {
        // The frame keeps its content.
      }
    },
  },
  {
    id: 'allocated-is-up-to-date',
    shortest: 7,
    fault: 'marks pages as zeroed when fallocate allocates them, without zeroing them',
    machine: class extends SimulatorMachine {
      override kvmGmemAllocate(inode: Inode, start: number, end: number): Errno | undefined {
        const error = super.kvmGmemAllocate(inode, start, end);
        if (error === undefined) this.folioMarkUptodate(inode, start, { frame: 0, count: end - start });
        return error;
      }
    },
  },
  {
    id: 'zeroed-on-every-fault',
    shortest: 6,
    fault: 'zeroes a page each time that somebody faults it in',
    machine: class extends SimulatorMachine {
      override kvmGmemMakeUptodate(inode: Inode, index: number, folio: CachedFolio): Errno | undefined {
        return super.kvmGmemMakeUptodate(inode, index, { ...folio, uptodate: false });
      }
    },
  },
  {
    id: 'punch-one-page-too-many',
    shortest: 6,
    fault: 'punches one page more than it was asked to',
    machine: class extends SimulatorMachine {
      override kvmGmemPunchHole(inode: Inode, start: number, end: number): void {
        super.kvmGmemPunchHole(inode, start, end + 1);
      }
    },
  },
  {
    id: 'punch-one-page-too-few',
    shortest: 6,
    fault: 'leaves the last page of the range that it punches',
    machine: class extends SimulatorMachine {
      override truncateInodePagesRange(inode: Inode, start: number, end: number): void {
        super.truncateInodePagesRange(inode, start, Math.max(start, end - 1));
      }
    },
  },
  {
    id: 'punch-keeps-user-mapping',
    shortest: 5,
    fault: 'punches pages out and leaves them mapped in the host process',
    machine: class extends SimulatorMachine {
      protected override unmapMappingRange(): void {
        // The page tables keep their entries.
      }
    },
  },
  {
    id: 'private-page-mapped-by-host',
    shortest: 4,
    fault: 'lets the host process touch memory that was not created as shared',
    machine: class extends SimulatorMachine {
      protected override faultUserMapping(vma: Vma, page: number, max: number): Folio | VmFault {
        const inode = { ...vma.file.inode, flags: vma.file.inode.flags | 2n };
        return super.faultUserMapping({ ...vma, file: { ...vma.file, inode } }, page, max);
      }
    },
  },
  {
    id: 'release-keeps-stage-two',
    shortest: 6,
    fault: 'releases a file and leaves its pages mapped in stage 2',
    machine: class extends SimulatorMachine {
      override kvmGmemRelease(file: GmemFile): void {
        const { roots } = this.kvms.at(file.kvm);
        const before = roots.map((root) => [...root.all]);
        super.kvmGmemRelease(file);
        before.forEach((runs, asId) => {
          for (const run of runs) roots[asId]?.set(run.start, run.end, run.value);
        });
      }
    },
  },
  {
    id: 'file-size-rounded-up',
    shortest: 2,
    fault: 'rounds an unaligned size up instead of refusing it',
    machine: class extends SimulatorMachine {
      override kvmGmemCreate(kvm: Kvm, label: Label, size: bigint, flags: bigint): GmemFile | Errno {
        return super.kvmGmemCreate(kvm, label, (size + PAGE_MASK) & ~PAGE_MASK, flags);
      }
    },
  },
  {
    id: 'poison-reference-leaked',
    shortest: 7,
    fault: 'forgets to drop the reference to a page when it turns out to be poisoned',
    machine: class extends SimulatorMachine {
      override kvmGmemGetPfnLocked(file: GmemFile, slot: MemSlot, index: number, max: number): CachedFolio | Errno {
        const folio = super.kvmGmemGetPfnLocked(file, slot, index, max);
        const held = folio === 'EHWPOISON' ? this.filemapGetFolio(file.inode, index, 1) : undefined;
        if (held !== undefined) this.getFrames(held.frame, 1);
        if (held !== undefined) this.folioPut(held);
        return folio;
      }
    },
  },
  {
    id: 'poisoned-page-stays-mapped',
    shortest: 6,
    fault: 'leaves a page in stage 2 after a memory failure hit it',
    machine: class extends SimulatorMachine {
      override kvmGmemErrorFolio(): void {
        // Nobody is told.
      }
    },
  },
  {
    id: 'poisoned-page-freed',
    shortest: 5,
    fault: 'puts a page with a memory failure on the free list when it is punched out',
    machine: class extends SimulatorMachine {
      override freeFrames(frame: number, count: number): void {
        this.stale |= PART.FREE;
        this.freeRuns.push({ frame, count });
      }
    },
  },
];

const attributes: readonly Fault[] = [
  {
    id: 'conversion-not-zapped',
    shortest: 5,
    fault: 'converts frames and leaves their stage-2 entries of the other kind',
    machine: class extends SimulatorMachine {
      override kvmArchPreSetMemoryAttributes(): void {
        // Nothing is unmapped.
      }
    },
  },
  {
    id: 'conversion-zaps-to-private-only',
    shortest: 7,
    fault: 'leaves private stage-2 entries in place when frames become shared',
    machine: class extends SimulatorMachine {
      override kvmArchPreSetMemoryAttributes(kvm: Kvm, range: GfnRange, attributes: bigint): void {
        if (attributes !== 0n) super.kvmArchPreSetMemoryAttributes(kvm, range, attributes);
      }
    },
  },
  {
    id: 'conversion-loses-content',
    shortest: 7,
    fault: 'throws away what private memory holds when it becomes shared',
    machine: class extends SimulatorMachine {
      override kvmVmSetMemAttributes(kvm: Kvm, start: number, end: number, attributes: bigint): Errno | undefined {
        const error = super.kvmVmSetMemAttributes(kvm, start, end, attributes);
        for (const slot of attributes === 0n ? (kvm.memslots[0]?.values() ?? []) : []) {
          const file = slot.gmem.file === undefined ? undefined : this.files.at(slot.gmem.file);
          const first = Math.max(start, slot.baseGfn) - slot.baseGfn + slot.gmem.pgoff;
          const past = Math.min(end, slot.baseGfn + slot.npages) - slot.baseGfn + slot.gmem.pgoff;
          if (file?.kind === 'gmem' && first < past) this.kvmGmemPunchHole(file.inode, first, past);
        }
        return error;
      }
    },
  },
  {
    id: 'attributes-die-with-slot',
    shortest: 6,
    fault: 'forgets the attributes of a slot’s frames when the slot is deleted',
    machine: class extends SimulatorMachine {
      override kvmFreeMemslot(kvm: Kvm, slot: MemSlot): void {
        super.kvmFreeMemslot(kvm, slot);
        this.xaStore(kvm, slot.baseGfn, slot.baseGfn + slot.npages, 0n);
      }
    },
  },
  {
    id: 'attributes-lost-on-enomem',
    shortest: 4,
    fault: 'frees entries that were there before when it gives up reserving storage',
    machine: class extends SimulatorMachine {
      override xaReserve(kvm: Kvm, start: number, end: number, attributes: bigint): Errno | undefined {
        const error = super.xaReserve(kvm, start, end, attributes);
        if (error !== undefined) this.xaStore(kvm, start, end, 0n);
        return error;
      }
    },
  },
  {
    id: 'attributes-set-before-reserved',
    shortest: 3,
    fault: 'stores attributes page by page as it reserves room for them, and stops half-way where there is none',
    machine: class extends SimulatorMachine {
      override xaReserve(kvm: Kvm, start: number, end: number, attributes: bigint): Errno | undefined {
        const error = super.xaReserve(kvm, start, end, attributes);
        if (error !== undefined) this.xaStore(kvm, start, start + 1, attributes);
        return error;
      }
    },
  },
  {
    id: 'attributes-of-unprotected-vm',
    shortest: 2,
    fault: 'lets a VM without private memory make frames private',
    machine: class extends SimulatorMachine {
      override kvmVmIoctlSetMemAttributes(kvm: Kvm, args: MemoryAttributes): Errno | undefined {
        return super.kvmVmIoctlSetMemAttributes({ ...kvm, hasPrivateMem: true }, args);
      }
    },
  },
  {
    id: 'huge-page-index-beyond-slot',
    shortest: 3,
    fault: 'tracks mixed huge pages beyond the end of a slot (CVE-2024-26991)',
    machine: class extends SimulatorMachine {
      override hugepageWithinSlot(): boolean {
        return true;
      }
    },
  },
];

const faults: readonly Fault[] = [
  {
    id: 'mmap-flag-ignored-by-guest',
    shortest: 5,
    fault: 'lets guest faults go to the host address although the slot shows a mappable file',
    machine: class extends SimulatorMachine {
      override kvmGmemPrepareMemoryRegion(kvm: Kvm, slot: MemSlot, fd: Label, offset: bigint): GmemFile | Errno {
        const { flags } = slot;
        const file = super.kvmGmemPrepareMemoryRegion(kvm, slot, fd, offset);
        slot.flags = flags;
        return file;
      }
    },
  },
  {
    id: 'slot-zap-skipped',
    shortest: 5,
    fault: 'deletes or moves a slot and leaves its stage-2 entries',
    machine: class extends SimulatorMachine {
      override kvmArchFlushShadowMemslot(): void {
        // vCPUs keep what they have mapped.
      }
    },
  },
  {
    id: 'notifier-ignored',
    shortest: 5,
    fault: 'leaves stage-2 entries in place when the host unmaps the memory behind a slot',
    machine: class extends SimulatorMachine {
      protected override mmuNotifierInvalidateRangeStart(): void {
        // The MMU notifier is not registered.
      }
      protected override mmuNotifierInvalidateRangeEnd(): void {
        // Balanced with a start that did nothing.
      }
    },
  },
  {
    id: 'read-only-written',
    shortest: 5,
    fault: 'maps a read-only slot writable',
    machine: class extends SimulatorMachine {
      override setSptes(...[kvm, asId, gfn, count, spte]: Parameters<SimulatorMachine['setSptes']>): void {
        super.setSptes(kvm, asId, gfn, count, { ...spte, writable: true });
      }
    },
  },
  {
    id: 'pre-fault-reports-all',
    shortest: 4,
    fault: 'reports the whole range as pre-faulted where it stopped half-way',
    machine: class extends SimulatorMachine {
      override kvmVcpuPreFaultMemory(
        vcpu: Vcpu,
        range: Parameters<SimulatorMachine['kvmVcpuPreFaultMemory']>[1],
      ): ReturnType<SimulatorMachine['kvmVcpuPreFaultMemory']> {
        const outcome = super.kvmVcpuPreFaultMemory(vcpu, range);
        return outcome.kind === 'ok' ? { kind: 'ok', value: range.size } : outcome;
      }
    },
  },
  {
    id: 'pre-fault-in-wrong-world',
    shortest: 3,
    fault: 'pre-faults every frame of a VM with private memory as private',
    machine: class extends SimulatorMachine {
      override kvmTdpPagePrefault(
        ...[vcpu, kvm, gfn, max]: Parameters<SimulatorMachine['kvmTdpPagePrefault']>
      ): number | Errno {
        return super.kvmTdpPagePrefault(vcpu, kvm, gfn, max, kvm.hasPrivateMem);
      }
    },
  },
];

const lifecycle: readonly Fault[] = [
  {
    id: 'vcpu-does-not-pin-vm',
    shortest: 4,
    fault: 'destroys a VM while a vCPU descriptor is open',
    machine: class extends SimulatorMachine {
      override kvmVmIoctlCreateVcpu(kvm: Kvm, label: Label, id: bigint): VcpuFile | Errno {
        const file = super.kvmVmIoctlCreateVcpu(kvm, label, id);
        if (typeof file !== 'string') kvm.usersCount--;
        return file;
      }
    },
  },
  {
    id: 'init-shared-offered-to-private-vm',
    shortest: 2,
    fault: 'lets a VM with private memory create memory that the host may touch',
    machine: class extends SimulatorMachine {
      override kvmGmemGetSupportedFlags(): bigint {
        return super.kvmGmemGetSupportedFlags(undefined);
      }
    },
  },
  {
    id: 'mapping-does-not-pin-file',
    shortest: 5,
    fault: 'releases a file while it is mapped',
    machine: class extends SimulatorMachine {
      override mmapRegion(...args: Parameters<SimulatorMachine['mmapRegion']>): Vma | undefined {
        const vma = super.mmapRegion(...args);
        if (vma?.file.kind === 'gmem') vma.file.count--;
        return vma;
      }
      override munmap(vma: Vma): void {
        if (vma.file.kind === 'gmem') vma.file.count++;
        super.munmap(vma);
      }
    },
  },
];

export const GUEST_MEMFD_FAULTS: readonly Fault[] = [...bindings, ...content, ...attributes, ...faults, ...lifecycle];
