import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import _ from 'lodash';
import { Report, REPORT_SCHEMA, type FailureReport, type RunReport } from './json.ts';
import { PLAIN } from './colors.ts';
import { mergeReports, type NamedReport } from './merge.ts';
import { parseReport } from './read.ts';
import { printRuns, worstVerdict } from './runs.ts';

const RULES = ['vm.create/created', 'vm.create/no-memory', 'fd.close/closed'];
const INVARIANTS = ['gmem/never-rebinds', 'memory/private-is-secret'];

const words = fc.constantFrom('one', 'two', 'one | two', 'three');
const verdicts = fc.constantFrom<Report['verdict'][]>('conforms', 'inconclusive', 'diverges');

const runBody: fc.Arbitrary<Omit<RunReport, 'seed' | 'shard'>> = fc.record(
  { verdict: verdicts, programs: fc.nat(), commands: fc.nat(), durationMs: fc.nat(), reason: words },
  { requiredKeys: ['verdict', 'programs', 'commands', 'durationMs'] },
);

const invariant = (id: string): fc.Arbitrary<Report['invariants'][number]> =>
  fc
    .record({
      id: fc.constant(id),
      sentence: fc.constant(`${id} holds.`),
      source: fc.constant('virt/kvm'),
      status: fc.constantFrom<Report['invariants'][number]['status'][]>(
        'held',
        'broken',
        'not-observable',
        'not-evaluated',
      ),
      checks: fc.constantFrom(0, 1, 2000),
      unseen: fc.subarray(['bindings', 'resident', 'stageTwo']),
    })
    .map(({ unseen, ...rest }) => ({ ...rest, ...(rest.checks > 0 && unseen.length > 0 ? { unseen } : {}) }));

const rule = (id: string): fc.Arbitrary<Report['rules'][number]> =>
  fc.record(
    {
      id: fc.constant(id),
      system: fc.constant('guest_memfd'),
      command: fc.constant('vm.create'),
      kind: fc.constant('acceptance' as const),
      when: fc.constant(''),
      result: fc.constant('ok'),
      source: fc.constant('virt/kvm'),
      hits: fc.nat(),
      outOfReach: words,
    },
    { requiredKeys: ['id', 'system', 'command', 'kind', 'when', 'result', 'source', 'hits'] },
  );

const known: fc.Arbitrary<Report['knownDivergences'][number]> = fc.record(
  {
    id: fc.constantFrom('overflow', 'prefetch'),
    rule: fc.constantFrom(...RULES),
    status: fc.constantFrom<Report['knownDivergences'][number]['status'][]>(
      'reproduced',
      'stale',
      'changed',
      'new',
      'not-applicable',
      'inconclusive',
    ),
    programs: fc.nat(),
    observed: fc.constant('ok'),
    reason: fc.constantFrom('signed', 'unexplained'),
    source: fc.constant('virt/kvm'),
    note: words,
  },
  { requiredKeys: ['id', 'status', 'programs', 'observed', 'reason', 'source'] },
);

const failure: fc.Arbitrary<FailureReport> = fc.record({
  steps: fc.constant([{ command: 'vm.create vm=vm0 dev=kvm type=0' }]),
  at: fc.constant(0),
  rule: fc.constantFrom(...RULES),
  expected: fc.constant('ok'),
  observed: words,
  token: fc.constantFrom('gmc1.a', 'gmc1.b', 'gmc1.c'),
  originalLength: fc.nat(80),
  shrinkRuns: fc.nat(),
  reproduced: fc.boolean(),
});

