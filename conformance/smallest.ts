/**
 * The smallest failing program that can be found. Shrinking one program leads to a local minimum: a fault often shows
 * in several ways, and the way that was met first need not be the shortest. So other failing programs are looked for,
 * shrunk as well, and the smallest is kept.
 */
import type { Program } from '../model/core/program.ts';
import { checkProgram, type Checking } from './check.ts';
import { Generator } from './generate.ts';
import { SmallFastRandom } from './random.ts';
import { canonical, Order, shrinkProgram, type Fails, type Shrunk } from './shrink.ts';

export interface SmallestOptions {
  readonly seed: number;
  readonly maxCommands: number;
  /** Programs to try at most while shrinking. */
  readonly shrinkBudget?: number;
  /** Commands to run at most in search of other failing programs. */
  readonly searchBudget?: number;
}

const DEFAULT_SHRINK_BUDGET = 100_000;
const DEFAULT_SEARCH_BUDGET = 200_000;
/** Other failing programs to shrink at most. */
const OTHERS = 16;

export async function smallestFailure(
  checking: Checking,
  program: Program,
  fails: Fails,
  options: SmallestOptions,
): Promise<Shrunk> {
  const { specification } = checking;
  const budget = options.shrinkBudget ?? DEFAULT_SHRINK_BUDGET;
  const order = new Order(specification);
  let { program: best, runs } = await shrinkProgram(specification, program, fails, { budget, replace: false });
  for await (const other of otherFailures(checking, options)) {
    if (runs >= budget) break;
    const shrunk = await shrinkProgram(specification, other, fails, { budget: budget - runs, replace: false });
    runs += shrunk.runs;
    if (order.isSmaller(shrunk.program, best)) best = shrunk.program;
  }
  const last = await shrinkProgram(specification, best, fails, { budget: Math.max(budget - runs, 0) });
  return { program: canonical(specification, last.program), runs: runs + last.runs };
}

/** Programs that fail, other than the one that was met first, each cut behind the command that fails. */
async function* otherFailures(
  checking: Checking,
  { seed, maxCommands, searchBudget = DEFAULT_SEARCH_BUDGET }: SmallestOptions,
): AsyncIterable<Program> {
  const { specification, target, timeLimitMs } = checking;
  const generator = new Generator(specification, { maxCommands, capabilities: target.capabilities });
  const random = new SmallFastRandom(seed, 0x7e57, maxCommands, 1);
  let found = 0;
  for (let commands = 0; commands < searchBudget && found < OTHERS;) {
    const program = generator.generate(random);
    commands += program.commands.length;
    const verdict = await checkProgram({ specification, target, timeLimitMs }, program.commands, program.trace);
    if (verdict.kind !== 'diverges') continue;
    found++;
    yield program.commands.slice(0, verdict.at + 1);
  }
}
