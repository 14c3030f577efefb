/**
 * Known divergences: where a family of targets is known to differ from the specification, since when, and why. They
 * stand in a file, and every entry has a program that shows the divergence and is run again.
 */
import _ from 'lodash';
import { z } from 'zod';
import type { Abilities, Target } from '../adapters/adapter.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import {
  FULL_MACHINE,
  holdsIn,
  printCondition,
  profileById,
  PROFILES,
  type Condition,
  type Machine,
} from '../model/core/profile.ts';
import { parseProgram, ProgramError, type Program } from '../model/core/program.ts';
import { argumentsOf, Specification, type AnyCommand } from '../model/core/specification.ts';
import { lackOf } from './capability.ts';
import { expectationsOf } from './check.ts';
import { ALL_INVARIANTS } from './invariants.ts';
import { excerpt } from './excerpt.ts';
import { SECRECY } from './secret.ts';
import type { Divergence } from './verdict.ts';

type Switch = { [Field in keyof Machine]: Machine[Field] extends boolean ? Field : never }[keyof Machine];

const text = (write: string): z.ZodString => z.string({ error: write }).min(1, { error: write });
const release = z.string().regex(/^\d+\.\d+(\.\d+)?$/, { error: 'write a release, such as 6.18 or 7.3.4' });
const bound = z
  .string({ error: 'write the number in quotes, such as "0x1000": a JSON number has 53 bits' })
  .regex(/^-?(0x[0-9a-fA-F]{1,17}|[0-9]{1,20})$/, { error: 'write decimal digits, or 0x and hex digits' });

const ID = /^[a-z][a-z0-9-]{0,63}$/;
const SUM = /^[a-z][a-zA-Z]*(\+[a-z][a-zA-Z]*)*$/;

const Where = z.record(
  z.string().regex(SUM, { error: 'write the name of an argument, or a sum of several: offset+size' }),
  z.strictObject({ from: bound.exactOptional(), to: bound.exactOptional() }).meta({ minProperties: 1 }),
);

const MACHINE = {
  memoryAttributes: z.boolean().exactOptional(),
  twoDimensionalPaging: z.boolean().exactOptional(),
  secretMemory: z.boolean().exactOptional(),
  processVm: z.boolean().exactOptional(),
} satisfies Record<Switch, z.ZodType>;

const KnownDivergence = z
  .strictObject({
    id: z
      .string({ error: 'write a name for the entry, such as "gmem-offset-overflow"' })
      .regex(ID, { error: 'write lower-case letters, digits and -' })
      .describe('Name of the entry'),
    rule: text('write the id of a rule').exactOptional().describe('The rule that the target breaks'),
    invariant: text('write the id of an invariant')
      .exactOptional()
      .describe('The invariant that is broken, where that is how the divergence shows'),
    profiles: z
      .array(z.string(), { error: 'list the profiles whose rules are broken, such as ["linux-6.18"]' })
      .min(1, { error: 'name a profile at least' })
      .describe('The profiles whose rules are broken'),
    since: release.exactOptional().describe('First kernel release that diverges'),
    before: release.exactOptional().describe('First kernel release after it that does not'),
    backEnd: text('write the name of a module, such as "kvm_intel"')
      .exactOptional()
      .describe('The module that runs vCPUs, where only this one diverges'),
    machine: z.strictObject(MACHINE).exactOptional().describe('What the machine has, or has not, where it diverges'),
    where: Where.exactOptional().describe(
      'Ranges of the arguments of the command that diverges, or of sums of them; `from` and `to` belong to the range',
    ),
    after: z
      .array(z.string())
      .min(1)
      .exactOptional()
      .describe(
        'Rules that leave memory in a state of its own: loads and stores at or behind a command that one of them decided are excused, but for crashes',
      ),
    observed: text('write what was observed instead of what was expected, such as "ok"').describe(
      'What is observed there; * stands for any text',
    ),
    reason: text('say why the target diverges').describe('Why; begins with "unexplained" where nobody knows'),
    source: text('say where that can be read: a function, a commit, a mail').describe('Where that can be read'),
    witness: z
      .array(z.string(), { error: 'write a program that diverges at its last command, one command a line' })
      .min(1, { error: 'write a program that diverges at its last command' })
      .describe('A program that diverges at its last command, one command a line'),
  })
  .meta({
    anyOf: [{ required: ['rule'] }, { required: ['invariant'] }],
    dependentRequired: { where: ['rule'] },
  });

const DivergenceFile = z
  .array(KnownDivergence, { error: 'write a list of entries: [ … ]' })
  .meta({ title: 'Known divergences of a family of targets' });

export type KnownDivergence = z.infer<typeof KnownDivergence>;

/** The JSON Schema that is published. */
export const divergencesJsonSchema = (): object => z.toJSONSchema(DivergenceFile);

export const UNEXPLAINED = 'unexplained';
export const isUnexplained = ({ reason }: Pick<KnownDivergence, 'reason'>): boolean => reason.startsWith(UNEXPLAINED);

/** A file of known divergences that cannot be used. The message names the entry and says what to write. */
export class DivergenceError extends Error {}

