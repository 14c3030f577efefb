import {
  isPageAligned,
  KVM_MEM,
  KVM_MEM_MAX_NR_PAGES,
  KVM_USER_MEM_SLOTS,
  PAGE_SHIFT,
  PAGE_SIZE,
  toPages,
  U16_MAX,
  U64_MAX,
  wrap64,
} from '../core/abi.ts';
import { address, choice, fd, sameAddress, u32, u64 } from '../core/domain.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { erase } from '../core/ranges.ts';
import { ARENA, known, NO_FD, OTHER, openAs, withoutEntry, withEntry, withVm } from '../core/state.ts';
import type { Address, Label, Slot, State, Vm } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseFd, chooseGfn, choosePages } from './choose.ts';
import { forgetSlot, slotsChanged, slotsPerhapsChanged } from './content.ts';
import { bindingsOf } from './lifecycle.ts';
import { bytesOfSlot, hasRoomFor, hasRoomForSlots, UP_TO_THE_MACHINE } from './memory-budget.ts';
import { addressSpacesOf, overlapsSlot, slotAt, vmOf } from './slots.ts';

const domains = {
  vm: fd('vm'),
  api: choice('v2', 'v1'),
  slot: u32({ boundaries: [KVM_USER_MEM_SLOTS - 1n, KVM_USER_MEM_SLOTS, 0x1_0000n, 0x1_7ffcn, 0x2_0000n] }),
  flags: u32({ boundaries: [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n] }),
  gpa: u64({ boundaries: [(1n << 52n) - PAGE_SIZE] }),
  size: u64({ boundaries: [KVM_MEM_MAX_NR_PAGES << PAGE_SHIFT, (KVM_MEM_MAX_NR_PAGES + 1n) << PAGE_SHIFT] }),
  hva: address(),
  gmem: fd('gmem'),
  offset: u64(),
} as const;

type SlotSet = ArgsOf<typeof domains>;

const slotId = ({ slot }: SlotSet): number => Number(slot);
const isGmem = ({ flags }: SlotSet): boolean => (flags & KVM_MEM.GUEST_MEMFD) !== 0n;
const isDelete = ({ size }: SlotSet): boolean => size === 0n;
const pagesOf = ({ size }: SlotSet): number => toPages(size);
const gfnOf = ({ gpa }: SlotSet): number => toPages(gpa);
const oldSlot = (args: SlotSet, state: State): Slot | undefined => vmOf(state, args.vm).slots.get(slotId(args));
const isCreate = (args: SlotSet, state: State): boolean => !isDelete(args) && oldSlot(args, state) === undefined;
const isMove = (args: SlotSet, state: State): boolean => {
  const old = oldSlot(args, state);
  return !isDelete(args) && old !== undefined && old.baseGfn !== gfnOf(args);
};

const vmLabel = ({ vm }: SlotSet, state: State): Label => openAs(state, vm, 'vm') ?? vm;

/** Mappings begin below this address, so that up to here an offset cannot leave user space. */
const MAPPINGS_BELOW = 1n << 46n;

/** Whether the range surely is not in user space, whatever the address at which the mapping lies. */
const leavesUserSpace = ({ hva, size }: SlotSet, { config: { machine }, mappings }: State): boolean =>
  hva.base === ''
    ? hva.offset + size > machine.userTop
    : mappings.has(hva.base) && hva.offset + size >= machine.userTop && hva.offset + MAPPINGS_BELOW <= U64_MAX;

type Row = Guard<SlotSet>;

