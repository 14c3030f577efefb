/**
 * Two neighbouring commands at the same time. Whatever they come to must be what they come to one after the other, in one
 * order or the other, and so must everything that follows; invariants hold when both are done, and some of them in the middle.
 */
import type { Observed, RacedProgram, Schedule } from '../adapters/adapter.ts';
import type { Facts } from '../model/core/facts.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { createdLabels, labelsOf, type Program } from '../model/core/program.ts';
import type { AnyCommand, Specification } from '../model/core/specification.ts';
import type { State } from '../model/core/state.ts';
import { brokenMidway, invariantsOf, isConcededAfter } from '../model/invariants/index.ts';
import {
  brokenInvariant,
  expectationsOf,
  isFailure,
  leavesPrefix,
  printExpectation,
  type Broken,
  type Checking,
} from './check.ts';
import type { Divergence } from './verdict.ts';

export interface RaceDivergence extends Divergence {
  readonly schedule: Schedule;
}

export interface RaceTally {
  /** Schedules that were executed and judged. */
  schedules: number;
  /** Schedules that there are not: one command would have waited for the other. */
  blocked: number;
}

/** More points than any operation has. */
const MANY_POINTS = 1000;

/**
 * Every schedule of the commands `at` and `at + 1`, up to the first that diverges. None where one command uses what the
 * other creates, where one is several system calls, or where the specification takes no position on an order.
 */
export function raceAt(
  checking: Checking,
  program: Program,
  at: number,
  tally?: RaceTally,
): RaceDivergence | undefined {
  const { specification } = checking;
  if (!isRace(specification, program, at) || isSilent(specification, program, at)) return undefined;
  for (const interrupted of ['first', 'second'] as const) {
    for (let point = 0; point < MANY_POINTS; point++) {
      const schedule: Schedule = { at, interrupted, point };
      const raced = checking.target.race?.(program, specification.config.profile, schedule);
      if (raced === undefined || raced === 'no-such-point') break;
      if (raced === 'blocked') {
        if (tally !== undefined) tally.blocked++;
        continue;
      }
      if (tally !== undefined) tally.schedules++;
      const divergence = judged(checking, program, raced, schedule);
      if (divergence !== undefined) return divergence;
    }
  }
  return undefined;
}

/** The first schedule of any two neighbours that diverges. */
export function raceAnywhere(checking: Checking, program: Program, tally?: RaceTally): RaceDivergence | undefined {
  for (let at = 0; at + 1 < program.length; at++) {
    const divergence = raceAt(checking, program, at, tally);
    if (divergence !== undefined) return divergence;
  }
  return undefined;
}

function isRace(specification: Specification, program: Program, at: number): boolean {
  const [first, second] = [program[at], program[at + 1]];
  if (first === undefined || second === undefined) return false;
  const [before, behind] = [specification.transition(first.name), specification.transition(second.name)];
  if (before.isSequence === true || behind.isSequence === true) return false;
  const created = createdLabels(before, first);
  const used = labelsOf(behind, second);
  return !created.some((label) => used.includes(label));
}

/** Whether the specification takes no position before both commands are done, in one order or the other. */
function isSilent(specification: Specification, program: Program, at: number): boolean {
  const before = expectationsOf(specification, program.slice(0, at));
  if (before.some(({ unmodelled }) => unmodelled !== undefined)) return true;
  return isSilentFrom(specification, before.at(-1)?.state ?? specification.initial, program.slice(at, at + 2));
}

/** Whether the specification takes no position on the two commands in that state, in one order or the other. */
const isSilentFrom = (specification: Specification, state: State, pair: Program): boolean =>
  [pair, pair.toReversed()].some((order) => {
    let from = state;
    return order.some((command) => {
      const { unmodelled, state: next } = specification.step(from, command);
      from = next;
      return unmodelled !== undefined;
    });
  });

/** States that the machine may be in, by the ways in which the commands so far may have come about. */
type Worlds = readonly State[];

interface Executed {
  readonly command: AnyCommand;
  readonly observed: Observed;
}

