import { fd, u64 } from '../core/domain.ts';
import { pickOr } from '../core/random.ts';
import { add, clip, has, remove } from '../core/ranges.ts';
import { known, openAs, withInode, type Inode, type Label, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { changeMappings, forgetPages, zapInode } from './content.ts';
import { stuckPages } from './direct-map-fault.ts';

const inodeOf = (state: State, label: Label): Label | undefined => {
  const file = openAs(state, label, 'gmem');
  return file === undefined ? undefined : known(state.files, file).inode;
};

const isResident = (inode: Inode, page: bigint): boolean =>
  page < BigInt(inode.pages) && has(inode.resident, Number(page));

export const memoryFail = defineTransition({
  name: 'memory.fail',
  summary: 'The hardware reports an uncorrectable error in the frame that holds a page of a guest memory file.',
  does: 'the frame that holds page number `page` of the file fails, if there is one: `memory_failure()`, as by `madvise(MADV_HWPOISON)`',
  source: 'mm/memory-failure.c: memory_failure(); virt/kvm/guest_memfd.c: kvm_gmem_error_folio()',
  requires: 'memory-failure',
  args: { fd: fd('gmem'), page: u64() },
  mayAlso: [],
  weight: 8,
  guards: [
    {
      id: 'memory.fail/no-file',
      unmodelled: 'the event needs a frame, and only a file of guest memory tells which',
      when: '`fd` names no guest memory file',
      violated: (args, state) => inodeOf(state, args.fd) === undefined,
    },
    {
      id: 'memory.fail/in-direct-map',
      only: { feature: 'direct-map-on-entry' },
      requires: 'fault-injection',
      unmodelled: 'whether such a page is taken out before it is found to be poisoned differs with the code',
      when: 'the page could not leave the direct map, and nobody has been given it since',
      source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patch 1: kvm_gmem_get_folio()',
      violated: (args, state) => has(stuckPages(state, inodeOf(state, args.fd) ?? ''), Number(args.page)),
    },
  ],
  accepts: [
    {
      id: 'memory.fail/not-resident',
      when: 'the page has no frame: nothing happens',
      applies: (args, state) => !isResident(known(state.inodes, inodeOf(state, args.fd) ?? ''), args.page),
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'memory.fail/poisoned',
      when: 'the page has a frame: it is unmapped everywhere and stays in the file, poisoned, until it is punched out; user mappings that showed it keep a poison entry',
      accept: (args, state) => {
        const inode = inodeOf(state, args.fd) ?? '';
        const page = Number(args.page);
        const unmapped = changeMappings(state, inode, { start: page, end: page + 1 }, (map, start, end) => ({
          touched: remove(map.touched, start, end),
          poisonEntries: add(map.poisonEntries, start, end),
        }));
        const zapped = forgetPages(zapInode(unmapped, inode, page, page + 1), inode, page, page + 1);
        return {
          state: withInode(zapped, inode, { poisoned: add(known(state.inodes, inode).poisoned, page, page + 1) }),
        };
      },
    },
  ],
  draw: ({ random, state }) => {
    // Poison that the host has mapped shows in more ways than one.
    const mapped = new Set([...state.mappings.values()].map(({ inode }) => inode));
    const mappedOnly = mapped.size > 1 && random.below(2) === 0;
    const found = [...state.fds].flatMap(([label]) => {
      const inode = inodeOf(state, label);
      if (inode === undefined || (mappedOnly && !mapped.has(inode))) return [];
      return clip(known(state.inodes, inode).resident, 0, 64).map((range) => ({ fd: label, range }));
    });
    const hit = pickOr(random, found);
    if (hit === undefined) return undefined;
    const page = hit.range.start + random.below(hit.range.end - hit.range.start + (random.below(8) === 0 ? 1 : 0));
    return { fd: hit.fd, page: BigInt(page) };
  },
});
