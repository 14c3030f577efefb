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
import { canonical, Order, SHRINK_BUDGET, shrinkProgram, type Effort, type Fails, type Shrunk } from './shrink.ts';

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

const DEFAULT_SEARCH_BUDGET = 60_000;
/** Other failing programs to shrink at most. */
const OTHERS = 32;
/** Of all, how many to shrink further: dropping commands is cheap, and tells which are promising. */
const FINALISTS = 3;

export async function smallestFailure(
  checking: Checking,
  program: Program,
  fails: Fails,
  options: SmallestOptions,
): Promise<Shrunk> {
  const { specification } = checking;
  const { shrinkBudget: budget = SHRINK_BUDGET, signal } = options;
  const order = new Order(specification);
  let runs = 0;
  const shrink = async (from: Program, effort: Effort): Promise<Program> => {
    const shrunk = await shrinkProgram(specification, from, fails, {
      budget: Math.max(budget - runs, 0),
      effort,
      signal,
    });
    runs += shrunk.runs;
    return shrunk.program;
  };
  const smallest = (programs: readonly Program[]): readonly Program[] =>
    programs.toSorted((a, b) => (order.isSmaller(a, b) ? -1 : 1));
  const dropped = [await shrink(program, 'drop')];
  if (runs < budget)
    for await (const other of otherFailures(checking, dropped[0] as Program, options)) {
      dropped.push(await shrink(other, 'drop'));
      if (runs >= budget) break;
    }
  const shrunk: Program[] = [];
  for (const each of smallest(dropped).slice(0, FINALISTS)) shrunk.push(await shrink(each, 'replace'));
  const [best] = smallest(shrunk) as [Program];
  return { program: canonical(specification, best), runs };
}

/** Different programs that fail, each cut behind the command that fails; rare beginnings come again and again. */
async function* otherFailures(
  checking: Checking,
  first: Program,
  { seed, maxCommands, counts, signal, searchBudget = DEFAULT_SEARCH_BUDGET }: SmallestOptions,
): AsyncIterable<Program> {
  // Nothing is shorter than one command, and what fails at its first may be a target that must be started for each.
  if (first.length === 1) return;
  const { specification, target } = checking;
  const options = { ...abilitiesOf(target), maxCommands };
  const favoured = new Set(first.map(({ name }) => name));
  // Programs of the same commands fail often; only others can show that the fault has a shorter way.
  const generators = [new Generator(specification, { ...options, favoured }), new Generator(specification, options)];
  const random = new SmallFastRandom(seed, 0x7e57, maxCommands, 1);
  const order = new Order(specification);
  const found = new Set<string>();
  for (let commands = 0, programs = 0; commands < searchBudget && found.size < OTHERS && !signal.aborted;) {
    const program = (generators[programs++ % 2] as Generator).generate(random);
    commands += program.commands.length;
    await breathe();
    const verdict = await checkProgram(checking, program.commands, program.trace);
    // A target that is gone, or hangs, is not worth waiting for.
    if (verdict.kind === 'inconclusive' && verdict.isUnsupported !== true) return;
    if (verdict.kind !== 'diverges' || !counts(verdict, program.commands)) continue;
    const failing = program.commands.slice(0, verdict.at + 1);
    const text = order.text(failing);
    if (found.has(text)) continue;
    found.add(text);
    yield failing;
  }
}
