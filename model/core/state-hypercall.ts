/** What a machine knows of guests that call the host. See docs/adr/0012-sev.md. */
import type { Label } from './label.ts';

/** Places in a guest's text that hold an instruction each. */
export type HypercallPlace = 'vmcall' | 'vmmcall' | 'ordinary' | 'announcement';

export interface HypercallGuest {
  readonly cpu: 'amd' | 'intel';
  readonly isSev: boolean;
  /** A write of KVM's emulator to the guest's text succeeds. */
  readonly isTextWritable: boolean;
  readonly exitsToVmm: boolean;
  /** KVM puts the right instruction in the place of the wrong one. */
  readonly isPatchedByKvm: boolean;
  /** Places in which KVM has done so. */
  readonly patched: ReadonlySet<HypercallPlace>;
  /** The guest's kernel has put the right instruction in its own places. */
  readonly hasAlternatives: boolean;
  /** The VMM has not answered the exit yet; the call was made with registers of so many bits. */
  readonly pending: '64' | '32' | undefined;
}

export interface HypercallMachine {
  readonly guests: ReadonlyMap<Label, HypercallGuest>;
}

export const FRESH_HYPERCALL_MACHINE: HypercallMachine = { guests: new Map() };
