/** Machines that are wrong only where two commands meet are found from random programs, and the right one is not accused. */
import { describe, expect, it } from '@jest/globals';
import { RACE_MUTANTS } from '../adapters/mutants/index.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runRaces } from '../conformance/race-campaign.ts';
import { raceAnywhere } from '../conformance/race.ts';
import { PLAIN } from '../report/colors.ts';
import { printRaceFailure } from '../report/race.ts';
import { GUEST_MEMORY, SIMULATED, specify } from './support.ts';

const OPTIONS = { seed: 1, runs: 10_000, maxCommands: 30 };

describe('random programs in which two commands meet', () => {
  it.each(RACE_MUTANTS.filter(({ profile }) => GUEST_MEMORY.includes(profile)).map((each) => [each.id, each] as const))(
    'tell %s from a right machine',
    async (_id, { profile, target }) => {
      const specification = specify(profile);
      const { failure } = await runRaces({ specification, target }, OPTIONS);
      if (failure === undefined) throw new Error(`${OPTIONS.runs} programs do not tell`);
      // That it is the mistake which tells, and not the judge: the right machine passes that program.
      expect(raceAnywhere({ specification, target: simulatorTarget() }, failure.program)).toBeUndefined();
    },
  );

  it.each(SIMULATED)('accuse no right machine in %s', async (profile) => {
    const { failure } = await runRaces(
      { specification: specify(profile), target: simulatorTarget() },
      { ...OPTIONS, runs: 500 },
    );
    expect(failure && printRaceFailure(specify(profile), failure, PLAIN)).toBeUndefined();
  });
});
