/** Holding the kit against implementations that are known to be wrong. */
import type { Mutant } from '../adapters/mutants/index.ts';
import type { CampaignOptions } from '../conformance/campaign.ts';
import { grade } from '../conformance/grade.ts';
import { gradeOf, type MutantGrade } from '../report/grades.ts';
import { specify } from './options.ts';
import { showProgress } from './output.ts';

export interface GradingOptions extends CampaignOptions {
  /** Programs for each mutant that is said to be equivalent, where these are others: they are run for nothing but a surprise. */
  readonly equivalentRuns?: number;
}

/** Every mutant is tried in the profile in which its fault shows. An interruption leaves out those that it comes before. */
export async function gradeMutants(
  mutants: readonly Mutant[],
  { equivalentRuns, ...options }: GradingOptions,
): Promise<readonly MutantGrade[]> {
  const progress = showProgress('mutants', mutants.length);
  const grades: MutantGrade[] = [];
  try {
    for (const mutant of mutants) {
      const specification = specify(mutant.profile, mutant.target.machine);
      const runs = mutant.equivalent === undefined ? options.runs : (equivalentRuns ?? options.runs);
      const result = await grade(specification, mutant.target, { ...options, runs });
      if (options.signal?.aborted === true) break;
      grades.push(gradeOf(mutant, result, specification));
      progress.update(grades.length);
    }
  } finally {
    progress.stop();
  }
  return grades;
}
