/** `gmem-conformance`: to write an adapter, to run programs on it, and to report what came of them. */
export * from './adapters/index.ts';
export { referenceTarget } from './adapters/reference/reference.ts';
export { simulatorTarget } from './adapters/simulator/index.ts';
export { DEFAULT_BUDGET, runCampaign, type CampaignOptions } from './conformance/campaign.ts';
export { type Campaign, type InvariantResult } from './conformance/findings.ts';
export { type Failure } from './conformance/failure.ts';
export { chooseSeed } from './conformance/seed.ts';
export { runStepwise, type Stepwise } from './conformance/stepwise.ts';
export { specificationFor, type SubjectOptions } from './conformance/subject.ts';
export { EXIT_STATUS, type Divergence, type ProgramVerdict } from './conformance/verdict.ts';
export { Specification } from './model/core/specification.ts';
export { VERSION } from './report/installation.ts';
export { reportOf, type Circumstances, type FailureReport, type Report } from './report/json.ts';
export { printFailure, printReport } from './report/terminal.ts';
export { PLAIN, type Colors } from './report/colors.ts';
