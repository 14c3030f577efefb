import type { Command } from 'commander';
import { mutantById, MUTANTS, type Mutant } from '../adapters/mutants/index.ts';
import { DEFAULT_BUDGET } from '../conformance/campaign.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { gradesJson, isSurprise, printDetectionPower, printFaults, printGrades } from '../report/grades.ts';
import { VERSION } from '../report/installation.ts';
import { UsageError } from './errors.ts';
import { gradeMutants } from './grading.ts';
import { helpWith } from './help.ts';
import { maxCommandsOption, runsOption, seedOf, seedOption } from './options.ts';
import { assertWritable, COLORS, jsonText, say, tellBeside, writeResult } from './output.ts';

interface MutantsOptions {
  readonly list?: true;
  readonly seed?: number;
  readonly runs?: number;
  readonly maxCommands: number;
  readonly only?: string;
  readonly json?: string;
}

const STATUS = `
Exit status:
  0  every mutant was killed, but for those that are marked equivalent
  1  another one survived, or an equivalent one was killed
  2  bad usage
  4  a defect of the kit itself`;

export const addMutants = (program: Command): Command =>
  program
    .command('mutants')
    .summary('grade the kit itself on implementations that are known to be wrong')
    .description(
      'Tries the kit on implementations that are wrong in one known way each. A mutant is killed when a program shows ' +
        'the fault; the table says how many programs that took, and how short the program is when shrunk.',
    )
    .option('--list', 'only name the mutants and their faults')
    .addOption(seedOption())
    .addOption(runsOption())
    .addOption(maxCommandsOption())
    .option('--only <id>', 'try this mutant alone')
    .option('--json <file>', 'write the table there as well, with the programs; - for standard output')
    .addHelpText(
      'after',
      helpWith(['mutants --list', 'mutants --seed 1 --json mutants.json', 'mutants --only ID'], STATUS),
    )
    .action(async (options: MutantsOptions) => {
      process.exitCode = await mutants(options);
    });

async function mutants(options: MutantsOptions): Promise<number> {
  const { list, json, only, runs = DEFAULT_BUDGET.runs, maxCommands } = options;
  assertWritable(json);
  const chosen = choose(only);
  if (list === true) {
    say(printFaults(chosen));
    return EXIT_STATUS.conforms;
  }
  const seed = seedOf(options.seed);
  const grades = await gradeMutants(chosen, { seed, runs, maxCommands });
  writeResult(json, jsonText(gradesJson(grades, { version: VERSION, seed, runs })));
  const tell = tellBeside(json);
  tell(`seed ${seed}, at most ${runs} programs for each mutant\n`);
  tell(printGrades(grades, COLORS));
  tell(`\n${printDetectionPower(grades, COLORS)}`);
  return grades.some(isSurprise) ? EXIT_STATUS.diverges : EXIT_STATUS.conforms;
}

function choose(only: string | undefined): readonly Mutant[] {
  if (only === undefined) return MUTANTS;
  const mutant = mutantById(only.replace(/^mutant:/, ''));
  if (mutant === undefined)
    throw new UsageError(`unknown mutant '${only}'; \`gmem-conformance mutants --list\` names them`);
  return [mutant];
}
