import { KVM_MEM, PAGE_MASK } from '../core/abi.ts';
import { fd, u64 } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import type { Errno, Observation, Outcome } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { clip, has } from '../core/ranges.ts';
import { known, type Inode, type Label, type State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf, type DescriptorCheck, type Guard } from '../core/transition.ts';
import { bytes, chooseFd, chooseGfn, choosePage, chooseValue, chooseWordOffset } from './choose.ts';
import { hostMayTouch, isWordAligned, readWord, wordIndex, writeWord, type Place } from './content.ts';
import { leftStuck, stuckPage } from './direct-map-fault.ts';
import {
  findObstacle,
  gfnAt,
  guestTop,
  isFound,
  isPrivateGfn,
  limitsOf,
  mapGfns,
  rememberMmio,
  resolveGfn,
  vmOfVcpu,
  winsOverHost,
  type Found,
  type Obstacle,
} from './guest-fault.ts';
import { slotAt } from './slots.ts';
import { withoutPrivateMemory } from './vm-create.ts';

interface Access {
  readonly vcpu: Label;
  readonly gpa: bigint;
}

const resolve = rememberLast(({ vcpu, gpa }: Access, state: State): Found | Obstacle =>
  resolveGfn(state, vmOfVcpu(state, vcpu), gfnAt(gpa)),
);

/** Source: arch/x86/kvm/mmu/mmu_internal.h: kvm_mmu_prepare_memory_fault_exit(). */
const memoryFault =
  (errno: Errno) =>
  ({ vcpu, gpa }: Access, state: State): Outcome => ({
    kind: 'memory-fault',
    errno,
    gpa: gpa & ~PAGE_MASK,
    private: isPrivateGfn(state, vmOfVcpu(state, vcpu), gfnAt(gpa)),
  });

const mmio =
  (write: boolean) =>
  ({ gpa }: Access): Outcome => ({ kind: 'mmio', gpa, write });

interface ObstacleRow {
  readonly obstacle: Obstacle;
  readonly when: string;
  readonly source: string;
  readonly errno: Errno;
}

const FAULTIN = 'arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn()';
const GET_PFN = 'virt/kvm/guest_memfd.c: kvm_gmem_get_pfn()';
const STUCK =
  'RFC v2 "Unmapping guest_memfd from Direct Map", patch 1: kvm_gmem_get_folio(); v12 "Direct Map Removal Support for guest_memfd": kvm_gmem_get_pfn()';

const gmemObstacles: readonly ObstacleRow[] = [
  {
    obstacle: 'private-without-gmem',
    when: 'the frame is private and the slot was made without GUEST_MEMFD',
    source: 'arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn_gmem()',
    errno: 'EFAULT',
  },
  { obstacle: 'file-gone', when: 'the file that backed the slot is gone', source: GET_PFN, errno: 'EFAULT' },
  { obstacle: 'poisoned', when: 'the page has had a memory failure', source: GET_PFN, errno: 'EHWPOISON' },
];

/** What every row has that asks whether the fault meets an obstacle. No access meets two. */
const meets = <A extends Access>(command: string, obstacle: Obstacle) => ({
  id: `${command}/${obstacle}`,
  group: 'fault',
  ...limitsOf(obstacle),
  violated: (args: A, state: State): boolean => resolve(args, state) === obstacle,
  violate: (args: A, state: State): A | undefined => {
    const gfn = findObstacle(state, vmOfVcpu(state, args.vcpu), obstacle);
    return gfn === undefined ? undefined : { ...args, gpa: bytes(gfn) + (args.gpa & PAGE_MASK) };
  },
});

const faulting = <A extends Access>(command: string, { obstacle, when, source, errno }: ObstacleRow): Guard<A> => ({
  ...meets<A>(command, obstacle),
  result: `MEMORY_FAULT ${errno}`,
  outcome: memoryFault(errno),
  when,
  source,
});

