/** What commands ask of machines that run guests whose memory the host must not touch. */
import { ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Config } from '../../../model/core/profile.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Label } from '../../../model/core/state.ts';
import { performOn } from '../host.ts';
import { outcomeOf } from '../kernel.ts';
import type { Guest, Guests, Via, World } from './guests.ts';
import { GFNS } from './host-mm.ts';
import { TdxMachine, type KvmTdx } from './kvm-tdx.ts';
import type { LaunchedGuest, Launches } from './launch.ts';
import type { Width } from './memory-controller.ts';
import { PvMachine } from './pv.ts';
import { SevMachine } from './sev.ts';

export type TdMachine = TdxMachine | SevMachine | PvMachine;

interface Args {
  readonly td: Label;
  readonly vcpu: string;
  readonly gfn: bigint;
  readonly line: bigint;
  readonly world: World;
  readonly width: Width;
  readonly value: bigint;
}

type Handler<M, G> = (machine: M, guest: G, args: never) => Outcome;
type Handlers<M, G> = Readonly<Record<string, Handler<M, G>>>;

/** What every machine does in the same way. */
const HOST: Handlers<Guests, Guest> = {
  'host.read': (machine, guest, { gfn, line, via }: Args & { via: Via }) =>
    machine.hostRead(guest, Number(gfn), Number(line), via),
  'host.write': (machine, guest, { gfn, line, via, width, value }: Args & { via: Exclude<Via, 'kcore'> }) =>
    machine.hostWrite(guest, Number(gfn), Number(line), via, width, value),
  'host.zero': (machine, guest, { gfn }: Args) => machine.hostZero(guest, Number(gfn)),
  'host.move': (machine, { process }, { gfn, how }: Args & { how: 'migrate' | 'swap-out' | 'swap-in' }) =>
    outcomeOf(machine.movePage(process, Number(gfn), how)),
  'dma.map': (machine, { process }, { gfn }: Args) => outcomeOf(machine.iommufdIoasMap(process, Number(gfn))),
  'dma.unmap': (machine, { process }, { gfn }: Args) => outcomeOf(machine.iommufdIoasUnmap(process, Number(gfn))),
};

const TDX: Handlers<TdxMachine, KvmTdx> = {
  ...HOST,
  'td.init': (machine, kvm, { flags, cpuids }: Args & { flags: bigint; cpuids: bigint }) => {
    const error = machine.vmIoctl(kvm, () => machine.tdxTdInit(kvm, flags, cpuids));
    if (error === undefined) for (const gfn of GFNS) machine.setMemAttributes(kvm, gfn, true);
    return outcomeOf(error);
  },
  'td.vcpu': (machine, kvm, { vcpu }: Args) => outcomeOf(machine.kvmVmIoctlCreateVcpu(kvm, vcpu)),
  'td.vcpu-init': (machine, kvm, { vcpu, flags }: Args & { flags: bigint }) =>
    outcomeOf(machine.vcpuUnlockedIoctl(kvm, vcpu, (each) => machine.tdxVcpuInit(kvm, each, flags))),
  'td.add': (machine, kvm, { vcpu, gfn, pages, value }: Args & { pages: bigint }) =>
    outcomeOf(
      machine.vcpuUnlockedIoctl(kvm, vcpu, (each) =>
        machine.tdxVcpuInitMemRegion(kvm, each, Number(gfn), pages, value),
      ),
    ),
  'td.finalize': (machine, kvm) => outcomeOf(machine.vmIoctl(kvm, () => machine.tdxTdFinalize(kvm))),
  'td.convert': (machine, kvm, { gfn, to }: Args & { to: World }) =>
    outcomeOf(machine.setMemAttributes(kvm, Number(gfn), to === 'private')),
  'td.augment': (machine, kvm, { vcpu, gfn }: Args) => outcomeOf(machine.preFaultMemory(kvm, vcpu, Number(gfn))),
  'td.load': (machine, kvm, { vcpu, gfn, line, world }: Args) =>
    machine.guestLoad(kvm, vcpu, Number(gfn), Number(line), world),
  'td.store': (machine, kvm, { vcpu, gfn, line, world, width, value }: Args) =>
    machine.guestStore(kvm, vcpu, Number(gfn), Number(line), world, width, value),
  'td.accept': (machine, kvm, { vcpu, gfn }: Args) => machine.guestAccept(kvm, vcpu, Number(gfn)),
  'td.map-gpa': (machine, kvm, { vcpu, gpa, size }: Args & { gpa: bigint; size: bigint }) =>
    machine.tdxMapGpa(kvm, vcpu, gpa, size),
  'td.map-gpa-return': (machine, kvm, { vcpu, ret, event }: Args & { ret: bigint; event: 'yes' | 'no' }) =>
    machine.mapGpaReturn(kvm, vcpu, ret, event === 'yes'),
  'td.destroy': (machine, kvm) => machine.kvmDestroyVm(kvm),
  'sept.block': (machine, kvm, { gfn }: Args) => machine.septBlock(kvm, Number(gfn)),
  'sept.track': (machine, kvm) => machine.septTrack(kvm),
  'sept.remove': (machine, kvm, { gfn }: Args) => machine.septRemove(kvm, Number(gfn)),
  'key.flush-vcpu': (machine, kvm, { vcpu }: Args) => machine.keyFlushVcpu(kvm, vcpu),
  'key.flush-done': (machine, kvm) => machine.keyFlushDone(kvm),
  'key.free': (machine, kvm) => machine.keyFree(kvm),
  'page.reclaim': (machine, kvm, { page }: Args & { page: 'control' | 'root' }) => machine.pageReclaim(kvm, page),
  'host.map': (machine, kvm, { gfn }: Args) => outcomeOf(machine.hostMap(kvm, Number(gfn))),
  'host.unmap': (machine, kvm, { gfn }: Args) => {
    machine.hostUnmap(kvm, Number(gfn));
    return ok();
  },
};

