/**
 * Scenarios: named programs, as files. The header says what a program shows and what it takes; on every target that has
 * it, the program must come to what the specification says.
 */
import { z } from 'zod';
import { ALL_CAPABILITIES, type Capability, type Target } from '../adapters/adapter.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { VM_TYPE } from '../model/core/abi.ts';
import { FULL_MACHINE, profileById, PROFILES, type Machine } from '../model/core/profile.ts';
import { headerFields, parseProgram, ProgramError, type HeaderField, type Program } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { whyWithout } from './capability.ts';
import { expectationsOf, type Checking } from './check.ts';
import { ALL_INVARIANTS } from './invariants.ts';
import { excerpt } from './excerpt.ts';
import { runStepwise, type Stepwise } from './stepwise.ts';
import type { Divergence } from './verdict.ts';

interface MachineFeature {
  /** Behind "the machine has no". */
  readonly what: string;
  readonly isOffered: (machine: Machine) => boolean;
}

/** What a machine may lack that a scenario takes, beside the capabilities of the target. */
const MACHINE_FEATURES = {
  'protected-vms': {
    what: 'VMs of type SW_PROTECTED',
    isOffered: ({ vmTypes }) => ((vmTypes >> VM_TYPE.SW_PROTECTED) & 1n) === 1n,
  },
  'memory-attributes': { what: 'memory attributes', isOffered: (machine) => machine.memoryAttributes },
  'two-dimensional-paging': {
    what: 'two-dimensional paging',
    isOffered: (machine) => machine.twoDimensionalPaging,
  },
  'secret-memory': { what: 'secret memory (memfd_secret)', isOffered: (machine) => machine.secretMemory },
  'process-vm': { what: 'process_vm_readv()', isOffered: (machine) => machine.processVm },
} as const satisfies Record<string, MachineFeature>;

export type FeatureName = keyof typeof MACHINE_FEATURES;
const FEATURE_NAMES = Object.keys(MACHINE_FEATURES) as readonly FeatureName[];

type ScenarioRequirement = Capability | FeatureName;
const REQUIREMENTS: readonly ScenarioRequirement[] = [...ALL_CAPABILITIES, ...FEATURE_NAMES];

const words = (ids: readonly string[]): string => ids.join(', ');
const text = (write: string): z.ZodString => z.string({ error: write }).min(1, { error: write });

/** The fields of a header, each a line `# field: value`. */
const ScenarioHeader = z.strictObject({
  title: text('say what the program shows, as a sentence'),
  source: text('say where that can be read: a function, a commit, a mail'),
  profile: z.enum(
    PROFILES.map(({ id }) => id),
    { error: `write the profile whose rules hold: ${words(PROFILES.map(({ id }) => id))}` },
  ),
  rule: text('write the id of a rule').exactOptional(),
  invariant: text('write the id of an invariant').exactOptional(),
  requires: z
    .string()
    .transform((list) => list.split(/[\s,]+/))
    .pipe(z.array(z.enum(REQUIREMENTS, { error: `list what it takes of ${words(REQUIREMENTS)}` })))
    .exactOptional(),
  mutant: text('write the id of a wrong implementation').exactOptional(),
  target: text('write the name of a target').exactOptional(),
  seed: z
    .string()
    .regex(/^-?\d+$/, { error: 'write a whole number' })
    .exactOptional(),
  model: z
    .string()
    .regex(/^[0-9a-f]+$/, { error: 'write the hash of a specification, as reports show it' })
    .exactOptional(),
  expected: text('write what should have been observed').exactOptional(),
  observed: text('write what was observed').exactOptional(),
});

export type ScenarioHeader = z.infer<typeof ScenarioHeader>;
type FieldName = keyof ScenarioHeader;
const FIELDS = Object.keys(ScenarioHeader.shape) as readonly FieldName[];

export interface Scenario {
  /** The file's, without `.gmem`. */
  readonly name: string;
  readonly header: ScenarioHeader;
  readonly program: Program;
}

export const SCENARIO_SUFFIX = '.gmem';

/** A scenario that cannot be used. The message names file, line and field, and says what to write. */
export class ScenarioError extends Error {}

/** `file` is named in messages. Throws a ScenarioError. */
export function parseScenario(content: string, file: string): Scenario {
  const fields = headerFields(content);
  const fail = (field: FieldName, message: string): never => {
    const line = fields.find(({ key }) => key === field)?.line;
    throw new ScenarioError(
      line === undefined ? `${file}: the header has no ${field}: ${message}` : `${file}:${line}: ${field}: ${message}`,
    );
  };
  assertFields(fields, file);
  const { data: header, error } = ScenarioHeader.safeParse(
    Object.fromEntries(fields.map((each) => [each.key, each.value])),
  );
  if (error !== undefined) return fail(error.issues[0]?.path[0] as FieldName, error.issues[0]?.message ?? '');
  const specification = new Specification({ profile: profileById(header.profile), machine: FULL_MACHINE }, CATALOGUE);
  const mistake = mistakeIn(header, specification);
  if (mistake !== undefined) return fail(...mistake);
  const name = (file.split('/').at(-1) ?? file).replace(/\.gmem$/, '');
  return { name, header, program: readProgram(specification, content, file) };
}

