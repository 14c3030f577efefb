import { InvalidArgumentError, Option, type Command } from 'commander';
import { createReadStream } from 'node:fs';
import { entriesOf } from '../adapters/logs.ts';
import { breathe } from '../conformance/breathe.ts';
import { TraceChecker, type TraceResult } from '../conformance/trace.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { printTrace, traceReport } from '../report/trace.ts';
import { fileTrouble, UsageError } from './errors.ts';
import { helpWith } from './help.ts';
import { profileOption, specify } from './options.ts';
import { assertWritable, COLORS, STANDARD_OUTPUT, tellBeside, writeResult } from './output.ts';

const LOG_PROFILE = 'page-status-range-list';
const DEFAULT_BOUND = 4096n;
const MAX_BOUND = 1n << 20n;

const EXIT = `
Exit status:
  0  nothing in the log disagrees with the specification; of some calls it may not tell enough
  1  something does
  2  bad usage, or a log with lines that cannot be read; the rest of it is checked all the same
  4  a defect of the kit itself`;

export const addCheckTrace = (program: Command): Command =>
  program
    .command('check-trace')
    .summary('hold a recorded log against the specification')
    .description(
      'Reads what a guest announced of its pages, and what came of it: lines `page_enc_status_hc invoked, …` of a kernel’s log, also quoted and ' +
        'folded as in mails; text of ftrace, trace-cmd or perf with kvm:kvm_hypercall (and kvm_userspace_exit, kvm_entry); or any commands of a ' +
        'profile as JSON Lines. Says where the log disagrees, what would have been allowed there and why, and goes on; then ' +
        'what the guest shares in the end.',
    )
    .argument('<log>', 'a file, or - for standard input')
    .addOption(profileOption(LOG_PROFILE))
    .addOption(
      new Option(
        '--bound <number>',
        'ranges that the host may keep, of a kernel’s log; more, and its record is marked incomplete',
      )
        .default(DEFAULT_BOUND, `${DEFAULT_BOUND}`)
        .argParser(parseBound),
    )
    .option('--json <file>', 'write the result there as well; - for standard output')
    .addHelpText(
      'after',
      helpWith(
        [
          'check-trace dmesg.txt',
          'check-trace --profile page-status-bitmap trace.txt',
          'check-trace --profile linux-7.3 recorded.jsonl',
        ],
        EXIT,
      ),
    )
    .action(async (log: string, options: TraceOptions) => {
      assertWritable(options.json);
      process.exitCode = await checkTrace(log, options);
    });

interface TraceOptions {
  readonly profile?: string;
  readonly bound: bigint;
  readonly json?: string;
}

function parseBound(text: string): bigint {
  const bound = /^[0-9]{1,7}$/.test(text) ? BigInt(text) : MAX_BOUND + 1n;
  if (bound > MAX_BOUND) throw new InvalidArgumentError(`write a number from 0 to ${MAX_BOUND}`);
  return bound;
}

async function checkTrace(log: string, { profile = LOG_PROFILE, bound, json }: TraceOptions): Promise<number> {
  const name = log === STANDARD_OUTPUT ? 'standard input' : log;
  const specification = specify(profile);
  const checker = new TraceChecker(specification);
  try {
    for await (const entries of entriesOf(textOf(log), { specification, bound })) {
      for (const entry of entries) checker.take(entry);
      await breathe();
    }
  } catch (error) {
    if (error instanceof RangeError)
      throw new UsageError(`${name}: ${error.message}; give --profile ${LOG_PROFILE} or another about page status`);
    throw error;
  }
  const result = checker.result();
  if (result.commands === 0 && result.malformed.count === 0)
    throw new UsageError(`${name}: there is nothing in it that can be checked; --help says what can`);
  tellBeside(json)(printTrace(name, result, COLORS));
  if (json !== undefined) writeResult(json, `${JSON.stringify(traceReport(name, result), undefined, 2)}\n`);
  return statusOf(result);
}

async function* textOf(log: string): AsyncIterable<string> {
  const stream = log === STANDARD_OUTPUT ? process.stdin : createReadStream(log);
  stream.setEncoding('utf8');
  try {
    yield* stream as AsyncIterable<string>;
  } catch (error) {
    throw new UsageError(`cannot read '${log}': ${fileTrouble(error)}; give a log, or - for standard input`);
  }
}

function statusOf({ disagreements, malformed }: TraceResult): number {
  if (disagreements.count > 0) return EXIT_STATUS.diverges;
  return malformed.count > 0 ? EXIT_STATUS.usage : EXIT_STATUS.conforms;
}
