import { DERIVED } from './derived.ts';
import { HAND_WRITTEN, handWritten } from './hand-written.ts';
import type { Mutant } from './mutant.ts';
import { RACE_FAULTS } from './races.ts';

export type { Mutant } from './mutant.ts';

/** Every wrong implementation that the kit must catch. */
export const MUTANTS: readonly Mutant[] = [...HAND_WRITTEN, ...DERIVED];

/** Those that are right as long as one command runs at a time. */
export const RACE_MUTANTS: readonly Mutant[] = handWritten(RACE_FAULTS);

/** Undefined where there is no such mutant. */
export const mutantById = (id: string): Mutant | undefined =>
  [...MUTANTS, ...RACE_MUTANTS].find((mutant) => mutant.id === id);
