/**
 * The specification as a user of fast-check would drive it: one `fc.Command` class for the transitions, and
 * `fc.modelRun`. Transitions, targets and oracle are those of the engine: outcomes, the same invariants at the same
 * boundaries, and the same second run for secrets after every fourth program. Only generation and shrinking differ.
 *
 * fc.commands draws a command without knowing the state in which it will run, so a command holds random numbers and
 * makes arguments of them when its turn comes. There are two manners:
 *
 * - `blind`: every argument is any value of its domain: integers from the same boundary values that the engine uses,
 *   mappings from those that exist, and descriptors too, three in four of the right kind where there is one. It is what
 *   the argument types alone give, and what one writes who does not write generators for each command.
 * - `guided`: arguments come from the transition's own `draw`, which knows the state and mostly succeeds; one command in
 *   four has one wild argument; commands come as often as their weights say. It is the best that can be had from
 *   fc.commands with what a transition offers, short of aiming at rows.
 *
 * `check` is in favour of fc.commands as well: a command on which the specification takes no position is passed over,
 * where the engine has to end its program; commands that are passed over are not counted.
 */
import fc from 'fast-check';
import type { Observed, Target } from '../adapters/adapter.ts';
import { checkSecrecy } from '../conformance/secret.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import type { ArgValue, Domain, FreshDomain } from '../model/core/domain.ts';
import type { Facts } from '../model/core/facts.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { pick, pickOr, type Random } from '../model/core/random.ts';
import {
  argumentsOf,
  type AnyCommand,
  type AnyTransition,
  type Specification,
  type Step,
} from '../model/core/specification.ts';
import type { Label, State } from '../model/core/state.ts';
import type { Args } from '../model/core/transition.ts';
import { brokenBy, INVARIANTS } from '../model/invariants/index.ts';
import { MAX_COMMANDS } from './subjects.ts';

export type Manner = 'blind' | 'guided';

/** The target gave itself away. */
export class Divergence extends Error {}

/** What fast-check calls the model. */
interface Model {
  state: State;
  facts: Facts | undefined;
  readonly executed: AnyCommand[];
}

/**
 * What fast-check calls the real system: a target fed one command at a time. Targets in this process execute a command
 * when its observation is asked for, and the iterator of an array sees what is appended meanwhile.
 */
class Real {
  readonly #fed: AnyCommand[] = [];
  readonly #observations: Iterator<Observed>;

  constructor(target: Target, specification: Specification) {
    const observations = target.execute(this.#fed, specification.config.profile);
    if (observations instanceof Promise) throw new TypeError(`target ${target.name} does not live in this process`);
    this.#observations = observations[Symbol.iterator]();
  }

  run(command: AnyCommand): Observed {
    this.#fed.push(command);
    const next = this.#observations.next();
    if (next.done === true) throw new Error('the target was gone');
    return next.value;
  }
}

/** Makes a source of randomness of what fast-check drew; the same one every time. */
type Draws = () => Random;

class TransitionCommand implements fc.Command<Model, Real> {
  readonly #specification: Specification;
  readonly #transition: AnyTransition;
  readonly #manner: Manner;
  readonly #draws: Draws;
  /** From `check`, which fast-check calls right before `run`. */
  #resolved: { readonly command: AnyCommand; readonly step: Step } | undefined;

  constructor(specification: Specification, transition: AnyTransition, manner: Manner, draws: Draws) {
    this.#specification = specification;
    this.#transition = transition;
    this.#manner = manner;
    this.#draws = draws;
  }

