import type { Command } from 'commander';
import _ from 'lodash';
import { readFileSync } from 'node:fs';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import type { Report } from '../report/json.ts';
import { MergeError, mergeReports, type NamedReport } from '../report/merge.ts';
import { parseReport, ReportError } from '../report/read.ts';
import { printRuns } from '../report/runs.ts';
import { describe, printFailure, printReport, printSubject } from '../report/terminal.ts';
import { printable } from '../report/text.ts';
import { fileTrouble, UsageError } from './errors.ts';
import {
  addFormatOptions,
  assertFormatsWritable,
  tellBesideFormats,
  writeFormats,
  type FormatOptions,
} from './formats.ts';
import { helpWith } from './help.ts';
import { COLORS } from './output.ts';

export function addReport(program: Command): void {
  const report = program.command('report').summary('work with reports that `run --json` has written');
  addFormatOptions(
    report
      .command('merge')
      .summary('put the reports of several runs together')
      .description(
        'Adds up what several runs of one version, target and profile have found, such as the shards of one run, and ' +
          'shows it like a run. With one report alone, shows that one, and writes it in other formats.',
      )
      .argument('<files...>', 'what `run --json` has written'),
  )
    .addHelpText('after', helpWith(['report merge shard-*.json --json all.json', 'report merge report.json']))
    .action((files: readonly string[], options: FormatOptions) => {
      assertFormatsWritable(options);
      process.exitCode = merge(files, options);
    });
}

function merge(files: readonly string[], options: FormatOptions): number {
  const report = merged(files);
  const tell = tellBesideFormats(options);
  writeFormats(options, report);
  for (const text of shown(report)) tell(text);
  return EXIT_STATUS[report.verdict];
}

function merged(files: readonly string[]): Report {
  try {
    return mergeReports(files.map(read) as [NamedReport, ...NamedReport[]]);
  } catch (error) {
    throw error instanceof ReportError || error instanceof MergeError ? new UsageError(error.message) : error;
  }
}

const read = (file: string): NamedReport => ({ name: file, report: parseReport(readText(file), file) });

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read '${file}': ${fileTrouble(error)}; give what \`run --json\` has written`);
  }
}

function shown(saved: Report): readonly string[] {
  const report = tame(saved);
  return [
    printSubject({ ...report, target: describe({ ...report, name: report.target }) }),
    printRuns(report, COLORS),
    printReport(report, COLORS),
    ...report.failures.map((each) => `\n${printFailure(each, report, COLORS)}`),
  ];
}

/** What stands in a file must not steer a terminal. */
const tame = (report: Report): Report =>
  _.cloneDeepWith(report, (value: unknown) => (typeof value === 'string' ? printable(value) : undefined)) as Report;
