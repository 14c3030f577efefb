/**
 * Single steps of the host kernel, each a call of the TDX module. The module refuses most of what comes out of order, and
 * the host keeps the rest of the order itself: blocked, tracked, removed, written back, reset; then vCPUs flushed, caches
 * written back, the key freed, control pages reclaimed, the root page last.
 */
import { choice } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import type { State, Td } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import {
  GFNS,
  isOwned,
  isToWriteBack,
  REMOVED,
  reset,
  tdOf,
  vcpuOf,
  VCPUS,
  withFrame,
  withMachine,
  withTd,
  withTracked,
  withVcpu,
  writtenBack,
} from './machine.ts';
import {
  aimed,
  chooseTd,
  drawFrame,
  drawTd,
  frameAt,
  frameDomains,
  noTd,
  noVcpu,
  refused,
  tdDomains,
  tdLabel,
  TDX_SOURCE,
  vary,
  vcpu,
  type Choices,
  type OnFrame,
  type OnGfn,
  type OnTd,
  type Refused,
} from './rows.ts';

const MODULE = 'TDX module ABI';

const only = { feature: 'tdx' } as const;

const noRoot = <A extends OnTd>(command: string): Guard<A> => ({
  id: `${command}/no-root`,
  unmodelled: 'the call names the root page of the TD, and there is none',
  when: 'the TD was not initialized, or its root page is reclaimed',
  violated: ({ td }, state) => !tdOf(state, td).owned.root,
});

/** Each call of those that `seam.busy` speaks of may find the module busy. */
const busyRow = <A extends OnTd>(
  command: string,
  isCalled: (args: A, state: State) => boolean = () => true,
): Guard<A> =>
  refused<A>({
    id: `${command}/busy`,
    status: 'TDX_OPERAND_BUSY',
    when: 'somebody holds what the module needs; the step is not tried again',
    source: `${TDX_SOURCE}: tdx_operand_busy()`,
    violated: (args, state) => state.td.busy > 0 && isCalled(args, state),
    leaves: (_args, state) => withMachine(state, { busy: state.td.busy - 1 }),
  });

const LIFECYCLE = 'TDX_LIFECYCLE_STATE_INCORRECT';
const NO_KEYS = 'TDX_TD_KEYS_NOT_CONFIGURED';

const step = <A extends OnTd>(choices: Choices, row: Refused<A>): Guard<A> =>
  aimed<A>(choices, refused<A>({ source: `${MODULE}: ${row.status}`, ...row }));

/** The key of the TD is on its way back, so that nothing can be done to its pages. */
const wrongLifecycle = <A extends OnTd>(
  command: string,
  isCalled: (args: A, state: State) => boolean = () => true,
  status = NO_KEYS,
): Guard<A> =>
  step<A>(
    {},
    {
      id: `${command}/lifecycle`,
      status,
      group: 'page',
      when: 'all vCPUs of the TD were flushed for good',
      violated: (args, state) => tdOf(state, args.td).flush !== 'none' && isCalled(args, state),
    },
  );

const onPage = (row: Refused<OnFrame>): Guard<OnGfn> => step<OnGfn>({ gfn: GFNS }, { group: 'page', ...row });

const free = (command: string): Guard<OnGfn> =>
  onPage({
    id: `${command}/no-page`,
    status: 'TDX_EPT_ENTRY_STATE_INCORRECT',
    when: 'the entry is free',
    violated: (args, state) => frameAt(args, state).entry === 'none' && tdOf(state, args.td).flush === 'none',
  });

/** A TD that gives its key back refuses every step, whatever the frame. */
const isOver = ({ flush }: Td): boolean => flush !== 'none';

export const septBlock = defineTransition({
  name: 'sept.block',
  realm: 'td',
  summary: 'The host blocks a page, which is the first step to take it back: no new translation of it is made.',
  does: 'TDH.MEM.RANGE.BLOCK of the 4 KiB entry of frame `gfn`',
  source: `${TDX_SOURCE}: tdx_sept_remove_leaf_spte(); ${MODULE}: TDH.MEM.RANGE.BLOCK`,
  only,
  args: frameDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noTd<OnGfn>('sept.block'),
    noRoot<OnGfn>('sept.block'),
    busyRow<OnGfn>('sept.block'),
    wrongLifecycle<OnGfn>('sept.block'),
    free('sept.block'),
    onPage({
      id: 'sept.block/blocked-before',
      status: 'TDX_GPA_RANGE_ALREADY_BLOCKED',
      when: 'the entry is blocked',
      violated: (args, state) => frameAt(args, state).entry === 'blocked',
    }),
  ],
  accepts: [
    {
      id: 'sept.block/blocked',
      when: 'the TD has a page there, accepted or not',
      accept: (args, state) => ({ state: withFrame(state, args.td, args.gfn, { entry: 'blocked', tracked: false }) }),
    },
  ],
  draw: drawFrame(({ entry }) => entry === 'mapped' || entry === 'pending', isOver),
});

