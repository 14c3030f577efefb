/**
 * Guests that run: stage 2, exits, and a VMM that answers them. Source: arch/x86/kvm/mmu/mmu.c, arch/x86/kvm/x86.c,
 * virt/kvm/kvm_main.c, virt/kvm/guest_memfd.c.
 */
import type { McSeverity } from '../../../model/core/machine-check.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Config } from '../../../model/core/profile.ts';
import { consumes, flushes, Stopped, type Access, type Cpu, type Touched } from './cpu.ts';
import { GuestKernel } from './guest-kernel.ts';
import { HostKernel, type VcpuThread, type Vmm } from './host-kernel.ts';
import { Hosting, type VirtualGuest } from './hosting.ts';
import { KvmMce } from './kvm.ts';
import { MCI, MISC, reportOf, type Report } from './mca.ts';

/** What can be made wrong. */
export interface Parts {
  readonly Kernel?: typeof GuestKernel;
  readonly Host?: typeof HostKernel;
  readonly Kvm?: typeof KvmMce;
}

const MEMORY_BANK = 1;

export class VirtualMachine extends Hosting {
  readonly kvm: KvmMce;

  constructor(config: Config, { Kernel = GuestKernel, Host = HostKernel, Kvm = KvmMce }: Parts = {}) {
    super(config, Kernel, Host);
    this.kvm = new Kvm();
  }

  protected override access(guest: VirtualGuest, cpu: Cpu, access: Access): Touched {
    const { gfn, line, how, value } = access;
    const frame = guest.vmm.ept.get(gfn) ?? this.kvmFaultinPfn(guest, gfn);
    if (frame === 'EHWPOISON') return this.exitToVmm(guest, cpu, access);
    const word = this.host.memory.load(frame, line);
    if (word === 'poison' && consumes(how)) return this.machineCheckInGuest(guest, cpu, access, frame);
    if (flushes(how)) this.writeBack(guest, frame, gfn, line);
    if (value !== undefined) this.host.memory.store(frame, line, value);
    return word === 'poison' ? 0n : word;
  }

  /** kvm_mmu_faultin_pfn(): by the page table of the VMM, or the page cache of the guest_memfd. */
  kvmFaultinPfn({ vmm }: VirtualGuest, gfn: number): number | 'EHWPOISON' {
    const frame = this.host.frameOf(vmm, gfn);
    if (frame === undefined || this.isHwpoisonFolio(vmm, frame)) return 'EHWPOISON';
    vmm.ept.set(gfn, frame);
    return frame;
  }

  /** folio_test_hwpoison() of __kvm_gmem_get_pfn(). Where memory is mapped, the entry tells. */
  isHwpoisonFolio({ gmem }: Vmm, frame: number): boolean {
    return gmem !== undefined && this.host.page(frame).hwpoison;
  }

  /** kvm_handle_error_pfn(), kvm_mmu_prepare_memory_fault_exit() */
  exitToVmm(guest: VirtualGuest, cpu: Cpu, access: Access): Touched {
    this.noteTouch(guest, access, 'machine-check');
    cpu.stage = 'vmm';
    cpu.access = access;
    if (guest.vmm.gmem === undefined) return new Stopped({ kind: 'sigbus', to: 'vmm', code: 'AR' });
    const gpa = BigInt(access.gfn) << 12n;
    return new Stopped({ kind: 'memory-fault', errno: 'EHWPOISON', gpa, private: true });
  }

  /** kvm_machine_check(): do_machine_check() as if the VMM had been in user mode. */
  private machineCheckInGuest(guest: VirtualGuest, cpu: Cpu, access: Access, frame: number): Stopped {
    this.threadOf(guest, cpu).work = frame;
    cpu.stage = 'host-work';
    cpu.access = access;
    return new Stopped({ kind: 'machine-check', ends: 'nobody' });
  }

