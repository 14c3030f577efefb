/**
 * Reports of runs that were made apart, such as the shards of one run, as one report. In which order they come and in
 * how many steps they are merged makes no difference.
 */
import _ from 'lodash';
import type { FailureReport, InvariantReport, KnownReport, Report, RuleReport, RunReport } from './json.ts';
import { printRun, worstVerdict } from './runs.ts';

export interface NamedReport {
  /** As messages name it. */
  readonly name: string;
  readonly report: Report;
}

/** Reports that do not belong together. The message names the report and the field, and says what to do. */
export class MergeError extends Error {}

/** Throws a MergeError. */
export function mergeReports(named: readonly [NamedReport, ...NamedReport[]]): Report {
  const [one, ...others] = named;
  for (const other of others) assertSameSubject(one, other);
  assertDisjoint(named);
  const reports = named.map(({ report }) => report);
  const about = joined(reports.map((report) => report.about));
  return {
    ..._.omit(one.report, 'about'),
    ...(about === undefined ? {} : { about }),
    verdict: worstVerdict(_.map(reports, 'verdict')),
    runs: _.sortBy(
      reports.flatMap((each) => each.runs),
      'seed',
      'shard.count',
      'shard.index',
    ),
    rules: one.report.rules.map((_rule, index) => mergeRule(reports.map(({ rules }) => rules[index] as RuleReport))),
    invariants: one.report.invariants.map((_invariant, index) =>
      mergeInvariant(reports.map(({ invariants }) => invariants[index] as InvariantReport)),
    ),
    unmodelled: mergeEqual(
      reports.flatMap((each) => each.unmodelled),
      'rule',
      ([first, ...rest]) => ({
        ...first,
        programs: _.sumBy([first, ...rest], 'programs'),
      }),
    ),
    knownDivergences: mergeEqual(
      reports.flatMap((each) => each.knownDivergences),
      entryOf,
      mergeKnown,
    ),
    skipped: mergeEqual(
      reports.flatMap((each) => each.skipped),
      (skip) => JSON.stringify(skip),
      ([first]) => first,
    ),
    failures: mergeEqual(
      reports.flatMap((each) => each.failures),
      'token',
      clearest,
    ),
  };
}

type Some<T> = readonly [T, ...T[]];

/** Those of one key become one; in the order of the keys. */
const mergeEqual = <T>(all: readonly T[], key: string | ((each: T) => string), merge: (equal: Some<T>) => T): T[] =>
  _.sortBy(Object.entries(_.groupBy(all, key)), ([name]) => name).map(([, equal]) => merge(equal as [T, ...T[]]));

/**
 * A run that came to no command of an invariant cannot tell whether the target shows what it speaks of; one that saw
 * facts can. One evaluation is more than none, and one counterexample more than any number of them.
 */
const INVARIANT_STATUSES: readonly InvariantReport['status'][] = [
  'conceded',
  'not-evaluated',
  'not-observable',
  'held',
  'broken',
];

/**
 * As the verdicts that they lead to, so that the verdict fits the entries. `changed` outweighs `stale`: whoever saw it
 * has seen a divergence, and the entry must not be removed.
 */
const KNOWN_STATUSES: readonly KnownReport['status'][] = [
  'not-applicable',
  'reproduced',
  'inconclusive',
  'new',
  'stale',
  'changed',
];

const highest = <T>(order: readonly T[], values: readonly T[]): T =>
  _.maxBy(values, (value) => order.indexOf(value)) as T;

/** Where reports say different things about the same: all of it. */
const BETWEEN = ' | ';

function joined(texts: readonly (string | undefined)[]): string | undefined {
  const different = _.uniq(_.compact(texts));
  if (different.length < 2) return different[0];
  return _.sortBy(_.uniq(different.flatMap((text) => text.split(BETWEEN)))).join(BETWEEN);
}

