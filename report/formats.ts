/** The formats that a report can be written in, each from the report alone. */
import { printGithub } from './github.ts';
import { printHtml } from './html/page.ts';
import { printJunit } from './junit.ts';
import type { Report } from './json.ts';
import { printKtap } from './ktap.ts';
import { printMarkdown } from './markdown.ts';

export interface Format {
  /** Of the option that asks for it: `--json`. */
  readonly name: string;
  /** What the file is and who reads it, for the help text. */
  readonly summary: string;
  /** The whole file. */
  readonly print: (report: Report) => string;
}

export const FORMATS = [
  {
    name: 'json',
    summary: 'write the whole report there, as JSON (docs/report.schema.json describes it)',
    print: (report) => `${JSON.stringify(report, null, 2)}\n`,
  },
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
  {
    name: 'html',
    summary: 'write a page there, to be read and to be sent: it shows the machine at every command of a witness',
    print: printHtml,
  },
] as const satisfies readonly Format[];

export type FormatName = (typeof FORMATS)[number]['name'];
