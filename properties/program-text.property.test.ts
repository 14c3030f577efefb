/** Whatever the generator writes, the text form holds: at full width, in every profile. */
import { describe, expect, it } from '@jest/globals';
import { decodeToken, encodeToken } from '../conformance/token.ts';
import { PROFILES } from '../model/core/profile.ts';
import { createdLabels, parseProgram, printProgram, renameLabels } from '../model/core/program.ts';
import { generated, specify } from './support.ts';

describe.each(PROFILES.map(({ id }) => id))('programs of %s', (profile) => {
  const specification = specify(profile);
  const programs = [...generated(specification, { programs: 150, maxCommands: 60 })].map(({ commands }) => commands);

  it('are read back as they were written', () => {
    for (const program of programs)
      expect(parseProgram(specification, printProgram(specification, program)).program).toEqual(program);
  });

  it('survive a replay token', () => {
    for (const program of programs.slice(0, 50)) {
      const content = { program: printProgram(specification, program), profile, target: 'simulator', modelHash: '0' };
      expect(decodeToken(encodeToken(content))).toEqual(content);
    }
  });

  it('mean the same under other labels', () => {
    for (const program of programs.slice(0, 100)) {
      const mine = new Set(program.flatMap((each) => createdLabels(specification.transition(each.name), each)));
      const rename = (label: string): string => (mine.has(label) ? `other-${label}` : label);
      let [state, renamedState] = [specification.initial, specification.initial];
      for (const command of program) {
        const step = specification.step(state, command);
        const renamed = renameLabels(specification.transition(command.name), command, rename);
        const other = specification.step(renamedState, renamed);
        expect([other.rule, other.outcome]).toEqual([step.rule, step.outcome]);
        [state, renamedState] = [step.state, other.state];
      }
    }
  });
});
