/** The simulated host machine: commands, descriptors, and what is told about them. */
import type { Facts } from '../../model/core/facts.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import type { Address, Label } from '../../model/core/state.ts';
import type { MemoryAttributes } from './attributes.ts';
import type { PreFaultMemory } from './faults.ts';
import { collectFacts, directMapFacts, type Simulated } from './facts.ts';
import type { Cpu, DirectMapChange } from './direct-map.ts';
import { Oops, outcomeOf, PART } from './kernel.ts';
import type { File, HvaCache, Kvm, PfnCache, PlainFile, Vcpu } from './objects.ts';
import { Syscalls, type FileOperation, type PinnedBy, type Sharing, type StatField } from './syscalls.ts';

const DEVICE = 'kvm';
const OTHER = 'null';

export class SimulatorMachine extends Syscalls {
  private known: (Simulated & Facts) | undefined;

  constructor(config: Config) {
    super(config);
    for (const [label, kind] of [
      [DEVICE, 'device'],
      [OTHER, 'other'],
    ] as const)
      this.fdInstall(
        label,
        this.files.allocate<PlainFile>((address) => ({ address, kind, label, count: 1 })),
      );
  }

  /** Executes one command. What is thrown is a crash of the machine. */
  run(command: AnyCommand): Outcome {
    this.forgetEvents();
    return this.execute(command);
  }

  /** Events are told from here on. */
  forgetEvents(): void {
    if (this.firstTouches.length > 0 || this.outOfBounds.length > 0) {
      this.firstTouches.length = 0;
      this.outOfBounds.length = 0;
      this.stale |= PART.EVENTS;
    }
    if (this.shareEvents.length > 0) {
      this.shareEvents.length = 0;
      this.stale |= PART.DIRECT_MAP;
    }
  }

  /** A command that may run within another one. */
  execute(command: AnyCommand): Outcome {
    try {
      return this.withTaskWork(() => this.perform(command));
    } catch (error) {
      if (error instanceof Oops) return { kind: 'oops' };
      throw error;
    }
  }

  /** What the command asks of the machine. */
  protected perform(command: AnyCommand): Outcome {
    return performBy(HANDLERS, this, command);
  }

  facts(): Facts {
    return this.simulated();
  }

  /** The same object as before where nothing has changed. A reference that is left on its way marks nothing stale. */
  protected simulated(): Simulated & Facts {
    if (this.known === undefined || this.stale !== 0 || this.pins.size > 0) {
      const facts = collectFacts(this, this.known);
      this.known = this.has('direct-map') ? { ...facts, ...directMapFacts(this) } : facts;
      // In the middle of a command somebody holds a reference, and nothing will tell that it was dropped.
      this.stale = this.pins.size > 0 ? PART.RESIDENT : 0;
    }
    return this.known;
  }

  /** Calls `run` with the file behind a descriptor, and holds a reference to it meanwhile. */
  withFile(fd: Label, run: (file: File) => Outcome): Outcome {
    const file = this.fget(fd);
    if (file === undefined) return fails('EBADF');
    const outcome = run(file);
    this.fput(file);
    return outcome;
  }

  withVm(fd: Label, run: (kvm: Kvm) => Outcome): Outcome {
    return this.withFile(fd, (file) => (file.kind === 'vm' ? run(this.kvms.at(file.kvm)) : this.unknownIoctl(file)));
  }

  /** kvm_vcpu_ioctl(): one at a time on each vCPU. */
  withVcpu(fd: Label, run: (vcpu: Vcpu) => Outcome): Outcome {
    return this.withFile(fd, (file) => {
      if (file.kind !== 'vcpu') return this.unknownIoctl(file);
      this.lock(file.vcpu.mutex);
      const outcome = run(file.vcpu);
      this.unlock(file.vcpu.mutex);
      return outcome;
    });
  }

  withDevice(fd: Label, run: () => Outcome): Outcome {
    return this.withFile(fd, (file) => (file.kind === 'device' ? run() : this.unknownIoctl(file)));
  }

