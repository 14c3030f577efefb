#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { modelHash } from '../conformance/model-hash.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { shellWord } from '../report/text.ts';
import { UnavailableError, UsageError } from './errors.ts';
import { addMutants } from './mutants.ts';
import { addReplay } from './replay.ts';
import { addRules } from './rules.ts';
import { addRun } from './run.ts';
import { addShrink } from './shrink.ts';
import { addTargets } from './targets.ts';
import { VERSION } from './version.ts';

function assemble(): Command {
  const program = new Command('gmem-conformance')
    .description('An executable specification of guest-private memory in Linux/KVM, held against implementations.')
    .version(VERSION)
    .exitOverride()
    .showHelpAfterError('(--help shows what there is)');
  for (const add of [addRun, addReplay, addShrink, addRules, addMutants, addTargets]) add(program);
  return program;
}

function statusOf(error: unknown): number {
  // Commander has printed its message by now. What is no error ends that way too: --help and --version.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_STATUS.usage;
  if (error instanceof UsageError) return complain(error.message, EXIT_STATUS.usage);
  if (error instanceof UnavailableError) return complain(error.message, EXIT_STATUS.inconclusive);
  return complain(defect(error), EXIT_STATUS.defect);
}

function complain(message: string, status: number): number {
  process.stderr.write(`error: ${message}\n`);
  return status;
}

function defect(error: unknown): string {
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const command = ['gmem-conformance', ...process.argv.slice(2)].map(shellWord).join(' ');
  return [
    what,
    'this is a defect of the kit, please report it with the lines above, the seed, and:',
    `  command  ${command}`,
    `  version  ${VERSION}, model ${modelHash()}, node ${process.version}`,
  ].join('\n');
}

// A reader that has seen enough, such as head(1), is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

try {
  await assemble().parseAsync();
} catch (error) {
  process.exitCode = statusOf(error);
}
