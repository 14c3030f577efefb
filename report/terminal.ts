/** What the command line shows of a campaign: data in, text out. */
import _ from 'lodash';
import { match } from 'ts-pattern';
import { isUnexplained } from '../conformance/divergences.ts';
import type { InvariantSentence } from '../conformance/invariants.ts';
import type { Rule } from '../model/core/specification.ts';
import type { Colors } from './colors.ts';
import type { FailureReport, InvariantReport, Report } from './json.ts';
import { aligned, field, group, plural, shellWord, type Row } from './text.ts';
import { printWitness } from './witness.ts';

export interface SubjectLine {
  readonly target: string;
  readonly profile: string;
  readonly modelHash: string;
  /** The model that judged the program when it was recorded, where it was. */
  readonly recorded?: string | undefined;
}

/** The name of a target, and what it is. */
export const describe = ({ name, about }: { readonly name: string; readonly about?: string | undefined }): string =>
  about === undefined ? name : `${name}: ${about}`;

/** What is tested, and against what. */
export const printSubject = ({ target, profile, modelHash, recorded = modelHash }: SubjectLine): string =>
  [
    field('target', target),
    field('profile', profile),
    field('model', modelHash),
    ...(recorded === modelHash
      ? []
      : [
          field(
            '',
            `the program was recorded with model ${recorded}: the specification has changed since, and so may the verdict`,
          ),
        ]),
  ].join('\n');

/** Everything that a run found out, but for the failing program. */
export const printReport = (report: Report, colors: Colors): string =>
  [
    ...printVerdict(report, colors),
    '',
    ...printRuleCoverage(report),
    '',
    ...printInvariants(report, colors),
    ...printUnmodelled(report),
    ...printKnown(report, colors),
    ...printSkipped(report),
  ].join('\n');

/** How much was done in all runs, and how much of the specification that came to. */
export const countsOf = ({ runs, rules, invariants }: Report) => ({
  programs: _.sumBy(runs, 'programs'),
  commands: _.sumBy(runs, 'commands'),
  durationMs: _.sumBy(runs, 'durationMs'),
  rules: rules.length,
  exercised: rules.filter(({ hits }) => hits > 0).length,
  /** Those that the design claims to keep. */
  invariants: invariants.filter(({ status }) => status !== 'conceded').length,
  held: invariants.filter(({ status }) => status === 'held').length,
});

function printVerdict(report: Report, colors: Colors): readonly string[] {
  const { verdict, runs } = report;
  const { programs, commands, durationMs } = countsOf(report);
  const perSecond = (count: number): string => `${Math.round((count * 1000) / Math.max(durationMs, 1))}`;
  const timedOut = runs.some(({ stopped }) => stopped === 'time');
  const reason = runs.find((run) => run.reason !== undefined)?.reason;
  const word = match(verdict)
    .with('conforms', (text) => colors.green(text))
    .with('diverges', (text) => colors.red(text))
    .with('inconclusive', (text) => colors.yellow(`${text}: ${reason ?? 'the target gave no answer'}`))
    .exhaustive();
  return [
    field('verdict', word),
    field(
      'checked',
      `${plural(programs, 'program')}, ${plural(commands, 'command')}${timedOut ? ', until the time was over' : ''}`,
    ),
    field(
      'speed',
      `${perSecond(programs)} programs/s, ${perSecond(commands)} commands/s, ${(durationMs / 1000).toFixed(1)} s in all`,
    ),
  ];
}

function printRuleCoverage(report: Report): readonly string[] {
  const { exercised, rules } = countsOf(report);
  const missing = report.rules.filter(({ hits }) => hits === 0);
  const [unreachable, unreached] = _.partition(missing, ({ outOfReach }) => outOfReach !== undefined);
  return [
    field('rules', `exercised ${exercised} of ${rules}`),
    ...group(
      'cannot be reached here:',
      unreachable.map(({ id, outOfReach }): Row => [id, outOfReach ?? '']),
    ),
    ...group(
      'not reached by this run:',
      unreached.map(({ id, when }): Row => [id, `when ${when}`]),
    ),
  ];
}

function printInvariants(report: Report, colors: Colors): readonly string[] {
  const { held, invariants } = countsOf(report);
  return [
    field('invariants', `held ${held} of ${invariants}`),
    ...aligned(
      report.invariants.map((invariant): Row => {
        const text = invariantText(invariant);
        return [invariant.id, invariant.status === 'broken' ? colors.red(text) : text];
      }),
    ),
  ];
}

const withoutParts = (unseen: readonly string[]): string =>
  unseen.length === 0 ? '' : `, as far as can be seen without ${unseen.join(', ')}`;

/** What became of an invariant, in words. */
export const invariantText = ({ status, checks, unseen = [], flaw = '' }: InvariantReport): string =>
  match(status)
    .with('held', () => `held ${plural(checks, 'time')}${withoutParts(unseen)}`)
    .with('broken', () => 'broken')
    .with('not-observable', () => 'not observable on this target')
    .with('not-evaluated', () => 'never evaluated in this run')
    .with('conceded', () => `design flaw, conceded: ${flaw}`)
    .exhaustive();

/** Rules shown by name; the others are in the JSON report. */
const UNMODELLED_SHOWN = 10;

