/**
 * Random programs, guided by the specification: it is stepped while the program is written, so that every command is
 * chosen in the state that it will meet. Arguments are valid, aimed at one guard row, nearly valid, or wild.
 */
import type { ArgValue, FreshDomain } from '../model/core/domain.ts';
import { pick, type Random } from '../model/core/random.ts';
import { argumentsOf, type AnyCommand, type AnyTransition, type Specification, type Step } from '../model/core/specification.ts';
import type { Label, State } from '../model/core/state.ts';
import type { Args, Guard } from '../model/core/transition.ts';

export interface GenerateOptions {
  /** Largest number of commands in a program. */
  readonly maxCommands: number;
  /** Capabilities that the target has; commands that require another are left out. */
  readonly capabilities: ReadonlySet<string>;
}

export interface GeneratedProgram {
  readonly commands: readonly AnyCommand[];
  /** What the specification expects of each command, as long as the target does what is expected. */
  readonly trace: readonly Step[];
}

interface Row {
  readonly transition: AnyTransition;
  readonly guard: Guard<Args>;
}

/** Tries to draw a command before a program is ended short. */
const ATTEMPTS = 24;

export class Generator {
  readonly #specification: Specification;
  readonly #options: GenerateOptions;
  readonly #transitions: readonly AnyTransition[];
  readonly #rows: readonly Row[];
  /** How often each rule was planned for; the next aim goes at one of the rarest. */
  readonly #planned = new Map<string, number>();

  constructor(specification: Specification, options: GenerateOptions) {
    this.#specification = specification;
    this.#options = options;
    this.#transitions = [...specification.transitions.values()].filter(
      ({ requires }) => requires === undefined || options.capabilities.has(requires),
    );
    this.#rows = this.#transitions.flatMap((transition) =>
      transition.guards.filter(({ violate }) => violate !== undefined).map((guard) => ({ transition, guard })),
    );
  }

  generate(random: Random): GeneratedProgram {
    const { maxCommands } = this.#options;
    const writer = new Writer(this.#specification);
    const deck = this.#deal(random);
    const length = 1 + random.below(maxCommands);
    for (let attempt = 0; writer.commands.length < length && attempt < 4 * length + ATTEMPTS; attempt++) {
      const command = this.#next(random, deck, writer);
      if (command === undefined) continue;
      const step = this.#specification.step(writer.state, command);
      if (step.unmodelled !== undefined && random.below(8) > 0) continue;
      this.#planned.set(step.rule, (this.#planned.get(step.rule) ?? 0) + 1);
      writer.append(command, step);
      // Nothing after it could be checked.
      if (step.unmodelled !== undefined) break;
    }
    return writer;
  }

  /** The commands of one program, each as often as its weight; a random part is left out (swarm testing). */
  #deal(random: Random): readonly AnyTransition[] {
    const deck: AnyTransition[] = [];
    for (const transition of this.#transitions) {
      const isRoot = transition.name === 'vm.create';
      if (!isRoot && random.below(4) === 0) continue;
      const weight = transition.weight * (1 + random.below(3));
      for (let copy = 0; copy < weight; copy++) deck.push(transition);
    }
    return deck;
  }

  #next(random: Random, deck: readonly AnyTransition[], writer: Writer): AnyCommand | undefined {
    const dice = random.below(100);
    if (dice < 18) return this.#aimed(random, writer);
    const transition = pick(random, deck);
    const args = transition.draw({ random, state: writer.state, fresh: writer.fresh });
    if (dice >= 97) return { name: transition.name, args: wildArgs(transition, random, writer) };
    if (args === undefined) return undefined;
    if (dice < 88) return { name: transition.name, args };
    return { name: transition.name, args: withWild(transition, args, random, writer.state) };
  }

  /** A command that violates one of the rows that were planned for least. */
  #aimed(random: Random, writer: Writer): AnyCommand | undefined {
    let { transition, guard } = pick(random, this.#rows);
    for (let rival = 0; rival < 3; rival++) {
      const other = pick(random, this.#rows);
      if ((this.#planned.get(other.guard.id) ?? 0) < (this.#planned.get(guard.id) ?? 0)) ({ transition, guard } = other);
    }
    const base = transition.draw({ random, state: writer.state, fresh: writer.fresh });
    const args = base && guard.violate?.(base, writer.state, random);
    return args && { name: transition.name, args };
  }
}

/** A program in the making. */
class Writer implements GeneratedProgram {
  readonly commands: AnyCommand[] = [];
  readonly trace: Step[] = [];
  state: State;
  readonly #numbers = new Map<string, number>();

  constructor(specification: Specification) {
    this.state = specification.initial;
  }

  readonly fresh = (prefix: string): Label => {
    const number = this.#numbers.get(prefix) ?? 0;
    this.#numbers.set(prefix, number + 1);
    return `${prefix}${number}`;
  };

  append(command: AnyCommand, step: Step): void {
    this.commands.push(command);
    this.trace.push(step);
    this.state = step.state;
  }
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
