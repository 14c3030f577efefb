/**
 * A report as test cases, for readers that think in tests. Every format that counts tests is written from this list, so
 * that the numbers agree.
 *
 * A divergence fails one case: that of the invariant which is broken, and otherwise that of the command whose rule was not
 * kept. A run that came to no verdict is an error.
 */
import _ from 'lodash';
import { match } from 'ts-pattern';
import { isUnexplained } from '../conformance/divergences.ts';
import { PLAIN } from './colors.ts';
import type { FailureReport, InvariantReport, KnownReport, Report, RuleReport, RunReport } from './json.ts';
import { missingRuns, printRun } from './runs.ts';
import { countsOf, describe, invariantText, printFailure } from './terminal.ts';
import { aligned, field, plural, type Row } from './text.ts';

/** `known`: diverges as a file of known divergences says, and fails nothing. */
export type CaseStatus = 'passed' | 'failed' | 'error' | 'skipped' | 'known';

export interface Case {
  readonly name: string;
  readonly status: CaseStatus;
  /** What came of it, or why nothing did, in a few words. */
  readonly summary: string;
  /** What there is to read about it, on several lines; may be empty. */
  readonly detail: string;
  readonly durationMs?: number;
}

/** Cases of one kind; there is at least one. */
export interface Suite {
  readonly name: string;
  readonly cases: readonly Case[];
}

/** What the formats that count tests are written from. */
export interface Tests {
  readonly verdict: Report['verdict'];
  /** What was tested, and against what: readers that put tests into packages have one for each. */
  readonly subject: string;
  readonly summary: readonly Row[];
  readonly suites: readonly Suite[];
  readonly durationMs: number;
  /** Known divergences that nobody has explained, with what is observed. */
  readonly unexplained: readonly Row[];
  /** What is worth a table, and no test. */
  readonly appendices: readonly Appendix[];
}

interface Appendix {
  readonly title: string;
  readonly text?: string;
  readonly heading: readonly [string, string];
  readonly rows: readonly Row[];
}

export const testsOf = (report: Report): Tests => ({
  verdict: report.verdict,
  subject: `${report.target} ${report.profile}`,
  summary: summaryOf(report),
  suites: suitesOf(report),
  durationMs: countsOf(report).durationMs,
  unexplained: report.knownDivergences.filter(isUnexplained).map(({ id, observed }): Row => [id, observed]),
  appendices: [notReached(report), unmodelled(report)].filter(({ rows }) => rows.length > 0),
});

const notReached = ({ rules }: Report): Appendix => ({
  title: 'Rules not reached',
  heading: ['rule', 'when'],
  rows: rules
    .filter(({ hits, outOfReach }) => hits === 0 && outOfReach === undefined)
    .map(({ id, when }): Row => [id, when]),
});

const unmodelled = ({ unmodelled: silent }: Report): Appendix => ({
  title: 'Unmodelled',
  text: 'Programs that were checked up to where the specification takes no position.',
  heading: ['rule', 'programs'],
  rows: _.orderBy(silent, ['programs', 'rule'], ['desc', 'asc']).map(({ rule, programs }): Row => [
    rule,
    `${programs}`,
  ]),
});

const suitesOf = (report: Report): readonly Suite[] =>
  [
    { name: 'runs', cases: runCases(report) },
    ...commandSuites(report),
    { name: 'invariants', cases: invariantCases(report) },
    { name: 'known divergences', cases: report.knownDivergences.map(knownCase) },
    { name: 'capabilities', cases: report.skipped.map(skippedCase) },
  ].filter(({ cases }) => cases.length > 0);

/** What was tested and against what, and what came of it as a whole. */
function summaryOf(report: Report): readonly Row[] {
  const { verdict, version, modelHash, target, about, kernel, profile } = report;
  const { programs, commands, exercised, rules, held, invariants } = countsOf(report);
  return [
    ['verdict', verdict],
    ['target', describe({ name: target, about })],
    ...(kernel === undefined ? [] : [['kernel', _.compact([kernel.release, kernel.backEnd]).join(', ')] as const]),
    ['profile', profile],
    ['model', modelHash],
    ['version', version],
    ['checked', `${plural(programs, 'program')}, ${plural(commands, 'command')}`],
    ['rules', `exercised ${exercised} of ${rules}`],
    ['invariants', `held ${held} of ${invariants}`],
  ];
}

/** Those that were merged, and shards that are missing. Names are the same from one night to the next; seeds are not. */
const runCases = ({ runs }: Report): readonly Case[] =>
  [
    ...runs.map(runCase),
    ...missingRuns(runs).map((run) => ({ ...missingRun, summary: `${printRun(run)}: there is no report of it` })),
  ].map((each, index) => ({ name: `run ${index + 1}`, ...each }));

const missingRun = { status: 'skipped', detail: '' } as const;

