/** The host maps guest memory, pins it for devices, and moves it; and it starts another kernel. */
import { choice } from '../core/domain.ts';
import { pick, pickOr } from '../core/random.ts';
import type { State, TdFrame } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { GFNS, has, isTdx, restarted, tdOf, withFrame } from './machine.ts';
import { aimed, drawFrame, frameAt, frameDomains, gfn, noTd, tdLabel, type OnGfn } from './rows.ts';

const row = (each: Guard<OnGfn>): Guard<OnGfn> => ({
  ...aimed<OnGfn>({ gfn: GFNS }, each),
  group: 'frame',
});

const THREAD = 'thread of RFC v1 "KVM: unmap guest memory using poisoned pages": David Hildenbrand';

export const hostMap = defineTransition({
  name: 'host.map',
  realm: 'td',
  summary: 'The VMM maps a frame that the guest shares with it.',
  does: 'mmap of the part of the memory object that is frame `gfn`',
  source: THREAD,
  only: { feature: 'explicit-maps' },
  args: frameDomains,
  mayAlso: [],
  weight: 6,
  guards: [
    noTd<OnGfn>('host.map'),
    row({
      id: 'host.map/mapped-before',
      errno: 'EEXIST',
      when: 'the VMM has a mapping of the frame',
      violated: (args, state) => frameAt(args, state).isMapped,
    }),
    row({
      id: 'host.map/private',
      errno: 'EACCES',
      when: 'the frame is private',
      violated: (args, state) => !frameAt(args, state).isMapped && frameAt(args, state).private,
    }),
  ],
  accepts: [
    {
      id: 'host.map/mapped',
      when: 'the frame is shared',
      accept: (args, state) => ({ state: withFrame(state, args.td, args.gfn, { isMapped: true }) }),
    },
  ],
  draw: drawFrame((frame) => !frame.private && !frame.isMapped),
});

export const hostUnmap = defineTransition({
  name: 'host.unmap',
  realm: 'td',
  summary: 'The VMM unmaps a frame. What a device has of it stays.',
  does: 'munmap of the mapping of frame `gfn`',
  source: THREAD,
  only: { feature: 'explicit-maps' },
  args: frameDomains,
  mayAlso: [],
  weight: 2,
  guards: [noTd<OnGfn>('host.unmap')],
  accepts: [
    {
      id: 'host.unmap/nothing-there',
      when: 'the VMM has no mapping of the frame',
      applies: (args, state) => !frameAt(args, state).isMapped,
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'host.unmap/unmapped',
      when: 'the VMM has a mapping of the frame',
      accept: (args, state) => ({ state: withFrame(state, args.td, args.gfn, { isMapped: false }) }),
    },
  ],
  draw: drawFrame(({ isMapped }) => isMapped),
});

/** GUP finds a page that it gives out. */
const canPin = (frame: TdFrame, state: State): boolean => {
  if (has(state, 'explicit-maps')) return frame.isMapped && !frame.private;
  return !(has(state, 'poison-entries') && frame.private);
};

const PINNING = 'drivers/iommu/iommufd/pages.c: pfn_reader_user_pin(); mm/gup.c: faultin_page()';

export const dmaMap = defineTransition({
  name: 'dma.map',
  realm: 'td',
  summary: 'The VMM gives a device the page at the host address of a frame, which is pinned for as long.',
  does: 'IOMMU_IOAS_MAP of the host address of frame `gfn`',
  source: 'drivers/iommu/iommufd/ioas.c: iommufd_ioas_map()',
  args: frameDomains,
  mayAlso: [],
  weight: 6,
  guards: [
    noTd<OnGfn>('dma.map'),
    row({
      id: 'dma.map/mapped-before',
      errno: 'EEXIST',
      when: 'a device has the page',
      source: 'drivers/iommu/iommufd/io_pagetable.c: iopt_check_iova()',
      violated: (args, state) => frameAt(args, state).isPinned,
    }),
    row({
      id: 'dma.map/poison-entry',
      only: { feature: 'poison-entries' },
      errno: 'EFAULT',
      when: 'the frame is private: GUP does not give out a poison entry',
      source: PINNING,
      violated: (args, state) => !frameAt(args, state).isPinned && !canPin(frameAt(args, state), state),
    }),
    row({
      id: 'dma.map/nothing-there',
      only: { feature: 'explicit-maps' },
      errno: 'EFAULT',
      when: 'GUP finds no mapping of the frame, or nothing behind it because the frame is private',
      source: PINNING,
      violated: (args, state) => !frameAt(args, state).isPinned && !canPin(frameAt(args, state), state),
    }),
  ],
  accepts: [
    {
      id: 'dma.map/mapped',
      when: 'GUP gives the page out',
      accept: (args, state) => ({ state: withFrame(state, args.td, args.gfn, { isPinned: true, isSwapped: false }) }),
    },
  ],
  draw: (context) => drawFrame((frame) => !frame.isPinned && canPin(frame, context.state))(context),
});

