/** `gmem-conformance/conformance`: the engine, which holds a target against the specification. */
export {
  DEFAULT_BUDGET,
  runCampaign,
  skippedOn,
  type Campaign,
  type CampaignOptions,
  type InvariantResult,
} from './campaign.ts';
export { checkProgram, expectationsOf, printExpectation, type CheckedStep, type Checking } from './check.ts';
export { Coverage } from './coverage.ts';
export { DivergenceError, parseDivergences, type KnownDivergence } from './divergences.ts';
export { type Failure } from './failure.ts';
export { Generator, type GeneratedProgram, type GenerateOptions } from './generate.ts';
export { ALL_INVARIANTS, type InvariantSentence } from './invariants.ts';
export { judge } from './judge.ts';
export { type KnownResult } from './known.ts';
export { modelHash } from './model-hash.ts';
export { SmallFastRandom } from './random.ts';
export { misfit, parseScenario, runScenario, ScenarioError, type Scenario, type Shown } from './scenario.ts';
export { chooseSeed } from './seed.ts';
export { shrinkProgram, type Shrunk, type ShrinkOptions } from './shrink.ts';
export { runStepwise, type Stepwise } from './stepwise.ts';
export { specificationFor, type SubjectOptions } from './subject.ts';
export { decodeToken, encodeToken, isToken, type TokenContent } from './token.ts';
export { EXIT_STATUS, type Divergence, type ProgramVerdict } from './verdict.ts';
