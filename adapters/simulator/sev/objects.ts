/** What KVM keeps of a guest with SEV. Source: arch/x86/kvm/svm/svm.h. */
import { VM_TYPE } from '../../../model/core/abi.ts';
import type { Label } from '../../../model/core/state.ts';

/** A descriptor of the process, as the number that KVM keeps: /dev/sev, or 0, which names standard input. */
export type SevFd = '/dev/sev' | 'stdin';

/** struct enc_region */
export interface EncRegion {
  readonly uaddr: bigint;
  readonly size: bigint;
  readonly frames: readonly number[];
}

/** struct kvm_sev_info, and vm_dead of struct kvm. A list that was not initialised is undefined. */
export interface SevInfo {
  active: boolean;
  esActive: boolean;
  /** The type of the VM wants KVM_SEV_INIT2 before anything runs. */
  needInit: boolean;
  asid: number;
  /** Of the firmware's context; 0 where there is none. */
  handle: number;
  fd: SevFd;
  pagesLocked: number;
  regionsList: EncRegion[] | undefined;
  vmsaFeatures: bigint;
  /** Address of the struct kvm whose context this is. */
  encContextOwner: number | undefined;
  /** Addresses of the struct kvm that mirror this one. */
  mirrorVms: number[] | undefined;
  migrationInProgress: boolean;
  /** have_run_cpus, of one processor: the VM has run on it. */
  haveRunCpus: boolean;
  /** The firmware's number for the context of an SNP guest. */
  snpContext: number | undefined;
  vmDead: boolean;
  /** For facts alone: who stood at `encContextOwner` when it was written. */
  ownerBirth: Label | undefined;
}

/** sev_vm_init() */
export const newSevInfo = (type: bigint): SevInfo => ({
  active: false,
  esActive: false,
  needInit: type === VM_TYPE.SEV || type === VM_TYPE.SEV_ES || type === VM_TYPE.SNP,
  asid: 0,
  handle: 0,
  fd: 'stdin',
  pagesLocked: 0,
  regionsList: undefined,
  vmsaFeatures: 0n,
  encContextOwner: undefined,
  mirrorVms: undefined,
  migrationInProgress: false,
  haveRunCpus: false,
  snpContext: undefined,
  vmDead: false,
  ownerBirth: undefined,
});

/** struct vcpu_svm, as far as SEV-ES is concerned. */
export interface VcpuSvm {
  /** vmsa_pa names a page. */
  hasVmsa: boolean;
  /** arch.guest_state_protected */
  guestStateProtected: boolean;
  /** arch.regs, and what the save area was filled with: told by one word. */
  registers: bigint;
  vmsa: bigint;
}

/** svm_vcpu_create() */
export const newVcpuSvm = (): VcpuSvm => ({ hasVmsa: false, guestStateProtected: false, registers: 0n, vmsa: 0n });
