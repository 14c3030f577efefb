/** Commands until each wrong implementation gives itself away. Counts, not times: the same on every machine. */
import fc from 'fast-check';
import _ from 'lodash';
import { availableParallelism } from 'node:os';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { mutantById, MUTANTS, type Mutant } from '../adapters/mutants/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { commandsOf, Divergence, Runner, type Manner } from './commands.ts';
import { median } from './measure.ts';
import { count, printTable, ratio, say, showProgress } from './print.ts';
import { MAX_COMMANDS, specifyFor } from './subjects.ts';

/** After so many commands a mutant counts as survivor: for the blind manner sooner, which speaks for it. */
const CAPS = { engine: 300_000, guided: 300_000, blind: 100_000 } as const;
const QUICK_CAPS = { engine: 30_000, guided: 30_000, blind: 30_000 } as const;

/** Commands up to the one that told, or undefined where none did within the cap. */
type Hunt = (mutant: Mutant, seed: number, cap: number) => Promise<number | undefined>;

const byEngine: Hunt = async (mutant, seed, cap) => {
  const { commands, failure } = await runCampaign(specifyFor(mutant), mutant.target, {
    seed,
    // Lengths are drawn evenly, so that a program has half of the largest length, or more where it ends early.
    runs: Math.ceil((3 * cap) / MAX_COMMANDS),
    maxCommands: MAX_COMMANDS,
    shrinkBudget: 0,
    searchBudget: 0,
  });
  const total = failure === undefined ? Infinity : commands + failure.at + 1;
  return total > cap ? undefined : total;
};

class CapReached extends Error {}

const byCommands =
  (manner: Manner): Hunt =>
  async (mutant, seed, cap) => {
    const specification = specifyFor(mutant);
    const runner = new Runner(specification, mutant.target);
    const property = fc.asyncProperty(commandsOf(specification, mutant.target, { manner }), async (commands) => {
      if (runner.commands >= cap) throw new CapReached();
      await runner.run(commands);
    });
    const { errorInstance } = await fc.check(property, { seed, numRuns: cap, endOnFailure: true });
    if (errorInstance instanceof CapReached) return undefined;
    // What else is thrown is no verdict about the target.
    if (!(errorInstance instanceof Divergence)) throw errorInstance;
    return runner.commands;
  };

interface Kill {
  /** Commands in the median; the cap, where the mutant survives. */
  readonly commands: number;
  readonly survives: boolean;
}

/** The median over the seeds. It is known once most of them have let the mutant live. */
async function hunt(by: Hunt, mutant: Mutant, seeds: number, cap: number): Promise<Kill> {
  const taken: number[] = [];
  let survivals = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    const commands = await by(mutant, seed, cap);
    if (commands === undefined) survivals++;
    taken.push(commands ?? cap);
    if (survivals > seeds / 2) return { commands: cap, survives: true };
  }
  return { commands: median(taken), survives: false };
}

interface Row {
  readonly mutant: string;
  readonly origin: Mutant['origin'];
  readonly engine: Kill;
  readonly guided: Kill;
  readonly blind: Kill;
}

interface Summary {
  readonly mutants: string;
  readonly against: Manner;
  readonly median: number;
  /** Survivors count with the cap, so that the true median may lie above. */
  readonly atLeast: boolean;
  readonly survivors: number;
  readonly tenfold: number;
  readonly fewer: number;
  readonly of: number;
}

function summary(mutants: string, rows: readonly Row[], against: Manner): Summary {
  const ratios = rows.map((row) => row[against].commands / row.engine.commands);
  const middle = median(ratios);
  return {
    mutants,
    against,
    median: middle,
    atLeast: rows.some((row, index) => row[against].survives && (ratios[index] as number) <= middle),
    survivors: rows.filter((row) => row[against].survives).length,
    tenfold: ratios.filter((each) => each >= 10).length,
    fewer: ratios.filter((each) => each < 1).length,
    of: rows.length,
  };
}

const summarize = (rows: readonly Row[]): readonly Summary[] =>
  (['guided', 'blind'] as const).flatMap((manner) => [
    summary('hand-written', byOrigin(rows, 'hand-written'), manner),
    summary('derived', byOrigin(rows, 'derived'), manner),
    summary('all of these', rows, manner),
  ]);