/** All that reports of one subject may differ in, but for their runs. */
const body: fc.Arbitrary<Omit<Report, 'runs'>> = fc
  .record({
    about: fc.option(words, { nil: undefined }),
    verdict: verdicts,
    rules: fc.tuple(...RULES.map(rule)),
    invariants: fc.tuple(...INVARIANTS.map(invariant)),
    unmodelled: fc.uniqueArray(fc.record({ rule: fc.constantFrom(...RULES), programs: fc.nat() }), {
      selector: ({ rule: id }) => id,
    }),
    knownDivergences: fc.uniqueArray(known, {
      selector: ({ id, rule: broken = '' }) => `${id} ${broken}`,
      maxLength: 4,
    }),
    skipped: fc.uniqueArray(fc.record({ capability: words, reason: words }), {
      comparator: (a, b) => _.isEqual(a, b),
      maxLength: 3,
    }),
    failures: fc.array(failure, { maxLength: 3 }),
  })
  .map(({ about, ...rest }) => ({
    schema: REPORT_SCHEMA,
    version: '1.2.3',
    modelHash: '0123456789ab',
    target: 'qemu',
    ...(about === undefined ? {} : { about }),
    kernel: { release: '7.3.4', backEnd: 'kvm_amd' },
    profile: 'linux-7.3',
    ...rest,
  }));

const SHARDS = 12;

/** Reports of one subject, no two of which are of the same programs. */
const reportsOf = (count: number): fc.Arbitrary<readonly Report[]> =>
  fc
    .tuple(
      fc.array(body, { minLength: count, maxLength: count }),
      fc.shuffledSubarray(_.range(1, SHARDS + 1), { minLength: count }),
      fc.array(runBody, { minLength: SHARDS, maxLength: SHARDS }),
    )
    .map(([bodies, indices, runs]) =>
      bodies.map((each, at) => ({
        ...each,
        runs: indices
          .filter((_index, place) => place % count === at)
          .map((index) => ({
            ...(runs[index - 1] as RunReport),
            // Every third one is a run by itself.
            ...(index % 3 === 0 ? { seed: index } : { seed: -1, shard: { index, count: SHARDS } }),
          })),
      })),
    );

const merge = (...reports: readonly Report[]): Report =>
  mergeReports(reports.map((report, index) => ({ name: `${index}.json`, report })) as [NamedReport, ...NamedReport[]]);

const hitsOf = (reports: readonly Report[]): readonly number[] =>
  RULES.map((id) => _.sum(reports.map(({ rules }) => rules.find((each) => each.id === id)?.hits)));
const checksOf = (reports: readonly Report[]): readonly number[] =>
  INVARIANTS.map((id) => _.sum(reports.map(({ invariants }) => invariants.find((each) => each.id === id)?.checks)));
const programsBy = (all: readonly { readonly programs: number }[], key: string): unknown =>
  _.mapValues(_.groupBy(all, key), (each) => _.sumBy(each, 'programs'));