const KEYS = Object.keys(KnownDivergence.shape);

/** `name` is the file's, for messages. Throws a DivergenceError. */
export function parseDivergences(json: string, name: string): readonly KnownDivergence[] {
  let content: unknown;
  try {
    content = JSON.parse(json);
  } catch (error) {
    throw new DivergenceError(`${name}: not JSON: ${(error as Error).message}`);
  }
  const { data, error } = DivergenceFile.safeParse(content);
  if (error !== undefined) throw new DivergenceError(`${name}: ${shapeMistake(content, error)}`);
  for (const [index, entry] of data.entries()) {
    const mistake = data.slice(0, index).some(({ id }) => id === entry.id)
      ? `an entry above has this id: give it another`
      : meaningMistake(entry);
    if (mistake !== undefined) throw new DivergenceError(`${name}: ${entryName(content, index)}: ${mistake}`);
  }
  return data;
}

export const printDivergences = (entries: readonly KnownDivergence[]): string =>
  `${JSON.stringify(
    entries.map((entry) => _.pick(entry, KEYS)),
    null,
    2,
  )}\n`;

function entryName(content: unknown, index: number): string {
  const id: unknown = _.get(content, [index, 'id']);
  return typeof id === 'string' ? `entry ${index + 1} (${excerpt(id)})` : `entry ${index + 1}`;
}

function shapeMistake(content: unknown, { issues }: z.ZodError): string {
  const [issue] = issues;
  if (issue === undefined) return 'not a list of entries';
  const [index, ...path] = issue.path;
  if (typeof index !== 'number') return issue.message;
  const field = path.length === 0 ? '' : `${path.map(String).map(excerpt).join('.')}: `;
  const message =
    issue.code === 'unrecognized_keys'
      ? `there is no '${excerpt(issue.keys[0] ?? '')}'${path.length === 0 ? ` in an entry; there are ${KEYS.join(', ')}` : ''}`
      : issue.code === 'invalid_key'
        ? (issue.issues[0]?.message ?? issue.message)
        : issue.message;
  return `${entryName(content, index)}: ${field}${message}`;
}

const specificationOf = _.memoize(
  (profile: string): Specification =>
    new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE),
);

/** What is wrong with an entry that has the right form. */
function meaningMistake(entry: KnownDivergence): string | undefined {
  const { rule, invariant, profiles, since, before, where = {} } = entry;
  if (rule === undefined && invariant === undefined) return 'it names no rule and no invariant: write one';
  if (since !== undefined && before !== undefined && !holdsIn({ release: numbers(since), features: [] }, { before }))
    return `since ${since}, before ${before} is no release at all: before comes later`;
  if (invariant !== undefined && !ALL_INVARIANTS.some(({ id }) => id === invariant))
    return `there is no invariant '${excerpt(invariant)}'; there are ${ALL_INVARIANTS.map(({ id }) => id).join(', ')}`;
  if (rule === undefined && Object.keys(where).length > 0)
    return 'where speaks of the arguments of a command: write the rule too';
  for (const [sum, { from, to }] of Object.entries(where)) {
    if (from === undefined && to === undefined) return `where.${sum}: write from, to or both`;
    if (from !== undefined && to !== undefined && integer(from) > integer(to))
      return `where.${sum}: nothing is from ${from} to ${to}`;
  }
  return firstOf(profiles, (profile) => mistakeIn(entry, profile));
}

