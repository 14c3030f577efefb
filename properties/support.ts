/** What the property suites share. */
import fc from 'fast-check';
import { DEFAULT_BUDGET } from '../conformance/campaign.ts';
import { expectationsOf } from '../conformance/check.ts';
import type { Campaign } from '../conformance/findings.ts';
import { Generator, type GeneratedProgram } from '../conformance/generate.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import { ALL_CAPABILITIES, type Capability, type Target } from '../adapters/adapter.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, FULL_MACHINE, holdsIn, profileById, PROFILES, type Realm } from '../model/core/profile.ts';
import { headerOf, parseProgram, printProgram, type Program } from '../model/core/program.ts';
import { Specification, type Rule } from '../model/core/specification.ts';
import { tokenOf } from '../report/json.ts';
import { scenarioNames, scenarioText } from '../scenarios/library.ts';

/** Where a suite must do the same every time. */
export const FIXED_SEED = 2;

/** Commands, more than by default, in search of a shorter program: the shortest is one of many that show a fault. */
export const SEARCH_BUDGET = 250_000;

/** Where a suite may find something new every time: GMEM_SEED, or one from chance. */
export const freshSeed = (): number => fc.readConfigureGlobal().seed ?? Math.floor(Math.random() * 0x7fff_ffff);

export const specify = (profile = DEFAULT_PROFILE, machine = FULL_MACHINE): Specification =>
  new Specification({ profile: profileById(profile), machine }, CATALOGUE);

const idsOf = (realm: Realm): readonly string[] =>
  PROFILES.filter((profile) => holdsIn(profile, { realm })).map(({ id }) => id);

/** Profiles about guest_memfd and proposals for it. */
export const GUEST_MEMORY = idsOf('guest-memory');
/** Profiles about guests whose memory the host must not touch, which have commands of their own. */
export const TD = idsOf('td');
/** Profiles about guests that announce which pages they share. */
export const PAGE_STATUS = idsOf('page-status');
/** Profiles about keys of SEV. */
export const SEV = idsOf('sev');
/** Profiles about the instruction by which they do. */
export const HYPERCALL = idsOf('hypercall');

/** Profiles about machine checks and poison, which have commands of their own. */
export const MACHINE_CHECK = idsOf('mc');

/** Profiles whose design keeps every invariant; properties/designs.ts has the others. */
export const SIMULATED = GUEST_MEMORY.filter((id) => !/^direct-map-(rfc-v1|v1[23])$/.test(id));

export const parse = (specification: Specification, text: string): Program => parseProgram(specification, text).program;

interface Wanted {
  readonly seed?: number;
  readonly programs?: number;
  readonly maxCommands?: number;
  /** A capability that the programs must not need. */
  readonly without?: Capability;
}

/** The programs that the generator writes from one seed. */
export function* generated(
  specification: Specification,
  { seed = FIXED_SEED, programs = 100, maxCommands = 40, without }: Wanted = {},
): Iterable<GeneratedProgram> {
  const capabilities = new Set(ALL_CAPABILITIES.filter((each) => each !== without));
  const generator = new Generator(specification, { maxCommands, capabilities });
  const random = new SmallFastRandom(seed, 1, 2, 3);
  for (let program = 0; program < programs; program++) yield generator.generate(random);
}

/** The rules that no program of the default budget comes to. Nothing is run. */
export function unreached(specification: Specification, rules: readonly Rule[]): readonly string[] {
  const missing = new Set(rules.map(({ id }) => id));
  const { runs: programs, maxCommands } = DEFAULT_BUDGET;
  for (const { trace } of generated(specification, { programs, maxCommands })) {
    for (const { rule } of trace) missing.delete(rule);
    if (missing.size === 0) break;
  }
  return [...missing];
}

export const scenarioTexts = () =>
  scenarioNames()
    .map(scenarioText)
    .map((text) => ({ text, mutant: headerOf(text)['mutant'] }));

const commandsOf = (text: string): readonly string[] =>
  text.split('\n').flatMap((line) => /^[a-z][a-z.-]*/.exec(line)?.[0] ?? []);

/** Names of the scenarios whose commands the specification has. */
export const scenarioNamesFor = ({ transitions }: Specification): readonly string[] =>
  scenarioNames().filter((name) => commandsOf(scenarioText(name)).every((command) => transitions.has(command)));

/** The programs under scenarios/ that can be read in the profile, and make no allocation fail, up to where it is silent. */
export const scenarios = (specification: Specification): readonly GeneratedProgram[] =>
  scenarioNamesFor(specification)
    .map(scenarioText)
    .filter((text) => !commandsOf(text).includes('fault.slab'))
    .map((text) => parse(specification, text))
    .map((commands) => {
      const trace = expectationsOf(specification, commands);
      const silent = trace.findIndex(({ unmodelled }) => unmodelled !== undefined);
      return silent === -1
        ? { commands, trace }
        : { commands: commands.slice(0, silent), trace: trace.slice(0, silent) };
    });

/** How to see the program fail again. The command line knows each target on one machine only. */
export const replayOf = (specification: Specification, target: Target, program: Program): string =>
  specification.config.machine === FULL_MACHINE
    ? `replay: npx tsx cli/main.ts replay ${tokenOf(specification, target.name, program)}`
    : 'on this machine it cannot be replayed from the command line';

/** `conforms`, or all that is needed to see what went wrong, and to see it again. */
export function verdictOf(campaign: Campaign, specification: Specification, target: Target, seed: number): string {
  const { verdict, failure, reason } = campaign;
  if (failure === undefined) return reason === undefined ? verdict : `${verdict}: ${reason}`;
  const { at, rule, invariant, expected, observed, program } = failure;
  return [
    `${verdict} (GMEM_SEED=${seed}, profile ${specification.config.profile.id}) at command ${at}, rule ${rule}`,
    ...(invariant === undefined ? [] : [`invariant ${invariant}`]),
    `expected: ${expected}`,
    `observed: ${observed}`,
    printProgram(specification, program),
    replayOf(specification, target, program),
  ].join('\n');
}
