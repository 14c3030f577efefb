import type { Command } from 'commander';
import { match } from 'ts-pattern';
import { shrinkFailure } from '../conformance/failure.ts';
import { judge } from '../conformance/judge.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { shrinkProgram } from '../conformance/shrink.ts';
import { runStepwise } from '../conformance/stepwise.ts';
import { EXIT_STATUS, type Divergence } from '../conformance/verdict.ts';
import { failureReport } from '../report/json.ts';
import { scenarioOf } from '../report/scenario.ts';
import { describe, printFailure, printSubject } from '../report/terminal.ts';
import { helpWith } from './help.ts';
import { withProgram, type Loaded } from './input.ts';
import {
  DEFAULT_TARGET,
  appendOption,
  kernelOption,
  modulesOption,
  profileOption,
  sameRuleOption,
  targetOption,
  timeLimitOption,
  type SubjectOptions,
} from './options.ts';
import { assertWritable, COLORS, tellBeside, writeResult } from './output.ts';
import { findingOn } from './save.ts';

interface ShrinkOptions extends SubjectOptions {
  readonly output?: string;
  readonly sameRule: boolean;
}

export const addShrink = (program: Command): Command =>
  program
    .command('shrink')
    .summary('find a shorter program that fails too')
    .description(
      'Makes a program on which the target diverges as short and simple as it can be, wherever the program comes from. ' +
        'A program on which the target conforms is left alone.',
    )
    .argument('<program>', 'a file, the name of a scenario, - for standard input, or a replay token (gmc1.…)')
    .addOption(targetOption(`the program's own, or ${DEFAULT_TARGET}`))
    .addOption(profileOption("the program's own"))
    .addOption(kernelOption())
    .addOption(modulesOption())
    .addOption(appendOption())
    .addOption(timeLimitOption())
    .addOption(sameRuleOption())
    .option('--output <file>', 'write the shrunk program there as well, as a scenario; - for standard output')
    .addHelpText(
      'after',
      helpWith(['shrink recorded.gmem', 'shrink recorded.gmem --target simulator --output short.gmem']),
    )
    .action(async (argument: string, options: ShrinkOptions) => {
      assertWritable(options.output);
      process.exitCode = await withProgram(argument, options, (loaded) => shrink(loaded, options));
    });

async function shrink(loaded: Loaded, options: ShrinkOptions): Promise<number> {
  const tell = tellBeside(options.output);
  const { specification, target, program, modelHash: recorded } = loaded;
  tell(
    `${printSubject({ target: describe(target), profile: specification.config.profile.id, modelHash: modelHash(), recorded })}\n`,
  );
  const verdict = await judge(loaded, program);
  const result = await match(verdict)
    .with({ kind: 'conforms' }, () => 'conforms: there is nothing to shrink')
    .with({ kind: 'inconclusive' }, ({ reason }) => `inconclusive: ${reason}`)
    .with({ kind: 'diverges' }, (divergence) => shrinkFailing(loaded, divergence, options))
    .exhaustive();
  tell(result);
  return EXIT_STATUS[verdict.kind];
}

async function shrinkFailing(loaded: Loaded, first: Divergence, { output, sameRule }: ShrinkOptions): Promise<string> {
  const { specification, program: original } = loaded;
  const failure = await shrinkFailure(loaded, original, first, { sameRule }, (program, _counts, fails, signal) =>
    shrinkProgram(specification, program, fails, { signal }),
  );
  const report = failureReport(loaded, failure, await runStepwise(loaded, failure.program));
  const finding = findingOn(loaded);
  writeResult(output, scenarioOf(report, finding));
  return printFailure(report, finding, COLORS);
}
