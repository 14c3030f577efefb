/** From what went wrong to what the caller is told. */
import { CommanderError } from 'commander';
import { UnavailableError } from '../adapters/adapter.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { printable } from '../report/text.ts';
import { UsageError } from './errors.ts';

export interface Ending {
  readonly status: number;
  /** For standard error; undefined where the caller has been told already. */
  readonly message?: string;
}

/** What a report of a defect needs besides the error. */
export interface Invocation {
  readonly command: string;
  readonly version: string;
  /** Asked for only where it is shown: it takes a moment. */
  readonly modelHash: () => string;
}

export function endingOf(error: unknown, invocation: Invocation): Ending {
  const { status, message } = plainEndingOf(error, invocation);
  // What it quotes may be of a file, or of a target.
  return message === undefined ? { status } : { status, message: printable(message) };
}

function plainEndingOf(error: unknown, invocation: Invocation): Ending {
  // Commander prints its messages itself, and ends --help and --version in this way too.
  if (error instanceof CommanderError) return { status: error.exitCode === 0 ? 0 : EXIT_STATUS.usage };
  if (error instanceof UsageError) return { status: EXIT_STATUS.usage, message: `error: ${error.message}` };
  if (error instanceof UnavailableError)
    return { status: EXIT_STATUS.inconclusive, message: `error: ${error.message}` };
  return { status: EXIT_STATUS.defect, message: defect(error, invocation) };
}

function defect(error: unknown, { command, version, modelHash }: Invocation): string {
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return [
    `error: ${what}`,
    'this is a defect of the kit, please report it with the lines above, the seed, and:',
    `  command  ${command}`,
    `  version  ${version}, model ${modelHash()}, node ${process.version}`,
  ].join('\n');
}