/** Rows that look at nothing but the arguments and the machine. */
const argumentRows: readonly Row[] = [
  {
    id: 'slot.set/v1-flag',
    errno: 'EINVAL',
    when: 'the v1 ioctl is given a flag other than LOG_DIRTY_PAGES and READONLY',
    source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl(), KVM_SET_USER_MEMORY_REGION_V1_FLAGS',
    violated: ({ api, flags }) => api === 'v1' && (flags & ~(KVM_MEM.LOG_DIRTY_PAGES | KVM_MEM.READONLY)) !== 0n,
    violate: (args) => ({ ...args, api: 'v1', flags: args.flags | KVM_MEM.GUEST_MEMFD }),
  },
  {
    id: 'slot.set/slot-id-too-large',
    errno: 'EINVAL',
    when: 'the lower 16 bits of the slot are not below KVM_USER_MEM_SLOTS',
    source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region()',
    violated: ({ slot }) => (slot & U16_MAX) >= KVM_USER_MEM_SLOTS,
    violate: (args, _state, random) => ({ ...args, slot: pick(random, [KVM_USER_MEM_SLOTS, U16_MAX, 0xffff_ffffn]) }),
  },
  {
    id: 'slot.set/flags',
    errno: 'EINVAL',
    when: 'a flag is unknown, or GUEST_MEMFD comes with LOG_DIRTY_PAGES or READONLY',
    source: 'virt/kvm/kvm_main.c: check_memory_region_flags()',
    violated: (args) =>
      (args.flags &
        ~(isGmem(args) ? KVM_MEM.GUEST_MEMFD : KVM_MEM.LOG_DIRTY_PAGES | KVM_MEM.READONLY | KVM_MEM.GUEST_MEMFD)) !==
      0n,
    violate: (args, _state, random) => ({ ...args, api: 'v2', flags: pick(random, [5n, 6n, 7n, 8n, 1n << 31n]) }),
  },
  {
    id: 'slot.set/size-unaligned',
    errno: 'EINVAL',
    when: 'the size is not a multiple of the page size',
    violated: ({ size }) => !isPageAligned(size),
    violate: (args, _state, random) => ({ ...args, size: args.size ^ pick(random, [1n, 0x800n]) }),
  },
  {
    id: 'slot.set/gpa-unaligned',
    errno: 'EINVAL',
    when: 'the guest address is not page aligned',
    violated: ({ gpa }) => !isPageAligned(gpa),
    violate: (args, _state, random) => ({ ...args, gpa: args.gpa | pick(random, [1n, 0x800n]) }),
  },
  {
    id: 'slot.set/host-address',
    errno: 'EINVAL',
    when: 'the host address is not page aligned, or address plus size is not an address of user space',
    source: 'virt/kvm/kvm_main.c: kvm_set_memory_region(), access_ok()',
    violated: (args, state) => !isPageAligned(args.hva.offset) || leavesUserSpace(args, state),
    violate: (args, state, random) => ({
      ...args,
      hva: pick(random, [
        { base: args.hva.base, offset: args.hva.offset | 8n },
        { base: '', offset: state.config.machine.userTop - args.size + PAGE_SIZE },
        { base: '', offset: U64_MAX - PAGE_SIZE + 1n },
      ]),
    }),
  },
  {
    id: 'slot.set/host-address-unknown',
    unmodelled: 'where in the address space a mapping lies is up to the kernel',
    when: 'whether the range ends in user space depends on where the mapping lies, or nothing is mapped under the label',
    violated: ({ hva, size }, state) =>
      hva.base !== '' && (!state.mappings.has(hva.base) || hva.offset + size > MAPPINGS_BELOW),
  },
  {
    id: 'slot.set/file-offset',
    errno: 'EINVAL',
    when: 'GUEST_MEMFD is set and the file offset is not page aligned, or offset plus size wraps; deletions too',
    violated: (args) => isGmem(args) && (!isPageAligned(args.offset) || wrap64(args.offset + args.size) < args.offset),
    violate: (args, _state, random) =>
      isGmem(args) ? { ...args, offset: pick(random, [args.offset | 1n, U64_MAX - PAGE_SIZE + 1n]) } : undefined,
  },
  {
    id: 'slot.set/address-space',
    errno: 'EINVAL',
    when: 'the upper 16 bits of the slot name an address space that the VM does not have',
    violated: (args, state) => slotId(args) >>> 16 >= addressSpacesOf(state, vmOf(state, args.vm)),
    violate: (args, state) => ({
      ...args,
      slot: (args.slot & U16_MAX) | (BigInt(addressSpacesOf(state, vmOf(state, args.vm))) << 16n),
    }),
  },
  {
    id: 'slot.set/gpa-wraps',
    errno: 'EINVAL',
    when: 'guest address plus size wraps',
    violated: ({ gpa, size }) => wrap64(gpa + size) < gpa,
    violate: (args) => (isDelete(args) ? undefined : { ...args, gpa: U64_MAX - PAGE_SIZE + 1n }),
  },
  {
    id: 'slot.set/too-many-pages',
    errno: 'EINVAL',
    when: 'the slot would have more than KVM_MEM_MAX_NR_PAGES pages',
    violated: ({ size }) => size >> PAGE_SHIFT > KVM_MEM_MAX_NR_PAGES,
    violate: (args) => ({
      ...args,
      gpa: 0n,
      hva: { base: ARENA, offset: 0n },
      offset: 0n,
      size: (KVM_MEM_MAX_NR_PAGES + 1n) << PAGE_SHIFT,
    }),
  },
];

