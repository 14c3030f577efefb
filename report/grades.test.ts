import { describe, expect, test } from '@jest/globals';
import { PLAIN } from './colors.ts';
import { isSurprise, printDetectionPower, printFaults, printGrades, type MutantGrade } from './grades.ts';

const KILLED: MutantGrade = {
  id: 'drop:a/b',
  origin: 'derived',
  fault: 'does not check whether a is b',
  profile: 'linux-7.3',
  killed: true,
  programs: 12,
  commands: 340,
  witnessLength: 2,
};
const SURVIVOR: MutantGrade = { ...KILLED, id: 'lost-wakeup', killed: false, witnessLength: null };
const EQUIVALENT: MutantGrade = { ...SURVIVOR, id: 'swap:a/c', equivalent: 'both answer the same' };

describe('the grade of the kit', () => {
  test('counts the killed and names the survivors with the reason', () => {
    expect(printDetectionPower([KILLED, SURVIVOR, EQUIVALENT], PLAIN)).toBe(
      [
        'detection power: killed 1 of 3 mutants',
        '  lost-wakeup  survived 12 programs: does not check whether a is b',
        '  swap:a/c     equivalent: both answer the same',
      ].join('\n'),
    );
  });

  test('is surprised by a survivor, and by the death of an equivalent mutant', () => {
    expect([KILLED, SURVIVOR, EQUIVALENT].map(isSurprise)).toEqual([false, true, false]);
    const reborn = { ...EQUIVALENT, killed: true };
    expect(isSurprise(reborn)).toBe(true);
    expect(printDetectionPower([reborn], PLAIN)).toContain('killed, though it is marked equivalent');
  });

  test('is a table of one row for each mutant', () => {
    const [head, ...rows] = printGrades([KILLED, EQUIVALENT], PLAIN).split('\n');
    expect(head).toMatch(/^mutant +origin +fault +killed +programs +commands +witness$/);
    expect(rows[0]).toMatch(/^drop:a\/b +derived +does not check whether a is b +yes +12 +340 +2$/);
    expect(rows[1]).toMatch(/^swap:a\/c .* equivalent +12 +340$/);
  });

  test('can be had without trying anything', () => {
    expect(printFaults([KILLED]).split('\n')[1]).toMatch(/^drop:a\/b +derived +linux-7\.3 +does not check/);
  });
});
