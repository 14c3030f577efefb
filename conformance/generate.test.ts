import { describe, expect, it } from '@jest/globals';
import _ from 'lodash';
import { ALL_CAPABILITIES } from '../adapters/adapter.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, PROFILES, profileById } from '../model/core/profile.ts';
import { createdLabels } from '../model/core/program.ts';
import { argumentsOf, Specification } from '../model/core/specification.ts';
import { RESERVED_LABELS } from '../model/core/state.ts';
import { Generator, type GeneratedProgram } from './generate.ts';
import { SmallFastRandom } from './random.ts';

const specify = (profile = 'linux-7.3') =>
  new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
const SPECIFICATION = specify();

function generate(
  specification: Specification,
  { programs = 400, maxCommands = 40, seed = 1, capabilities = ALL_CAPABILITIES } = {},
): readonly GeneratedProgram[] {
  const generator = new Generator(specification, { maxCommands, capabilities: new Set(capabilities) });
  const random = new SmallFastRandom(seed, 2, 3, 4);
  return Array.from({ length: programs }, () => {
    const { commands, trace } = generator.generate(random);
    return { commands: [...commands], trace: [...trace] };
  });
}

const namesOf = (programs: readonly GeneratedProgram[]): Set<string> =>
  new Set(programs.flatMap(({ commands }) => commands.map(({ name }) => name)));

describe.each(PROFILES.map(({ id }) => id))('generated programs of %s', (profile) => {
  const specification = specify(profile);
  const programs = generate(specification);

  it('use every command that the profile has', () => {
    expect(namesOf(programs)).toEqual(new Set(specification.transitions.keys()));
  });

  it('leave out some commands each, where there are many', () => {
    const busy = programs.filter(({ commands }) => commands.length > 30);
    const counts = busy.map((program) => namesOf([program]).size);
    expect(busy.length).toBeGreaterThan(10);
    // A program of forty commands that are aimed at rules may come to all of a few.
    const { size } = specification.transitions;
    expect(Math.max(...counts)).toBeLessThan(size > 20 ? size : size + 1);
    expect(Math.min(...counts)).toBeLessThan(0.75 * Math.max(...counts));
  });

  it('have a length from one to the most that was asked for', () => {
    const lengths = programs.map(({ commands }) => commands.length);
    expect(Math.min(...lengths)).toBeLessThan(5);
    // A program ends where the specification is silent.
    expect(Math.max(...lengths)).toBeGreaterThan(35);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(40);
  });

  it('come with what the specification expects, and end where it is silent', () => {
    for (const { commands, trace } of programs.slice(0, 100)) {
      let state = specification.initial;
      commands.forEach((command, index) => {
        const step = specification.step(state, command);
        expect([trace[index]?.rule, trace[index]?.outcome]).toEqual([step.rule, step.outcome]);
        expect(step.unmodelled === undefined || index === commands.length - 1).toBe(true);
        ({ state } = step);
      });
    }
  });

  it('use each label for one thing', () => {
    for (const { commands } of programs) {
      const labels = commands.flatMap((command) => createdLabels(specification.transition(command.name), command));
      expect(new Set(labels).size).toBe(labels.length);
      expect(labels.filter((label) => RESERVED_LABELS.has(label))).toEqual([]);
    }
  });

  it('hold arguments that their domains can write and read', () => {
    const lost: string[] = [];
    for (const { commands } of programs)
      for (const { name, args } of commands)
        for (const [key, domain] of argumentsOf(specification.transition(name)))
          if (!_.isEqual(domain.parse(domain.print(args[key] ?? '')), args[key])) lost.push(`${name} ${key}`);
    expect(lost).toEqual([]);
  });
});

describe('the generator', () => {
  it('writes one-command programs where no more are wanted', () => {
    const lengths = generate(SPECIFICATION, { maxCommands: 1 }).map(({ commands }) => commands.length);
    expect(Math.max(...lengths)).toBe(1);
  });

  it('leaves out commands that need what the target lacks', () => {
    const names = namesOf(generate(SPECIFICATION, { capabilities: ['facts'] }));
    expect([names.has('memory.fail'), names.has('fault.slab')]).toEqual([false, false]);
    expect(namesOf(generate(SPECIFICATION, { capabilities: ['memory-failure'] })).has('memory.fail')).toBe(true);
  });

  it('mixes commands that are accepted with commands that are not', () => {
    const steps = generate(SPECIFICATION).flatMap(({ trace }) => trace);
    const accepted = steps.filter(({ outcome }) => outcome.kind === 'ok').length / steps.length;
    expect(accepted).toBeGreaterThan(0.4);
    expect(accepted).toBeLessThan(0.9);
  });

  it('draws values from the whole width of a field', () => {
    const sizes = generate(SPECIFICATION, { programs: 2000 }).flatMap(({ commands }) =>
      commands.filter(({ name }) => name === 'gmem.create').map(({ args }) => args['size'] as bigint),
    );
    expect(sizes.some((size) => size > 1n << 63n)).toBe(true);
    expect(sizes.some((size) => size % 4096n !== 0n)).toBe(true);
    expect(sizes.some((size) => size === 0n)).toBe(true);
  });

  it('starts from nothing: another generator with the same seed writes the same', () => {
    expect(generate(SPECIFICATION, { programs: 50 })).toEqual(generate(SPECIFICATION, { programs: 50 }));
  });
});

describe('the random numbers', () => {
  it('are below their bound, and come to each number below it', () => {
    const random = new SmallFastRandom(1, 2, 3, 4);
    const drawn = new Set(Array.from({ length: 500 }, () => random.below(7)));
    expect([...drawn].toSorted()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(random.below(1)).toBe(0);
  });

  it('depend on every word of the seed', () => {
    const first = (...[a, b, c]: readonly [number, number, number]): number =>
      new SmallFastRandom(a, b, c, 1).below(0x1_0000_0000);
    const values = [first(1, 2, 3), first(9, 2, 3), first(1, 9, 3), first(1, 2, 9)];
    expect(new Set(values).size).toBe(4);
  });
});