/** Rows that compare with the slots that are there. */
const slotRows: readonly Row[] = [
  {
    id: 'slot.set/delete-nothing',
    errno: 'EINVAL',
    when: 'the size is zero and there is no such slot',
    violated: (args, state) => isDelete(args) && oldSlot(args, state) === undefined,
    violate: (args, state) => ({ ...args, size: 0n, slot: freeSlotId(vmOf(state, args.vm)) }),
  },
  {
    id: 'slot.set/gmem-immutable',
    errno: 'EINVAL',
    when: 'the slot exists and the new flags have GUEST_MEMFD, even if nothing differs',
    violated: (args, state) => !isDelete(args) && isGmem(args) && oldSlot(args, state) !== undefined,
    violate: (args, state, random) => {
      const slots = [...vmOf(state, args.vm).slots.values()];
      const slot = pickOr(random, random.below(2) === 0 ? slots : slots.filter(({ gmem }) => gmem !== undefined));
      return slot === undefined
        ? undefined
        : { ...args, ...sameRegion(slot), flags: KVM_MEM.GUEST_MEMFD, api: 'v2', slot: BigInt(slot.id) };
    },
  },
  {
    id: 'slot.set/changed',
    errno: 'EINVAL',
    when: 'the slot exists and its host address, size, READONLY or GUEST_MEMFD would change',
    violated: (args, state) => {
      const old = oldSlot(args, state);
      return (
        !isDelete(args) &&
        old !== undefined &&
        (!sameAddress(args.hva, old.hva) ||
          pagesOf(args) !== old.pages ||
          ((args.flags ^ old.flags) & (KVM_MEM.READONLY | KVM_MEM.GUEST_MEMFD)) !== 0n)
      );
    },
    violate: (args, state, random) => {
      const slot = pickOr(random, [...vmOf(state, args.vm).slots.values()]);
      if (slot === undefined) return undefined;
      const same = { ...args, ...sameRegion(slot), slot: BigInt(slot.id), flags: slot.flags & ~KVM_MEM.GUEST_MEMFD };
      return pick<SlotSet>(random, [
        { ...same, flags: same.flags ^ KVM_MEM.READONLY },
        { ...same, flags: same.flags ^ KVM_MEM.READONLY, gpa: args.gpa },
        { ...same, size: same.size + PAGE_SIZE },
        { ...same, hva: { base: same.hva.base, offset: same.hva.offset + PAGE_SIZE } },
        same,
      ]);
    },
  },
  {
    id: 'slot.set/gpa-overlap',
    errno: 'EEXIST',
    when: 'a created or moved slot would share a guest frame with another slot of the address space',
    source: 'virt/kvm/kvm_main.c: kvm_check_memslot_overlap()',
    violated: (args, state) =>
      (isCreate(args, state) || isMove(args, state)) &&
      overlapsSlot(vmOf(state, args.vm), slotId(args), gfnOf(args), pagesOf(args)) !== undefined,
    violate: (args, state, random) => {
      const vm = vmOf(state, args.vm);
      const other = pickOr(
        random,
        [...vm.slots.values()].filter((slot) => slot.id !== slotId(args) && slot.id >>> 16 === slotId(args) >>> 16),
      );
      if (other === undefined) return undefined;
      const edge = pick(random, [other.baseGfn, other.baseGfn + other.pages - 1, other.baseGfn - pagesOf(args) + 1]);
      return { ...args, gpa: bytes(Math.max(edge, 0)) };
    },
  },
];

