/** The runs that a report is of: one, or as many as were merged. */
import _ from 'lodash';
import { printShard } from '../conformance/shard.ts';
import type { Colors } from './colors.ts';
import type { Report, RunReport } from './json.ts';
import { aligned, field, group, plural, type Row } from './text.ts';

type RunName = Pick<RunReport, 'seed' | 'shard'>;

/** `seed 1, shard 2/4` */
export const printRun = ({ seed, shard }: RunName): string =>
  shard === undefined ? `seed ${seed}` : `seed ${seed}, shard ${printShard(shard)}`;

/** From what is said when nothing was seen to what outweighs all else. */
const VERDICTS: readonly Report['verdict'][] = ['conforms', 'inconclusive', 'diverges'];

export const worstVerdict = (verdicts: readonly Report['verdict'][]): Report['verdict'] =>
  _.maxBy(verdicts, (verdict) => VERDICTS.indexOf(verdict)) as Report['verdict'];

/** Runs named on the terminal; the others are in the JSON report. */
const SHOWN = 10;

/** How many runs there are, and those by name that did not come to their end, or to a good one. */
export function printRuns({ runs }: Report, colors: Colors): string {
  const [first] = runs;
  const what = runs.length === 1 && first !== undefined ? printRun(first) : `${runs.length}`;
  const notable = runs.filter(({ verdict, stopped }) => verdict !== 'conforms' || stopped !== undefined);
  const ending = ({ verdict, stopped }: RunReport): string => _.uniq(_.compact([verdict, stopped])).join(', ');
  return [
    field('runs', what),
    ...aligned(shortened(notable.map((run) => [printRun(run), ending(run)]))),
    ...group(colors.yellow('missing:'), shortened(missingRuns(runs).map((run) => [printRun(run), '']))),
  ].join('\n');
}

const shortened = (rows: readonly Row[]): readonly Row[] =>
  rows.length <= SHOWN ? rows : [...rows.slice(0, SHOWN), [`and ${plural(rows.length - SHOWN, 'more run')}`, '']];

/** Shards of which nothing is here, although others of the same run are. */
export const missingRuns = (runs: readonly RunReport[]): readonly RunName[] =>
  Object.values(_.groupBy(runs, 'seed')).flatMap((shards) => {
    const { seed, shard: { count } = { count: 0 } } = shards[0] as RunReport;
    return _.range(1, count + 1)
      .filter((index) => !shards.some(({ shard }) => shard?.index === index))
      .map((index) => ({ seed, shard: { index, count } }));
  });
