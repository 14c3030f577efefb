/** Options that write a report to files, the same wherever there is a report. */
import { Option, type Command } from 'commander';
import { FORMATS, type FormatName } from '../report/formats.ts';
import type { Report } from '../report/json.ts';
import { assertWritable, writeResult } from './output.ts';

/** A file for each format that is wanted. */
export type FormatOptions = Partial<Record<FormatName, string>>;

export function addFormatOptions(command: Command): Command {
  for (const { name, summary } of FORMATS) command.addOption(new Option(`--${name} <file>`, summary));
  return command;
}

export function assertFormatsWritable(options: FormatOptions): void {
  for (const { name } of FORMATS) assertWritable(options[name]);
}

export function writeFormats(options: FormatOptions, report: Report): void {
  for (const { name, print } of FORMATS) {
    const file = options[name];
    if (file !== undefined) writeResult(file, print(report));
  }
}