function assertFields(fields: readonly HeaderField[], file: string): void {
  for (const [index, { key, line }] of fields.entries()) {
    if (!FIELDS.some((field) => field === key))
      throw new ScenarioError(`${file}:${line}: there is no field '${key}' in a header; there are ${words(FIELDS)}`);
    const earlier = fields.slice(0, index).find((other) => other.key === key);
    if (earlier !== undefined)
      throw new ScenarioError(`${file}:${line}: ${key} stands on line ${earlier.line} already: write it once`);
  }
}

/** What is wrong with a header that has the right form. */
function mistakeIn(header: ScenarioHeader, specification: Specification): [FieldName, string] | undefined {
  const { profile, rule, invariant, expected, observed } = header;
  if (rule === undefined && invariant === undefined)
    return ['rule', 'write the rule that the program shows, or the invariant, or both'];
  if (rule !== undefined && specification.rules().every(({ id }) => id !== rule))
    return ['rule', `${profile} has no rule '${excerpt(rule)}': \`gmem-conformance rules\` names them all`];
  if (invariant !== undefined && ALL_INVARIANTS.every(({ id }) => id !== invariant))
    return ['invariant', `there is none of that name; there are ${words(ALL_INVARIANTS.map(({ id }) => id))}`];
  if (expected === undefined && observed !== undefined)
    return ['expected', 'what was observed says little without what should have been'];
  if (observed === undefined && expected !== undefined)
    return ['observed', 'what was expected follows from the rule; write what was observed instead, or leave out both'];
  return undefined;
}

function readProgram(specification: Specification, content: string, file: string): Program {
  try {
    const { program } = parseProgram(specification, content);
    if (program.length > 0) return program;
  } catch (error) {
    throw error instanceof ProgramError ? new ScenarioError(`${file}:${error.line}: ${error.message}`) : error;
  }
  throw new ScenarioError(`${file}: there is no command in it`);
}

type Subject = Pick<Checking, 'specification'> & {
  readonly target: Pick<Target, 'capabilities' | 'commands' | 'missing'>;
};

/** Why the scenario shows nothing on the target under these rules, or undefined where it does. */
export function misfit({ header, program }: Scenario, { specification, target }: Subject): string | undefined {
  const { machine, profile } = specification.config;
  const unknown = program.find(({ name }) => !specification.transitions.has(name));
  if (unknown !== undefined) return `${unknown.name} is not among the commands of ${profile.id} on this target`;
  const lacking = program.find(({ name }) => target.commands?.has(name) === false);
  if (lacking !== undefined) return `the target has no ${lacking.name}`;
  const needed = new Set<ScenarioRequirement>(header.requires);
  for (const { name } of program) {
    const { requires } = specification.transition(name);
    if (requires !== undefined) needed.add(requires);
  }
  for (const capability of ALL_CAPABILITIES)
    if (needed.has(capability) && !target.capabilities.has(capability))
      return `it takes ${capability}: ${whyWithout(target, capability)}`;
  for (const feature of FEATURE_NAMES)
    if (needed.has(feature) && !MACHINE_FEATURES[feature].isOffered(machine))
      return `it takes ${feature}: the machine has no ${MACHINE_FEATURES[feature].what}`;
  const steps = expectationsOf(specification, program);
  const silent = steps.find(({ unmodelled }) => unmodelled !== undefined);
  if (silent !== undefined) return `on this machine ${profile.id} takes no position: ${silent.rule}`;
  const { rule } = header;
  if (rule !== undefined && steps.every((step) => step.rule !== rule))
    return `under the rules of ${profile.id} on this machine, no command comes to ${rule}`;
  return undefined;
}

export interface Shown extends Stepwise {
  /** How the outcome relates to what the file says, where there is something to say. */
  readonly note?: string;
}

/** Runs the scenario, which must fit. */
export async function runScenario(scenario: Scenario, checking: Omit<Checking, 'onStep'>): Promise<Shown> {
  const shown = await runStepwise(checking, scenario.program);
  const { verdict, steps } = shown;
  const { observed, rule } = scenario.header;
  if (verdict.kind === 'conforms' && rule !== undefined && steps.every(({ expected }) => expected.rule !== rule))
    return { steps, verdict: { kind: 'inconclusive', reason: `the environment kept the program from ${rule}` } };
  if (observed === undefined || verdict.kind === 'inconclusive') return shown;
  if (verdict.kind === 'conforms') return { ...shown, note: 'what the file says was observed does not happen' };
  return { ...shown, note: isRecorded(scenario, verdict) ? 'as the file says' : `the file says ${observed}` };
}

const isRecorded = ({ header }: Scenario, { rule, invariant, observed }: Divergence): boolean =>
  header.observed === onOneLine(observed) &&
  header.invariant === invariant &&
  (invariant !== undefined || header.rule === rule);

/** Text as the value of a header field can hold it. */
export const onOneLine = (value: string): string => value.replace(/[\p{Cc}\s]+/gu, ' ').trim();