export const septTrack = defineTransition({
  name: 'sept.track',
  realm: 'td',
  summary:
    'The host makes sure that no vCPU uses a translation from before: without that a blocked page is not removed.',
  does: 'tdx_track(): TDH.MEM.TRACK, and all vCPUs are kicked out of the guest; nothing where the TD is not finalized',
  source: `${TDX_SOURCE}: tdx_track()`,
  only,
  args: tdDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noTd<OnTd>('sept.track'),
    noRoot<OnTd>('sept.track'),
    busyRow<OnTd>('sept.track', ({ td }, state) => tdOf(state, td).phase === 'runnable'),
    wrongLifecycle<OnTd>('sept.track', ({ td }, state) => tdOf(state, td).phase === 'runnable'),
  ],
  accepts: [
    {
      id: 'sept.track/skipped',
      when: 'the TD is not finalized, so that no vCPU has run',
      applies: ({ td }, state) => tdOf(state, td).phase !== 'runnable',
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'sept.track/tracked',
      when: 'the TD is finalized: pages that are blocked by now can be removed',
      accept: ({ td }, state) => ({ state: withTracked(state, td) }),
    },
  ],
  draw: drawTd((td) => isOver(td) || td.frames.some(({ entry }) => entry === 'blocked')),
});

const isUntracked = (args: OnFrame, state: State): boolean => {
  const { entry, tracked } = frameAt(args, state);
  return entry === 'blocked' && !tracked && tdOf(state, args.td).phase === 'runnable';
};

export const septRemove = defineTransition({
  name: 'sept.remove',
  realm: 'td',
  summary: 'The host takes a page back: it is removed, caches are written back for its key, and it is reset.',
  does: 'TDH.MEM.PAGE.REMOVE of frame `gfn`, TDH.PHYMEM.PAGE.WBINVD, and the reset of the page; the frame stays private',
  source: `${TDX_SOURCE}: tdx_sept_remove_leaf_spte(); ${MODULE}: TDH.MEM.PAGE.REMOVE`,
  only,
  args: frameDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noTd<OnGfn>('sept.remove'),
    noRoot<OnGfn>('sept.remove'),
    busyRow<OnGfn>('sept.remove'),
    wrongLifecycle<OnGfn>('sept.remove'),
    free('sept.remove'),
    onPage({
      id: 'sept.remove/not-blocked',
      status: 'TDX_GPA_RANGE_NOT_BLOCKED',
      when: 'the TD runs, and the entry is not blocked; removed all the same, a vCPU would get a new translation to what is the host’s',
      violated: (args, state) =>
        ['mapped', 'pending'].includes(frameAt(args, state).entry) && tdOf(state, args.td).phase === 'runnable',
    }),
    onPage({
      id: 'sept.remove/not-tracked',
      status: 'TDX_TLB_TRACKING_NOT_DONE',
      when: 'the TD runs, and a vCPU may have a translation from before the page was blocked; removed all the same, it would reach what is the host’s',
      violated: isUntracked,
    }),
  ],
  accepts: [
    {
      id: 'sept.remove/removed',
      when: 'the entry is blocked and tracked, which the module asks for where the TD runs: the page is the host’s, and zero',
      accept: (args, state) => ({
        state: withFrame(state, args.td, args.gfn, { ...REMOVED, page: reset(frameAt(args, state).page) }),
      }),
    },
  ],
  draw: drawFrame(({ entry, tracked }, { phase }) => entry === 'blocked' && (tracked || phase !== 'runnable'), isOver),
});

const vcpuDomains = { td: tdLabel, vcpu } as const;

type OnOneVcpu = ArgsOf<typeof vcpuDomains>;

const isHeldByCpu = ({ vcpus }: Td): boolean => [...vcpus.values()].some(({ isAssociated }) => isAssociated);

const isInitialized = (args: OnOneVcpu, state: State): boolean =>
  vcpuOf(state, args.td, args.vcpu)?.isInitialized === true;

