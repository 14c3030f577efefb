import { PAGE_SHIFT } from '../core/abi.ts';
import { choice, fd, u64 } from '../core/domain.ts';
import { holdsIn } from '../core/profile.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseFd } from '../gmem/choose.ts';
import { mayFailWithin } from '../gmem/direct-map-fault.ts';
import { guestTop, vmOfVcpu } from '../gmem/guest-fault.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import { chooseTable, walk } from './guest-tables.ts';

const domains = { vcpu: fd('vcpu'), cr3: u64(), gva: u64(), access: choice('read', 'write') } as const;

type GuestWalk = ArgsOf<typeof domains>;

const silent = (end: 'large-page' | 'unknown-memory', unmodelled: string, when: string): Guard<GuestWalk> => ({
  id: `guest.walk/${end}`,
  group: 'walk',
  unmodelled,
  when,
  violated: (args, state) => walk(args, state).end === end,
});

const endsIn =
  (end: ReturnType<typeof walk>['end']) =>
  (args: GuestWalk, state: State): boolean =>
    walk(args, state).end === end;

function walked(args: GuestWalk, before: State): Accepted {
  const { state, gpa } = walk(args, before);
  return { state, value: gpa };
}

/** Mostly in the first entries of every table. */
const INDICES = [0n, 0n, 0n, 0n, 0n, 1n, 511n] as const;

export const guestWalk = defineTransition({
  name: 'guest.walk',
  readsSecrets: true,
  summary: 'KVM walks the page tables of a guest, as it does to emulate an instruction and for KVM_TRANSLATE.',
  does: '`walk_addr_generic()` of four levels from `cr3` for the address `gva`, by a supervisor with CR0.WP set: KVM_TRANSLATE where `access` is read',
  tells: 'the guest physical address, or 2^64 − 1 where there is no translation',
  source: 'arch/x86/kvm/mmu/paging_tmpl.h: walk_addr_generic()',
  args: domains,
  mayAlso: [],
  weight: 8,
  guards: [
    { descriptor: 'vcpu', kind: 'vcpu', ioctl: true },
    mayFailWithin<GuestWalk>('guest.walk'),
    {
      id: 'guest.walk/write-by-instruction',
      unmodelled: 'KVM_TRANSLATE only reads',
      when: '`access` is write, which takes an instruction of the guest',
      source: 'arch/x86/kvm/x86.c: kvm_arch_vcpu_ioctl_translate()',
      only: { without: 'direct-map' },
      violated: ({ access }) => access === 'write',
      violate: (args) => ({ ...args, access: 'write' }),
    },
    {
      id: 'guest.walk/very-high',
      unmodelled: 'what a guest sees past the width of its physical addresses is up to the machine',
      when: '`cr3` is wider than the machine’s guest addresses',
      violated: ({ cr3 }, state) => cr3 >= guestTop(state),
      violate: (args, state) => ({ ...args, cr3: guestTop(state) }),
    },
    silent(
      'large-page',
      'pages of a guest that are larger than 4096 bytes are not specified',
      'an entry has bit 7 set above the last level',
    ),
    silent(
      'unknown-memory',
      'what KVM reads where it does not see what the guest sees is not specified',
      'KVM would read a table where the specification does not say what it sees',
    ),
  ],
  accepts: [
    {
      id: 'guest.walk/no-table',
      when: 'KVM cannot reach a table: there is no translation',
      applies: endsIn('no-table'),
      accept: walked,
    },
    {
      id: 'guest.walk/table-kept',
      when: 'a table is out of the direct map, and a cache or an earlier level of the walk has put it back: it cannot be read a second time, so there is no translation',
      source: 'RFC "Unmapping guest_memfd from Direct Map", patches 4 and 6: walk_addr_generic(), gpc_map_gmem()',
      only: { feature: 'direct-map-one-cache' },
      unreachable: withoutPrivateMemory,
      applies: endsIn('table-kept'),
      accept: walked,
    },
    {
      id: 'guest.walk/not-present',
      when: 'an entry is not present: there is no translation',
      applies: endsIn('not-present'),
      accept: walked,
    },
    {
      id: 'guest.walk/reserved',
      when: 'an entry names an address that is wider than the machine’s: there is no translation',
      source: 'arch/x86/kvm/mmu/paging_tmpl.h: is_rsvd_bits_set()',
      unreachable: ({ vcpuPhysicalBits }) => (vcpuPhysicalBits === 52 ? 'no entry names more than 52 bits' : undefined),
      applies: endsIn('reserved'),
      accept: walked,
    },
    {
      id: 'guest.walk/not-writable',
      when: 'the access writes, and an entry is not writable: there is no translation',
      only: { feature: 'direct-map' },
      applies: endsIn('not-writable'),
      accept: walked,
    },
    {
      id: 'guest.walk/translated',
      when: 'every entry allows it: the entries get the accessed bit, the last one of a write the dirty bit',
      source: 'arch/x86/kvm/mmu/paging_tmpl.h: update_accessed_dirty_bits()',
      accept: walked,
    },
  ],
  draw: ({ random, state }) => {
    const vcpu = chooseFd(random, state, 'vcpu');
    if (vcpu === undefined) return undefined;
    const indices = [1, 2, 3, 4].map(() => pick(random, INDICES));
    return {
      vcpu,
      cr3: bytes(chooseTable(random, state, vmOfVcpu(state, vcpu))),
      gva: indices.reduce<bigint>((gva, index) => (gva << 9n) | index, 0n) << PAGE_SHIFT,
      access: holdsIn(state.config.profile, { feature: 'direct-map' }) ? pick(random, ['read', 'write']) : 'read',
    };
  },
});
