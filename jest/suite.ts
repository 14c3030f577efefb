/** `gmem-conformance/jest`: the kit as a suite of jest tests in the project of whoever has an implementation. */
import { afterAll, beforeAll, describe, test } from '@jest/globals';
import _ from 'lodash';
import { readFileSync } from 'node:fs';
import { types } from 'node:util';
import type { Target } from '../adapters/adapter.ts';
import { DEFAULT_BUDGET, runCampaign, type CampaignOptions } from '../conformance/campaign.ts';
import type { Campaign } from '../conformance/findings.ts';
import { whyWithout } from '../conformance/capability.ts';
import { inapplicable, parseDivergences, type KnownDivergence } from '../conformance/divergences.ts';
import { unshrunk, type Failure } from '../conformance/failure.ts';
import { ALL_INVARIANTS, sentencesOf } from '../conformance/invariants.ts';
import { Known } from '../conformance/known.ts';
import { misfit, runScenario } from '../conformance/scenario.ts';
import { SECRECY } from '../conformance/secret.ts';
import { chooseSeed } from '../conformance/seed.ts';
import { runStepwise, type Stepwise } from '../conformance/stepwise.ts';
import { specificationFor, type SubjectOptions } from '../conformance/subject.ts';
import { decodeToken } from '../conformance/token.ts';
import { systemOf } from '../model/catalogue.ts';
import { parseProgram, type Program } from '../model/core/program.ts';
import type { Rule, Specification } from '../model/core/specification.ts';
import { PLAIN } from '../report/colors.ts';
import { failureReport } from '../report/json.ts';
import { printFailure } from '../report/terminal.ts';
import { field, plural } from '../report/text.ts';
import { scenarioByName, scenarioNames } from '../scenarios/library.ts';

/** What a target says of itself before it executes anything. */
export type Declaration = Omit<Target, 'execute' | 'abandon' | 'log' | 'close'>;

export interface SuiteOptions extends SubjectOptions {
  /** Makes the implementation ready. The suite closes what it gets. */
  readonly target: () => Target | Promise<Target>;
  /** What the target will say of itself: for a target that takes time to open, in a test file without `await`. */
  readonly declares?: Declaration;
  /** Title of the suite; by default the name of the target. */
  readonly name?: string;
  /** Where chance starts; by default $GMEM_SEED, or from chance. */
  readonly seed?: number;
  /** Programs to run at most. */
  readonly runs?: number;
  /** Commands in a program at most. */
  readonly maxCommands?: number;
  /** How long a target that answers with a promise may take for one program. */
  readonly timeLimitMs?: number;
  /** Path of a file of known divergences. */
  readonly divergences?: string;
  /** Invariants that this target does not let anybody see: skipped, and an error where they can be seen. */
  readonly unobservable?: readonly string[];
}

/**
 * Registers the tests. Where the factory gives a promise, and nothing is declared, so does this function, and the test
 * file has to await it: jest must know all tests before the first one runs. Throws a RangeError for an option that names
 * what there is not.
 */
export function conformanceSuite(
  options: SuiteOptions & ({ readonly target: () => Target } | { readonly declares: Declaration }),
): void;
export function conformanceSuite(options: SuiteOptions): Promise<void>;
export function conformanceSuite(options: SuiteOptions): Promise<void> {
  if (options.declares !== undefined) {
    register(options, options.declares);
    return Promise.resolve();
  }
  const opened = options.target();
  // Nothing is held open while jest collects tests, some of which it may never run.
  if (types.isPromise(opened))
    return opened.then(async (target) => {
      await target.close?.();
      register(options, target);
    });
  register(options, opened);
  return Promise.resolve(opened.close?.());
}

/** Tests are bounded by the number of programs and the time limit of each, so jest's own limit is far away. */
const TEST_TIMEOUT_MS = 3_600_000;

interface Setting {
  readonly options: SuiteOptions;
  readonly declared: Declaration;
  readonly specification: Specification;
  readonly divergences: readonly KnownDivergence[];
  /** The target, open while tests run. */
  readonly target: () => Target;
}

