/** From the first failing program to a short one: how short, and after how many executions. */
import fc from 'fast-check';
import { mutantById, type Mutant } from '../adapters/mutants/index.ts';
import { DEFAULT_BUDGET, runCampaign } from '../conformance/campaign.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { commandsOf, Divergence, Runner } from './commands.ts';
import { median } from './measure.ts';
import { count, printTable, say, showProgress } from './print.ts';
import { counted, MAX_COMMANDS, specifyFor } from './subjects.ts';

/** Faults of several kinds that every contestant finds soon. */
const CHOSEN = [
  'overlap-misses-last-page',
  'file-does-not-pin-vm',
  'binding-kept-on-delete',
  'punch-keeps-user-mapping',
  'notifier-ignored',
  'stale-stage-two-after-punch',
] as const;

/** Programs that fast-check may execute while it shrinks one; then every further one passes unseen. */
const CAP = 20_000;
/** Programs to wait for the first failure. */
const PATIENCE = 20_000;

interface Shrunk {
  readonly length: number;
  /** Executions after the first failure, those in search of other failing programs included. */
  readonly executions: number;
}

type Shrinker = (mutant: Mutant, seed: number) => Promise<Shrunk | undefined>;

const byEngine =
  (searchBudget?: number): Shrinker =>
  async (mutant, seed) => {
    const { target, counter } = counted(mutant.target);
    let before = 0;
    const { failure } = await runCampaign(specifyFor(mutant), target, {
      seed,
      ...DEFAULT_BUDGET,
      ...(searchBudget === undefined ? {} : { searchBudget }),
      onDivergence: () => {
        before = counter.programs;
      },
    });
    return failure && { length: failure.program.length, executions: counter.programs - before };
  };

const byCommands: Shrinker = async (mutant, seed) => {
  const specification = specifyFor(mutant);
  const { target, counter } = counted(mutant.target);
  const runner = new Runner(specification, target);
  let before: number | undefined;
  const commands = commandsOf(specification, target, { manner: 'guided', shrinkable: true });
  const property = fc.asyncProperty(commands, async (program) => {
    if (before !== undefined && counter.programs - before >= CAP) return;
    try {
      await runner.run(program);
    } catch (error) {
      if (error instanceof Divergence) before ??= counter.programs;
      throw error;
    }
  });
  const { errorInstance } = await fc.check(property, { seed, numRuns: PATIENCE, maxSkipsPerRun: 0 });
  if (before === undefined || runner.failed === undefined) return undefined;
  if (!(errorInstance instanceof Divergence)) throw errorInstance;
  return { length: runner.failed, executions: counter.programs - before };
};

const SHRINKERS = { engine: byEngine(0), thorough: byEngine(), commands: byCommands } as const;
type Name = keyof typeof SHRINKERS;

interface Row {
  readonly mutant: string;
  readonly shortest: number;
  readonly results: Readonly<Record<Name, readonly Shrunk[]>>;
}

async function shrinkAll(mutant: Mutant, seeds: number): Promise<Row> {
  const results: Record<Name, Shrunk[]> = { engine: [], thorough: [], commands: [] };
  for (let seed = 1; seed <= seeds; seed++)
    for (const name of Object.keys(SHRINKERS) as Name[]) {
      const shrunk = await SHRINKERS[name](mutant, seed);
      if (shrunk !== undefined) results[name].push(shrunk);
    }
  return { mutant: mutant.id, shortest: mutant.shortest ?? NaN, results };
}

function printLengths(shrunk: readonly Shrunk[]): string {
  const lengths = shrunk.map(({ length }) => length).sort((a, b) => a - b);
  const [first, last] = [lengths[0], lengths[lengths.length - 1]];
  if (first === undefined || last === undefined) return 'not found';
  return first === last ? `${first}` : `${first}–${last}`;
}

const printExecutions = (shrunk: readonly Shrunk[]): string =>
  shrunk.length === 0 ? '' : count(median(shrunk.map(({ executions }) => executions)));

async function shrink({ quick, seeds }: BenchOptions): Promise<unknown> {
  const mutants = CHOSEN.flatMap((id) => mutantById(id) ?? []).slice(0, quick ? 3 : undefined);
  const rows: Row[] = [];
  for (const mutant of mutants) {
    showProgress(`${rows.length} of ${mutants.length} mutants`);
    rows.push(await shrinkAll(mutant, seeds));
  }
  showProgress('');
  say(
    printTable(
      ['commands left, and executions', 'shortest', 'engine', '', 'with search', '', 'fc.commands', ''],
      rows.map(({ mutant, shortest, results }) => [
        mutant,
        `${shortest}`,
        ...(Object.keys(SHRINKERS) as Name[]).flatMap((name) => [
          printLengths(results[name]),
          printExecutions(results[name]),
        ]),
      ]),
    ),
  );
  return { seeds, cap: CAP, maxCommands: MAX_COMMANDS, mutants: rows };
}

export const SHRINK: Bench = {
  name: 'shrink',
  question: 'How short does a failing program get, and after how many executions?',
  run: shrink,
};