const gmemFile = (args: SlotSet, state: State): Label | undefined => openAs(state, args.gmem, 'gmem');
const wantsBinding = (args: SlotSet, state: State): boolean => isGmem(args) && isCreate(args, state);

const firstPageOf = (args: SlotSet): number => toPages(args.offset);

function bindsTwice(args: SlotSet, state: State): boolean {
  const file = wantsBinding(args, state) ? gmemFile(args, state) : undefined;
  if (file === undefined) return false;
  const start = firstPageOf(args);
  return bindingsOf(state, file).some((bound) => bound.start < start + pagesOf(args) && start < bound.end);
}

/** The row moved and changed its error over time; its meaning did not. */
const bindsTwiceRow = {
  id: 'slot.set/file-range-bound',
  when: 'part of the file range is bound to a slot through this file already',
  violated: bindsTwice,
  violate: (args: SlotSet, state: State, random: Random): SlotSet | undefined => {
    if (!isGmem(args)) return undefined;
    const bound = pickOr(
      random,
      [...state.fds].flatMap(([label, open]) =>
        open.kind === 'gmem' && known(state.files, open.id).vm === openAs(state, args.vm, 'vm')
          ? bindingsOf(state, open.id).map((binding) => ({ label, binding }))
          : [],
      ),
    );
    if (bound === undefined) return undefined;
    const { start, end } = bound.binding;
    const first = pick(random, [start, end - 1]);
    return { ...args, gmem: bound.label, offset: bytes(first), size: bytes(pick(random, [1, end - first])) };
  },
} as const;

/** Release 7.3.4 split the function in two. */
const BIND = 'virt/kvm/guest_memfd.c: kvm_gmem_prepare_memory_region(), before 7.3.4 kvm_gmem_bind()';

const bindRows: readonly Row[] = [
  {
    id: 'slot.set/no-such-file',
    errno: 'EBADF',
    when: 'a slot is created with GUEST_MEMFD and the descriptor names no open file',
    source: BIND,
    violated: (args, state) => wantsBinding(args, state) && !state.fds.has(args.gmem),
    violate: (args) => (isGmem(args) ? { ...args, gmem: NO_FD } : undefined),
  },
  {
    id: 'slot.set/not-a-gmem-file',
    errno: 'EINVAL',
    when: 'the descriptor names a file that is not guest memory',
    source: BIND,
    violated: (args, state) => wantsBinding(args, state) && gmemFile(args, state) === undefined,
    violate: (args, _state, random) =>
      isGmem(args) ? { ...args, gmem: pick(random, [OTHER, 'kvm', args.vm]) } : undefined,
  },
  {
    id: 'slot.set/file-of-another-vm',
    errno: 'EINVAL',
    when: 'the file was created for another VM',
    source: BIND,
    violated: (args, state) => {
      const file = wantsBinding(args, state) ? gmemFile(args, state) : undefined;
      return file !== undefined && known(state.files, file).vm !== openAs(state, args.vm, 'vm');
    },
    violate: (args, state) => {
      if (!isGmem(args)) return undefined;
      for (const [label, open] of state.fds)
        if (open.kind === 'gmem' && known(state.files, open.id).vm !== openAs(state, args.vm, 'vm'))
          return { ...args, gmem: label };
      return undefined;
    },
  },
  {
    id: 'slot.set/beyond-file',
    errno: 'EINVAL',
    when: 'offset plus size is beyond the size of the file',
    source: BIND,
    violated: (args, state) => {
      const file = wantsBinding(args, state) ? gmemFile(args, state) : undefined;
      if (file === undefined) return false;
      return args.offset + args.size > bytes(known(state.inodes, known(state.files, file).inode).pages);
    },
    violate: (args, state, random) => {
      const file = isGmem(args) ? gmemFile(args, state) : undefined;
      if (file === undefined) return undefined;
      const end = bytes(known(state.inodes, known(state.files, file).inode).pages);
      // The second one is negative with the size added, for whoever counts with signs; a small one, because a kernel
      // that does goes on to allocate for the slot.
      return pick(random, [
        { ...args, offset: end },
        { ...args, offset: (1n << 63n) - PAGE_SIZE, size: PAGE_SIZE },
      ]);
    },
  },
  { ...bindsTwiceRow, errno: 'EINVAL', only: { before: '7.2' }, source: 'virt/kvm/guest_memfd.c: kvm_gmem_bind()' },
  {
    ...bindsTwiceRow,
    errno: 'EEXIST',
    only: { since: '7.2', before: '7.3.4' },
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_bind()',
  },
  {
    id: 'slot.set/more-than-memory',
    unmodelled: UP_TO_THE_MACHINE,
    when: 'a created or moved slot, with what is held already, needs more than half of the machine’s memory for its metadata',
    source: 'virt/kvm/kvm_main.c: kvm_prepare_memory_region(); arch/x86/kvm/x86.c: kvm_alloc_memslot_metadata()',
    violated: (args, state) =>
      (isCreate(args, state) || isMove(args, state)) && !hasRoomFor(state, bytesOfSlot(pagesOf(args))),
    unreachable: ({ memoryBytes }) =>
      hasRoomForSlots(memoryBytes, Number(KVM_MEM_MAX_NR_PAGES))
        ? 'the machine has memory for more slots than a program makes'
        : undefined,
  },
  {
    id: 'slot.set/beyond-guest-physical',
    errno: 'EINVAL',
    when: 'a created or moved slot ends past the last guest frame that the machine can map',
    source: 'arch/x86/kvm/x86.c: kvm_arch_prepare_memory_region(), kvm_mmu_max_gfn()',
    violated: (args, state) =>
      (isCreate(args, state) || isMove(args, state)) &&
      gfnOf(args) + pagesOf(args) > 2 ** (state.config.machine.guestPhysicalBits - 12),
    violate: (args, state) =>
      isDelete(args) ? undefined : { ...args, gpa: 1n << BigInt(state.config.machine.guestPhysicalBits) },
    leaves: (args, state) => (isMove(args, state) ? slotsChanged(state, vmLabel(args, state)) : state),
  },
  {
    ...bindsTwiceRow,
    errno: 'EEXIST',
    only: { since: '7.3.4' },
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_commit_memory_region()',
  },
];

