/** What commands ask of a host of guests with SEV. */
import { GMEM_FLAG, KVM_MEM, PAGE_SHIFT, PAGE_SIZE, VM_TYPE } from '../../../model/core/abi.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Address, Label } from '../../../model/core/state.ts';
import { outcomeOf } from '../kernel.ts';
import { performBy, type Handlers } from '../machine.ts';
import type { FailingCommand } from './firmware.ts';
import type { SevInit } from './launch.ts';
import { SevMachine } from './machine.ts';
import type { SevFd } from './objects.ts';

export class SevHost extends SevMachine {
  protected override perform(command: AnyCommand): Outcome {
    return performBy(HANDLERS, this, command);
  }
}

const TYPES: Readonly<Record<string, bigint>> = {
  default: VM_TYPE.DEFAULT,
  sev: VM_TYPE.SEV,
  'sev-es': VM_TYPE.SEV_ES,
  snp: VM_TYPE.SNP,
};

const vcpuLabel = (vm: Label, vcpu: string): Label => `${vm}/vcpu${vcpu}`;

interface VmArgs {
  readonly vm: Label;
}
type Device = 'sev' | 'other';
interface SnpStartArgs extends VmArgs {
  readonly device: Device;
  readonly flags: bigint;
  readonly policy: bigint;
}
interface InitArgs extends VmArgs {
  readonly how: 'init' | 'es-init' | 'init2';
  readonly flags: bigint;
  readonly features: bigint;
  readonly ghcb: bigint;
}
interface FromArgs extends VmArgs {
  readonly from: Label;
}
interface RegionArgs extends VmArgs {
  readonly addr: Address;
  readonly size: bigint;
}
interface AccessArgs extends VmArgs {
  readonly vcpu: string;
  readonly gfn: bigint | string;
}
interface FileArgs extends VmArgs {
  readonly file: Label;
}

const fdOf = (device: Device): SevFd => (device === 'sev' ? '/dev/sev' : 'stdin');

function init(machine: SevMachine, { vm, how, flags, features, ghcb }: InitArgs): Outcome {
  return machine.vmIoctl(vm, (kvm) => {
    if (how === 'init') return machine.sevMemEncIoctl(kvm, 'INIT', () => machine.sevGuestInit(kvm, 'INIT'));
    if (how === 'es-init') return machine.sevMemEncIoctl(kvm, 'ES_INIT', () => machine.sevGuestInit(kvm, 'ES_INIT'));
    const init2: SevInit = { flags, vmsaFeatures: features, ghcbVersion: ghcb };
    return machine.sevMemEncIoctl(kvm, 'INIT2', () => machine.sevGuestInit2(kvm, init2));
  });
}

