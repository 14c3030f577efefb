import type { Program } from '../model/core/program.ts';
import { checkProgram, type Checking } from './check.ts';
import { checkSecrecy } from './secret.ts';
import type { ProgramVerdict } from './verdict.ts';

/** Whether the target fails the program, and how; secrets included. */
export async function judge(checking: Checking, program: Program): Promise<ProgramVerdict> {
  const verdict = await checkProgram(checking, program);
  return verdict.kind === 'conforms' && verdict.unmodelled === undefined ? checkSecrecy(checking, program) : verdict;
}
