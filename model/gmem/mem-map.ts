import { GMEM_FLAG, I64_MAX, isPageAligned, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, toPages, U64_MAX } from '../core/abi.ts';
import { choice, fd, fresh, u64 } from '../core/domain.ts';
import { known, newMapping, withEntry } from '../core/state.ts';
import type { Inode, Label, State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { bytes, chooseFd, choosePages } from './choose.ts';

/** PAGE_ALIGN(), before it wraps. */
const roundUp = (length: bigint): bigint => (length + PAGE_MASK) & ~PAGE_MASK;

/** Programs map so little of this length that all mappings begin in the lower half of the address space. */
const VERY_LONG = 1n << 40n;

const inodeOf = (state: State, label: Label): Inode =>
  known(state.inodes, known(state.files, known(state.fds, label).id).inode);

export const memMap = defineTransition({
  name: 'mem.map',
  summary:
    'Maps a guest memory file into the host process, readable and writable, at an address of the kernel’s choice.',
  does: '`mapping = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, offset)`; flags by `sharing`: MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE',
  source: 'mm/mmap.c: do_mmap(); virt/kvm/guest_memfd.c: kvm_gmem_mmap()',
  args: {
    mapping: fresh('map'),
    fd: fd('gmem'),
    length: u64({ boundaries: [VERY_LONG, 1n << 47n, 0x7fff_ffff_f000n, U64_MAX - PAGE_SIZE + 2n] }),
    offset: u64(),
    sharing: choice('shared', 'validate', 'private'),
  },
  mayAlso: ['ENOMEM'],
  builds: true,
  weight: 7,
  guards: [
    {
      id: 'mem.map/offset-unaligned',
      errno: 'EINVAL',
      when: 'the offset is not page aligned, even if the descriptor is bad',
      source: 'arch/x86/kernel/sys_x86_64.c: mmap()',
      violated: ({ offset }) => !isPageAligned(offset),
      violate: (args) => ({ ...args, offset: args.offset | 1n }),
    },
    { descriptor: 'fd', kind: 'gmem' },
    {
      id: 'mem.map/empty',
      group: 'length',
      errno: 'EINVAL',
      when: 'the length is zero',
      violated: ({ length }) => length === 0n,
      violate: (args) => ({ ...args, length: 0n }),
    },
    {
      id: 'mem.map/longer-than-user-space',
      group: 'length',
      errno: 'ENOMEM',
      when: 'the length is beyond what a process can map, or wraps when rounded up to pages',
      source: 'mm/mmap.c: do_mmap(), __get_unmapped_area()',
      violated: ({ length }, state) => roundUp(length) > state.config.machine.userTop,
      violate: (args) => ({ ...args, length: U64_MAX }),
    },
    {
      id: 'mem.map/very-long',
      unmodelled: 'whether and where so long a mapping finds room is up to the rest of the process',
      when: 'the length is beyond one TiB',
      violated: ({ length }) => roundUp(length) > VERY_LONG,
      violate: (args) => ({ ...args, length: VERY_LONG + PAGE_SIZE }),
    },
    {
      id: 'mem.map/beyond-largest-file',
      errno: 'EOVERFLOW',
      when: 'the end of the mapped range is beyond what a file can have',
      source: 'mm/mmap.c: file_mmap_ok()',
      violated: ({ offset, length }) => offset >> PAGE_SHIFT > (I64_MAX - roundUp(length)) >> PAGE_SHIFT,
      violate: (args) => ({ ...args, offset: U64_MAX - PAGE_SIZE + 1n }),
    },
    {
      id: 'mem.map/not-mappable',
      errno: 'ENODEV',
      when: 'the file was created without MMAP',
      violated: (args, state) => (inodeOf(state, args.fd).flags & GMEM_FLAG.MMAP) === 0n,
      violate: (args, state) => {
        for (const [label, open] of state.fds)
          if (open.kind === 'gmem' && (inodeOf(state, label).flags & GMEM_FLAG.MMAP) === 0n)
            return { ...args, fd: label };
        return undefined;
      },
    },
    {
      id: 'mem.map/not-shared',
      errno: 'EINVAL',
      when: 'the mapping would be private (copy on write)',
      violated: ({ sharing }) => sharing === 'private',
      violate: (args) => ({ ...args, sharing: 'private' }),
    },
  ],
  accepts: [
    {
      id: 'mem.map/mapped',
      when: 'the file may be mapped; the range may end beyond the file',
      accept: ({ mapping, fd: label, length, offset }, state) => {
        const file = known(state.fds, label).id;
        const { inode } = known(state.files, file);
        const pages = toPages(roundUp(length));
        return {
          state: {
            ...state,
            mappings: withEntry(state.mappings, mapping, newMapping(inode, file, toPages(offset), pages)),
          },
        };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const file = chooseFd(random, state, 'gmem');
    if (file === undefined || (inodeOf(state, file).flags & GMEM_FLAG.MMAP) === 0n) return undefined;
    if (state.mappings.size > 2 && random.below(6) > 0) return undefined;
    const pages = choosePages(random, 12);
    return {
      mapping: label('map'),
      fd: file,
      length: bytes(pages) - (random.below(8) === 0 ? 1n : 0n),
      offset: bytes(random.below(4) === 0 ? random.below(8) : 0),
      sharing: random.below(5) === 0 ? 'validate' : 'shared',
    };
  },
});
