/** The life of a TD as its VMM sees it: created, initialized, filled, finalized, destroyed. */
import { PAGE_SIZE, wrap64 } from '../core/abi.ts';
import { choice, fresh, u32, u64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { withEntry, withoutEntry, type Label, type State, type Td, type TdFrame, type TdPage } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { evicted } from './lines.ts';
import {
  filledWith,
  frameOf,
  freeKeys,
  GFNS,
  guestLine,
  has,
  isOwned,
  isTdx,
  tdOf,
  vcpuOf,
  VCPUS,
  withFrame,
  withMachine,
  withTd,
  withVcpu,
  ZERO_LINE,
  writtenBack,
} from './machine.ts';
import {
  aimed,
  chooseFrame,
  chooseTd,
  chooseValue,
  chooseVcpu,
  dead,
  drawTd,
  gfn,
  noTd,
  noVcpu,
  tdDomains,
  tdLabel,
  TDX_SOURCE,
  UNEXPECTED_REFERENCES,
  tornDown,
  vary,
  vcpu,
  type OnTd,
} from './rows.ts';

/** Each page gets a frame of its own; private memory that is a file has other pages than the VMM. */
function newFrames(state: State): { readonly frames: readonly TdFrame[]; readonly nextFrame: number } {
  let { nextFrame } = state.td;
  const newPage = (): TdFrame['page'] => filledWith({ frame: nextFrame++, lines: [] }, ZERO_LINE);
  const frames = GFNS.map((): TdFrame => ({
    private: false,
    entry: 'none',
    tracked: false,
    page: newPage(),
    vmmPage: has(state, 'private-file') ? newPage() : undefined,
    exported: 'no',
    isMapped: false,
    isPinned: false,
    isSwapped: false,
  }));
  return { frames, nextFrame };
}

const MOST_TDS = 3;

const isEveryInitialized = ({ td: { tds } }: State): boolean =>
  [...tds.values()].every(({ phase }) => phase !== 'created');

export const tdCreate = defineTransition({
  name: 'td.create',
  realm: 'td',
  summary:
    'Creates a VM for a guest whose memory the host must not touch, with four guest frames; all of them are shared.',
  does: '`KVM_CREATE_VM`, a slot over guest frames 0 to 3, and, where `exits` is yes, KVM_CAP_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE; the label `td` stands for it from then on',
  source: `virt/kvm/kvm_main.c: kvm_dev_ioctl_create_vm(); ${TDX_SOURCE}: tdx_vm_init()`,
  args: { td: fresh('td'), exits: choice('yes', 'no') },
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 2,
  guards: [],
  accepts: [
    {
      id: 'td.create/created',
      when: 'always',
      accept: ({ td, exits }, state) => {
        const { frames, nextFrame } = newFrames(state);
        const created: Td = {
          exitsOnHypercall: exits === 'yes',
          phase: 'created',
          key: undefined,
          flush: 'none',
          owned: { control: false, root: false },
          vcpus: new Map(),
          frames,
          ended: 'no',
        };
        return { state: withMachine(state, { tds: withEntry(state.td.tds, td, created), nextFrame }) };
      },
    },
  ],
  draw: ({ random, state, fresh: newLabel }) =>
    state.td.tds.size < MOST_TDS && (isEveryInitialized(state) || random.below(8) === 0)
      ? { td: newLabel('td'), exits: pick(random, ['yes', 'yes', 'no']) }
      : undefined,
});

const MOST_CPUIDS = 256n;

/** sev_mem_enc_register_region() flushes what the VMM has written by then. */
const flushed = (page: TdPage): TdPage => ({ ...page, lines: page.lines.map((each) => evicted(each, 'host')) });

/** The frame where it becomes private. What is in swap at its address comes back where the page is to be pinned. */
export const madePrivate = (state: State, frame: TdFrame): TdFrame => {
  // KVM pins what it takes from user space, or SEV does, which brings it back from swap.
  const isPinned = frame.vmmPage === undefined && !has(state, 'ultravisor');
  const page = has(state, 'c-bit') ? flushed(frame.page) : frame.page;
  return { ...frame, private: true, page, isSwapped: frame.isSwapped && !isPinned };
};

const initDomains = {
  td: tdLabel,
  flags: u32(),
  cpuids: u32({ boundaries: [MOST_CPUIDS, MOST_CPUIDS + 1n] }),
} as const;

export const tdInit = defineTransition({
  name: 'td.init',
  realm: 'td',
  summary: 'Gives a TD its private key, and makes all of its frames private.',
  does: '`KVM_TDX_INIT_VM` with `flags` and `cpuids` CPUID entries, or what stands for it outside of TDX; then all four frames are made private as by `td.convert`',
  source: `${TDX_SOURCE}: tdx_td_init(), __tdx_td_init()`,
  args: initDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 10,
  guards: [
    noTd<ArgsOf<typeof initDomains>>('td.init'),
    dead<ArgsOf<typeof initDomains>>('td.init'),
    {
      id: 'td.init/again',
      errno: 'EINVAL',
      when: 'the TD was initialized before',
      violated: ({ td }, state) => tdOf(state, td).phase !== 'created',
      violate: vary<ArgsOf<typeof initDomains>>({}, ({ td }, state) => tdOf(state, td).phase !== 'created'),
    },
    {
      id: 'td.init/flags',
      only: { feature: 'tdx' },
      errno: 'EINVAL',
      when: '`flags` is not zero',
      violated: ({ flags }) => flags !== 0n,
      violate: (args) => ({ ...args, flags: 1n }),
    },
    {
      id: 'td.init/too-many-cpuids',
      only: { feature: 'tdx' },
      group: 'cpuids',
      errno: 'E2BIG',
      when: 'there are more than 256 CPUID entries',
      violated: ({ cpuids }) => cpuids > MOST_CPUIDS,
      violate: (args) => ({ ...args, cpuids: MOST_CPUIDS + 1n }),
    },
    {
      id: 'td.init/no-cpuids',
      only: { feature: 'tdx' },
      group: 'cpuids',
      errno: 'EINVAL',
      when: 'there are no CPUID entries, and so not the one with the width of guest addresses',
      source: `${TDX_SOURCE}: setup_tdparams_eptp_controls()`,
      violated: ({ cpuids }) => cpuids === 0n,
      violate: (args) => ({ ...args, cpuids: 0n }),
    },
    aimed<ArgsOf<typeof initDomains>>(
      {},
      {
        id: 'td.init/pinned',
        only: { feature: 'explicit-maps' },
        errno: 'EAGAIN',
        when: 'a device has the page of a frame that is to become private',
        source: UNEXPECTED_REFERENCES,
        violated: ({ td }, state) => tdOf(state, td).frames.some(({ isPinned }) => isPinned),
      },
    ),
    {
      id: 'td.init/no-key',
      only: { feature: 'tdx' },
      errno: 'ENOSPC',
      when: 'every private key is in use, or leaked',
      source: 'arch/x86/virt/vmx/tdx/tdx.c: tdx_guest_keyid_alloc()',
      violated: (_args, state) => freeKeys(state).length === 0,
    },
    {
      id: 'td.init/no-asid',
      only: { feature: 'c-bit' },
      errno: 'EBUSY',
      when: 'every ASID is in use',
      source: 'arch/x86/kvm/svm/sev.c: sev_asid_new()',
      violated: (_args, state) => freeKeys(state).length === 0,
    },
  ],
  accepts: [
    {
      id: 'td.init/initialized',
      when: 'a key is free: it is assigned to the TD, the lowest first',
      accept: ({ td }, state) => {
        const key = has(state, 'ultravisor') ? 0 : freeKeys(state)[0];
        const frames = tdOf(state, td).frames.map((frame) => madePrivate(state, frame));
        const owned = { control: isTdx(state), root: isTdx(state) };
        return { state: withTd(state, td, { phase: 'initialized', key, frames, owned }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, ({ phase }) => phase === 'created');
    return label === undefined ? undefined : { td: label, flags: 0n, cpuids: BigInt(1 + random.below(2)) };
  },
});

const vcpuDomains = { td: tdLabel, vcpu } as const;

export const tdVcpu = defineTransition({
  name: 'td.vcpu',
  realm: 'td',
  summary: 'Creates a vCPU.',
  does: '`KVM_CREATE_VCPU` with the id `vcpu`',
  source: `virt/kvm/kvm_main.c: kvm_vm_ioctl_create_vcpu(); ${TDX_SOURCE}: tdx_vcpu_create()`,
  args: vcpuDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 8,
  guards: [
    noTd<ArgsOf<typeof vcpuDomains>>('td.vcpu'),
    dead<ArgsOf<typeof vcpuDomains>>('td.vcpu'),
    {
      id: 'td.vcpu/taken',
      errno: 'EEXIST',
      when: 'there is such a vCPU',
      violated: (args, state) => vcpuOf(state, args.td, args.vcpu) !== undefined,
      violate: vary<ArgsOf<typeof vcpuDomains>>(
        { vcpu: VCPUS },
        (args, state) => vcpuOf(state, args.td, args.vcpu) !== undefined,
      ),
    },
    {
      id: 'td.vcpu/not-initialized',
      only: { feature: 'tdx' },
      errno: 'EIO',
      when: 'the TD is not initialized yet, or finalized',
      violated: ({ td }, state) => tdOf(state, td).phase !== 'initialized',
      violate: vary<ArgsOf<typeof vcpuDomains>>({}, ({ td }, state) => tdOf(state, td).phase !== 'initialized'),
    },
  ],
  accepts: [
    {
      id: 'td.vcpu/created',
      when: 'the id is free',
      // Outside of TDX there is nothing to initialize.
      accept: (args, state) => ({ state: withVcpu(state, args.td, args.vcpu, { isInitialized: !isTdx(state) }) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(
      random,
      state,
      ({ phase, vcpus }) => vcpus.size < 2 && (!isTdx(state) || phase === 'initialized'),
    );
    if (label === undefined) return undefined;
    return { td: label, vcpu: tdOf(state, label).vcpus.has('0') ? '1' : '0' };
  },
});

const hasReadyVcpu = ({ vcpus }: Td): boolean => [...vcpus.values()].some(({ isInitialized }) => isInitialized);

/** KVM_TDX_INIT_VCPU and KVM_TDX_INIT_MEM_REGION are for a TD that has its key and is not finalized. */
const isOver = ({ td }: OnTd, state: State): boolean => {
  const { key, phase } = tdOf(state, td);
  return key === undefined || phase !== 'initialized';
};

const vcpuInitDomains = { td: tdLabel, vcpu, flags: u32() } as const;

export const tdVcpuInit = defineTransition({
  name: 'td.vcpu-init',
  realm: 'td',
  summary: 'Initializes a vCPU of a TD, which a CPU then holds.',
  does: '`KVM_TDX_INIT_VCPU` with `flags`',
  source: `${TDX_SOURCE}: tdx_vcpu_unlocked_ioctl(), tdx_vcpu_init()`,
  only: { feature: 'tdx' },
  args: vcpuInitDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 12,
  guards: [
    noTd<ArgsOf<typeof vcpuInitDomains>>('td.vcpu-init'),
    noVcpu<ArgsOf<typeof vcpuInitDomains>>('td.vcpu-init'),
    dead<ArgsOf<typeof vcpuInitDomains>>('td.vcpu-init'),
    {
      id: 'td.vcpu-init/too-late',
      errno: 'EINVAL',
      when: 'the TD is finalized, or has given its key back',
      violated: isOver,
      violate: vary<ArgsOf<typeof vcpuInitDomains>>({ vcpu: VCPUS }, (args, state) => isOver(args, state)),
    },
    {
      id: 'td.vcpu-init/flags',
      errno: 'EINVAL',
      when: '`flags` is not zero',
      violated: ({ flags }) => flags !== 0n,
      violate: (args) => ({ ...args, flags: 1n }),
    },
    aimed<ArgsOf<typeof vcpuInitDomains>>(
      { vcpu: VCPUS },
      {
        id: 'td.vcpu-init/again',
        errno: 'EINVAL',
        when: 'the vCPU was initialized before',
        violated: (args, state) => vcpuOf(state, args.td, args.vcpu)?.isInitialized === true,
      },
    ),
    tornDown<ArgsOf<typeof vcpuInitDomains>>('td.vcpu-init'),
  ],
  accepts: [
    {
      id: 'td.vcpu-init/initialized',
      when: 'the vCPU is new, and the TD not finalized',
      accept: (args, state) => ({
        state: withVcpu(state, args.td, args.vcpu, { isInitialized: true, isAssociated: true }),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const isNew = ({ isInitialized }: { readonly isInitialized: boolean }): boolean => !isInitialized;
    const label = chooseTd(random, state, ({ vcpus }) => [...vcpus.values()].some(isNew));
    return label === undefined
      ? undefined
      : { td: label, vcpu: chooseVcpu(random, tdOf(state, label), false), flags: 0n };
  },
});

const addDomains = {
  td: tdLabel,
  vcpu,
  gfn,
  pages: u64({ boundaries: [2n, 4n, 5n, 1n << 52n] }),
  value: u64(),
} as const;

type Add = ArgsOf<typeof addDomains>;

/** First private address that is none: the shared bit is set from there on. */
const SHARED_BIT = 1n << 47n;

/** The least number of pages that reach past the memory, a frame that is shared, or, with TDX, one that has a page. */
function hindered(
  { td, gfn: first, pages }: Add,
  state: State,
): { readonly done: number; readonly why: string } | undefined {
  const { frames } = tdOf(state, td);
  for (let done = 0; done < pages; done++) {
    const frame = frames[Number(first) + done];
    if (frame === undefined) return { done, why: 'beyond-memory' };
    if (!frame.private) return { done, why: 'shared' };
    if (isTdx(state) && isOwned(frame)) return { done, why: 'twice' };
  }
  return undefined;
}

function withPages(state: State, { td, gfn: first, value }: Add, count: number): State {
  let after = state;
  for (let page = Number(first); page < Number(first) + count; page++) {
    const name = String(page);
    const { page: before, vmmPage, isSwapped } = frameOf(after, td, name);
    const filled = filledWith(before, guestLine(value));
    after = withFrame(after, td, name, {
      page: filled,
      entry: 'mapped',
      tracked: false,
      exported: 'no',
      // Unpacking touches the page.
      isSwapped: isSwapped && vmmPage !== undefined,
    });
  }
  return after;
}

/** The page of the frame is taken before anybody asks whether the frame is private: where it is the one at the host address, it comes back from swap. */
function withPagesAndTaken(state: State, args: Add): State {
  const { done = 0, why = '' } = hindered(args, state) ?? {};
  const after = withPages(state, args, done);
  const next = String(Number(args.gfn) + done);
  const isTaken = why === 'shared' && isTdx(state) && frameOf(after, args.td, next).vmmPage === undefined;
  return isTaken ? withFrame(after, args.td, next, { isSwapped: false }) : after;
}

const hindrance = (
  why: string,
  row: Pick<Guard<Add>, 'when' | 'source' | 'only'>,
  errno: 'EINVAL' | 'EIO',
): Guard<Add> => ({
  ...row,
  id: `td.add/${why}`,
  group: 'page',
  errno,
  violated: (args, state) => hindered(args, state)?.why === why,
  violate: vary<Add>({ gfn: GFNS, pages: [1n, 2n, 5n] }, (args, state) => hindered(args, state)?.why === why),
  leaves: (args, state) => withPagesAndTaken(state, args),
});

const POPULATE = 'virt/kvm/guest_memfd.c: kvm_gmem_populate(), __kvm_gmem_populate()';

export const tdAdd = defineTransition({
  name: 'td.add',
  realm: 'td',
  summary: 'Copies pages into private memory before the guest first runs.',
  does: '`KVM_TDX_INIT_MEM_REGION` on `vcpu` of `pages` pages from frame `gfn` on, each line of which holds `value`; LAUNCH_UPDATE_DATA or unpack outside of TDX, where `vcpu` says nothing',
  source: `${TDX_SOURCE}: tdx_vcpu_init_mem_region(), tdx_gmem_post_populate()`,
  args: addDomains,
  mayAlso: [],
  builds: true,
  weight: 10,
  guards: [
    noTd<Add>('td.add'),
    { ...noVcpu<Add>('td.add'), only: { feature: 'tdx' } },
    dead<Add>('td.add'),
    aimed<Add>(
      { vcpu: VCPUS },
      {
        id: 'td.add/not-before-finalize',
        errno: 'EINVAL',
        when: 'the TD is not initialized, is finalized, or has given its key back',
        violated: isOver,
      },
    ),
    aimed<Add>(
      { vcpu: VCPUS },
      {
        id: 'td.add/vcpu-not-initialized',
        only: { feature: 'tdx' },
        errno: 'EINVAL',
        when: 'the vCPU was not initialized',
        violated: (args, state) => vcpuOf(state, args.td, args.vcpu)?.isInitialized !== true,
      },
    ),
    {
      id: 'td.add/empty-or-wraps',
      errno: 'EINVAL',
      when: 'there are no pages, or so many that their addresses wrap or have the shared bit',
      violated: ({ gfn: first, pages }) => {
        const gpa = BigInt(first) * PAGE_SIZE;
        const end = wrap64(gpa + pages * PAGE_SIZE);
        return pages === 0n || end <= gpa || ((end - 1n) & SHARED_BIT) !== 0n;
      },
      violate: (args, _state, random) => ({ ...args, pages: pick(random, [0n, 1n << 52n, (1n << 35n) + 1n]) }),
    },
    tornDown<Add>('td.add'),
    hindrance(
      'beyond-memory',
      { when: 'no slot shows the next page; pages before it were added', source: POPULATE },
      'EINVAL',
    ),
    hindrance('shared', { when: 'the next frame is shared; pages before it were added', source: POPULATE }, 'EINVAL'),
    hindrance(
      'twice',
      {
        when: 'the next frame has a page; pages before it were added',
        source: 'arch/x86/kvm/mmu/mmu.c: kvm_tdp_mmu_map_private_pfn()',
        only: { feature: 'tdx' },
      },
      'EIO',
    ),
  ],
  accepts: [
    {
      id: 'td.add/added',
      when: 'every frame is private and can have a page',
      accept: (args, state) => ({ state: withPages(state, args, Number(args.pages)) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, (td) => td.phase === 'initialized' && (!isTdx(state) || hasReadyVcpu(td)));
    if (label === undefined) return undefined;
    const isFree = (frame: TdFrame): boolean => frame.private && !isOwned(frame);
    const isPinned =
      random.below(2) === 0 && tdOf(state, label).frames.some((frame) => isFree(frame) && frame.isPinned);
    const first = chooseFrame(random, state, label, (frame) => isFree(frame) && (frame.isPinned || !isPinned));
    return {
      td: label,
      vcpu: chooseVcpu(random, tdOf(state, label), true),
      gfn: first,
      pages: pick(random, [1n, 1n, 1n, 2n, 4n]),
      value: chooseValue(random),
    };
  },
});

export const tdFinalize = defineTransition({
  name: 'td.finalize',
  realm: 'td',
  summary: 'Ends the filling of a TD: from then on its vCPUs can run.',
  does: '`KVM_TDX_FINALIZE_VM`, or LAUNCH_FINISH',
  source: `${TDX_SOURCE}: tdx_td_finalize()`,
  args: tdDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 12,
  guards: [
    noTd<OnTd>('td.finalize'),
    dead<OnTd>('td.finalize'),
    aimed<OnTd>(
      {},
      {
        id: 'td.finalize/not-filling',
        errno: 'EINVAL',
        when: 'the TD is not initialized, is finalized, or has given its key back',
        violated: isOver,
      },
    ),
    tornDown<OnTd>('td.finalize'),
    aimed<OnTd>(
      {},
      {
        id: 'td.finalize/busy',
        only: { feature: 'tdx' },
        errno: 'EBUSY',
        when: 'the module is busy; it is not tried again',
        violated: (_args, { td: { busy } }) => busy > 0,
        leaves: (_args, state) => withMachine(state, { busy: state.td.busy - 1 }),
      },
    ),
    aimed<OnTd>(
      {},
      {
        id: 'td.finalize/no-vcpus',
        only: { feature: 'tdx' },
        errno: 'EIO',
        when: 'no vCPU is initialized: the module refuses (TDX_NO_VCPUS), which KVM takes for a bug of its own, and gives the VM up',
        source: `${TDX_SOURCE}: tdx_td_finalize(); TDX module ABI: TDH.MR.FINALIZE`,
        violated: ({ td }, state) => !hasReadyVcpu(tdOf(state, td)),
        leaves: ({ td }, state) => withTd(state, td, { ended: 'dead' }),
      },
    ),
  ],
  accepts: [
    {
      id: 'td.finalize/finalized',
      when: 'the TD is being filled',
      accept: ({ td }, state) => ({ state: withTd(state, td, { phase: 'runnable' }) }),
    },
  ],
  draw: drawTd((td) => td.phase === 'initialized' && hasReadyVcpu(td)),
});

/** Calls of the module that answer that they are busy, left when so many pages of the TD have been removed. */
const busyAfterRemoval = ({ td: { busy } }: State, { frames }: Td): number =>
  busy === 1 && frames.some(isOwned) ? 0 : busy;

/** Whether the module is busy when KVM says that all vCPUs are flushed, which it does not try again. */
const leaksKey = ({ td }: OnTd, state: State): boolean => {
  const going = tdOf(state, td);
  return isTdx(state) && going.key !== undefined && going.flush === 'none' && busyAfterRemoval(state, going) > 0;
};

function without(state: State, label: Label, leaked: boolean): State {
  const going = tdOf(state, label);
  const busy = isTdx(state) ? busyAfterRemoval(state, going) : state.td.busy;
  const { key } = going;
  // Caches are written back for every key whose flush is done, not for this one alone.
  const tds = isTdx(state) && key !== undefined && !leaked ? writtenBack(state.td.tds) : state.td.tds;
  return withMachine(state, {
    tds: withoutEntry(tds, label),
    busy: leaked ? busy - 1 : busy,
    ...(leaked && key !== undefined && { leakedKeys: new Map([...state.td.leakedKeys, [key, label]]) }),
  });
}

export const tdDestroy = defineTransition({
  name: 'td.destroy',
  realm: 'td',
  summary:
    'Destroys a TD: its private pages are removed while it has its key, then its vCPUs are flushed, caches are written back, the key is freed, the control pages are reclaimed, and the root page last.',
  does: 'closes the last descriptor of the VM; steps that were done before are not done again',
  source: `${TDX_SOURCE}: tdx_mmu_release_hkid(), tdx_vcpu_free(), tdx_vm_destroy()`,
  args: tdDomains,
  mayAlso: [],
  weight: 1,
  guards: [
    noTd<OnTd>('td.destroy'),
    {
      id: 'td.destroy/still-busy',
      only: { feature: 'tdx' },
      unmodelled:
        'a removal that fails twice is a bug of KVM or of the module, and what is left of the TD nobody has settled',
      when: 'a page is to be removed, and the module is busy when KVM tries again',
      source: `${TDX_SOURCE}: tdx_sept_remove_leaf_spte()`,
      violated: ({ td }, state) => state.td.busy > 1 && tdOf(state, td).frames.some(isOwned),
    },
  ],
  accepts: [
    {
      id: 'td.destroy/key-leaked',
      only: { feature: 'tdx' },
      when: 'the module is busy when all vCPUs are flushed: the key and the control pages are leaked, and never used again',
      source: `${TDX_SOURCE}: tdx_mmu_release_hkid(), tdx_reclaim_td_control_pages()`,
      applies: leaksKey,
      accept: ({ td }, state) => ({ state: without(state, td, true) }),
    },
    {
      id: 'td.destroy/destroyed',
      when: 'nothing fails: the key is free again',
      accept: ({ td }, state) => ({ state: without(state, td, false) }),
    },
  ],
  draw: drawTd(),
});
