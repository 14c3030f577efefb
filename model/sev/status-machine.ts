/** Guests that announce which of their pages are shared: what follows from their state, and how it changes. */
import { holdsIn, type Feature } from '../core/profile.ts';
import { known, withEntry, type Label, type State } from '../core/state.ts';
import type { StatusGuest } from '../core/state-status.ts';
import {
  announced,
  fits,
  MARKED_RECORD,
  recorded,
  type Allowance,
  type Announcement,
  type SharedRecord,
} from './shared-set.ts';

export const has = ({ config }: State, feature: Feature): boolean => holdsIn(config.profile, { feature });

export const guestOf = ({ status }: State, label: Label): StatusGuest => known(status.guests, label);

export const withGuest = (state: State, label: Label, change: Partial<StatusGuest>): State => ({
  ...state,
  status: {
    ...state.status,
    guests: withEntry(state.status.guests, label, { ...guestOf(state, label), ...change }),
  },
});

/** What a guest is that has said nothing yet. */
export const SILENT = {
  announced: [],
  record: { ranges: [], incomplete: false },
  donation: undefined,
  isDisabled: false,
  calls: 0,
  hasSpoken: false,
} as const satisfies Partial<StatusGuest>;

const FRAMES_PER_GIB = 2 ** 18;
export const memoryOf = (gib: string): number => Number(gib) * FRAMES_PER_GIB;

/** Firmware and devices are below 4 GiB also in a guest that has less memory. */
const LEAST_COVERED = memoryOf('4');

/** What the record of a guest may take; undefined where the guest has not said where it is. */
export function allowanceOf(state: State, { bound, memory, donation }: StatusGuest): Allowance | undefined {
  if (has(state, 'status-bitmap')) return { frames: Math.max(memory, LEAST_COVERED) };
  if (has(state, 'status-donation')) return donation && { ranges: donation.entries };
  return { ranges: bound };
}

/** What the host has, or would find where the guest keeps the record. */
export function recordOf(state: State, guest: StatusGuest): SharedRecord {
  const isNowhere = allowanceOf(state, guest) === undefined && guest.announced.length > 0;
  return isNowhere ? MARKED_RECORD : guest.record;
}

/** The guest behind an announcement that the host took, or that the guest wrote down itself. */
export function told(state: State, guest: StatusGuest, announcement: Announcement): StatusGuest {
  const allowance = allowanceOf(state, guest);
  return {
    ...guest,
    hasSpoken: true,
    announced: announced(guest.announced, announcement),
    record: allowance === undefined ? guest.record : recorded(guest.record, announcement, allowance),
  };
}

/** The guest behind an announcement that nobody took: its page tables are changed all the same. */
export function untold(guest: StatusGuest, announcement: Announcement): StatusGuest {
  const now = announced(guest.announced, announcement);
  return now === guest.announced
    ? { ...guest, hasSpoken: true }
    : { ...guest, hasSpoken: true, announced: now, record: MARKED_RECORD };
}

/** The guest has said where its structure is, with everything that it shares in it. */
export function donated(guest: StatusGuest, entries: number): StatusGuest {
  const ranges = guest.announced;
  const isWhole = !guest.record.incomplete && fits(ranges, { ranges: entries });
  const record = isWhole ? { ranges, incomplete: false } : MARKED_RECORD;
  return { ...guest, hasSpoken: true, donation: { entries }, record };
}

/** Hypercalls that the policy takes from one tick to the next. */
export const CALLS_PER_TICK = 8;

export const isPastRate = ({ policy, calls }: StatusGuest): boolean => policy !== 'none' && calls >= CALLS_PER_TICK;

/** The guest behind a hypercall that was not answered with ENOSYS. */
export const counted = (guest: StatusGuest): StatusGuest =>
  guest.policy === 'none' ? guest : { ...guest, calls: guest.calls + 1 };
