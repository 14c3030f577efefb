import type { Command } from 'commander';
import _ from 'lodash';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { DEFAULT_BUDGET, runCampaign, type CampaignOptions } from '../conformance/campaign.ts';
import type { Campaign } from '../conformance/findings.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { printShard, shareOf, type Shard } from '../conformance/shard.ts';
import { runStepwise } from '../conformance/stepwise.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { printDetectionPower } from '../report/grades.ts';
import { VERSION } from '../report/installation.ts';
import { reportOf } from '../report/json.ts';
import { describe, printFailure, printReport, printSubject } from '../report/terminal.ts';
import { field, plural, shellWord } from '../report/text.ts';
import { resumeOption, resumption, seedIn, type Asked, type Resumption } from './checkpoint.ts';
import {
  divergencesOption,
  loadDivergences,
  noDivergencesOption,
  updateDivergences,
  updateDivergencesOption,
  type DivergenceOptions,
} from './divergences.ts';
import { UsageError } from './errors.ts';
import {
  addFormatOptions,
  assertFormatsWritable,
  tellBesideFormats,
  writeFormats,
  type FormatOptions,
} from './formats.ts';
import { gradeMutants } from './grading.ts';
import { helpWith } from './help.ts';
import { untilInterrupted } from './interrupt.ts';
import {
  seedOf,
  DEFAULT_TARGET,
  maxCommandsOption,
  appendOption,
  kernelOption,
  modulesOption,
  profileOption,
  runsOption,
  sameRuleOption,
  seedOption,
  shardOption,
  targetOption,
  timeLimitOption,
  timeOption,
  withSubject,
  type Subject,
  type SubjectOptions,
} from './options.ts';
import { COLORS, showProgress } from './output.ts';
import { assertSavable, findingOn, saveOption, saveScenario, type SaveOptions } from './save.ts';

interface RunOptions extends SubjectOptions, DivergenceOptions, FormatOptions, SaveOptions {
  readonly runs?: number;
  /** In milliseconds. */
  readonly time?: number;
  readonly seed?: number;
  readonly shard?: Shard;
  readonly maxCommands: number;
  readonly timeLimit: number;
  readonly sameRule: boolean;
  readonly resume?: string;
  readonly grade?: true;
}

/** For each mutant: the rarest take most of a run’s programs. Those that nothing can tell from the real thing do not need as many. */
const GRADE_BUDGET = { runs: DEFAULT_BUDGET.runs, equivalentRuns: 500, shrinkBudget: 0 } as const;

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
      .addOption(runsOption(`${DEFAULT_BUDGET.runs}, or with --time as many as there is time for`))
      .addOption(timeOption())
      .addOption(seedOption())
      .addOption(shardOption())
      .addOption(resumeOption())
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
        'run --seed 42 --time 10m --shard 2/4 --json shard-2.json',
        'run --junit report.xml --github -',
      ]),
    )
    .action(async (options: RunOptions) => {
      assertFormatsWritable(options);
      assertSavable(options.save);
      process.exitCode = await withSubject(options, (subject) =>
        untilInterrupted((signal) => run(subject, options, signal)),
      );
    });

async function run(subject: Subject, options: RunOptions, signal: AbortSignal): Promise<number> {
  const tell = tellBesideFormats(options);
  const asked: Budget = { seed: seedOf(options.seed ?? seedIn(options.resume)), runs: programsOf(options) };
  const { target, specification, timeLimitMs } = subject;
  const profile = specification.config.profile.id;
  // Before anything is said: the file may be wrong.
  const file = loadDivergences(target, options);
  const { shard, time, maxCommands, sameRule, updateDivergences: update = false } = options;
  const divergences = file?.entries ?? [];
  const resuming = resumptionOf(options, { ...subject, ...asked, shard, maxCommands, divergences });
  tell(printSubject({ target: describe(target), profile, modelHash: modelHash() }));
  // Before the run, so that one that never ends can be repeated too.
  tell(field('seed', `${asked.seed}`));
  if (shard !== undefined)
    tell(field('shard', `${printShard(shard)}, by itself:\n  ${repeat(subject, options, asked)}`));
  if (resuming.resume !== undefined)
    tell(field('resumed', `behind ${plural(resuming.resume.programs, 'program')} that an earlier process has run`));
  const share = shard === undefined ? asked : shareOf(shard, asked);
  const campaign = await runShown(subject, {
    ...share,
    ...(time === undefined ? {} : { timeMs: time }),
    maxCommands,
    timeLimitMs,
    sameRule,
    divergences,
    ...(update ? COLLECTING : {}),
    ...resuming,
    signal,
  });
  const { failure } = campaign;
  const rerun = failure && (await runStepwise(subject, failure.program));
  const report = reportOf(campaign, { ...subject, seed: asked.seed, shard, version: VERSION, rerun });
  writeFormats(options, report);
  tell(printReport(report, COLORS));
  for (const each of report.failures) {
    tell(`\n${printFailure(each, report, COLORS)}`);
    if (options.save !== undefined) tell(saveScenario(options.save, each, { ...findingOn(subject), seed: share.seed }));
  }
  if (update && file !== undefined) tell(`\n${updateDivergences(file, campaign.known)}`);
  if (options.grade === true && campaign.verdict !== 'inconclusive')
    tell(`\n${await grade(asked.seed, maxCommands, signal)}`);
  return EXIT_STATUS[campaign.verdict];
}

interface Budget {
  readonly seed: number;
  /** Programs of the whole run. */
  readonly runs: number;
}

function resumptionOf({ resume, updateDivergences: update }: RunOptions, asked: Asked): Partial<Resumption> {
  if (resume === undefined) return {};
  if (update !== true) return resumption(resume, asked);
  throw new UsageError('--resume keeps no entries that --update-divergences makes: give one of them');
}

function programsOf({ runs, time, shard }: RunOptions): number {
  if (runs !== undefined && shard !== undefined && runs < shard.count)
    throw new UsageError(
      `--runs ${runs} leaves shards of ${shard.count} without a program: give more runs, or fewer shards`,
    );
  return runs ?? (time === undefined ? DEFAULT_BUDGET.runs : Infinity);
}

/** The command that draws the same programs, whatever the environment and defaults are. */
function repeat({ target, specification }: Subject, options: RunOptions, { seed, runs }: Budget): string {
  const { shard, time } = options;
  const given: Readonly<Record<string, string | number | undefined>> = {
    target: target.name,
    profile: specification.config.profile.id,
    ..._.pick(options, 'kernel', 'modules', 'append'),
    runs: runs === Infinity ? undefined : runs,
    time: time === undefined ? undefined : `${time / 1000}s`,
    seed,
    shard: shard && printShard(shard),
    'max-commands': options.maxCommands,
  };
  const words = Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, `${value}`],
  );
  return ['gmem-conformance', 'run', ...words].map(shellWord).join(' ');
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

async function grade(seed: number, maxCommands: number, signal: AbortSignal): Promise<string> {
  const grades = await gradeMutants(MUTANTS, { ...GRADE_BUDGET, seed, maxCommands, signal });
  const missing = plural(MUTANTS.length - grades.length, 'mutant');
  return [
    printDetectionPower(grades, COLORS),
    ...(signal.aborted ? [`interrupted before ${missing} of ${MUTANTS.length}`] : []),
  ].join('\n');
}
