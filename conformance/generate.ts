/**
 * Random programs, guided by the specification: it is stepped while the program is written, so that every command is
 * chosen in the state that it will meet. Arguments are valid, aimed at one guard row, nearly valid, or wild.
 */
import _ from 'lodash';
import type { Abilities } from '../adapters/adapter.ts';
import type { ArgValue, FreshDomain } from '../model/core/domain.ts';
import { pick, pickOr, type Random } from '../model/core/random.ts';
import {
  argumentsOf,
  sharedArguments,
  type AnyCommand,
  type AnyTransition,
  type Specification,
  type Step,
} from '../model/core/specification.ts';
import type { Label, State } from '../model/core/state.ts';
import { answerOf, type Args, type Guard } from '../model/core/transition.ts';
import { lackOf } from './capability.ts';

/** Commands that need more than the abilities of the target are left out. */
export interface GenerateOptions extends Abilities {
  /** Largest number of commands in a program. */
  readonly maxCommands: number;
  /** Commands to write more often, by name. */
  readonly favoured?: ReadonlySet<string>;
}

export interface GeneratedProgram {
  readonly commands: readonly AnyCommand[];
  /** What the specification expects of each command, as long as the target does what is expected. */
  readonly trace: readonly Step[];
}

/** A row to reach, and now and then a later row that must be violated as well and must not show. */
interface Goal {
  readonly transition: AnyTransition;
  readonly guard: Guard<Args>;
  readonly later?: Guard<Args>;
  /** How often it was reached. */
  reached: number;
}

interface Next {
  readonly command: AnyCommand;
  /** What the command is to reach, where it is aimed. */
  readonly goal?: Goal;
}

/** How many times as often a favoured command is written. */
const FAVOUR = 4;

/** Tries to draw a command before a program is ended short. */
const ATTEMPTS = 24;

export class Generator {
  readonly #specification: Specification;
  readonly #options: GenerateOptions;
  readonly #transitions: readonly AnyTransition[];
  readonly #builders: readonly AnyTransition[];
  readonly #goals: readonly Goal[];
  /** For each rule, the shortest beginning of a program that has led to it. */
  readonly #beginnings = new Map<string, Beginning>();

  constructor(specification: Specification, options: GenerateOptions) {
    this.#specification = specification;
    this.#options = options;
    this.#transitions = [...specification.transitions.values()].filter((each) => lackOf(options, each) === undefined);
    const builders = this.#transitions.filter(({ builds }) => builds === true);
    this.#builders = builders.length > 0 ? builders : this.#transitions;
    this.#goals = this.#transitions.flatMap(goalsOf);
  }

