/**
 * Which rules hold, and on what machine. A profile fixes the rules of one kernel release or proposal; a machine says
 * what the hardware and the kernel's configuration offer. What a machine does not offer is refused, and the refusal is
 * itself a rule.
 */
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
  | 'direct-map-one-cache';

export interface Profile {
  readonly id: string;
  readonly title: string;
  /** Release that the rules were read from: major, minor, patch. */
  readonly release: readonly [number, number, number];
  /** Proposals that are not in that release but hold in this profile. */
  readonly features: readonly Feature[];
  readonly source: string;
}

export interface Config {
  readonly profile: Profile;
  readonly machine: Machine;
}

const LINUX_SOURCE = 'virt/kvm, arch/x86/kvm, fs, mm';

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
export function holdsIn(profile: Pick<Profile, 'release' | 'features'>, condition: Condition | undefined): boolean {
  if (condition === undefined) return true;
  if (condition.since !== undefined && compareRelease(profile, condition.since) < 0) return false;
  if (condition.before !== undefined && compareRelease(profile, condition.before) >= 0) return false;
  return condition.feature === undefined || profile.features.includes(condition.feature);
}

/** `linux ≥ 7.2`, for documents; empty where the condition always holds. */
export function printCondition(condition: Condition | undefined): string {
  if (condition === undefined) return '';
  const parts: string[] = [];
  if (condition.since !== undefined) parts.push(`since ${condition.since}`);
  if (condition.before !== undefined) parts.push(`before ${condition.before}`);
  if (condition.feature !== undefined) parts.push(`with ${condition.feature}`);
  return parts.join(', ');
}