  /** Calls `run` with a cache; there is none of that name where its VM is gone. */
  withCache(label: Label, run: (gpc: PfnCache) => Outcome): Outcome {
    const gpc = this.caches.get(label);
    if (gpc === undefined) throw new Error(`there is no cache '${label}'`);
    return run(gpc);
  }

  /** There is none of that name where its VM is gone. */
  hvaCache(label: Label): HvaCache {
    const ghc = this.hvaCaches.get(label);
    if (ghc === undefined) throw new Error(`there is no cache '${label}'`);
    return ghc;
  }

  /** A task of the kernel touches a page of the file, with no reference to anything. */
  kernelTouch(fd: Label, page: bigint, cpu: Cpu, mode: 'architectural' | 'speculative'): Outcome {
    let frame: number | undefined;
    const found = this.withFile(fd, (file) => {
      if (file.kind !== 'gmem') return fails('ENOTTY');
      const run = file.inode.pageCache.find(Number(page));
      frame = run && Number(page) + run.value.delta;
      return ok();
    });
    if (found.kind !== 'ok') return found;
    if (frame === undefined || (mode === 'speculative' && !this.translate(cpu, frame))) return ok(0n);
    return ok(this.kernelLoad(frame, 0, cpu));
  }

  /** The ends of kvm_arch_dev_ioctl(), kvm_arch_vm_ioctl() and kvm_arch_vcpu_ioctl(); vfs_ioctl() where there is none. */
  unknownIoctl(file: File): Outcome {
    switch (file.kind) {
      case 'device':
      case 'vcpu':
        return fails('EINVAL');
      case 'vm':
      case 'gmem':
      case 'anonymous':
      case 'secret':
      case 'other':
        return fails('ENOTTY');
    }
  }

  /** Gives a new file its descriptor. */
  install(label: Label, file: File | Errno): Outcome {
    if (typeof file === 'string') return fails(file);
    this.fdInstall(label, file);
    return ok();
  }
}

interface SlotSet {
  readonly vm: Label;
  readonly api: 'v1' | 'v2';
  readonly slot: bigint;
  readonly flags: bigint;
  readonly gpa: bigint;
  readonly size: bigint;
  readonly hva: Address;
  readonly gmem: Label;
  readonly offset: bigint;
}

/** By the name of the command. */
export type Handlers<M> = Readonly<Record<string, (machine: M, args: never) => Outcome>>;

export function performBy<M>(handlers: Handlers<M>, machine: M, { name, args }: AnyCommand): Outcome {
  const handler = handlers[name];
  if (handler === undefined) throw new Error(`the simulator has no command '${name}'`);
  return handler(machine, args as never);
}

