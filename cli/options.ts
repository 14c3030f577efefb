/** What several subcommands take, and how it is read. */
import { InvalidArgumentError, Option } from 'commander';
import { existsSync } from 'node:fs';
import type { Target } from '../adapters/adapter.ts';
import { mutantById, type Mutant } from '../adapters/mutants/index.ts';
import { targetByName, type TargetOptions } from '../adapters/targets.ts';
import { DEFAULT_BUDGET } from '../conformance/campaign.ts';
import { DEFAULT_TIME_LIMIT_MS } from '../conformance/observe.ts';
import { chooseSeed, MAX_SEED, MIN_SEED } from '../conformance/seed.ts';
import type { Shard } from '../conformance/shard.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, FULL_MACHINE, profileById, PROFILES, realmOf, type Machine } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { UsageError } from './errors.ts';

export const DEFAULT_TARGET = 'simulator';

function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^-?\d+$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Write a whole number from ${min} to ${max}.`);
  };
}

export const seedOption = (): Option =>
  new Option(
    '--seed <number>',
    'where chance starts; the same seed gives the same run (default: $GMEM_SEED or random)',
  ).argParser(wholeNumber(MIN_SEED, MAX_SEED));

export const runsOption = (fallback = `${DEFAULT_BUDGET.runs}`): Option =>
  new Option('--runs <number>', `programs to run (default: ${fallback})`).argParser(wholeNumber(1, 1_000_000_000));

export const timeOption = (): Option =>
  new Option('--time <duration>', 'how long to run programs, such as 90s, 10m or 2h').argParser(milliseconds);

const UNIT_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000 };

function milliseconds(text: string): number {
  const [, amount = '', unit = ''] = /^([1-9]\d{0,5})([smh])$/.exec(text) ?? [];
  const value = Number(amount) * (UNIT_MS[unit] ?? NaN);
  if (value > 0) return value;
  throw new InvalidArgumentError('Write a whole number of seconds, minutes or hours: 90s, 10m, 2h.');
}

export const shardOption = (): Option =>
  new Option('--shard <i/n>', 'run part i of n of the run, from 1; `report merge` puts the reports together').argParser(
    shard,
  );

function shard(text: string): Shard {
  const [, index = 0, count = 0] = (/^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? []).map(Number);
  if (index >= 1 && index <= count) return { index, count };
  throw new InvalidArgumentError('Write i/n, with i from 1 to n: 1/4, 2/4, 3/4 and 4/4 make a whole run.');
}

export const maxCommandsOption = (): Option =>
  new Option('--max-commands <number>', 'commands in a program at most')
    .argParser(wholeNumber(1, 10_000))
    .default(DEFAULT_BUDGET.maxCommands);

export const timeLimitOption = (): Option =>
  new Option('--time-limit <seconds>', 'how long a target outside of this process may take for one program')
    .argParser(wholeNumber(1, 86_400))
    .default(DEFAULT_TIME_LIMIT_MS / 1000);

export const sameRuleOption = (): Option =>
  new Option('--same-rule', 'shrink to a program that breaks the same rule and invariant as the first').default(false);

export const targetOption = (fallback: string): Option =>
  new Option('--target <name>', `what to test; see \`gmem-conformance targets\` (default: ${fallback})`);

/** What there is to say of `--target qemu`. */
export const kernelOption = (): Option =>
  new Option('--kernel <image>', 'for --target qemu: a bzImage (default: the newest that was fetched or built)');
export const modulesOption = (): Option =>
  new Option('--modules <folder>', 'for --target qemu: the modules of that kernel, as in /lib/modules/RELEASE');

export const appendOption = (): Option =>
  new Option('--append <text>', 'for --target qemu: more for the command line of the kernel, such as kvm_amd.npt=0');

export const profileOption = (fallback = DEFAULT_PROFILE): Option =>
  new Option(
    '--profile <name>',
    `whose rules hold (default: ${fallback}; for a mutant, the one that shows its fault; for a kernel, that of its release)`,
  );

/** The seed that was asked for, or else the one given here, or one from chance. */
export function seedOf(option: number | undefined): number {
  try {
    return chooseSeed(option);
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

/** Names come from the caller, so a name that nothing has is the caller's mistake. */
export async function openTarget(name: string, options: TargetOptions = {}): Promise<Target> {
  try {
    return await targetByName(name, options);
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

/** The rules of a profile on a machine. */
export function specify(profile: string, machine: Machine = FULL_MACHINE): Specification {
  try {
    return new Specification({ profile: profileById(profile), machine }, CATALOGUE);
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}

export interface Subject {
  readonly target: Target;
  readonly specification: Specification;
  /** How long the target may take for one program. */
  readonly timeLimitMs: number;
}

/** Opens the target, gives it with the rules that it is held against, and closes it when all is done. */
export async function withSubject<T>(options: SubjectOptions, use: (subject: Subject) => Promise<T>): Promise<T> {
  const { target: name = DEFAULT_TARGET, profile, timeLimit } = options;
  const timeLimitMs = timeLimit === undefined ? DEFAULT_TIME_LIMIT_MS : timeLimit * 1000;
  assertFitting(name, options);
  const mutant = mutantOf(name);
  const misfit = profile === undefined ? undefined : misfitOf(name, profile);
  if (misfit !== undefined) throw new UsageError(misfit);
  const target = await openTarget(name, { ...options, timeLimitMs, onStderr: passOn });
  try {
    const usual = mutant?.profile ?? target.profile?.id ?? DEFAULT_PROFILE;
    const specification = specify(profile ?? usual, target.machine);
    return await use({ target, specification, timeLimitMs });
  } finally {
    await target.close?.();
  }
}

const mutantOf = (target: string): Mutant | undefined => mutantById(target.replace(/^mutant:/, ''));

/** Why the target cannot be asked about the profile: a mutant of one machine has none of the commands of another. */
export function misfitOf(target: string, profile: string): string | undefined {
  const mutant = mutantOf(target);
  const wanted = PROFILES.find(({ id }) => id === profile);
  if (mutant === undefined || wanted === undefined) return undefined;
  const realm = realmOf(profileById(mutant.profile));
  if (realm === realmOf(wanted)) return undefined;
  const fitting = PROFILES.filter((each) => realmOf(each) === realm).map(({ id }) => id);
  return `${target} is another machine than ${profile} is about: it fits ${fitting.join(', ')}`;
}

/** What is said of a kernel image must be about one, and one that is there. */
function assertFitting(name: string, { kernel, modules, append }: SubjectOptions): void {
  const given = Object.entries({ kernel, modules, append }).find(([, value]) => value !== undefined)?.[0];
  if (given !== undefined && name !== 'qemu')
    throw new UsageError(`--${given} is for --target qemu, and the target is ${name}`);
  for (const path of [kernel, modules])
    if (path !== undefined && !existsSync(path)) throw new UsageError(`there is no '${path}'`);
}

const passOn = (text: string): void => void process.stderr.write(text);

export interface SubjectOptions extends TargetOptions {
  readonly target?: string | undefined;
  readonly profile?: string | undefined;
  /** Seconds that the target may take for one program, or to start. */
  readonly timeLimit?: number | undefined;
}
