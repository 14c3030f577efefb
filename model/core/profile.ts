/**
 * Which rules hold, and on what machine. A profile fixes the rules of one kernel release or proposal; a machine says
 * what the hardware and the kernel's configuration offer. What a machine does not offer is refused, and the refusal is
 * itself a rule.
 */
import _ from 'lodash';
import type { Machine } from './machine.ts';

export { FULL_MACHINE, type Machine } from './machine.ts';

export type Feature =
  | 'gmem-link'
  /** Files of guest memory can be out of the direct map. */
  | 'direct-map'
  /** A page leaves the direct map as soon as it enters the file, and not only when it is first used. */
  | 'direct-map-on-entry'
  /** KVM puts private pages back into the direct map while it needs them. */
  | 'direct-map-reinsertion'
  /** KVM reaches every page through the host address of its slot. */
  | 'direct-map-host-address'
  /** At most one pfncache may need a page in the direct map. */
  | 'direct-map-one-cache'
  /** Private memory is TDX's: keys, integrity, and a module that owns the pages. */
  | 'tdx'
  /** A page is private or shared in its place, so that user space may have a mapping of it in both worlds. */
  | 'in-place'
  /** Private pages are poison entries in user page tables. */
  | 'poison-entries'
  /** User space has no mapping of private pages, which are not its own. */
  | 'private-file'
  /** User space maps itself what is shared. */
  | 'explicit-maps'
  /** Private memory is SEV's: what differs is a bit in page tables. */
  | 'c-bit'
  /** Private memory is s390's: what the host touches is exported. */
  | 'ultravisor'
  /** The kernel that handles machine checks is a guest's. */
  | 'virtual'
  /** And the hardware's own. */
  | 'no-vmm'
  /** A kernel makes a poisoned page uncacheable in its 1:1 map. */
  | 'isolate-uncacheable'
  /** And the flush that this takes can leave the guest. */
  | 'flush-exits'
  /** It does nothing to the 1:1 map where it sees a hypervisor. */
  | 'isolate-nothing'
  /** It takes the page out of the 1:1 map. */
  | 'isolate-absent'
  /** It does so where the machine check says that the VMM has unmapped the page. */
  | 'isolate-as-told'
  /** So that what the kernel touches may be absent. */
  | 'absent-entries'
  /** The host keeps the record of what a guest shares. */
  | 'status-host'
  /** It keeps a bit for each page. */
  | 'status-bitmap'
  /** It keeps the ranges, in a list. */
  | 'status-list'
  /** It keeps the ranges, in a tree. */
  | 'status-tree'
  /** The guest keeps the record, in memory that the host may read. */
  | 'status-donation'
  /** The guest's announcements are ordinary hypercalls, and KVM intercepts the #UD of encrypted guests too. */
  | 'hypercall-patched'
  /** They are ordinary hypercalls, which are VMMCALL as long as nothing else is known. */
  | 'hypercall-vmmcall-default'
  /** KVM does not intercept the #UD of encrypted guests. */
  | 'ud-of-the-guest';

/**
 * What a profile speaks of. A realm has commands of its own, and no others: `guest-memory` those of guest_memfd and of
 * proposals about it, `td` those of a guest whose memory the host must not touch, `mc` those of machine checks and poison,
 * `page-status` those of a guest that tells which of its pages are shared, `hypercall` those of the
 * instruction by which it does, `sev` those of keys that VMs share.
 */
export type Realm = 'guest-memory' | 'td' | 'mc' | 'page-status' | 'hypercall' | 'sev';

/** The realm of what does not say to which it belongs. */
const DEFAULT_REALM: Realm = 'guest-memory';

/** An invariant that the design cannot keep, so that nobody is asked for it: a flaw of the design. */
export interface Concession {
  readonly invariant: string;
  /** Why it cannot, as sentences. */
  readonly why: string;
  /** The commands that can break it, by their names: after any other it is held against a target all the same. Any, if left out. */
  readonly after?: readonly string[];
}

