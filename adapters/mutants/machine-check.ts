/** Hosts, caches and kernels that deal with poison, with one mistake each: the one of the thread that the profiles are about, and others of their kind. */
import type { Config } from '../../model/core/profile.ts';
import { hostOf } from '../simulator/host.ts';
import { performMc } from '../simulator/mc/commands.ts';
import { BareMetal } from '../simulator/mc/bare-metal.ts';
import type { Cpu } from '../simulator/mc/cpu.ts';
import { GuestKernel, type Way } from '../simulator/mc/guest-kernel.ts';
import { HostKernel } from '../simulator/mc/host-kernel.ts';
import type { Page, Thread } from '../simulator/mc/memory-failure.ts';
import { PhysicalMemory, type CacheLine } from '../simulator/mc/physical-memory.ts';
import { VirtualMachine, type Parts } from '../simulator/mc/virtual.ts';
import type { Fault } from './fault.ts';

export const NOW = 'not-present-whole-page';
const METAL = 'bare-metal';

export const host = hostOf(performMc);

/** One with a part that is made wrong. */
export const withPart = (parts: Parts): Fault['machine'] =>
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

export const MACHINE_CHECK_FAULTS: readonly Fault[] = [...hosts, ...caches, ...kernels];
