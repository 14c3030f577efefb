import { Option, type Command } from 'commander';
import _ from 'lodash';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Target } from '../adapters/adapter.ts';
import { unshrunk } from '../conformance/failure.ts';
import type { Known } from '../conformance/known.ts';
import { modelHash } from '../conformance/model-hash.ts';
import {
  misfit,
  parseScenario,
  runScenario,
  ScenarioError,
  SCENARIO_SUFFIX,
  type Scenario,
} from '../conformance/scenario.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { TEST_FORMATS } from '../report/formats.ts';
import { VERSION } from '../report/installation.ts';
import { failureReport } from '../report/json.ts';
import {
  printScenarioLine,
  printScenarioList,
  printScenarios,
  SCENARIOS_SCHEMA,
  testsOfScenarios,
  worstOf,
  type ScenarioResult,
  type ScenariosReport,
} from '../report/scenario.ts';
import { describe, type FailureContext } from '../report/terminal.ts';
import { field } from '../report/text.ts';
import { scenarioFile, scenarioNames } from '../scenarios/library.ts';
import {
  divergencesOption,
  knownOn,
  loadDivergences,
  noDivergencesOption,
  type DivergenceOptions,
} from './divergences.ts';
import { fileTrouble, UsageError } from './errors.ts';
import {
  addFormatOptions,
  assertFormatsWritable,
  tellBesideFormats,
  writeTests,
  type FormatOptions,
} from './formats.ts';
import { helpWith } from './help.ts';
import {
  appendOption,
  DEFAULT_TARGET,
  kernelOption,
  misfitOf,
  modulesOption,
  specify,
  targetOption,
  timeLimitOption,
  withSubject,
  type Subject,
  type SubjectOptions,
} from './options.ts';
import { COLORS, jsonText, say, TERMINAL_WIDTH, writeResult } from './output.ts';
import { findingOn } from './save.ts';

interface ScenarioOptions extends SubjectOptions, DivergenceOptions, FormatOptions {
  readonly list?: true;
  readonly timeLimit: number;
}

/** All but the page, which is drawn from the rules of one profile. */
const SCENARIO_FORMATS = [
  { name: 'json', summary: 'write the results there as well, as JSON (docs/scenarios.schema.json describes them)' },
  ...TEST_FORMATS,
] as const;

export const addScenario = (program: Command): Command =>
  addFormatOptions(
    program
      .command('scenario')
      .summary('run named programs on a target')
      .description(
        'Runs named programs, each of which shows one point, on a target. Those that come with the kit are known by name; ' +
          'any other is a file with a header (scenarios/README.md). Without a name, all that come with the kit are run.',
      )
      .argument('[names...]', 'names, in which * stands for any text, and files')
      .addOption(new Option('--list', 'list them, and run nothing').conflicts(_.map(SCENARIO_FORMATS, 'name')))
      .addOption(targetOption(DEFAULT_TARGET))
      .addOption(
        new Option(
          '--profile <name>',
          'hold every scenario against these rules (default: its own, and skip it where the target keeps others)',
        ),
      )
      .addOption(kernelOption())
      .addOption(modulesOption())
      .addOption(appendOption())
      .addOption(timeLimitOption())
      .addOption(divergencesOption())
      .addOption(noDivergencesOption()),
    SCENARIO_FORMATS,
  )
    .addHelpText(
      'after',
      helpWith(['scenario --list', "scenario 'order-*' --target kvm", 'scenario found.gmem --target mutant:ID']),
    )
    .action(async (names: readonly string[], options: ScenarioOptions) => {
      assertFormatsWritable(options);
      const scenarios = chosen(names);
      if (options.list === true) say(printScenarioList(scenarios, TERMINAL_WIDTH));
      else process.exitCode = await withSubject(options, (subject) => runAll(scenarios, subject, options));
    });

/** In the order of the arguments, each once. */
function chosen(names: readonly string[]): readonly Scenario[] {
  const paths = (names.length === 0 ? ['*'] : names).flatMap((name) => (isPath(name) ? [name] : named(name)));
  const scenarios = _.uniqBy(paths, (path) => resolve(path)).map((path) => ({ path, scenario: read(path) }));
  for (const [index, { path, scenario }] of scenarios.entries()) {
    const other = scenarios.slice(0, index).find((earlier) => earlier.scenario.name === scenario.name);
    if (other !== undefined)
      throw new UsageError(`'${path}' has the name of '${other.path}', and results go by names: rename one of them`);
  }
  return _.map(scenarios, 'scenario');
}

const isPath = (name: string): boolean => name.includes('/') || name.endsWith(SCENARIO_SUFFIX);

