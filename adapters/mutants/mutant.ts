import type { Target } from '../adapter.ts';

/** An implementation that is wrong in one known way. */
export interface Mutant {
  /** Named after what is wrong; on the command line `mutant:ID`. */
  readonly id: string;
  /** From which the mutant was made: the rule table, or a bug of a mechanism. */
  readonly origin: 'derived' | 'hand-written';
  /** What is wrong, as a sentence. */
  readonly fault: string;
  /** The profile in which the fault shows. */
  readonly profile: string;
  readonly target: Target;
  /** Commands of the shortest program that is known to show the fault; given for hand-written mutants. */
  readonly shortest?: number;
  /** Why no program can tell it from the real thing, where that is so. */
  readonly equivalent?: string;
}
