/**
 * From a failing program to a minimal one. It looks at nothing but the program, so programs that were recorded or
 * imported shrink as well as generated ones. A candidate is taken if it is smaller and fails too; "smaller" is a total
 * order (fewer commands, then shorter text, then text that sorts first), so shrinking ends.
 */
import _ from 'lodash';
import { PAGE_MASK, PAGE_SIZE } from '../model/core/abi.ts';
import { REWRITES } from '../model/catalogue.ts';
import { parseLabel, type ArgValue, type Domain } from '../model/core/domain.ts';
import type { Random } from '../model/core/random.ts';
import { createdLabels, renameLabels, type Program } from '../model/core/program.ts';
import {
  argumentsOf,
  sharedArguments,
  type AnyCommand,
  type AnyTransition,
  type Specification,
} from '../model/core/specification.ts';
import { NO_FD, RESERVED_LABELS, type Label, type State } from '../model/core/state.ts';
import type { Args } from '../model/core/transition.ts';

/** Whether the program still fails. May run the program on a target, so it is asked as seldom as possible. */
export type Fails = (program: Program) => boolean | Promise<boolean>;

/** Programs to try by default: seconds on a target in this process. */
export const SHRINK_BUDGET = 100_000;

export interface ShrinkOptions {
  /** Programs to try at most. */
  readonly budget?: number;
  /** Ends shrinking with what was found so far. */
  readonly signal?: AbortSignal;
  /**
   * How far to go: drop commands alone; simplify what is left as well; or look for shorter programs with other commands
   * too, by replacing pairs of commands. Each takes many times the runs of the one before.
   */
  readonly effort?: Effort;
}

export type Effort = 'drop' | 'simplify' | 'replace';

type Pass = (specification: Specification, program: Program) => Iterable<Program>;

const DROPPING: readonly Pass[] = [shorter, merged, ...REWRITES];
const SIMPLIFYING: readonly Pass[] = [...DROPPING, simpler, reordered];
const PASSES: Readonly<Record<Effort, readonly Pass[]>> = {
  drop: DROPPING,
  simplify: SIMPLIFYING,
  replace: [...SIMPLIFYING, replaced],
};

export interface Shrunk {
  readonly program: Program;
  /** Programs that were tried. */
  readonly runs: number;
}

export async function shrinkProgram(
  specification: Specification,
  program: Program,
  fails: Fails,
  { budget = SHRINK_BUDGET, effort = 'replace', signal }: ShrinkOptions = {},
): Promise<Shrunk> {
  const order = new Order(specification);
  const tried = new Set<string>();
  let best = program;
  let runs = 0;
  const take = async (candidates: Iterable<Program>): Promise<boolean> => {
    for (const candidate of candidates) {
      if (runs >= budget || signal?.aborted === true) return false;
      if (!order.isSmaller(candidate, best)) continue;
      const text = order.text(candidate);
      if (tried.has(text)) continue;
      tried.add(text);
      runs++;
      if (await fails(candidate)) {
        best = candidate;
        return true;
      }
    }
    return false;
  };
  const passes = PASSES[effort];
  // After every success the cheap passes come first again.
  for (let index = 0; index < passes.length;) {
    const pass = passes[index] as Pass;
    index = (await take(pass(specification, best))) ? 0 : index + 1;
  }
  return { program: canonical(specification, best), runs };
}

/** All candidates that do not need many runs, smallest changes last: for fast-check's own shrinking. */
export function* candidates(specification: Specification, program: Program): Iterable<Program> {
  const order = new Order(specification);
  for (const pass of [...DROPPING, simpler])
    for (const candidate of pass(specification, program)) if (order.isSmaller(candidate, program)) yield candidate;
}

/**
 * Programs by length, then by the length of their text, then by the text itself, where a word of a choice counts by its
 * place: what a domain gives as simpler is smaller, whatever the words are.
 */
export class Order {
  readonly #specification: Specification;
  readonly #lines = new WeakMap<AnyCommand, string>();

  constructor(specification: Specification) {
    this.#specification = specification;
  }

  #line(command: AnyCommand): string {
    let line = this.#lines.get(command);
    if (line === undefined) this.#lines.set(command, (line = this.#print(command)));
    return line;
  }

  #print({ name, args }: AnyCommand): string {
    const parts = argumentsOf(this.#specification.transition(name)).map(([argument, domain]) => {
      const value = args[argument] as ArgValue;
      return `${argument}=${domain.words?.indexOf(value as string) ?? domain.print(value)}`;
    });
    return [name, ...parts].join(' ');
  }

  text(program: Program): string {
    return program.map((command) => this.#line(command)).join('\n');
  }

  isSmaller(a: Program, b: Program): boolean {
    if (a.length !== b.length) return a.length < b.length;
    const [one, other] = [this.text(a), this.text(b)];
    return one.length === other.length ? one < other : one.length < other.length;
  }
}

