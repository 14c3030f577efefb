/** One program on one target: every observation against what is allowed, every fact against the invariants. */
import type { ExecuteOptions, Observed, Target } from '../adapters/adapter.ts';
import type { FactPart, Facts } from '../model/core/facts.ts';
import { printOutcome, sameOutcome, type Observation } from '../model/core/outcome.ts';
import type { Program } from '../model/core/program.ts';
import type { AnyCommand, AnyTransition, Specification, Step } from '../model/core/specification.ts';
import type { State } from '../model/core/state.ts';
import { brokenBy, invariantsOf, isConcededAfter, isObservable, type Invariant } from '../model/invariants/index.ts';
import type { Coverage } from './coverage.ts';
import { inconclusive, observe } from './observe.ts';
import type { Divergence, ProgramVerdict } from './verdict.ts';

export interface InvariantTally {
  /** Boundaries at which each invariant was evaluated. */
  readonly checks: Map<string, number>;
  /** Parts that the target's facts had. */
  readonly shown: Set<FactPart>;
  /** Commands that ended in an error that the environment may cause at any time. */
  environment: number;
}

export const newTally = (): InvariantTally => ({ checks: new Map(), shown: new Set(), environment: 0 });

export interface Checking extends ExecuteOptions {
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
  /** Undefined where the specification is silent, so that the command was not executed. */
  readonly observed?: Observed;
}

/**
 * Runs the program on a fresh machine of the target, up to where the specification falls silent: nobody knows what the
 * rest might do to a real machine. `trace` is what the specification expects along the way, where the caller knows it
 * already.
 */
export function checkProgram(
  checking: Checking,
  program: Program,
  trace?: readonly Step[],
): ProgramVerdict | Promise<ProgramVerdict> {
  const { target, specification } = checking;
  const expectations = trace ?? expectationsOf(specification, program);
  const silent = expectations.findIndex(({ unmodelled }) => unmodelled !== undefined);
  const executed = silent < 0 ? program : program.slice(0, silent);
  const lacking = executed.find(({ name }) => target.commands?.has(name) === false);
  if (lacking !== undefined) return unsupported(`the target has no ${lacking.name}`);
  try {
    const observations = observe(target, executed, specification.config.profile, checking);
    const judge = (arrived: Iterable<Observed>): ProgramVerdict =>
      compare(checking, program, arrived, expectations, executed.length);
    return observations instanceof Promise
      ? observations.then((arrived) => withCrash([...arrived], expectations, judge)).catch(inconclusive)
      : judge(observations);
  } catch (error) {
    return inconclusive(error);
  }
}

/** A target that broke has failed the program, whatever else there is to say of it, and whoever excuses that. */
function withCrash(
  arrived: readonly Observed[],
  expectations: readonly Step[],
  judge: (arrived: readonly Observed[]) => ProgramVerdict,
): ProgramVerdict {
  const verdict = judge(arrived);
  const at = arrived.findIndex(({ outcome }) => outcome.kind === 'crash');
  const [observed, expected] = [arrived[at], expectations[at]];
  return observed === undefined || expected === undefined ? verdict : parted(at, expected, observed.outcome);
}

function compare(
  checking: Checking,
  program: Program,
  observations: Iterable<Observed>,
  trace: readonly Step[],
  executed: number,
): ProgramVerdict {
  const { specification, target, coverage, tally, onStep } = checking;
  const shortage = new Shortage(target.capabilities.has('fault-injection'));
  let state: State = specification.initial;
  let facts: Facts | undefined;
  // Undefined after an error of the environment: from there on the state is another.
  let expectations: readonly Step[] | undefined = trace;
  let at = 0;
  for (const observed of observations) {
    const command = program[at] as AnyCommand;
    const expected = shortage.during(expectations?.[at] ?? specification.step(state, command));
    if (expected.unmodelled !== undefined) return silentFrom(checking, at, command, expected);
    onStep?.({ command, expected, observed });
    if (observed.outcome.kind === 'unsupported')
      return unsupported(`the target cannot execute ${command.name}: ${observed.outcome.message}`);
    const next = specification.follow(state, command, expected, observed.outcome);
    if (next === undefined) return parted(at, expected, observed.outcome);
    shortage.after(specification.transition(command.name), expected, observed.outcome);
    // An error that the environment caused is allowed, but says nothing about the rule.
    if (sameOutcome(expected.outcome, observed.outcome)) coverage?.hit(expected.rule);
    else if (tally !== undefined) tally.environment++;
    if (next !== expected.state) expectations = undefined;
    const half = leavesPrefix(specification, command, expected, observed.outcome);
    // Where the state that follows is another, that is the partial progress which the rule documents.
    const failed = !half && next === state && isFailure(observed.outcome);
    const broken = brokenInvariant(checking, { commands: [command], failed }, observed, facts);
    if (broken !== undefined) return violated(at, expected, broken);
    if (half) return { kind: 'conforms', commands: at + 1, unmodelled: { at, rule: expected.rule, reason: HALF_DONE } };
    state = next;
    facts = observed.facts;
    at++;
  }
  if (at < executed) return { kind: 'inconclusive', reason: `the target was gone after ${at} of ${executed} commands` };
  const command = program[at];
  const expected = command && (expectations?.[at] ?? specification.step(state, command));
  // After an error of the environment the specification may well have a position; the command was not executed though.
  if (expected?.unmodelled === undefined) return { kind: 'conforms', commands: at };
  return silentFrom(checking, at, command as AnyCommand, expected);
}

