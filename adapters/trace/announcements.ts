/** Announcements of page-encryption status as commands; the logs of kernels tell of one guest. */
import type { AnyCommand } from '../../model/core/specification.ts';
import type { LogEntry } from '../adapter.ts';

const GUEST = 'guest';

/** KVM_MAP_GPA_RANGE_ENCRYPTED */
const ENCRYPTED = 0x10n;

/** The guest that a log speaks of, before its first line. `bound`: ranges that the host may keep. */
export const guestOfLog = (bound: bigint): readonly LogEntry[] =>
  [
    { name: 'status.create', args: { guest: GUEST, gib: '64', bound, policy: 'none' } },
    { name: 'status.enable', args: { guest: GUEST, on: 'yes' } },
  ].map((command) => ({ line: 0, kind: 'command', command }));

export const announcement = (gpa: bigint, pages: bigint, attributes: bigint): AnyCommand => ({
  name: 'status.announce',
  args: { guest: GUEST, gpa, pages, attributes },
});

export const attributesOf = (isEncrypted: boolean): bigint => (isEncrypted ? ENCRYPTED : 0n);