const sameRegion = (slot: Slot): Pick<SlotSet, 'gpa' | 'size' | 'hva'> => ({
  gpa: bytes(slot.baseGfn),
  size: bytes(slot.pages),
  hva: slot.hva,
});

function freeSlotId(vm: Vm): bigint {
  let id = 0;
  while (vm.slots.has(id)) id++;
  return BigInt(id);
}

function install(args: SlotSet, state: State): Accepted {
  const vm = vmOf(state, args.vm);
  const old = oldSlot(args, state);
  const file = wantsBinding(args, state) ? gmemFile(args, state) : undefined;
  const inode = file === undefined ? undefined : known(state.inodes, known(state.files, file).inode);
  const slot: Slot = {
    id: slotId(args),
    baseGfn: gfnOf(args),
    pages: pagesOf(args),
    flags: args.flags,
    hva: args.hva,
    // Source: kvm_gmem_prepare_memory_region(): a file with MMAP makes the slot KVM_MEMSLOT_GMEM_ONLY.
    ...(inode && { gmem: { file, firstPage: firstPageOf(args), only: (inode.flags & 1n) !== 0n } }),
  };
  const moved = old !== undefined && old.baseGfn !== slot.baseGfn;
  const stageTwo = moved ? erase(vm.stageTwo, old.baseGfn, old.baseGfn + old.pages) : vm.stageTwo;
  const label = vmLabel(args, state);
  return { state: slotsChanged(withVm(state, label, { slots: withEntry(vm.slots, slot.id, slot), stageTwo }), label) };
}

function uninstall(args: SlotSet, state: State): Accepted {
  const vm = vmOf(state, args.vm);
  const id = slotId(args);
  const old = vm.slots.get(id);
  if (old === undefined) return { state };
  const label = vmLabel(args, state);
  const slots = withoutEntry(vm.slots, id);
  const stageTwo = erase(vm.stageTwo, old.baseGfn, old.baseGfn + old.pages);
  return { state: forgetSlot(slotsChanged(withVm(state, label, { slots, stageTwo }), label), label, old) };
}

