/** `step`: what a command may come to in a state, which rule decided, and the state that follows. Pure. */
import type { Domain } from './domain.ts';
import { fails, ok, sameOutcome, type Errno, type Observation, type Outcome } from './outcome.ts';
import { holdsIn, isPartOf, printCondition, type Condition, type Config, type Machine } from './profile.ts';
import { initialState, type State } from './state.ts';
import type { Acceptance, AnyCommand, Args, Guard, Requirement, Transition } from './transition.ts';

export type { AnyCommand };

export interface Step {
  /** The row that decided. */
  readonly rule: string;
  /** What the specification calls for; meaningless where `unmodelled` is set. */
  readonly outcome: Outcome;
  /** Errors that are allowed as well, and leave the state as it was. */
  readonly mayAlso: readonly Errno[];
  readonly state: State;
  /** Why the specification is silent here. Nothing can be checked from this command on. */
  readonly unmodelled?: string;
}

export interface Rule {
  readonly id: string;
  readonly command: string;
  readonly kind: 'refusal' | 'diversion' | 'unmodelled' | 'acceptance';
  readonly when: string;
  /** `EINVAL`, `MEMORY_FAULT …`, `ok`. */
  readonly result: string;
  readonly source: string;
  readonly condition: string;
  /** Why no program can reach the rule on this machine. */
  readonly unreachable?: string;
  /** What a target must be able to do for a program to reach the rule. */
  readonly requires?: Requirement;
}

/** A transition whose rows are those of one profile. */
export type AnyTransition = Transition;

export class Specification {
  readonly config: Config;
  readonly transitions: ReadonlyMap<string, AnyTransition>;
  readonly initial: State;

  /** `catalogue` holds every command of every profile; rows and commands of other profiles are left out. */
  constructor(config: Config, catalogue: readonly AnyTransition[]) {
    this.config = config;
    this.initial = initialState(config);
    const here = (part: { readonly only?: Condition }): boolean => holdsIn(config.profile, part.only);
    this.transitions = new Map(
      catalogue
        .filter((each) => isPartOf(each, config.profile))
        .map((each) => [
          each.name,
          { ...each, guards: each.guards.filter(here), accepts: each.accepts.filter(here) } satisfies AnyTransition,
        ]),
    );
  }

  transition(name: string): AnyTransition {
    const transition = this.transitions.get(name);
    if (transition === undefined) throw new RangeError(`profile ${this.config.profile.id} has no command '${name}'`);
    return transition;
  }

  /** Throws a RangeError where the profile has no such command. */
  step(state: State, command: AnyCommand): Step {
    const transition = this.transition(command.name);
    const { args } = command;
    for (const guard of transition.guards) {
      if (guard.violated(args, state)) return diverted(guard, args, state, errorsAnywhere(transition));
    }
    const taken = acceptanceOf(transition, args, state);
    const { state: next, value } = taken.accept(args, state);
    return { rule: taken.id, outcome: ok(value), mayAlso: errorsHere(transition, args, state), state: next };
  }

  /** The state after the observation, or undefined where the specification does not allow it. */
  follow(before: State, command: AnyCommand, step: Step, observed: Observation): State | undefined {
    if (sameOutcome(step.outcome, observed)) return step.state;
    // A VM exit for a fault that the environment caused carries the error in the same way as a call does.
    if ((observed.kind === 'errno' || observed.kind === 'memory-fault') && step.mayAlso.includes(observed.errno))
      return this.transition(command.name).leavesOnError?.(command.args, before) ?? before;
    return this.#shortened(before, command, step, observed);
  }

  /**
   * The state where the command has succeeded with less than it was asked for, because the environment stopped it: that is
   * allowed where memory may run out.
   */
  #shortened(before: State, { name, args }: AnyCommand, step: Step, observed: Observation): State | undefined {
    if (!step.mayAlso.includes('ENOMEM') || step.outcome.kind !== 'ok' || observed.kind !== 'ok') return undefined;
    if (observed.value === undefined) return undefined;
    const less = this.transition(name).shortened?.(args, observed.value);
    const shorter = less && this.step(before, { name, args: less });
    return shorter !== undefined && sameOutcome(shorter.outcome, observed) ? shorter.state : undefined;
  }

  /** Every rule of the profile, in order of command and row. */
  rules(): readonly Rule[] {
    return [...this.transitions.values()].flatMap((each) => rulesOf(each, this.config.machine));
  }
}

