import { INVALID_GPA, toPages, WORD_BYTES } from '../core/abi.ts';
import { u32, u64 } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { fails } from '../core/outcome.ts';
import { pickOr, type Random } from '../core/random.ts';
import { known, type Label, type State, type Vm } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseWordOffset } from '../gmem/choose.ts';
import { isWordAligned } from '../gmem/content.ts';
import { mayFailWithin } from '../gmem/direct-map-fault.ts';
import { landmarks } from '../gmem/guest-fault.ts';
import { slotAt } from '../gmem/slots.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import { chooseCache, crossesPage, gpc, noCache, reinsertedRow } from './cache-rows.ts';
import { finds, hasPageAt, lookedUp, type CacheHindrance } from './caches.ts';
import { chooseFrame } from './kvm-access.ts';
import { HINDRANCES, type HindranceRow } from './reach.ts';

const domains = { gpc, gpa: u64({ boundaries: [INVALID_GPA] }), length: u32({ boundaries: [4096n, 4097n] }) } as const;

type Activate = ArgsOf<typeof domains>;

const activated = ({ gpc: label, gpa }: Activate, state: State): State => lookedUp(state, label, gpa);

const accept = (args: Activate, state: State): Accepted => ({ state: activated(args, state) });

type LookUpRow = Omit<HindranceRow, 'hindrance' | 'errno'> & { readonly hindrance: CacheHindrance };

const LOOK_UPS: readonly LookUpRow[] = [
  ...HINDRANCES.map(({ errno: _errno, ...row }) => row),
  {
    hindrance: 'no-direct-map',
    when: 'the host address of the slot shows a page that is out of the direct map, which GUP refuses',
    source: 'v12 "Direct Map Removal Support for guest_memfd", patch 2: mm/gup.c: check_vma_flags()',
    only: { feature: 'direct-map-host-address' },
  },
  {
    hindrance: 'kept-by-another',
    when: 'the page is out of the direct map, and another cache has put it back',
    source: 'RFC "Unmapping guest_memfd from Direct Map", patch 6: gpc_map_gmem()',
    only: { feature: 'direct-map-one-cache' },
    unreachable: withoutPrivateMemory,
  },
];

const found = rememberLast(({ gpc: label, gpa }: Activate, state: State) => finds(state, label, gpa));

/** Whatever keeps a page from being had is EFAULT: hva_to_pfn_retry() returns nothing else. */
const lookUpRow = ({ hindrance, unmodelled, ...row }: LookUpRow): Guard<Activate> => ({
  id: `gpc.activate/${hindrance}`,
  group: 'page',
  ...row,
  violated: (args, state) => found(args, state) === hindrance,
  violate: (args, state, random) => {
    const { vm } = known(state.caches, args.gpc);
    const frames = landmarks(state, known(state.vms, vm)).filter(
      (gfn) => gfn >= 0 && finds(state, args.gpc, bytes(gfn)) === hindrance,
    );
    const gfn = pickOr(random, frames);
    return gfn === undefined ? undefined : { ...args, gpa: bytes(gfn) };
  },
  ...(unmodelled === undefined
    ? { result: 'EFAULT', outcome: () => fails('EFAULT'), leaves: activated }
    : { unmodelled }),
});

/** Frames of other slots that have the same host address as the frame: it tells nothing of what backs them. */
function framesAtHostAddressOf(vm: Vm, gfn: number): readonly number[] {
  const own = slotAt(vm, gfn);
  if (own === undefined) return [];
  const page = toPages(own.hva.offset) + gfn - own.baseGfn;
  return [...vm.slots.values()].flatMap(({ id, baseGfn, pages, hva }) => {
    const index = page - toPages(hva.offset);
    return id !== own.id && hva.base === own.hva.base && 0 <= index && index < pages ? [baseGfn + index] : [];
  });
}

/** Where another cache is often enough, or this one, so that they meet on one page; or where its host address stays what it was. */
function chooseGpa(random: Random, state: State, label: Label): bigint {
  const { vm, gpa } = known(state.caches, label);
  const stays = random.below(2) === 0 && gpa !== undefined;
  const moved = stays ? pickOr(random, framesAtHostAddressOf(known(state.vms, vm), toPages(gpa))) : undefined;
  if (moved !== undefined) return bytes(moved) + chooseWordOffset(random);
  const kept = [...state.caches.values()].flatMap((cache) =>
    cache.vm === vm && cache.gpa !== undefined ? [cache.gpa] : [],
  );
  const met = random.below(2) === 0 ? pickOr(random, kept) : undefined;
  return met ?? bytes(chooseFrame(random, state, vm)) + chooseWordOffset(random);
}

export const gpcActivate = defineTransition({
  name: 'gpc.activate',
  summary: 'Activates a cache for a guest address, or moves one that is active there, and looks the page up.',
  does: '`kvm_gpc_activate(gpc, gpa, length)`',
  source: 'virt/kvm/pfncache.c: kvm_gpc_activate(), __kvm_gpc_activate()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 8,
  guards: [
    noCache<Activate>('gpc.activate'),
    {
      id: 'gpc.activate/invalid-gpa',
      errno: 'EINVAL',
      when: 'the address is INVALID_GPA, which says that there is none',
      violated: ({ gpa }) => gpa === INVALID_GPA,
      violate: (args) => ({ ...args, gpa: INVALID_GPA }),
    },
    {
      id: 'gpc.activate/unaligned',
      unmodelled: 'an access is one aligned word of eight bytes',
      when: 'the guest address is not a multiple of eight',
      violated: ({ gpa }) => !isWordAligned(gpa),
    },
    crossesPage<Activate>('gpc.activate', ({ gpa }) => gpa),
    mayFailWithin<Activate>('gpc.activate'),
    ...LOOK_UPS.map(lookUpRow),
  ],
  accepts: [
    {
      id: 'gpc.activate/again',
      when: 'the cache is active, and what it has looked up is the page at the address',
      applies: (args, state) => hasPageAt(state, args.gpc, args.gpa),
      accept,
    },
    reinsertedRow<Activate>('gpc.activate', ({ gpa }) => gpa, accept),
    {
      id: 'gpc.activate/activated',
      when: 'the page can be had: it is looked up, and one that the cache had is let go of',
      accept,
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseCache(random, state, ({ gpa }) => gpa === undefined || random.below(3) === 0);
    if (label === undefined) return undefined;
    return { gpc: label, gpa: chooseGpa(random, state, label), length: WORD_BYTES };
  },
});
