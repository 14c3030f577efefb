/** Programs that show what a design concedes. */
import type { Observed } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { parse, specify } from './support.ts';

export interface Flaw {
  readonly profile: string;
  readonly invariant: string;
  /** The shortest; another of the same length may be found. */
  readonly program: string;
}

/** What the reference, which does what the design does, observes of the program. */
export function observedOf({ profile, program }: Flaw): readonly Observed[] {
  const specification = specify(profile);
  return [
    ...(referenceTarget().execute(parse(specification, program), specification.config.profile) as Iterable<Observed>),
  ];
}
