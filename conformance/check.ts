/** One program on one target: every observation against what is allowed, every fact against the invariants. */
import type { Observed, Target } from '../adapters/adapter.ts';
import type { Facts } from '../model/core/facts.ts';
import { printOutcome, sameOutcome, type Observation } from '../model/core/outcome.ts';
import type { Program } from '../model/core/program.ts';
import { follow, type AnyCommand, type Specification, type Step } from '../model/core/specification.ts';
import type { State } from '../model/core/state.ts';
import { INVARIANTS, type Invariant } from '../model/invariants/index.ts';
import type { Coverage } from './coverage.ts';
import { inconclusive, observe } from './observe.ts';
import type { Divergence, ProgramVerdict } from './verdict.ts';

export interface InvariantTally {
  /** Boundaries at which each invariant was evaluated. */
  readonly checks: Map<string, number>;
  /** Commands that ended in an error that the environment may cause at any time. */
  environment: number;
}

export interface Checking {
  readonly specification: Specification;
  readonly target: Target;
  /** How long the target may take for one program, where it does not answer at once. */
  readonly timeLimitMs?: number | undefined;
  /** Ends waiting for it. */
  readonly signal?: AbortSignal | undefined;
  readonly coverage?: Coverage;
  readonly tally?: InvariantTally;
  /** Sees every command with what was expected and observed. */
  readonly onStep?: (step: CheckedStep) => void;
}

export interface CheckedStep {
  readonly command: AnyCommand;
  readonly expected: Step;
  readonly observed: Observed;
}

/**
 * Runs the program on a fresh machine of the target. `trace` is what the specification expects along the way, where
 * the caller knows it already.
 */
export function checkProgram(
  checking: Checking,
  program: Program,
  trace?: readonly Step[],
): ProgramVerdict | Promise<ProgramVerdict> {
  const { target, specification } = checking;
  try {
    const observations = observe(target, program, specification.config.profile, checking);
    return observations instanceof Promise
      ? observations.then((arrived) => compare(checking, program, arrived, trace)).catch(inconclusive)
      : compare(checking, program, observations, trace);
  } catch (error) {
    return inconclusive(error);
  }
}

function compare(
  checking: Checking,
  program: Program,
  observations: Iterable<Observed>,
  trace: readonly Step[] | undefined,
): ProgramVerdict {
  const { specification, coverage, tally, onStep } = checking;
  let state: State = specification.initial;
  let facts: Facts | undefined;
  let expectations = trace;
  let at = 0;
  for (const observed of observations) {
    const command = program[at] as AnyCommand;
    const expected = expectations?.[at] ?? specification.step(state, command);
    onStep?.({ command, expected, observed });
    if (expected.unmodelled !== undefined) {
      coverage?.hit(expected.rule);
      return { kind: 'conforms', commands: at, unmodelled: { at, rule: expected.rule, reason: expected.unmodelled } };
    }
    const next = follow(state, expected, observed.outcome);
    if (next === undefined) return parted(at, expected, observed.outcome);
    // An error that the environment caused is allowed, but says nothing about the rule.
    if (sameOutcome(expected.outcome, observed.outcome)) coverage?.hit(expected.rule);
    else if (tally !== undefined) tally.environment++;
    if (next !== expected.state) expectations = undefined;
    const broken = brokenInvariant(checking, command, observed, facts);
    if (broken !== undefined) return violated(at, expected, broken);
    state = next;
    facts = observed.facts;
    at++;
  }
  if (at < program.length)
    return { kind: 'inconclusive', reason: `the target was gone after ${at} of ${program.length} commands` };
  return { kind: 'conforms', commands: at };
}

function brokenInvariant(
  { specification, tally }: Checking,
  command: AnyCommand,
  { outcome, facts }: Observed,
  before: Facts | undefined,
): { readonly invariant: Invariant; readonly how: string } | undefined {
  // Facts that did not change since they were last looked at are as true as they were then.
  if (facts === undefined || facts === before) return undefined;
  const failed = isFailure(specification, command, outcome);
  for (const invariant of INVARIANTS) {
    if (!invariant.observable(facts)) continue;
    if (tally !== undefined) tally.checks.set(invariant.id, (tally.checks.get(invariant.id) ?? 0) + 1);
    const how = invariant.broken({ before, after: facts, failed });
    if (how !== undefined) return { invariant, how };
  }
  return undefined;
}

function isFailure(specification: Specification, command: AnyCommand, outcome: Observation): boolean {
  if (outcome.kind === 'memory-fault' || outcome.kind === 'signal') return true;
  if (outcome.kind !== 'errno') return false;
  const { mayLeavePrefix, mayAlso } = specification.transition(command.name);
  return !(mayLeavePrefix === true && mayAlso.includes(outcome.errno));
}

const parted = (at: number, expected: Step, observed: Observation): Divergence => ({
  kind: 'diverges',
  at,
  rule: expected.rule,
  expected: printExpectation(expected),
  observed: printOutcome(observed),
});

const violated = (
  at: number,
  expected: Step,
  { invariant, how }: { readonly invariant: Invariant; readonly how: string },
): Divergence => ({
  kind: 'diverges',
  at,
  rule: expected.rule,
  invariant: invariant.id,
  expected: invariant.sentence,
  observed: how,
});

/** What a step allows, in words: `EINVAL`, or `ok (or ENOMEM)`. */
export function printExpectation({ outcome, mayAlso, unmodelled }: Step): string {
  if (unmodelled !== undefined) return `unmodelled: ${unmodelled}`;
  const others = mayAlso.filter((errno) => outcome.kind !== 'errno' || outcome.errno !== errno);
  return others.length === 0 ? printOutcome(outcome) : `${printOutcome(outcome)} (or ${others.join(', ')})`;
}
