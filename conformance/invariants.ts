import { isClaimed, type Profile } from '../model/core/profile.ts';
import { INVARIANTS, isAbout, type Invariant } from '../model/invariants/index.ts';
import { SECRECY } from './secret.ts';

export type InvariantSentence = Pick<Invariant, 'id' | 'sentence' | 'source' | 'only'>;

/** Those over facts, and those that compare runs. */
export const ALL_INVARIANTS: readonly (Invariant | InvariantSentence)[] = [...INVARIANTS, SECRECY];

/** Those that speak of what there is in the profile. */
export const sentencesAbout = (profile: Profile): typeof ALL_INVARIANTS =>
  ALL_INVARIANTS.filter((each) => isAbout(profile, each));

/** Those of them that its design claims to keep, after some commands at least. */
export const sentencesOf = (profile: Profile): typeof ALL_INVARIANTS =>
  sentencesAbout(profile).filter(({ id }) => isClaimed(profile, id));

/** Throws where there is none of the name. */
export function invariantById(id: string): InvariantSentence {
  const invariant = ALL_INVARIANTS.find((each) => each.id === id);
  if (invariant === undefined) throw new Error(`there is no invariant '${id}'`);
  return invariant;
}
