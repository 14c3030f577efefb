/** `gmem-conformance/model`: the specification. */
export { CATALOGUE, type Command } from './catalogue.ts';
export type { ArgValue, Domain } from './core/domain.ts';
export type * from './core/facts.ts';
export { fails, ok, printOutcome, sameOutcome, type Errno, type Observation, type Outcome } from './core/outcome.ts';
export {
  DEFAULT_PROFILE,
  FULL_MACHINE,
  profileById,
  PROFILES,
  type Condition,
  type Config,
  type Feature,
  type Machine,
  type Profile,
} from './core/profile.ts';
export {
  headerOf,
  parseProgram,
  printCommand,
  printProgram,
  ProgramError,
  type ParsedProgram,
  type Program,
} from './core/program.ts';
export {
  argumentsOf,
  Specification,
  type AnyCommand,
  type AnyTransition,
  type Rule,
  type Step,
} from './core/specification.ts';
export { initialState, type Label, type State } from './core/state.ts';
export { defineTransition, type Acceptance, type Guard, type Transition } from './core/transition.ts';
export { factsOfState } from './facts-of-state.ts';
export { brokenBy, INVARIANTS, isObservable, type Invariant } from './invariants/index.ts';
