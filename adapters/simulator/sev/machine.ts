/** The host of guests with SEV: how they come and go, and what is true of the machine. Source: arch/x86/kvm/svm/sev.c. */
import { PAGE_SHIFT, PAGE_SIZE } from '../../../model/core/abi.ts';
import type { Facts } from '../../../model/core/facts.ts';
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import type { Simulated } from '../facts.ts';
import { ARENA } from '../mm.ts';
import type { Kvm, Vcpu } from '../objects.ts';
import type { MemoryRegion } from '../slots.ts';
import { sevFacts } from './facts.ts';
import { Sharing } from './sharing.ts';

export const outcomeOf = (error: Errno | undefined): Outcome => (error === undefined ? ok() : fails(error));

export class SevMachine extends Sharing {
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
    for (const region of [...(sev.regionsList ?? [])]) this.unregisterEncRegionLocked(kvm, region);
    if (!this.sevSnpGuest(kvm)) this.sevUnbindAsid(sev.handle);
    else if (this.snpDecommissionContext(sev) !== undefined) {
      this.leakedAsids.set(sev.asid, kvm.label);
      return;
    }
    this.sevAsidFree(sev.asid);
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

  /** kvm_vcpu_ioctl(): KVM_RUN */
  vcpuRun(label: Label, gfn: bigint, value: bigint | undefined): Outcome {
    return this.withVcpu(label, (vcpu: Vcpu) =>
      this.toKvmSevInfo(this.kvms.at(vcpu.kvm)).vmDead ? fails('EIO') : this.kvmRun(vcpu, gfn << PAGE_SHIFT, value),
    );
  }

  override facts(): Simulated & Facts {
    return { ...super.facts(), ...sevFacts(this) };
  }
}
