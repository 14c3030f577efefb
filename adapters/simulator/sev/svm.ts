/** Processors that run guests under ASIDs, in memory that is under keys. Source: arch/x86/kvm/svm/svm.c, sev.c. */
import { VM_TYPE } from '../../../model/core/abi.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Config } from '../../../model/core/profile.ts';
import type { Folio } from '../frames.ts';
import { newLock, Oops } from '../kernel.ts';
import { SimulatorMachine } from '../machine.ts';
import type { Kvm, Vcpu } from '../objects.ts';
import { Firmware } from './firmware.ts';
import { KeyedMemory } from './memory.ts';
import { newSevInfo, newVcpuSvm, type SevInfo, type VcpuSvm } from './objects.ts';

const SEV_TYPES = (1n << VM_TYPE.SEV) | (1n << VM_TYPE.SEV_ES) | (1n << VM_TYPE.SNP);

/** SVM_SEV_FEAT_SNP_ACTIVE */
export const SNP_ACTIVE = 1n << 0n;

/** What stands in memory where a guest has written, as far as the host can tell: not zero. */
const CIPHERTEXT = 1n;

export abstract class Svm extends SimulatorMachine {
  readonly firmware = new Firmware();
  readonly memory = new KeyedMemory();
  readonly sevBitmapLock = newLock('sev_bitmap_lock');
  readonly sevMirrorLock = newLock('sev_mirror_lock');
  private readonly sevInfos = new WeakMap<Kvm, SevInfo>();
  private readonly vcpuSvms = new WeakMap<Vcpu, VcpuSvm>();

  constructor({ profile, machine }: Config) {
    super({ profile, machine: { ...machine, vmTypes: machine.vmTypes | SEV_TYPES } });
  }

  toKvmSevInfo(kvm: Kvm): SevInfo {
    let sev = this.sevInfos.get(kvm);
    if (sev === undefined) this.sevInfos.set(kvm, (sev = newSevInfo(kvm.type)));
    return sev;
  }

  toSvm(vcpu: Vcpu): VcpuSvm {
    let svm = this.vcpuSvms.get(vcpu);
    if (svm === undefined) this.vcpuSvms.set(vcpu, (svm = newVcpuSvm()));
    return svm;
  }

  sevGuest(kvm: Kvm): boolean {
    return this.toKvmSevInfo(kvm).active;
  }

  sevEsGuest(kvm: Kvm): boolean {
    const { active, esActive } = this.toKvmSevInfo(kvm);
    return active && esActive;
  }

  sevSnpGuest(kvm: Kvm): boolean {
    return (this.toKvmSevInfo(kvm).vmsaFeatures & SNP_ACTIVE) !== 0n;
  }

  isMirroringEncContext(kvm: Kvm): boolean {
    return this.toKvmSevInfo(kvm).encContextOwner !== undefined;
  }

  protected override kvmArchHasPrivateMem(type: bigint): boolean {
    return type === VM_TYPE.SNP || super.kvmArchHasPrivateMem(type);
  }

  /** sev_vcpu_create(), behind the checks that every vCPU is created with */
  sevVcpuCreate(kvm: Kvm, vcpu: Vcpu): void {
    if (this.sevEsGuest(kvm)) this.toSvm(vcpu).hasVmsa = true;
  }

  /** kvm_x86_vcpu_pre_run(), pre_sev_run() */
  override kvmRun(vcpu: Vcpu, gpa: bigint, value: bigint | undefined): Outcome {
    const kvm = this.kvms.at(vcpu.kvm);
    if (this.sevVcpuNeedsInitialization(kvm)) return fails('EINVAL');
    if (this.sevEsGuest(kvm) && !this.toSvm(vcpu).hasVmsa) return fails('EINVAL');
    return super.kvmRun(vcpu, gpa, value);
  }

  sevVcpuNeedsInitialization(kvm: Kvm): boolean {
    return this.toKvmSevInfo(kvm).needInit;
  }

  protected override guestAccess(vcpu: Vcpu, frame: number, _gpa: bigint, value: bigint | undefined): Outcome {
    const sev = this.toKvmSevInfo(this.kvms.at(vcpu.kvm));
    const { asid } = sev;
    const key = this.firmware.keyOf(asid);
    // Nothing is specified of a guest that runs before the firmware has given its ASID a key.
    if (key === undefined) return fails('EIO');
    sev.haveRunCpus = true;
    if (value !== undefined) {
      this.memory.store(frame, asid, key, value);
      this.writeWord(frame, 0, CIPHERTEXT);
      return ok();
    }
    const word = this.memory.load(frame, asid, key);
    return word === 'ciphertext' ? { kind: 'ciphertext' } : ok(word);
  }

  /** LAUNCH_UPDATE_DATA, of one page */
  encryptInPlace(frame: number, key: number): void {
    this.memory.encryptInPlace(frame, key);
    this.writeWord(frame, 0, CIPHERTEXT);
  }

  /** sev_writeback_caches() */
  sevWritebackCaches(kvm: Kvm): void {
    if (this.toKvmSevInfo(kvm).haveRunCpus) this.memory.wbnoinvd();
  }

  /** sev_guest_memory_reclaimed(). Private memory of an SNP guest is not what user space maps. */
  override kvmArchGuestMemoryReclaimed(kvm: Kvm): void {
    if (this.sevGuest(kvm) && !this.sevSnpGuest(kvm)) this.sevWritebackCaches(kvm);
  }

  override clearHighpage(folio: Folio): void {
    for (const frame of this.framesWithContents(folio)) this.memory.clear(frame);
    super.clearHighpage(folio);
  }
}

/** A list that the kernel walks. Before INIT_LIST_HEAD its pointers are NULL. */
export function walked<T>(list: T[] | undefined): T[] {
  if (list === undefined) throw new Oops('a list_head that was not initialised');
  return list;
}
