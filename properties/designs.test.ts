import { describe, expect, it } from '@jest/globals';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { checkProgram } from '../conformance/check.ts';
import {
  answerOf,
  brokenAtEnd,
  DESIGN_FLAWS,
  DESIGN_QUESTIONS,
  DESIGNS,
  observedByDesign,
  specifyOnly,
} from './designs.ts';
import { parse, specify } from './support.ts';

describe.each(DESIGN_QUESTIONS.map((each) => [each.question, each] as const))('%s', (_question, each) => {
  it.each(DESIGNS)('%s answers as it is written down', (profile) => {
    const { failing, unsettled = [] } = each;
    const expected = failing.includes(profile) ? 'no' : unsettled.includes(profile) ? 'not settled' : 'yes';
    expect(answerOf(each, profile).answer).toBe(expected);
  });

  it('is answered with yes by the counted reinsertion of RFC v2, of which the specification wants nothing else', async () => {
    const specification = specify('direct-map-rfc-v2');
    const verdict = await checkProgram(
      { specification, target: simulatorTarget() },
      parse(specification, each.program),
    );
    expect(verdict.kind).toBe('conforms');
    expect(each.failing).not.toContain('direct-map-rfc-v2');
  });
});

describe.each(DESIGN_FLAWS.map((flaw) => [`${flaw.profile}: ${flaw.invariant}`, flaw] as const))('%s', (_, flaw) => {
  it('is broken by the last command, and by nothing before', async () => {
    expect(brokenAtEnd(flaw.invariant, observedByDesign(flaw))).toBeDefined();
    const specification = specifyOnly(flaw.profile, (id) => id === flaw.invariant);
    const program = parse(specification, flaw.program);
    expect(await checkProgram({ specification, target: simulatorTarget() }, program)).toMatchObject({
      kind: 'diverges',
      at: program.length - 1,
      invariant: flaw.invariant,
    });
  });
});