export interface Profile {
  readonly id: string;
  readonly title: string;
  /** Release that the rules were read from: major, minor, patch. */
  readonly release: readonly [number, number, number];
  /** Proposals that are not in that release but hold in this profile. */
  readonly features: readonly Feature[];
  /** `guest-memory` if left out. */
  readonly realm?: Realm;
  readonly concedes?: readonly Concession[];
  readonly source: string;
}

/** The realm of a profile, or of a command. */
export const realmOf = ({ realm = DEFAULT_REALM }: { readonly realm?: Realm }): Realm => realm;

export interface Config {
  readonly profile: Profile;
  readonly machine: Machine;
}

/** Why the design cannot keep the invariant; undefined where it claims to. */
export const concession = ({ concedes = [] }: Profile, invariant: string): Concession | undefined =>
  concedes.find((each) => each.invariant === invariant);

/** Whether a target is ever held against the invariant. */
export function isClaimed(profile: Profile, invariant: string): boolean {
  const conceded = concession(profile, invariant);
  return conceded === undefined || conceded.after !== undefined;
}

/** Stores that the host makes for no other reason than that the command says so. */
const STORES_OF_HOST = ['host.write', 'host.zero'];
const IN_DIRECT_MAP: Concession = {
  invariant: 'td/no-host-write',
  why: 'The page stays in the direct map, so that a stray store of the kernel reaches it.',
  after: STORES_OF_HOST,
};
const PINNED =
  'Removing every user mapping does not take a page from a device that pinned it while it was shared; the RFC does not speak of pins.';
const EVERYTHING = 'User space has a mapping of all guest memory, and nothing keeps it from using that.';

const conceded = (why: string, ...invariants: readonly string[]): readonly Concession[] =>
  invariants.map((invariant) => ({ invariant, why }));

const LINUX_SOURCE = 'virt/kvm, arch/x86/kvm, fs, mm';

const NOT_WRITTEN_BACK =
  'Memory that user space maps is given back through sev_guest_memory_reclaimed(), and guest_memfd’s through sev_gmem_make_shared(), which passes over pages that are not assigned in the RMP: those of guests of SEV and SEV-ES keep dirty lines in caches.';
const FLUSHED = 'A page that becomes uncacheable is flushed line by line, whether it is there or not.';
const FLUSHED_IN_GUEST =
  'The page is not there any more, so that the flush is answered with a second machine check, in the kernel, which panics.';
const NOT_TOLD = 'So it is still where a machine check does not say that the page was unmapped.';