function mistakeIn({ rule, after, where = {}, witness }: KnownDivergence, profile: string): string | undefined {
  if (!PROFILES.some(({ id }) => id === profile))
    return `there is no profile '${excerpt(profile)}'; there are ${PROFILES.map(({ id }) => id).join(', ')}`;
  const specification = specificationOf(profile);
  try {
    if (parseProgram(specification, witness.join('\n')).program.length === 0) return 'the witness has no command';
  } catch (error) {
    if (!(error instanceof ProgramError)) throw error;
    return `line ${error.line} of the witness: ${error.message}`;
  }
  if (rule === undefined) return undefined;
  const command = specification.rules().find(({ id }) => id === rule)?.command;
  if (command === undefined)
    return `${profile} has no rule '${excerpt(rule)}': \`gmem-conformance rules\` names them all`;
  const strange = (after ?? []).find((each) => specification.rules().every(({ id }) => id !== each));
  if (strange !== undefined) return `after: ${profile} has no rule '${excerpt(strange)}'`;
  const integers = argumentsOf(specification.transition(command))
    .filter(([, { kind }]) => kind === 'integer')
    .map(([name]) => name);
  const unknown = Object.keys(where)
    .flatMap((sum) => sum.split('+'))
    .find((name) => !integers.includes(name));
  return unknown === undefined
    ? undefined
    : `where: ${command} has no number '${unknown}'; it has ${integers.join(', ') || 'none'}`;
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A minus stands before the digits, also where they are hexadecimal. */
const integer = (digits: string): bigint => (digits.startsWith('-') ? -BigInt(digits.slice(1)) : BigInt(digits));

const numbers = (dotted: string): readonly [number, number, number] => {
  const [major = 0, minor = 0, patch = 0] = dotted.split('.').map(Number);
  return [major, minor, patch];
};

/** `6.18.44` of `6.18.44-amd64`; a candidate of a release counts as the release. */
export const releaseOf = (uname: string): string | undefined => /^\d+\.\d+(\.\d+)?/.exec(uname)?.[0];

/** The witness of the entry as commands, where the specification has them all. */
export function witnessOf({ witness }: KnownDivergence, specification: Specification): Program | undefined {
  try {
    return parseProgram(specification, witness.join('\n')).program;
  } catch (error) {
    if (error instanceof ProgramError) return undefined;
    throw error;
  }
}

/** Why the entry says nothing about the target, or undefined where it does. */
export function inapplicable(
  entry: KnownDivergence,
  target: Pick<Target, 'capabilities' | 'commands' | 'kernel' | 'machine'>,
  specification: Specification,
): string | undefined {
  const { profile } = specification.config;
  if (!entry.profiles.includes(profile.id)) return `it is about ${entry.profiles.join(', ')}`;
  const lacking = lackingCapability(entry, target, specification);
  if (lacking !== undefined) return `the target lacks ${lacking}`;
  return otherKernel(entry, target) ?? otherMachine(entry, target);
}

function otherKernel(
  { since, before, backEnd }: KnownDivergence,
  { kernel }: Pick<Target, 'kernel'>,
): string | undefined {
  const condition: Condition = {
    ...(since === undefined ? {} : { since }),
    ...(before === undefined ? {} : { before }),
  };
  if (!_.isEmpty(condition)) {
    if (kernel === undefined) return 'the target does not tell which kernel it is';
    const here = releaseOf(kernel.release);
    if (here === undefined) return `it holds ${printCondition(condition)}, and '${kernel.release}' is no release`;
    if (!holdsIn({ release: numbers(here), features: [] }, condition))
      return `it holds ${printCondition(condition)}, and the kernel is ${kernel.release}`;
  }
  if (backEnd !== undefined && backEnd !== kernel?.backEnd)
    return `it is about ${backEnd}, and vCPUs are run by ${kernel?.backEnd ?? 'something else'}`;
  return undefined;
}

function otherMachine({ machine = {} }: KnownDivergence, target: Pick<Target, 'machine'>): string | undefined {
  const other = (Object.keys(machine) as Switch[]).find((field) => machine[field] !== target.machine[field]);
  return other === undefined ? undefined : `the machine's ${other} is ${target.machine[other]}`;
}

function lackingCapability(
  entry: KnownDivergence,
  target: Abilities,
  specification: Specification,
): string | undefined {
  const isOverFacts = entry.invariant !== undefined && entry.invariant !== SECRECY.id;
  if (isOverFacts && !target.capabilities.has('facts')) return 'facts';
  return firstOf(witnessOf(entry, specification) ?? [], ({ name }) => lackOf(target, specification.transition(name)));
}

/** Whether a divergence at the command is the one that the entry speaks of. */
export const describes = (entry: KnownDivergence, divergence: Divergence, command: AnyCommand | undefined): boolean =>
  speaksOf(entry, divergence, command) && fits(entry.observed, divergence.observed);

/** Commands that may see what an earlier one has left: they read or write memory. */
const ACCESS = /^((guest|host)\.(load|store)|guest\.walk|gup\.(read|write))$/;

/**
 * Whether the divergence is one of content, at or behind a command that a rule decided behind which content cannot be
 * told. A crash, a broken invariant and what other commands answer are never excused so.
 */
export function isAftermath(
  { after }: KnownDivergence,
  { at, observed, invariant }: Divergence,
  program: Program,
  specification: Specification,
): boolean {
  if (after === undefined || invariant !== undefined || observed.startsWith('crash')) return false;
  if (!ACCESS.test(program[at]?.name ?? '')) return false;
  return expectationsOf(specification, program.slice(0, at + 1)).some(({ rule }) => after.includes(rule));
}

/** The same, whatever was observed. */
export const speaksOf = (
  { rule, invariant, where = {} }: KnownDivergence,
  divergence: Divergence,
  command: AnyCommand | undefined,
): boolean =>
  invariant === divergence.invariant &&
  (rule === undefined || rule === divergence.rule) &&
  Object.entries(where).every(([sum, range]) => command !== undefined && isWithin(range, sumOf(sum, command)));

function sumOf(names: string, { args }: AnyCommand): bigint | undefined {
  let sum = 0n;
  for (const name of names.split('+')) {
    const value = args[name];
    if (typeof value !== 'bigint') return undefined;
    sum += value;
  }
  return sum;
}

const isWithin = ({ from, to }: { from?: string; to?: string }, value: bigint | undefined): boolean =>
  value !== undefined && (from === undefined || integer(from) <= value) && (to === undefined || value <= integer(to));

const fits = (pattern: string, observed: string): boolean =>
  new RegExp(
    `^${pattern
      .split('*')
      .map((part) => _.escapeRegExp(part))
      .join('.*')}$`,
    's',
  ).test(observed);
