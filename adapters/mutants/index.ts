import { DERIVED } from './derived.ts';
import { HAND_WRITTEN, handWritten } from './hand-written.ts';
import type { Mutant } from './mutant.ts';
import { RARE_MACHINE_CHECK_FAULTS } from './machine-check.ts';
import { RACE_FAULTS } from './races.ts';
import { RARE_REVOCATION_FAULTS } from './revocation.ts';

export type { Mutant } from './mutant.ts';

/** Every wrong implementation that the kit must catch. */
export const MUTANTS: readonly Mutant[] = [...HAND_WRITTEN, ...DERIVED];

/** Those that are right as long as one command runs at a time. */
export const RACE_MUTANTS: readonly Mutant[] = handWritten(RACE_FAULTS);

/** Those that random programs meet too seldom to count on; a scenario tells each. */
export const RARE_MUTANTS: readonly Mutant[] = handWritten([...RARE_REVOCATION_FAULTS, ...RARE_MACHINE_CHECK_FAULTS]);

/** Undefined where there is no such mutant. */
export const mutantById = (id: string): Mutant | undefined =>
  [...MUTANTS, ...RACE_MUTANTS, ...RARE_MUTANTS].find((mutant) => mutant.id === id);
