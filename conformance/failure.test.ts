import { describe, expect, it } from '@jest/globals';
import type { Observed, Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { fails } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { parseProgram, type Program } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { shrinkFailure, type Failure } from './failure.ts';
import { judge } from './judge.ts';
import { shrinkProgram } from './shrink.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const reference = referenceTarget();
const VM = 'vm.create vm=vm0 dev=kvm type=0\n';
const OTHER = VM.replace('vm0', 'vm1');
const { program } = parseProgram(specification, `${VM}${OTHER}fd.close fd=vm1\n`);

/** Fails the last command of every program, whatever it is. */
const failsLast = async (given: Program): Promise<readonly Observed[]> => [
  ...[...(await reference.execute(given, specification.config.profile))].slice(0, -1),
  { outcome: fails('EIO') },
];

async function shrunkOn(execute: Target['execute'], sameRule: boolean): Promise<Failure> {
  const checking = { specification, target: { ...reference, execute } };
  const first = await judge(checking, program);
  if (first.kind !== 'diverges') throw new Error('the program does not fail');
  return shrinkFailure(checking, program, first, { sameRule }, (from, _counts, failing, signal) =>
    shrinkProgram(specification, from, failing, { budget: 500, signal }),
  );
}

describe('a failing program', () => {
  it('may shrink to one that breaks another rule, and the report says which it was', async () => {
    const { rule, first, program: small, original } = await shrunkOn(failsLast, false);
    expect(rule).not.toBe('fd.close/vm-destroyed');
    expect(first).toMatchObject({ at: 2, rule: 'fd.close/vm-destroyed' });
    expect([small.length, original]).toEqual([1, program]);
  });

  it('keeps to the rule where that is wanted', async () => {
    const { rule, first, program: small } = await shrunkOn(failsLast, true);
    expect([rule, first]).toEqual(['fd.close/vm-destroyed', undefined]);
    expect(small.map(({ name }) => name)).toEqual(['vm.create', 'fd.close']);
  });

  it('is left as it is by a target that gives no more answers, which is soon given up', async () => {
    let calls = 0;
    const execute: Target['execute'] = (given) => (++calls === 1 ? failsLast(given) : []);
    const failure = await shrunkOn(execute, false);
    expect(failure).toMatchObject({ at: 2, rule: 'fd.close/vm-destroyed', shrinkRuns: 3 });
    expect(failure.program).toHaveLength(3);
    // Once before shrinking, and once to see how the shrunk program fails.
    expect(calls).toBe(1 + 3 + 1);
  });
});
