/** The formats that a report can be written in, each from the report alone. */
import { testsOf, type Tests } from './cases.ts';
import { printGithub } from './github.ts';
import { printHtml } from './html/page.ts';
import { printJunit } from './junit.ts';
import type { Report } from './json.ts';
import { printKtap } from './ktap.ts';
import { printMarkdown } from './markdown.ts';

export interface Format<Of> {
  /** Of the option that asks for it: `--json`. */
  readonly name: string;
  /** What the file is and who reads it, for the help text. */
  readonly summary: string;
  /** The whole file. */
  readonly print: (of: Of) => string;
}

/** Those that take any list of tests, whatever the tests are of. */
export const TEST_FORMATS = [
  { name: 'junit', summary: 'write JUnit XML there, for the test pages of CI systems', print: printJunit },
  { name: 'ktap', summary: 'write KTAP there, which the CI of the kernel reads', print: printKtap },
  {
    name: 'github',
    summary: 'write workflow commands there, which GitHub Actions shows as annotations',
    print: printGithub,
  },
  {
    name: 'markdown',
    summary: 'write a summary in Markdown there, for $GITHUB_STEP_SUMMARY and mails',
    print: printMarkdown,
  },
] as const satisfies readonly Format<Tests>[];

export const FORMATS = [
  {
    name: 'json',
    summary: 'write the whole report there, as JSON (docs/report.schema.json describes it)',
    print: (report: Report) => `${JSON.stringify(report, null, 2)}\n`,
  },
  ...TEST_FORMATS.map(({ name, summary, print }) => ({
    name,
    summary,
    print: (report: Report) => print(testsOf(report)),
  })),
  {
    name: 'html',
    summary: 'write a page there, to be read and to be sent: it shows the machine at every command of a witness',
    print: printHtml,
  },
] as const satisfies readonly Format<Report>[];

export type FormatName = (typeof FORMATS)[number]['name'];