  check(model: Readonly<Model>): boolean {
    const args = this.#resolve(model);
    if (args === undefined) return false;
    const command = { name: this.#transition.name, args };
    const step = this.#specification.step(model.state, command);
    this.#resolved = { command, step };
    return step.unmodelled === undefined;
  }

  run(model: Model, real: Real): void {
    if (this.#resolved === undefined) throw new Error('fast-check runs no command unchecked');
    const { command, step } = this.#resolved;
    model.executed.push(command);
    const observed = real.run(command);
    const next = this.#specification.follow(model.state, command, step, observed.outcome);
    if (next === undefined) throw new Divergence(`${step.rule}: ${printOutcome(observed.outcome)}`);
    this.#checkInvariants(model, step, observed);
    model.state = next;
    model.facts = observed.facts;
  }

  toString(): string {
    return this.#transition.name;
  }

  #resolve({ state, executed }: Readonly<Model>): Args | undefined {
    const random = this.#draws();
    const fresh = (prefix: string): Label => `${prefix}${executed.length}`;
    if (this.#manner === 'blind') return wildArgs(this.#transition, random, state, fresh);
    const args = this.#transition.draw({ random, state, fresh });
    return args === undefined || random.below(4) > 0 ? args : withWild(this.#transition, args, random, state);
  }

  #checkInvariants({ facts: before }: Model, { mayAlso }: Step, { outcome, facts: after }: Observed): void {
    if (after === undefined || after === before) return;
    const { mayLeavePrefix } = this.#transition;
    const failed = outcome.kind === 'errno' && !(mayLeavePrefix === true && mayAlso.includes(outcome.errno));
    for (const invariant of INVARIANTS) {
      const how = brokenBy(invariant, { before, after, failed });
      if (how !== undefined) throw new Divergence(`${invariant.id}: ${how}`);
    }
  }
}

function wildArgs(transition: AnyTransition, random: Random, state: State, fresh: (prefix: string) => Label): Args {
  const args: Record<string, ArgValue> = {};
  for (const [name, domain] of argumentsOf(transition))
    args[name] =
      domain.kind === 'fresh'
        ? fresh((domain as FreshDomain).prefix)
        : (rightKind(domain, random, state) ?? domain.wild(random, state));
  return args;
}

/** Mostly a descriptor of the kind that the argument asks for, where it asks for one and it is there. */
function rightKind({ kind, describe }: Domain, random: Random, { fds }: State): Label | undefined {
  if (kind !== 'fd' || random.below(4) === 0) return undefined;
  const wanted = describe.replace('descriptor of a ', '');
  return pickOr(
    random,
    [...fds].flatMap(([label, file]) => (file.kind === wanted ? [label] : [])),
  );
}

function withWild(transition: AnyTransition, args: Args, random: Random, state: State): Args {
  const open = argumentsOf(transition).filter(([, { kind }]) => kind !== 'fresh');
  if (open.length === 0) return args;
  const [name, domain] = pick(random, open);
  return { ...args, [name]: domain.wild(random, state) };
}

/** One number for each command, stretched into as many as are asked for. It is fast, and shrinks to nothing simpler. */
const seeds: fc.Arbitrary<Draws> = fc
  .noShrink(fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }))
  .map((seed) => () => new SmallFastRandom(seed, 1, 2, 3));

const LARGEST = 0x7fff_ffff;
/** More than almost any command asks for. */
const NUMBERS = 32;

/** All numbers of a command as fast-check drew them. Smaller ones choose what is simpler, so commands shrink too. */
const numbers: fc.Arbitrary<Draws> = fc
  .array(fc.nat(LARGEST), { minLength: NUMBERS, maxLength: NUMBERS })
  .map((drawn) => () => {
    let asked = 0;
    return { below: (bound) => Math.floor(((drawn[asked++] ?? 0) / (LARGEST + 1)) * bound) };
  });

export interface CommandsOptions {
  readonly manner: Manner;
  /** Whether what is drawn can be made simpler; it takes 32 numbers for each command. */
  readonly shrinkable?: boolean;
}

export function commandsOf(
  specification: Specification,
  { capabilities }: Target,
  { manner, shrinkable = false }: CommandsOptions,
): fc.Arbitrary<Iterable<fc.Command<Model, Real>>> {
  const transitions = [...specification.transitions.values()].filter(
    ({ requires }) => requires === undefined || capabilities.has(requires),
  );
  const arbitraries = transitions.flatMap((transition) => {
    const one = (shrinkable ? numbers : seeds).map(
      (draws) => new TransitionCommand(specification, transition, manner, draws),
    );
    return Array.from({ length: manner === 'guided' ? transition.weight : 1 }, () => one);
  });
  return fc.commands(arbitraries, { maxCommands: MAX_COMMANDS, size: 'max' });
}

/** As the engine has it. */
const SECRECY_EVERY = 4;

/** What was executed, over all programs. */
export class Runner {
  programs = 0;
  commands = 0;
  /** Commands of the last program that failed. */
  failed: number | undefined;
  readonly #specification: Specification;
  readonly #target: Target;

  constructor(specification: Specification, target: Target) {
    this.#specification = specification;
    this.#target = target;
  }

  /** Throws a Divergence where the target gives itself away. */
  async run(commands: Iterable<fc.Command<Model, Real>>): Promise<void> {
    const model: Model = { state: this.#specification.initial, facts: undefined, executed: [] };
    this.programs++;
    try {
      fc.modelRun(() => ({ model, real: new Real(this.#target, this.#specification) }), commands);
      if (this.programs % SECRECY_EVERY === 0) await this.#checkSecrecy(model.executed);
    } catch (error) {
      this.failed = model.executed.length;
      throw error;
    } finally {
      this.commands += model.executed.length;
    }
  }

  async #checkSecrecy(program: readonly AnyCommand[]): Promise<void> {
    const verdict = await checkSecrecy({ specification: this.#specification, target: this.#target }, program);
    if (verdict.kind === 'diverges') throw new Divergence(`${verdict.rule}: ${verdict.observed}`);
  }
}