function judged(
  { specification }: Checking,
  program: Program,
  { observed, midway }: RacedProgram,
  schedule: Schedule,
): RaceDivergence | undefined {
  const executed = observed.map((each, index): Executed => ({ command: program[index] as AnyCommand, observed: each }));
  const before = inOrder(specification, [specification.initial], executed.slice(0, schedule.at), 'alone');
  // What parts before the two commands is no race.
  if (before === 'silent' || before.length === 0) return undefined;
  // Nor is what was run without need: behind an error of the environment the specification may take no position.
  if (before.some((state) => isSilentFrom(specification, state, program.slice(schedule.at, schedule.at + 2))))
    return undefined;
  const pair = executed.slice(schedule.at, schedule.at + 2);
  const [one, other] = [pair, pair.toReversed()].map((order) => inOrder(specification, before, order, 'at once'));
  if (one === undefined || other === undefined || one === 'silent' || other === 'silent') return undefined;
  let worlds: Worlds = [...one, ...other];
  const parted = (at: number, from: Worlds, expected: string): RaceDivergence => ({
    kind: 'diverges',
    at,
    rule: ruleOf(specification, from, executed[at]),
    expected,
    observed: executed
      .slice(Math.min(at, schedule.at), at + 1)
      .map(({ observed: { outcome } }) => printOutcome(outcome))
      .join(', then '),
    schedule,
  });
  if (pair.length < 2 || worlds.length === 0)
    return parted(observed.length - 1, before, bothOrders(specification, before, pair));
  const broken = brokenInTheMiddle(specification, program.slice(schedule.at, schedule.at + 2), midway);
  if (broken !== undefined)
    return {
      ...parted(schedule.at + 1, worlds, broken.invariant.sentence),
      invariant: broken.invariant.id,
      observed: `at the hand-over: ${broken.how}`,
    };
  // Both commands lie between these facts and those before: no invariant speaks of two commands at once.
  let facts: Facts | undefined;
  for (let at = schedule.at + 1; at < executed.length; at++) {
    const now = executed[at] as Executed;
    let failed = false;
    if (at > schedule.at + 1) {
      const next = after(specification, worlds, now);
      if (next === 'silent') return undefined;
      if (next.length === 0) return parted(at, worlds, expectations(specification, worlds, now.command));
      // Where a state that follows is another, that is the partial progress which a rule documents.
      failed = isFailure(now.observed.outcome) && next.every((state) => worlds.includes(state));
      worlds = next;
    }
    const commands = program.slice(at === schedule.at + 1 ? schedule.at : at, at + 1);
    const broken = brokenInvariant({ specification }, { commands, failed }, now.observed, facts);
    if (broken !== undefined)
      return {
        ...parted(at, worlds, broken.invariant.sentence),
        invariant: broken.invariant.id,
        observed: broken.how,
      };
    facts = now.observed.facts;
  }
  return undefined;
}

/** What is broken while one command is interrupted, of what holds there as well. */
function brokenInTheMiddle(
  { config: { profile } }: Specification,
  commands: Program,
  midway: readonly Facts[],
): Broken | undefined {
  for (const invariant of invariantsOf(profile)) {
    if (commands.some(({ name }) => isConcededAfter(profile, invariant, name))) continue;
    for (const facts of midway) {
      const how = brokenMidway(invariant, facts);
      if (how !== undefined) return { invariant, how };
    }
  }
  return undefined;
}

/** Where the commands lead in this order: nowhere, if what was observed is not what they come to. */
function inOrder(
  specification: Specification,
  before: Worlds,
  order: readonly Executed[],
  how: 'alone' | 'at once',
): Worlds | 'silent' {
  let worlds = before;
  for (const each of order) {
    const next = after(specification, worlds, each, how);
    if (next === 'silent') return 'silent';
    worlds = next;
  }
  return worlds;
}

function after(
  specification: Specification,
  worlds: Worlds,
  { command, observed: { outcome } }: Executed,
  how: 'alone' | 'at once' = 'alone',
): Worlds | 'silent' {
  const steps = worlds.map((state) => ({ state, step: specification.step(state, command) }));
  if (steps.some(({ step }) => step.unmodelled !== undefined || leavesPrefix(specification, command, step, outcome)))
    return 'silent';
  const isTransient =
    how === 'at once' && specification.transition(command.name).transient?.(command.args, outcome) === true;
  return steps.flatMap(({ state, step }) => {
    const next = specification.follow(state, command, step, outcome);
    if (next !== undefined) return [next];
    // It was given up half-way, before or after it did what it does otherwise.
    return isTransient ? [state, step.state] : [];
  });
}

const expectations = (specification: Specification, worlds: Worlds, command: AnyCommand): string =>
  [...new Set(worlds.map((state) => printExpectation(specification.step(state, command))))].join(', or ');

/** What the two come to one after the other, as far as the specification tells. */
function bothOrders(specification: Specification, [before]: Worlds, [first, second]: readonly Executed[]): string {
  if (before === undefined || first === undefined || second === undefined) return 'two observations';
  const then = (one: Executed, other: Executed): readonly [string, string] => {
    const step = specification.step(before, one.command);
    return [printExpectation(step), printExpectation(specification.step(step.state, other.command))];
  };
  const [a, b] = then(first, second);
  const [d, c] = then(second, first);
  return `${a}, then ${b}${a === c && b === d ? '' : `; or, the other way round, ${c}, then ${d}`}`;
}

const ruleOf = (specification: Specification, [state]: Worlds, executed: Executed | undefined): string =>
  state === undefined || executed === undefined ? '' : specification.step(state, executed.command).rule;
