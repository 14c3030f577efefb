import _ from 'lodash';
import { concession, type Profile } from '../core/profile.ts';
import { attributeInvariants } from './attributes.ts';
import { directMapInvariants } from './direct-map.ts';
import { errorInvariants } from './errors.ts';
import { gmemInvariants } from './gmem.ts';
import { isAbout, type Invariant } from './invariant.ts';
import { keyInvariants } from './keys.ts';
import { machineCheckInvariants } from './machine-check.ts';
import { memoryInvariants } from './memory.ts';
import { sharedInvariants } from './shared.ts';
import { tdInvariants } from './tdx.ts';

export { brokenBy, isAbout, isObservable, unseenParts, type Invariant } from './invariant.ts';

/** Every invariant over facts. `memory/private-is-secret` compares two runs, and is the engine's. */
export const INVARIANTS: readonly Invariant[] = [
  ...gmemInvariants,
  ...memoryInvariants,
  ...directMapInvariants,
  ...attributeInvariants,
  ...tdInvariants,
  ...keyInvariants,
  ...machineCheckInvariants,
  ...sharedInvariants,
  ...errorInvariants,
];

/** Those that speak of what there is in the profile, and that its design does not concede. */
export const invariantsOf: (profile: Profile) => readonly Invariant[] = _.memoize((profile: Profile) =>
  INVARIANTS.filter((each) => isAbout(profile, each) && concession(profile, each.id) === undefined),
);