const HANDLERS: Handlers<SimulatorMachine> = {
  'vm.create': (machine, { vm, dev, type }: { vm: Label; dev: Label; type: bigint }) =>
    machine.withDevice(dev, () => machine.install(vm, machine.kvmDevIoctlCreateVm(vm, type))),
  'vcpu.create': (machine, args: { vcpu: Label; vm: Label; id: bigint }) =>
    machine.withVm(args.vm, (kvm) => machine.install(args.vcpu, machine.kvmVmIoctlCreateVcpu(kvm, args.vcpu, args.id))),
  'fd.dup': (machine, args: { as: Label; fd: Label }) =>
    machine.withFile(args.fd, (file) => {
      file.count++;
      return machine.install(args.as, file);
    }),
  'fd.close': (machine, { fd }: { fd: Label }) => (machine.closeFd(fd) ? ok() : fails('EBADF')),
  'cap.check': (machine, { fd, cap }: { fd: Label; cap: bigint }) =>
    machine.withFile(fd, (file) => {
      if (file.kind === 'device') return ok(machine.kvmCheckExtension(undefined, cap));
      if (file.kind !== 'vm') return machine.unknownIoctl(file);
      return ok(machine.kvmCheckExtension(machine.kvms.at(file.kvm), cap));
    }),
  'gmem.create': (machine, args: { file: Label; vm: Label; size: bigint; flags: bigint }) =>
    machine.withVm(args.vm, (kvm) =>
      machine.install(args.file, machine.kvmGmemCreate(kvm, args.file, args.size, args.flags)),
    ),
  'gmem.link': (machine, args: { file: Label; vm: Label; from: Label; flags: bigint }) =>
    machine.withVm(args.vm, (kvm) => {
      if (!machine.config.profile.features.includes('gmem-link')) return fails('ENOTTY');
      return machine.install(args.file, machine.kvmGmemLink(kvm, args.file, args.from, args.flags));
    }),
  'slot.set': (machine, args: SlotSet) =>
    machine.withVm(args.vm, (kvm) => {
      const region = {
        slot: args.slot,
        flags: args.flags,
        guestPhysAddr: args.gpa,
        memorySize: args.size,
        userspaceAddr: machine.resolve(args.hva),
        guestMemfd: args.gmem,
        guestMemfdOffset: args.offset,
      };
      return outcomeOf(machine.kvmVmIoctlSetMemoryRegion(kvm, region, args.api));
    }),
  'gmem.fallocate': (machine, args: { fd: Label; mode: bigint; offset: bigint; length: bigint }) =>
    machine.withFile(args.fd, (file) => outcomeOf(machine.vfsFallocate(file, args.mode, args.offset, args.length))),
  'file.io': (machine, { fd, op, offset }: { fd: Label; op: FileOperation; offset: bigint }) =>
    machine.fileIo(fd, op, offset),
  'file.truncate': (machine, { fd, size }: { fd: Label; size: bigint }) => fails(machine.ftruncate(fd, size)),
  'file.stat': (machine, { fd, field }: { fd: Label; field: StatField }) =>
    machine.withFile(fd, (file) => ok(machine.fstat(file, field))),
  'mem.map': (machine, args: { mapping: Label; fd: Label; length: bigint; offset: bigint; sharing: Sharing }) =>
    outcomeOf(machine.mmap(args.mapping, args.fd, args.length, args.offset, args.sharing)),
  'mem.unmap': (machine, { mapping }: { mapping: Label }) => {
    machine.munmapLabel(mapping);
    return ok();
  },
  'host.load': (machine, { mapping, offset }: { mapping: Label; offset: bigint }) =>
    machine.accessUser(mapping, offset, undefined),
  'host.store': (machine, args: { mapping: Label; offset: bigint; value: bigint }) =>
    machine.accessUser(args.mapping, args.offset, args.value),
  'mem.secret': (machine, { mapping, length }: { mapping: Label; length: bigint }) =>
    outcomeOf(machine.mapSecret(mapping, length)),
  'gup.read': (machine, args: { mapping: Label; offset: bigint; via: PinnedBy }) =>
    machine.accessPinned(args.mapping, args.offset, args.via, undefined),
  'gup.write': (machine, args: { mapping: Label; offset: bigint; via: PinnedBy; value: bigint }) =>
    machine.accessPinned(args.mapping, args.offset, args.via, args.value),
  'attributes.set': (machine, args: MemoryAttributes & { vm: Label }) =>
    machine.withVm(args.vm, (kvm) => {
      if (!machine.config.machine.memoryAttributes) return fails('ENOTTY');
      return outcomeOf(machine.kvmVmIoctlSetMemAttributes(kvm, args));
    }),
  'vcpu.prefault': (machine, args: PreFaultMemory & { vcpu: Label }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.kvmVcpuPreFaultMemory(vcpu, args)),
  'guest.load': (machine, args: { vcpu: Label; gpa: bigint }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.kvmRun(vcpu, args.gpa, undefined)),
  'guest.store': (machine, args: { vcpu: Label; gpa: bigint; value: bigint }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.kvmRun(vcpu, args.gpa, args.value)),
  'kvm.read-guest': (machine, args: { vcpu: Label; gpa: bigint; length: bigint }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.kvmReadGuest(vcpu, args.gpa, args.length)),
  'kvm.write-guest': (machine, args: { vcpu: Label; gpa: bigint; length: bigint; value: bigint }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.kvmWriteGuest(vcpu, args.gpa, args.length, args.value)),
  'gpc.init': (machine, { gpc, vcpu }: { gpc: Label; vcpu: Label }) =>
    machine.withVcpu(vcpu, ({ kvm }) => {
      machine.vcpuCache(machine.kvms.at(kvm), gpc);
      return ok();
    }),
  'gpc.activate': (machine, { gpc, gpa, length }: { gpc: Label; gpa: bigint; length: bigint }) =>
    machine.withCache(gpc, (cache) => outcomeOf(machine.kvmGpcActivate(cache, gpa, length))),
  'gpc.refresh': (machine, { gpc, length }: { gpc: Label; length: bigint }) =>
    machine.withCache(gpc, (cache) => outcomeOf(machine.kvmGpcRefresh(cache, length))),
  'gpc.read': (machine, { gpc }: { gpc: Label }) =>
    machine.withCache(gpc, (cache) => {
      const word = machine.accessCache(cache);
      return typeof word === 'string' ? fails(word) : ok(word);
    }),
  'gpc.write': (machine, { gpc, value }: { gpc: Label; value: bigint }) =>
    machine.withCache(gpc, (cache) => {
      const word = machine.accessCache(cache, value);
      return typeof word === 'string' ? fails(word) : ok();
    }),
  'gpc.deactivate': (machine, { gpc }: { gpc: Label }) =>
    machine.withCache(gpc, (cache) => {
      machine.kvmGpcDeactivate(cache);
      return ok();
    }),
  'ghc.create': (machine, { ghc, vcpu }: { ghc: Label; vcpu: Label }) =>
    machine.withVcpu(vcpu, ({ kvm }) => {
      machine.vcpuHvaCache(machine.kvms.at(kvm), ghc);
      return ok();
    }),
  'ghc.init': (machine, { ghc, gpa, length }: { ghc: Label; gpa: bigint; length: bigint }) =>
    outcomeOf(machine.kvmGfnToHvaCacheInit(machine.hvaCache(ghc), gpa, length)),
  'ghc.read': (machine, { ghc, offset, length }: { ghc: Label; offset: bigint; length: bigint }) =>
    machine.accessGhc(machine.hvaCache(ghc), offset, length),
  'ghc.write': (machine, args: { ghc: Label; offset: bigint; length: bigint; value: bigint }) =>
    machine.accessGhc(machine.hvaCache(args.ghc), args.offset, args.length, args.value),
  'guest.walk': (machine, args: { vcpu: Label; cr3: bigint; gva: bigint; access: 'read' | 'write' }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.kvmTranslate(vcpu, args.cr3, args.gva, args.access === 'write')),
  'guest.clock': (machine, args: { vcpu: Label; gpa: bigint; mapping: Label; offset: bigint }) =>
    machine.withVcpu(args.vcpu, (vcpu) => machine.guestClock(vcpu, args.gpa, args.mapping, args.offset)),
  'guest.mmio': (machine, { vcpu: label, rip, gpa }: { vcpu: Label; rip: bigint; gpa: bigint }) =>
    machine.withVcpu(label, (vcpu) => machine.guestMmio(vcpu, rip, gpa)),
  'kernel.load': (machine, args: { fd: Label; page: bigint; cpu: string; mode: 'architectural' | 'speculative' }) =>
    machine.kernelTouch(args.fd, args.page, args.cpu === '1' ? 1 : 0, args.mode),
  'memory.fail': (machine, { fd, page }: { fd: Label; page: bigint }) =>
    machine.withFile(fd, (file) => {
      if (file.kind !== 'gmem') return fails('ENOTTY');
      machine.memoryFailure(file.inode, Number(page));
      return ok();
    }),
  'fault.direct-map': (machine, { change }: { change: DirectMapChange }) => {
    machine.failing = change;
    return ok();
  },
  'fault.slab': (machine, { skip }: { skip: bigint }) => {
    machine.failSlab(Number(skip));
    return ok();
  },
};
