/** Virtual machines and vCPUs: creation, reference counts, destruction, extensions. Source: virt/kvm/kvm_main.c. */
import { CAP, KVM_USER_MEM_SLOTS, VM_TYPE } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import { newLock, PART } from './kernel.ts';
import { sameSpte } from './mmu.ts';
import { PageWalk } from './page-walk.ts';
import type { File, Kvm, MemSlot, Spte, Vcpu, VcpuFile, VmFile } from './objects.ts';
import { RunMap } from './ranges.ts';

export abstract class Vms extends PageWalk {
  /** kvm_dev_ioctl_create_vm() */
  kvmDevIoctlCreateVm(label: Label, type: bigint): VmFile | Errno {
    const kvm = this.kvmCreateVm(label, type);
    if (typeof kvm === 'string') return kvm;
    if (!this.kzalloc()) {
      this.kvmPutKvm(kvm);
      return 'ENOMEM';
    }
    return this.files.allocate<VmFile>((address) => ({ address, kind: 'vm', label, count: 1, kvm: kvm.address }));
  }

  /** kvm_create_vm(), kvm_arch_init_vm() */
  kvmCreateVm(label: Label, type: bigint): Kvm | Errno {
    if (!this.kzalloc()) return 'ENOMEM';
    if (type >= 32n || ((this.config.machine.vmTypes >> type) & 1n) === 0n) return 'EINVAL';
    const hasPrivateMem = this.kvmArchHasPrivateMem(type);
    const addressSpaces = this.kvmArchNrMemslotAsIds(hasPrivateMem);
    const kvm = this.kvms.allocate<Kvm>((address) => ({
      address,
      label,
      type,
      hasPrivateMem,
      usersCount: 1,
      lock: newLock('kvm->lock'),
      slotsLock: newLock('slots_lock'),
      mmuLock: newLock('mmu_lock'),
      memslots: Array.from({ length: addressSpaces }, () => new Map<number, MemSlot>()),
      roots: Array.from({ length: addressSpaces }, () => new RunMap<Spte>(sameSpte)),
      vcpus: new Map(),
      generation: 0,
      gpcList: new Set(),
      gpcInvalidateInProgress: 0,
      gpcInvalidateSeq: 0,
      caches: new Set(),
      attributes: new RunMap(),
      attributeNodes: new RunMap(),
      mmuInvalidateSeq: 0,
      mmuInvalidateInProgress: 0,
      mmuInvalidateRange: undefined,
      mnActiveInvalidateCount: 0,
      srcuReaders: 0,
    }));
    this.vmList.add(kvm);
    this.stale |= PART.VMS;
    return kvm;
  }

  /** arch/x86/kvm/x86.c: kvm_arch_init_vm(): arch.has_private_mem */
  protected kvmArchHasPrivateMem(type: bigint): boolean {
    return type === VM_TYPE.SW_PROTECTED;
  }

  /** arch/x86/include/asm/kvm_host.h: kvm_arch_nr_memslot_as_ids() */
  kvmArchNrMemslotAsIds(hasPrivateMem: boolean): number {
    return hasPrivateMem ? 1 : this.config.machine.addressSpaces;
  }

  kvmGetKvm(kvm: Kvm): void {
    kvm.usersCount++;
  }

  kvmPutKvm(kvm: Kvm): void {
    if (--kvm.usersCount === 0) this.kvmDestroyVm(kvm);
  }

  /** kvm_destroy_vm() */
  kvmDestroyVm(kvm: Kvm): void {
    this.vmList.delete(kvm);
    // mmu_notifier_unregister() calls kvm_flush_shadow_all().
    this.kvmMmuZapAll(kvm);
    this.kvmArchGuestMemoryReclaimed(kvm);
    this.kvmArchVcpuDestroy(kvm);
    kvm.vcpus.clear();
    this.vmDestroy(kvm);
    for (const slots of kvm.memslots) {
      for (const slot of slots.values()) this.kvmFreeMemslot(kvm, slot);
      slots.clear();
    }
    kvm.attributes.clear();
    kvm.attributeNodes.clear();
    this.stale |= PART.VMS | PART.SLOTS | PART.STAGE_TWO;
    this.kvms.free(kvm);
  }

