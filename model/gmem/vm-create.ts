import { VM_TYPE } from '../core/abi.ts';
import { fd, fresh, u64 } from '../core/domain.ts';
import type { Machine } from '../core/machine.ts';
import { pick } from '../core/random.ts';
import { EMPTY } from '../core/ranges.ts';
import { DEVICE, withEntry, withFd, type State, type Vm } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';

const isSupported = (state: State, type: bigint): boolean =>
  type < 32n && ((state.config.machine.vmTypes >> type) & 1n) === 1n;

/** Whether the VM has private memory. Source: arch/x86/kvm/x86.c: kvm_arch_init_vm(). */
export const hasPrivateMemory = (vm: Vm): boolean => vm.type === VM_TYPE.SW_PROTECTED;

/** Why nothing on the machine is private, where that is so. */
export const withoutPrivateMemory = ({ vmTypes }: Machine): string | undefined =>
  (vmTypes & (1n << VM_TYPE.SW_PROTECTED)) === 0n ? 'no type of VM on the machine has private memory' : undefined;

export const vmCreate = defineTransition({
  name: 'vm.create',
  summary: 'Creates a virtual machine: one struct kvm and a descriptor of it.',
  does: '`vm = ioctl(dev, KVM_CREATE_VM, type)`',
  source: 'virt/kvm/kvm_main.c: kvm_dev_ioctl_create_vm()',
  args: { vm: fresh('vm'), dev: fd('device'), type: u64({ boundaries: [...Object.values(VM_TYPE), 31n, 32n, 33n] }) },
  mayAlso: ['ENOMEM', 'EMFILE'],
  builds: true,
  essential: true,
  weight: 6,
  guards: [
    { descriptor: 'dev', kind: 'device', ioctl: true },
    {
      id: 'vm.create/unsupported-type',
      errno: 'EINVAL',
      when: 'the VM type is not one that the machine supports',
      source: 'arch/x86/kvm/x86.c: kvm_is_vm_type_supported()',
      violated: ({ type }, state) => !isSupported(state, type),
      violate: (args, state, random) => {
        const wrong = [...Object.values(VM_TYPE), 31n, 32n, 63n, 64n].filter((type) => !isSupported(state, type));
        return { ...args, type: pick(random, wrong) };
      },
    },
  ],
  accepts: [
    {
      id: 'vm.create/created',
      when: 'the type is supported',
      accept: ({ vm, type }, state) => ({
        state: {
          ...withFd(state, vm, { kind: 'vm', id: vm }),
          vms: withEntry(state.vms, vm, { type, slots: new Map(), private: EMPTY, stageTwo: [], mmio: EMPTY }),
        },
      }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    // A second VM is for mixing up; a third teaches little and thins out what happens in the others.
    if (random.below(3 ** Math.min(state.vms.size, 3)) > 0) return undefined;
    const types = Object.values(VM_TYPE).filter((type) => isSupported(state, type));
    return { vm: label('vm'), dev: DEVICE, type: pick(random, types) };
  },
});
