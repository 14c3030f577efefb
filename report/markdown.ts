/** The report as a page of Markdown: for the summary of a workflow, and for mails. */
import _ from 'lodash';
import { suitesOf, summaryOf, type Case, type CaseStatus, type Suite } from './cases.ts';
import type { Report } from './json.ts';
import { fenced, plain, table } from './markdown-text.ts';

export const printMarkdown = (report: Report): string => {
  const suites = suitesOf(report);
  const failed = suites.flatMap(({ cases }) => cases).filter(({ status }) => status === 'failed');
  return `${[
    `# gmem-conformance: ${report.verdict}`,
    textTable(['', ''], summaryOf(report)),
    ...failed.flatMap(({ name, detail }) => [`## Failed: ${plain(name)}`, fenced(detail)]),
    ...suites.flatMap(section),
    ...notReached(report),
    ...unmodelled(report),
  ].join('\n\n')}\n`;
};

const textTable = (heading: readonly string[], rows: readonly (readonly string[])[]): string =>
  table(
    heading,
    rows.map((cells) => cells.map(plain)),
  );

const LOUD: ReadonlySet<CaseStatus> = new Set(['failed', 'error']);

const section = ({ name, cases }: Suite): readonly string[] => [
  `## ${plain(_.upperFirst(name))}`,
  table(['test', 'result', 'what came of it'], cases.map(caseRow)),
];

const caseRow = ({ name, status, summary }: Case): readonly string[] => [
  plain(name),
  LOUD.has(status) ? `**${status}**` : status,
  plain(summary),
];

function notReached({ rules }: Report): readonly string[] {
  const missing = rules.filter(({ hits, outOfReach }) => hits === 0 && outOfReach === undefined);
  return missing.length === 0
    ? []
    : [
        '## Rules not reached',
        textTable(
          ['rule', 'when'],
          missing.map(({ id, when }) => [id, when]),
        ),
      ];
}

function unmodelled({ unmodelled: silent }: Report): readonly string[] {
  return silent.length === 0
    ? []
    : [
        '## Unmodelled',
        'Programs that were checked up to where the specification takes no position.',
        textTable(
          ['rule', 'programs'],
          _.orderBy(silent, ['programs', 'rule'], ['desc', 'asc']).map(({ rule, programs }) => [rule, `${programs}`]),
        ),
      ];
}