const HANDLERS: Handlers<SevMachine> = {
  'sev.vm': (machine, { vm, type }: VmArgs & { type: string }) => machine.createVm(vm, TYPES[type] ?? 0n),
  'sev.init': init,
  'sev.vcpu': (machine, { vm, vcpu }: VmArgs & { vcpu: string }) =>
    machine.vmIoctl(vm, (kvm) => machine.createVcpu(kvm, vcpuLabel(vm, vcpu), BigInt(vcpu))),
  'sev.launch-start': (machine, { vm, device }: VmArgs & { device: Device }) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'LAUNCH_START', () => machine.sevLaunchStart(kvm, fdOf(device))),
    ),
  'sev.launch-update-data': (machine, { vm, addr, len }: VmArgs & { addr: Address; len: bigint }) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'LAUNCH_UPDATE_DATA', () =>
        machine.sevLaunchUpdateData(kvm, machine.resolve(addr), len),
      ),
    ),
  'sev.launch-update-vmsa': (machine, { vm }: VmArgs) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'LAUNCH_UPDATE_VMSA', () => machine.sevLaunchUpdateVmsa(kvm)),
    ),
  'sev.launch-measure': (machine, { vm }: VmArgs) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'LAUNCH_MEASURE', () =>
        machine.sevLaunchCmd(kvm, (handle) => machine.firmware.launchMeasure(handle)),
      ),
    ),
  'sev.launch-finish': (machine, { vm }: VmArgs) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'LAUNCH_FINISH', () =>
        machine.sevLaunchCmd(kvm, (handle) => machine.firmware.launchFinish(handle)),
      ),
    ),
  'sev.guest-status': (machine, { vm }: VmArgs) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'GUEST_STATUS', () => {
        const state = machine.sevLaunchCmd(kvm, (handle) => machine.firmware.guestStatus(handle));
        return typeof state === 'number' ? BigInt(state) : state;
      }),
    ),
  'sev.snp-start': (machine, { vm, device, flags, policy }: SnpStartArgs) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'SNP_LAUNCH_START', () => machine.snpLaunchStart(kvm, fdOf(device), flags, policy)),
    ),
  'sev.snp-finish': (machine, { vm, flags }: VmArgs & { flags: bigint }) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.sevMemEncIoctl(kvm, 'SNP_LAUNCH_FINISH', () => machine.snpLaunchFinish(kvm, flags)),
    ),
  'sev.set-regs': (machine, { vm, vcpu, value }: VmArgs & { vcpu: string; value: bigint }) =>
    machine.vcpuIoctl(vcpuLabel(vm, vcpu), (each) => outcomeOf(machine.kvmArchVcpuIoctlSetRegs(each, value))),
  'sev.copy': (machine, { vm, from }: FromArgs) =>
    machine.vmIoctl(vm, (kvm) => outcomeOf(machine.sevVmCopyEncContextFrom(kvm, from))),
  'sev.move': (machine, { vm, from }: FromArgs) =>
    machine.vmIoctl(vm, (kvm) => outcomeOf(machine.sevVmMoveEncContextFrom(kvm, from))),
  'sev.region-add': (machine, { vm, addr, size }: RegionArgs) =>
    machine.vmIoctl(vm, (kvm) => outcomeOf(machine.sevMemEncRegisterRegion(kvm, machine.resolve(addr), size))),
  'sev.region-drop': (machine, { vm, addr, size }: RegionArgs) =>
    machine.vmIoctl(vm, (kvm) => outcomeOf(machine.sevMemEncUnregisterRegion(kvm, machine.resolve(addr), size))),
  'sev.discard': (machine, { page }: { page: string }) => machine.madviseRemove(Number(page)),
  'sev.store': (machine, { vm, vcpu, gfn, value }: AccessArgs & { value: bigint }) =>
    machine.vcpuRun(vcpuLabel(vm, vcpu), BigInt(gfn), value),
  'sev.load': (machine, { vm, vcpu, gfn }: AccessArgs) => machine.vcpuRun(vcpuLabel(vm, vcpu), BigInt(gfn), undefined),
  'sev.close': (machine, { vm, which }: VmArgs & { which: 'vm' | 'vcpu0' | 'vcpu1' }) =>
    machine.closeFd(which === 'vm' ? vm : `${vm}/${which}`) ? ok() : fails('EBADF'),
  'sev.firmware-fails': (machine, { command }: { command: FailingCommand }) => {
    machine.firmware.fail(command);
    return ok();
  },
  'sev.file': (machine, { file, vm }: FileArgs) =>
    machine.vmIoctl(vm, (kvm) =>
      machine.install(file, machine.kvmGmemCreate(kvm, file, PAGE_SIZE, GMEM_FLAG.MMAP | GMEM_FLAG.INIT_SHARED)),
    ),
  'sev.link': (machine, { file, vm, from }: FileArgs & FromArgs) =>
    machine.vmIoctl(vm, (kvm) => machine.install(file, machine.kvmGmemLink(kvm, file, from, 0n))),
  'sev.bind': (machine, { vm, file, gfn }: FileArgs & { gfn: string | bigint }) =>
    machine.vmIoctl(vm, (kvm) =>
      outcomeOf(
        machine.kvmVmIoctlSetMemoryRegion(
          kvm,
          {
            slot: BigInt(gfn),
            flags: KVM_MEM.GUEST_MEMFD,
            guestPhysAddr: BigInt(gfn) << PAGE_SHIFT,
            memorySize: PAGE_SIZE,
            userspaceAddr: 0n,
            guestMemfd: file,
            guestMemfdOffset: 0n,
          },
          'v2',
        ),
      ),
    ),
  'sev.close-file': (machine, { file }: { file: Label }) => (machine.closeFd(file) ? ok() : fails('EBADF')),
};
