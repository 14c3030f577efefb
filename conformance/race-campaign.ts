/** Many random programs, in each of which two commands run at the same time, in every way in which they can. */
import fc from 'fast-check';
import type { Program } from '../model/core/program.ts';
import { ProgramArbitrary } from './arbitrary.ts';
import { breathe } from './breathe.ts';
import type { Checking } from './check.ts';
import { raceAnywhere, raceAt, type RaceDivergence, type RaceTally } from './race.ts';
import { SmallFastRandom } from './random.ts';
import { canonical, shrinkProgram } from './shrink.ts';

export interface RaceOptions {
  readonly seed: number;
  /** Programs at most. */
  readonly runs: number;
  /** Commands in a program at most. */
  readonly maxCommands: number;
  /** Programs to try at most while shrinking. */
  readonly shrinkBudget?: number;
  /** Ends the work with what was found so far. */
  readonly signal?: AbortSignal;
  readonly onProgram?: (programs: number) => void;
}

export interface RaceFailure {
  readonly program: Program;
  readonly divergence: RaceDivergence;
  readonly originalLength: number;
  readonly shrinkRuns: number;
}

export interface RaceCampaign {
  readonly programs: number;
  readonly tally: RaceTally;
  readonly durationMs: number;
  readonly isInterrupted: boolean;
  readonly failure?: RaceFailure;
}

/** Pairs of commands that are tried in each program. */
const PAIRS = 4;
/** How far behind the first command of a pair the second one may have stood. */
const REACH = 12;

const SHRINK_BUDGET = 20_000;

export async function runRaces(checking: Checking, options: RaceOptions): Promise<RaceCampaign> {
  const { seed, runs, maxCommands, signal, onProgram } = options;
  const { specification, target } = checking;
  const start = performance.now();
  const tally: RaceTally = { schedules: 0, blocked: 0 };
  const random = new SmallFastRandom(seed, 1, 2, 3);
  let programs = 0;
  let failure: RaceFailure | undefined;
  const property = fc.asyncProperty(
    new ProgramArbitrary(specification, { maxCommands, capabilities: target.capabilities }),
    async (program) => {
      await breathe();
      if (signal?.aborted === true || program.length < 2) return signal?.aborted !== true;
      programs++;
      onProgram?.(programs);
      for (let pair = 0; pair < PAIRS; pair++) {
        const at = random.below(program.length - 1);
        const drawn = broughtTogether(program, at, at + 1 + random.below(Math.min(REACH, program.length - 1 - at)));
        const divergence = raceAt(checking, drawn, at, tally);
        if (divergence === undefined) continue;
        failure = await shrunk(checking, drawn, divergence, options);
        return false;
      }
      return true;
    },
  );
  const { failed, errorInstance } = await fc.check(property, { seed, numRuns: runs, endOnFailure: true });
  const isInterrupted = signal?.aborted === true;
  if (failed && failure === undefined && !isInterrupted) throw errorInstance;
  const durationMs = performance.now() - start;
  return { programs, tally, durationMs, isInterrupted, ...(failure === undefined ? {} : { failure }) };
}

/** The program with the command at `from` moved to behind the one at `at`. */
const broughtTogether = (program: Program, at: number, from: number): Program => [
  ...program.slice(0, at + 1),
  ...program.slice(from, from + 1),
  ...program.slice(at + 1, from),
  ...program.slice(from + 1),
];

/** Which two commands race, and how, is looked for anew in each smaller program: so the schedule shrinks as well. */
async function shrunk(
  checking: Checking,
  program: Program,
  first: RaceDivergence,
  { shrinkBudget = SHRINK_BUDGET, signal }: RaceOptions,
): Promise<RaceFailure> {
  const { specification } = checking;
  const failing = program.slice(0, Math.max(first.at, first.schedule.at + 1) + 1);
  const { program: small, runs } = await shrinkProgram(
    specification,
    failing,
    async (candidate) => {
      await breathe();
      return raceAnywhere(checking, candidate) !== undefined;
    },
    { budget: shrinkBudget, ...(signal === undefined ? {} : { signal }) },
  );
  const named = canonical(specification, small);
  const divergence = raceAnywhere(checking, named);
  return divergence === undefined
    ? { program: failing, divergence: first, originalLength: program.length, shrinkRuns: runs }
    : { program: named, divergence, originalLength: program.length, shrinkRuns: runs };
}
