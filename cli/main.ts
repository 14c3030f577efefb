#!/usr/bin/env node
import { Command } from 'commander';
import { modelHash } from '../conformance/model-hash.ts';
import { VERSION } from '../report/installation.ts';
import { shellWord } from '../report/text.ts';
import { addCheckTrace } from './check-trace.ts';
import { addMutants } from './mutants.ts';
import { surviveOutput } from './output.ts';
import { addRace } from './race.ts';
import { addReplay } from './replay.ts';
import { addReport } from './report.ts';
import { addRules } from './rules.ts';
import { addRun } from './run.ts';
import { addScenario } from './scenario.ts';
import { addShrink } from './shrink.ts';
import { endingOf } from './status.ts';
import { addTargets } from './targets.ts';

const NAME = 'gmem-conformance';

function assemble(): Command {
  const program = new Command(NAME)
    .description('An executable specification of guest-private memory in Linux/KVM, held against implementations.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError('(--help shows what there is)');
  for (const add of [
    addRun,
    addReport,
    addReplay,
    addShrink,
    addScenario,
    addRace,
    addCheckTrace,
    addRules,
    addMutants,
    addTargets,
  ])
    add(program);
  return program;
}

/** Sets the exit status by what was thrown, and says what the caller does not know yet. */
function end(error: unknown): void {
  const command = [NAME, ...process.argv.slice(2)].map(shellWord).join(' ');
  const { status, message } = endingOf(error, { command, version: VERSION, modelHash });
  if (message !== undefined) process.stderr.write(`${message}\n`);
  process.exitCode = status;
}

surviveOutput();
// Node's own status for these is 1, which says that the target diverges.
process.once('uncaughtException', (error) => {
  end(error);
  process.exit();
});

try {
  await assemble().parseAsync();
} catch (error) {
  end(error);
}