function printUnmodelled({ unmodelled }: Report): readonly string[] {
  if (unmodelled.length === 0) return [];
  const total = _.sumBy(unmodelled, 'programs');
  const sorted = _.orderBy(unmodelled, ['programs', 'rule'], ['desc', 'asc']);
  const rest = sorted.slice(UNMODELLED_SHOWN);
  return [
    '',
    field(
      'unmodelled',
      `${plural(total, 'program')} left what is specified, and ${total === 1 ? 'was' : 'were'} checked up to there`,
    ),
    ...aligned([
      ...sorted.slice(0, UNMODELLED_SHOWN).map(({ rule, programs }): Row => [rule, plural(programs, 'program')]),
      ...(rest.length === 0
        ? []
        : [[`and ${plural(rest.length, 'more rule')}`, plural(_.sumBy(rest, 'programs'), 'program')] as const]),
    ]),
  ];
}

function printKnown({ knownDivergences }: Report, colors: Colors): readonly string[] {
  if (knownDivergences.length === 0) return [];
  const by = _.groupBy(knownDivergences, 'status');
  const noted = (status: Report['knownDivergences'][number]['status']): readonly Row[] =>
    (by[status] ?? []).map(({ id, note }): Row => [id, note ?? '']);
  const here = knownDivergences.filter(({ status }) => status !== 'not-applicable' && status !== 'stale');
  const unexplained = knownDivergences.filter(isUnexplained).map(({ id }) => id);
  return [
    '',
    field('known', `${plural(here.length, 'divergence')}, met by ${plural(_.sumBy(here, 'programs'), 'program')}`),
    ...aligned(here.map(({ id, programs, reason }): Row => [id, `${plural(programs, 'program')}; ${reason}`])),
    ...group(colors.red('stale:'), noted('stale')),
    ...group(colors.red('changed:'), noted('changed')),
    ...group(colors.red('new:'), noted('new')),
    ...group(colors.yellow('could not be tried:'), noted('inconclusive')),
    ...group('not applicable here:', noted('not-applicable')),
    ...(unexplained.length === 0 ? [] : [field('warning', `nobody has explained ${unexplained.join(', ')}`)]),
  ];
}

const printSkipped = ({ skipped }: Report): readonly string[] =>
  skipped.length === 0
    ? []
    : [
        '',
        field('skipped', plural(skipped.length, 'capability').replace('capabilitys', 'capabilities')),
        ...aligned(skipped.map(({ capability, reason }): Row => [capability, reason])),
      ];

/** Where a failure was found, and the sentences that it may contradict; a report has it all. */
export interface FailureContext {
  readonly target: string;
  readonly kernel?: object | undefined;
  readonly rules: readonly RuleSentence[];
  readonly invariants: readonly InvariantSentence[];
  /** How to see the failure again; on the command line, if left out. */
  readonly replay?: (token: string) => readonly string[];
}

type RuleSentence = Pick<Rule, 'id' | 'kind' | 'when' | 'result' | 'source'>;

/** The failing program, what it breaks, and how to see it again. */
export function printFailure(failure: FailureReport, context: FailureContext, colors: Colors): string {
  const { rules, invariants } = context;
  const { at, steps, expected, observed, token, shrinkRuns, originalLength, reproduced } = failure;
  return [
    colors.bold(`diverges at command ${at + 1} of ${steps.length}`),
    '',
    printWitness(steps, { colors, at }),
    ...printTwin(failure),
    '',
    ...explain(
      rules.find(({ id }) => id === failure.rule),
      invariants.find(({ id }) => id === failure.invariant),
    ),
    field('expected', expected),
    field('observed', observed),
    ...printFirst(failure),
    ...(shrinkRuns === 0
      ? []
      : [
          field(
            'shrunk',
            `from ${originalLength} to ${plural(steps.length, 'command')} in ${plural(shrinkRuns, 'run')}`,
          ),
        ]),
    ...(reproduced ? [] : [field('note', 'run once more, the program did not fail: the target is not deterministic')]),
    ...(context.replay?.(token) ?? printReplay(token, context)),
    ...printLog(failure),
  ].join('\n');
}

const LOG_LINES = 10;

const printLog = ({ log = '' }: FailureReport): readonly string[] =>
  log === ''
    ? []
    : [
        '',
        'Beside its answers the target wrote, last of all:',
        ...log
          .trimEnd()
          .split('\n')
          .slice(-LOG_LINES)
          .map((line) => `  ${line}`),
      ];

const printFirst = ({ first }: FailureReport): readonly string[] =>
  first === undefined
    ? []
    : [
        field('at first', [first.rule, ...(first.invariant === undefined ? [] : [first.invariant])].join(', ')),
        field('', 'is what the program broke before it was shrunk; --same-rule keeps to that'),
      ];

export const replayCommand = (token: string, target: string): string =>
  `gmem-conformance replay ${token} --target ${shellWord(target)}`;

const printReplay = (token: string, { target, kernel }: FailureContext): readonly string[] => [
  field('replay', replayCommand(token, target)),
  ...(kernel === undefined ? [] : [field('as C', 'the same with --c reproducer.c')]),
  field('as a file', 'the same with --save found.gmem, for `scenario`, `replay` and `shrink`'),
];

const printTwin = ({ steps, twin }: FailureReport): readonly string[] =>
  twin === undefined
    ? []
    : [
        '',
        'The host can tell it from the same program with',
        ...twin.filter((line, index) => line !== steps[index]?.command),
      ];

/** The sentences that a failure contradicts, with their sources. */
export const explain = (
  rule: RuleSentence | undefined,
  invariant: InvariantSentence | undefined,
): readonly string[] => [
  ...(rule === undefined
    ? []
    : [
        field('rule', rule.id),
        field('', `when ${rule.when}: ${rule.kind === 'unmodelled' ? `unmodelled, ${rule.result}` : rule.result}`),
        field('', rule.source),
      ]),
  ...(invariant === undefined
    ? []
    : [field('invariant', invariant.id), field('', invariant.sentence), field('', invariant.source)]),
];
