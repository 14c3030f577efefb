import type { Command } from 'commander';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { runCampaign, type Campaign, type CampaignOptions } from '../conformance/campaign.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { runStepwise } from '../conformance/stepwise.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { printDetectionPower } from '../report/grades.ts';
import { reportOf } from '../report/json.ts';
import { describe, printFailure, printReport, printSubject } from '../report/terminal.ts';
import { field } from '../report/text.ts';
import {
  divergencesOption,
  loadDivergences,
  noDivergencesOption,
  updateDivergences,
  updateDivergencesOption,
  type DivergenceOptions,
} from './divergences.ts';
import { addFormatOptions, assertFormatsWritable, writeFormats, type FormatOptions } from './formats.ts';
import { gradeMutants } from './grading.ts';
import { helpWith } from './help.ts';
import {
  chooseSeed,
  DEFAULT_TARGET,
  maxCommandsOption,
  appendOption,
  kernelOption,
  modulesOption,
  profileOption,
  runsOption,
  sameRuleOption,
  seedOption,
  targetOption,
  timeLimitOption,
  withSubject,
  type Subject,
} from './options.ts';
import { COLORS, say, showProgress } from './output.ts';
import { assertSavable, findingOn, saveOption, saveScenario, type SaveOptions } from './save.ts';
import { VERSION } from './version.ts';

interface RunOptions extends DivergenceOptions, FormatOptions, SaveOptions {
  readonly target?: string;
  readonly profile?: string;
  readonly runs: number;
  readonly seed?: number;
  readonly maxCommands: number;
  readonly timeLimit: number;
  readonly sameRule: boolean;
  readonly grade?: true;
}

/** Programs per mutant: enough for nearly all of them, and over in seconds. `mutants` takes as many as one likes. */
const GRADE_RUNS = 5000;

/** Where many divergences are collected, each must do with less than the shortest program that can be found. */
const COLLECTING = { collect: true, shrinkBudget: 2000, searchBudget: 0 } as const;

export const addRun = (program: Command): Command =>
  addFormatOptions(
    program
      .command('run')
      .summary('run random programs on a target and compare it with the specification')
      .description(
        'Runs random programs on a target and compares every observation with what the specification allows. Shows ' +
          'which rules were exercised and which invariants held, and on a disagreement the shortest program for it.',
      )
      .addOption(targetOption(DEFAULT_TARGET))
      .addOption(profileOption())
      .addOption(kernelOption())
      .addOption(modulesOption())
      .addOption(appendOption())
      .addOption(runsOption())
      .addOption(seedOption())
      .addOption(maxCommandsOption())
      .addOption(timeLimitOption())
      .addOption(sameRuleOption())
      .addOption(divergencesOption())
      .addOption(noDivergencesOption())
      .addOption(updateDivergencesOption())
      .addOption(saveOption())
      .option(
        '--grade',
        'afterwards try the same seed on every known wrong implementation; the exit status ignores it',
      ),
  )
    .addHelpText(
      'after',
      helpWith([
        'run',
        'run --target mutant:ID --seed 42 --save found.gmem',
        'run --profile linux-6.18 --runs 20000 --json report.json',
      ]),
    )
    .action(async (options: RunOptions) => {
      assertFormatsWritable(options);
      assertSavable(options.save);
      process.exitCode = await withSubject(options, (subject) => run(subject, options));
    });

async function run(subject: Subject, options: RunOptions): Promise<number> {
  const seed = chooseSeed(options.seed);
  const { target, specification } = subject;
  const profile = specification.config.profile.id;
  // Before anything is said: the file may be wrong.
  const file = loadDivergences(target, options);
  say(printSubject({ target: describe(target), profile, modelHash: modelHash() }));
  // Before the run, so that one that never ends can be repeated too.
  say(field('seed', `${seed}`));
  const { runs, maxCommands, timeLimit, sameRule, updateDivergences: update = false } = options;
  const timeLimitMs = timeLimit * 1000;
  const asked = { seed, runs, maxCommands, timeLimitMs, sameRule };
  const knowing = { divergences: file?.entries ?? [], ...(update ? COLLECTING : {}) };
  const campaign = await untilInterrupted((signal) => runShown(subject, { ...asked, ...knowing, signal }));
  const { failure } = campaign;
  const rerun = failure && (await runStepwise({ ...subject, timeLimitMs }, failure.program));
  const report = reportOf(campaign, { ...subject, seed, version: VERSION, rerun });
  writeFormats(options, report);
  say(printReport(report, COLORS));
  for (const each of report.failures) {
    say(`\n${printFailure(each, report, COLORS)}`);
    if (options.save !== undefined) say(saveScenario(options.save, each, { ...findingOn(subject), seed }));
  }
  if (update && file !== undefined) say(`\n${updateDivergences(file, campaign.known)}`);
  if (options.grade === true && campaign.verdict !== 'inconclusive') await showGrade(seed, maxCommands);
  return EXIT_STATUS[campaign.verdict];
}

/** The first SIGINT or SIGTERM ends the work, which still reports; the next one ends the process. */
async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interruption = new AbortController();
  const interrupt = (): void => interruption.abort();
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.once(signal, interrupt);
  try {
    return await work(interruption.signal);
  } finally {
    for (const signal of signals) process.off(signal, interrupt);
  }
}

async function runShown({ specification, target }: Subject, options: CampaignOptions): Promise<Campaign> {
  const progress = showProgress('programs', options.runs);
  try {
    return await runCampaign(specification, target, {
      ...options,
      onProgram: (programs) => progress.update(programs),
      onDivergence: () => {
        progress.stop();
        if (process.stderr.isTTY) process.stderr.write('shrinking\n');
      },
    });
  } finally {
    progress.stop();
  }
}

async function showGrade(seed: number, maxCommands: number): Promise<void> {
  const grades = await gradeMutants(MUTANTS, { seed, runs: GRADE_RUNS, maxCommands, shrinkBudget: 0 });
  say(`\n${printDetectionPower(grades, COLORS)}`);
}