function mergeRule(rules: readonly RuleReport[]): RuleReport {
  const reasons = rules.map(({ outOfReach }) => outOfReach);
  // What one run could reach is within reach.
  const outOfReach = reasons.includes(undefined) ? undefined : joined(reasons);
  return {
    ..._.omit(rules[0] as RuleReport, 'outOfReach'),
    hits: _.sumBy(rules, 'hits'),
    ...(outOfReach === undefined ? {} : { outOfReach }),
  };
}

function mergeInvariant(invariants: readonly InvariantReport[]): InvariantReport {
  const evaluated = invariants.filter(({ checks }) => checks > 0);
  // What one run could see is not unseen.
  const unseen = _.intersection(...evaluated.map((each) => each.unseen ?? [])).toSorted();
  return {
    ..._.omit(invariants[0] as InvariantReport, 'unseen'),
    status: highest(INVARIANT_STATUSES, _.map(invariants, 'status')),
    checks: _.sumBy(invariants, 'checks'),
    ...(unseen.length === 0 ? {} : { unseen }),
  };
}

/** What the entry itself says: entries that runs made of what they saw may share a name and nothing else. */
const entryOf = ({ id, rule, invariant, observed, reason, source }: KnownReport): string =>
  JSON.stringify([id, rule, invariant, observed, reason, source]);

function mergeKnown(equal: Some<KnownReport>): KnownReport {
  const status = highest(KNOWN_STATUSES, _.map(equal, 'status'));
  const note = joined(equal.filter((each) => each.status === status).map((each) => each.note));
  return {
    ..._.omit(equal[0], 'note'),
    status,
    programs: _.sumBy(equal, 'programs'),
    ...(note === undefined ? {} : { note }),
  };
}

/** Of several reports of one program, one that was seen to fail twice. */
const clearest = (equal: Some<FailureReport>): FailureReport =>
  _.sortBy(
    equal,
    ({ reproduced }) => !reproduced,
    (failure) => JSON.stringify(failure),
  )[0] as FailureReport;

/** What all reports must have in common, by the name of the field. Rules and invariants: all but what was counted. */
const subjectOf = (report: Report): Readonly<Record<string, unknown>> => ({
  ..._.pick(report, 'schema', 'version', 'modelHash', 'target'),
  'kernel.release': report.kernel?.release,
  'kernel.backEnd': report.kernel?.backEnd,
  profile: report.profile,
  rules: report.rules.map((rule) => _.omit(rule, 'hits', 'outOfReach')),
  invariants: report.invariants.map((invariant) => _.omit(invariant, 'status', 'checks', 'unseen')),
});

function assertSameSubject(one: NamedReport, other: NamedReport): void {
  const [mine, theirs] = [subjectOf(one.report), subjectOf(other.report)];
  const field = Object.keys(mine).find((each) => !_.isEqual(mine[each], theirs[each]));
  if (field === undefined) return;
  const [a, b] = [mine[field], theirs[field]];
  const how = typeof a === 'object' ? 'are not those' : `is ${printed(b)}, and not ${printed(a)} as`;
  throw new MergeError(
    `${other.name}: ${field} ${how} in ${one.name}: merge only reports of one version, target and profile`,
  );
}

const printed = (value: unknown): string => (typeof value === 'string' ? value : 'absent');

/** Programs that two reports count would count twice. Different shards of one run have none in common. */
function assertDisjoint(named: readonly NamedReport[]): void {
  const taken: { readonly name: string; readonly run: RunReport }[] = [];
  for (const { name, report } of named) {
    for (const run of report.runs) {
      const other = taken.find((each) => overlap(each.run, run));
      if (other !== undefined)
        throw new MergeError(
          `${name}: runs: ${printRun(run)} has programs of ${printRun(other.run)} in ${other.name}: leave one of them out`,
        );
      taken.push({ name, run });
    }
  }
}

const overlap = (one: RunReport, other: RunReport): boolean =>
  one.seed === other.seed && (one.shard?.count !== other.shard?.count || one.shard?.index === other.shard?.index);