function diverted(guard: Guard<Args>, args: Args, state: State, mayAlso: readonly Errno[]): Step {
  if ('unmodelled' in guard) return { rule: guard.id, outcome: ok(), mayAlso, state, unmodelled: guard.unmodelled };
  const outcome = 'errno' in guard ? fails(guard.errno) : guard.outcome(args, state);
  return { rule: guard.id, outcome, mayAlso, state: guard.leaves === undefined ? state : guard.leaves(args, state) };
}

function acceptanceOf(transition: AnyTransition, args: Args, state: State): Acceptance<Args> {
  const taken = transition.accepts.find((each) => each.applies === undefined || each.applies(args, state));
  if (taken === undefined) throw new Error(`specification defect: ${transition.name} accepts nothing`);
  return taken;
}

const anywhere = new WeakMap<object, readonly Errno[]>();

/** Errors that the environment may cause in every command of the kind. */
function errorsAnywhere({ mayAlso }: AnyTransition): readonly Errno[] {
  let errors = anywhere.get(mayAlso);
  if (errors === undefined)
    anywhere.set(mayAlso, (errors = mayAlso.filter((error): error is Errno => typeof error === 'string')));
  return errors;
}

function errorsHere(transition: AnyTransition, args: Args, state: State): readonly Errno[] {
  const always = errorsAnywhere(transition);
  if (always.length === transition.mayAlso.length) return always;
  return transition.mayAlso
    .filter((error) => typeof error === 'string' || error.applies(args, state))
    .map((error) => (typeof error === 'string' ? error : error.errno));
}

export function rulesOf(transition: AnyTransition, machine: Machine): Rule[] {
  const { name: command, requires } = transition;
  /** Set from the row on that no command gets past. */
  let stopped: string | undefined;
  const reach = (row: Guard<Args> | Acceptance<Args>): Pick<Rule, 'unreachable' | 'requires'> => {
    const unreachable = stopped ?? row.unreachable?.(machine);
    const needs = ('requires' in row ? row.requires : undefined) ?? requires;
    return { ...(unreachable !== undefined && { unreachable }), ...(needs !== undefined && { requires: needs }) };
  };
  const common = (row: Guard<Args> | Acceptance<Args>): Omit<Rule, 'kind' | 'result'> => ({
    id: row.id,
    command,
    when: row.when,
    source: row.source ?? transition.source,
    condition: printCondition(row.only),
    ...reach(row),
  });
  const guards = transition.guards.map((guard): Rule => {
    const rule = { ...common(guard), ...answer(guard) };
    stopped ??= guard.stopsAll?.(machine);
    return rule;
  });
  const accepts = transition.accepts.map((each): Rule => ({ ...common(each), kind: 'acceptance', result: 'ok' }));
  return [...guards, ...accepts];
}

function answer(guard: Guard<Args>): Pick<Rule, 'kind' | 'result'> {
  if ('errno' in guard) return { kind: 'refusal', result: guard.errno };
  if ('unmodelled' in guard) return { kind: 'unmodelled', result: guard.unmodelled };
  return { kind: 'diversion', result: guard.result };
}

const argumentLists = new WeakMap<object, readonly (readonly [string, Domain])[]>();

/** The arguments of a command, in order. */
export function argumentsOf({ args }: AnyTransition): readonly (readonly [string, Domain])[] {
  let list = argumentLists.get(args);
  if (list === undefined) argumentLists.set(args, (list = Object.entries(args)));
  return list;
}

const sharedLists = new WeakMap<object, WeakMap<object, readonly string[]>>();

/** Names of the arguments that two commands both have, of the same kind; new labels are nobody else's. */
export function sharedArguments(one: AnyTransition, other: AnyTransition): readonly string[] {
  let lists = sharedLists.get(one.args);
  if (lists === undefined) sharedLists.set(one.args, (lists = new WeakMap<object, readonly string[]>()));
  let shared = lists.get(other.args);
  if (shared === undefined) {
    const theirs = new Map(argumentsOf(other));
    shared = argumentsOf(one)
      .filter(([name, domain]) => domain.kind !== 'fresh' && theirs.get(name)?.describe === domain.describe)
      .map(([name]) => name);
    lists.set(other.args, shared);
  }
  return shared;
}