const without = (program: Program, ...gone: readonly number[]): Program =>
  program.filter((_command, index) => !gone.includes(index));

const withCommand = (program: Program, at: number, command: AnyCommand): Program =>
  program.map((old, index) => (index === at ? command : old));

/** Drops runs of commands, halves first, then single ones, then any two. */
function* shorter(_specification: Specification, program: Program): Iterable<Program> {
  const { length } = program;
  for (let size = length >> 1; size >= 1; size >>= 1)
    for (let end = length; end > 0; end -= size) yield program.filter((_, index) => index < end - size || index >= end);
  if (length > 32) return;
  for (let late = length - 1; late > 0; late--)
    for (let early = late - 1; early >= 0; early--) yield without(program, early, late);
}

/** Lets one label stand for another, and drops what created the other. */
function* merged(specification: Specification, program: Program): Iterable<Program> {
  const creations = program.flatMap((command, index) =>
    createdLabels(specification.transition(command.name), command).map((label) => ({ label, index })),
  );
  for (const kept of creations)
    for (const gone of creations) {
      if (kept === gone) continue;
      const rest = without(program, gone.index);
      yield rest.map((command) =>
        renameLabels(specification.transition(command.name), command, (label) =>
          label === gone.label ? kept.label : label,
        ),
      );
    }
}

/** Puts commands whose order does not matter into one order, so that programs that do the same end up the same. */
function* reordered(_specification: Specification, program: Program): Iterable<Program> {
  for (let first = 0; first < program.length; first++)
    for (let second = first + 1; second < program.length; second++)
      yield program.map((command, index) =>
        index === first ? (program[second] as AnyCommand) : index === second ? (program[first] as AnyCommand) : command,
      );
}

/** Simplifies clusters of addresses, single arguments, equal arguments together, and amounts that add up. */
function* simpler(specification: Specification, program: Program): Iterable<Program> {
  yield* translated(program);
  const states = statesAlong(specification, program);
  for (const [at, command] of program.entries())
    for (const [name, domain] of argumentsOf(specification.transition(command.name)))
      for (const value of domain.simpler(command.args[name] as ArgValue, states[at] as State))
        yield withCommand(program, at, { ...command, args: { ...command.args, [name]: value } });
  yield* together(specification, program, states);
  yield* gathered(specification, program);
}

/** Gives a simpler value to every argument that has the same one, in pairs and all over. */
function* together(specification: Specification, program: Program, states: readonly State[]): Iterable<Program> {
  const places = new Map<string, { at: number; name: string; domain: Domain; value: ArgValue }[]>();
  for (const [at, command] of program.entries())
    for (const [name, domain] of argumentsOf(specification.transition(command.name))) {
      if (domain.kind === 'fresh') continue;
      const value = command.args[name] as ArgValue;
      const key = `${domain.kind} ${domain.print(value)}`;
      const found = places.get(key) ?? [];
      places.set(key, [...found, { at, name, domain, value }]);
    }
  for (const found of places.values()) {
    const [first] = found;
    if (first === undefined || found.length < 2) continue;
    for (const value of first.domain.simpler(first.value, states[first.at] as State))
      yield program.map((command, index) => {
        const changes = found.filter(({ at }) => at === index).map(({ name }) => [name, value] as const);
        return changes.length === 0
          ? command
          : { ...command, args: { ...command.args, ...Object.fromEntries(changes) } };
      });
  }
}

/** Numbers so close that they may be addresses in one region, in bytes. */
const REGION = 1n << 32n;

/**
 * Moves a cluster of addresses down to zero as a whole, so that what lies within what stays so; also together with
 * another cluster far above it, such as the end of a huge slot.
 */
function* translated(program: Program): Iterable<Program> {
  const numbers = program.flatMap(({ args }) => Object.values(args).filter((value) => typeof value === 'bigint'));
  for (const base of new Set(numbers)) {
    if (base < PAGE_SIZE) continue;
    const origin = base & ~PAGE_MASK;
    const far = numbers.filter((number) => number - origin >= REGION);
    for (const other of new Set([origin, ...far])) {
      const moves = (value: bigint): boolean =>
        [origin, other].some((start) => value >= start && value - start < REGION);
      const move = (value: ArgValue): ArgValue => (typeof value === 'bigint' && moves(value) ? value - origin : value);
      yield program.map(({ name, args }) => ({ name, args: _.mapValues(args, move) }));
    }
  }
}

