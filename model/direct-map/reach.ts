/**
 * How KVM itself reaches a guest frame: through the host address of the slot; or, where a proposal lets it and the frame
 * is private, by putting the page back into the direct map.
 * Source: virt/kvm/kvm_main.c: __kvm_read_guest_page(), gfn_to_hva_memslot_prot(); RFC v2 "Unmapping guest_memfd from
 * Direct Map", patch 4: __kvm_read_guest_private_page().
 */
import { KVM_MEM } from '../core/abi.ts';
import type { Errno } from '../core/outcome.ts';
import { holdsIn, type Condition } from '../core/profile.ts';
import { pick, type Random } from '../core/random.ts';
import { has } from '../core/ranges.ts';
import { known, type Label, type Slot, type State } from '../core/state.ts';
import type { Requirement } from '../core/transition.ts';
import { isOutOfDirectMap } from '../gmem/content.ts';
import { gmemPage, hostBackedPage, isFound, landmarks, type Found } from '../gmem/guest-fault.ts';
import { slotAt } from '../gmem/slots.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';

/** Why KVM cannot reach a guest frame. */
export type Hindrance =
  | 'no-slot'
  | 'private-without-gmem'
  | 'file-gone'
  | 'poisoned'
  | 'private-by-address'
  | 'read-only'
  | 'host-page-missing'
  | 'unknown-memory';

export const reinserts = ({ config: { profile } }: State): boolean =>
  holdsIn(profile, { feature: 'direct-map-reinsertion' });

/** Released kernels go to the host address, whatever the guest sees: also of private frames, and of GMEM_ONLY slots. */
const isReleased = ({ config: { profile } }: State): boolean => holdsIn(profile, { without: 'direct-map' });

/** Whether KVM needs the page put back into the direct map to reach it so. */
export const isReinserted = (state: State, { inode, private: isPrivate }: Found): boolean =>
  isPrivate && isOutOfDirectMap(known(state.inodes, inode));

export function reach(state: State, vmLabel: Label, gfn: number, writes: boolean): Found | Hindrance {
  const vm = known(state.vms, vmLabel);
  const slot = slotAt(vm, gfn);
  if (slot === undefined) return 'no-slot';
  if (has(vm.private, gfn) && !isReleased(state))
    return reinserts(state) ? gmemPage(state, slot, gfn, true) : 'private-by-address';
  if (writes && (slot.flags & KVM_MEM.READONLY) !== 0n) return 'read-only';
  const found = hostBackedPage(state, slot, gfn);
  if (isFound(found)) return !isReleased(state) && hidesGuestMemory(state, slot, gfn, found) ? 'unknown-memory' : found;
  return found === 'host-page-missing' ? found : 'unknown-memory';
}

/** Whether the guest sees a page of the file there, and not what lies at the host address. */
function hidesGuestMemory(state: State, slot: Slot, gfn: number, { inode, page }: Found): boolean {
  if (slot.gmem?.only !== true) return false;
  const seen = gmemPage(state, slot, gfn, false);
  return !isFound(seen) || seen.inode !== inode || seen.page !== page;
}

/** A frame that KVM is hindered so from reaching, for generators that aim at it; near the edges of slots only. */
export function findHindered(state: State, vmLabel: Label, wanted: Hindrance, random: Random): number | undefined {
  const found = landmarks(state, known(state.vms, vmLabel)).filter(
    (gfn) => gfn >= 0 && reach(state, vmLabel, gfn, true) === wanted,
  );
  return found.length === 0 ? undefined : pick(random, found);
}

/** What is said of a hindrance wherever it is met. */
export interface HindranceRow {
  readonly hindrance: Hindrance;
  readonly when: string;
  readonly source: string;
  /** What the functions of KVM return; none where the specification is silent, and then why. */
  readonly errno?: Errno;
  readonly unmodelled?: string;
  readonly only?: Condition;
  readonly requires?: Requirement;
  readonly unreachable?: typeof withoutPrivateMemory;
}

const BY_REINSERTION = {
  only: { feature: 'direct-map-reinsertion' },
  unreachable: withoutPrivateMemory,
} as const;
const HVA = 'virt/kvm/kvm_main.c: gfn_to_hva_memslot_prot()';
const GET_PFN = 'RFC v2 "Unmapping guest_memfd from Direct Map", patches 2 and 4: kvm_gmem_get_pfn()';

/** At most one is met at a frame, so that their order says nothing. */
export const HINDRANCES: readonly HindranceRow[] = [
  { hindrance: 'no-slot', errno: 'EFAULT', when: 'no slot shows the frame', source: HVA },
  {
    hindrance: 'private-without-gmem',
    errno: 'EFAULT',
    when: 'the frame is private and the slot was made without GUEST_MEMFD',
    source: GET_PFN,
    ...BY_REINSERTION,
  },
  {
    hindrance: 'file-gone',
    errno: 'EFAULT',
    when: 'the frame is private and the file that backed the slot is gone',
    source: GET_PFN,
    ...BY_REINSERTION,
  },
  {
    hindrance: 'poisoned',
    errno: 'EHWPOISON',
    when: 'the frame is private and its page has had a memory failure',
    source: GET_PFN,
    requires: 'memory-failure',
    ...BY_REINSERTION,
  },
  {
    hindrance: 'private-by-address',
    unmodelled: 'KVM would take what lies at the host address for what the guest sees, and nobody has settled that',
    when: 'the frame is private, and KVM goes to the host address of its slot',
    source: HVA,
    only: { feature: 'direct-map-host-address' },
    unreachable: withoutPrivateMemory,
  },
  {
    hindrance: 'read-only',
    errno: 'EFAULT',
    when: 'the slot is READONLY',
    source: HVA,
  },
  {
    hindrance: 'host-page-missing',
    errno: 'EFAULT',
    when: 'the host could not touch the host address of the slot either',
    source: 'virt/kvm/kvm_main.c: __kvm_read_guest_page(), __kvm_write_guest_page()',
  },
  {
    hindrance: 'unknown-memory',
    unmodelled: 'what KVM sees there is up to the host process, to its machine checks, or not settled',
    when: 'at the host address of the slot there is no known mapping, a page that has had a memory failure, or, in a proposal, behind a GMEM_ONLY slot other memory than the guest sees',
    source: HVA,
  },
];

const SILENT: ReadonlySet<string> = new Set(
  HINDRANCES.filter(({ unmodelled }) => unmodelled !== undefined).map(({ hindrance }) => hindrance),
);

/** Whether the specification does not say what KVM sees there. */
export const isSilent = (hindrance: string): boolean => SILENT.has(hindrance);