  /** arch/x86/kvm/x86.c: kvm_arch_destroy_vm() calls kvm_x86_ops.vm_destroy(). */
  protected vmDestroy(_kvm: Kvm): void {
    // What a processor keeps of a VM besides is none of the others' business.
  }

  /** arch/x86/kvm/x86.c: kvm_arch_vcpu_destroy(), of all vCPUs: kvm_gpc_deactivate() for each cache that they have. */
  kvmArchVcpuDestroy(kvm: Kvm): void {
    for (const gpc of kvm.caches) {
      this.kvmGpcDeactivate(gpc);
      this.caches.delete(gpc.label);
    }
    kvm.caches.clear();
    this.freeHvaCaches(kvm);
  }

  /** kvm_vm_ioctl_create_vcpu(). A vCPU lives until its VM is destroyed, whether or not its descriptor is open. */
  kvmVmIoctlCreateVcpu(kvm: Kvm, label: Label, id: bigint): VcpuFile | Errno {
    this.lock(kvm.lock);
    const vcpu = this.kvmCreateVcpu(kvm, id);
    if (typeof vcpu !== 'string') {
      kvm.vcpus.set(id, vcpu);
      this.kvmGetKvm(kvm);
    }
    this.unlock(kvm.lock);
    if (typeof vcpu === 'string') return vcpu;
    return this.files.allocate<VcpuFile>((address) => ({ address, kind: 'vcpu', label, count: 1, vcpu }));
  }

  kvmCreateVcpu(kvm: Kvm, id: bigint): Vcpu | Errno {
    if (id >= this.config.machine.maxVcpuIds) return 'EINVAL';
    if (BigInt(kvm.vcpus.size) >= this.config.machine.maxVcpus) return 'EINVAL';
    if (kvm.vcpus.has(id)) return 'EEXIST';
    // The vCPU and its file.
    if (!this.kzalloc() || !this.kzalloc()) return 'ENOMEM';
    return { kvm: kvm.address, vcpuId: id, mutex: newLock('vcpu->mutex'), memoryFault: undefined, sigbus: false };
  }

  /** kvm_vm_release(), kvm_vcpu_release(), kvm_gmem_release() */
  protected override releaseFile(file: File): void {
    if (file.kind === 'gmem') this.kvmGmemRelease(file);
    else if (file.kind === 'vm') this.kvmPutKvm(this.kvms.at(file.kvm));
    else if (file.kind === 'vcpu') this.kvmPutKvm(this.kvms.at(file.vcpu.kvm));
  }

  /** kvm_vm_ioctl_check_extension_generic(); without a VM the answer is what any VM could have. */
  kvmCheckExtension(kvm: Kvm | undefined, cap: bigint): bigint {
    const { machine } = this.config;
    switch (cap) {
      case CAP.USER_MEMORY:
      case CAP.USER_MEMORY2:
      case CAP.READONLY_MEM:
      case CAP.MEMORY_FAULT_INFO:
      case CAP.GUEST_MEMFD:
        return 1n;
      case CAP.MAX_VCPUS:
        return machine.maxVcpus;
      case CAP.MAX_VCPU_ID:
        return machine.maxVcpuIds;
      case CAP.NR_MEMSLOTS:
        return KVM_USER_MEM_SLOTS;
      case CAP.MULTI_ADDRESS_SPACE:
        // Where there is never more than one, the extension is unknown.
        if (machine.addressSpaces === 1) return 0n;
        return BigInt(this.kvmArchNrMemslotAsIds(kvm?.hasPrivateMem ?? false));
      case CAP.MEMORY_ATTRIBUTES:
        return machine.memoryAttributes ? this.kvmSupportedMemAttributes(kvm) : 0n;
      case CAP.VM_TYPES:
        return machine.vmTypes;
      case CAP.PRE_FAULT_MEMORY:
        return machine.twoDimensionalPaging ? 1n : 0n;
      case CAP.GUEST_MEMFD_FLAGS:
        return this.kvmGmemGetSupportedFlags(kvm);
      default:
        return 0n;
    }
  }
}
