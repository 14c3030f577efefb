/** What a check can come to. The four are never mixed. */
import type { Program } from '../model/core/program.ts';

export interface Divergence {
  readonly kind: 'diverges';
  /** Index of the command at which expectation and observation part. */
  readonly at: number;
  /** The rule that decided what to expect there. */
  readonly rule: string;
  /** The invariant that is broken, where that is how the divergence shows. */
  readonly invariant?: string;
  /** In words, one line each. */
  readonly expected: string;
  readonly observed: string;
  /** Runs that differ in private data only, for `memory/private-is-secret`. */
  readonly twin?: Program;
}

export interface Silence {
  readonly at: number;
  readonly rule: string;
  readonly reason: string;
}

export type ProgramVerdict =
  | {
      readonly kind: 'conforms';
      /** Commands that were checked. */
      readonly commands: number;
      /** Where the specification took no position, so that the rest was not checked. */
      readonly unmodelled?: Silence;
    }
  | Divergence
  | {
      readonly kind: 'inconclusive';
      readonly reason: string;
      /** The target is there, and cannot execute all of the program. */
      readonly isUnsupported?: true;
    };

/** Exit status of the command line for each verdict. */
export const EXIT_STATUS = { conforms: 0, diverges: 1, usage: 2, inconclusive: 3, defect: 4 } as const;
