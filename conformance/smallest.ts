/**
 * The smallest failing program that can be found. Shrinking one program leads to a local minimum: a fault often shows
 * in several ways, and the way that was met first need not be the shortest. So other failing programs are looked for,
 * shrunk as well, and the smallest is kept.
 */
import type { Program } from '../model/core/program.ts';
import { breathe } from './breathe.ts';
import { abilitiesOf } from './capability.ts';
import { checkProgram, type Checking } from './check.ts';
import type { Counts } from './failure.ts';
import { Generator } from './generate.ts';
import { SmallFastRandom } from './random.ts';
import { canonical, Order, SHRINK_BUDGET, shrinkProgram, type Fails, type Shrunk } from './shrink.ts';

export interface SmallestOptions {
  readonly seed: number;
  /** Which failures are worth shrinking. */
  readonly counts: Counts;
  /** Ends the search with what was found so far. */
  readonly signal: AbortSignal;
  readonly maxCommands: number;
  /** Programs to try at most while shrinking. */
  readonly shrinkBudget?: number;
  /** Commands to run at most in search of other failing programs. */
  readonly searchBudget?: number;
}

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
  const { shrinkBudget: budget = SHRINK_BUDGET, signal } = options;
  const order = new Order(specification);
  const shrink = (from: Program, left: number, replace: boolean): Promise<Shrunk> =>
    shrinkProgram(specification, from, fails, { budget: left, replace, signal });
  let { program: best, runs } = await shrink(program, budget, false);
  for await (const other of otherFailures(checking, options)) {
    if (runs >= budget) break;
    const shrunk = await shrink(other, budget - runs, false);
    runs += shrunk.runs;
    if (order.isSmaller(shrunk.program, best)) best = shrunk.program;
  }
  const last = await shrink(best, Math.max(budget - runs, 0), true);
  return { program: canonical(specification, last.program), runs: runs + last.runs };
}

/** Programs that fail, other than the one that was met first, each cut behind the command that fails. */
async function* otherFailures(
  checking: Checking,
  { seed, maxCommands, counts, signal, searchBudget = DEFAULT_SEARCH_BUDGET }: SmallestOptions,
): AsyncIterable<Program> {
  const { specification, target } = checking;
  const generator = new Generator(specification, { ...abilitiesOf(target), maxCommands });
  const random = new SmallFastRandom(seed, 0x7e57, maxCommands, 1);
  let found = 0;
  for (let commands = 0; commands < searchBudget && found < OTHERS && !signal.aborted;) {
    const program = generator.generate(random);
    commands += program.commands.length;
    await breathe();
    const verdict = await checkProgram(checking, program.commands, program.trace);
    // A target that is gone, or hangs, is not worth waiting for.
    if (verdict.kind === 'inconclusive' && verdict.isUnsupported !== true) return;
    if (verdict.kind !== 'diverges' || !counts(verdict, program.commands)) continue;
    found++;
    yield program.commands.slice(0, verdict.at + 1);
  }
}