  private threadOf({ vmm }: VirtualGuest, { id }: Cpu): VcpuThread {
    return vmm.vcpus[id] as VcpuThread;
  }

  /** Work of the host on the way back into the guest, or out to the VMM. */
  hostRecover(guest: VirtualGuest, cpu: Cpu): Outcome {
    const thread = this.threadOf(guest, cpu);
    this.host.taskWorkRun(thread);
    if (this.isKilled(guest)) return { kind: 'sigbus', to: 'vmm', code: 'none' };
    if (thread.signal === undefined) return this.reenter(guest, cpu);
    cpu.stage = 'vmm';
    if (cpu.access !== undefined) this.noteTouch(guest, cpu.access, 'machine-check');
    return { kind: 'sigbus', to: 'vmm', code: thread.signal.code };
  }

  /** The instruction is executed once more. */
  protected reenter(guest: VirtualGuest, cpu: Cpu): Outcome {
    const { access } = cpu;
    cpu.stage = 'runs';
    cpu.access = undefined;
    const touched = access === undefined ? 0n : this.access(guest, cpu, access);
    return touched instanceof Stopped ? touched.outcome : ok();
  }

  /** What the VMM owes a vCPU that touched what is not there: a machine check, each time. */
  answerTouch(guest: VirtualGuest, cpu: Cpu): Outcome {
    this.threadOf(guest, cpu).signal = undefined;
    cpu.stage = 'runs';
    const gfn = cpu.access?.gfn ?? 0;
    const context = cpu.access?.context ?? 'kernel';
    return this.inject(guest, cpu, reportOf('required', gfn, MISC.PAGE | MISC.UNMAPPED), context);
  }

  /** And what it tells of a page that nobody has touched. */
  answerEarly(guest: VirtualGuest, cpu: Cpu, gfn: number): Outcome {
    return this.inject(guest, cpu, reportOf('optional', gfn, MISC.PAGE | MISC.UNMAPPED), this.contextOf(guest, cpu));
  }

  protected inject(guest: VirtualGuest, cpu: Cpu, report: Report, context: Cpu['context']): Outcome {
    const came = this.setMce(guest, cpu, MEMORY_BANK, report, context);
    return cpu.access !== undefined && cpu.stage === 'runs' && guest.state === 'running'
      ? this.reenter(guest, cpu)
      : came;
  }

  /** KVM_X86_SET_MCE by whoever has the vCPU. */
  makeUpMce(
    guest: VirtualGuest,
    cpu: Cpu,
    bank: number,
    { severity, gfn, valid }: { readonly severity: McSeverity; readonly gfn: number; readonly valid: boolean },
  ): Outcome {
    const report = reportOf(severity, gfn);
    const status = valid ? report.status : report.status & ~MCI.VAL;
    const context = cpu.stage === 'machine-check' ? cpu.context : this.contextOf(guest, cpu);
    return this.setMce(guest, cpu, bank, { ...report, status }, context);
  }

  private setMce(guest: VirtualGuest, cpu: Cpu, bank: number, report: Report, context: Cpu['context']): Outcome {
    const came = this.kvm.setMce(cpu.mca, bank, report);
    if (came === 'EINVAL') return fails('EINVAL');
    if (came === 'triple-fault') {
      this.end(guest, 'triple-fault', { by: 'triple-fault', of: cpu.access?.gfn, how: cpu.access?.how });
      return { kind: 'status', status: 'KVM_EXIT_SHUTDOWN' };
    }
    if (came === 'exception') {
      cpu.stage = 'machine-check';
      cpu.context = context;
    }
    return ok();
  }

  /** What an exception interrupts: the task, as long as nothing keeps it from going on in user mode. */
  protected contextOf({ kernel }: VirtualGuest, cpu: Cpu): Cpu['context'] {
    return kernel.taskOf(cpu).alive && kernel.worksOf(cpu).length === 0 ? 'user' : 'kernel';
  }
}
