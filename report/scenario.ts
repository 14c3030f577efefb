/** A failing program as a scenario, and what became of scenarios on a target. */
import { createHash } from 'node:crypto';
import _ from 'lodash';
import { match } from 'ts-pattern';
import { z } from 'zod';
import { onOneLine, SCENARIO_SUFFIX, type Scenario, type ScenarioHeader } from '../conformance/scenario.ts';
import type { Colors } from './colors.ts';
import { FailureReport } from './json.ts';
import { printTable } from './tables.ts';
import { printFailure, type FailureContext } from './terminal.ts';
import { field } from './text.ts';

/** Where a failing program was met. */
export interface Finding extends FailureContext {
  readonly profile: string;
  readonly modelHash: string;
  /** Of the run that found it, where there was one. */
  readonly seed?: number | undefined;
}

/** The text of the file. The header holds what another needs to know of the program, and to see it again. */
export function scenarioOf(failure: FailureReport, finding: Finding): string {
  const { rule, invariant, steps, expected, observed } = failure;
  const { profile, target, modelHash, seed } = finding;
  const [title, source] = sentenceOf(failure, finding);
  const header: Partial<Record<keyof ScenarioHeader, string | undefined>> = {
    title,
    source,
    profile,
    // A broken invariant over two runs stands for the rule too.
    rule: rule === invariant ? undefined : rule,
    invariant,
    target,
    seed: seed === undefined ? undefined : `${seed}`,
    model: modelHash,
    expected: onOneLine(expected),
    observed: onOneLine(observed),
  };
  const fields = Object.entries(header).flatMap(([key, value]) => (value === undefined ? [] : [`# ${key}: ${value}`]));
  return `${[...fields, ...steps.map(({ command }) => command)].join('\n')}\n`;
}

/** What a right implementation does, and where that can be read. */
function sentenceOf(failure: FailureReport, { rules, invariants }: Finding): readonly [string, string] {
  const invariant = invariants.find(({ id }) => id === failure.invariant);
  if (invariant !== undefined) return [invariant.sentence, invariant.source];
  const rule = rules.find(({ id }) => id === failure.rule);
  const command = failure.rule.split('/')[0] ?? '';
  return rule === undefined
    ? [`What ${command} comes to.`, 'unknown']
    : [`When ${rule.when}, ${command} comes to ${rule.result}.`, rule.source];
}

/** A name for the file: what broke, and which program broke it. */
export function scenarioName({ rule, invariant, steps }: FailureReport): string {
  const program = steps.map(({ command }) => command).join('\n');
  const sum = createHash('sha256').update(program).digest('hex').slice(0, 8);
  return `${(invariant ?? rule).replace(/[^a-z]+/g, '-')}-${sum}${SCENARIO_SUFFIX}`;
}

export const SCENARIOS_SCHEMA = 'gmem-conformance-scenarios/1';

const ScenarioResult = z.strictObject({
  name: z.string(),
  title: z.string(),
  profile: z.string(),
  verdict: z
    .enum(['conforms', 'diverges', 'known', 'inconclusive', 'skipped'])
    .describe('`known`: diverges as an entry about known divergences says, and does not make the whole diverge'),
  reason: z.string().optional().describe('Why it is known, inconclusive or skipped'),
  note: z.string().optional().describe('Whether what the file says was observed is what happened'),
  failure: FailureReport.optional(),
});

/** What became of scenarios on one target. */
export const ScenariosReport = z
  .strictObject({
    schema: z.literal(SCENARIOS_SCHEMA),
    version: z.string().describe('Version of gmem-conformance'),
    modelHash: z.string(),
    target: z.string(),
    about: z.string().optional().describe('What the target is, in words'),
    verdict: z
      .enum(['conforms', 'diverges', 'inconclusive'])
      .describe('The worst of the scenarios: diverges, then inconclusive; inconclusive, too, where all are skipped'),
    scenarios: z.array(ScenarioResult),
  })
  .meta({ title: 'Report of `gmem-conformance scenario --json`' });

export type ScenarioResult = z.infer<typeof ScenarioResult>;
export type ScenariosReport = z.infer<typeof ScenariosReport>;

export const scenariosJsonSchema = (): object => z.toJSONSchema(ScenariosReport);

/** The worst of all; where every scenario was skipped, nothing is known. */
export function worstOf(results: readonly ScenarioResult[]): ScenariosReport['verdict'] {
  const verdicts = new Set(results.map(({ verdict }) => verdict));
  if (verdicts.has('diverges')) return 'diverges';
  if (verdicts.has('inconclusive')) return 'inconclusive';
  return verdicts.has('conforms') || verdicts.has('known') ? 'conforms' : 'inconclusive';
}

const VERDICT_WIDTH = 'inconclusive'.length;

/** One line; `width` is that of the longest name. */
export function printScenarioLine(
  { name, title, verdict, reason, note, failure }: ScenarioResult,
  width: number,
  colors: Colors,
): string {
  const paint = match(verdict)
    .with('conforms', () => colors.green)
    .with('diverges', () => colors.red)
    .with('known', 'inconclusive', () => colors.yellow)
    .with('skipped', () => colors.dim)
    .exhaustive();
  const broken = failure && `${failure.invariant ?? failure.rule}: observed ${onOneLine(failure.observed)}`;
  const text = [broken, reason, note].filter((part) => part !== undefined).join('; ');
  return `${paint(verdict.padEnd(VERDICT_WIDTH))}  ${name.padEnd(width)}  ${text === '' ? title : text}`;
}

/** What stands below the lines: the failures in full, and how many there were of each kind. */
export function printScenarios(
  { verdict, scenarios }: ScenariosReport,
  contextOf: (profile: string) => FailureContext,
  colors: Colors,
): string {
  const failures = scenarios.flatMap(({ name, profile, failure }) =>
    failure === undefined ? [] : [`${colors.bold(name)}\n\n${printFailure(failure, contextOf(profile), colors)}\n`],
  );
  const counts = _.countBy(scenarios, 'verdict');
  const told = Object.entries(counts).map(([kind, count]) => `${kind} ${count}`);
  return [...failures, field('verdict', verdict), field('scenarios', told.join(', '))].join('\n');
}

/** Names, titles, profiles and requirements as a table that fits the width where it can. */
export function printScenarioList(scenarios: readonly Scenario[], width: number): string {
  const rows = scenarios.map(({ name, header: { title, profile, requires = [] } }) => [
    name,
    title,
    profile,
    requires.join('\n'),
  ]);
  const widest = (column: number): number =>
    Math.max(0, ...rows.flatMap((row) => row[column]?.split('\n') ?? []).map(({ length }) => length));
  const shows = Math.max(width - widest(0) - widest(2) - widest(3) - 8, 35);
  return printTable(['scenario', 'shows', 'profile', 'requires'], rows, [undefined, shows]);
}
