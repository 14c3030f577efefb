import { isPageAligned, PAGE_SIZE, U64_MAX, wrap64 } from '../core/abi.ts';
import { fd, u64 } from '../core/domain.ts';
import { fails, type Errno } from '../core/outcome.ts';
import { pick, pickOr } from '../core/random.ts';
import { rememberLast } from '../core/memo.ts';
import { known, type State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseFd, choosePage } from './choose.ts';
import {
  extentOf,
  findObstacle,
  gfnAt,
  guestTop,
  isFound,
  limitsOf,
  mapGfns,
  rememberMmio,
  resolveGfn,
  vmOfVcpu,
  type Obstacle,
} from './guest-fault.ts';
import { leftStuck, stuckPage } from './direct-map-fault.ts';
import { bytesOfPages, hasRoomFor, UP_TO_THE_MACHINE } from './memory-budget.ts';

const domains = { vcpu: fd('vcpu'), gpa: u64(), size: u64(), flags: u64() } as const;
type PreFault = ArgsOf<typeof domains>;

/** Goes to a frame that meets the obstacle. */
const aimAt =
  (name: Obstacle) =>
  (args: PreFault, state: State): PreFault | undefined => {
    const gfn = findObstacle(state, vmOfVcpu(state, args.vcpu), name);
    return gfn === undefined ? undefined : { ...args, gpa: bytes(gfn) };
  };

const FAULTIN = 'arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn()';

/** The first page meets the obstacle: nothing was mapped, and its error is the answer. */
const obstacle = (name: Obstacle, errno: Errno, when: string, source: string): Guard<PreFault> => ({
  id: `vcpu.prefault/${name}`,
  group: 'fault',
  ...limitsOf(name),
  errno,
  when,
  source,
  violated: ({ vcpu, gpa }, state) => resolveGfn(state, vmOfVcpu(state, vcpu), gfnAt(gpa)) === name,
  violate: aimAt(name),
});

const silent = (name: Obstacle, unmodelled: string, when: string): Guard<PreFault> => ({
  id: `vcpu.prefault/${name}`,
  group: 'fault',
  ...limitsOf(name),
  unmodelled,
  when,
  source: FAULTIN,
  violated: ({ vcpu, gpa }, state) => resolveGfn(state, vmOfVcpu(state, vcpu), gfnAt(gpa)) === name,
  violate: aimAt(name),
});

/** Maps pages until the range ends or a page cannot be mapped; the value is the number of bytes mapped. */
const preFault = rememberLast(({ vcpu, gpa, size }: PreFault, state: State): Accepted => {
  const vm = vmOfVcpu(state, vcpu);
  const start = gfnAt(gpa);
  const end = gfnAt(gpa + size);
  let gfn = start;
  let after = state;
  while (gfn < end) {
    const found = resolveGfn(after, vm, gfn);
    if (found === 'no-slot') after = rememberMmio(after, vm, gfn);
    if (!isFound(found)) break;
    const next = extentOf(after, vm, found, gfn, end);
    const stuck = stuckPage(after, found.inode, found.page, found.page + next - gfn);
    const past = stuck === undefined ? next : gfn + stuck - found.page;
    if (past > gfn) after = mapGfns(after, vm, found, gfn, past);
    gfn = past;
    if (stuck === undefined) continue;
    after = leftStuck(after, found.inode, stuck);
    break;
  }
  return { state: after, value: bytes(gfn - start) };
});

const reachesEnd = (args: PreFault, state: State): boolean => preFault(args, state).value === args.size;

/** Memory that the bare address of a slot shows is unknown, so progress through it cannot be predicted. */
function runsIntoUnknown(args: PreFault, state: State): boolean {
  const mapped = preFault(args, state).value ?? 0n;
  if (mapped === args.size) return false;
  const stopped = resolveGfn(state, vmOfVcpu(state, args.vcpu), gfnAt(args.gpa + mapped));
  return stopped === 'host-address-unknown' || stopped === 'host-page-poisoned';
}