/** A part of a file of this VM that no slot uses, or undefined. */
function freeFileRange(
  state: State,
  vmFd: Label,
  random: Random,
): { readonly gmem: Label; readonly start: number; readonly end: number } | undefined {
  const gmem = pickOr(
    random,
    [...state.fds]
      .filter(([, open]) => open.kind === 'gmem' && known(state.files, open.id).vm === openAs(state, vmFd, 'vm'))
      .map(([label]) => label),
  );
  if (gmem === undefined) return undefined;
  const file = known(state.fds, gmem).id;
  const { pages } = known(state.inodes, known(state.files, file).inode);
  const bound = [...bindingsOf(state, file)].sort((a, b) => a.start - b.start);
  const gaps = [...bound, { start: pages, end: pages }].flatMap((next, index) => {
    const start = index === 0 ? 0 : (bound[index - 1]?.end ?? 0);
    return next.start > start ? [{ gmem, start, end: next.start }] : [];
  });
  return pickOr(random, gaps);
}

function drawRegion(random: Random, state: State, vmFd: Label): SlotSet {
  const slot = freeSlotId(vmOf(state, vmFd));
  const backing = random.below(6) > 0 ? freeFileRange(state, vmFd, random) : undefined;
  const hvaPage = random.below(4);
  const hva = chooseHostAddress(random, state, hvaPage);
  const gpa = bytes(chooseSlotGfn(random, vmOf(state, vmFd)));
  if (backing === undefined) {
    const api = pick(random, ['v1', 'v2'] as const);
    const flags = pick(random, [0n, 0n, KVM_MEM.LOG_DIRTY_PAGES, KVM_MEM.READONLY]);
    return { vm: vmFd, api, slot, flags, gpa, size: bytes(choosePages(random)), hva, gmem: NO_FD, offset: 0n };
  }
  const first = backing.start + (random.below(2) === 0 ? random.below(Math.min(backing.end - backing.start, 4)) : 0);
  const rest = Math.min(backing.end - first, 0x7fff_ffff);
  // A slot of a file that no program fills is for what happens at the end of memory.
  const whole = rest > 2 ** 30 || random.below(3) === 0;
  const pages = whole ? rest : 1 + random.below(Math.min(rest, 8));
  return {
    vm: vmFd,
    api: 'v2',
    slot,
    flags: KVM_MEM.GUEST_MEMFD,
    // Lower in the guest than in the file often enough: what frame a page before the slot has is then below zero.
    gpa: first > 0 && random.below(2) === 0 ? 0n : gpa,
    size: bytes(pages),
    hva,
    gmem: backing.gmem,
    offset: bytes(first),
  };
}

/** Most of the time a VM that has guest memory to show. */
function chooseVmWithFile(random: Random, state: State): Label | undefined {
  const file = random.below(4) === 0 ? undefined : pickOr(random, [...state.files.values()]);
  return file && [...state.fds].find(([, open]) => open.kind === 'vm' && open.id === file.vm)?.[0];
}

/** Where the guest has private memory often enough; right behind another slot now and then, so that ranges run into the next. */
function chooseSlotGfn(random: Random, vm: Vm): number {
  const range = random.below(2) === 0 ? pickOr(random, vm.private) : undefined;
  if (range !== undefined) return range.start;
  const neighbour = random.below(3) === 0 ? pickOr(random, [...vm.slots.values()]) : undefined;
  return neighbour === undefined ? chooseGfn(random) : neighbour.baseGfn + neighbour.pages;
}

function chooseHostAddress(random: Random, state: State, page: number): Address {
  const arena: Address = { base: ARENA, offset: bytes(page) };
  switch (random.below(12)) {
    case 0:
      return { base: '', offset: bytes(page) };
    case 1:
    case 2:
    case 3:
    case 4: {
      // Guest memory that is mapped in the host may back an ordinary slot, too.
      const base = pickOr(
        random,
        [...state.mappings.keys()].filter((label) => label !== ARENA),
      );
      return base === undefined ? arena : { base, offset: bytes(random.below(3)) };
    }
    default:
      return state.mappings.has(ARENA) ? arena : { base: '', offset: bytes(page) };
  }
}

