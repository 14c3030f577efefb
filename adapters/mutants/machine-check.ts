/**
 * Hosts, VMMs and kernels that deal with poison, with one mistake each: the one of the thread that the profiles are about,
 * duties of a VMM that are left out, and others of their kind.
 */
import type { Outcome } from '../../model/core/outcome.ts';
import { ok } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import { hostOf } from '../simulator/host.ts';
import { performMc } from '../simulator/mc/commands.ts';
import { BareMetal } from '../simulator/mc/bare-metal.ts';
import type { Cpu, Touched } from '../simulator/mc/cpu.ts';
import { GuestKernel, type Way } from '../simulator/mc/guest-kernel.ts';
import { HostKernel, type Vmm } from '../simulator/mc/host-kernel.ts';
import type { VirtualGuest } from '../simulator/mc/hosting.ts';
import { KvmMce } from '../simulator/mc/kvm.ts';
import { MCG, reportOf } from '../simulator/mc/mca.ts';
import type { MceSignal, Page, Thread } from '../simulator/mc/memory-failure.ts';
import { PhysicalMemory, type CacheLine } from '../simulator/mc/physical-memory.ts';
import { VirtualMachine, type Parts } from '../simulator/mc/virtual.ts';
import type { Fault } from './fault.ts';

const NOW = 'not-present-whole-page';
const METAL = 'bare-metal';

const host = hostOf(performMc);

/** One with a part that is made wrong. */
const withPart = (parts: Parts): Fault['machine'] =>
  host(
    class extends VirtualMachine {
      constructor(config: Config) {
        super(config, parts);
      }
    },
  );

/** A kernel that is made wrong, with no host below. */
const onMetal = (Kernel: typeof GuestKernel): Fault['machine'] =>
  host(
    class extends BareMetal {
      constructor(config: Config) {
        super(config, Kernel);
      }
    },
  );

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

/** Memory management of the host. */
const hosts: readonly Fault[] = [
  {
    id: 'stage-two-keeps-poison',
    shortest: 3,
    profile: NOW,
    fault: 'takes a poisoned page from the VMM, and leaves it in stage 2',
    machine: withPart({
      Host: class extends HostKernel {
        protected override mmuNotifierInvalidate(): void {
          // Nobody tells KVM.
        }
      },
    }),
  },
  {
    id: 'poison-reaches-other-guests',
    shortest: 4,
    profile: NOW,
    fault: 'takes a page away from every VMM that has one at the same address',
    machine: withPart({
      Host: class extends HostKernel {
        override hwpoisonUserMappings(...[page, current]: Parameters<HostKernel['hwpoisonUserMappings']>): void {
          const addresses = this.mappers(page.pfn).map(({ address }) => address);
          super.hwpoisonUserMappings(page, current);
          for (const vmm of this.vmms)
            for (const address of addresses.filter((each) => vmm.mm.ptes.has(each))) {
              vmm.ept.delete(address);
              vmm.mm.ptes.set(address, { kind: 'hwpoison', pfn: page.pfn });
            }
        }
      },
    }),
  },
  {
    id: 'gmem-poison-mapped-again',
    shortest: 3,
    profile: NOW,
    fault: 'looks up a page of a guest_memfd without a look at its PG_hwpoison',
    machine: host(
      class extends VirtualMachine {
        override isHwpoisonFolio(): boolean {
          return false;
        }
      },
    ),
  },
  {
    id: 'poison-freed-with-vm',
    shortest: 3,
    profile: NOW,
    fault: 'puts a poisoned page on the free list when the VM is gone',
    machine: withPart({
      Host: class extends HostKernel {
        override freePage(page: Page): void {
          super.freePage(page);
          page.type = 'buddy';
        }
      },
    }),
  },
  {
    id: 'unpoison-after-hardware-failure',
    shortest: 4,
    profile: NOW,
    fault: 'unpoisons what hardware reported, and frees a page that the direct map does not show',
    machine: withPart({
      Host: class extends HostKernel {
        override unpoisonMemory(
          ...[pfn]: Parameters<HostKernel['unpoisonMemory']>
        ): ReturnType<HostKernel['unpoisonMemory']> {
          this.hwMemoryFailure = false;
          return super.unpoisonMemory(pfn);
        }
      },
    }),
  },
];

/** A host whose caches are made wrong. */
const withCaches = (Memory: typeof PhysicalMemory): Fault['machine'] =>
  withPart({
    Host: class extends HostKernel {
      override readonly memory = new Memory();
    },
  });

/** Caches. */
const caches: readonly Fault[] = [
  {
    id: 'write-back-heals-poison',
    shortest: 6,
    profile: NOW,
    fault: 'writes back what has gone bad in a cache as if it were good, and tells nobody',
    machine: withCaches(
      class extends PhysicalMemory {
        protected override toMemory(frame: number, line: number, hit: CacheLine): boolean {
          return super.toMemory(frame, line, hit.state === 'poisoned' ? { ...hit, state: 'dirty' } : hit);
        }
      },
    ),
  },
];

