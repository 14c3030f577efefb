/** What a machine knows of guests that announce which of their pages are shared. See docs/adr/0012-sev.md. */
import type { RangeSet } from './ranges.ts';

/** What a guest says of its pages, and what the host made of it. */
export interface SharedPages {
  /** Frames that the guest shares, as its page tables have them. */
  readonly announced: RangeSet;
  /** What the host has, or what the guest's structure holds. A marked record holds nothing. */
  readonly record: { readonly ranges: RangeSet; readonly incomplete: boolean };
  /** The guest has said where it keeps the ranges itself, and how many can be there. */
  readonly donation: { readonly entries: number } | undefined;
}

export interface StatusGuest extends SharedPages {
  /** Frames of memory, from 0 on. */
  readonly memory: number;
  /** Most ranges that the VMM lets the host keep. */
  readonly bound: number;
  readonly policy: 'none' | 'throttle' | 'disable';
  /** Announcements reach the host. */
  readonly isEnabled: boolean;
  readonly isDisabled: boolean;
  /** Hypercalls that the policy has counted since the last tick. */
  readonly calls: number;
  /** The guest has said something of its pages since it was created or reset. */
  readonly hasSpoken: boolean;
}

/** A record on its way to another machine, with the memory of the guest. */
export interface StatusImage extends SharedPages {
  readonly isDamaged: boolean;
}

/** By their labels. */
export interface StatusMachine {
  readonly guests: ReadonlyMap<string, StatusGuest>;
  readonly images: ReadonlyMap<string, StatusImage>;
}

export const FRESH_STATUS_MACHINE: StatusMachine = { guests: new Map(), images: new Map() };
