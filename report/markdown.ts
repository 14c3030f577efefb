/** The report as a page of Markdown: for the summary of a workflow, and for mails. */
import _ from 'lodash';
import type { Case, CaseStatus, Suite, Tests } from './cases.ts';
import { fenced, plain, table } from './markdown-text.ts';

export const printMarkdown = ({ verdict, summary, suites, appendices }: Tests): string => {
  const failed = suites.flatMap(({ cases }) => cases).filter(({ status }) => status === 'failed');
  return `${[
    `# gmem-conformance: ${verdict}`,
    textTable(['', ''], summary),
    ...failed.flatMap(({ name, detail }) => [`## Failed: ${plain(name)}`, fenced(detail)]),
    ...suites.flatMap(section),
    ...appendices.flatMap(({ title, text, heading, rows }) => [
      `## ${title}`,
      ...(text === undefined ? [] : [text]),
      textTable(heading, rows),
    ]),
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