const unsupported = (reason: string): ProgramVerdict => ({ kind: 'inconclusive', reason, isUnsupported: true });

function silentFrom({ coverage, onStep }: Checking, at: number, command: AnyCommand, expected: Step): ProgramVerdict {
  coverage?.hit(expected.rule);
  onStep?.({ command, expected });
  return { kind: 'conforms', commands: at, unmodelled: { at, rule: expected.rule, reason: expected.unmodelled ?? '' } };
}

/** What the specification expects of each command. */
export function expectationsOf(specification: Specification, program: Program): readonly Step[] {
  let { initial: state } = specification;
  return program.map((command) => {
    const step = specification.step(state, command);
    ({ state } = step);
    return step;
  });
}

export interface Broken {
  readonly invariant: Invariant;
  /** In words. */
  readonly how: string;
}

/** What lies before a boundary. */
interface Boundary {
  /** One, or two that ran at the same time. */
  readonly commands: Program;
  /** Whether it failed, and should have left everything as it was. */
  readonly failed: boolean;
}

export function brokenInvariant(
  { specification, tally }: Pick<Checking, 'specification' | 'tally'>,
  { commands, failed }: Boundary,
  { facts }: Observed,
  before: Facts | undefined,
): Broken | undefined {
  // Facts that did not change since they were last looked at are as true as they were then.
  if (facts === undefined || facts === before) return undefined;
  if (tally !== undefined) for (const part in facts) tally.shown.add(part as FactPart);
  const { profile } = specification.config;
  for (const invariant of invariantsOf(profile)) {
    if (!isObservable(invariant, facts)) continue;
    if (commands.some(({ name }) => isConcededAfter(profile, invariant, name))) continue;
    if (tally !== undefined) tally.checks.set(invariant.id, (tally.checks.get(invariant.id) ?? 0) + 1);
    const how = brokenBy(invariant, { before, after: facts, failed });
    if (how !== undefined) return { invariant, how };
  }
  return undefined;
}

const HALF_DONE = 'the environment stopped the command half-way, and how far it got cannot be told';

export const isFailure = ({ kind }: Observation): boolean => ['errno', 'memory-fault', 'signal', 'oops'].includes(kind);

/** Whether the environment stopped the command, which then leaves what it has done so far. */
export const leavesPrefix = (
  specification: Specification,
  { name }: AnyCommand,
  { outcome, mayAlso }: Step,
  observed: Observation,
): boolean =>
  specification.transition(name).mayLeavePrefix === true &&
  observed.kind === 'errno' &&
  mayAlso.includes(observed.errno) &&
  !sameOutcome(outcome, observed);

/**
 * Where allocations fail because a command makes them fail, they fail for no other reason: so ENOMEM is allowed while a
 * failure is due, and is a divergence else. On other targets it is always allowed.
 */
class Shortage {
  readonly #isInjected: boolean;
  #isDue = false;

  constructor(isInjected: boolean) {
    this.#isInjected = isInjected;
  }

  during(step: Step): Step {
    if (!this.#isInjected || this.#isDue || !step.mayAlso.includes('ENOMEM')) return step;
    return { ...step, mayAlso: step.mayAlso.filter((errno) => errno !== 'ENOMEM') };
  }

  /** A failure is due from the command that asks for it, until it shows. */
  after({ requires }: AnyTransition, { outcome }: Step, observed: Observation): void {
    if (requires === 'fault-injection') this.#isDue = true;
    else if ('errno' in observed && observed.errno === 'ENOMEM' && !sameOutcome(outcome, observed)) this.#isDue = false;
  }
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
