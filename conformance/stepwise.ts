/** One program, run so that every step can be shown. */
import type { Program } from '../model/core/program.ts';
import type { CheckedStep, Checking } from './check.ts';
import { judge } from './judge.ts';
import type { ProgramVerdict } from './verdict.ts';

export interface Stepwise {
  readonly verdict: ProgramVerdict;
  /** Fewer than the commands where expectation and observation part, or the specification falls silent. */
  readonly steps: readonly CheckedStep[];
}

export async function runStepwise(checking: Omit<Checking, 'onStep'>, program: Program): Promise<Stepwise> {
  const steps: CheckedStep[] = [];
  const verdict = await judge({ ...checking, onStep: (step) => steps.push(step) }, program);
  return { verdict, steps };
}
