/** What a recorded log came to, as text and as data. */
import type { Disagreement, Some, TraceResult, Undecided } from '../conformance/trace.ts';
import type { SharedPages } from '../conformance/shared-pages.ts';
import type { Colors } from './colors.ts';
import { aligned, field, oneLine, plural, type Row } from './text.ts';

/** Shared ranges that are listed. */
const RANGES_SHOWN = 40;

const hex = (number: number): string => `0x${number.toString(16)}`;

export function printTrace(log: string, result: TraceResult, colors: Colors): string {
  const { profile, commands, checked, gaps, malformed, disagreements, undecided, seconds, shared } = result;
  const verdict = disagreements.count === 0 ? colors.green('conforms') : colors.red('diverges');
  return [
    field('log', oneLine(log)),
    field('profile', profile),
    field('verdict', verdict),
    field(
      'read',
      [
        `${plural(commands, 'command')}, ${checked} with what came of them`,
        ...(undecided.count === 0 ? [] : [`${undecided.count} of which nobody can tell`]),
        ...(gaps === 0 ? [] : [plural(gaps, 'gap')]),
      ].join('; '),
    ),
    ...(seconds === undefined ? [] : [field('time', `${seconds.toFixed(6)} s from the first to the last`)]),
    ...(gaps === 0
      ? []
      : [field('', 'what happened in the gaps is not known: the set below is that of the lines that are there')]),
    ...listed(malformed, ({ line, why }) => `line ${line} cannot be read: ${oneLine(why)}`),
    ...listed(disagreements, (each) => printDisagreement(each, colors)),
    ...listed(undecided, (each) => printUndecided(each, colors)),
    '',
    'rules',
    ...aligned(result.rules.map(({ id, times }): Row => [id, plural(times, 'time')])),
    ...(shared === undefined ? [] : printShared(shared)),
  ].join('\n');
}

function listed<T>({ count, shown }: Some<T>, print: (one: T) => string): readonly string[] {
  if (count === 0) return [];
  return ['', ...shown.map(print), ...(count > shown.length ? [`and ${count - shown.length} more`] : [])];
}

const printDisagreement = (
  { line, command, rule, invariant, expected, when, source, observed }: Disagreement,
  colors: Colors,
): string =>
  [
    colors.red(`line ${line}: ${oneLine(command)}`),
    field('rule', invariant === undefined ? rule : `${invariant}, behind ${rule}`),
    field('allowed', `${expected}, ${when.startsWith('at ') ? when : `when ${when}`}`),
    field('', source),
    field('observed', oneLine(observed)),
    field('goes on', 'as if what is allowed had happened'),
  ].join('\n');

const printUndecided = ({ line, command, why }: Undecided, colors: Colors): string =>
  [
    colors.yellow(`line ${line}: ${oneLine(command)}`),
    field('cannot tell', why),
    field('goes on', 'as if nothing had been announced'),
  ].join('\n');

function printShared(shared: SharedPages): readonly string[] {
  const { announcements, changes, redundant, ofOnePage, ranges, repeated, ofRepeated, isForgetful, record } = shared;
  const { mostRanges, mostPages } = shared;
  const atLeast = isForgetful ? 'at least ' : '';
  return [
    '',
    'shared pages',
    ...aligned([
      ['announcements', `${announcements}: ${changes} changed something, ${redundant} said nothing new`],
      ['of one page', `${ofOnePage} of ${announcements}`],
      [
        'churn',
        `${repeated} of ${atLeast}${plural(ranges, 'range')} announced three times or more, in ${plural(ofRepeated, 'announcement')}`,
      ],
      ['most ranges', `${mostRanges.count}, at line ${mostRanges.line}`],
      ['most pages', `${mostPages.count}, at line ${mostPages.line}`],
      ['in the end', inTheEnd(shared)],
    ]),
    ...(record.incomplete
      ? []
      : record.ranges.slice(0, RANGES_SHOWN).map(({ start, end }) => `    frames ${hex(start)} to ${hex(end)}`)),
    ...(record.ranges.length > RANGES_SHOWN ? [`    and ${record.ranges.length - RANGES_SHOWN} more ranges`] : []),
  ];
}

const inTheEnd = ({ record: { ranges, incomplete } }: SharedPages): string =>
  incomplete ? 'the record is marked incomplete: it must not be used for migration' : plural(ranges.length, 'range');

/** The same as data: numbers of lines and frames are numbers. */
export const traceReport = (log: string, result: TraceResult): object => ({
  kind: 'gmem-conformance trace',
  log,
  verdict: result.disagreements.count === 0 ? 'conforms' : 'diverges',
  ...result,
  malformed: { count: result.malformed.count, shown: result.malformed.shown },
  disagreements: { count: result.disagreements.count, shown: result.disagreements.shown },
  undecided: { count: result.undecided.count, shown: result.undecided.shown },
});
