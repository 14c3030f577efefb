/** Memory of the process that a guest uses, pinned while it does. */
import { PAGE_SIZE } from '../core/abi.ts';
import { choice, sameAddress, u64 } from '../core/domain.ts';
import type { Observation } from '../core/outcome.ts';
import { pick, pickOr } from '../core/random.ts';
import { ARENA, withoutEntry, type State } from '../core/state.ts';
import type { SevRegion } from '../core/state-sev.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { vmOf, withMachine, withVm } from './key-machine.ts';
import { addr, chooseVm, dead, KIND, noVm, notSev, onVm, pagesOf, pinRows, SEV, vm } from './key-rows.ts';

const regionDomains = { vm, addr, size: u64({ boundaries: [2n * PAGE_SIZE, 1n << 60n] }) } as const;
type Region = ArgsOf<typeof regionDomains>;

const isMirror = (command: string) =>
  onVm<Region>({
    id: `${command}/mirror`,
    group: KIND,
    errno: 'EINVAL',
    when: 'the VM is a mirror, whose owner is responsible for memory',
    isSo: ({ owner }) => owner !== undefined,
  });

/** kvm_vm_ioctl() asks whether the VM is dead before the command waits for a move of its context to end. */
const movedMeanwhile = (_args: Region, observed: Observation): boolean =>
  observed.kind === 'errno' && observed.errno === 'ENOTTY';

export const sevRegionAdd = defineTransition({
  name: 'sev.region-add',
  realm: 'sev',
  summary: 'Registers memory of the process as a guest’s, and pins it.',
  does: '`KVM_MEMORY_ENCRYPT_REG_REGION` of `size` bytes from `addr` on',
  source: `${SEV}: sev_mem_enc_register_region()`,
  args: regionDomains,
  mayAlso: [],
  transient: movedMeanwhile,
  weight: 5,
  guards: [
    noVm<Region>('sev.region-add'),
    dead<Region>('sev.region-add'),
    notSev<Region>('sev.region-add'),
    isMirror('sev.region-add'),
    ...pinRows<Region>('sev.region-add', { bytes: ({ size }) => size, isWide: true }),
  ],
  accepts: [
    {
      id: 'sev.region-add/pinned',
      when: 'all of it is mapped; it may overlap others, or be registered already',
      accept: ({ vm: label, addr: at, size }, state) => {
        const { start, end } = pagesOf(at, size);
        const region: SevRegion = { addr: at, size, start: Number(start), end: Number(end) };
        return { state: withVm(state, label, { regions: [...vmOf(state, label).regions, region] }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseVm(random, state, ({ isActive, owner }) => isActive && owner === undefined);
    if (label === undefined) return undefined;
    const offset = BigInt(pick(random, [0, 0, 4096, 8192, 100]));
    return {
      vm: label,
      addr: { base: ARENA, offset },
      size: pick(random, [1n, PAGE_SIZE, 2n * PAGE_SIZE, 4n * PAGE_SIZE]),
    };
  },
});

const indexOf = ({ vm: label, addr: at, size }: Region, state: State): number =>
  vmOf(state, label).regions.findIndex((each) => sameAddress(each.addr, at) && each.size === size);

export const sevRegionDrop = defineTransition({
  name: 'sev.region-drop',
  realm: 'sev',
  summary: 'Gives a registered region back; caches are written back before.',
  does: '`KVM_MEMORY_ENCRYPT_UNREG_REGION` of `size` bytes from `addr` on',
  source: `${SEV}: sev_mem_enc_unregister_region()`,
  args: regionDomains,
  mayAlso: [],
  transient: movedMeanwhile,
  weight: 4,
  guards: [
    noVm<Region>('sev.region-drop'),
    dead<Region>('sev.region-drop', KIND),
    isMirror('sev.region-drop'),
    notSev<Region>('sev.region-drop'),
    {
      id: 'sev.region-drop/unknown',
      errno: 'EINVAL',
      when: 'no region was registered with this start and this size',
      source: `${SEV}: find_enc_region()`,
      violated: (args, state) => indexOf(args, state) < 0,
      violate: (args) => ({ ...args, size: args.size + 1n }),
    },
  ],
  accepts: [
    {
      id: 'sev.region-drop/unpinned',
      when: 'there is one: the first is given back',
      accept: (args, state) => {
        const at = indexOf(args, state);
        return { state: withVm(state, args.vm, { regions: vmOf(state, args.vm).regions.toSpliced(at, 1) }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseVm(random, state, ({ regions }) => regions.length > 0);
    const region = label === undefined ? undefined : pickOr(random, vmOf(state, label).regions);
    return label === undefined || region === undefined
      ? undefined
      : { vm: label, addr: region.addr, size: region.size };
  },
});

/** Guest frames 0 to 3 of every VM. */
const GUEST_PAGES = ['0', '1', '2', '3'] as const;

const discardDomains = { page: choice(...GUEST_PAGES) } as const;
type Discard = ArgsOf<typeof discardDomains>;

export const sevDiscard = defineTransition({
  name: 'sev.discard',
  realm: 'sev',
  summary:
    'The process gives a page of the arena back; caches of processors that ran its guests are written back before.',
  does: '`madvise()` of the page `page` of the arena with MADV_REMOVE: who touches it next gets another one, of zeroes',
  source: `virt/kvm/kvm_main.c: kvm_mmu_notifier_invalidate_range_start(); ${SEV}: sev_guest_memory_reclaimed()`,
  args: discardDomains,
  mayAlso: [],
  weight: 2,
  guards: [
    {
      id: 'sev.discard/registered',
      unmodelled: 'a page that is pinned stays, and is then none that the process can name',
      when: 'a region covers the page',
      source: `${SEV}: sev_pin_user_pages()`,
      violated: ({ page }: Discard, { sev }) =>
        [...sev.vms.values()].some(({ regions }) =>
          regions.some(({ start, end }) => start <= Number(page) && Number(page) < end),
        ),
    },
  ],
  accepts: [
    {
      id: 'sev.discard/discarded',
      when: 'no region covers the page',
      accept: ({ page }, state) => ({ state: withMachine(state, { pages: withoutEntry(state.sev.pages, page) }) }),
    },
  ],
  draw: ({ random, state }) => {
    const page = pickOr(
      random,
      GUEST_PAGES.filter((each) => state.sev.pages.has(each)),
    );
    return page === undefined ? undefined : { page };
  },
});