function read(path: string): Scenario {
  try {
    return parseScenario(textOf(path), path);
  } catch (error) {
    throw error instanceof ScenarioError ? new UsageError(error.message) : error;
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read '${path}': ${fileTrouble(error)}`);
  }
}

/** The files of those that come with the kit. */
function named(pattern: string): readonly string[] {
  const all = scenarioNames();
  const wanted = new RegExp(
    `^${pattern
      .split('*')
      .map((part) => _.escapeRegExp(part))
      .join('.*')}$`,
  );
  const found = all.filter((name) => wanted.test(name));
  if (found.length > 0) return found.map(scenarioFile);
  const near = _.orderBy(all, (name) => likeness(pattern, name), 'desc').slice(0, 3);
  throw new UsageError(
    `there is no scenario '${pattern}'; like it are ${near.join(', ')}; \`gmem-conformance scenario --list\` names them all`,
  );
}

/** Pairs of neighbouring letters that two words share, as a part of what there are: 0 to 1. */
function likeness(one: string, other: string): number {
  const pairs = (word: string): readonly string[] =>
    _.uniq(Array.from(word, (letter, at) => letter + (word[at + 1] ?? '')));
  const [ours, theirs] = [pairs(one), pairs(other)];
  return (2 * _.intersection(ours, theirs).length) / (ours.length + theirs.length);
}

async function runAll(scenarios: readonly Scenario[], { target }: Subject, options: ScenarioOptions): Promise<number> {
  const tell = tellBesideFormats(options);
  const judged = judging(target, options);
  tell(`${field('target', describe(target))}\n${field('model', modelHash())}\n`);
  const width = Math.max(...scenarios.map(({ name }) => name.length));
  const results: ScenarioResult[] = [];
  for (const scenario of scenarios) {
    const start = performance.now();
    const came = await runOne(scenario, judged(options.profile ?? scenario.header.profile), options);
    const result = { ...came, durationMs: Math.round(performance.now() - start) };
    tell(printScenarioLine(result, width, COLORS));
    results.push(result);
  }
  const report: ScenariosReport = {
    schema: SCENARIOS_SCHEMA,
    version: VERSION,
    modelHash: modelHash(),
    target: target.name,
    ...(target.about === undefined ? {} : { about: target.about }),
    verdict: worstOf(results),
    scenarios: results,
  };
  const contextOf = (profile: string): FailureContext => findingOn(judged(profile));
  writeResult(options.json, jsonText(report));
  writeTests(options, testsOfScenarios(report, contextOf));
  tell(`\n${printScenarios(report, contextOf, COLORS)}`);
  return EXIT_STATUS[report.verdict];
}

/** A target under the rules of one profile, and what is known of it there. */
interface Judging extends Subject {
  /** Asked only where a scenario diverges: it runs the witness of every entry. */
  readonly known: () => Promise<Known>;
}

/** The same object for the same profile. Throws a UsageError. */
function judging(target: Target, options: ScenarioOptions): (profile: string) => Judging {
  const divergences = loadDivergences(target, options)?.entries ?? [];
  const timeLimitMs = options.timeLimit * 1000;
  return _.memoize((profile) => {
    const specification = specify(profile, target.machine);
    const checking = { specification, target, timeLimitMs };
    return { ...checking, known: knownOn(checking, divergences) };
  });
}

async function runOne(
  scenario: Scenario,
  judged: Judging,
  options: ScenarioOptions,
): Promise<Omit<ScenarioResult, 'durationMs'>> {
  const { header, program, name } = scenario;
  const told = { name, title: header.title, profile: judged.specification.config.profile.id };
  const unfit = otherRules(scenario, judged.target, options) ?? misfit(scenario, judged);
  if (unfit !== undefined) return { ...told, verdict: 'skipped', reason: unfit };
  const { note, ...stepwise } = await runScenario(scenario, judged);
  const { verdict } = stepwise;
  const noted = { ...told, ...(note === undefined ? {} : { note }) };
  if (verdict.kind === 'conforms') return { ...noted, verdict: 'conforms' };
  if (verdict.kind === 'inconclusive') return { ...noted, verdict: 'inconclusive', reason: verdict.reason };
  const entry = (await judged.known()).entryFor(program, verdict);
  if (entry !== undefined) return { ...noted, verdict: 'known', reason: `${entry.id}: ${entry.reason}` };
  return { ...noted, verdict: 'diverges', failure: failureReport(judged, unshrunk(verdict, program), stepwise) };
}

/** Why the scenario is not for a target that keeps other rules. */
function otherRules(
  { header }: Scenario,
  { name, profile: own }: Target,
  { profile: forced }: ScenarioOptions,
): string | undefined {
  const misfit = forced === undefined ? misfitOf(name, header.profile) : undefined;
  if (misfit !== undefined) return misfit;
  if (forced !== undefined || own === undefined || own.id === header.profile) return undefined;
  return `it is about ${header.profile}; --profile ${own.id} holds it against the rules of the target`;
}
