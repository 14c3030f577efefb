import { afterAll, expect, it } from '@jest/globals';
import { checkProgram } from '../../conformance/check.ts';
import type { Divergence } from '../../conformance/verdict.ts';
import { holdings, kernelSuite, WatchedKernel } from '../../properties/kernel.ts';
import { lowerWrongly, LOWERING_MUTANTS, type LoweringMutant } from './mutants.ts';

/** At most; where nothing is to be noticed, fewer. */
const PROGRAMS = 400;
const PROGRAMS_IN_VAIN = 100;
const SEED = 7;

interface Noticed {
  readonly programs: number;
  /** The rule with what was expected and observed, or why the program came to no end. */
  readonly told: string;
}

const tell = ({ rule, expected, observed }: Divergence): string =>
  `${rule}: expected ${expected}, observed ${observed}`;

/** The first program that shows the fault, and that the kernel passes when it is called as it should be. */
async function hunt(wrong: WatchedKernel, sound: WatchedKernel, programs: number): Promise<Noticed | undefined> {
  const { specification } = sound;
  let count = 0;
  for (const { commands, trace } of sound.programs(SEED, programs)) {
    count++;
    const verdict = await checkProgram({ specification, target: wrong.target }, commands, trace);
    if (verdict.kind === 'conforms') continue;
    const truth = await checkProgram({ specification, target: sound.target }, commands, trace);
    if (truth.kind === 'conforms')
      return { programs: count, told: verdict.kind === 'diverges' ? tell(verdict) : verdict.reason };
  }
  return undefined;
}

const held = async (kernel: WatchedKernel): Promise<number> => {
  const { descriptors, mappings } = holdings(await kernel.pid());
  return descriptors + mappings;
};

kernelSuite('a wrong way to lower programs', () => {
  let opened: Promise<WatchedKernel> | undefined;
  const sound = () => (opened ??= WatchedKernel.open());
  const rows = ['programs  mutant                          noticed by'];
  afterAll(async () => {
    process.stdout.write(`${rows.join('\n')}\n`);
    await (await opened)?.target.close();
  });

  const test = async (mutant: LoweringMutant): Promise<Noticed | undefined> => {
    const wrong = await WatchedKernel.open({ lower: lowerWrongly(mutant), programMs: 5000 });
    try {
      const before = await held(wrong);
      const hidden = mutant.hidden?.(wrong.target.machine);
      const inVain = hidden !== undefined || mutant.leaks === true;
      const noticed = await hunt(wrong, await sound(), inVain ? PROGRAMS_IN_VAIN : PROGRAMS);
      // What was noticed may have taken the agent along.
      const grown = noticed === undefined ? (await held(wrong)) - before : 0;
      const told =
        noticed === undefined
          ? (hidden ?? `what the agent is left with: ${grown} descriptors and mappings`)
          : noticed.told;
      rows.push(`${`${noticed?.programs ?? '-'}`.padStart(8)}  ${mutant.id.padEnd(30)}  ${told}`);
      if (noticed === undefined) expect(grown > PROGRAMS_IN_VAIN / 10).toBe(mutant.leaks === true);
      return noticed;
    } finally {
      await wrong.target.close();
    }
  };

  it.each(LOWERING_MUTANTS.map((mutant) => [mutant.id, mutant] as const))('%s', async (_id, mutant) => {
    const noticed = await test(mutant);
    const hidden = mutant.hidden?.((await sound()).target.machine);
    expect(noticed !== undefined).toBe(hidden === undefined && mutant.leaks === undefined);
  });
});