/** Rows that ask whether the address is one that a guest can name, and whether a slot shows it. */
const addressRows = <A extends Access>(command: string, write: boolean): readonly Guard<A>[] => [
  {
    id: `${command}/unaligned`,
    unmodelled: 'an access is one aligned word of eight bytes',
    when: 'the guest address is not a multiple of eight',
    violated: ({ gpa }) => !isWordAligned(gpa),
  },
  {
    id: `${command}/beyond-guest-physical`,
    unmodelled: 'what a guest sees past the width of its physical addresses is up to its page tables',
    when: 'the guest address is wider than the machine’s',
    violated: ({ gpa }, state) => gpa >= guestTop(state),
    violate: (args, state) => ({ ...args, gpa: guestTop(state) }),
  },
  {
    id: `${command}/mmio-remembered`,
    unreachable: withoutPrivateMemory,
    unmodelled:
      'whether KVM remembers MMIO is up to the machine; where it does, it takes the access for one of shared memory',
    when: 'the frame is private, and no slot showed it when it was last touched or pre-faulted as shared',
    source:
      'arch/x86/kvm/mmu/mmu.c: kvm_mmu_page_fault(), handle_mmio_page_fault(), kvm_mmu_faultin_pfn(), kvm_tdp_page_prefault()',
    violated: ({ vcpu, gpa }, state) => {
      const vm = vmOfVcpu(state, vcpu);
      return isPrivateGfn(state, vm, gfnAt(gpa)) && has(known(state.vms, vm).mmio, gfnAt(gpa));
    },
    violate: (args, state) => {
      const { mmio: remembered, private: isPrivate } = known(state.vms, vmOfVcpu(state, args.vcpu));
      const [both] = remembered.flatMap(({ start, end }) => clip(isPrivate, start, end));
      return both && { ...args, gpa: bytes(both.start) + (args.gpa & PAGE_MASK) };
    },
  },
  faulting(command, {
    obstacle: 'private-without-slot',
    when: 'the frame is private and no slot shows it',
    source: 'arch/x86/kvm/mmu/mmu.c: kvm_handle_noslot_fault()',
    errno: 'EFAULT',
  }),
  {
    ...meets<A>(command, 'no-slot'),
    result: 'MMIO exit',
    outcome: mmio(write),
    leaves: ({ vcpu, gpa }, state) => rememberMmio(state, vmOfVcpu(state, vcpu), gfnAt(gpa)),
    when: 'the frame is shared and no slot shows it',
    source: 'arch/x86/kvm/mmu/mmu.c: kvm_handle_noslot_fault()',
  },
];

/** Rows of accesses that go to the host address of the slot. */
const hostRows = <A extends Access>(command: string): readonly Guard<A>[] => [
  {
    ...meets<A>(command, 'host-address-unknown'),
    unmodelled: 'what lies at a bare host address is the host process’s affair',
    when: 'the access goes to the host address of the slot, which is not in or near a known mapping',
    source: FAULTIN,
  },
  {
    ...meets<A>(command, 'host-page-missing'),
    errno: 'EFAULT',
    when: 'the access goes to the host address of the slot, and the host could not touch that either: no exit says so',
    source: 'arch/x86/kvm/mmu/mmu.c: kvm_handle_error_pfn()',
  },
  {
    ...meets<A>(command, 'host-page-secret'),
    errno: 'EFAULT',
    when: 'the access goes to the host address of the slot, where there is secret memory: GUP refuses that, and no exit says so',
    source: 'virt/kvm/kvm_main.c: hva_to_pfn(); mm/gup.c: check_vma_flags()',
  },
  {
    ...meets<A>(command, 'host-page-hidden'),
    errno: 'EFAULT',
    when: 'the access goes to the host address of the slot, and that page is out of the direct map: GUP does not give it away',
    source: 'v12 "Direct Map Removal Support for guest_memfd", patch 2: mm/gup.c: check_vma_flags()',
  },
  {
    ...meets<A>(command, 'host-page-poisoned'),
    unmodelled: 'a memory failure behind a host address is the machine-check system’s affair',
    when: 'the access goes to the host address of the slot, and that page has had a memory failure',
    source: 'arch/x86/kvm/mmu/mmu.c: kvm_send_hwpoison_signal()',
  },
];

