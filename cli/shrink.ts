import type { Command } from 'commander';
import { match } from 'ts-pattern';
import { judge, type Failure } from '../conformance/campaign.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { shrinkProgram } from '../conformance/shrink.ts';
import { EXIT_STATUS, type Divergence } from '../conformance/verdict.ts';
import { printSubject } from '../report/terminal.ts';
import { programFile } from '../report/witness.ts';
import { helpWith } from './help.ts';
import { withProgram, type Loaded } from './input.ts';
import { DEFAULT_TARGET, profileOption, targetOption, type SubjectOptions } from './options.ts';
import { assertWritable, say, writeResult } from './output.ts';
import { showFailure } from './witness.ts';

interface ShrinkOptions extends SubjectOptions {
  readonly output?: string;
}

export const addShrink = (program: Command): Command =>
  program
    .command('shrink')
    .summary('find a shorter program that fails too')
    .description(
      'Makes a program on which the target diverges as short and simple as it can be, wherever the program comes from. ' +
        'A program on which the target conforms is left alone.',
    )
    .argument('<program>', 'a file, - for standard input, or a replay token (gmc1.…)')
    .addOption(targetOption(`the program's own, or ${DEFAULT_TARGET}`))
    .addOption(profileOption("the program's own"))
    .option('--output <file>', 'write the shrunk program there as well')
    .addHelpText(
      'after',
      helpWith(['shrink recorded.gmem', 'shrink recorded.gmem --target simulator --output short.gmem']),
    )
    .action(async (argument: string, options: ShrinkOptions) => {
      assertWritable(options.output);
      process.exitCode = await withProgram(argument, options, (loaded) => shrink(loaded, options.output));
    });

async function shrink(loaded: Loaded, output: string | undefined): Promise<number> {
  const { specification, target, program, modelHash: recorded } = loaded;
  say(
    `${printSubject({ target: target.name, profile: specification.config.profile.id, modelHash: modelHash(), recorded })}\n`,
  );
  const verdict = await judge(loaded, program);
  await match(verdict)
    .with({ kind: 'conforms' }, () => say('conforms: there is nothing to shrink'))
    .with({ kind: 'inconclusive' }, ({ reason }) => say(`inconclusive: ${reason}`))
    .with({ kind: 'diverges' }, (divergence) => shrinkFailing(loaded, divergence, output))
    .exhaustive();
  return EXIT_STATUS[verdict.kind];
}

async function shrinkFailing(loaded: Loaded, first: Divergence, output: string | undefined): Promise<void> {
  const { specification, target, program: original } = loaded;
  const { program, runs: shrinkRuns } = await shrinkProgram(
    specification,
    original.slice(0, first.at + 1),
    async (candidate) => (await judge(loaded, candidate)).kind === 'diverges',
  );
  const final = await judge(loaded, program);
  const failure: Failure = { ...(final.kind === 'diverges' ? final : first), program, original, shrinkRuns };
  writeResult(output, programFile(specification, target.name, program));
  await showFailure(loaded, failure);
}
