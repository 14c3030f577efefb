/** Running one program so that every step can be shown. */
import { KernelTarget } from '../adapters/linux/target.ts';
import type { CheckedStep } from '../conformance/check.ts';
import type { Failure } from '../conformance/failure.ts';
import { judge } from '../conformance/judge.ts';
import type { ProgramVerdict } from '../conformance/verdict.ts';
import { printCommand, type Program } from '../model/core/program.ts';
import { failureReport } from '../report/json.ts';
import { printFailure } from '../report/terminal.ts';
import { witnessLines } from '../report/witness.ts';
import type { Subject } from './options.ts';
import { COLORS, say } from './output.ts';

export interface Stepwise {
  readonly verdict: ProgramVerdict;
  readonly steps: readonly CheckedStep[];
}

export async function runStepwise({ specification, target }: Subject, program: Program): Promise<Stepwise> {
  const steps: CheckedStep[] = [];
  const verdict = await judge({ specification, target, onStep: (step) => steps.push(step) }, program);
  return { verdict, steps };
}

/** Runs the failing program once more and shows it. */
export async function showFailure(subject: Subject, failure: Failure): Promise<void> {
  const { specification, target } = subject;
  const { verdict, steps } = await runStepwise(subject, failure.program);
  const context = {
    specification,
    target: target.name,
    lines: witnessLines(specification, failure.program, steps),
    originalLength: failure.original.length,
    isKernel: target instanceof KernelTarget,
    reproduced: verdict.kind === 'diverges',
    ...(failure.twin === undefined
      ? {}
      : { twin: failure.twin.map((command) => printCommand(specification, command)) }),
  };
  say(printFailure(failureReport(specification, target.name, failure), context, COLORS));
}
