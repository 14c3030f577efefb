/** Options that write a report to files, the same wherever there is a report. */
import { Option, type Command } from 'commander';
import type { Tests } from '../report/cases.ts';
import { FORMATS, TEST_FORMATS, type Format, type FormatName } from '../report/formats.ts';
import type { Report } from '../report/json.ts';
import { assertWritable, tellBeside, writeResult } from './output.ts';

/** A file for each format that is wanted. */
export type FormatOptions = Partial<Record<FormatName, string>>;

type FormatHelp = Pick<Format<never>, 'name' | 'summary'>;

export function addFormatOptions(command: Command, formats: readonly FormatHelp[] = FORMATS): Command {
  for (const { name, summary } of formats)
    command.addOption(new Option(`--${name} <file>`, `${summary}; - for standard output`));
  return command;
}

export const assertFormatsWritable = (options: FormatOptions): void => assertWritable(...filesOf(options));

/** Says things to the reader, beside the formats. */
export const tellBesideFormats = (options: FormatOptions): ((text: string) => void) => tellBeside(...filesOf(options));

const filesOf = (options: FormatOptions): readonly (string | undefined)[] => FORMATS.map(({ name }) => options[name]);

export const writeFormats = (options: FormatOptions, report: Report): void => writeEach(FORMATS, options, report);

export const writeTests = (options: FormatOptions, tests: Tests): void => writeEach(TEST_FORMATS, options, tests);

function writeEach<Of>(
  formats: readonly (Format<Of> & { readonly name: FormatName })[],
  options: FormatOptions,
  of: Of,
): void {
  for (const { name, print } of formats) if (options[name] !== undefined) writeResult(options[name], print(of));
}
