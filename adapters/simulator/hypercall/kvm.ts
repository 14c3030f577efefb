/**
 * How a hypercall gets from the guest's instruction to KVM, and back. Source: arch/x86/kvm/x86.c, emulate.c, svm/svm.c,
 * vmx/vmx.c, regs.h of 7.3.4.
 */
import { isPageAligned, PAGE_SHIFT, U32_MAX, wrap64 } from '../../../model/core/abi.ts';
import type { Errno, Outcome } from '../../../model/core/outcome.ts';
import { Kernel } from '../kernel.ts';
import {
  KVM_EINVAL,
  KVM_ENOSYS,
  KVM_EPERM,
  KVM_HC_MAP_GPA_RANGE,
  type HypercallGuest,
  type Instruction,
  type Place,
  type Processor,
} from './guest.ts';

/** KVM_X86_QUIRK_FIX_HYPERCALL_INSN */
const FIX_HYPERCALL_INSN = 1n << 5n;
/** kvm_caps.supported_quirks: bits 0 to 11 */
const SUPPORTED_QUIRKS = (1n << 12n) - 1n;
/** KVM_EXIT_HYPERCALL_VALID_MASK */
const VALID_EXITS = 1n << KVM_HC_MAP_GPA_RANGE;

/** Instructions that the processor has, and always leaves the guest for. */
const NATIVE: Readonly<Record<Processor, Instruction>> = { amd: 'vmmcall', intel: 'vmcall' };

export type Vector = '#UD' | '#GP' | '#PF';

/** What comes of an instruction: the guest goes on, is given an exception, or executes it again; or the VMM is asked. */
type Executed = 'resumed' | 'again' | 'exit' | 'undecodable' | Vector;

const RAX_OF: Readonly<Partial<Record<Errno, bigint>>> = {
  EPERM: wrap64(-KVM_EPERM),
  EINVAL: wrap64(-KVM_EINVAL),
  ENOSYS: wrap64(-KVM_ENOSYS),
};

export class HypercallKvm extends Kernel {
  /** kvm_vm_ioctl_enable_cap(): KVM_CAP_EXIT_HYPERCALL */
  enableExitHypercall(guest: HypercallGuest, mask: bigint): Errno | undefined {
    if ((mask & ~VALID_EXITS) !== 0n) return 'EINVAL';
    guest.hypercallExitEnabled = mask;
    return undefined;
  }

  /** kvm_vm_ioctl_enable_cap(): KVM_CAP_DISABLE_QUIRKS2. What is disabled stays so. */
  disableQuirks2(guest: HypercallGuest, mask: bigint): Errno | undefined {
    if ((mask & ~SUPPORTED_QUIRKS) !== 0n) return 'EINVAL';
    this.lock(guest.lock);
    guest.disabledQuirks |= mask;
    this.unlock(guest.lock);
    return undefined;
  }

  kvmCheckHasQuirk({ disabledQuirks }: HypercallGuest, quirk: bigint): boolean {
    return (disabledQuirks & quirk) === 0n;
  }

  /** KVM_RUN of a guest that executes what is at a place of its text. */
  kvmRun(guest: HypercallGuest, place: Place): Outcome {
    this.lock(guest.vcpuMutex);
    let executed = this.executeAt(guest, place);
    // What was patched is the processor's own instruction, unless the wrong one was patched in.
    for (let times = 1; executed === 'again' && times < 3; times++) executed = this.executeAt(guest, place);
    this.unlock(guest.vcpuMutex);
    return this.outcomeOf(guest, executed);
  }

  /** The processor's part: an instruction that it has is intercepted; the other one is undefined. */
  private executeAt(guest: HypercallGuest, place: Place): Executed {
    const instruction = guest.text.get(place);
    if (instruction === NATIVE[guest.cpu]) return this.kvmEmulateHypercall(guest);
    return this.interceptsUd(guest) ? this.handleUd(guest, place) : '#UD';
  }

  /** init_vmcb(), vmx_update_exception_bitmap(); sev_init_vmcb(), but not as the thread of 2020 has it. */
  interceptsUd({ sev }: HypercallGuest): boolean {
    return !sev || this.has('hypercall-patched');
  }

  /** handle_ud(), x86_decode_emulated_instruction() */
  handleUd(guest: HypercallGuest, place: Place): Executed {
    const instruction = this.fetch(guest, place);
    if (instruction === undefined) return 'undecodable';
    // x86_emulate_insn(): in opcode tables VMCALL has the flag Priv, and VMMCALL has not.
    if (instruction === 'vmcall' && guest.regs.cpl !== 0) return '#GP';
    return this.emulatorFixHypercall(guest, place);
  }

  /** kvm_read_guest_virt(): of encrypted text KVM sees ciphertext. */
  fetch({ sev, text }: HypercallGuest, place: Place): Instruction | undefined {
    return sev ? undefined : text.get(place);
  }

