/** Options that write a report to files, the same wherever there is a report. */
import { Option, type Command } from 'commander';
import { FORMATS, type FormatName } from '../report/formats.ts';
import type { Report } from '../report/json.ts';
import { assertWritable, tellBeside, writeResult } from './output.ts';

/** A file for each format that is wanted. */
export type FormatOptions = Partial<Record<FormatName, string>>;

export function addFormatOptions(command: Command): Command {
  for (const { name, summary } of FORMATS)
    command.addOption(new Option(`--${name} <file>`, `${summary}; - for standard output`));
  return command;
}

export const assertFormatsWritable = (options: FormatOptions): void => assertWritable(...filesOf(options));

/** Says things to the reader, beside the formats. */
export const tellBesideFormats = (options: FormatOptions): ((text: string) => void) => tellBeside(...filesOf(options));

const filesOf = (options: FormatOptions): readonly (string | undefined)[] => FORMATS.map(({ name }) => options[name]);

export function writeFormats(options: FormatOptions, report: Report): void {
  for (const { name, print } of FORMATS) if (options[name] !== undefined) writeResult(options[name], print(report));
}
