import { afterAll, describe, expect, it } from '@jest/globals';
import { checkProgram } from '../../conformance/check.ts';
import { Generator } from '../../conformance/generate.ts';
import { SmallFastRandom } from '../../conformance/random.ts';
import type { Divergence } from '../../conformance/verdict.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { Specification } from '../../model/core/specification.ts';
import { spawnAgent } from './agent.ts';
import { kvmUnavailable, openKvm } from './kvm.ts';
import { lowerWrongly, LOWERING_MUTANTS, type LoweringMutant } from './mutants.ts';
import { KernelTarget } from './target.ts';

const unavailable = kvmUnavailable();
const suite = unavailable === undefined ? describe : describe.skip;
const why = unavailable === undefined ? '' : ` (skipped: ${unavailable})`;

const PROGRAMS = 400;
const SEED = 7;

interface Noticed extends Divergence {
  readonly programs: number;
  readonly command: string;
}

/** The first program that shows the fault and that the kernel, called as it should be, passes. */
async function hunt(mutant: LoweringMutant, sound: KernelTarget): Promise<Noticed | undefined> {
  const specification = new Specification({ profile: sound.profile, machine: sound.machine }, CATALOGUE);
  const connect = async () => spawnAgent();
  const target = await KernelTarget.open({ name: mutant.id, connect, close: async () => {} }, lowerWrongly(mutant));
  const generator = new Generator(specification, { maxCommands: 60, capabilities: target.capabilities });
  const random = new SmallFastRandom(SEED, 1, 2, 3);
  try {
    for (let programs = 1; programs <= PROGRAMS; programs++) {
      const { commands, trace } = generator.generate(random);
      const verdict = await checkProgram({ specification, target }, commands, trace);
      if (verdict.kind === 'inconclusive') throw new Error(`${mutant.id}: ${verdict.reason}`);
      if (verdict.kind === 'conforms') continue;
      const truth = await checkProgram({ specification, target: sound }, commands, trace);
      const { name: command = '' } = commands[verdict.at] ?? {};
      if (truth.kind === 'conforms') return { ...verdict, programs, command };
    }
    return undefined;
  } finally {
    await target.close();
  }
}

suite(`a wrong way to lower programs${why}`, () => {
  let opened: Promise<KernelTarget> | undefined;
  const sound = () => (opened ??= openKvm());
  const rows: string[] = [];
  afterAll(async () => {
    process.stdout.write(`${['programs  mutant                         noticed at', ...rows].join('\n')}\n`);
    await (await opened)?.close();
  });

  it.each(LOWERING_MUTANTS.map((mutant) => [mutant.id, mutant] as const))('%s', async (id, mutant) => {
    const noticed = await hunt(mutant, await sound());
    const hidden = mutant.hidden?.((await sound()).machine);
    const told =
      noticed === undefined
        ? (hidden ?? 'its results are right')
        : `${noticed.command}: ${noticed.rule}, ${noticed.expected} / ${noticed.observed}`;
    rows.push(`${`${noticed?.programs ?? '-'}`.padStart(8)}  ${id.padEnd(29)}  ${told}`);
    expect(noticed !== undefined).toBe(hidden === undefined && mutant.leaks === undefined);
  });
});