  /** em_hypercall(), emulator_fix_hypercall() */
  emulatorFixHypercall(guest: HypercallGuest, place: Place): Executed {
    if (!this.kvmCheckHasQuirk(guest, FIX_HYPERCALL_INSN)) return '#UD';
    // emulator_write_emulated()
    if (!guest.isTextWritable) return '#PF';
    guest.text.set(place, this.patchHypercall(guest));
    return 'again';
  }

  /** svm_patch_hypercall(), vmx_patch_hypercall() */
  patchHypercall({ cpu }: HypercallGuest): Instruction {
    return NATIVE[cpu];
  }

  /** kvm_emulate_hypercall(), __kvm_emulate_hypercall() */
  kvmEmulateHypercall(guest: HypercallGuest): Executed {
    const exits = this.kvmEmulateHypercallOrExit(guest);
    if (exits) return 'exit';
    this.completeHypercallExit(guest);
    return 'resumed';
  }

  /** ____kvm_emulate_hypercall(): whether user space is asked; else the answer is in `ret`. */
  kvmEmulateHypercallOrExit(guest: HypercallGuest): boolean {
    const { rax, rbx, rcx, rdx, cpl } = guest.regs;
    const [nr, gpa, npages, attrs] = [rax, rbx, rcx, rdx].map((each) => this.readRegister(guest, each)) as Four;
    const error = this.checkCpl(cpl) ?? this.checkHypercall(guest, nr, gpa, npages);
    guest.run = { ret: error === undefined ? this.presetRet(guest) : wrap64(-error), args: [gpa, npages, attrs] };
    guest.completesIo = error === undefined;
    return guest.completesIo;
  }

  checkCpl(cpl: number): bigint | undefined {
    return cpl === 0 ? undefined : KVM_EPERM;
  }

  private checkHypercall(guest: HypercallGuest, nr: bigint, gpa: bigint, npages: bigint): bigint | undefined {
    if (nr !== KVM_HC_MAP_GPA_RANGE || !this.userExitOnHypercall(guest, nr)) return KVM_ENOSYS;
    return this.isMapGpaRange(gpa, npages) ? undefined : KVM_EINVAL;
  }

  /** The middle of KVM_HC_MAP_GPA_RANGE */
  isMapGpaRange(gpa: bigint, npages: bigint): boolean {
    const gfn = gpa >> PAGE_SHIFT;
    return isPageAligned(gpa) && npages !== 0n && wrap64(gfn + npages) > gfn;
  }

  userExitOnHypercall({ hypercallExitEnabled }: HypercallGuest, nr: bigint): boolean {
    return (hypercallExitEnabled & (1n << nr)) !== 0n;
  }

  /** run->hypercall.ret before user space sees the exit. */
  presetRet(_guest: HypercallGuest): bigint {
    return 0n;
  }

  /** is_64_bit_hypercall(): in compatibility mode registers have 32 bits. */
  readRegister({ regs }: HypercallGuest, value: bigint): bigint {
    return regs.isLong ? value : value & U32_MAX;
  }

  /** complete_hypercall_exit() */
  completeHypercallExit(guest: HypercallGuest): void {
    guest.completesIo = false;
    guest.regs.rax = this.readRegister(guest, guest.run?.ret ?? 0n);
  }

  /** KVM_RUN after an exit, into which the VMM has put `ret` where it does so at all. */
  kvmRunAgain(guest: HypercallGuest, ret: bigint | undefined): bigint {
    this.lock(guest.vcpuMutex);
    if (guest.run !== undefined && ret !== undefined) guest.run.ret = ret;
    this.completeHypercallExit(guest);
    this.unlock(guest.vcpuMutex);
    return guest.regs.rax;
  }

  private outcomeOf({ regs, run }: HypercallGuest, executed: Executed): Outcome {
    switch (executed) {
      case 'exit': {
        const [gpa, pages, attributes] = run?.args ?? [0n, 0n, 0n];
        return { kind: 'hypercall', gpa, pages, private: (attributes & (1n << 4n)) !== 0n, attributes };
      }
      case 'resumed':
        return answerOf(regs.rax, regs.isLong);
      case 'again':
        throw new Error('livelock: the guest executes what KVM patches for ever');
      case '#UD':
      case '#GP':
      case '#PF':
      case 'undecodable':
        return { kind: 'status', status: executed };
    }
  }
}

type Four = [bigint, bigint, bigint, bigint];

/** What the guest reads in RAX: an error of KVM, or a value. */
function answerOf(rax: bigint, isLong: boolean): Outcome {
  for (const [errno, value] of Object.entries(RAX_OF))
    if (rax === (isLong ? value : value & U32_MAX)) return { kind: 'errno', errno: errno as Errno };
  return { kind: 'ok', value: rax };
}