function register(options: SuiteOptions, declared: Declaration): void {
  const specification = specificationFor(declared, options);
  const unknown = options.unobservable?.find((name) => ALL_INVARIANTS.every(({ id }) => id !== name));
  if (unknown !== undefined)
    throw new RangeError(`unknown invariant '${unknown}'; known are ${ALL_INVARIANTS.map(({ id }) => id).join(', ')}`);
  const { divergences: file } = options;
  const divergences = file === undefined ? [] : parseDivergences(readFileSync(file, 'utf8'), file);
  describe(options.name ?? declared.name, () => {
    let open: Target | undefined;
    beforeAll(async () => {
      open = await options.target();
      assertAsDeclared(open, declared);
    }, TEST_TIMEOUT_MS);
    afterAll(() => open?.close?.(), TEST_TIMEOUT_MS);
    const setting: Setting = { options, declared, specification, divergences, target: () => open as Target };
    const { GMEM_REPLAY: token } = process.env;
    if (token !== undefined && token !== '') registerReplay(setting, token);
    else {
      registerCampaign(setting);
      registerScenarios(setting);
    }
  });
}

function assertAsDeclared(target: Target, declared: Declaration): void {
  for (const trait of ['capabilities', 'commands', 'machine', 'profile'] as const)
    if (!_.isEqual(target[trait], declared[trait]))
      throw new Error(`the target has other ${trait} than it was said to have when its tests were registered`);
}

/** The title says why, because nothing else that jest shows could. */
const skip = (title: string, why: string): void => test.skip(`${title} (skipped: ${why})`, () => undefined);

const checkingOf = ({ specification, target, options: { timeLimitMs } }: Setting) => ({
  specification,
  target: target(),
  timeLimitMs,
});

/** What the campaign came to; filled before the tests that read it. */
interface Ran {
  readonly campaign: Campaign;
  /** The failure in full, where there is one. */
  readonly message: string;
}

function registerCampaign(setting: Setting): void {
  const { specification, options, declared, divergences } = setting;
  const { profile } = specification.config;
  describe(`random programs, by the rules of ${profile.id}`, () => {
    let ran: Ran | undefined;
    beforeAll(async () => {
      ran = await runPrograms(setting);
    }, TEST_TIMEOUT_MS);
    const after = (check: (ran: Ran) => void) => (): void => check(ran as Ran);
    const { transitions } = specificationFor(declared, { profile: profile.id });
    const rulesOf = _.groupBy(specification.rules(), 'command');
    for (const [system, commands] of Object.entries(_.groupBy([...transitions.keys()], systemOf)))
      describe(system, () => {
        for (const command of commands) {
          const rules = rulesOf[command];
          const title = rules === undefined ? command : `${command}: ${plural(_.uniqBy(rules, 'id').length, 'rule')}`;
          const why = rules === undefined ? 'it is not among `commands`' : outOfReach(rules, declared, specification);
          if (why !== undefined) skip(title, why);
          else
            test(
              title,
              after((result) => assertRulesKept(result, rules as readonly Rule[])),
            );
        }
      });
    for (const { id, sentence } of sentencesOf(profile)) {
      const title = `${id}: ${sentence}`;
      if (options.unobservable?.includes(id) === true) skip(title, 'it cannot be observed on this target');
      else if (id !== SECRECY.id && !declared.capabilities.has('facts')) skip(title, whyWithout(declared, 'facts'));
      else
        test(
          title,
          after((result) => assertInvariantHeld(result, id)),
        );
    }
    if (options.unobservable !== undefined)
      test(
        'what cannot be observed on this target is not observed',
        after((result) => assertBlind(result, options)),
      );
    for (const entry of divergences) {
      const title = `known divergence ${entry.id}: still as the file says`;
      const why = inapplicable(entry, declared, specification);
      if (why !== undefined) skip(title, why);
      else
        test(
          title,
          after((result) => assertStillKnown(result, entry.id)),
        );
    }
  });
}

async function runPrograms(setting: Setting): Promise<Ran> {
  const { specification, options, target, divergences } = setting;
  const campaignOptions: CampaignOptions = {
    ...DEFAULT_BUDGET,
    ..._.pick(options, 'runs', 'maxCommands', 'timeLimitMs'),
    seed: chooseSeed(options.seed),
    divergences,
  };
  const { seed } = campaignOptions;
  const campaign = await runCampaign(specification, target(), campaignOptions);
  if (campaign.verdict === 'inconclusive')
    throw failed(`inconclusive: ${campaign.reason ?? 'the target gave no answer'}\n${seedLine(seed)}`);
  const { failure } = campaign;
  if (failure === undefined) return { campaign, message: '' };
  const rerun = await runStepwise(checkingOf(setting), failure.program);
  return { campaign, message: `${inFull(setting, failure, rerun)}\n${seedLine(seed)}` };
}

const seedLine = (seed: number): string =>
  field('seed', `${seed}; with GMEM_SEED=${seed} in the environment the same programs are run`);