const byOrigin = (rows: readonly Row[], wanted: Mutant['origin']): readonly Row[] =>
  rows.filter(({ origin }) => origin === wanted);

const printKill = ({ commands, survives }: Kill): string => `${survives ? '> ' : ''}${count(commands)}`;
const printRatio = (row: Row, manner: Manner): string =>
  `${row[manner].survives ? '> ' : ''}${ratio(row[manner].commands / row.engine.commands)}`;

const printSummaries = (summaries: readonly Summary[]): string =>
  printTable(
    ['fc.commands / engine', 'mutants', 'median ratio', 'survive', '10 and more', 'below 1'],
    summaries.map(({ mutants, against, median: middle, atLeast, survivors, tenfold, fewer, of }) => [
      `${against}, ${mutants}`,
      `${of}`,
      `${atLeast ? '>= ' : ''}${ratio(middle)}`,
      `${survivors}`,
      `${tenfold}`,
      `${fewer}`,
    ]),
  );

/** Every hand-written mutant, and every so many of the derived ones. */
function chosen(every: number): readonly Mutant[] {
  const derived = MUTANTS.filter(({ origin, equivalent }) => origin === 'derived' && equivalent === undefined);
  return [
    ...MUTANTS.filter(({ origin }) => origin === 'hand-written'),
    ...derived.filter((_mutant, index) => index % every === 0),
  ];
}

type Caps = Readonly<Record<'engine' | Manner, number>>;

async function rowFor(mutant: Mutant, { seeds, caps }: Terms): Promise<Row> {
  return {
    mutant: mutant.id,
    origin: mutant.origin,
    engine: await hunt(byEngine, mutant, seeds, caps.engine),
    guided: await hunt(byCommands('guided'), mutant, seeds, caps.guided),
    blind: await hunt(byCommands('blind'), mutant, seeds, caps.blind),
  };
}

/** How threads are to hunt. Counts do not depend on who counts, so that all cores may. */
interface Terms {
  readonly seeds: number;
  readonly caps: Caps;
}

/** Run by each thread: answers the name of a mutant with its row. */
export function huntInThread(): void {
  parentPort?.on('message', (id: string) => {
    const mutant = mutantById(id);
    if (mutant === undefined) throw new RangeError(`unknown mutant '${id}'`);
    void rowFor(mutant, workerData as Terms).then((row) => parentPort?.postMessage(row));
  });
}

async function rowsFor(mutants: readonly string[], terms: Terms): Promise<readonly Row[]> {
  const waiting = [...mutants];
  const rows: Row[] = [];
  const serve = (worker: Worker): Promise<void> =>
    new Promise((resolve, reject) => {
      const next = (): void => {
        showProgress(`${rows.length} of ${mutants.length} mutants`);
        const id = waiting.shift();
        if (id === undefined) void worker.terminate();
        else worker.postMessage(id);
      };
      worker.on('message', (row: Row) => {
        rows.push(row);
        next();
      });
      worker.on('error', reject).on('exit', () => resolve());
      next();
    });
  const threads = Array.from(
    { length: availableParallelism() },
    () => new Worker(process.argv[1] as string, { workerData: terms }),
  );
  await Promise.all(threads.map(serve));
  return _.sortBy(rows, ({ mutant }) => mutants.indexOf(mutant));
}

async function kills({ quick, seeds }: BenchOptions): Promise<unknown> {
  const caps = quick ? QUICK_CAPS : CAPS;
  const rows = await rowsFor(
    chosen(quick ? 24 : 8).map(({ id }) => id),
    { seeds, caps },
  );
  showProgress('');
  say(
    printTable(
      ['commands until the kill', 'engine', 'guided', 'ratio', 'blind', 'ratio'],
      rows.map((row) => [
        row.mutant,
        printKill(row.engine),
        printKill(row.guided),
        printRatio(row, 'guided'),
        printKill(row.blind),
        printRatio(row, 'blind'),
      ]),
    ),
  );
  const summaries = summarize(rows);
  say(`\n${printSummaries(summaries)}`);
  return { caps, seeds, summaries, mutants: rows };
}

export const KILLS: Bench = {
  name: 'kills',
  question: 'How many commands does it take to tell a wrong implementation from a right one?',
  run: kills,
};
