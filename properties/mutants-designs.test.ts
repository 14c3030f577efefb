/** The suite finds by itself what the designs for direct-map removal break, and no more than that. */
import { describe, expect, it } from '@jest/globals';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { checkProgram } from '../conformance/check.ts';
import type { Counts } from '../conformance/failure.ts';
import { judge } from '../conformance/judge.ts';
import type { Fails } from '../conformance/shrink.ts';
import { smallestFailure } from '../conformance/smallest.ts';
import { printProgram, type Program } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import { DESIGN_FLAWS, DESIGNS, flawOf, specifyOnly } from './designs.ts';
import { generated, SEARCH_BUDGET } from './support.ts';

const target = simulatorTarget();
const PROGRAMS = 6000;
const MAX_COMMANDS = 40;

/** What breaks an invariant first, up to the command that does. */
async function findBroken(
  specification: Specification,
): Promise<{ readonly invariant: string; readonly program: Program } | undefined> {
  for (const { commands, trace } of generated(specification, { programs: PROGRAMS, maxCommands: MAX_COMMANDS })) {
    const verdict = await checkProgram({ specification, target }, commands, trace);
    if (verdict.kind === 'diverges' && verdict.invariant !== undefined)
      return { invariant: verdict.invariant, program: commands.slice(0, verdict.at + 1) };
  }
  return undefined;
}

async function shortest(specification: Specification, invariant: string): Promise<Program> {
  const found = await findBroken(specification);
  if (found === undefined) throw new Error(`${PROGRAMS} programs keep ${invariant}`);
  const counts: Counts = (divergence) => divergence.invariant === invariant;
  const fails: Fails = async (program) => {
    const verdict = await judge({ specification, target }, program);
    return verdict.kind === 'diverges' && counts(verdict, program);
  };
  const signal = new AbortController().signal;
  const options = { seed: 1, counts, signal, maxCommands: MAX_COMMANDS, searchBudget: SEARCH_BUDGET };
  return (await smallestFailure({ specification, target }, found.program, fails, options)).program;
}

describe.each(DESIGN_FLAWS.map((flaw) => [`${flaw.profile}: ${flaw.invariant}`, flaw] as const))('%s', (_, flaw) => {
  it('is broken, by no shorter program', async () => {
    const specification = specifyOnly(flaw.profile, (id) => id === flaw.invariant);
    const program = printProgram(specification, await shortest(specification, flaw.invariant));
    expect(program.split('\n')).toHaveLength(flaw.program.split('\n').length);
  });
});

describe.each(DESIGNS)('%s', (profile) => {
  it('keeps every other invariant', async () => {
    const specification = specifyOnly(profile, (id) => flawOf(profile, id) === undefined);
    expect((await findBroken(specification))?.invariant).toBeUndefined();
  });
});
