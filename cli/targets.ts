import type { Command } from 'commander';
import { UnavailableError } from '../adapters/adapter.ts';
import { isFamily, TARGETS, type TargetEntry } from '../adapters/targets.ts';
import { skippedOn } from '../conformance/findings.ts';
import { printTargets, type TargetLine } from '../report/tables.ts';
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
    .action(async () => say(printTargets(await Promise.all(TARGETS.map(inspect)))));

async function inspect(entry: TargetEntry): Promise<TargetLine> {
  const { name, summary } = entry;
  const unavailable = entry.unavailable?.();
  if (unavailable !== undefined) return { name, summary, unavailable, missing: [] };
  // A family stands for many targets, so there is none to look at.
  if (isFamily(entry) || entry.heavy === true) return { name, summary, missing: [] };
  try {
    const target = await openTarget(name);
    const missing = skippedOn(target).map(({ capability, reason }) => [capability, reason] as const);
    await target.close?.();
    return { name, summary, missing, ...(target.about !== undefined && { about: target.about }) };
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error;
    return { name, summary, unavailable: error.message, missing: [] };
  }
}
