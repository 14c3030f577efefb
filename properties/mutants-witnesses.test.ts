/**
 * Every hand-written mutant shrinks to the shortest program that shows its fault. `GMEM_PROOF=1` takes 50 seeds for each,
 * as the claim in the documentation does; by default one, and other failing programs are sought only where the first one
 * does not shrink to the shortest.
 */
import { describe, expect, jest, test } from '@jest/globals';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { DEFAULT_BUDGET } from '../conformance/campaign.ts';
import { grade } from '../conformance/grade.ts';
import { judge } from '../conformance/judge.ts';
import { SEARCH_BUDGET, specify } from './support.ts';

const PROOF = process.env['GMEM_PROOF'] === '1';
if (PROOF) jest.setTimeout(3_600_000);
const SEEDS = Array.from({ length: PROOF ? 50 : 1 }, (_, index) => index + 1);

describe('the hand-written mutants', () => {
  const handWritten = MUTANTS.flatMap(({ id, profile, target, shortest }) =>
    shortest === undefined ? [] : [{ id, profile, target, shortest }],
  );
  const found: string[] = [];

  test.each(handWritten)('$id: $shortest commands from every seed', async ({ profile, target, shortest }) => {
    const specification = specify(profile);
    const lengths: (number | undefined)[] = [];
    for (const seed of SEEDS) {
      const options = { seed, ...DEFAULT_BUDGET };
      const first = PROOF ? undefined : await grade(specification, target, { ...options, searchBudget: 0 });
      const isShortest = first?.witness?.program.length === shortest;
      const { witness } = isShortest
        ? first
        : await grade(specification, target, { ...options, searchBudget: SEARCH_BUDGET });
      lengths.push(witness?.program.length);
      // That it is the mistake which tells, and not the design: the machine without it passes the program.
      const right = simulatorTarget(target.machine);
      expect((await judge({ specification, target: right }, witness?.program ?? [])).kind).toBe('conforms');
      found.push(witness?.observed ?? '');
    }
    expect(lengths).toEqual(SEEDS.map(() => shortest));
  });

  test('show in what they do wrong: few of those above need a crash to be caught', () => {
    expect(found.filter((observed) => observed.startsWith('crash')).length).toBeLessThanOrEqual(found.length / 4);
  });
});
