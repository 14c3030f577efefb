/**
 * The kit grades itself: every wrong implementation is told from a right one within the default budget. The
 * hand-written ones are found in mutants-witnesses.test.ts as well, which shrinks what they are found by.
 */
import { describe, expect, it } from '@jest/globals';
import { MUTANTS, type Mutant } from '../adapters/mutants/index.ts';
import { DEFAULT_BUDGET, runCampaign } from '../conformance/campaign.ts';
import type { Campaign } from '../conformance/findings.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FIXED_SEED, specify } from './support.ts';

/** With GMEM_PROOF=1 twenty seeds in a row, which takes minutes. */
const PROOF = process.env['GMEM_PROOF'] === '1';
const SEEDS = Array.from({ length: PROOF ? 20 : 1 }, (_each, index) => FIXED_SEED + index);

const hunt = (mutant: Mutant, seed: number, runs: number): Promise<Campaign> =>
  runCampaign(specify(mutant.profile, mutant.target.machine), mutant.target, {
    ...DEFAULT_BUDGET,
    seed,
    runs,
    shrinkBudget: 0,
    searchBudget: 0,
  });

const killable = MUTANTS.filter(({ equivalent }) => equivalent === undefined);
const equivalent = MUTANTS.filter((each) => each.equivalent !== undefined);
const hunted = PROOF ? killable : killable.filter(({ origin }) => origin === 'derived');

it.each(hunted.map((each) => [each.id, each] as const))(
  `%s is killed from each of ${SEEDS.length} seeds`,
  async (_id, mutant) => {
    const survived: number[] = [];
    for (const seed of SEEDS)
      if ((await hunt(mutant, seed, DEFAULT_BUDGET.runs)).verdict !== 'diverges') survived.push(seed);
    expect(survived).toEqual([]);
  },
);

describe('mutants that are said to be equivalent', () => {
  it.each(equivalent.map((each) => [each.id, each] as const))('%s survives', async (_id, mutant) => {
    expect((await hunt(mutant, FIXED_SEED, 1000)).verdict).toBe('conforms');
  });
});

describe('the mutants', () => {
  it('are named once each, and say what is wrong', () => {
    expect(new Set(MUTANTS.map(({ id }) => id)).size).toBe(MUTANTS.length);
    expect(MUTANTS.filter(({ fault }) => fault === '')).toEqual([]);
  });

  it('drop every row that decides something and can be reached', () => {
    const dropped = new Set(MUTANTS.map(({ id }) => id));
    const rows = CATALOGUE.flatMap(({ guards }) => guards)
      .filter((row) => !('unmodelled' in row) && row.unreachable === undefined)
      .map(({ id }) => `drop:${id}`);
    expect(rows.filter((id) => !dropped.has(id))).toEqual([]);
  });
});
