/** KVM_MEMORY_ENCRYPT_OP: a guest gets its context, and its first memory. Source: arch/x86/kvm/svm/sev.c. */
import { PAGE_MASK, VM_TYPE } from '../../../model/core/abi.ts';
import type { SaveAreaFact } from '../../../model/core/facts.ts';
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import { newLock } from '../kernel.ts';
import type { Kvm, Vcpu } from '../objects.ts';
import type { SevFd, SevInfo } from './objects.ts';
import { Pins } from './pins.ts';
import { SNP_ACTIVE } from './svm.ts';

const GHCB_VERSION_MIN = 1n;
const GHCB_VERSION_MAX = 2n;

/** sev_supported_vmsa_features: SVM_SEV_FEAT_DEBUG_SWAP */
const SUPPORTED_VMSA_FEATURES = 1n << 5n;

/** Documentation/virt/kvm/x86/amd-memory-encryption.rst: address and length of LAUNCH_UPDATE_DATA. */
const FIRMWARE_ALIGNMENT = 16n;

/** struct kvm_sev_init */
export interface SevInit {
  readonly flags: bigint;
  readonly vmsaFeatures: bigint;
  readonly ghcbVersion: bigint;
}

export type SevCommand =
  | 'INIT'
  | 'ES_INIT'
  | 'INIT2'
  | 'LAUNCH_START'
  | 'LAUNCH_UPDATE_DATA'
  | 'LAUNCH_UPDATE_VMSA'
  | 'LAUNCH_MEASURE'
  | 'LAUNCH_FINISH'
  | 'GUEST_STATUS'
  | SnpCommand;

/** Those from KVM_SEV_SNP_LAUNCH_START on, which alone an SNP guest takes. */
export type SnpCommand = 'SNP_LAUNCH_START' | 'SNP_LAUNCH_FINISH';

const isOfSnp = (command: SevCommand): command is SnpCommand => command.startsWith('SNP_');

const FROM_MIRROR: ReadonlySet<SevCommand> = new Set(['LAUNCH_UPDATE_VMSA', 'GUEST_STATUS']);

export abstract class Launch extends Pins {
  private readonly sevCmdMutex = newLock('sev_cmd_mutex');
  /** Save areas that were encrypted since the last command. */
  readonly saveAreas: SaveAreaFact[] = [];

  /** sev_mem_enc_ioctl(): what every command is held against first, and then `run`. */
  sevMemEncIoctl(kvm: Kvm, command: SevCommand, run: () => Errno | undefined | bigint): Outcome {
    this.lock(kvm.lock);
    const result = this.sevMemEncRefuses(kvm, command) ?? run();
    this.unlock(kvm.lock);
    return typeof result === 'string' ? fails(result) : ok(result);
  }

  private sevMemEncRefuses(kvm: Kvm, command: SevCommand): Errno | undefined {
    if (this.isMirroringEncContext(kvm) && !this.isCmdAllowedFromMirror(command)) return 'EINVAL';
    return this.sevSnpGuest(kvm) && !isOfSnp(command) ? 'EPERM' : undefined;
  }

  /** is_cmd_allowed_from_mirror() */
  isCmdAllowedFromMirror(command: SevCommand): boolean {
    return FROM_MIRROR.has(command);
  }

  /** sev_guest_init(): KVM_SEV_INIT, KVM_SEV_ES_INIT */
  sevGuestInit(kvm: Kvm, command: 'INIT' | 'ES_INIT'): Errno | undefined {
    if (kvm.type !== VM_TYPE.DEFAULT) return 'EINVAL';
    const isEs = command === 'ES_INIT';
    const init = { flags: 0n, vmsaFeatures: 0n, ghcbVersion: isEs ? GHCB_VERSION_MIN : 0n };
    return this.sevGuestInitAs(kvm, init, isEs ? VM_TYPE.SEV_ES : VM_TYPE.SEV);
  }

  /** sev_guest_init2() */
  sevGuestInit2(kvm: Kvm, init: SevInit): Errno | undefined {
    // The types that want it are those that KVM_SEV_INIT2 takes.
    return this.toKvmSevInfo(kvm).needInit ? this.sevGuestInitAs(kvm, init, kvm.type) : 'EINVAL';
  }

  /** __sev_guest_init() */
  sevGuestInitAs(kvm: Kvm, init: SevInit, type: bigint): Errno | undefined {
    const sev = this.toKvmSevInfo(kvm);
    const esActive = type !== VM_TYPE.SEV;
    if (kvm.vcpus.size > 0 || !this.isSevInit(init, type) || sev.active) return 'EINVAL';
    sev.active = true;
    sev.esActive = esActive;
    sev.vmsaFeatures = init.vmsaFeatures | (type === VM_TYPE.SNP ? SNP_ACTIVE : 0n);
    const error = this.sevAsidNew(kvm);
    if (error !== undefined) {
      Object.assign(sev, { vmsaFeatures: 0n, esActive: false, active: false });
      return error;
    }
    Object.assign(sev, { regionsList: [], mirrorVms: [], needInit: false });
    return undefined;
  }

  /** The middle of __sev_guest_init(). A GHCB version of 0 stands for 2. */
  isSevInit({ flags, vmsaFeatures, ghcbVersion }: SevInit, type: bigint): boolean {
    if (flags !== 0n || ghcbVersion > GHCB_VERSION_MAX) return false;
    if (type === VM_TYPE.SEV) return vmsaFeatures === 0n && ghcbVersion === 0n;
    if ((vmsaFeatures & ~SUPPORTED_VMSA_FEATURES) !== 0n) return false;
    return type !== VM_TYPE.SNP || ghcbVersion !== GHCB_VERSION_MIN;
  }

