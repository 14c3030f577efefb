import { ATTRIBUTE_PRIVATE, CAP, GMEM_FLAG, KVM_USER_MEM_SLOTS } from '../core/abi.ts';
import { fd, u64 } from '../core/domain.ts';
import { holdsIn } from '../core/profile.ts';
import { pick } from '../core/random.ts';
import { DEVICE, NO_FD, known, openAs, type Label, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { chooseFd } from './choose.ts';
import { addressSpacesOf } from './slots.ts';
import { hasPrivateMemory } from './vm-create.ts';

const KNOWN: readonly bigint[] = Object.values(CAP);

/** Flags that KVM_CREATE_GUEST_MEMFD takes. Source: kvm_gmem_get_supported_flags(). `vm` is undefined for the system. */
export function supportedGmemFlags(state: State, vm: Label | undefined): bigint {
  const initShared = vm === undefined || !hasPrivateMemory(known(state.vms, vm));
  const noDirectMap = holdsIn(state.config.profile, { feature: 'direct-map' });
  return GMEM_FLAG.MMAP | (initShared ? GMEM_FLAG.INIT_SHARED : 0n) | (noDirectMap ? GMEM_FLAG.NO_DIRECT_MAP : 0n);
}

/** Attributes that a VM takes. Source: kvm_supported_mem_attributes(). */
export const supportedAttributes = (state: State, vm: Label | undefined): bigint =>
  vm === undefined || hasPrivateMemory(known(state.vms, vm)) ? ATTRIBUTE_PRIVATE : 0n;

function answer(state: State, vm: Label | undefined, cap: bigint): bigint {
  const { machine } = state.config;
  switch (cap) {
    case CAP.NR_MEMSLOTS:
      return KVM_USER_MEM_SLOTS;
    case CAP.MAX_VCPUS:
      return machine.maxVcpus;
    case CAP.MAX_VCPU_ID:
      return machine.maxVcpuIds;
    case CAP.MULTI_ADDRESS_SPACE:
      if (machine.addressSpaces === 1) return 0n;
      return BigInt(vm === undefined ? machine.addressSpaces : addressSpacesOf(state, known(state.vms, vm)));
    case CAP.MEMORY_ATTRIBUTES:
      return machine.memoryAttributes ? supportedAttributes(state, vm) : 0n;
    case CAP.VM_TYPES:
      return machine.vmTypes;
    case CAP.PRE_FAULT_MEMORY:
      return machine.twoDimensionalPaging ? 1n : 0n;
    case CAP.GUEST_MEMFD_FLAGS:
      return supportedGmemFlags(state, vm);
    default:
      return 1n;
  }
}

export const capCheck = defineTransition({
  name: 'cap.check',
  summary: 'Asks what the system, or one VM, supports.',
  does: '`ioctl(fd, KVM_CHECK_EXTENSION, cap)`',
  tells:
    'what the ioctl returns: for NR_MEMSLOTS 32764; for MAX_VCPUS, MAX_VCPU_ID and VM_TYPES what the machine has; for ' +
    'MULTI_ADDRESS_SPACE how many there are, which is 1 for a VM with private memory, and 0 for all where the machine has ' +
    'one; for MEMORY_ATTRIBUTES those that can be set, which are none for a VM without private memory; for ' +
    'PRE_FAULT_MEMORY 1 with two-dimensional paging, else 0; for GUEST_MEMFD_FLAGS those that can be given, where ' +
    'INIT_SHARED is not for a VM with private memory; for the others 1',
  source:
    'virt/kvm/kvm_main.c: kvm_vm_ioctl_check_extension_generic(); arch/x86/kvm/x86.c: kvm_vm_ioctl_check_extension()',
  args: { fd: fd('any'), cap: u64({ boundaries: KNOWN }) },
  mayAlso: [],
  weight: 2,
  guards: [
    {
      id: 'cap.check/bad-descriptor',
      group: 'descriptor',
      errno: 'EBADF',
      when: '`fd` names no open file',
      source: 'fs/file.c: fdget()',
      violated: (args, state) => !state.fds.has(args.fd),
      violate: (args) => ({ ...args, fd: NO_FD }),
    },
    {
      id: 'cap.check/foreign-ioctl',
      group: 'descriptor',
      errno: 'EINVAL',
      when: '`fd` is a vCPU, which does not know the ioctl',
      source: 'arch/x86/kvm/x86.c: kvm_arch_vcpu_ioctl()',
      violated: (args, state) => state.fds.get(args.fd)?.kind === 'vcpu',
      violate: (args, state, random) => {
        const label = chooseFd(random, state, 'vcpu');
        return label === undefined ? undefined : { ...args, fd: label };
      },
    },
    {
      id: 'cap.check/wrong-descriptor',
      errno: 'ENOTTY',
      when: '`fd` is any other file but /dev/kvm and a VM',
      source: 'fs/ioctl.c: vfs_ioctl()',
      violated: (args, state) => !['device', 'vm'].includes(state.fds.get(args.fd)?.kind ?? ''),
      violate: (args, state, random) => {
        const label = chooseFd(random, state, pick(random, ['other', 'gmem']));
        return label === undefined ? undefined : { ...args, fd: label };
      },
    },
    {
      id: 'cap.check/other-extension',
      unmodelled: 'extensions that guest-private memory does not touch are not part of this specification',
      when: 'the extension is not one of those listed in `CAP`',
      violated: ({ cap }) => !KNOWN.includes(cap),
      violate: (args) => ({ ...args, cap: 0n }),
    },
  ],
  accepts: [
    {
      id: 'cap.check/system',
      when: 'the system is asked: the answer is the most that any VM may have',
      applies: (args, state) => openAs(state, args.fd, 'vm') === undefined,
      accept: ({ cap }, state) => ({ state, value: answer(state, undefined, cap) }),
    },
    {
      id: 'cap.check/vm',
      when: 'a VM is asked: the answer is what that VM has',
      accept: (args, state) => ({ state, value: answer(state, openAs(state, args.fd, 'vm'), args.cap) }),
    },
  ],
  draw: ({ random, state }) => ({
    fd: chooseFd(random, state, random.below(2) === 0 ? 'device' : 'vm') ?? DEVICE,
    cap: pick(random, KNOWN),
  }),
});
