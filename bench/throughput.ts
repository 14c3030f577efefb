/** Checked commands a second, and what the floor is. */
import fc from 'fast-check';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { checkProgram } from '../conformance/check.ts';
import { Generator, type GeneratedProgram } from '../conformance/generate.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { commandsOf, Runner, type Manner } from './commands.ts';
import { cpuRatio, takeTurns, type Contestant, type Measured } from './measure.ts';
import { count, printTable, ratio, say } from './print.ts';
import { execute, MAX_COMMANDS, specify } from './subjects.ts';

const target = simulatorTarget();
const specification = specify(target.machine);

const engine = (runs: number): Contestant => ({
  name: 'engine',
  run: async (round) => {
    const { commands, verdict } = await runCampaign(specification, target, {
      seed: round,
      runs,
      maxCommands: MAX_COMMANDS,
    });
    if (verdict !== 'conforms') throw new Error(`the simulator does not conform with seed ${round}`);
    return commands;
  },
});

const throughCommands = (manner: Manner, numRuns: number): Contestant => ({
  name: `fc.commands, ${manner}`,
  run: async (round) => {
    const runner = new Runner(specification, target);
    const property = fc.asyncProperty(commandsOf(specification, target, { manner }), (commands) =>
      runner.run(commands),
    );
    await fc.assert(property, { seed: round, numRuns });
    return runner.commands;
  },
});

class Nothing implements fc.Command<{ done: number }, object> {
  check(): boolean {
    return true;
  }
  run(model: { done: number }): void {
    model.done++;
  }
}

const emptyCommands = (numRuns: number): Contestant => ({
  name: 'fc.commands, empty model',
  run: async (round) => {
    const model = { done: 0 };
    const one = fc.constant(0).map(() => new Nothing());
    const property = fc.asyncProperty(fc.commands([one], { maxCommands: MAX_COMMANDS, size: 'max' }), (commands) => {
      fc.modelRun(() => ({ model, real: {} }), commands);
      return Promise.resolve();
    });
    await fc.assert(property, { seed: round, numRuns });
    return model.done;
  },
});

const integers = (numRuns: number): Contestant => ({
  name: 'fc.array(fc.integer())',
  run: async (round) => {
    let done = 0;
    const property = fc.asyncProperty(fc.array(fc.integer(), { maxLength: MAX_COMMANDS, size: 'max' }), (list) => {
      done += list.length;
      return Promise.resolve();
    });
    await fc.assert(property, { seed: round, numRuns });
    return done;
  },
});

function generate(runs: number, seed: number): readonly GeneratedProgram[] {
  const { capabilities } = target;
  const generator = new Generator(specification, { maxCommands: MAX_COMMANDS, capabilities });
  const random = new SmallFastRandom(seed, 1, 2, 3);
  return Array.from({ length: runs }, () => generator.generate(random));
}

const lengthOf = (programs: readonly GeneratedProgram[]): number =>
  programs.reduce((sum, { commands }) => sum + commands.length, 0);

/** Where the time of the engine goes. */
const parts = (runs: number): readonly Contestant[] => {
  const prepared = generate(runs, 0);
  return [
    { name: '  of it: generate and step', run: (round) => lengthOf(generate(runs, round)) },
    {
      name: '  of it: simulate, with facts',
      run: () => {
        for (const { commands } of prepared) execute(target, specification, commands);
        return lengthOf(prepared);
      },
    },
    {
      name: '  of it: simulate and check, without secrets',
      run: async () => {
        for (const { commands, trace } of prepared) await checkProgram({ specification, target }, commands, trace);
        return lengthOf(prepared);
      },
    },
  ];
};

async function throughput({ quick }: BenchOptions): Promise<unknown> {
  const runs = quick ? 500 : 2000;
  const measured = await takeTurns(
    [
      engine(runs),
      ...parts(runs),
      throughCommands('guided', runs),
      throughCommands('blind', runs),
      emptyCommands(runs),
      integers(runs),
    ],
    quick ? { warmUps: 2, rounds: 3 } : { warmUps: 3, rounds: 7 },
  );
  const reference = measured[0] as Measured;
  const results = measured.map((each) => ({
    name: each.name.trim(),
    commandsPerCpuSecond: 1e9 / each.cpu,
    commandsPerSecond: 1e9 / each.wall,
    /** How many times as fast as the engine. */
    speed: cpuRatio(reference, each),
  }));
  say(
    printTable(
      ['', 'per CPU second', 'per second', 'speed, engine = 1'],
      results.map(({ commandsPerCpuSecond, commandsPerSecond, speed }, index) => [
        (measured[index] as Measured).name,
        count(commandsPerCpuSecond),
        count(commandsPerSecond),
        ratio(speed),
      ]),
    ),
  );
  return { unit: 'checked commands', maxCommands: MAX_COMMANDS, programsPerRound: runs, results };
}

export const THROUGHPUT: Bench = {
  name: 'throughput',
  question: 'How many commands are generated, executed and checked in a second?',
  run: throughput,
};