  /** sev_issue_cmd(): the command goes to the firmware if the descriptor is that of /dev/sev. One goes at a time. */
  sevIssueCmd<T>({ fd }: Pick<SevInfo, 'fd'>, run: () => T): T | 'EBADF' {
    if (fd !== '/dev/sev') return 'EBADF';
    this.lock(this.sevCmdMutex);
    const result = run();
    this.unlock(this.sevCmdMutex);
    return result;
  }

  /** sev_launch_start() */
  sevLaunchStart(kvm: Kvm, fd: SevInfo['fd']): Errno | undefined {
    if (!this.sevGuest(kvm)) return 'ENOTTY';
    const sev = this.toKvmSevInfo(kvm);
    const handle = this.sevIssueCmd({ fd }, () => this.firmware.launchStart());
    if (typeof handle === 'string') return handle;
    const error = this.firmware.activate(handle, sev.asid);
    if (error !== undefined) {
      this.sevDecommission(handle);
      return error;
    }
    Object.assign(sev, { handle, fd });
    return undefined;
  }

  /** sev_decommission(). Nobody looks at what comes of it. */
  sevDecommission(handle: number): void {
    if (handle !== 0) this.firmware.decommission(handle);
  }

  /** sev_unbind_asid() */
  sevUnbindAsid(handle: number): void {
    if (handle === 0) return;
    this.firmware.deactivate(handle);
    this.sevDecommission(handle);
  }

  /** sev_launch_update_data() */
  sevLaunchUpdateData(kvm: Kvm, uaddr: bigint, length: bigint): Errno | undefined {
    if (!this.sevGuest(kvm)) return 'ENOTTY';
    const frames = this.sevPinMemory(kvm, uaddr, length);
    if (typeof frames === 'string') return frames;
    const sev = this.toKvmSevInfo(kvm);
    const result = this.sevIssueCmd(sev, () => this.launchUpdateData(sev.handle, uaddr, length, frames));
    this.sevUnpinMemory(kvm, frames);
    return result;
  }

  /** The firmware's part, of frames in a row. */
  private launchUpdateData(
    handle: number,
    uaddr: bigint,
    length: bigint,
    frames: readonly number[],
  ): Errno | undefined {
    if ((uaddr | length) % FIRMWARE_ALIGNMENT !== 0n) return 'EIO';
    const key = this.firmware.launchUpdate(handle);
    if (typeof key === 'string') return key;
    frames.forEach((frame, index) => {
      // The word that tells the page is its first one.
      if (index > 0 || (uaddr & PAGE_MASK) === 0n) this.encryptInPlace(frame, key);
    });
    return undefined;
  }

  /** sev_launch_update_vmsa() */
  sevLaunchUpdateVmsa(kvm: Kvm): Errno | undefined {
    if (!this.sevEsGuest(kvm)) return 'ENOTTY';
    this.kvmLockAllVcpus(kvm);
    let error: Errno | undefined;
    const sev = this.toKvmSevInfo(kvm);
    for (const vcpu of kvm.vcpus.values()) {
      error = this.encryptVmsa(kvm, vcpu, sev.fd, sev.handle);
      if (error !== undefined) break;
    }
    this.kvmUnlockAllVcpus(kvm);
    return error;
  }

  /** __sev_launch_update_vmsa(), and what a step of snp_launch_update_vmsa() does: the registers as they are, encrypted. */
  protected encryptVmsa(kvm: Kvm, vcpu: Vcpu, fd: SevFd, handle: number): Errno | undefined {
    if (!this.sevEsSyncVmsa(vcpu)) return 'EINVAL';
    const key = this.sevIssueCmd({ fd }, () => this.firmware.launchUpdate(handle));
    if (typeof key === 'string') return key;
    const svm = this.toSvm(vcpu);
    svm.guestStateProtected = true;
    this.saveAreas.push({ vm: kvm.label, vcpu: Number(vcpu.vcpuId), stale: svm.vmsa !== svm.registers });
    return undefined;
  }

  /** sev_es_sync_vmsa(): what is encrypted cannot be filled in again. */
  sevEsSyncVmsa(vcpu: Vcpu): boolean {
    const svm = this.toSvm(vcpu);
    if (svm.guestStateProtected) return false;
    svm.vmsa = svm.registers;
    return true;
  }

  /** kvm_arch_vcpu_ioctl_set_regs(). Only types of their own have `has_protected_state`. */
  kvmArchVcpuIoctlSetRegs(vcpu: Vcpu, value: bigint): Errno | undefined {
    const { type } = this.kvms.at(vcpu.kvm);
    const svm = this.toSvm(vcpu);
    if ((type === VM_TYPE.SEV_ES || type === VM_TYPE.SNP) && svm.guestStateProtected) return 'EINVAL';
    svm.registers = value;
    return undefined;
  }

  /** sev_launch_measure(), sev_launch_finish(), sev_guest_status(): what the firmware says of the context. */
  sevLaunchCmd<T>(kvm: Kvm, command: (handle: number) => T): T | Errno {
    if (!this.sevGuest(kvm)) return 'ENOTTY';
    const sev = this.toKvmSevInfo(kvm);
    return this.sevIssueCmd(sev, () => command(sev.handle));
  }

  /** virt/kvm/kvm_main.c: kvm_lock_all_vcpus() */
  kvmLockAllVcpus(kvm: Kvm): void {
    for (const { mutex } of kvm.vcpus.values()) this.lock(mutex);
  }

  kvmUnlockAllVcpus(kvm: Kvm): void {
    for (const { mutex } of kvm.vcpus.values()) this.unlock(mutex);
  }
}