/** The kernel that handles the machine check. */
const kernels: readonly Fault[] = [
  {
    id: 'isolation-flushes',
    shortest: 6,
    profile: NOW,
    fault: 'makes a page uncacheable to isolate it, which flushes its lines',
    machine: withPart({
      Kernel: class extends GuestKernel {
        override isolationOf(): Way {
          return 'uncacheable';
        }
      },
    }),
  },
  {
    id: 'uncacheable-without-flush',
    shortest: 6,
    profile: METAL,
    fault: 'makes a page uncacheable, and leaves caches what they have of it',
    machine: onMetal(
      class extends GuestKernel {
        protected override cpaFlush(): undefined {
          // Nothing is flushed, so that a good copy hides that the line is bad.
        }
      },
    ),
  },
  {
    id: 'isolates-wrong-half',
    shortest: 5,
    profile: NOW,
    fault: 'splits a large entry, and isolates the other page of it',
    machine: withPart({
      Kernel: class extends GuestKernel {
        override setMemoryNp(address: bigint): void {
          super.setMemoryNp(address ^ 0x1000n);
        }
      },
    }),
  },
  {
    id: 'isolates-large-page',
    shortest: 6,
    profile: NOW,
    fault: 'takes a large entry out of the 1:1 map as a whole',
    machine: withPart({
      Kernel: class extends GuestKernel {
        override setMemoryNp(address: bigint): void {
          super.setMemoryNp(address);
          super.setMemoryNp(address ^ 0x1000n);
        }
      },
    }),
  },
  {
    id: 'mce-count-not-counted',
    shortest: 9,
    profile: METAL,
    fault: 'does not count machine checks of one task, and so takes a second page for the first',
    machine: onMetal(
      class extends GuestKernel {
        override countMachineCheck(cpu: Cpu): number {
          super.countMachineCheck(cpu);
          this.taskOf(cpu).mceCount = 1;
          return 1;
        }
      },
    ),
  },
  {
    id: 'machine-checks-without-end',
    shortest: 25,
    profile: METAL,
    fault: 'lets a system call go on, however often it has met poison',
    machine: onMetal(
      class extends GuestKernel {
        override areTooMany(): boolean {
          return false;
        }
      },
    ),
  },
  {
    id: 'mcip-not-cleared',
    shortest: 4,
    profile: NOW,
    fault: 'leaves MCIP set when it has handled a machine check',
    machine: withPart({
      Kernel: class extends GuestKernel {
        override mceWrmsrMcgStatus(): void {
          // The register stays as it is.
        }
      },
    }),
  },
  {
    id: 'kills-every-task',
    shortest: 5,
    profile: NOW,
    fault: 'kills all tasks for a page that one of them consumed, and not only those that map it',
    machine: withPart({
      Kernel: class extends GuestKernel {
        override collectProcs(...[page, current]: Parameters<GuestKernel['collectProcs']>): readonly Thread[] {
          const found = super.collectProcs(page, current);
          return found.length === 0 ? found : this.tasks;
        }
      },
    }),
  },
  {
    id: 'clean-page-kills',
    shortest: 4,
    profile: NOW,
    fault: 'kills for a page of a file that is on disk as well',
    machine: withPart({
      Kernel: class extends GuestKernel {
        override hwpoisonUserMappings(...[page, current]: Parameters<GuestKernel['hwpoisonUserMappings']>): void {
          page.dirty = true;
          super.hwpoisonUserMappings(page, current);
        }
      },
    }),
  },
  {
    id: 'poison-entry-not-left',
    shortest: 4,
    profile: METAL,
    fault: 'takes a poisoned page from tasks, and leaves them no entry that tells of it',
    machine: onMetal(
      class extends GuestKernel {
        override hwpoisonUserMappings(...[page, current]: Parameters<GuestKernel['hwpoisonUserMappings']>): void {
          super.hwpoisonUserMappings(page, current);
          for (const { mm } of this.tasks) mm.ptes.delete(page.pfn);
        }
      },
    ),
  },
  {
    id: 'worker-list-lost',
    shortest: 7,
    profile: METAL,
    fault: 'keeps one report for its worker, and loses what comes until that is done',
    machine: onMetal(
      class extends GuestKernel {
        override mceLog(...[mce]: Parameters<GuestKernel['mceLog']>): void {
          if (this.worker.length === 0) super.mceLog(mce);
        }
      },
    ),
  },
];

/** Random programs seldom store to a line that a cache has, flush it, and load it again. */
export const RARE_MACHINE_CHECK_FAULTS: readonly Fault[] = [
  {
    id: 'flush-discards',
    shortest: 5,
    profile: NOW,
    fault: 'throws away what was stored to a line when it leaves the cache, as INVD does',
    machine: withCaches(
      class extends PhysicalMemory {
        protected override toMemory(frame: number, line: number, hit: CacheLine): boolean {
          return hit.state !== 'dirty' && super.toMemory(frame, line, hit);
        }
      },
    ),
  },
];

export const MACHINE_CHECK_FAULTS: readonly Fault[] = [...answers, ...vmm, ...hosts, ...caches, ...kernels];
