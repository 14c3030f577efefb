import { GMEM_FLAG, I64_MAX, isPageAligned, toPages } from '../core/abi.ts';
import { fd, fresh, u64 } from '../core/domain.ts';
import { holdsIn } from '../core/profile.ts';
import { pick, type Random } from '../core/random.ts';
import { EMPTY } from '../core/ranges.ts';
import { known, openAs, withEntry, withFd, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { supportedGmemFlags } from './cap-check.ts';
import { bytes, chooseFd, choosePages } from './choose.ts';

const { MMAP, INIT_SHARED, NO_DIRECT_MAP } = GMEM_FLAG;
const MAPPED_WITHOUT_DIRECT_MAP = NO_DIRECT_MAP | MMAP;

/** Flags that the VM takes; where it takes NO_DIRECT_MAP, mostly with that. */
function chooseFlags(random: Random, { config: { profile } }: State, supported: bigint): bigint {
  const flags = pick(random, [0n, MMAP, MMAP | INIT_SHARED, INIT_SHARED]) & supported;
  if ((supported & NO_DIRECT_MAP) === 0n || random.below(4) === 0) return flags;
  if (holdsIn(profile, { feature: 'direct-map-reinsertion' })) return NO_DIRECT_MAP;
  // KVM can reach what the host has mapped.
  return NO_DIRECT_MAP | (random.below(2) === 0 ? flags : (MMAP | INIT_SHARED) & supported);
}

export const gmemCreate = defineTransition({
  name: 'gmem.create',
  summary: 'Creates a guest memory inode, and a file of it that belongs to this VM for ever.',
  does: '`file = ioctl(vm, KVM_CREATE_GUEST_MEMFD, { size, flags, reserved[0] = reserved })`',
  source: 'virt/kvm/guest_memfd.c: kvm_gmem_create(), __kvm_gmem_create()',
  args: {
    file: fresh('file'),
    vm: fd('vm'),
    size: u64(),
    flags: u64({ boundaries: [2n, 3n, 4n, 7n] }),
    // Ignored to this day, so it cannot safely gain a meaning.
    reserved: u64(),
  },
  mayAlso: ['ENOMEM', 'EMFILE'],
  builds: true,
  essential: true,
  weight: 8,
  guards: [
    { descriptor: 'vm', kind: 'vm', ioctl: true },
    {
      id: 'gmem.create/unsupported-flag',
      errno: 'EINVAL',
      when: 'a flag is set that this VM does not support',
      source: 'include/linux/kvm_host.h: kvm_gmem_get_supported_flags()',
      violated: ({ vm, flags }, state) => (flags & ~supportedGmemFlags(state, openAs(state, vm, 'vm'))) !== 0n,
      violate: (args, state, random) => {
        const refused = ~supportedGmemFlags(state, openAs(state, args.vm, 'vm'));
        const bits = [1n, 2n, 4n, 8n, 1n << BigInt(random.below(64))].filter((bit) => (bit & refused) !== 0n);
        return bits.length === 0 ? undefined : { ...args, flags: args.flags | pick(random, bits) };
      },
    },
    {
      id: 'gmem.create/mapped-without-direct-map',
      unmodelled: 'the proposal has no user mappings of guest memory, and does not say what they would be',
      when: 'the file is to be out of the direct map, and open to mmap',
      source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patch 1; patch 8 of the first RFC was dropped',
      only: { feature: 'direct-map-reinsertion' },
      violated: ({ flags }) => (flags & MAPPED_WITHOUT_DIRECT_MAP) === MAPPED_WITHOUT_DIRECT_MAP,
      violate: (args) => ({ ...args, flags: args.flags | MAPPED_WITHOUT_DIRECT_MAP }),
    },
    {
      id: 'gmem.create/size-not-positive',
      errno: 'EINVAL',
      when: 'the size is zero, or negative as a signed number',
      violated: ({ size }) => size === 0n || size > I64_MAX,
      violate: (args, _state, random) => ({ ...args, size: pick(random, [0n, 1n << 63n, (1n << 64n) - 4096n]) }),
    },
    {
      id: 'gmem.create/size-unaligned',
      errno: 'EINVAL',
      when: 'the size is not a multiple of the page size',
      violated: ({ size }) => !isPageAligned(size),
      violate: (args, _state, random) => ({ ...args, size: args.size + pick(random, [1n, 8n, 0x800n, 0xfffn]) }),
    },
  ],
  accepts: [
    {
      id: 'gmem.create/created',
      when: 'flags and size are acceptable',
      accept: ({ file, vm, size, flags }, state) => ({
        state: {
          ...withFd(state, file, { kind: 'gmem', id: file }),
          files: withEntry(state.files, file, { vm: known(state.fds, vm).id, inode: file }),
          inodes: withEntry(state.inodes, file, {
            kind: 'gmem',
            pages: toPages(size),
            flags,
            resident: EMPTY,
            removed: EMPTY,
            words: new Map(),
            poisoned: EMPTY,
          }),
        },
      }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const vm = chooseFd(random, state, 'vm');
    // Few things that are used often show more than many that are not.
    if (vm === undefined || (state.files.size >= 2 && random.below(6) > 0)) return undefined;
    const supported = supportedGmemFlags(state, openAs(state, vm, 'vm'));
    return {
      file: label('file'),
      vm,
      size: bytes(random.below(10) === 0 ? 2 ** 33 : choosePages(random, 12)),
      flags: chooseFlags(random, state, supported),
      reserved: random.below(6) === 0 ? 1n : 0n,
    };
  },
});
