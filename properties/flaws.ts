/** Programs that show what a design concedes. */
import type { Observed, Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { profileById } from '../model/core/profile.ts';
import { parse, specify } from './support.ts';

export interface Flaw {
  readonly profile: string;
  readonly invariant: string;
  /** The shortest; another of the same length may be found. */
  readonly program: string;
}

/** Names of invariants. */
export const concededIn = (profile: string): readonly string[] =>
  (profileById(profile).concedes ?? []).map(({ invariant }) => invariant);

/** What the reference, or another target that does what the design does, observes of the program. */
export function observedOf(
  { profile, program }: Omit<Flaw, 'invariant'>,
  target: Target = referenceTarget(),
): readonly Observed[] {
  const specification = specify(profile);
  return [...(target.execute(parse(specification, program), specification.config.profile) as Iterable<Observed>)];
}