/** Drops a command, and lets others of the same name make up for its amounts: one by one, or all to their limits. */
function* gathered(specification: Specification, program: Program): Iterable<Program> {
  for (const [from, giver] of program.entries()) {
    const amounts = argumentsOf(specification.transition(giver.name)).filter(([, { max }]) => max !== undefined);
    for (const [name, { max = 0n }] of amounts) {
      const raised = (had: ArgValue | undefined, by: bigint): bigint => {
        const sum = (had as bigint) + by;
        return sum > max ? max : sum;
      };
      const raise = (to: (index: number) => boolean, by: bigint): Program =>
        without(
          program.map((command, index) =>
            index !== from && command.name === giver.name && to(index)
              ? { ...command, args: { ...command.args, [name]: raised(command.args[name], by) } }
              : command,
          ),
          from,
        );
      for (const [to, taker] of program.entries())
        if (to !== from && taker.name === giver.name) yield raise((index) => index === to, giver.args[name] as bigint);
      yield raise(() => true, max);
    }
    yield* grown(without(program, from));
  }
}

/** Makes everything of one size a page larger, so that one command may do what took two. */
function* grown(program: Program): Iterable<Program> {
  const sizes = program.flatMap(({ args }) => Object.values(args).filter((value) => typeof value === 'bigint'));
  for (const size of new Set(sizes)) {
    if (size < PAGE_SIZE || (size & PAGE_MASK) !== 0n) continue;
    yield program.map(({ name, args }) => ({
      name,
      args: _.mapValues(args, (value) => (value === size ? size + PAGE_SIZE : value)),
    }));
  }
}

/** Draws per transition and place when looking for replacements. */
const DRAWS = 3;

/** Puts one other command in the place of two. */
function* replaced(specification: Specification, program: Program): Iterable<Program> {
  const states = statesAlong(specification, program);
  const { length } = program;
  if (length > 16) return;
  for (let at = 0; at < length; at++)
    for (const command of alternatives(specification, states[at] as State, program))
      for (let other = length - 1; other >= 0; other--)
        if (other !== at) yield without(withCommand(program, at, command), other);
}

/** Some commands that the specification would accept in the state, also with arguments of the program's own commands. */
function* alternatives(specification: Specification, state: State, program: Program): Iterable<AnyCommand> {
  const used = new Set(program.flatMap((command) => createdLabels(specification.transition(command.name), command)));
  const fresh = (prefix: string): Label => {
    let number = 0;
    while (used.has(`${prefix}${number}`)) number++;
    return parseLabel(`${prefix}${number}`);
  };
  for (const transition of specification.transitions.values())
    for (let draw = 0; draw < DRAWS; draw++) {
      const args = drawSmall(transition, state, fresh, draw);
      if (args === undefined) continue;
      yield { name: transition.name, args };
      if (draw > 0) continue;
      for (const command of program) {
        const shared = sharedArguments(transition, specification.transition(command.name));
        if (shared.length > 1) yield { name: transition.name, args: { ...args, ..._.pick(command.args, shared) } };
      }
    }
}

/** The low numbers first: the simplest arguments that a command would draw. */
function drawSmall(
  transition: AnyTransition,
  state: State,
  fresh: (prefix: string) => Label,
  draw: number,
): Args | undefined {
  let asked = 0;
  const random: Random = { below: (bound) => (draw === 0 ? 0 : (draw * 7 + asked++ * draw) % bound) };
  return transition.draw({ random, state, fresh });
}

function statesAlong(specification: Specification, program: Program): readonly State[] {
  const states: State[] = [];
  let state = specification.initial;
  for (const command of program) {
    states.push(state);
    state = specification.step(state, command).state;
  }
  return states;
}

/**
 * The same program with labels numbered in the order in which they are created: `vm0`, `vm1`, … A descriptor that no
 * command creates is written as what it is: none.
 */
export function canonical(specification: Specification, program: Program): Program {
  const names = new Map<Label, Label>();
  const counts = new Map<string, number>();
  for (const command of program)
    for (const [name, domain] of argumentsOf(specification.transition(command.name))) {
      if (domain.kind !== 'fresh') continue;
      const { prefix } = domain as Domain & { readonly prefix: string };
      const number = counts.get(prefix) ?? 0;
      counts.set(prefix, number + 1);
      names.set(command.args[name] as Label, `${prefix}${number}`);
    }
  return program.map((command) => {
    const transition = specification.transition(command.name);
    const { name, args } = renameLabels(transition, command, (label) => names.get(label) ?? label);
    const dangling = argumentsOf(transition).filter(
      ([arg, { kind }]) => kind === 'fd' && isDangling(command.args[arg] as Label, names),
    );
    return { name, args: { ...args, ...Object.fromEntries(dangling.map(([arg]) => [arg, NO_FD])) } };
  });
}

const isDangling = (label: Label, created: ReadonlyMap<Label, Label>): boolean =>
  !created.has(label) && !RESERVED_LABELS.has(label);
