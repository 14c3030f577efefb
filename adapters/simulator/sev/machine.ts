/** The host of guests with SEV: how they come and go, and what is true of the machine. Source: arch/x86/kvm/svm/sev.c. */
import { PAGE_SHIFT, PAGE_SIZE } from '../../../model/core/abi.ts';
import type { Facts, StretchFact } from '../../../model/core/facts.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { outcomeOf } from '../kernel.ts';
import { ARENA } from '../mm.ts';
import type { Kvm, Vcpu } from '../objects.ts';
import type { MemoryRegion } from '../slots.ts';
import { sevFacts } from './facts.ts';
import { Sharing } from './sharing.ts';

export class SevMachine extends Sharing {
  /** What was done without letting others run, since the last command. */
  private readonly stretches: StretchFact[] = [];
  private sinceResched = 0;

  /** sev_vm_destroy() */
  protected override vmDestroy(kvm: Kvm): void {
    const sev = this.toKvmSevInfo(kvm);
    if (!sev.active) return;
    if (sev.encContextOwner !== undefined) this.mirrorDestroy(kvm, sev.encContextOwner);
    else this.ownerDestroy(kvm);
  }

  /** The ASID is the owner's affair. */
  mirrorDestroy(kvm: Kvm, owner: number): void {
    this.lock(this.sevMirrorLock);
    this.leaveOwner(kvm);
    this.unlock(this.sevMirrorLock);
    this.kvmPutKvm(this.kvms.at(owner));
  }

  ownerDestroy(kvm: Kvm): void {
    const sev = this.toKvmSevInfo(kvm);
    this.unregisterAll(kvm);
    if (!this.sevSnpGuest(kvm)) this.sevUnbindAsid(sev.handle);
    else if (this.snpDecommissionContext(sev) !== undefined) {
      this.leakedAsids.set(sev.asid, kvm.label);
      return;
    }
    this.sevAsidFree(sev.asid);
  }

  /** The regions of a VM that goes, of which there may be as many as the VMM likes. */
  private unregisterAll(kvm: Kvm): void {
    this.sinceResched = 0;
    let regions = 0;
    for (const region of [...(this.toKvmSevInfo(kvm).regionsList ?? [])]) {
      this.unregisterEncRegionLocked(kvm, region);
      regions = Math.max(regions, ++this.sinceResched);
      this.condResched();
    }
    if (regions > 0) this.stretches.push({ vm: kvm.label, regions });
  }

  /** cond_resched() */
  condResched(): void {
    this.sinceResched = 0;
  }

  override forgetEvents(): void {
    super.forgetEvents();
    this.stretches.length = 0;
    this.saveAreas.length = 0;
  }

  /** KVM_CREATE_VM, and the slot that every VM here has. */
  createVm(label: Label, type: bigint): Outcome {
    const created = this.install(label, this.kvmDevIoctlCreateVm(label, type));
    if (created.kind !== 'ok') return created;
    const region: MemoryRegion = {
      slot: 0n,
      flags: 0n,
      guestPhysAddr: 0n,
      memorySize: 4n * PAGE_SIZE,
      userspaceAddr: this.resolve({ base: ARENA, offset: 0n }),
      guestMemfd: '',
      guestMemfdOffset: 0n,
    };
    return this.vmIoctl(label, (kvm) => outcomeOf(this.kvmVmIoctlSetMemoryRegion(kvm, region, 'v1')));
  }

  /** kvm_vm_ioctl() */
  vmIoctl(vm: Label, run: (kvm: Kvm) => Outcome): Outcome {
    return this.withVm(vm, (kvm) => (this.toKvmSevInfo(kvm).vmDead ? fails('EIO') : run(kvm)));
  }

  createVcpu(kvm: Kvm, label: Label, id: bigint): Outcome {
    const created = this.install(label, this.kvmVmIoctlCreateVcpu(kvm, label, id));
    const vcpu = kvm.vcpus.get(id);
    if (created.kind === 'ok' && vcpu !== undefined) this.sevVcpuCreate(kvm, vcpu);
    return created;
  }

  /** kvm_vcpu_ioctl() */
  vcpuIoctl(label: Label, run: (vcpu: Vcpu) => Outcome): Outcome {
    return this.withVcpu(label, (vcpu) =>
      this.toKvmSevInfo(this.kvms.at(vcpu.kvm)).vmDead ? fails('EIO') : run(vcpu),
    );
  }

  /** KVM_RUN */
  vcpuRun(label: Label, gfn: bigint, value: bigint | undefined): Outcome {
    return this.vcpuIoctl(label, (vcpu) => this.kvmRun(vcpu, gfn << PAGE_SHIFT, value));
  }

  /** mm/madvise.c: madvise_remove(), mm/shmem.c: shmem_fallocate(), of one page of the arena */
  madviseRemove(page: number): Outcome {
    const arena = this.vmas.get(ARENA);
    if (arena !== undefined) this.truncateInodePagesRange(arena.file.inode, page, page + 1);
    return ok();
  }

  /** Not what is resident: pages of the process come and go with whoever touches them. */
  override facts(): Facts {
    const { vms, files, inodes, slots, free } = this.simulated();
    return { vms, files, inodes, slots, free, ...sevFacts(this), stretches: [...this.stretches] };
  }
}
