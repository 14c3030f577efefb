/** Shrinking reaches the minimum for four challenges that shrinkers are known to fail, from each of 50 seeds. */
import { describe, expect, test } from '@jest/globals';
import { Generator } from '../conformance/generate.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import { shrinkProgram } from '../conformance/shrink.ts';
import { fresh, mapping, u32, type Domain } from '../model/core/domain.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { printProgram, type Program } from '../model/core/program.ts';
import { Specification, type AnyTransition } from '../model/core/specification.ts';
import { defineTransition } from '../model/core/transition.ts';

/** Integers from zero to `max`. */
const upTo = (max: number): Domain<bigint> => ({
  ...u32(),
  describe: `integer up to ${max}`,
  max: BigInt(max),
  parse: (text) => {
    const value = u32().parse(text);
    if (value > BigInt(max)) throw new RangeError(`${text} does not fit`);
    return value;
  },
  wild: (random) => BigInt(random.below(max + 1)),
});

const accepting = {
  mayAlso: [],
  guards: [],
  weight: 4,
  source: 'none',
  summary: 'A command of a challenge.',
  does: 'nothing',
} as const;
const accepts = (id: string) =>
  [{ id, when: 'always', accept: (_args: unknown, state: never) => ({ state }) }] as const;

const give = defineTransition({
  ...accepting,
  name: 'give',
  args: { amount: upTo(1000) },
  accepts: accepts('give/given'),
  draw: ({ random }) => ({ amount: BigInt(random.below(1001)) }),
});
const take = defineTransition({
  ...accepting,
  name: 'take',
  args: { amount: upTo(1000) },
  accepts: accepts('take/taken'),
  draw: ({ random }) => ({ amount: BigInt(random.below(12)) }),
});
const open = defineTransition({
  ...accepting,
  name: 'open',
  args: { it: fresh('it') },
  accepts: accepts('open/opened'),
  draw: ({ fresh: label }) => ({ it: label('it') }),
});
const use = defineTransition({
  ...accepting,
  name: 'use',
  args: { it: mapping() },
  accepts: accepts('use/used'),
  draw: ({ random }) => ({ it: `it${random.below(20)}` }),
});
const add = defineTransition({
  ...accepting,
  name: 'add',
  args: { amount: upTo(10) },
  accepts: accepts('add/added'),
  draw: ({ random }) => ({ amount: BigInt(random.below(6)) }),
});

const amounts = (program: Program, name: string): readonly bigint[] =>
  program.filter((command) => command.name === name).map(({ args }) => args['amount'] as bigint);

interface Challenge {
  readonly name: string;
  readonly commands: readonly unknown[];
  readonly fails: (program: Program) => boolean;
  readonly shortest: string;
}

const CHALLENGES: readonly Challenge[] = [
  {
    name: 'two arguments must be equal',
    commands: [give, take],
    fails: (program) => amounts(program, 'give').some((each) => each > 2n && amounts(program, 'take').includes(each)),
    shortest: 'give amount=3\ntake amount=3\n',
  },
  {
    name: 'two commands that are not neighbours must go together',
    commands: [give, take, open],
    fails: (program) =>
      amounts(program, 'give').length === amounts(program, 'take').length &&
      program.some((command) => command.name === 'open'),
    shortest: 'open it=it0\n',
  },
  {
    name: 'references renumber when a creation is deleted',
    commands: [open, use],
    fails: (program) => {
      const opened = program.flatMap(({ name, args }, at) => (name === 'open' ? [{ label: args['it'], at }] : []));
      return program.some(
        ({ name, args }, at) => name === 'use' && opened.some((each) => each.label === args['it'] && each.at < at),
      );
    },
    shortest: 'open it=it0\nuse it=it0\n',
  },
  {
    name: 'a sum must reach a bound in few steps',
    commands: [add, open],
    fails: (program) => amounts(program, 'add').reduce((sum, each) => sum + each, 0n) >= 35n,
    shortest: 'add amount=0xa\nadd amount=0xa\nadd amount=0xa\nadd amount=5\n',
  },
];

describe('the four challenges', () => {
  test.each(CHALLENGES)('$name', async ({ commands, fails, shortest }) => {
    const catalogue = commands as readonly AnyTransition[];
    const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, catalogue);
    const reached = new Map<string, number>();
    for (const seed of Array.from({ length: 50 }, (_, index) => index)) {
      const program = failingProgram(specification, seed, fails);
      const { program: shrunk } = await shrinkProgram(specification, program, fails, { effort: 'simplify' });
      const text = printProgram(specification, shrunk);
      reached.set(text, (reached.get(text) ?? 0) + 1);
    }
    expect(reached).toEqual(new Map([[shortest, 50]]));
  });
});

function failingProgram(specification: Specification, seed: number, fails: (program: Program) => boolean): Program {
  const generator = new Generator(specification, { maxCommands: 40, capabilities: new Set() });
  const random = new SmallFastRandom(seed, 1, 2, 3);
  for (;;) {
    const { commands } = generator.generate(random);
    if (fails(commands)) return commands;
  }
}