const LAUNCHED: Handlers<Launches, LaunchedGuest> = {
  ...HOST,
  'td.init': (machine, guest) => outcomeOf(machine.guestInit(guest)),
  'td.vcpu': (machine, guest, { vcpu }: Args) => outcomeOf(machine.kvmVmIoctlCreateVcpu(guest, vcpu)),
  'td.add': (machine, guest, { gfn, pages, value }: Args & { pages: bigint }) =>
    outcomeOf(machine.addPages(guest, Number(gfn), pages, value)),
  'td.finalize': (machine, guest) => outcomeOf(machine.launchFinish(guest)),
  'td.convert': (machine, guest, { gfn, to }: Args & { to: World }) =>
    machine.convert(guest, Number(gfn), to === 'private'),
  'td.load': (machine, guest, { vcpu, gfn, line, world }: Args) =>
    machine.kvmRun(guest, vcpu, () => machine.runLoad(guest, Number(gfn), Number(line), world)),
  'td.store': (machine, guest, { vcpu, gfn, line, world, width, value }: Args) =>
    machine.kvmRun(guest, vcpu, () => machine.runStore(guest, Number(gfn), Number(line), world, width, value)),
  'td.destroy': (machine, guest) => machine.kvmDestroyVm(guest),
};

const SEV: Handlers<SevMachine, LaunchedGuest> = {
  ...LAUNCHED,
  'cache.evict': (machine, guest, { gfn, line, last }: Args & { last: World }) =>
    machine.cacheEvict(guest, Number(gfn), Number(line), last),
};

/** Commands that name no guest that is there. */
const GLOBAL: Readonly<Record<string, (machine: TdMachine, args: never) => Outcome>> = {
  'td.create': (machine, { td, exits }: Args & { exits: 'yes' | 'no' }) => machine.kvmCreateVm(td, exits === 'yes'),
  'host.kexec': (machine) => machine.kexec(),
  'core.stop': (machine) => {
    machine.coreStops = true;
    return ok();
  },
  'seam.busy': (machine, { times }: { times: string }) => {
    if (machine instanceof TdxMachine) machine.seam.busy = Number(times);
    return ok();
  },
  'key.write-back': (machine) => (machine instanceof TdxMachine ? machine.keyWriteBack() : ok()),
};

export const performTd = (machine: TdMachine, command: AnyCommand): Outcome =>
  machine.surviving(() => perform(machine, command));

function perform(machine: TdMachine, command: AnyCommand): Outcome {
  const args = command.args as unknown as Args;
  const global = GLOBAL[command.name];
  if (global !== undefined) return global(machine, args as never);
  if (machine instanceof TdxMachine) return performOn(machine, TDX, args.td, command);
  if (machine instanceof SevMachine) return performOn(machine, SEV, args.td, command);
  return performOn(machine, LAUNCHED, args.td, command);
}

/** The machine whose rules are those of the profile. */
export function newTdMachine(config: Config): TdMachine {
  const { features } = config.profile;
  if (features.includes('tdx')) return new TdxMachine(config);
  return features.includes('c-bit') ? new SevMachine(config) : new PvMachine(config);
}
