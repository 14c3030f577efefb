import { FALLOC, I64_MAX, isPageAligned, PAGE_SIZE, toPages } from '../core/abi.ts';
import { fd, i32, i64 } from '../core/domain.ts';
import { fails } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { remove, type RangeSet } from '../core/ranges.ts';
import { known } from '../core/state.ts';
import type { Inode, Label, State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { bytes, chooseFd, choosePage } from './choose.ts';
import { makeResident, punch } from './content.ts';
import { leftStuck, stuckPage } from './direct-map-fault.ts';
import { bytesOfPages, hasRoomFor, missingPages, UP_TO_THE_MACHINE } from './memory-budget.ts';

const { KEEP_SIZE, PUNCH_HOLE, NO_HIDE_STALE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE, WRITE_ZEROES } =
  FALLOC;
/** FALLOC_FL_MODE_MASK: of these at most one may be given. */
const OPERATIONS = [PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE, WRITE_ZEROES] as const;
const MODE_MASK = OPERATIONS.reduce((mask, bit) => mask | bit, 0n);

const operation = (mode: bigint): bigint => BigInt.asUintN(32, mode) & MODE_MASK;
const isPunch = ({ mode }: { readonly mode: bigint }): boolean => (mode & PUNCH_HOLE) !== 0n;

const inodeOf = (state: State, label: Label): Label => known(state.files, known(state.fds, label).id).inode;
const sizeOf = (state: State, label: Label): Inode => known(state.inodes, inodeOf(state, label));

interface FileRange {
  readonly fd: Label;
  readonly offset: bigint;
  readonly length: bigint;
}

/** The first page that is to enter the file and cannot leave the direct map. */
const stuckAt = ({ fd: label, offset, length }: FileRange, state: State): number | undefined =>
  stuckPage(state, inodeOf(state, label), toPages(offset), toPages(offset + length));

const bytesWanted = ({ fd: label, offset, length }: FileRange, state: State): number =>
  bytesOfPages(missingPages(state, inodeOf(state, label), toPages(offset), toPages(offset + length)));

/** A descriptor of a file that a cache has a page of. */
function chooseCached(random: Random, state: State): Label | undefined {
  const inodes = new Set([...state.caches.values()].map(({ page }) => page?.inode));
  const found = [...state.fds].filter(([label, { kind }]) => kind === 'gmem' && inodes.has(inodeOf(state, label)));
  return pickOr(random, found)?.[0];
}

export const gmemFallocate = defineTransition({
  name: 'gmem.fallocate',
  summary: 'Allocates pages of a guest memory file, or punches them out.',
  does: '`fallocate(fd, mode, offset, length)`',
  source: 'virt/kvm/guest_memfd.c: kvm_gmem_fallocate()',
  args: {
    fd: fd('gmem'),
    mode: i32({ boundaries: [0n, 1n, 2n, 3n, 4n, 8n, 0x10n, 0x20n, 0x40n, 0x80n, 0x100n] }),
    offset: i64(),
    length: i64(),
  },
  mayAlso: (['ENOMEM', 'EINTR'] as const).map((errno) => ({
    errno,
    when: 'pages are allocated',
    applies: (args) => !isPunch(args),
  })),
  mayLeavePrefix: true,
  weight: 10,
  guards: [
    { descriptor: 'fd', kind: 'gmem' },
    {
      id: 'gmem.fallocate/negative',
      errno: 'EINVAL',
      when: 'the offset is negative, or the length is not positive',
      source: 'fs/open.c: vfs_fallocate()',
      violated: ({ offset, length }) => offset < 0n || length <= 0n,
      violate: (args, _state, random) =>
        pick(random, [
          { ...args, offset: -PAGE_SIZE },
          { ...args, length: 0n },
          { ...args, length: -PAGE_SIZE },
        ]),
    },
    {
      id: 'gmem.fallocate/unknown-mode',
      errno: 'EOPNOTSUPP',
      when: 'a mode bit is set that is no operation and not KEEP_SIZE',
      source: 'fs/open.c: vfs_fallocate()',
      violated: ({ mode }) => (BigInt.asUintN(32, mode) & ~(MODE_MASK | KEEP_SIZE)) !== 0n,
      violate: (args, _state, random) => ({ ...args, mode: args.mode | pick(random, [NO_HIDE_STALE, 0x100n]) }),
    },
    {
      id: 'gmem.fallocate/two-operations',
      errno: 'EOPNOTSUPP',
      when: 'the mode names more than one operation',
      source: 'fs/open.c: vfs_fallocate()',
      violated: ({ mode }) => operation(mode) !== 0n && !OPERATIONS.includes(operation(mode) as typeof PUNCH_HOLE),
      violate: (args) => ({ ...args, mode: KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE }),
    },
    {
      id: 'gmem.fallocate/keep-size-mismatch',
      errno: 'EOPNOTSUPP',
      when: 'PUNCH_HOLE comes without KEEP_SIZE, or COLLAPSE_RANGE, INSERT_RANGE or WRITE_ZEROES with it',
      source: 'fs/open.c: vfs_fallocate()',
      violated: ({ mode }) => {
        const keep = (mode & KEEP_SIZE) !== 0n;
        return keep
          ? [COLLAPSE_RANGE, INSERT_RANGE, WRITE_ZEROES].includes(operation(mode) as typeof INSERT_RANGE)
          : operation(mode) === PUNCH_HOLE;
      },
      violate: (args, _state, random) => ({ ...args, mode: pick(random, [PUNCH_HOLE, KEEP_SIZE | COLLAPSE_RANGE]) }),
    },
    {
      id: 'gmem.fallocate/overflow',
      errno: 'EFBIG',
      when: 'offset plus length is beyond the largest signed number',
      source: 'fs/open.c: vfs_fallocate()',
      violated: ({ offset, length }) => offset + length > I64_MAX,
      violate: (args) => ({ ...args, offset: I64_MAX - PAGE_SIZE + 1n, length: PAGE_SIZE }),
    },
    {
      id: 'gmem.fallocate/size-may-change',
      errno: 'EOPNOTSUPP',
      when: 'the mode is without KEEP_SIZE',
      violated: ({ mode }) => (mode & KEEP_SIZE) === 0n,
      violate: (args) => ({ ...args, mode: 0n }),
    },
    {
      id: 'gmem.fallocate/other-operation',
      errno: 'EOPNOTSUPP',
      when: 'the operation is other than to allocate or to punch',
      violated: ({ mode }) => (mode & ~(KEEP_SIZE | PUNCH_HOLE)) !== 0n,
      violate: (args, _state, random) => ({ ...args, mode: KEEP_SIZE | pick(random, [ZERO_RANGE, UNSHARE_RANGE]) }),
    },
    {
      id: 'gmem.fallocate/unaligned',
      errno: 'EINVAL',
      when: 'offset or length is not a multiple of the page size',
      violated: ({ offset, length }) => !isPageAligned(offset) || !isPageAligned(length),
      violate: (args, _state, random) =>
        pick(random, [
          { ...args, offset: args.offset + 1n },
          { ...args, length: args.length + 0x800n },
        ]),
    },
    {
      id: 'gmem.fallocate/beyond-file',
      errno: 'EINVAL',
      when: 'pages are to be allocated beyond the size of the file',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_allocate()',
      violated: (args, state) => !isPunch(args) && args.offset + args.length > bytes(sizeOf(state, args.fd).pages),
      violate: (args, state) => ({
        ...args,
        mode: KEEP_SIZE,
        length: bytes(sizeOf(state, args.fd).pages) - args.offset + PAGE_SIZE,
      }),
    },
    {
      id: 'gmem.fallocate/more-than-memory',
      unmodelled: UP_TO_THE_MACHINE,
      when: 'pages are to be allocated, and with what is held already they need more than half of the machine’s memory',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_allocate()',
      violated: (args, state) => !isPunch(args) && !hasRoomFor(state, bytesWanted(args, state)),
      violate: (args, state) => {
        for (const [fd, { kind }] of state.fds) {
          const all = { ...args, fd, mode: KEEP_SIZE, offset: 0n };
          if (kind !== 'gmem') continue;
          const length = bytes(sizeOf(state, fd).pages);
          if (!hasRoomFor(state, bytesWanted({ ...all, length }, state))) return { ...all, length };
        }
        return undefined;
      },
    },
    {
      id: 'gmem.fallocate/stays-in-direct-map',
      only: { feature: 'direct-map-on-entry' },
      requires: 'fault-injection',
      result: 'ENOMEM',
      outcome: () => fails('ENOMEM'),
      leaves: (args, state) => leftStuck(state, inodeOf(state, args.fd), stuckAt(args, state) ?? 0),
      when: 'a page cannot leave the direct map: those before it stay; nobody is given it, and the next use tries again',
      source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patch 1: kvm_gmem_folio_set_private()',
      violated: (args, state) => !isPunch(args) && stuckAt(args, state) !== undefined,
    },
  ],
  accepts: [
    {
      id: 'gmem.fallocate/punch',
      when: 'PUNCH_HOLE: the pages are given back; what lies beyond the size is ignored',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_punch_hole()',
      applies: isPunch,
      accept: (args, state) => ({
        state: punch(state, inodeOf(state, args.fd), toPages(args.offset), toPages(args.offset + args.length)),
      }),
    },
    {
      id: 'gmem.fallocate/allocate',
      when: 'every page of the range gets a folio; it is cleared when it is first used',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_allocate()',
      accept: (args, state) => ({
        state: makeResident(state, inodeOf(state, args.fd), toPages(args.offset), toPages(args.offset + args.length)),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const cached = state.caches.size > 0 && random.below(3) === 0 ? chooseCached(random, state) : undefined;
    // Caches should hear of a hole that goes beyond their slot on either side.
    if (cached !== undefined)
      return { fd: cached, mode: KEEP_SIZE | PUNCH_HOLE, offset: 0n, length: bytes(sizeOf(state, cached).pages) };
    const label = chooseFd(random, state, 'gmem');
    if (label === undefined) return undefined;
    const { pages, resident } = sizeOf(state, label);
    const punches = random.below(2) === 0;
    // Punching what is there and allocating what is not does more than the other way round.
    const holes = resident.reduce<RangeSet>(
      (set, { start, end }) => remove(set, start, end),
      [{ start: 0, end: pages }],
    );
    const wanted = punches ? resident : holes;
    const range = random.below(4) === 0 ? undefined : pickOr(random, wanted);
    const first = range === undefined ? choosePage(random, pages) : range.start;
    const most = Math.min((range?.end ?? pages) - first, 8);
    const length = pick(random, [1, 1, 1 + random.below(most), most, most, pages - first]);
    return {
      fd: label,
      mode: punches ? KEEP_SIZE | PUNCH_HOLE : KEEP_SIZE,
      offset: bytes(first),
      length: bytes(punches && random.below(6) === 0 ? length + 4 : length),
    };
  },
});
