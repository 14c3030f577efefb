/** What hardware, configuration and memory a kernel runs on: data, which the simulator may share with the specification. */
import { VM_TYPE } from './abi.ts';

export interface Machine {
  /** Bit n is set where KVM_CREATE_VM accepts type n (KVM_CAP_VM_TYPES). */
  readonly vmTypes: bigint;
  /** CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES: without it KVM_SET_MEMORY_ATTRIBUTES is an unknown ioctl. */
  readonly memoryAttributes: boolean;
  /** Two-dimensional paging, without which nothing can be pre-faulted (KVM_CAP_PRE_FAULT_MEMORY). */
  readonly twoDimensionalPaging: boolean;
  /** Memslot address spaces of a VM without private memory: 2 where the kernel has SMM, else 1. */
  readonly addressSpaces: number;
  /** Guest frames of slots are numbered below 2^(this − 12). Source: kvm_mmu_max_gfn(). */
  readonly guestPhysicalBits: number;
  /** vCPUs are told that their physical addresses have so many bits (CPUID 0x80000008); they name nothing beyond. */
  readonly vcpuPhysicalBits: number;
  /** First address past what a process may name. Source: TASK_SIZE_MAX, access_ok(). */
  readonly userTop: bigint;
  /** KVM_CREATE_VCPU takes ids below this one (KVM_CAP_MAX_VCPU_ID). */
  readonly maxVcpuIds: bigint;
  /** So many vCPUs a VM can have (KVM_CAP_MAX_VCPUS). */
  readonly maxVcpus: bigint;
  /** memfd_secret(): CONFIG_SECRETMEM, and secretmem.enable, which is on unless told otherwise since Linux 6.5. */
  readonly secretMemory: boolean;
  /** process_vm_readv() and process_vm_writev(): CONFIG_CROSS_MEMORY_ATTACH. */
  readonly processVm: boolean;
  /** Memory that a program may use. Where more would be needed the specification takes no position. */
  readonly memoryBytes: bigint;
}

/**
 * What the simulator offers, and a kernel built with software-protected VMs on a machine with two-level paging; but for
 * the vCPUs, which are so few that programs reach the limit.
 */
export const FULL_MACHINE: Machine = {
  vmTypes: (1n << VM_TYPE.DEFAULT) | (1n << VM_TYPE.SW_PROTECTED),
  memoryAttributes: true,
  twoDimensionalPaging: true,
  addressSpaces: 2,
  guestPhysicalBits: 52,
  vcpuPhysicalBits: 52,
  userTop: 0x7fff_ffff_f000n,
  maxVcpuIds: 4096n,
  maxVcpus: 4n,
  secretMemory: true,
  processVm: true,
  memoryBytes: 8n << 40n,
};