/** A change of a slot that is there: delete it, move it, toggle dirty logging, or set it again as it is. */
function drawChange(random: Random, vmFd: Label, slot: Slot): SlotSet {
  const again: SlotSet = {
    vm: vmFd,
    api: 'v2',
    slot: BigInt(slot.id),
    flags: slot.flags,
    ...sameRegion(slot),
    gmem: NO_FD,
    offset: 0n,
  };
  switch (random.below(slot.gmem === undefined ? 4 : 1)) {
    case 0:
      return { ...again, flags: 0n, size: 0n };
    case 1:
      return { ...again, gpa: bytes(chooseGfn(random)) };
    case 2:
      return { ...again, flags: slot.flags ^ KVM_MEM.LOG_DIRTY_PAGES };
    default:
      return again;
  }
}

/** Often one with the address of a cache, which should hear of what becomes of it. */
function chooseSlot(random: Random, state: State, vmFd: Label): Slot | undefined {
  const vm = vmOf(state, vmFd);
  const cached = [...state.caches.values()].flatMap((cache) =>
    cache.vm === openAs(state, vmFd, 'vm') && cache.gpa !== undefined ? (slotAt(vm, toPages(cache.gpa)) ?? []) : [],
  );
  const found = cached.length > 0 && random.below(2) === 0 ? cached : [...vm.slots.values()];
  return pickOr(random, found);
}

export const slotSet = defineTransition({
  name: 'slot.set',
  summary: 'Creates, deletes, moves or changes a memory slot, and binds it to guest memory.',
  does: 'by `api`: v2 is `ioctl(vm, KVM_SET_USER_MEMORY_REGION2, { slot, flags, guest_phys_addr = gpa, memory_size = size, userspace_addr = hva, guest_memfd = gmem, guest_memfd_offset = offset })`; v1 is KVM_SET_USER_MEMORY_REGION, which has neither of the last two',
  source: 'virt/kvm/kvm_main.c: kvm_set_memory_region()',
  args: domains,
  mayAlso: ['ENOMEM'],
  // A slot that cannot be moved may have been out of the table and back.
  leavesOnError: (args, state) =>
    openAs(state, args.vm, 'vm') !== undefined && isMove(args, state)
      ? slotsPerhapsChanged(state, vmLabel(args, state))
      : state,
  builds: true,
  essential: true,
  weight: 14,
  guards: [{ descriptor: 'vm', kind: 'vm', ioctl: true }, ...argumentRows, ...slotRows, ...bindRows],
  accepts: [
    {
      id: 'slot.set/delete',
      when: 'the size is zero; the descriptor is not looked at, and the pages stay with the file',
      source: 'virt/kvm/kvm_main.c: kvm_invalidate_memslot(), kvm_delete_memslot(), kvm_free_memslot()',
      applies: isDelete,
      accept: uninstall,
    },
    {
      id: 'slot.set/create-gmem',
      when: 'there is no such slot and GUEST_MEMFD is set: the slot is bound to the file range',
      applies: wantsBinding,
      accept: install,
    },
    {
      id: 'slot.set/create',
      when: 'there is no such slot: it shows host memory',
      applies: isCreate,
      accept: install,
    },
    {
      id: 'slot.set/move',
      when: 'only the guest address differs',
      applies: isMove,
      accept: install,
    },
    {
      id: 'slot.set/flags-only',
      when: 'only LOG_DIRTY_PAGES differs',
      applies: (args, state) => oldSlot(args, state)?.flags !== args.flags,
      accept: install,
    },
    {
      id: 'slot.set/identical',
      when: 'nothing differs',
      accept: (_args, state) => ({ state }),
    },
  ],
  draw: ({ random, state }) => {
    const vmFd = chooseVmWithFile(random, state) ?? chooseFd(random, state, 'vm');
    if (vmFd === undefined) return undefined;
    if (vmOf(state, vmFd).slots.size > 3 && random.below(2) === 0) return undefined;
    const old = random.below(3) === 0 ? chooseSlot(random, state, vmFd) : undefined;
    return old === undefined ? drawRegion(random, state, vmFd) : drawChange(random, vmFd, old);
  },
});
