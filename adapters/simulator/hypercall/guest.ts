/** A guest of one vCPU: its registers, its text, and what KVM keeps of it. */
import type { Label } from '../../../model/core/state.ts';
import { newLock, type Lock } from '../kernel.ts';

export type Processor = 'amd' | 'intel';
export type Instruction = 'vmcall' | 'vmmcall';

/** Where in its text a guest has an instruction that calls the host. */
export type Place = 'vmcall' | 'vmmcall' | 'ordinary' | 'announcement';

/** KVM_HC_MAP_GPA_RANGE, and how it and others are answered. Source: include/uapi/linux/kvm_para.h. */
export const KVM_HC_MAP_GPA_RANGE = 12n;
export const KVM_EPERM = 1n;
export const KVM_EINVAL = 22n;
export const KVM_ENOSYS = 1000n;

export interface Registers {
  readonly cpl: number;
  /** CS.L: 64-bit mode, and not compatibility mode. */
  readonly isLong: boolean;
  rax: bigint;
  readonly rbx: bigint;
  readonly rcx: bigint;
  readonly rdx: bigint;
}

/** struct kvm_run, after KVM_EXIT_HYPERCALL. */
export interface HypercallExit {
  ret: bigint;
  readonly args: readonly [gpa: bigint, pages: bigint, attributes: bigint];
}

/** struct kvm and its only vCPU. */
export interface HypercallGuest {
  readonly label: Label;
  readonly cpu: Processor;
  /** Memory of the guest is encrypted: KVM reads nothing of it, nor of its text. */
  readonly sev: boolean;
  readonly text: Map<Place, Instruction>;
  /** A write to the text by the guest's own mapping is allowed. */
  readonly isTextWritable: boolean;
  readonly lock: Lock;
  readonly vcpuMutex: Lock;
  /** arch.hypercall_exit_enabled */
  hypercallExitEnabled: bigint;
  /** arch.disabled_quirks */
  disabledQuirks: bigint;
  regs: Registers;
  run: HypercallExit | undefined;
  /** arch.complete_userspace_io is set: KVM_RUN goes on with the answer to an exit. */
  completesIo: boolean;
}

type Made = Pick<HypercallGuest, 'label' | 'cpu' | 'sev' | 'text' | 'isTextWritable'>;

export const newGuest = (made: Made): HypercallGuest => ({
  ...made,
  lock: newLock('kvm->lock'),
  vcpuMutex: newLock('vcpu->mutex'),
  hypercallExitEnabled: 0n,
  disabledQuirks: 0n,
  regs: { cpl: 0, isLong: true, rax: 0n, rbx: 0n, rcx: 0n, rdx: 0n },
  run: undefined,
  completesIo: false,
});