describe('merging reports', () => {
  test('makes no difference in which order and in how many steps', () => {
    fc.assert(
      fc.property(reportsOf(3), fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), (reports, order) => {
        const [a, b, c] = reports as [Report, Report, Report];
        const all = merge(a, b, c);
        expect(merge(merge(a, b), c)).toEqual(all);
        expect(merge(a, merge(b, c))).toEqual(all);
        expect(merge(...order.map((index) => reports[index] as Report))).toEqual(all);
        expect(merge(all)).toEqual(all);
      }),
    );
  });

  test('loses nothing and counts nothing twice', () => {
    fc.assert(
      fc.property(reportsOf(3), (reports) => {
        const all = merge(...reports);
        expect(Report.parse(all)).toEqual(all);
        expect(hitsOf([all])).toEqual(hitsOf(reports));
        expect(checksOf([all])).toEqual(checksOf(reports));
        expect(_.sortBy(all.runs, 'seed', 'shard.index')).toEqual(
          _.sortBy(
            reports.flatMap((each) => each.runs),
            'seed',
            'shard.index',
          ),
        );
        expect(programsBy(all.unmodelled, 'rule')).toEqual(
          programsBy(
            reports.flatMap((each) => each.unmodelled),
            'rule',
          ),
        );
        const entries = reports.flatMap((each) => each.knownDivergences);
        expect(programsBy(all.knownDivergences, 'id')).toEqual(programsBy(entries, 'id'));
        expect(_.map(all.failures, 'token')).toEqual(
          _.uniq(reports.flatMap((each) => each.failures).map(({ token }) => token)).sort(),
        );
        for (const skip of reports.flatMap((each) => each.skipped)) expect(all.skipped).toContainEqual(skip);
      }),
    );
  });

  test('says the worst that any of them says', () => {
    fc.assert(
      fc.property(reportsOf(2), (reports) => {
        const all = merge(...reports);
        const said = _.map(reports, 'verdict');
        for (const worst of ['diverges', 'inconclusive', 'conforms'] as const) {
          if (!said.includes(worst)) continue;
          expect(all.verdict).toBe(worst);
          break;
        }
        for (const [index, { status }] of all.invariants.entries()) {
          const statuses = reports.map(({ invariants }) => invariants[index]?.status);
          expect(statuses).toContain(status);
          expect(status === 'broken').toBe(statuses.includes('broken'));
          expect(status === 'not-evaluated').toBe(_.uniq(statuses).join() === 'not-evaluated');
        }
      }),
    );
  });

  const [one, other] = fc.sample(reportsOf(2), { seed: 1, numRuns: 1 })[0] as readonly [Report, Report];
  const runs = (shard: RunReport['shard']): Report['runs'] => [
    { seed: 7, verdict: 'conforms', programs: 1, commands: 1, durationMs: 1, ...(shard && { shard }) },
  ];

  test('keeps of a known divergence what most asks for a change of the file', () => {
    const entry = { id: 'overflow', programs: 1, observed: 'ok', reason: 'signed', source: 'virt/kvm' };
    const with_ = (status: 'stale' | 'changed', report: Report, note: string): Report => ({
      ...report,
      knownDivergences: [{ ...entry, status, note }],
    });
    const { knownDivergences } = merge(with_('stale', one, 'gone'), with_('changed', other, 'observed EIO'));
    expect(knownDivergences).toEqual([{ ...entry, status: 'changed', programs: 2, note: 'observed EIO' }]);
  });

  test('keeps of one failure the report that saw it again', () => {
    const [seen] = fc.sample(failure, { seed: 1, numRuns: 1 }) as [FailureReport];
    const unseen = { ...seen, reproduced: false, shrinkRuns: 0 };
    const { failures } = merge({ ...one, failures: [unseen] }, { ...other, failures: [{ ...seen, reproduced: true }] });
    expect(failures).toEqual([{ ...seen, reproduced: true }]);
  });

  test('leaves out of reach only what no run could reach', () => {
    const out = (report: Report, why?: string): Report => ({
      ...report,
      rules: report.rules.map((each) => ({ ..._.omit(each, 'outOfReach'), ...(why && { outOfReach: why }) })),
    });
    expect(merge(out(one, 'far'), out(other)).rules[0]).not.toHaveProperty('outOfReach');
    expect(merge(out(one, 'far'), out(other, 'high')).rules[0]?.outOfReach).toBe('far | high');
  });

  test.each<[string, Partial<Report>, string]>([
    ['another version', { version: '9' }, 'version is 9, and not 1.2.3 as in 0.json'],
    ['another model', { modelHash: 'feed' }, 'modelHash is feed, and not 0123456789ab as in 0.json'],
    ['another target', { target: 'kvm' }, 'target is kvm, and not qemu as in 0.json'],
    ['another kernel', { kernel: { release: '6.18' } }, 'kernel.release is 6.18, and not 7.3.4 as in 0.json'],
    ['another profile', { profile: 'linux-7.2' }, 'profile is linux-7.2, and not linux-7.3 as in 0.json'],
    ['other rules', { rules: [] }, 'rules are not those in 0.json'],
    ['other invariants', { invariants: [] }, 'invariants are not those in 0.json'],
  ])('refuses %s', (_what, change, message) => {
    const why = `1.json: ${message}: merge only reports of one version, target and profile`;
    expect(() => merge(one, { ...other, ...change })).toThrow(why);
  });

  test.each<[RunReport['shard'], RunReport['shard'], string]>([
    [undefined, undefined, 'seed 7 has programs of seed 7'],
    [{ index: 2, count: 3 }, { index: 2, count: 3 }, 'seed 7, shard 2/3 has programs of seed 7, shard 2/3'],
    [{ index: 2, count: 3 }, { index: 3, count: 4 }, 'seed 7, shard 3/4 has programs of seed 7, shard 2/3'],
    [{ index: 2, count: 3 }, undefined, 'seed 7 has programs of seed 7, shard 2/3'],
  ])('refuses to count programs twice: %j and %j', (mine, theirs, message) => {
    const pair = [
      { ...one, runs: runs(mine) },
      { ...other, runs: runs(theirs) },
    ] as const;
    expect(() => merge(...pair)).toThrow(`1.json: runs: ${message} in 0.json: leave one of them out`);
  });

  test('shows how many runs there are, which went wrong, and which are not there', () => {
    expect(printRuns({ ...one, runs: runs({ index: 2, count: 3 }) }, PLAIN)).toBe(
      'runs        seed 7, shard 2/3\nmissing:\n  seed 7, shard 1/3\n  seed 7, shard 3/3',
    );
    const several: Report['runs'] = _.range(1, 15).map((seed) => ({
      ...(runs(undefined)[0] as RunReport),
      seed,
      ...(seed > 2 ? { verdict: 'inconclusive', stopped: 'interrupted' } : {}),
    }));
    const lines = printRuns({ ...one, runs: several }, PLAIN).split('\n');
    expect(lines).toHaveLength(12);
    expect(lines.slice(0, 2)).toEqual([
      'runs        14',
      expect.stringMatching(/^ {2}seed 3 +inconclusive, interrupted$/),
    ]);
    expect(lines.at(-1)).toBe('  and 2 more runs');
  });
});

