import { ATTRIBUTE_PRIVATE, isPageAligned, PAGE_SIZE, toPages, U64_MAX, wrap64 } from '../core/abi.ts';
import { fd, u64 } from '../core/domain.ts';
import { holdsIn } from '../core/profile.ts';
import { pick, pickOr } from '../core/random.ts';
import { add, covers, erase, intersects, remove } from '../core/ranges.ts';
import { known, openAs, withVm, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { supportedAttributes } from './cap-check.ts';
import { bytes, chooseFd, chooseGfn, choosePage, choosePages } from './choose.ts';
import { bytesOfAttributes, hasRoomFor, UP_TO_THE_MACHINE } from './memory-budget.ts';
import { vmOf } from './slots.ts';
import { withoutPrivateMemory } from './vm-create.ts';

const domains = {
  vm: fd('vm'),
  address: u64(),
  size: u64(),
  attributes: u64({ boundaries: [1n, 2n, 4n, 8n, 9n, 16n] }),
  flags: u64(),
} as const;

type AttributesSet = ArgsOf<typeof domains>;

const rangeOf = ({ address, size }: AttributesSet): readonly [number, number] => [
  toPages(address),
  toPages(address + size),
];

function alreadySo(args: AttributesSet, state: State): boolean {
  const { private: isPrivate } = vmOf(state, args.vm);
  const [start, end] = rangeOf(args);
  return args.attributes === 0n ? !intersects(isPrivate, start, end) : covers(isPrivate, start, end);
}

export const attributesSet = defineTransition({
  name: 'attributes.set',
  summary: 'Makes guest frames private or shared. Needs no slot, outlives slots, and never touches content.',
  does: '`ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, { address, size, attributes, flags })`',
  source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl_set_mem_attributes()',
  args: domains,
  mayAlso: [
    {
      errno: 'ENOMEM',
      when: 'a frame changes, and attributes are set; before 7.3, where they are cleared as well',
      applies: (args, state) =>
        (args.attributes !== 0n || holdsIn(state.config.profile, { before: '7.3' })) && !alreadySo(args, state),
    },
  ],
  builds: true,
  essential: true,
  weight: 9,
  guards: [
    { descriptor: 'vm', kind: 'vm', ioctl: true },
    {
      id: 'attributes.set/not-built',
      errno: 'ENOTTY',
      when: 'the kernel was built without memory attributes',
      source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl(), CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES',
      violated: (_args, state) => !state.config.machine.memoryAttributes,
      unreachable: (machine) => (machine.memoryAttributes ? 'the machine has memory attributes' : undefined),
      stopsAll: (machine) => (machine.memoryAttributes ? undefined : 'the kernel was built without memory attributes'),
    },
    {
      id: 'attributes.set/flags',
      errno: 'EINVAL',
      when: 'a flag is set',
      violated: ({ flags }) => flags !== 0n,
      violate: (args) => ({ ...args, flags: 1n }),
    },
    {
      id: 'attributes.set/unsupported',
      errno: 'EINVAL',
      when: 'an attribute is set that the VM does not support: any at all, if it has no private memory',
      source: 'virt/kvm/kvm_main.c: kvm_supported_mem_attributes()',
      violated: (args, state) => (args.attributes & ~supportedAttributes(state, openAs(state, args.vm, 'vm'))) !== 0n,
      violate: (args, state, random) => {
        const refused = ~supportedAttributes(state, openAs(state, args.vm, 'vm'));
        return {
          ...args,
          attributes: pick(
            random,
            [8n, 9n, 7n, 16n].filter((bit) => (bit & refused) !== 0n),
          ),
        };
      },
    },
    {
      id: 'attributes.set/empty',
      errno: 'EINVAL',
      when: 'the size is zero',
      violated: ({ size }) => size === 0n,
      violate: (args) => ({ ...args, size: 0n }),
    },
    {
      id: 'attributes.set/wraps',
      errno: 'EINVAL',
      when: 'address plus size wraps',
      violated: ({ address, size }) => wrap64(address + size) < address,
      violate: (args) => ({ ...args, address: U64_MAX - PAGE_SIZE + 1n }),
    },
    {
      id: 'attributes.set/unaligned',
      errno: 'EINVAL',
      when: 'address or size is not a multiple of the page size',
      violated: ({ address, size }) => !isPageAligned(address) || !isPageAligned(size),
      violate: (args, _state, random) =>
        pick(random, [
          { ...args, address: args.address | 1n },
          { ...args, size: args.size | 0x800n },
        ]),
    },
    {
      id: 'attributes.set/more-than-memory',
      unreachable: withoutPrivateMemory,
      unmodelled: UP_TO_THE_MACHINE,
      when: 'a frame changes, and attributes of the whole range with what is held already need more than half of the machine’s memory; to clear them takes as long as to set them',
      source: 'virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes()',
      violated: (args, state) => {
        const [start, end] = rangeOf(args);
        return !hasRoomFor(state, bytesOfAttributes(end - start)) && !alreadySo(args, state);
      },
      violate: (args) => ({ ...args, address: 0n, size: 1n << 63n }),
    },
  ],
  accepts: [
    {
      id: 'attributes.set/already-so',
      when: 'every frame of the range has these attributes: nothing happens',
      source: 'virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes()',
      applies: alreadySo,
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'attributes.set/changed',
      unreachable: withoutPrivateMemory,
      when: 'a frame changes: stage 2 forgets the range, then the attributes are stored',
      source: 'virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes()',
      accept: (args, state) => {
        const [start, end] = rangeOf(args);
        const vm = vmOf(state, args.vm);
        const change = args.attributes === 0n ? remove : add;
        return {
          state: withVm(state, known(state.fds, args.vm).id, {
            private: change(vm.private, start, end),
            stageTwo: erase(vm.stageTwo, start, end),
          }),
        };
      },
    },
  ],
  draw: ({ random, state }) => {
    const vm = chooseFd(random, state, 'vm');
    if (vm === undefined) return undefined;
    const supported = supportedAttributes(state, openAs(state, vm, 'vm'));
    if (supported === 0n && random.below(4) > 0) return undefined;
    const slots = [...vmOf(state, vm).slots.values()];
    const withGmem = random.below(4) === 0 ? [] : slots.filter(({ gmem }) => gmem !== undefined);
    const slot = pickOr(random, withGmem) ?? pickOr(random, slots);
    const base =
      slot === undefined || random.below(5) === 0 ? chooseGfn(random) : slot.baseGfn + choosePage(random, slot.pages);
    return {
      vm,
      address: bytes(base),
      size: bytes(choosePages(random)),
      attributes: random.below(3) === 0 ? 0n : supported & ATTRIBUTE_PRIVATE,
      flags: 0n,
    };
  },
});
