import _ from 'lodash';
import { concession, isClaimed, type Profile } from '../core/profile.ts';
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

export { brokenBy, brokenMidway, isAbout, isObservable, unseenParts, type Invariant } from './invariant.ts';

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

/** Those that speak of what there is in the profile, and that its design does not concede whatever is done. */
export const invariantsOf: (profile: Profile) => readonly Invariant[] = _.memoize((profile: Profile) =>
  INVARIANTS.filter((each) => isAbout(profile, each) && isClaimed(profile, each.id)),
);

/** Whether the design concedes the invariant after the command. */
export const isConcededAfter = (profile: Profile, { id }: Invariant, command: string): boolean =>
  concession(profile, id)?.after?.includes(command) === true;