/** The failure as the command line shows it. */
const inFull = ({ specification, target }: Setting, failure: Failure, rerun: Stepwise): string =>
  printFailure(
    failureReport({ specification, target: target() }, failure, rerun),
    {
      target: target().name,
      rules: specification.rules(),
      invariants: ALL_INVARIANTS,
      replay: (token) => [
        field('replay', token),
        field('', 'with GMEM_REPLAY set to that in the environment, this program alone is run'),
      ],
    },
    PLAIN,
  );

/** An error whose message is all there is to see: the stack would lead into this kit. */
function failed(message: string): Error {
  const error = new Error(message);
  error.stack = message;
  return error;
}

/** Why no program can come to any rule of the command, where that is so. */
function outOfReach(rules: readonly Rule[], declared: Declaration, specification: Specification): string | undefined {
  const reasons = rules.map(({ command, requires = specification.transition(command).requires, unreachable }) => {
    if (declared.commands?.has(command) === false) return 'the target does not have it';
    return requires !== undefined && !declared.capabilities.has(requires)
      ? whyWithout(declared, requires)
      : unreachable;
  });
  return reasons.every((reason) => reason !== undefined) ? reasons[0] : undefined;
}

function assertRulesKept({ campaign, message }: Ran, rules: readonly Rule[]): void {
  const { failure, coverage, programs } = campaign;
  if (failure?.invariant === undefined && rules.some(({ id }) => id === failure?.rule)) throw failed(message);
  if (rules.some(({ id }) => coverage.hits(id) > 0)) return;
  throw failed(
    failure === undefined
      ? `never executed in ${plural(programs, 'program')}: give the suite more runs`
      : `not checked: the run ended after ${plural(programs, 'program')}, at ${failure.invariant ?? failure.rule}`,
  );
}

function assertInvariantHeld({ campaign, message }: Ran, invariant: string): void {
  const { failure, invariants, programs } = campaign;
  if (failure?.invariant === invariant) throw failed(message);
  const { status, checks = 0 } = invariants.find(({ id }) => id === invariant) ?? {};
  if (status === 'held' || status === 'broken' || (status === 'conceded' && checks > 0)) return;
  const remedy = `give the suite more runs, or list it under \`unobservable\` where it cannot be seen on this target`;
  throw failed(
    failure === undefined
      ? `never evaluated in ${plural(programs, 'program')}: ${remedy}`
      : `not checked: the run ended after ${plural(programs, 'program')}, at ${failure.invariant ?? failure.rule}`,
  );
}

function assertBlind({ campaign }: Ran, { unobservable = [] }: SuiteOptions): void {
  const seen = campaign.invariants.filter(({ id, checks }) => unobservable.includes(id) && checks > 0);
  if (seen.length > 0)
    throw failed(`${seen.map(({ id }) => id).join(', ')} can be observed: take it from \`unobservable\``);
}

function assertStillKnown({ campaign }: Ran, id: string): void {
  const result = campaign.known.find(({ entry }) => entry.id === id);
  if (result?.status !== 'reproduced') throw failed(`${result?.status ?? 'not tried'}: ${result?.note ?? ''}`);
}

function registerScenarios(setting: Setting): void {
  const { specification, declared, divergences } = setting;
  describe('scenarios', () => {
    let known: Known | undefined;
    beforeAll(async () => {
      known = new Known(checkingOf(setting), { divergences });
      await known.examine();
    }, TEST_TIMEOUT_MS);
    for (const name of scenarioNames()) {
      const scenario = scenarioByName(name);
      const title = `${name}: ${scenario.header.title}`;
      const why = misfit(scenario, { specification, target: declared });
      if (why !== undefined) skip(title, why);
      else
        test(
          title,
          async () => judgeShown(setting, scenario.program, await runScenario(scenario, checkingOf(setting)), known),
          TEST_TIMEOUT_MS,
        );
    }
  });
}

function registerReplay(setting: Setting, token: string): void {
  test(
    'the program of GMEM_REPLAY',
    async () => {
      const { program } = parseProgram(setting.specification, decodeToken(token).program);
      judgeShown(setting, program, await runStepwise(checkingOf(setting), program));
    },
    TEST_TIMEOUT_MS,
  );
}

/** Throws what there is to say where the program did not conform, and that is not known. */
function judgeShown(setting: Setting, program: Program, shown: Stepwise, known?: Known): void {
  const { verdict } = shown;
  if (verdict.kind === 'inconclusive') throw failed(`inconclusive: ${verdict.reason}`);
  if (verdict.kind === 'diverges' && known?.entryFor(program, verdict) === undefined)
    throw failed(inFull(setting, unshrunk(verdict, program), shown));
}
