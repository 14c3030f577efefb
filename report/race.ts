/** What two commands at the same time came to. */
import type { Schedule } from '../adapters/adapter.ts';
import { invariantById } from '../conformance/invariants.ts';
import type { RaceCampaign, RaceFailure } from '../conformance/race-campaign.ts';
import { printCommand } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import type { Colors } from './colors.ts';
import { explain } from './terminal.ts';
import { field, plural } from './text.ts';

export const printRaces = (campaign: RaceCampaign, colors: Colors): string =>
  [
    field('verdict', verdictOf(campaign, colors)),
    field('checked', `${plural(campaign.programs, 'program')}, ${plural(campaign.tally.schedules, 'schedule')}`),
    field('', `and ${campaign.tally.blocked} in which one command would have waited for the other`),
    field('time', `${(campaign.durationMs / 1000).toFixed(1)} s`),
  ].join('\n');

function verdictOf({ failure, isInterrupted }: RaceCampaign, colors: Colors): string {
  if (failure !== undefined) return colors.red('diverges');
  return isInterrupted ? colors.yellow('inconclusive: interrupted') : colors.green('conforms');
}

export function printRaceFailure(specification: Specification, failure: RaceFailure, colors: Colors): string {
  const { program, divergence, originalLength, shrinkRuns } = failure;
  const { schedule, at, rule, invariant, expected, observed } = divergence;
  const marks = new Map([[at, '<-- here'], ...marksOf(schedule)]);
  return [
    ...program.map((command, index) => {
      const mark = marks.get(index);
      const line = printCommand(specification, command);
      return mark === undefined ? line : colors.red(`${line}  # ${mark}`);
    }),
    '',
    ...explain(
      specification.rules().find(({ id }) => id === rule),
      invariant === undefined ? undefined : invariantById(invariant),
    ),
    field('expected', expected),
    field('observed', observed),
    field('shrunk', `from ${originalLength} to ${plural(program.length, 'command')} in ${plural(shrinkRuns, 'run')}`),
  ].join('\n');
}

function marksOf({ at, interrupted, point }: Schedule): readonly (readonly [number, string])[] {
  const [outer, inner] = interrupted === 'first' ? [at, at + 1] : [at + 1, at];
  return [
    [outer, `interrupted at its hand-over point ${point + 1}`],
    [inner, 'runs there, from its beginning to its end'],
  ];
}