  generate(random: Random): GeneratedProgram {
    const { maxCommands } = this.#options;
    const writer = new Writer(this.#specification);
    const deck = this.#deal(random);
    const goals = this.#goals.length === 0 ? [] : [this.#rareGoal(random), this.#rareGoal(random)];
    const length = 1 + random.below(maxCommands);
    if (!this.#resume(random, writer, length)) this.#build(random, writer, Math.min(length, random.below(10)));
    for (let attempt = 0; writer.commands.length < length && attempt < 4 * length + ATTEMPTS; attempt++) {
      const next = this.#next(random, deck, goals, writer);
      if (next === undefined) continue;
      const { command, goal } = next;
      if (!isExpressible(this.#specification.transition(command.name), command.args)) continue;
      const step = this.#specification.step(writer.state, command);
      if (goal?.guard.id === step.rule) goal.reached++;
      if (step.unmodelled !== undefined && this.#isStale(step.rule, random)) continue;
      writer.append(command, step);
      this.#remember(writer, step);
      // Nothing after it could be checked.
      if (step.unmodelled !== undefined) break;
    }
    return writer;
  }

  #remember({ commands, trace }: Writer, { rule, unmodelled }: Step): void {
    const known = this.#beginnings.get(rule);
    const met = (known?.met ?? 0) + 1;
    // A command that the specification is silent about ends a program, so the beginning stops before it.
    const length = unmodelled === undefined ? commands.length : commands.length - 1;
    if (known !== undefined && known.commands.length <= length) known.met = met;
    else this.#beginnings.set(rule, { commands: commands.slice(0, length), trace: trace.slice(0, length), met });
  }

  /** A command that the specification is silent about ends a program; once met a few times it seldom is worth that. */
  #isStale(rule: string, random: Random): boolean {
    return (this.#beginnings.get(rule)?.met ?? 0) > 4 && random.below(32) > 0;
  }

  /** Goes on from where an earlier program met a rule that few programs meet; rare states are hard to find twice. */
  #resume(random: Random, writer: Writer, length: number): boolean {
    if (this.#beginnings.size === 0 || random.below(3) > 0) return false;
    const beginning = rarest(random, [...this.#beginnings.values()], 12, ({ met }) => met);
    beginning.met++;
    if (beginning.commands.length >= length) return false;
    writer.resume(beginning);
    return true;
  }

  /** Something to work on: most rules say nothing about an empty machine. */
  #build(random: Random, writer: Writer, length: number): void {
    for (let attempt = 0; writer.commands.length < length && attempt < 3 * length; attempt++) {
      const transition = pick(random, this.#builders);
      const args = draw(transition, random, writer);
      if (args === undefined) continue;
      const command = { name: transition.name, args };
      writer.append(command, this.#specification.step(writer.state, command));
    }
  }

  /** The commands of one program, each as often as its weight; a random part is left out (swarm testing). */
  #deal(random: Random): readonly AnyTransition[] {
    const deck: AnyTransition[] = [];
    for (const transition of this.#transitions) {
      const isFavoured = this.#options.favoured?.has(transition.name) === true;
      if (transition.essential !== true && !isFavoured && random.below(4) === 0) continue;
      const weight = transition.weight * (1 + random.below(3)) * (isFavoured ? FAVOUR : 1);
      for (let copy = 0; copy < weight; copy++) deck.push(transition);
    }
    return deck.length > 0 ? deck : this.#transitions;
  }

  #next(random: Random, deck: readonly AnyTransition[], goals: readonly Goal[], writer: Writer): Next | undefined {
    const dice = random.below(100);
    const goal = dice < 16 ? pickOr(random, goals) : dice < 24 ? pickOr(random, this.#goals) : undefined;
    if (goal !== undefined) return aim(goal, random, writer);
    const transition = pick(random, deck);
    const { name } = transition;
    if (dice >= 98) return { command: { name, args: wildArgs(transition, random, writer) } };
    const args = draw(transition, random, writer);
    if (args === undefined) return undefined;
    if (dice < 50) return { command: { name, args: echo(this.#specification, transition, args, random, writer) } };
    return { command: { name, args: dice < 92 ? args : withWild(transition, args, random, writer.state) } };
  }

  /** One of the goals that were reached least. */
  #rareGoal(random: Random): Goal {
    return rarest(random, this.#goals, 10, ({ reached }) => reached);
  }
}

/** Of so many choices made by chance, the one that was met least. */
function rarest<T>(random: Random, choices: readonly T[], draws: number, met: (choice: T) => number): T {
  let best = pick(random, choices);
  for (let draw = 1; draw < draws; draw++) {
    const other = pick(random, choices);
    if (met(other) < met(best)) best = other;
  }
  return best;
}

/** Each row alone, and each together with the first later row of every other answer. */
function goalsOf(transition: AnyTransition): Goal[] {
  const rows = transition.guards.filter((row) => row.violate !== undefined);
  return rows.flatMap((guard, index): Goal[] => {
    const rivals = _.uniqBy(rows.slice(index + 1), answerOf).filter(
      (later) => answerOf(later) !== answerOf(guard) && (guard.group === undefined || guard.group !== later.group),
    );
    return [undefined, ...rivals].map((later) => ({ transition, guard, reached: 0, ...(later && { later }) }));
  });
}

const draw = (transition: AnyTransition, random: Random, writer: Writer): Args | undefined =>
  transition.draw({ random, state: writer.state, fresh: writer.fresh });

/** A command that should reach the goal, or undefined where this state and this draw do not allow it. */
function aim(goal: Goal, random: Random, writer: Writer): Next | undefined {
  const { transition, guard } = goal;
  const { state } = writer;
  const base = draw(transition, random, writer);
  if (base === undefined) return undefined;
  const later = goal.later ?? (random.below(4) === 0 ? laterRow(goal, random) : undefined);
  const bent = later?.violate?.(base, state, random);
  const args = guard.violate?.(bent ?? base, state, random);
  if (args === undefined) return undefined;
  const command = { name: transition.name, args };
  return goal.later === undefined || bent !== undefined ? { command, goal } : { command };
}

function laterRow({ transition: { guards }, guard }: Goal, random: Random): Guard<Args> | undefined {
  return pickOr(
    random,
    guards.slice(guards.indexOf(guard) + 1).filter((row) => row.violate !== undefined),
  );
}

interface Beginning extends GeneratedProgram {
  /** How often the rule was met, or its beginning gone on with. */
  met: number;
}

/** A program in the making. */
class Writer implements GeneratedProgram {
  readonly commands: AnyCommand[] = [];
  readonly trace: Step[] = [];
  state: State;

  constructor(specification: Specification) {
    this.state = specification.initial;
  }

  /** Labels are numbered by the command that creates the thing, so that a program can be gone on with. */
  readonly fresh = (prefix: string): Label => `${prefix}${this.commands.length}`;

  /** Starts with what another program did. */
  resume({ commands, trace }: GeneratedProgram): void {
    commands.forEach((command, index) => {
      this.append(command, trace[index] as Step);
    });
  }

  append(command: AnyCommand, step: Step): void {
    this.commands.push(command);
    this.trace.push(step);
    this.state = step.state;
  }
}

/**
 * The arguments, with some taken from an earlier command that has arguments of those names: a load from where something
 * was stored, an allocation of what was punched out, the same slot again.
 */
function echo(
  specification: Specification,
  transition: AnyTransition,
  args: Args,
  random: Random,
  { commands }: Writer,
): Args {
  const shared = ({ name }: AnyCommand): readonly string[] =>
    sharedArguments(transition, specification.transition(name));
  const earlier = pickOr(
    random,
    commands.slice(-16).filter((command) => shared(command).length > 1),
  );
  if (earlier === undefined) return args;
  const echoed = { ...args };
  for (const name of shared(earlier)) if (random.below(3) > 0) echoed[name] = earlier.args[name] as ArgValue;
  return echoed;
}

/** Whether every number has room in its field: what is computed from other numbers may have outgrown it. */
function isExpressible(transition: AnyTransition, args: Args): boolean {
  for (const [name, { min, max }] of argumentsOf(transition)) {
    if (min === undefined || max === undefined) continue;
    const value = args[name] as bigint;
    if (value < min || value > max) return false;
  }
  return true;
}

function withWild(transition: AnyTransition, args: Args, random: Random, state: State): Args {
  const open = argumentsOf(transition).filter(([, domain]) => domain.kind !== 'fresh');
  if (open.length === 0) return args;
  const [name, domain] = pick(random, open);
  return { ...args, [name]: domain.wild(random, state) };
}

function wildArgs(transition: AnyTransition, random: Random, writer: Writer): Args {
  const args: Record<string, ArgValue> = {};
  for (const [name, domain] of argumentsOf(transition))
    args[name] =
      domain.kind === 'fresh' ? writer.fresh((domain as FreshDomain).prefix) : domain.wild(random, writer.state);
  return args;
}
