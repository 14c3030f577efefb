import { attributeInvariants } from './attributes.ts';
import { errorInvariants } from './errors.ts';
import { gmemInvariants } from './gmem.ts';
import type { Invariant } from './invariant.ts';
import { memoryInvariants } from './memory.ts';

export { brokenBy, isObservable, unseenParts, type Invariant } from './invariant.ts';

/** Every invariant over facts. `memory/private-is-secret` compares two runs, and is the engine's. */
export const INVARIANTS: readonly Invariant[] = [
  ...gmemInvariants,
  ...memoryInvariants,
  ...attributeInvariants,
  ...errorInvariants,
];
