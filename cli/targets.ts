import type { Command } from 'commander';
import { TARGETS, type TargetEntry } from '../adapters/targets.ts';
import { skippedOn } from '../conformance/campaign.ts';
import { printTargets, type TargetLine } from '../report/tables.ts';
import { UnavailableError } from './errors.ts';
import { helpWith } from './help.ts';
import { openTarget } from './options.ts';
import { say } from './output.ts';

const STATUS = `
Exit status:
  0  the targets were listed
  2  bad usage
  4  a defect of the kit itself`;

export const addTargets = (program: Command): Command =>
  program
    .command('targets')
    .summary('list what can be tested here, and why not the rest')
    .description('Lists what can be tested here, what cannot and why, and what each target lacks.')
    .addHelpText('after', helpWith(['targets'], STATUS))
    .action(() => say(printTargets(TARGETS.map(inspect))));

/** A name like `mutant:ID` stands for many targets, so there is none to look at. */
const isFamily = (name: string): boolean => name.includes(':');

function inspect({ name, summary }: TargetEntry): TargetLine {
  if (isFamily(name)) return { name, summary, missing: [] };
  try {
    const missing = skippedOn(openTarget(name)).map(({ capability, reason }) => [capability, reason] as const);
    return { name, summary, missing };
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error;
    return { name, summary, unavailable: error.message, missing: [] };
  }
}