export const PROFILES: readonly Profile[] = [
  {
    id: 'linux-6.18',
    title: 'Linux 6.18: guest_memfd with mmap',
    release: [6, 18, 0],
    features: [],
    source: `${LINUX_SOURCE} of 6.12.95 and 7.2.12, tried on a running 6.18.44`,
  },
  {
    id: 'linux-7.2',
    title: 'Linux 7.2: a file range that is bound twice is refused with EEXIST',
    release: [7, 2, 12],
    features: [],
    source: `${LINUX_SOURCE} of 7.2.12`,
  },
  {
    id: 'linux-7.3',
    title: 'Linux 7.3: a file range that is bound twice is found out after the architecture has prepared the slot',
    release: [7, 3, 4],
    features: [],
    source: `${LINUX_SOURCE} of 7.3.4 (7.3-rc7 still binds before, as 7.2 does)`,
  },
  {
    id: 'gmem-link-rfc',
    title: 'Linux 7.3 with KVM_LINK_GUEST_MEMFD: several files on one inode',
    release: [7, 3, 4],
    features: ['gmem-link'],
    source: 'RFC v2 "New KVM ioctl to link a gmem inode to a new gmem file", May 2025, on 7.3.4',
  },
  {
    id: 'direct-map-rfc-v1',
    title: 'Linux 7.3 with guest memory out of the direct map, put back for one user at a time',
    release: [7, 3, 4],
    features: ['direct-map', 'direct-map-on-entry', 'direct-map-reinsertion', 'direct-map-one-cache'],
    source: 'RFC "Unmapping guest_memfd from Direct Map", July 2024, on 7.3.4',
  },
  {
    id: 'direct-map-rfc-v2',
    title: 'Linux 7.3 with guest memory out of the direct map, put back while a sharing count is above zero',
    release: [7, 3, 4],
    features: ['direct-map', 'direct-map-on-entry', 'direct-map-reinsertion'],
    source: 'RFC v2 "Unmapping guest_memfd from Direct Map", September 2024, on 7.3.4',
  },
  {
    id: 'direct-map-v12',
    title: 'Linux 7.3 with guest memory out of the direct map from its first use on; KVM goes through user mappings',
    release: [7, 3, 4],
    features: ['direct-map', 'direct-map-host-address'],
    source: 'v12 "Direct Map Removal Support for guest_memfd", April 2026, on 7.3.4',
  },
  {
    id: 'direct-map-v13',
    title: 'Linux 7.3 with guest memory out of the direct map as long as it is in the file',
    release: [7, 3, 4],
    features: ['direct-map', 'direct-map-on-entry', 'direct-map-host-address'],
    source: 'review of v12 "Direct Map Removal Support for guest_memfd", April 2026, on 7.3.4',
  },
  {
    id: 'tdx-poison-rfc-v1',
    title: 'TDX with private guest memory as poisoned pages in the page tables of the VMM',
    release: [7, 3, 4],
    features: ['tdx', 'in-place', 'poison-entries'],
    realm: 'td',
    concedes: [
      IN_DIRECT_MAP,
      { invariant: 'td/no-user-write', why: PINNED, after: STORES_OF_HOST },
      ...conceded(PINNED, 'td/not-mapped-by-host'),
    ],
    source: 'RFC v1 "KVM: unmap guest memory using poisoned pages", April 2021, on TDX of 7.3.4',
  },
  {
    id: 'tdx-guest-memfd',
    title: 'TDX of Linux 7.3: private guest memory in a guest_memfd that nobody maps',
    release: [7, 3, 4],
    features: ['tdx', 'private-file'],
    realm: 'td',
    concedes: [IN_DIRECT_MAP],
    source: 'arch/x86/kvm/vmx/tdx.c, virt/kvm/guest_memfd.c of 7.3.4',
  },
  {
    id: 'share-explicitly',
    title: 'TDX with a VMM that maps only what the guest shares',
    release: [7, 3, 4],
    features: ['tdx', 'in-place', 'explicit-maps'],
    realm: 'td',
    concedes: [IN_DIRECT_MAP],
    source:
      'thread of RFC v1 "KVM: unmap guest memory using poisoned pages", April 2021: David Hildenbrand, on TDX of 7.3.4',
  },
  {
    id: 'sev-c-bit',
    title: 'SEV: the VMM maps all guest memory without the bit that encrypts',
    release: [7, 3, 4],
    features: ['in-place', 'c-bit'],
    realm: 'td',
    concedes: [
      { invariant: 'td/no-host-write', why: EVERYTHING, after: STORES_OF_HOST },
      { invariant: 'td/no-user-write', why: EVERYTHING, after: STORES_OF_HOST },
      ...conceded(EVERYTHING, 'td/not-mapped-by-host'),
    ],
    source:
      'thread of RFC v1 "KVM: unmap guest memory using poisoned pages", April 2021: Dave Hansen; AMD64 manual, volume 2, 15.34',
  },
  {
    id: 's390-pv',
    title: 'Protected virtualization of s390: the host has the encrypted page, the guest the plain one',
    release: [7, 3, 4],
    features: ['in-place', 'ultravisor'],
    realm: 'td',
    concedes: conceded(
      `${EVERYTHING} The ultravisor exports a page to whoever touches it, so that this does no harm.`,
      'td/not-mapped-by-host',
    ),
    source:
      'thread of RFC v1 "KVM: unmap guest memory using poisoned pages", April 2021: David Hildenbrand; arch/s390/kernel/uv.c',
  },
  {
    id: 'sev-linux-7.3',
    title: 'Linux 7.3: keys of SEV guests, their mirrors, and those that take over from them',
    release: [7, 3, 4],
    features: [],
    realm: 'sev',
    source: 'arch/x86/kvm/svm/sev.c of 7.3.4',
  },
  {
    id: 'sev-gmem-link',
    title: 'The same with memory in files, of which several VMs can have one each',
    release: [7, 3, 4],
    features: ['gmem-link'],
    realm: 'sev',
    concedes: conceded(NOT_WRITTEN_BACK, 'memory/free-is-present'),
    source: 'RFC v2 "New KVM ioctl to link a gmem inode to a new gmem file", May 2025, on 7.3.4',
  },
  {
    id: 'page-status-bitmap',
    title: 'What a guest shares, recorded by the host with a bit for each page',
    release: [7, 3, 4],
    features: ['status-host', 'status-bitmap'],
    realm: 'page-status',
    source: 'v2 "Add AMD SEV specific Hypercall3", December 2020',
  },
  {
    id: 'page-status-range-list',
    title: 'What a guest shares, recorded by the host in a list of ranges',
    release: [7, 3, 4],
    features: ['status-host', 'status-list'],
    realm: 'page-status',
    source: 'thread of v2 "Add AMD SEV specific Hypercall3", January 2021: Ashish Kalra',
  },
  {
    id: 'page-status-interval-tree',
    title: 'What a guest shares, recorded by the host in a balanced tree of ranges',
    release: [7, 3, 4],
    features: ['status-host', 'status-tree'],
    realm: 'page-status',
    source: 'thread of v2 "Add AMD SEV specific Hypercall3", December 2020: Steve Rutherford',
  },
  {
    id: 'page-status-guest-donation',
    title: 'What a guest shares, kept by the guest itself in memory that it has told the host of',
    release: [7, 3, 4],
    features: ['status-donation'],
    realm: 'page-status',
    source: 'thread of v2 "Add AMD SEV specific Hypercall3", January 2021: Steve Rutherford',
  },
  {
    id: 'hypercall-patched',
    title: 'Announcements are ordinary hypercalls: VMCALL until the guest’s kernel has applied alternatives',
    release: [7, 3, 4],
    features: ['hypercall-patched'],
    realm: 'hypercall',
    source:
      'v2 "Add AMD SEV specific Hypercall3", December 2020: what it says of hypercalls without it; otherwise KVM of 7.3.4',
  },
  {
    id: 'hypercall-linux-7.3',
    title: 'Linux 7.3: announcements of encrypted guests are always VMMCALL',
    release: [7, 3, 4],
    features: ['ud-of-the-guest'],
    realm: 'hypercall',
    source: 'arch/x86/include/asm/kvm_para.h, arch/x86/kvm of 7.3.4',
  },
  {
    id: 'hypercall-vmmcall-default',
    title: 'All hypercalls are VMMCALL until the guest’s kernel has applied alternatives',
    release: [7, 3, 4],
    features: ['hypercall-vmmcall-default', 'ud-of-the-guest'],
    realm: 'hypercall',
    source: 'thread of v2 "Add AMD SEV specific Hypercall3", December 2020: Sean Christopherson, on 7.3.4',
  },
  {
    id: 'bare-metal',
    title: 'A kernel without a VMM that makes poisoned pages uncacheable',
    release: [7, 3, 4],
    features: ['no-vmm', 'isolate-uncacheable'],
    realm: 'mc',
    source: `thread of "x86/mm: Don't try to change poison pages to uncacheable in a guest", May 2020, with the handler of 7.3.4`,
  },
  {
    id: 'set-uc-in-guest',
    title: 'A guest kernel that makes poisoned pages uncacheable, below a VMM that has unmapped them',
    release: [7, 3, 4],
    features: ['virtual', 'isolate-uncacheable', 'flush-exits'],
    realm: 'mc',
    concedes: [...conceded(FLUSHED, 'poison/isolate-untouched'), ...conceded(FLUSHED_IN_GUEST, 'poison/contained')],
    source: `what "x86/mm: Don't try to change poison pages to uncacheable in a guest" wants to correct, May 2020, with the handler of 7.3.4`,
  },
  {
    id: 'guest-check',
    title: 'A guest kernel that leaves its 1:1 map alone where it sees a hypervisor',
    release: [7, 3, 4],
    features: ['virtual', 'isolate-nothing'],
    realm: 'mc',
    concedes: conceded(
      'The 1:1 map shows the page as before, so that the kernel can load from it, by mistake or by speculation.',
      'poison/isolated',
    ),
    source: `"x86/mm: Don't try to change poison pages to uncacheable in a guest", May 2020, with the handler of 7.3.4`,
  },
  {
    id: 'vmm-signals-unmap',
    title: 'A VMM whose machine check says that it has unmapped the page, and a guest kernel that heeds it',
    release: [7, 3, 4],
    features: ['virtual', 'isolate-uncacheable', 'flush-exits', 'isolate-as-told', 'absent-entries'],
    realm: 'mc',
    concedes: [
      ...conceded(`${FLUSHED} ${NOT_TOLD}`, 'poison/isolate-untouched'),
      ...conceded(`${FLUSHED_IN_GUEST} ${NOT_TOLD}`, 'poison/contained'),
    ],
    source: `thread of "x86/mm: Don't try to change poison pages to uncacheable in a guest", May 2020: Borislav Petkov, with the handler of 7.3.4`,
  },
  {
    id: 'not-present-whole-page',
    title: 'Linux 7.3 as a guest: poisoned pages leave the 1:1 map',
    release: [7, 3, 4],
    features: ['virtual', 'isolate-absent', 'absent-entries'],
    realm: 'mc',
    source:
      'arch/x86/kernel/cpu/mce/core.c, arch/x86/mm/pat/set_memory.c, mm/memory-failure.c, arch/x86/kvm/x86.c of 7.3.4',
  },
];

