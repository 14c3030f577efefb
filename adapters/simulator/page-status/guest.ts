/** A guest, and what the host knows of it. */
import type { Label } from '../../../model/core/state.ts';
import { RunMap } from '../ranges.ts';
import type { Range, StatusRecord } from './record.ts';

export type Policy = 'none' | 'throttle' | 'disable';

export interface Guest {
  readonly label: Label;
  readonly bound: number;
  readonly policy: Policy;
  /** Frames of its memory, from zero on. */
  frames: number;
  /** KVM_CAP_EXIT_HYPERCALL */
  isEnabled: boolean;
  isDisabled: boolean;
  /** Hypercalls that were looked at since the time of the policy began. */
  taken: number;
  /** Frames without the C-bit, by its own page tables. */
  readonly pageTables: RunMap<true>;
  /** Anything of its pages, since it was created or reset; it may also have been loaded. */
  hasSpoken: boolean;
  record: StatusRecord;
  /** The record is incomplete. */
  isMarked: boolean;
  /** Hypercalls in the current command, and what they took. */
  readonly work: { calls: number; steps: number };
}

export const newGuest = (
  { label, bound, policy, frames }: Pick<Guest, 'label' | 'bound' | 'policy' | 'frames'>,
  newRecord: (guest: Pick<Guest, 'bound' | 'frames' | 'pageTables'>) => StatusRecord,
): Guest => {
  const pageTables = new RunMap<true>();
  return {
    label,
    bound,
    policy,
    frames,
    isEnabled: false,
    isDisabled: false,
    taken: 0,
    pageTables,
    hasSpoken: false,
    record: newRecord({ bound, frames, pageTables }),
    isMarked: false,
    work: { calls: 0, steps: 0 },
  };
};

/** What a guest changes: frames that it shares from now on, or has for itself. */
export interface Change extends Range {
  readonly shared: boolean;
}

/** Sets the C-bit, or clears it. Whether that changes anything. */
export function setPages({ pageTables }: Guest, { start, end, shared }: Change): boolean {
  if (!shared) return pageTables.delete(start, end);
  const isChange = pageTables.gaps(start, end).length > 0;
  if (isChange) pageTables.set(start, end, true);
  return isChange;
}

export const sharedBy = ({ pageTables }: Guest): readonly Range[] =>
  pageTables.all.map(({ start, end }) => ({ start, end }));
