/** What every access to a mapping of the host process has in common, whoever makes it: where it goes, and what is in its way. */
import { toPages } from '../core/abi.ts';
import { mapping, u64 } from '../core/domain.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { clip, has } from '../core/ranges.ts';
import { ARENA, known, type Inode, type Label, type Mapping, type State } from '../core/state.ts';
import type { Accepted, Diversion, Guard } from '../core/transition.ts';
import { bytes, choosePage, chooseWordOffset } from './choose.ts';
import {
  hostMayTouch,
  isWordAligned,
  readWord,
  touchMapping,
  usePages,
  wordIndex,
  writeWord,
  type Place,
} from './content.ts';
import { untilRemoved } from './direct-map-fault.ts';
import { hostPage, isHostPoisoned, type HostPage } from './slots.ts';

export interface HostAccess {
  readonly mapping: Label;
  readonly offset: bigint;
}

export const hostAccessArgs = { mapping: mapping(), offset: u64() } as const;

type Ending<A> = Pick<Diversion<A>, 'result' | 'outcome'>;

/** What an access comes to that cannot be made. */
export interface Endings<A> {
  /** Nothing is mapped at the address. */
  readonly unmapped: Ending<A>;
  /** The page that is mapped there cannot be had. */
  readonly fault: Ending<A>;
}

function placeOf({ mapping: base, offset }: HostAccess, state: State): HostPage & Place {
  const page = hostPage(state, base, toPages(offset));
  if (typeof page === 'string') throw new Error(`specification defect: ${base} is not mapped`);
  const { inode, page: index, mapping: label, mappingPage } = page;
  return { inode, page: index, mapping: label, mappingPage, word: wordIndex(offset) };
}

/** The page gets a folio if it has none, and the process's page table shows it. */
const touch = ({ mapping: label, mappingPage, inode, page }: HostPage, state: State): State =>
  touchMapping(usePages(untilRemoved(state, inode, page), inode, page, page + 1), label, mappingPage);

export const inodeOfAccess = (access: HostAccess, state: State): Inode =>
  known(state.inodes, placeOf(access, state).inode);

/** A mapping with a property, and the index of a page in it that has it too; or undefined. */
function findPage(
  state: State,
  random: Random,
  wanted: (map: Mapping, inode: Inode) => number | undefined,
): { readonly mapping: Label; readonly page: number } | undefined {
  return pickOr(
    random,
    [...state.mappings].flatMap(([label, map]) => {
      const page = wanted(map, known(state.inodes, map.inode));
      return page === undefined ? [] : [{ mapping: label, page }];
    }),
  );
}

const goTo = <A extends HostAccess>(args: A, found: ReturnType<typeof findPage>): A | undefined =>
  found && { ...args, mapping: found.mapping, offset: bytes(found.page) };

/** Rows that ask whether anything is mapped at the address. */
const addressRows = <A extends HostAccess>(command: string, { unmapped }: Endings<A>): readonly Guard<A>[] => [
  {
    id: `${command}/unaligned`,
    unmodelled: 'an access is one aligned word of eight bytes',
    when: 'the offset is not a multiple of eight',
    violated: ({ offset }) => !isWordAligned(offset),
  },
  {
    id: `${command}/far-behind`,
    unmodelled: 'what lies further behind a mapping is up to the rest of the process',
    when: 'nothing was ever mapped under the label, or the offset is far past the mapping',
    violated: ({ mapping: base, offset }, state) => hostPage(state, base, toPages(offset)) === 'unknown',
    violate: (args) => ({ ...args, offset: 1n << 46n }),
  },
  {
    id: `${command}/not-mapped`,
    ...unmapped,
    when: 'the mapping is gone, or the offset is past its end',
    source: 'arch/x86/mm/fault.c: do_user_addr_fault()',
    violated: ({ mapping: base, offset }, state) => hostPage(state, base, toPages(offset)) === 'nothing',
    violate: (args, state, random) => ({
      ...args,
      offset: bytes(state.mappings.get(args.mapping)?.pages ?? 0) + bytes(random.below(2)),
    }),
  },
];

/** A page that is poisoned is taken out of the direct map before anybody looks whether it is; a poison entry hides it. */
function takenOut(access: HostAccess, state: State): State {
  const { inode, page, mapping: label, mappingPage } = placeOf(access, state);
  const { poisonEntries } = known(state.mappings, label);
  return has(poisonEntries, mappingPage) ? state : usePages(untilRemoved(state, inode, page), inode, page, page + 1);
}

/** Rows that ask whether the host may have the page. */
const pageRows = <A extends HostAccess>(command: string, { fault }: Endings<A>): readonly Guard<A>[] => [
  {
    id: `${command}/beyond-file`,
    ...fault,
    when: 'the page is beyond the size of the file',
    violated: (args, state) => placeOf(args, state).page >= inodeOfAccess(args, state).pages,
    violate: (args, state, random) =>
      goTo(
        args,
        findPage(state, random, (map, inode) =>
          map.firstPage + map.pages > inode.pages && hostMayTouch(inode)
            ? Math.max(inode.pages - map.firstPage, 0)
            : undefined,
        ),
      ),
  },
  {
    id: `${command}/private-memory`,
    ...fault,
    when: 'the file was created without INIT_SHARED: its pages belong to the guest',
    violated: (args, state) => !hostMayTouch(inodeOfAccess(args, state)),
    violate: (args, state, random) =>
      goTo(
        args,
        findPage(state, random, (_map, inode) => (hostMayTouch(inode) ? undefined : 0)),
      ),
  },
  {
    id: `${command}/poisoned`,
    requires: 'memory-failure',
    ...fault,
    when: 'the page has had a memory failure; where this mapping showed it, also after the page was punched out',
    source: 'mm/memory.c: __do_fault(), do_swap_page(), zap_nonpresent_ptes()',
    violated: (args, state) => isHostPoisoned(state, placeOf(args, state)),
    leaves: takenOut,
    violate: (args, state, random) =>
      goTo(
        args,
        findPage(state, random, (map, inode) => {
          const [entry] = map.poisonEntries;
          if (entry !== undefined && random.below(2) === 0) return entry.start;
          const [hit] = clip(inode.poisoned, map.firstPage, map.firstPage + map.pages);
          return hit && hit.start - map.firstPage;
        }),
      ),
  },
];

/** Rows of every access, in the order in which the kernel finds out. */
export const hostAccessRows = <A extends HostAccess>(command: string, endings: Endings<A>): readonly Guard<A>[] => [
  ...addressRows<A>(command, endings),
  ...pageRows<A>(command, endings),
];

export function loadWord(access: HostAccess, state: State): Accepted {
  const place = placeOf(access, state);
  return { state: touch(place, state), value: readWord(state, place) };
}

export function storeWord(access: HostAccess & { readonly value: bigint }, state: State): Accepted {
  const place = placeOf(access, state);
  return { state: writeWord(touch(place, state), place, access.value) };
}

export function drawHostAccess(random: Random, state: State): HostAccess | undefined {
  const usable = [...state.mappings].filter(([, map]) => hostMayTouch(known(state.inodes, map.inode)));
  if (usable.length === 0) return undefined;
  const ofGmem = usable.filter(([label]) => label !== ARENA);
  const [label, map] = pick(random, ofGmem.length > 0 && random.below(4) > 0 ? ofGmem : usable);
  const { pages } = known(state.inodes, map.inode);
  const most = Math.min(map.pages, pages - map.firstPage);
  if (most <= 0) return undefined;
  return { mapping: label, offset: bytes(choosePage(random, most)) + chooseWordOffset(random) };
}
