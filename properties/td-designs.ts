/**
 * What five designs for guests whose memory the host must not touch come to: every access of the host to a private frame,
 * and who pays for it; and, for each invariant that a design concedes, the shortest program that breaks it.
 */
import { expectationsOf } from '../conformance/check.ts';
import { profileById } from '../model/core/profile.ts';
import { printOutcome } from '../model/core/outcome.ts';
import type { Flaw } from './flaws.ts';
import { parse, specify } from './support.ts';

const isTdx = (profile: string): boolean => profileById(profile).features.includes('tdx');
const isExplicit = (profile: string): boolean => profileById(profile).features.includes('explicit-maps');

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

/**
 * A guest whose frame 0 is private, with 0x11 in it. The VMM had mapped the frame while it was shared, and given it to a
 * device, where that is asked for; in `share-explicitly` the frame could then not become private.
 */
export const privateGuest = (profile: string, hasDevice: boolean): string =>
  text([
    'td.create td=td0 exits=yes',
    ...(isExplicit(profile) ? ['host.map td=td0 gfn=0'] : hasDevice ? ['dma.map td=td0 gfn=0'] : []),
    'td.init td=td0 flags=0 cpuids=1',
    'td.vcpu td=td0 vcpu=0',
    ...(isTdx(profile) ? ['td.vcpu-init td=td0 vcpu=0 flags=0'] : []),
    'td.add td=td0 vcpu=0 gfn=0 pages=1 value=0x11',
    'td.finalize td=td0',
  ]);

export interface HostAccess {
  readonly what: string;
  readonly command: string;
}

/** Every way in which the host may come to a private page. */
export const HOST_ACCESSES: readonly HostAccess[] = [
  { what: 'load of the VMM', command: 'host.read td=td0 gfn=0 line=0 via=user' },
  { what: 'system call that pins, and reads', command: 'host.read td=td0 gfn=0 line=0 via=gup' },
  { what: 'load of the kernel', command: 'host.read td=td0 gfn=0 line=0 via=direct' },
  { what: 'read of /proc/kcore', command: 'host.read td=td0 gfn=0 line=0 via=kcore' },
  { what: 'device that reads', command: 'host.read td=td0 gfn=0 line=0 via=dma' },
  { what: 'store of the VMM', command: 'host.write td=td0 gfn=0 line=0 via=user width=word value=0x22' },
  {
    what: 'system call that pins, and writes',
    command: 'host.write td=td0 gfn=0 line=0 via=gup width=word value=0x22',
  },
  {
    what: 'store of the kernel, part of a line',
    command: 'host.write td=td0 gfn=0 line=0 via=direct width=word value=0x22',
  },
  {
    what: 'store of the kernel, whole line',
    command: 'host.write td=td0 gfn=0 line=0 via=direct width=line value=0x22',
  },
  { what: 'device that writes', command: 'host.write td=td0 gfn=0 line=0 via=dma width=word value=0x22' },
  { what: 'zeroing of the page', command: 'host.zero td=td0 gfn=0' },
  { what: 'migration of the page', command: 'host.move td=td0 gfn=0 how=migrate' },
  { what: 'swapping out', command: 'host.move td=td0 gfn=0 how=swap-out' },
  { what: 'kexec', command: 'host.kexec' },
];

const GUEST_LOAD = 'td.load td=td0 vcpu=0 gfn=0 line=0 world=private';

const outcomesOf = (profile: string, program: string): readonly string[] => {
  const specification = specify(profile);
  return expectationsOf(specification, parse(specification, program)).map(({ outcome, unmodelled }) =>
    unmodelled === undefined ? printOutcome(outcome) : 'nobody is left',
  );
};

export interface Paid {
  /** What the host's access comes to. */
  readonly host: string;
  /** What the guest's next load of the line comes to, on a core that can go on, and on one that cannot. */
  readonly guest: string;
  readonly onStoppedCore: string;
}

/** What the access comes to, and what the guest finds then. */
export function paidFor({ command }: HostAccess, profile: string): Paid {
  const start = `${privateGuest(profile, command.includes('via=dma'))}${command}\n`;
  const last = (program: string): string => outcomesOf(profile, program).at(-1) ?? '';
  return {
    host: last(start),
    guest: last(`${start}${GUEST_LOAD}\n`),
    onStoppedCore: isTdx(profile) ? last(`${start}core.stop\n${GUEST_LOAD}\n`) : last(`${start}${GUEST_LOAD}\n`),
  };
}

const ADDED = (profile: string): string =>
  text([
    'td.create td=td0 exits=yes',
    'td.init td=td0 flags=0 cpuids=1',
    ...(isTdx(profile) ? ['td.vcpu td=td0 vcpu=0', 'td.vcpu-init td=td0 vcpu=0 flags=0'] : []),
    'td.add td=td0 vcpu=0 gfn=0 pages=1 value=0',
  ]);

const PINNED_FIRST = ADDED('tdx-poison-rfc-v1').replace('td.init', 'dma.map td=td0 gfn=0\ntd.init');

/** Each invariant that a profile concedes. */
export const FLAWS: readonly Flaw[] = [
  ...['tdx-poison-rfc-v1', 'tdx-guest-memfd', 'share-explicitly'].map((profile) => ({
    profile,
    invariant: 'td/no-host-write',
    program: `${ADDED(profile)}host.zero td=td0 gfn=0\n`,
  })),
  {
    profile: 'tdx-poison-rfc-v1',
    invariant: 'td/no-user-write',
    program: `${PINNED_FIRST}host.write td=td0 gfn=0 line=0 via=dma width=word value=0\n`,
  },
  { profile: 'tdx-poison-rfc-v1', invariant: 'td/not-mapped-by-host', program: PINNED_FIRST },
  {
    profile: 'sev-c-bit',
    invariant: 'td/no-host-write',
    program: `${ADDED('sev-c-bit')}host.zero td=td0 gfn=0\n`,
  },
  {
    profile: 'sev-c-bit',
    invariant: 'td/no-user-write',
    program: `${ADDED('sev-c-bit')}host.write td=td0 gfn=0 line=0 via=user width=word value=0\n`,
  },
  { profile: 'sev-c-bit', invariant: 'td/not-mapped-by-host', program: ADDED('sev-c-bit') },
  {
    profile: 's390-pv',
    invariant: 'td/not-mapped-by-host',
    program: ADDED('s390-pv'),
  },
];
