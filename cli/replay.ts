import type { Command } from 'commander';
import { unshrunk } from '../conformance/failure.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { runStepwise } from '../conformance/stepwise.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { failureReport } from '../report/json.ts';
import { printReplay } from '../report/replay.ts';
import { describe, printSubject } from '../report/terminal.ts';
import { field } from '../report/text.ts';
import {
  divergencesOption,
  knownOn,
  loadDivergences,
  noDivergencesOption,
  type DivergenceOptions,
} from './divergences.ts';
import { helpWith } from './help.ts';
import { withProgram, type Loaded } from './input.ts';
import {
  DEFAULT_TARGET,
  appendOption,
  kernelOption,
  modulesOption,
  profileOption,
  targetOption,
  timeLimitOption,
  type SubjectOptions,
} from './options.ts';
import { assertWritable, COLORS, tellBeside, writeResult } from './output.ts';
import { reproducerOf } from './reproducer.ts';
import { assertSavable, findingOn, saveOption, saveScenario, type SaveOptions } from './save.ts';

export const addReplay = (program: Command): Command =>
  program
    .command('replay')
    .summary('run one program and show every step')
    .description(
      'Runs one program and shows for every command the rule that decides it, what it allows, and what the target did. ' +
        'A program is text, one command a line; lines `# target: NAME` and `# profile: NAME` at its top are heeded.',
    )
    .argument('<program>', 'a file, the name of a scenario, - for standard input, or a replay token (gmc1.…)')
    .addOption(targetOption(`the program's own, or ${DEFAULT_TARGET}`))
    .addOption(profileOption("the program's own"))
    .addOption(kernelOption())
    .addOption(modulesOption())
    .addOption(appendOption())
    .addOption(timeLimitOption())
    .addOption(divergencesOption())
    .addOption(noDivergencesOption())
    .addOption(saveOption())
    .option('--c <file>', 'write a C program there as well that does the same on a kernel; - for standard output')
    .addHelpText(
      'after',
      helpWith(['replay found.gmem', 'replay gmc1.… --target simulator', 'replay found.gmem --c reproducer.c']),
    )
    .action(async (argument: string, options: ReplayOptions) => {
      const { c, save } = options;
      assertSavable(save);
      assertWritable(c);
      process.exitCode = await withProgram(argument, options, (loaded) => replay(loaded, options));
    });

interface ReplayOptions extends SubjectOptions, SaveOptions, DivergenceOptions {
  readonly c?: string;
}

async function replay(loaded: Loaded, options: ReplayOptions): Promise<number> {
  const { c, save } = options;
  const tell = tellBeside(c);
  const reproducer = c === undefined ? undefined : reproducerOf(loaded);
  const { specification, target, program, modelHash: recorded } = loaded;
  const known = knownOn(loaded, loadDivergences(target, options)?.entries ?? []);
  tell(
    `${printSubject({ target: describe(target), profile: specification.config.profile.id, modelHash: modelHash(), recorded })}\n`,
  );
  const stepwise = await runStepwise(loaded, program);
  const { verdict } = stepwise;
  tell(printReplay({ specification, program, ...stepwise }, COLORS));
  const entry = verdict.kind === 'diverges' ? (await known()).entryFor(program, verdict) : undefined;
  if (entry !== undefined) tell(field('known', `${entry.id}: ${entry.reason}`));
  if (save !== undefined && verdict.kind === 'diverges')
    tell(saveScenario(save, failureReport(loaded, unshrunk(verdict, program), stepwise), findingOn(loaded)));
  if (reproducer !== undefined) writeResult(c, reproducer(verdict));
  return EXIT_STATUS[verdict.kind];
}
