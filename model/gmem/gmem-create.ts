import { GMEM_FLAG, I64_MAX, isPageAligned, toPages } from '../core/abi.ts';
import { fd, fresh, u64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { EMPTY } from '../core/ranges.ts';
import { known, openAs, withEntry, withFd } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { supportedGmemFlags } from './cap-check.ts';
import { bytes, chooseFd, choosePages } from './choose.ts';

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
    const { MMAP, INIT_SHARED } = GMEM_FLAG;
    return {
      file: label('file'),
      vm,
      size: bytes(random.below(10) === 0 ? 2 ** 33 : choosePages(random, 12)),
      flags: pick(random, [0n, MMAP, MMAP | INIT_SHARED, INIT_SHARED]) & supported,
      reserved: random.below(6) === 0 ? 1n : 0n,
    };
  },
});