function runCase(run: RunReport): Omit<Case, 'name'> {
  const { verdict, reason, stopped, programs, commands, durationMs } = run;
  const done = `${plural(programs, 'program')}, ${plural(commands, 'command')}, ${printRun(run)}`;
  const extent = stopped === 'time' ? ', as far as there was time' : '';
  return {
    ...(verdict === 'inconclusive'
      ? { status: 'error', summary: `inconclusive: ${reason ?? 'the target gave no answer'}; ${done}` }
      : { status: 'passed', summary: `came to a verdict: ${verdict}${extent}; ${done}` }),
    detail: '',
    durationMs,
  };
}

/** One for each system; a failure at a rule that the report does not list stands alone. */
function commandSuites(report: Report): readonly Suite[] {
  const ruleOf = ({ rule }: FailureReport): Pick<RuleReport, 'system' | 'command'> =>
    report.rules.find(({ id }) => id === rule) ?? { system: 'no system', command: rule };
  const rules = _.groupBy(report.rules, 'system');
  const failures = _.groupBy(
    report.failures.filter(({ invariant }) => invariant === undefined),
    (failure) => ruleOf(failure).system,
  );
  return _.union(Object.keys(rules), Object.keys(failures)).map((system) => ({
    name: `commands of ${system}`,
    cases: withFailures(
      Object.entries(_.groupBy(rules[system], 'command')).map(([command, group]) => commandCase(command, group)),
      _.groupBy(failures[system], (failure) => ruleOf(failure).command),
      report,
    ),
  }));
}

function invariantCases(report: Report): readonly Case[] {
  const failures = report.failures.filter(({ invariant }) => invariant !== undefined);
  return withFailures(
    report.invariants.map((invariant) => invariantCase(invariant, report)),
    _.groupBy(failures, 'invariant'),
    report,
  );
}

/** Failures, by the name of the case that each belongs to, in the place of those cases. */
function withFailures(
  cases: readonly Case[],
  failures: Readonly<Record<string, readonly FailureReport[]>>,
  report: Report,
): readonly Case[] {
  const failed = Object.entries(failures).map(([name, group]) => failedCase(name, group, report));
  return _.unionBy(
    cases.map((each) => failed.find(({ name }) => name === each.name) ?? each),
    failed,
    'name',
  );
}

function commandCase(name: string, rules: readonly RuleReport[]): Case {
  const exercised = rules.filter(({ hits }) => hits > 0);
  const [reason, ...others] = _.uniq(rules.map(({ outOfReach }) => outOfReach));
  return {
    name,
    ...(exercised.length > 0
      ? { status: 'passed', summary: `exercised ${exercised.length} of ${plural(rules.length, 'rule')}` }
      : { status: 'skipped', summary: (others.length === 0 ? reason : undefined) ?? 'no program came to it' }),
    detail: aligned(rules.map((rule): Row => [rule.id, ruleText(rule)])).join('\n'),
  };
}

/** How often the rule decided a command, or why it never did. */
function ruleText({ hits, when, outOfReach }: RuleReport): string {
  if (hits > 0) return plural(hits, 'time');
  return outOfReach === undefined ? `not reached: when ${when}` : `cannot be reached here: ${outOfReach}`;
}

function invariantCase(invariant: InvariantReport, { knownDivergences }: Report): Case {
  const { id, sentence, source, status } = invariant;
  const known = knownDivergences.find(({ invariant: broken, programs }) => broken === id && programs > 0);
  return {
    name: id,
    status: match(status)
      .returnType<CaseStatus>()
      .with('held', () => 'passed')
      .with('broken', () => (known === undefined ? 'failed' : 'known'))
      .with('not-observable', 'not-evaluated', 'conceded', () => 'skipped')
      .exhaustive(),
    summary: `${invariantText(invariant)}${status === 'broken' && known !== undefined ? `, as ${known.id} says` : ''}`,
    detail: `${sentence}\n${source}`,
  };
}

const failedCase = (name: string, failures: readonly FailureReport[], report: Report): Case => ({
  name,
  status: 'failed',
  summary: failures.map(failureText).join('; also '),
  detail: failures.map((failure) => printFailure(failure, report, PLAIN)).join('\n\n'),
});

/** What is expected of an invariant is its sentence, which says little in a line. */
const failureText = ({ invariant, expected, observed }: FailureReport): string =>
  invariant === undefined ? `expected ${expected}, observed ${observed}` : `broken: ${observed}`;

function knownCase({ id, rule, invariant, status, programs, observed, reason, source, note }: KnownReport): Case {
  return {
    name: id,
    status: match(status)
      .returnType<CaseStatus>()
      .with('reproduced', () => 'known')
      .with('stale', 'changed', 'new', () => 'failed')
      .with('inconclusive', () => 'error')
      .with('not-applicable', () => 'skipped')
      .exhaustive(),
    summary: `${status}, ${plural(programs, 'program')}: ${note ?? reason}`,
    detail: [
      ...(rule === undefined ? [] : [field('rule', rule)]),
      ...(invariant === undefined ? [] : [field('invariant', invariant)]),
      field('observed', observed),
      field('reason', reason),
      field('source', source),
    ].join('\n'),
  };
}

const skippedCase = ({ capability, reason }: Report['skipped'][number]): Case => ({
  name: capability,
  status: 'skipped',
  summary: reason,
  detail: '',
});
