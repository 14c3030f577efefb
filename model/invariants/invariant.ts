import type { Facts } from '../core/facts.ts';

/** The boundary after one command. */
export interface Moment {
  /** Facts before the command; undefined at the start of a program. */
  readonly before: Facts | undefined;
  readonly after: Facts;
  /** Whether the command failed with an error number. */
  readonly failed: boolean;
}

/** A sentence that holds at every command boundary, for every implementation. */
export interface Invariant {
  readonly id: string;
  readonly sentence: string;
  readonly source: string;
  /** Whether the facts have what the sentence speaks of; where not, the invariant is not observable on the target. */
  observable(facts: Facts): boolean;
  /** What breaks the sentence, in words, or undefined where it holds. */
  broken(moment: Moment): string | undefined;
}

export const always = (): boolean => true;
export const hex = (value: number): string => `0x${value.toString(16)}`;