export const keyFlushVcpu = defineTransition({
  name: 'key.flush-vcpu',
  realm: 'td',
  summary: 'The host takes what a CPU holds of a vCPU back, before the key of the TD can go.',
  does: 'tdx_flush_vp(): TDH.VP.FLUSH; nothing where the vCPU is not initialized',
  source: `${TDX_SOURCE}: tdx_flush_vp()`,
  only,
  args: vcpuDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noTd<OnOneVcpu>('key.flush-vcpu'),
    noVcpu<OnOneVcpu>('key.flush-vcpu'),
    {
      id: 'key.flush-vcpu/no-page',
      unmodelled: 'the call names a page of the vCPU, and there is none',
      when: 'the TD was not initialized, or its control pages are reclaimed',
      violated: ({ td }, state) => !tdOf(state, td).owned.control,
    },
    wrongLifecycle<OnOneVcpu>('key.flush-vcpu', isInitialized),
    step<OnOneVcpu>(
      { vcpu: VCPUS },
      {
        id: 'key.flush-vcpu/not-associated',
        status: 'TDX_VCPU_NOT_ASSOCIATED',
        group: 'page',
        when: 'no CPU holds anything of the vCPU',
        violated: (args, state) =>
          isInitialized(args, state) &&
          tdOf(state, args.td).flush === 'none' &&
          vcpuOf(state, args.td, args.vcpu)?.isAssociated !== true,
      },
    ),
  ],
  accepts: [
    {
      id: 'key.flush-vcpu/skipped',
      when: 'the vCPU is not initialized',
      applies: (args, state) => !isInitialized(args, state),
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'key.flush-vcpu/flushed',
      when: 'a CPU holds state of the vCPU',
      accept: (args, state) => ({ state: withVcpu(state, args.td, args.vcpu, { isAssociated: false }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, (td) => isOver(td) || isHeldByCpu(td));
    if (label === undefined) return undefined;
    const associated = VCPUS.filter((each) => vcpuOf(state, label, each)?.isAssociated === true);
    return { td: label, vcpu: pick(random, associated.length > 0 ? associated : VCPUS) };
  },
});

export const keyFlushDone = defineTransition({
  name: 'key.flush-done',
  realm: 'td',
  summary: 'The host says that all vCPUs are flushed. From then on none can be entered.',
  does: 'TDH.MNG.VPFLUSHDONE',
  source: `${TDX_SOURCE}: tdx_mmu_release_hkid()`,
  only,
  args: tdDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noTd<OnTd>('key.flush-done'),
    noRoot<OnTd>('key.flush-done'),
    aimed<OnTd>(
      {},
      {
        id: 'key.flush-done/pages-left',
        errno: 'EBUSY',
        when: 'the TD has a private page: the host removes all of them while the key is assigned; freed before, the key would be another TD’s while a page is under it',
        source: `${TDX_SOURCE}: tdx_sept_remove_leaf_spte()`,
        violated: ({ td }, state) => tdOf(state, td).frames.some(isOwned),
      },
    ),
    busyRow<OnTd>('key.flush-done'),
    wrongLifecycle<OnTd>('key.flush-done', () => true, LIFECYCLE),
    step<OnTd>(
      {},
      {
        id: 'key.flush-done/vcpu-left',
        status: 'TDX_FLUSHVP_NOT_DONE',
        group: 'page',
        when: 'a CPU holds state of a vCPU',
        violated: ({ td }, state) => isHeldByCpu(tdOf(state, td)),
      },
    ),
  ],
  accepts: [
    {
      id: 'key.flush-done/done',
      when: 'no page and no vCPU is left',
      accept: ({ td }, state) => ({ state: withTd(state, td, { flush: 'vcpus' }) }),
    },
  ],
  draw: drawTd((td) => td.owned.root && td.flush === 'none' && !td.frames.some(isOwned) && !isHeldByCpu(td)),
});

export const keyWriteBack = defineTransition({
  name: 'key.write-back',
  realm: 'td',
  summary: 'The host writes caches back for every key whose TD is flushed.',
  does: 'TDH.PHYMEM.CACHE.WB on each package',
  source: `${TDX_SOURCE}: smp_func_do_phymem_cache_wb()`,
  only,
  args: {},
  mayAlso: [],
  weight: 3,
  guards: [
    refused<object>({
      id: 'key.write-back/no-key',
      status: 'TDX_NO_HKID_READY_TO_WBCACHE',
      when: 'there is no such key',
      source: `${MODULE}: TDH.PHYMEM.CACHE.WB`,
      violated: (_args, { td: { tds } }) => ![...tds.values()].some(isToWriteBack),
    }),
  ],
  accepts: [
    {
      id: 'key.write-back/written-back',
      when: 'there is a key to write back for',
      accept: (_args, state) => ({ state: withMachine(state, { tds: writtenBack(state.td.tds) }) }),
    },
  ],
  draw: ({ random, state }) =>
    [...state.td.tds.values()].some(isToWriteBack) || random.below(4) === 0 ? {} : undefined,
});

export const keyFree = defineTransition({
  name: 'key.free',
  realm: 'td',
  summary: 'The host frees the key of a TD, which may then be another’s.',
  does: 'TDH.MNG.KEY.FREEID, and tdx_guest_keyid_free()',
  source: `${TDX_SOURCE}: tdx_mmu_release_hkid(), tdx_hkid_free()`,
  only,
  args: tdDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noTd<OnTd>('key.free'),
    noRoot<OnTd>('key.free'),
    step<OnTd>(
      {},
      {
        id: 'key.free/lifecycle',
        status: LIFECYCLE,
        group: 'key',
        when: 'not all vCPUs of the TD were flushed for good, or the key is free',
        violated: ({ td }, state) => tdOf(state, td).flush === 'none' || tdOf(state, td).key === undefined,
      },
    ),
    step<OnTd>(
      {},
      {
        id: 'key.free/not-written-back',
        status: 'TDX_WBCACHE_NOT_COMPLETE',
        group: 'key',
        when: 'caches were not written back; freed all the same, an old line would go over what another TD has put there',
        violated: ({ td }, state) => tdOf(state, td).flush === 'vcpus',
      },
    ),
  ],
  accepts: [
    {
      id: 'key.free/freed',
      when: 'vCPUs are flushed and caches written back',
      accept: ({ td }, state) => ({ state: withTd(state, td, { key: undefined }) }),
    },
  ],
  draw: drawTd(({ flush, key }) => flush === 'caches' && key !== undefined),
});

