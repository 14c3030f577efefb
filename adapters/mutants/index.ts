import { DERIVED } from './derived.ts';
import { HAND_WRITTEN } from './hand-written.ts';
import type { Mutant } from './mutant.ts';

export type { Mutant } from './mutant.ts';

/** Every wrong implementation that the kit must catch. */
export const MUTANTS: readonly Mutant[] = [...HAND_WRITTEN, ...DERIVED];

/** Undefined where there is no such mutant. */
export const mutantById = (id: string): Mutant | undefined => MUTANTS.find((mutant) => mutant.id === id);