export const dmaUnmap = defineTransition({
  name: 'dma.unmap',
  realm: 'td',
  summary: 'The VMM takes a page back from a device.',
  does: 'IOMMU_IOAS_UNMAP of the address at which the device has frame `gfn`',
  source: 'drivers/iommu/iommufd/ioas.c: iommufd_ioas_unmap()',
  args: frameDomains,
  mayAlso: [],
  weight: 2,
  guards: [
    noTd<OnGfn>('dma.unmap'),
    row({
      id: 'dma.unmap/not-mapped',
      errno: 'ENOENT',
      when: 'no device has the page',
      violated: (args, state) => !frameAt(args, state).isPinned,
    }),
  ],
  accepts: [
    {
      id: 'dma.unmap/unmapped',
      when: 'a device has the page',
      accept: (args, state) => ({ state: withFrame(state, args.td, args.gfn, { isPinned: false }) }),
    },
  ],
  draw: drawFrame(({ isPinned }) => isPinned),
});

const moveDomains = { td: tdLabel, gfn, how: choice('migrate', 'swap-out', 'swap-in') } as const;

type Move = ArgsOf<typeof moveDomains>;

/** Whether the page at the host address cannot be moved. */
function isHeld(args: OnGfn, state: State): boolean {
  const { isPinned, private: isPrivate, vmmPage } = frameAt(args, state);
  // SEV pins all of the memory that it is told of, before anything is put there.
  if (isPinned || (has(state, 'c-bit') && tdOf(state, args.td).phase !== 'created')) return true;
  // The guest's own page is unevictable and unmovable, where it is the one at the host address; s390 exports it.
  return isTdx(state) && isPrivate && vmmPage === undefined;
}

const moveRow = (each: Guard<Move>): Guard<Move> =>
  aimed<Move>({ gfn: GFNS, how: ['migrate', 'swap-out', 'swap-in'] }, each);

/** What is moved is first exported, where it is the guest's. */
function moved(args: Move, state: State): State {
  const frame = frameAt(args, state);
  const isExported = has(state, 'ultravisor') && frame.entry !== 'none' && frame.exported === 'no';
  return withFrame(state, args.td, args.gfn, {
    isSwapped: args.how === 'swap-out',
    ...(isExported && { exported: 'yes' as const }),
  });
}

export const hostMove = defineTransition({
  name: 'host.move',
  realm: 'td',
  summary:
    'The host’s memory management moves the page at the host address of a frame: to another place, to swap, or back.',
  does: 'under memory pressure or compaction, the page at the host address of frame `gfn` is moved `how`',
  source: 'mm/vmscan.c: shrink_folio_list(); mm/migrate.c: migrate_pages()',
  args: moveDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noTd<Move>('host.move'),
    moveRow({
      id: 'host.move/held',
      errno: 'EBUSY',
      when: 'the page is pinned, or private memory that cannot be moved',
      source:
        'mm/migrate.c: folio_migrate_mapping(); virt/kvm/guest_memfd.c: kvm_gmem_migrate_folio(); arch/x86/kvm/svm/sev.c: sev_pin_memory()',
      violated: isHeld,
    }),
    moveRow({
      id: 'host.move/not-there',
      errno: 'ENOENT',
      when: 'the page is in swap and is to be moved away, or is not and is to come back',
      violated: (args, state) => frameAt(args, state).isSwapped !== (args.how === 'swap-in'),
    }),
  ],
  accepts: [
    {
      id: 'host.move/moved',
      when: 'the page is ordinary memory, or the guest’s and exported for it',
      accept: (args, state) => ({ state: moved(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const movable = [...state.td.tds.keys()]
      .flatMap((label) => GFNS.map((each): OnGfn => ({ td: label, gfn: each })))
      .filter((each) => random.below(8) === 0 || !isHeld(each, state));
    const where = pickOr(random, movable);
    if (where === undefined) return undefined;
    const isSwapped = frameAt(where, state).isSwapped;
    return { ...where, how: isSwapped ? 'swap-in' : pick(random, ['migrate', 'swap-out']) };
  },
});

export const hostKexec = defineTransition({
  name: 'host.kexec',
  realm: 'td',
  summary: 'The host starts another kernel, which finds memory as it is.',
  does: '`kexec -e`',
  // 6.18 refused it on processors with the partial-write erratum. 7.3 has the module disabled before, which ends every TD.
  source:
    'arch/x86/virt/vmx/tdx/tdx.c: tdx_shutdown(), tdx_sys_disable(); arch/x86/kernel/machine_kexec_64.c: machine_kexec()',
  args: {},
  mayAlso: [],
  weight: 1,
  guards: [],
  accepts: [
    {
      id: 'host.kexec/started',
      when: 'always: nothing that a guest left in memory can harm the next kernel',
      accept: (_args, state) => ({ state: restarted(state) }),
    },
  ],
  draw: ({ random }) => (random.below(4) === 0 ? {} : undefined),
});
