import { choice, fd, u64 } from '../core/domain.ts';
import { pick, pickOr } from '../core/random.ts';
import { holdsIn } from '../core/profile.ts';
import { has } from '../core/ranges.ts';
import { known, openAs, type Inode, type Label, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { chooseFd, choosePage } from '../gmem/choose.ts';
import { isOutOfDirectMap, readWord } from '../gmem/content.ts';
import { isPresent } from './presence.ts';

const domains = {
  fd: fd('gmem'),
  page: u64(),
  cpu: choice('0', '1'),
  mode: choice('architectural', 'speculative'),
} as const;

type KernelLoad = ArgsOf<typeof domains>;

const inodeOf = (state: State, label: Label): Label | undefined => {
  const file = openAs(state, label, 'gmem');
  return file === undefined ? undefined : known(state.files, file).inode;
};

const within = ({ pages }: Inode, page: bigint): boolean => page < BigInt(pages);

const inodeAt = (args: KernelLoad, state: State): Inode => known(state.inodes, inodeOf(state, args.fd) ?? '');

const hasPage = (args: KernelLoad, state: State): boolean => {
  const inode = inodeAt(args, state);
  return within(inode, args.page) && has(inode.resident, Number(args.page));
};

const isAbsent = (args: KernelLoad, state: State): boolean =>
  hasPage(args, state) && !isPresent(state, inodeOf(state, args.fd) ?? '', Number(args.page));

const firstWord = (args: KernelLoad, state: State): bigint =>
  readWord(state, { inode: inodeOf(state, args.fd) ?? '', page: Number(args.page), word: 0 });

/** Who takes a page out of the direct map as it enters the file must have zeroed it there before. */
const isZeroedOnEntry = ({ config: { profile } }: State, inode: Inode): boolean =>
  isOutOfDirectMap(inode) && holdsIn(profile, { feature: 'direct-map-on-entry' });

export const kernelLoad = defineTransition({
  name: 'kernel.load',
  readsSecrets: true,
  summary:
    'The host kernel loads the first word of a page of guest memory through the direct map, or speculates that it does.',
  does: '`cpu` loads the first word of page number `page` of the file through the direct map, really or speculatively by `mode`',
  tells: 'the word; 0 where there is no page, or where speculation meets no mapping',
  source: 'RFC v2 "Unmapping guest_memfd from Direct Map", cover letter; include/linux/set_memory.h',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: [],
  weight: 8,
  guards: [
    {
      id: 'kernel.load/no-file',
      unmodelled: 'the event needs a page, and only a file of guest memory tells which',
      when: '`fd` names no guest memory file',
      violated: (args, state) => inodeOf(state, args.fd) === undefined,
    },
    {
      id: 'kernel.load/poisoned',
      requires: 'memory-failure',
      unmodelled: 'a memory failure that the kernel meets is the machine-check system’s affair',
      when: 'the page has had a memory failure',
      violated: (args, state) => hasPage(args, state) && has(inodeAt(args, state).poisoned, Number(args.page)),
      violate: (args, state) => {
        const [bad] = inodeAt(args, state).poisoned;
        return bad && { ...args, page: BigInt(bad.start) };
      },
    },
    {
      id: 'kernel.load/absent',
      result: 'oops',
      outcome: () => ({ kind: 'oops' }),
      when: 'the page is out of the direct map, nobody has put it back, and the load is real',
      source: 'arch/x86/mm/fault.c: page_fault_oops()',
      violated: (args, state) => args.mode === 'architectural' && isAbsent(args, state),
      violate: (args, state) => {
        const [out] = inodeAt(args, state).removed;
        return out && { ...args, mode: 'architectural', page: BigInt(out.start) };
      },
    },
    {
      id: 'kernel.load/not-zeroed',
      unmodelled: 'a page is zeroed when it is first used; what its frame held before is nobody’s promise',
      when: 'the direct map shows the page, which may have been allocated and never used, and is not zeroed on entry',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_allocate(), kvm_gmem_get_pfn()',
      violated: (args, state) =>
        hasPage(args, state) &&
        !isAbsent(args, state) &&
        !isZeroedOnEntry(state, inodeAt(args, state)) &&
        firstWord(args, state) === 0n,
    },
  ],
  accepts: [
    {
      id: 'kernel.load/no-page',
      when: 'the file has no page there: nothing is loaded',
      applies: (args, state) => !hasPage(args, state),
      accept: (_args, state) => ({ state, value: 0n }),
    },
    {
      id: 'kernel.load/nothing-leaks',
      when: 'the page is out of the direct map, and the load is speculative: it meets no mapping, on any CPU',
      applies: isAbsent,
      accept: (_args, state) => ({ state, value: 0n }),
    },
    {
      id: 'kernel.load/loaded',
      when: 'the direct map shows the page',
      accept: (args, state) => ({
        state,
        value: firstWord(args, state),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseFd(random, state, 'gmem');
    if (label === undefined) return undefined;
    const { pages, removed } = known(state.inodes, inodeOf(state, label) ?? '');
    const kept = [...state.caches.values()].flatMap(({ page }) =>
      page?.inode === inodeOf(state, label) ? [page] : [],
    );
    const page =
      pickOr(random, random.below(2) === 0 ? kept : [])?.page ??
      (random.below(4) > 0 ? pickOr(random, removed)?.start : undefined) ??
      choosePage(random, pages);
    return {
      fd: label,
      page: BigInt(page),
      cpu: pick(random, ['0', '1']),
      mode: pick(random, ['speculative', 'speculative', 'architectural']),
    };
  },
});