const reclaimDomains = { td: tdLabel, page: choice('control', 'root') } as const;

type Reclaim = ArgsOf<typeof reclaimDomains>;

const reclaimRow = (row: Refused<Reclaim>): Guard<Reclaim> => ({
  ...step<Reclaim>({}, { group: 'page', ...row }),
  violate: vary<Reclaim>({ page: ['control', 'root'] }, (args, state) => row.violated(args, state)),
});

export const pageReclaim = defineTransition({
  name: 'page.reclaim',
  realm: 'td',
  summary: 'The host takes control pages of a TD back, and its root page last.',
  does: 'TDH.PHYMEM.PAGE.RECLAIM of the control and S-EPT pages, or of the root page (TDR), and the reset',
  source: `${TDX_SOURCE}: tdx_reclaim_page(), tdx_reclaim_td_control_pages()`,
  only,
  args: reclaimDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noTd<Reclaim>('page.reclaim'),
    noRoot<Reclaim>('page.reclaim'),
    reclaimRow({
      id: 'page.reclaim/lifecycle',
      status: LIFECYCLE,
      when: 'the key of the TD is not free',
      violated: ({ td }, state) => tdOf(state, td).key !== undefined,
    }),
    reclaimRow({
      id: 'page.reclaim/nothing-there',
      status: 'TDX_PAGE_METADATA_INCORRECT',
      when: 'the control pages are the host’s already',
      violated: ({ td, page }, state) =>
        tdOf(state, td).key === undefined && page === 'control' && !tdOf(state, td).owned.control,
    }),
    reclaimRow({
      id: 'page.reclaim/root-first',
      status: 'TDX_TD_ASSOCIATED_PAGES_EXIST',
      when: 'the root page is to go, and control pages are left',
      violated: ({ td, page }, state) =>
        tdOf(state, td).key === undefined && page === 'root' && tdOf(state, td).owned.control,
    }),
  ],
  accepts: [
    {
      id: 'page.reclaim/reclaimed',
      when: 'the key is free, and nothing hangs on the pages',
      accept: ({ td, page }, state) => ({
        state: withTd(state, td, { owned: { control: false, root: page === 'control' } }),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, ({ owned, key }) => owned.root && key === undefined);
    if (label === undefined) return undefined;
    return { td: label, page: tdOf(state, label).owned.control || random.below(4) === 0 ? 'control' : 'root' };
  },
});
