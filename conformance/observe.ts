/** What a target makes of a program, and whatever may go wrong on its side of the contract. */
import { types } from 'node:util';
import { TargetFailure, type ExecuteOptions, type Observed, type Target } from '../adapters/adapter.ts';
import type { Observation } from '../model/core/outcome.ts';
import type { Profile } from '../model/core/profile.ts';
import type { Program } from '../model/core/program.ts';
import type { ProgramVerdict } from './verdict.ts';

export const INTERRUPTED = 'interrupted';

/** How long a target at the end of a wire may take for one program. */
export const DEFAULT_TIME_LIMIT_MS = 60_000;

export interface Wishes extends ExecuteOptions {
  readonly timeLimitMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** One well-formed observation for each command, or fewer. Iterating throws what `inconclusive` makes a verdict of. */
export function observe(
  target: Target,
  program: Program,
  profile: Profile,
  wishes: Wishes = {},
): Iterable<Observed> | Promise<Iterable<Observed>> {
  const observations = attempt(() => target.execute(program, profile, { facts: wishes.facts }));
  // Where jest runs the engine, a promise of Node's own is none of the class that is known here.
  return types.isPromise(observations)
    ? withinTime(target, observations, wishes).then((arrived) => wellFormed(arrived, program.length))
    : wellFormed(observations, program.length);
}

/** The verdict where the target failed; any other error is a defect of the kit and is thrown again. */
export function inconclusive(error: unknown): ProgramVerdict {
  if (!(error instanceof TargetFailure)) throw error;
  return { kind: 'inconclusive', reason: error.message };
}

const failure = (error: unknown): TargetFailure =>
  error instanceof TargetFailure ? error : new TargetFailure(`the target failed: ${String(error)}`, { cause: error });

function attempt<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw failure(error);
  }
}

async function withinTime<T>(
  target: Target,
  work: Promise<T>,
  { timeLimitMs = DEFAULT_TIME_LIMIT_MS, signal }: Wishes,
): Promise<T> {
  let giveUp = (_why: string): void => undefined;
  const late = new Promise<never>((_resolve, reject) => {
    giveUp = (why) => reject(new TargetFailure(why));
  });
  const hung = (): void =>
    giveUp(`the target hung: no answer within ${timeLimitMs / 1000} s${target.abandon?.() ?? ''}`);
  const timer = setTimeout(hung, timeLimitMs);
  const interrupt = (): void => {
    target.abandon?.();
    giveUp(INTERRUPTED);
  };
  signal?.addEventListener('abort', interrupt);
  try {
    return await Promise.race([work, late]);
  } catch (error) {
    throw failure(error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', interrupt);
  }
}

function* wellFormed(observations: Iterable<Observed>, wanted: number): Iterable<Observed> {
  let count = 0;
  try {
    for (const observed of observations) {
      if (count++ === wanted) throw new TargetFailure('the target observed more than it was asked to do');
      if (!isObserved(observed)) throw new TargetFailure(`the target's observation ${count} is none`);
      yield observed;
    }
  } catch (error) {
    throw failure(error);
  }
}

const isOneOf = (word: unknown, words: readonly string[]): boolean => words.some((each) => each === word);

/** Types end where an adapter parses what came over a wire. */
function isObserved(observed: Observed | undefined): boolean {
  const outcome: Partial<Observation> | undefined = observed?.outcome;
  switch (outcome?.kind) {
    case 'ok':
      return outcome.value === undefined || typeof outcome.value === 'bigint';
    case 'errno':
      return typeof outcome.errno === 'string';
    case 'mmio':
      return typeof outcome.gpa === 'bigint' && typeof outcome.write === 'boolean';
    case 'memory-fault':
      return (
        typeof outcome.errno === 'string' && typeof outcome.gpa === 'bigint' && typeof outcome.private === 'boolean'
      );
    case 'signal':
      return typeof outcome.signal === 'string';
    case 'machine-check':
      return isOneOf(outcome.ends, ['guest', 'machine', 'nobody']);
    case 'sigbus':
      return isOneOf(outcome.to, ['task', 'vmm']) && isOneOf(outcome.code, ['AR', 'AO', 'none']);
    case 'hypercall':
      return (
        typeof outcome.gpa === 'bigint' &&
        typeof outcome.pages === 'bigint' &&
        typeof outcome.private === 'boolean' &&
        (outcome.attributes === undefined || typeof outcome.attributes === 'bigint')
      );
    case 'status':
      return typeof outcome.status === 'string' && (outcome.gpa === undefined || typeof outcome.gpa === 'bigint');
    case 'ranges':
      return Array.isArray(outcome.ranges) && typeof outcome.incomplete === 'boolean';
    case 'oops':
    case 'shutdown':
    case 'ciphertext':
      return true;
    case 'crash':
    case 'unsupported':
      return typeof outcome.message === 'string';
    case undefined:
    default:
      return false;
  }
}