/** Rows of a load and of a store, in the order in which the fault handler finds out. */
const rows = <A extends Access>(command: string, write: boolean): readonly (Guard<A> | DescriptorCheck<A>)[] => [
  { descriptor: 'vcpu', kind: 'vcpu', ioctl: true },
  ...addressRows<A>(command, write),
  ...gmemObstacles.map((row) => faulting<A>(command, row)),
  ...(write ? [readOnlyRow<A>(command)] : []),
  ...hostRows<A>(command),
  {
    id: `${command}/stays-in-direct-map`,
    group: 'fault',
    only: { feature: 'direct-map' },
    requires: 'fault-injection',
    result: 'MEMORY_FAULT ENOMEM',
    outcome: memoryFault('ENOMEM'),
    leaves: leftWithoutPage,
    when: 'the page cannot leave the direct map: the guest does not get it, and the next use tries again',
    source: STUCK,
    violated: (args, state) => stuckAt(args, state) !== undefined,
  },
];

const isReadOnly = (args: Access, state: State): boolean => {
  const slot = slotAt(known(state.vms, vmOfVcpu(state, args.vcpu)), gfnAt(args.gpa));
  return slot !== undefined && (slot.flags & KVM_MEM.READONLY) !== 0n;
};

const readOnlyRow = <A extends Access>(command: string): Guard<A> => ({
  id: `${command}/read-only`,
  result: 'MMIO exit',
  outcome: mmio(true),
  when: 'the slot is READONLY',
  source: 'virt/kvm/kvm_main.c: __gfn_to_hva_many(); arch/x86/kvm/mmu/mmu.c: kvm_handle_error_pfn()',
  violated: isReadOnly,
  violate: (args, state, random) => {
    const { slots } = known(state.vms, vmOfVcpu(state, args.vcpu));
    const slot = pickOr(
      random,
      [...slots.values()].filter(({ id, flags }) => id <= 0xffff && (flags & KVM_MEM.READONLY) !== 0n),
    );
    return slot && { ...args, gpa: bytes(slot.baseGfn) };
  },
});

/** The page that the guest is not given, because it cannot leave the direct map. */
function stuckAt(args: Access, state: State): Found | undefined {
  if (state.directMapFault === undefined) return undefined;
  const found = resolve(args, state);
  if (!isFound(found)) return undefined;
  return stuckPage(state, found.inode, found.page, found.page + 1) === undefined ? undefined : found;
}

function leftWithoutPage(args: Access, state: State): State {
  const found = stuckAt(args, state);
  return found === undefined ? state : leftStuck(state, found.inode, found.page);
}

function touch(args: Access, state: State): { readonly state: State; readonly place: Place } {
  const found = resolve(args, state);
  if (!isFound(found)) throw new Error(`specification defect: access meets ${found}`);
  const gfn = gfnAt(args.gpa);
  return {
    state: mapGfns(state, vmOfVcpu(state, args.vcpu), found, gfn, gfn + 1),
    place: { inode: found.inode, page: found.page, word: wordIndex(args.gpa) },
  };
}

/** Whether the frame shows the arena, or guest memory that the host has mapped at the slot's host address. */
const showsHost =
  (kind: Inode['kind']) =>
  (args: Access, state: State): boolean => {
    const found = resolve(args, state);
    return isFound(found) && found.mapping !== undefined && known(state.inodes, found.inode).kind === kind;
  };

/** Whether only guest_memfd's word keeps the access from other memory at the host address of the slot. */
function beatsHost(args: Access, state: State): boolean {
  const found = resolve(args, state);
  return isFound(found) && winsOverHost(state, found, gfnAt(args.gpa));
}

/** Source for slots whose file has MMAP, where every access goes to the file. */
const GMEM_ONLY = 'arch/x86/kvm/mmu/mmu.c: __kvm_mmu_faultin_pfn(), kvm_memslot_is_gmem_only()';

/** Whether the word goes where the host process must never see it. */
function storesSecret(access: Access, state: State): boolean {
  const found = resolve(access, state);
  return isFound(found) && !hostMayTouch(known(state.inodes, found.inode));
}

