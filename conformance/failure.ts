/** A failing program, and the small one that it shrinks to. */
import type { Program } from '../model/core/program.ts';
import { breathe } from './breathe.ts';
import type { Checking } from './check.ts';
import { judge } from './judge.ts';
import type { Fails, Shrunk } from './shrink.ts';
import type { Divergence } from './verdict.ts';

export interface Failure extends Divergence {
  readonly program: Program;
  /** The program as it was before. */
  readonly original: Program;
  /** How that one failed, where it broke another rule or invariant than the shrunk one. */
  readonly first?: Divergence;
  readonly shrinkRuns: number;
}

/** A program that failed, as it is. */
export const unshrunk = (divergence: Divergence, program: Program): Failure => ({
  ...divergence,
  program,
  original: program,
  shrinkRuns: 0,
});

export interface FailureOptions {
  /** Whether only programs count that break the same rule, and the same invariant, as the first. */
  readonly sameRule?: boolean;
  /** Ends the work with what was found so far. */
  readonly signal?: AbortSignal;
  /** Divergences that do not count, because they are known. */
  readonly isKnown?: (program: Program, divergence: Divergence) => boolean;
}

/** How to shrink: a program, what counts as a failure of one, and when to be content with what there is. */
export type Shrink = (program: Program, counts: Counts, fails: Fails, signal: AbortSignal) => Promise<Shrunk>;
export type Counts = (divergence: Divergence, program: Program) => boolean;

/** Programs in a row without a verdict after which a target is given up. */
export const PATIENCE = 3;

export async function shrinkFailure(
  checking: Checking,
  original: Program,
  first: Divergence,
  { sameRule = false, isKnown, signal }: FailureOptions,
  shrink: Shrink,
): Promise<Failure> {
  const gone = new AbortController();
  const counts: Counts = (divergence, candidate) =>
    (!sameRule || isLike(divergence, first)) && isKnown?.(candidate, divergence) !== true;
  let silent = 0;
  const fails: Fails = async (candidate) => {
    await breathe();
    const verdict = await judge(checking, candidate);
    silent = verdict.kind === 'inconclusive' && verdict.isUnsupported !== true ? silent + 1 : 0;
    if (silent === PATIENCE) gone.abort();
    return verdict.kind === 'diverges' && counts(verdict, candidate);
  };
  const failing = original.slice(0, first.at + 1);
  const stop = AbortSignal.any([gone.signal, ...(signal === undefined ? [] : [signal])]);
  const { program, runs: shrinkRuns } = await shrink(failing, counts, fails, stop);
  const last = await judge(checking, program);
  // A target that does not fail twice is still reported, with what it did the first time.
  if (last.kind !== 'diverges') return { ...first, program: failing, original, shrinkRuns };
  return { ...last, program, original, shrinkRuns, ...(isLike(last, first) ? {} : { first }) };
}

const isLike = (one: Divergence, other: Divergence): boolean =>
  one.rule === other.rule && one.invariant === other.invariant;
