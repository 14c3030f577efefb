/** The specification itself behind the adapter contract: what it allows first is what it does. */
import { factsOfState } from '../../model/facts-of-state.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { FULL_MACHINE, type Machine, type Profile } from '../../model/core/profile.ts';
import { Specification, type AnyCommand, type AnyTransition, type Step } from '../../model/core/specification.ts';
import type { State } from '../../model/core/state.ts';
import { ALL_CAPABILITIES, type Observed, type Target } from '../adapter.ts';

/** A specification with the given commands, executed. Used with changed commands, it is a wrong implementation. */
export function specificationTarget(
  name: string,
  catalogue: readonly AnyTransition[],
  machine: Machine = FULL_MACHINE,
  profileOf: (profile: Profile) => Profile = (profile) => profile,
): Target {
  return {
    name,
    capabilities: new Set(ALL_CAPABILITIES),
    machine,
    *execute(program: readonly AnyCommand[], profile: Profile): Iterable<Observed> {
      const specification = new Specification({ profile: profileOf(profile), machine }, catalogue);
      let state = specification.initial;
      let facts = factsOfState(state);
      for (const command of program) {
        const step = attempt(specification, state, command);
        if ('message' in step) {
          yield { outcome: { kind: 'crash', message: step.message } };
          return;
        }
        if (step.state !== state) facts = factsOfState(step.state);
        state = step.state;
        yield { outcome: step.outcome, facts };
      }
    },
  };
}

/** Changed commands may meet states that the specification holds to be impossible. */
function attempt(specification: Specification, state: State, command: AnyCommand): Step | Error {
  try {
    return specification.step(state, command);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

export const referenceTarget = (machine: Machine = FULL_MACHINE): Target =>
  specificationTarget('reference', CATALOGUE, machine);
