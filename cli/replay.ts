import type { Command } from 'commander';
import { modelHash } from '../conformance/model-hash.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { printReplay } from '../report/replay.ts';
import { describe, printSubject } from '../report/terminal.ts';
import { helpWith } from './help.ts';
import { withProgram, type Loaded } from './input.ts';
import {
  DEFAULT_TARGET,
  kernelOption,
  modulesOption,
  profileOption,
  targetOption,
  type SubjectOptions,
} from './options.ts';
import { COLORS, say } from './output.ts';
import { runStepwise } from './witness.ts';

export const addReplay = (program: Command): Command =>
  program
    .command('replay')
    .summary('run one program and show every step')
    .description(
      'Runs one program and shows for every command the rule that decides it, what it allows, and what the target did. ' +
        'A program is text, one command a line; lines `# target: NAME` and `# profile: NAME` at its top are heeded.',
    )
    .argument('<program>', 'a file, - for standard input, or a replay token (gmc1.…)')
    .addOption(targetOption(`the program's own, or ${DEFAULT_TARGET}`))
    .addOption(profileOption("the program's own"))
    .addOption(kernelOption())
    .addOption(modulesOption())
    .addHelpText('after', helpWith(['replay found.gmem', 'replay gmc1.… --target simulator']))
    .action(async (argument: string, options: SubjectOptions) => {
      process.exitCode = await withProgram(argument, options, replay);
    });

async function replay(loaded: Loaded): Promise<number> {
  const { specification, target, program, modelHash: recorded } = loaded;
  say(
    `${printSubject({ target: describe(target), profile: specification.config.profile.id, modelHash: modelHash(), recorded })}\n`,
  );
  const { verdict, steps } = await runStepwise(loaded, program);
  say(printReplay({ specification, program, verdict, steps }, COLORS));
  return EXIT_STATUS[verdict.kind];
}
