/** A failing program as a scenario, and what became of scenarios on a target. */
import { createHash } from 'node:crypto';
import _ from 'lodash';
import { match } from 'ts-pattern';
import { z } from 'zod';
import { onOneLine, SCENARIO_SUFFIX, type Scenario, type ScenarioHeader } from '../conformance/scenario.ts';
import type { Case, CaseStatus, Tests } from './cases.ts';
import { PLAIN, type Colors } from './colors.ts';
import { FailureReport } from './json.ts';
import { printTable } from './tables.ts';
import { describe, printFailure, type FailureContext } from './terminal.ts';
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
  durationMs: z.int().nonnegative(),
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
export function printScenarioLine(result: ScenarioResult, width: number, colors: Colors): string {
  const { name, verdict } = result;
  const paint = match(verdict)
    .with('conforms', () => colors.green)
    .with('diverges', () => colors.red)
    .with('known', 'inconclusive', () => colors.yellow)
    .with('skipped', () => colors.dim)
    .exhaustive();
  return `${paint(verdict.padEnd(VERDICT_WIDTH))}  ${name.padEnd(width)}  ${saidOf(result)}`;
}

/** What became of it in a few words; what it shows, where that is what it showed. */
function saidOf({ title, reason, note, failure }: ScenarioResult): string {
  const broken = failure && `${failure.invariant ?? failure.rule}: observed ${onOneLine(failure.observed)}`;
  return _.compact([broken, reason, note]).join('; ') || title;
}

/** The sentences that a failure under the rules of a profile may contradict. */
type ContextOf = (profile: string) => FailureContext;

/** What stands below the lines: the failures in full, and how many there were of each kind. */
export function printScenarios({ verdict, scenarios }: ScenariosReport, contextOf: ContextOf, colors: Colors): string {
  const failures = scenarios.flatMap(({ name, profile, failure }) =>
    failure === undefined ? [] : [`${colors.bold(name)}\n\n${printFailure(failure, contextOf(profile), colors)}\n`],
  );
  return [...failures, field('verdict', verdict), field('scenarios', countsOf(scenarios))].join('\n');
}

const STATUSES = {
  conforms: 'passed',
  diverges: 'failed',
  known: 'known',
  inconclusive: 'error',
  skipped: 'skipped',
} as const satisfies Record<ScenarioResult['verdict'], CaseStatus>;

/** The scenarios as tests, for the formats that count tests. */
export function testsOfScenarios(report: ScenariosReport, contextOf: ContextOf): Tests {
  const { verdict, target, about, modelHash, version, scenarios } = report;
  const caseOf = (result: ScenarioResult): Case => {
    const { name, title, profile, durationMs, failure } = result;
    return {
      name,
      status: STATUSES[result.verdict],
      durationMs,
      // In KTAP a summary that began with a directive would be one, and a title may begin with anything.
      summary: result.verdict === 'conforms' ? `conforms: ${saidOf(result)}` : saidOf(result),
      detail: [
        title,
        field('profile', profile),
        ...(failure === undefined ? [] : ['', printFailure(failure, contextOf(profile), PLAIN)]),
      ].join('\n'),
    };
  };
  return {
    verdict,
    subject: target,
    summary: [
      ['verdict', verdict],
      ['target', describe({ name: target, about })],
      ['model', modelHash],
      ['version', version],
      ['scenarios', countsOf(scenarios)],
    ],
    suites: [{ name: 'scenarios', cases: scenarios.map(caseOf) }],
    durationMs: _.sumBy(scenarios, 'durationMs'),
    unexplained: [],
    appendices: [],
  };
}

/** `conforms 3, skipped 1` */
const countsOf = (scenarios: readonly ScenarioResult[]): string =>
  Object.entries(_.countBy(scenarios, 'verdict'))
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ');

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
