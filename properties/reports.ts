/** Reports for tests of what is written from them. */
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { runStepwise } from '../conformance/stepwise.ts';
import { failureReport, reportOf, type FailureReport, type Report } from '../report/json.ts';
import { scenarioByName } from '../scenarios/library.ts';
import { FIXED_SEED, specify } from './support.ts';

/** A short run of the specification on itself. */
export async function conformingReport(): Promise<Report> {
  const [specification, target] = [specify(), referenceTarget()];
  const campaign = await runCampaign(specification, target, { seed: FIXED_SEED, runs: 30, maxCommands: 30 });
  return reportOf(campaign, { specification, target, seed: FIXED_SEED, version: '1.2.3' });
}

/** What a run reports where a scenario is the shortest program that shows the mutant in its header. */
export async function scenarioFailure(name: string): Promise<FailureReport> {
  const { header, program } = scenarioByName(name);
  const target = mutantById(header.mutant ?? '')?.target;
  if (target === undefined) throw new Error(`the scenario ${name} names no mutant`);
  const specification = specify(header.profile);
  const rerun = await runStepwise({ specification, target }, program);
  if (rerun.verdict.kind !== 'diverges') throw new Error(`the mutant passes the scenario ${name}`);
  const failure = { ...rerun.verdict, program, original: program, shrinkRuns: 7 };
  return failureReport({ specification, target }, failure, rerun);
}

/** The report of a run that failed so. */
export const divergingReport = (report: Report, failures: readonly FailureReport[]): Report => ({
  ...report,
  verdict: 'diverges',
  failures: [...failures],
});
