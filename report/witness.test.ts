import { describe, expect, test } from '@jest/globals';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { parseProgram } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { colorsIf, PLAIN } from './colors.ts';
import { printWitness, type WitnessLine } from './witness.ts';

const specification = new Specification({ profile: profileById(DEFAULT_PROFILE), machine: FULL_MACHINE }, CATALOGUE);

const LINES: readonly WitnessLine[] = [
  { command: 'vm.create vm=vm0 dev=kvm type=0', ran: { rule: 'vm.create/created', expected: 'ok', observed: 'ok' } },
  { command: 'fd.close fd=vm0', ran: { rule: 'fd.close/closed', expected: 'ok', observed: 'EBADF' } },
];

describe('a witness', () => {
  test('stands in columns, with the parting line marked', () => {
    expect(printWitness(LINES, { colors: PLAIN, at: 1 })).toBe(
      [
        '# command                          expected  observed',
        'vm.create vm=vm0 dev=kvm type=0  # ok        ok',
        'fd.close fd=vm0                  # ok        EBADF     <-- here',
      ].join('\n'),
    );
  });

  test('is a program text itself', () => {
    const { program } = parseProgram(specification, printWitness(LINES, { colors: PLAIN, at: 1, rules: true }));
    expect(program.map(({ name }) => name)).toEqual(['vm.create', 'fd.close']);
  });

  test('has colours only where they are wanted', () => {
    expect(printWitness(LINES, { colors: colorsIf(true), at: 1 })).toContain('\u001b[31m');
    expect(printWitness(LINES, { colors: PLAIN, at: 1 })).not.toContain('\u001b');
  });
});