export const vcpuPrefault = defineTransition({
  name: 'vcpu.prefault',
  summary: 'Maps guest memory into stage 2 before the guest touches it.',
  does: '`ioctl(vcpu, KVM_PRE_FAULT_MEMORY, { gpa, size, flags })`',
  tells: 'the number of bytes that were mapped: `size`, less what the ioctl leaves in it',
  source: 'virt/kvm/kvm_main.c: kvm_vcpu_pre_fault_memory()',
  args: domains,
  mayAlso: ['EINTR', 'ENOMEM'],
  // kvm_mmu_faultin_pfn(): what the fault has found may change before it is mapped, and a slot may be on its way out.
  transient: (_args, { kind, ...observed }) =>
    kind === 'signal' || ('errno' in observed && ['EAGAIN', 'EFAULT', 'EHWPOISON'].includes(observed.errno)),
  shortened: (args, value) => (value > 0n && value < args.size ? { ...args, size: value } : undefined),
  weight: 6,
  guards: [
    { descriptor: 'vcpu', kind: 'vcpu', ioctl: true },
    {
      id: 'vcpu.prefault/flags',
      errno: 'EINVAL',
      when: 'a flag is set',
      violated: ({ flags }) => flags !== 0n,
      violate: (args) => ({ ...args, flags: 1n }),
    },
    {
      id: 'vcpu.prefault/unaligned',
      errno: 'EINVAL',
      when: 'guest address or size is not a multiple of the page size',
      violated: ({ gpa, size }) => !isPageAligned(gpa) || !isPageAligned(size),
      violate: (args, _state, random) =>
        pick(random, [
          { ...args, gpa: args.gpa | 8n },
          { ...args, size: args.size | 1n },
        ]),
    },
    {
      id: 'vcpu.prefault/empty-or-wraps',
      errno: 'EINVAL',
      when: 'the size is zero, or guest address plus size wraps',
      violated: ({ gpa, size }) => wrap64(gpa + size) <= gpa,
      violate: (args, _state, random) =>
        pick(random, [
          { ...args, size: 0n },
          { ...args, gpa: U64_MAX - PAGE_SIZE + 1n },
        ]),
    },
    {
      id: 'vcpu.prefault/shadow-paging',
      errno: 'EOPNOTSUPP',
      when: 'the machine has no two-dimensional paging; a VM that never had a slot would say ENOSPC, for want of page tables',
      source: 'arch/x86/kvm/mmu/mmu.c: kvm_tdp_page_prefault(), make_mmu_pages_available()',
      violated: (_args, state) => !state.config.machine.twoDimensionalPaging,
      unreachable: (machine) => (machine.twoDimensionalPaging ? 'the machine has two-dimensional paging' : undefined),
      stopsAll: (machine) => (machine.twoDimensionalPaging ? undefined : 'the machine has no two-dimensional paging'),
    },
    {
      id: 'vcpu.prefault/beyond-guest-physical',
      unmodelled: 'what lies past the width of guest physical addresses is up to the machine',
      when: 'the range ends past the machine’s guest addresses',
      violated: ({ gpa, size }, state) => gpa + size > guestTop(state),
      violate: (args, state) => ({ ...args, gpa: guestTop(state) - PAGE_SIZE, size: 2n * PAGE_SIZE }),
    },
    obstacle('private-without-slot', 'EFAULT', 'the first frame is private and no slot shows it', FAULTIN),
    {
      ...obstacle(
        'no-slot',
        'ENOENT',
        'the first frame is shared and no slot shows it',
        'arch/x86/kvm/mmu/mmu.c: kvm_tdp_page_prefault(), kvm_handle_noslot_fault()',
      ),
      leaves: ({ vcpu, gpa }, state) => rememberMmio(state, vmOfVcpu(state, vcpu), gfnAt(gpa)),
    },
    obstacle(
      'private-without-gmem',
      'EFAULT',
      'the first frame is private and its slot was made without GUEST_MEMFD',
      FAULTIN,
    ),
    obstacle('file-gone', 'EFAULT', 'the file that backed the slot of the first frame is gone', FAULTIN),
    obstacle(
      'poisoned',
      'EHWPOISON',
      'the page of the first frame has had a memory failure',
      'virt/kvm/guest_memfd.c: __kvm_gmem_get_pfn()',
    ),
    silent(
      'host-address-unknown',
      'what lies at a bare host address is the host process’s affair',
      'the first frame shows a host address that is not in a known mapping',
    ),
    obstacle(
      'host-page-missing',
      'EFAULT',
      'the first frame shows host memory that the host could not touch either',
      'arch/x86/kvm/mmu/mmu.c: kvm_handle_error_pfn()',
    ),
    obstacle(
      'host-page-secret',
      'EFAULT',
      'the first frame shows host memory that is secret, which GUP refuses',
      'virt/kvm/kvm_main.c: hva_to_pfn(); mm/gup.c: check_vma_flags()',
    ),
    obstacle(
      'host-page-hidden',
      'EFAULT',
      'the first frame shows host memory that is out of the direct map, which GUP does not give away',
      'v12 "Direct Map Removal Support for guest_memfd", patch 2: mm/gup.c: check_vma_flags()',
    ),
    silent(
      'host-page-poisoned',
      'a memory failure behind a host address is the machine-check system’s affair',
      'the first frame shows host memory that has had a memory failure',
    ),
    {
      id: 'vcpu.prefault/more-than-memory',
      unmodelled: UP_TO_THE_MACHINE,
      when: 'the pages that it would map, with what is held already, need more than half of the machine’s memory',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_get_folio()',
      violated: (args, state) => !hasRoomFor(preFault(args, state).state, 0),
      violate: (args, state) => {
        const { slots } = known(state.vms, vmOfVcpu(state, args.vcpu));
        const slot = [...slots.values()].find(
          ({ pages, gmem }) => gmem?.only === true && !hasRoomFor(state, bytesOfPages(pages)),
        );
        return slot && { ...args, gpa: bytes(slot.baseGfn), size: bytes(slot.pages) };
      },
    },
    {
      id: 'vcpu.prefault/runs-into-unknown',
      unmodelled: 'how far it gets depends on memory that is not part of this specification',
      when: 'a later frame shows such memory',
      violated: runsIntoUnknown,
      violate: (args, state) => {
        const gfn = findObstacle(state, vmOfVcpu(state, args.vcpu), 'host-address-unknown');
        return gfn === undefined || gfn === 0 ? undefined : { ...args, gpa: bytes(gfn - 1), size: bytes(2) };
      },
    },
    {
      id: 'vcpu.prefault/stays-in-direct-map',
      only: { feature: 'direct-map' },
      requires: 'fault-injection',
      result: 'ENOMEM',
      outcome: () => fails('ENOMEM'),
      leaves: (args, state) => preFault(args, state).state,
      when: 'the page of the first frame cannot leave the direct map: nothing is mapped, and the next use tries again',
      source:
        'RFC v2 "Unmapping guest_memfd from Direct Map", patch 1: kvm_gmem_get_folio(); v12 "Direct Map Removal Support for guest_memfd": kvm_gmem_get_pfn()',
      violated: (args, state) => preFault(args, state).value === 0n,
    },
  ],
  accepts: [
    {
      id: 'vcpu.prefault/all',
      when: 'every page can be mapped',
      applies: reachesEnd,
      accept: preFault,
    },
    {
      id: 'vcpu.prefault/part',
      when: 'the first page can be mapped, a later one cannot: it succeeds, and tells how much is left',
      accept: preFault,
    },
  ],
  draw: ({ random, state }) => {
    const vcpu = chooseFd(random, state, 'vcpu');
    if (vcpu === undefined) return undefined;
    const slot = pickOr(random, [...known(state.vms, vmOfVcpu(state, vcpu)).slots.values()]);
    if (slot === undefined || slot.id > 0xffff) return undefined;
    // A VMM pre-faults what it is about to give to the guest, often a whole slot.
    const whole = random.below(6) === 0;
    const first = whole ? 0 : choosePage(random, slot.pages);
    const pages = whole ? slot.pages : 1 + random.below(6);
    return { vcpu, gpa: bytes(slot.baseGfn + first), size: bytes(pages), flags: 0n };
  },
});
