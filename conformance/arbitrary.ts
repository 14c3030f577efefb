import fc from 'fast-check';
import type { Program } from '../model/core/program.ts';
import type { Specification, Step } from '../model/core/specification.ts';
import { Generator, type GeneratedProgram, type GenerateOptions } from './generate.ts';
import { SmallFastRandom } from './random.ts';
import { candidates } from './shrink.ts';

/** The last program that was generated: it is checked before the next one is. */
let last: GeneratedProgram | undefined;

/** What the specification expects of a program that was just generated, so that checking need not step it again. */
export const traceOf = (program: Program): readonly Step[] | undefined =>
  program === last?.commands ? last.trace : undefined;

/**
 * Programs for fast-check. Shrinking needs no context, so `examples` and values from elsewhere shrink as well.
 * One arbitrary aims at the rules that it has planned for least, so it is made anew for every run of a property.
 */
export class ProgramArbitrary extends fc.Arbitrary<Program> {
  readonly #specification: Specification;
  readonly #generator: Generator;

  constructor(specification: Specification, options: GenerateOptions) {
    super();
    this.#specification = specification;
    this.#generator = new Generator(specification, options);
  }

  override generate(random: fc.Random): fc.Value<Program> {
    last = this.#generator.generate(SmallFastRandom.from(random));
    return new fc.Value(last.commands, undefined);
  }

  override canShrinkWithoutContext(value: unknown): value is Program {
    return Array.isArray(value);
  }

  override shrink(program: Program): fc.Stream<fc.Value<Program>> {
    return fc.stream(valuesOf(candidates(this.#specification, program)));
  }
}

function* valuesOf(programs: Iterable<Program>): IterableIterator<fc.Value<Program>> {
  for (const program of programs) yield new fc.Value(program, undefined);
}
