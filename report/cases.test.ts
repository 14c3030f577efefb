import { describe, expect, test } from '@jest/globals';
import { SAMPLE } from '../properties/sample-report.ts';
import { testsOf, type Case } from './cases.ts';
import type { Report, RunReport } from './json.ts';

const casesOf = (suite: string, report: Report = SAMPLE): readonly Case[] =>
  testsOf(report).suites.find(({ name }) => name === suite)?.cases ?? [];
const caseOf = (suite: string, name: string, report?: Report): Case | undefined =>
  casesOf(suite, report).find((each) => each.name === name);

describe('the cases of a report', () => {
  test('are runs, of which one that came to no verdict is an error', () => {
    expect(casesOf('runs')).toEqual([
      expect.objectContaining({
        status: 'passed',
        summary: 'came to a verdict: diverges; 100 programs, 2000 commands, seed 1',
        durationMs: 1500,
      }),
      expect.objectContaining({
        status: 'error',
        summary: 'inconclusive: the target was gone; 1 program, 3 commands, seed 2',
      }),
    ]);
  });

  test('are shards, of which those are skipped that nothing is known of', () => {
    const shard = {
      ...SAMPLE.runs[0],
      shard: { index: 2, count: 3 },
      verdict: 'conforms',
      stopped: 'time',
    } as RunReport;
    const shards = casesOf('runs', { ...SAMPLE, runs: [shard] });
    expect(shards.map(({ name, status, summary }) => [name, status, summary])).toEqual([
      [
        'run 1',
        'passed',
        'came to a verdict: conforms, as far as there was time; 100 programs, 2000 commands, seed 1, shard 2/3',
      ],
      ['run 2', 'skipped', 'seed 1, shard 1/3: there is no report of it'],
      ['run 3', 'skipped', 'seed 1, shard 3/3: there is no report of it'],
    ]);
  });

  test('are commands, of which one fails where a rule of its own was not kept', () => {
    expect(casesOf('commands of guest_memfd').map(({ name, status, summary }) => [name, status, summary])).toEqual([
      ['vm.create', 'passed', 'exercised 1 of 1 rule'],
      ['slot.set', 'failed', 'expected EINVAL, observed ok in place of slot.set/unaligned'],
      ['guest.load', 'skipped', 'no program came to it'],
      ['memory.fail', 'skipped', 'the target lacks memory-failure'],
    ]);
    expect(casesOf('commands of direct map').map(({ name }) => name)).toEqual(['gpc.read']);
    expect(caseOf('commands of guest_memfd', 'vm.create')?.detail).toBe('  vm.create/created  40 times');
    expect(caseOf('commands of guest_memfd', 'slot.set')?.detail).toMatch(
      /^diverges at command 2 of 3\n[^]*<-- here\n[^]*\nreplay {6}gmem-conformance replay gmc1\.token --target 'process:.\/mine --fast'\n/,
    );
  });

  test('tell a rule that was not reached from one that cannot be', () => {
    const passed = { ...SAMPLE, failures: [] };
    expect(caseOf('commands of guest_memfd', 'slot.set', passed)).toMatchObject({
      status: 'passed',
      summary: 'exercised 1 of 3 rules',
      detail: [
        '  slot.set/unaligned  3 times',
        '  slot.set/never      not reached: when `it` is about | slot.set/never',
        '  slot.set/nowhere    cannot be reached here: the machine has no such thing',
      ].join('\n'),
    });
  });

  test('are invariants, and a divergence fails that which it breaks and no command besides', () => {
    expect(casesOf('invariants').map(({ name, status, summary }) => [name, status, summary])).toEqual([
      ['gmem/held', 'passed', 'held 70 times, as far as can be seen without frames'],
      ['gmem/broken', 'failed', 'broken: ok in place of vm.create/created'],
      ['gmem/known', 'known', 'broken, as reproduced says'],
      ['gmem/unseen', 'skipped', 'not observable on this target'],
      ['gmem/unmet', 'skipped', 'never evaluated in this run'],
    ]);
    expect(caseOf('invariants', 'gmem/broken')?.detail).toContain('The sentence of gmem/broken.');
  });

  test('are known divergences, and fail where the file must be changed', () => {
    expect(casesOf('known divergences').map(({ name, status, summary }) => [name, status, summary])).toEqual([
      ['reproduced', 'known', 'reproduced, 5 programs: the reason of reproduced'],
      ['gone', 'failed', 'stale, 0 programs: no longer reproduces'],
      ['other', 'failed', 'changed, 0 programs: observed x instead'],
      ['found', 'failed', 'new, 0 programs: the reason of found'],
      ['far', 'skipped', 'not-applicable, 0 programs: it is about another kernel'],
      ['stuck', 'error', 'inconclusive, 0 programs: memory was short'],
    ]);
    expect(caseOf('known divergences', 'gone')?.detail).toBe(
      ['rule        vm.create/created', 'observed    ok', 'reason      the reason of gone', 'source      a mail'].join(
        '\n',
      ),
    );
  });

  test('are capabilities that the target lacks', () => {
    expect(casesOf('capabilities')).toEqual([
      { name: 'memory-failure', status: 'skipped', summary: 'nobody can break memory here', detail: '' },
    ]);
    expect(testsOf({ ...SAMPLE, skipped: [] }).suites.map(({ name }) => name)).not.toContain('capabilities');
  });

  test('hold every failure: several in one case, and one of a rule or invariant that is not listed in its own', () => {
    const [first, second] = SAMPLE.failures;
    if (first === undefined || second === undefined) throw new Error('the sample has no failures');
    const report = {
      ...SAMPLE,
      failures: [first, { ...first, observed: 'EIO' }, { ...first, rule: 'new/rule' }, { ...second, invariant: 'new' }],
    };
    expect(caseOf('commands of guest_memfd', 'slot.set', report)).toMatchObject({
      status: 'failed',
      summary: 'expected EINVAL, observed ok in place of slot.set/unaligned; also expected EINVAL, observed EIO',
      detail: expect.stringMatching(/diverges at[^]*\n\ndiverges at/),
    });
    expect(caseOf('commands of no system', 'new/rule', report)?.status).toBe('failed');
    expect(caseOf('invariants', 'new', report)?.status).toBe('failed');
  });
});

test('the summary says what was tested, and what came of all runs', () => {
  expect(Object.fromEntries(testsOf(SAMPLE).summary)).toEqual({
    verdict: 'diverges',
    target: 'process:./mine --fast: a program that somebody wrote',
    kernel: '7.3.4, kvm_amd',
    profile: 'linux-7.3',
    model: '0123456789ab',
    version: '1.2.3',
    checked: '101 programs, 2003 commands',
    rules: 'exercised 3 of 7',
    invariants: 'held 1 of 5',
  });
});