export const DEFAULT_PROFILE = 'linux-7.3';

/** Throws a RangeError that lists the known profiles. */
export function profileById(id: string): Profile {
  const profile = PROFILES.find((candidate) => candidate.id === id);
  if (profile === undefined)
    throw new RangeError(`unknown profile '${id}'; known are ${PROFILES.map((each) => each.id).join(', ')}`);
  return profile;
}

/** Where a rule, or a variant of it, holds. A release is written `7.2` or `7.3.4`; `before` is exclusive. */
export interface Condition {
  readonly since?: string;
  readonly before?: string;
  readonly feature?: Feature;
  /** A proposal that must not be there. */
  readonly without?: Feature;
  readonly realm?: Realm | readonly Realm[];
}

function compareRelease({ release }: Pick<Profile, 'release'>, other: string): number {
  const wanted = other.split('.').map(Number);
  for (let part = 0; part < 3; part++) {
    const difference = (release[part] ?? 0) - (wanted[part] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Whether the condition holds in a profile, or in anything else that has a release. */
export function holdsIn(
  profile: Pick<Profile, 'release' | 'features' | 'realm'>,
  condition: Condition | undefined,
): boolean {
  if (condition === undefined) return true;
  if (condition.realm !== undefined && !_.castArray(condition.realm).includes(realmOf(profile))) return false;
  if (condition.since !== undefined && compareRelease(profile, condition.since) < 0) return false;
  if (condition.before !== undefined && compareRelease(profile, condition.before) >= 0) return false;
  if (condition.without !== undefined && profile.features.includes(condition.without)) return false;
  return condition.feature === undefined || profile.features.includes(condition.feature);
}

/** Whether the profile has such a command: it speaks of what the command is about, and the condition holds. */
export const isPartOf = (
  command: { readonly only?: Condition; readonly realm?: Realm },
  profile: Pick<Profile, 'release' | 'features' | 'realm'>,
): boolean => realmOf(command) === realmOf(profile) && holdsIn(profile, command.only);

/** `linux ≥ 7.2`, for documents; empty where the condition always holds. */
export function printCondition(condition: Condition | undefined): string {
  if (condition === undefined) return '';
  const parts: string[] = [];
  if (condition.since !== undefined) parts.push(`since ${condition.since}`);
  if (condition.before !== undefined) parts.push(`before ${condition.before}`);
  if (condition.feature !== undefined) parts.push(`with ${condition.feature}`);
  if (condition.without !== undefined) parts.push(`without ${condition.without}`);
  if (condition.realm !== undefined) parts.push(`about ${_.castArray(condition.realm).join(' or ')}`);
  return parts.join(', ');
}