describe('a saved report', () => {
  const [sample] = fc.sample(reportsOf(1), { seed: 2, numRuns: 1 })[0] as readonly [Report];
  const report: Report = { ...sample, verdict: worstVerdict(_.map(sample.runs, 'verdict')), failures: [] };
  const withVerdict = (verdict: Report['verdict']): readonly RunReport[] =>
    report.runs.map((run) => ({ ...run, verdict }));

  test('is read as it was written', () => {
    expect(parseReport(JSON.stringify(report), 'a.json')).toEqual(report);
  });

  test.each<[string, string, RegExp]>([
    ['no JSON', '{"schema"', /^a\.json: not JSON: .*; give what `run --json` has written$/],
    ['no object', '[]', /^a\.json: Invalid input: expected object, received array; give what/],
    [
      'an older schema',
      '{"schema":"gmem-conformance-report/1"}',
      /^a\.json: schema is gmem-conformance-report\/1, and this/,
    ],
    [
      'a wrong field',
      JSON.stringify(_.set(_.cloneDeep(report), 'rules[1].hits', -1)),
      /^a\.json: rules\.1\.hits: Too small/,
    ],
    [
      'better than its runs',
      JSON.stringify({ ...report, verdict: 'conforms', runs: withVerdict('inconclusive') }),
      /^a\.json: verdict is conforms, and its runs and failures come to inconclusive: the file was changed/,
    ],
    [
      'better than its failures',
      JSON.stringify({
        ...report,
        verdict: 'conforms',
        runs: withVerdict('conforms'),
        failures: fc.sample(failure, { seed: 2, numRuns: 1 }),
      }),
      /^a\.json: verdict is conforms, and its runs and failures come to diverges/,
    ],
    ['an unknown field', JSON.stringify({ ...report, '\u001b[2J': 1 }), /^a\.json: Unrecognized key: "\?\[2J"/],
  ])('is refused where it is %s', (_what, text, message) => {
    expect(() => parseReport(text, 'a.json')).toThrow(message);
  });
});
