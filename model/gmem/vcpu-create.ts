import { fd, fresh, u64 } from '../core/domain.ts';
import { known, openAs, withEntry, withFd, type Label, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { chooseFd } from './choose.ts';

/** A vCPU keeps its id until its VM is destroyed, also after its descriptor was closed. */
const idIsTaken = (state: State, vm: Label, id: bigint): boolean =>
  [...state.vcpus.values()].some((vcpu) => vcpu.vm === vm && vcpu.apicId === id);

const isFull = ({ vcpus, config }: State, vm: Label): boolean =>
  BigInt([...vcpus.values()].filter((vcpu) => vcpu.vm === vm).length) >= config.machine.maxVcpus;

export const vcpuCreate = defineTransition({
  name: 'vcpu.create',
  summary: 'Creates a virtual CPU of a VM.',
  does: '`vcpu = ioctl(vm, KVM_CREATE_VCPU, id)`',
  source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl_create_vcpu()',
  args: { vcpu: fresh('vcpu'), vm: fd('vm'), id: u64({ boundaries: [4095n, 4096n, 1n << 31n] }) },
  mayAlso: ['ENOMEM', 'EMFILE'],
  builds: true,
  essential: true,
  weight: 6,
  guards: [
    { descriptor: 'vm', kind: 'vm', ioctl: true },
    {
      id: 'vcpu.create/id-too-large',
      errno: 'EINVAL',
      when: 'the id is not below the largest number of vCPU ids',
      violated: ({ id }, state) => id >= state.config.machine.maxVcpuIds,
      violate: (args, state) => ({ ...args, id: state.config.machine.maxVcpuIds }),
    },
    {
      id: 'vcpu.create/too-many',
      errno: 'EINVAL',
      when: 'the VM has as many vCPUs as it can have, their descriptors open or closed',
      violated: ({ vm }, state) => isFull(state, openAs(state, vm, 'vm') ?? vm),
      violate: (args, state) => {
        const full = [...state.fds].find(([, { kind, id }]) => kind === 'vm' && isFull(state, id));
        return full && { ...args, vm: full[0] };
      },
      unreachable: ({ maxVcpus }) => (maxVcpus > 64n ? 'a VM can have more vCPUs than a program makes' : undefined),
    },
    {
      id: 'vcpu.create/id-taken',
      errno: 'EEXIST',
      when: 'the VM has a vCPU of that id, its descriptor open or closed',
      violated: ({ vm, id }, state) => idIsTaken(state, openAs(state, vm, 'vm') ?? vm, id),
      violate: (args, state) => {
        const taken = [...state.vcpus.values()].find((vcpu) => vcpu.vm === openAs(state, args.vm, 'vm'));
        return taken === undefined ? undefined : { ...args, id: taken.apicId };
      },
    },
  ],
  accepts: [
    {
      id: 'vcpu.create/created',
      when: 'the id is free',
      accept: ({ vcpu, vm, id }, state) => ({
        state: {
          ...withFd(state, vcpu, { kind: 'vcpu', id: vcpu }),
          vcpus: withEntry(state.vcpus, vcpu, { vm: known(state.fds, vm).id, apicId: id }),
        },
      }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const vm = chooseFd(random, state, 'vm');
    if (vm === undefined) return undefined;
    const owner = known(state.fds, vm).id;
    let id = 0n;
    while (idIsTaken(state, owner, id)) id++;
    if (id > 0n && random.below(4) > 0) return undefined;
    return { vcpu: label('vcpu'), vm, id };
  },
});
