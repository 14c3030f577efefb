/** The formats that a report can be written in, each from the report alone. */
import type { Report } from './json.ts';

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
] as const satisfies readonly Format[];

export type FormatName = (typeof FORMATS)[number]['name'];