function draw(random: Random, state: State): Access | undefined {
  const vcpu = chooseFd(random, state, 'vcpu');
  if (vcpu === undefined) return undefined;
  const { slots } = known(state.vms, vmOfVcpu(state, vcpu));
  const slot = random.below(12) === 0 ? undefined : pickOr(random, [...slots.values()]);
  if (slot === undefined) {
    // Without slots most accesses would tell the same: the VMM is asked to emulate.
    if (random.below(4) > 0) return undefined;
    return { vcpu, gpa: bytes(chooseGfn(random)) };
  }
  return { vcpu, gpa: bytes(slot.baseGfn + choosePage(random, slot.pages)) + chooseWordOffset(random) };
}

function load(args: Access, state: State): Accepted {
  const touched = touch(args, state);
  return { state: touched.state, value: readWord(touched.state, touched.place) };
}

function store(args: Access & { readonly value: bigint }, state: State): Accepted {
  const touched = touch(args, state);
  return { state: writeWord(touched.state, touched.place, args.value) };
}

/**
 * kvm_mmu_faultin_pfn(): the attribute, or the page, may be no more what it was when the fault began. The VMM is told, and
 * runs the vCPU again.
 */
const changedMeanwhile = ({ gpa }: Access, observed: Observation): boolean =>
  observed.kind === 'signal' || (observed.kind === 'memory-fault' && observed.gpa === (gpa & ~PAGE_MASK));

const loadArgs = { vcpu: fd('vcpu'), gpa: u64() } as const;
const storeArgs = { ...loadArgs, value: u64() } as const;

export const guestLoad = defineTransition({
  name: 'guest.load',
  readsSecrets: true,
  summary: 'A vCPU reads a word of guest physical memory.',
  does: 'the guest of `vcpu` loads the 8 bytes at the guest physical address `gpa`: `KVM_RUN` until the access is done, or until it comes back because of the access',
  tells: 'the word',
  source: FAULTIN,
  args: loadArgs,
  mayAlso: ['ENOMEM', 'EINTR'],
  transient: changedMeanwhile,
  weight: 18,
  guards: rows<ArgsOf<typeof loadArgs>>('guest.load', false),
  accepts: [
    {
      id: 'guest.load/host-memory',
      when: 'the frame shows host memory: it reads what is there',
      applies: showsHost('anonymous'),
      accept: load,
    },
    {
      id: 'guest.load/mapped-guest-memory',
      when: 'the frame shows the host address of a slot at which the host has mapped guest memory',
      applies: showsHost('gmem'),
      accept: load,
    },
    {
      id: 'guest.load/guest-memory-not-host',
      when: 'the frame shows guest memory, and other memory lies at the host address of the slot: that is not looked at',
      source: GMEM_ONLY,
      applies: beatsHost,
      accept: load,
    },
    {
      id: 'guest.load/guest-memory',
      when: 'the frame shows guest memory: it reads what was last stored, and zero if it is new',
      accept: load,
    },
  ],
  draw: ({ random, state }) => draw(random, state),
});

export const guestStore = defineTransition({
  name: 'guest.store',
  storesSecret,
  summary: 'A vCPU writes a word of guest physical memory.',
  does: 'the guest of `vcpu` stores `value` to the 8 bytes at the guest physical address `gpa`, in the same way',
  source: FAULTIN,
  args: storeArgs,
  mayAlso: ['ENOMEM', 'EINTR'],
  transient: changedMeanwhile,
  weight: 18,
  guards: rows<ArgsOf<typeof storeArgs>>('guest.store', true),
  accepts: [
    {
      id: 'guest.store/host-memory',
      when: 'the frame shows host memory',
      applies: showsHost('anonymous'),
      accept: store,
    },
    {
      id: 'guest.store/mapped-guest-memory',
      when: 'the frame shows the host address of a slot at which the host has mapped guest memory',
      applies: showsHost('gmem'),
      accept: store,
    },
    {
      id: 'guest.store/guest-memory-not-host',
      when: 'the frame shows guest memory, and other memory lies at the host address of the slot: that is not looked at',
      source: GMEM_ONLY,
      applies: beatsHost,
      accept: store,
    },
    {
      id: 'guest.store/guest-memory',
      when: 'the frame shows guest memory',
      accept: store,
    },
  ],
  draw: ({ random, state }) => {
    const access = draw(random, state);
    return access && { ...access, value: pick(random, [chooseValue(random), chooseValue(random), 0n]) };
  },
});
