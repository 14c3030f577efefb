/** VMMs that answer a guest in a wrong way when its memory fails, and KVM where it is wrong about machine checks. */
import { ok, type Outcome } from '../../model/core/outcome.ts';
import type { Cpu, Touched } from '../simulator/mc/cpu.ts';
import { HostKernel, type Vmm } from '../simulator/mc/host-kernel.ts';
import type { VirtualGuest } from '../simulator/mc/hosting.ts';
import { KvmMce } from '../simulator/mc/kvm.ts';
import { MCG, reportOf } from '../simulator/mc/mca.ts';
import type { MceSignal, Thread } from '../simulator/mc/memory-failure.ts';
import { VirtualMachine } from '../simulator/mc/virtual.ts';
import type { Fault } from './fault.ts';
import { host, NOW, withPart } from './machine-check.ts';

/** A VMM that lets a vCPU go on behind a touch of what was taken, in a way of its own. */
const answering = (answer: (guest: VirtualGuest, cpu: Cpu) => void): Fault['machine'] =>
  host(
    class extends VirtualMachine {
      override answerTouch(guest: VirtualGuest, cpu: Cpu): Outcome {
        answer(guest, cpu);
        cpu.stage = 'runs';
        return ok();
      }
    },
  );

/** Ways in which a VMM answers a touch that are wrong. */
const answers: readonly Fault[] = [
  {
    id: 'touch-answered-by-skipping',
    shortest: 4,
    profile: NOW,
    fault: 'steps over the instruction that touched what was taken',
    machine: answering(() => undefined),
  },
  {
    id: 'touch-answered-by-page-fault',
    shortest: 4,
    profile: NOW,
    fault: 'answers a touch with #PF, which kills the task, or the one on whose CPU the kernel was',
    machine: answering(({ kernel }, cpu) => {
      const task = kernel.taskOf(cpu);
      if (task.alive) kernel.doExit(task, { by: 'oops', of: cpu.access?.gfn, how: cpu.access?.how });
    }),
  },
  {
    id: 'touch-answered-by-new-page',
    shortest: 4,
    profile: NOW,
    fault: 'answers a touch by a page of zeroes, for the one instruction',
    machine: host(
      class extends VirtualMachine {
        override answerTouch(guest: VirtualGuest, cpu: Cpu): Outcome {
          const gfn = cpu.access?.gfn ?? 0;
          const pte = guest.vmm.mm.ptes.get(gfn);
          this.host.populate(guest.vmm, gfn);
          const came = this.reenter(guest, cpu);
          this.host.unpopulate(guest.vmm, gfn);
          if (pte !== undefined) guest.vmm.mm.ptes.set(gfn, pte);
          return came;
        }
      },
    ),
  },
];

