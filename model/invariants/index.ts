import _ from 'lodash';
import { holdsIn, type Profile } from '../core/profile.ts';
import { attributeInvariants } from './attributes.ts';
import { directMapInvariants } from './direct-map.ts';
import { errorInvariants } from './errors.ts';
import { gmemInvariants } from './gmem.ts';
import type { Invariant } from './invariant.ts';
import { memoryInvariants } from './memory.ts';

export { brokenBy, isObservable, unseenParts, type Invariant } from './invariant.ts';

/** Every invariant over facts. `memory/private-is-secret` compares two runs, and is the engine's. */
export const INVARIANTS: readonly Invariant[] = [
  ...gmemInvariants,
  ...memoryInvariants,
  ...directMapInvariants,
  ...attributeInvariants,
  ...errorInvariants,
];

/** Those that speak of what there is in the profile. */
export const invariantsOf = _.memoize((profile: Profile): readonly Invariant[] =>
  INVARIANTS.filter(({ only }) => holdsIn(profile, only)),
);
