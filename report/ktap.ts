/**
 * KTAP version 1, which the CI of the kernel reads (Documentation/dev-tools/ktap.rst): a test for each suite, with its
 * cases as subtests.
 */
import _ from 'lodash';
import { match } from 'ts-pattern';
import type { Case, Tests } from './cases.ts';
import { field, oneLine, printable } from './text.ts';

export function printKtap({ suites, summary }: Tests): string {
  const lines = [
    'KTAP version 1',
    `1..${suites.length}`,
    ...diagnostics(summary.map(([name, value]) => field(name, value))),
    ...suites.flatMap(({ name, cases }, index) => [
      ...subtests(cases).map((line) => `  ${line}`),
      `${worst(cases)} ${index + 1} ${resultText(name)}${cases.every(isSkipped) ? ' # SKIP' : ''}`,
    ]),
    totals(suites.flatMap(({ cases }) => cases)),
  ];
  return `${lines.join('\n')}\n`;
}

const subtests = (cases: readonly Case[]): readonly string[] => [
  'KTAP version 1',
  `1..${cases.length}`,
  ...cases.flatMap((each, index) => [
    ...diagnostics(each.detail === '' ? [] : each.detail.split('\n')),
    `${worst([each])} ${index + 1} ${resultText(each.name)} # ${directive(each)}${resultText(each.summary)}`,
  ]),
];

const isSkipped = ({ status }: Case): boolean => status === 'skipped';

const worst = (cases: readonly Case[]): string =>
  cases.some(({ status }) => status === 'failed' || status === 'error') ? 'not ok' : 'ok';

/** Without one, no summary may begin with the name of a directive: that of a case that passed or failed does not. */
const directive = ({ status }: Case): string =>
  match(status)
    .with('passed', 'failed', () => '')
    .with('error', () => 'ERROR ')
    .with('skipped', () => 'SKIP ')
    .with('known', () => 'XFAIL ')
    .exhaustive();

/** In a result line # begins the directive, and has no escape. */
const resultText = (text: string): string => oneLine(text).replaceAll('#', '\\u{23}');

/** Two blanks, because with one blank `# Subtest:` and others mean something to a parser. */
const diagnostics = (lines: readonly string[]): readonly string[] =>
  lines.flatMap((line) => printable(line).split('\n')).map((line) => `#  ${line}`.trimEnd());

/** As kselftest prints them. */
function totals(cases: readonly Case[]): string {
  const { passed = 0, failed = 0, known = 0, skipped = 0, error = 0 } = _.countBy(cases, 'status');
  return `# Totals: pass:${passed} fail:${failed} xfail:${known} xpass:0 skip:${skipped} error:${error}`;
}