/** A VMM, or KVM below it, that does not do what else it owes a guest. */
const vmm: readonly Fault[] = [
  {
    id: 'poison-remapped-on-fault',
    shortest: 3,
    profile: NOW,
    fault: 'maps a new page when a guest touches what was taken from it',
    machine: host(
      class extends VirtualMachine {
        override kvmFaultinPfn(guest: VirtualGuest, gfn: number): number | 'EHWPOISON' {
          const frame = super.kvmFaultinPfn(guest, gfn);
          if (frame !== 'EHWPOISON') return frame;
          this.host.unpopulate(guest.vmm, gfn);
          this.host.populate(guest.vmm, gfn);
          return super.kvmFaultinPfn(guest, gfn);
        }
      },
    ),
  },
  {
    id: 'poison-forgotten-at-reboot',
    shortest: 4,
    profile: NOW,
    fault: 'forgets at a reboot of the guest what was taken from it',
    machine: host(
      class extends VirtualMachine {
        override reboot(guest: VirtualGuest): Outcome {
          return super.reboot(guest, true);
        }
      },
    ),
  },
  {
    id: 'second-touch-page-fault',
    shortest: 6,
    profile: NOW,
    fault: 'answers the second touch of a page with #PF, although the page tables of the guest say that it is there',
    machine: host(
      class extends VirtualMachine {
        private readonly told = new Set<string>();
        override answerTouch(guest: VirtualGuest, cpu: Cpu): Outcome {
          const page = `${guest.label} ${String(cpu.access?.gfn)}`;
          if (!this.told.has(page)) {
            this.told.add(page);
            return super.answerTouch(guest, cpu);
          }
          cpu.stage = 'runs';
          const task = guest.kernel.taskOf(cpu);
          if (task.alive) guest.kernel.doExit(task, { by: 'signal', of: cpu.access?.gfn });
          return ok();
        }
      },
    ),
  },
  {
    id: 'flush-skipped',
    shortest: 3,
    profile: NOW,
    fault: 'steps over an instruction that only flushes a line of a page that was taken',
    machine: host(
      class extends VirtualMachine {
        override exitToVmm(...[guest, cpu, access]: Parameters<VirtualMachine['exitToVmm']>): Touched {
          if (access.how !== 'flush' && access.how !== 'isolate') return super.exitToVmm(guest, cpu, access);
          this.noteTouch(guest, access, 'skipped');
          return 0n;
        }
      },
    ),
  },
  {
    id: 'machine-check-to-wrong-vcpu',
    shortest: 4,
    profile: NOW,
    fault: 'injects every machine check into vCPU 0',
    machine: host(
      class extends VirtualMachine {
        override answerTouch(guest: VirtualGuest, cpu: Cpu): Outcome {
          const [first] = guest.kernel.cpus;
          if (first === undefined || first === cpu || first.stage !== 'runs') return super.answerTouch(guest, cpu);
          first.access = cpu.access;
          cpu.stage = 'runs';
          return super.answerTouch(guest, first);
        }
      },
    ),
  },
  {
    id: 'optional-injected-as-required',
    shortest: 5,
    profile: NOW,
    fault: 'tells a guest that action is required of it, although it has not touched the page',
    machine: host(
      class extends VirtualMachine {
        override answerEarly(guest: VirtualGuest, cpu: Cpu, gfn: number): Outcome {
          return this.inject(guest, cpu, reportOf('required', gfn), this.contextOf(guest, cpu));
        }
      },
    ),
  },
  {
    id: 'early-signal-lost',
    shortest: 4,
    profile: NOW,
    fault: 'takes one early signal, and loses what comes until it has answered that',
    machine: withPart({
      Host: class extends HostKernel {
        protected override sendSigbus(thread: Thread, code: MceSignal, pfn: number): void {
          super.sendSigbus(thread, code, pfn);
          for (const { told } of this.vmms) told.splice(1);
        }
      },
    }),
  },
  {
    id: 'migration-loses-poison',
    shortest: 3,
    profile: NOW,
    fault: 'gives the guest good memory at the other end of a migration, where its page had been taken',
    machine: host(
      class extends VirtualMachine {
        override receivePoison(of: Vmm, gfn: number): void {
          this.host.populate(of, gfn);
        }
      },
    ),
  },
  {
    id: 'mcip-ignored',
    shortest: 3,
    profile: NOW,
    fault: 'injects a machine check into one that is being handled',
    machine: withPart({
      Kvm: class extends KvmMce {
        override isMcip(): boolean {
          return false;
        }
      },
    }),
  },
  {
    id: 'bank-control-ignored',
    shortest: 4,
    profile: NOW,
    fault: 'reports errors that the guest has disabled',
    machine: withPart({
      Kvm: class extends KvmMce {
        override isEnabled(): boolean {
          return true;
        }
      },
    }),
  },
  {
    id: 'no-action-raises-exception',
    shortest: 3,
    profile: NOW,
    fault: 'raises a machine check for an error that needs no action (KVM before 6.0)',
    machine: withPart({
      Kvm: class extends KvmMce {
        override setMce(...[mca, bank, report]: Parameters<KvmMce['setMce']>): ReturnType<KvmMce['setMce']> {
          const mcgStatus = MCG.MCIP | MCG.RIPV;
          const isUncorrected = (report.status & reportOf('no-action', 0).status) === reportOf('no-action', 0).status;
          return super.setMce(
            mca,
            bank,
            isUncorrected ? { ...report, mcgStatus: report.mcgStatus | mcgStatus } : report,
          );
        }
      },
    }),
  },
];

/** Duties of a VMM, and of KVM below it, that are left out. */
export const VMM_FAULTS: readonly Fault[] = [...answers, ...vmm];
