import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import _ from 'lodash';
import type { Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { printProgram } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { runCampaign } from './campaign.ts';
import { printShard, shareOf, type Shard } from './shard.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const shards = (count: number): readonly Shard[] => _.range(1, count + 1).map((index) => ({ index, count }));

/** The programs of a run, as text. */
async function programsOf(seed: number, runs: number): Promise<readonly string[]> {
  const programs: string[] = [];
  const reference = referenceTarget();
  const target: Target = {
    ...reference,
    execute: (program, profile) => {
      programs.push(printProgram(specification, program));
      return reference.execute(program, profile);
    },
  };
  await runCampaign(specification, target, { seed, runs, maxCommands: 40 });
  return programs;
}

describe('the shards of a run', () => {
  const seeds = fc.integer({ min: -(2 ** 31), max: 2 ** 32 - 1 });

  it('have as many programs as the run, and none much more than another', () => {
    fc.assert(
      fc.property(seeds, fc.nat(1_000_000), fc.integer({ min: 1, max: 300 }), (seed, runs, count) => {
        const shares = shards(count).map((shard) => shareOf(shard, { seed, runs }).runs);
        expect(_.sum(shares)).toBe(runs);
        expect((_.max(shares) ?? 0) - (_.min(shares) ?? 0)).toBeLessThanOrEqual(1);
      }),
    );
    expect(shareOf({ index: 2, count: 3 }, { seed: 1, runs: Infinity }).runs).toBe(Infinity);
  });

  it('have seeds of their own, and the first one that of the run', () => {
    fc.assert(
      fc.property(seeds, fc.integer({ min: 1, max: 3000 }), (seed, count) => {
        const own = shards(count).map((shard) => shareOf(shard, { seed, runs: 1 }).seed);
        expect(new Set(own).size).toBe(count);
        expect(own[0]).toBe(seed >>> 0);
      }),
      { numRuns: 20 },
    );
  });

  it('draw programs that no other one draws', async () => {
    const drawn = await Promise.all(
      shards(4).map((shard) => {
        const { seed, runs } = shareOf(shard, { seed: 1, runs: 400 });
        return programsOf(seed, runs);
      }),
    );
    // A handful of commands may come twice by chance, in one run as well.
    const long = drawn.map((programs) => programs.filter((program) => program.split('\n').length > 8));
    expect(_.min(long.map(({ length }) => length))).toBeGreaterThan(50);
    expect(new Set(long.flat()).size).toBe(_.sum(long.map((each) => new Set(each).size)));
  });

  it('are named as on the command line', () => {
    expect(printShard({ index: 2, count: 4 })).toBe('2/4');
  });
});
