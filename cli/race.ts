import type { Command } from 'commander';
import { UnavailableError } from '../adapters/adapter.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { runRaces, type RaceCampaign } from '../conformance/race-campaign.ts';
import { raceAnywhere, type RaceTally } from '../conformance/race.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { holdsIn } from '../model/core/profile.ts';
import { printRaceFailure, printRaces } from '../report/race.ts';
import { describe, printSubject } from '../report/terminal.ts';
import { field } from '../report/text.ts';
import { UsageError } from './errors.ts';
import { helpWith } from './help.ts';
import { withProgram } from './input.ts';
import { untilInterrupted } from './interrupt.ts';
import {
  seedOf,
  DEFAULT_TARGET,
  maxCommandsOption,
  profileOption,
  runsOption,
  seedOption,
  targetOption,
  withSubject,
  type Subject,
  type SubjectOptions,
} from './options.ts';
import { COLORS, say, showProgress } from './output.ts';

interface RaceOptions extends SubjectOptions {
  readonly runs?: number;
  readonly seed?: number;
  readonly maxCommands: number;
}

const DEFAULT_RUNS = 1000;

export const addRace = (program: Command): Command =>
  program
    .command('race')
    .summary('run two commands at the same time, in every way in which they can')
    .description(
      'Runs two neighbouring commands of a program at the same time: one of them, as a whole, at each point within the ' +
        'other at which that may be interrupted. What they come to must be what they come to one after the other, in one ' +
        'order or the other, and invariants must hold afterwards, some of them at that point as well. Only a target in this process can be made to do so. ' +
        'Without a program, random ones are run, in profiles about guest memory.',
    )
    .argument('[program]', 'a file, - for standard input, or a replay token (gmc1.…)')
    .addOption(targetOption(DEFAULT_TARGET))
    .addOption(profileOption())
    .addOption(runsOption(`${DEFAULT_RUNS}`))
    .addOption(seedOption())
    .addOption(maxCommandsOption())
    .addHelpText('after', helpWith(['race', 'race found.gmem', 'race --target mutant:ID --seed 42']))
    .action(async (argument: string | undefined, options: RaceOptions) => {
      process.exitCode =
        argument === undefined
          ? await withSubject(options, (subject) => raceRandom(subject, options))
          : await withProgram(argument, options, ({ program: given, ...subject }) =>
              Promise.resolve(report(subject, raceProgram(subject, given))),
            );
    });

function announce({ target, specification }: Subject): void {
  if (target.race === undefined)
    throw new UnavailableError(`target '${target.name}' cannot be made to run two commands at the same time`);
  say(printSubject({ target: describe(target), profile: specification.config.profile.id, modelHash: modelHash() }));
}

/** Calls of TDs, SEV and others refuse, for a moment, what they do not refuse one after the other: EBUSY, or a VM that dies meanwhile. */
function checkRealm({ specification }: Subject): void {
  const { profile } = specification.config;
  if (!holdsIn(profile, { realm: 'guest-memory' }))
    throw new UsageError(
      `profile ${profile.id}: random programs are raced in profiles about guest memory only, because no others specify what is refused for a moment; name a program`,
    );
}

async function raceRandom(subject: Subject, options: RaceOptions): Promise<number> {
  checkRealm(subject);
  announce(subject);
  const { runs = DEFAULT_RUNS, maxCommands } = options;
  const seed = seedOf(options.seed);
  say(field('seed', `${seed}`));
  const progress = showProgress('programs', runs);
  const onProgram = (done: number): void => progress.update(done);
  try {
    const campaign = await untilInterrupted((signal) =>
      runRaces(subject, { seed, runs, maxCommands, signal, onProgram }),
    );
    progress.stop();
    return report(subject, campaign);
  } finally {
    progress.stop();
  }
}

/** Every schedule of every two neighbours. */
function raceProgram(subject: Subject, program: Parameters<typeof raceAnywhere>[1]): RaceCampaign {
  announce(subject);
  const tally: RaceTally = { schedules: 0, blocked: 0 };
  const start = performance.now();
  const divergence = raceAnywhere(subject, program, tally);
  const failure = divergence && { program, divergence, originalLength: program.length, shrinkRuns: 0 };
  const durationMs = performance.now() - start;
  return { programs: 1, tally, durationMs, isInterrupted: false, ...(failure === undefined ? {} : { failure }) };
}

function report({ specification }: Subject, campaign: RaceCampaign): number {
  const { failure, isInterrupted } = campaign;
  say(printRaces(campaign, COLORS));
  if (failure !== undefined) say(`\n${printRaceFailure(specification, failure, COLORS)}`);
  if (failure !== undefined) return EXIT_STATUS.diverges;
  return isInterrupted ? EXIT_STATUS.inconclusive : EXIT_STATUS.conforms;
}
