/** Writes a failing program as a scenario. */
import { Option } from 'commander';
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { ALL_INVARIANTS } from '../conformance/invariants.ts';
import { modelHash } from '../conformance/model-hash.ts';
import type { FailureReport } from '../report/json.ts';
import { scenarioName, scenarioOf, type Finding } from '../report/scenario.ts';
import { field } from '../report/text.ts';
import { fileTrouble, UsageError } from './errors.ts';
import type { Subject } from './options.ts';
import { assertWritable, STANDARD_OUTPUT, writeResult } from './output.ts';

export interface SaveOptions {
  /** A file, or a folder, in which the file gets a name of its own. */
  readonly save?: string;
}

export const saveOption = (): Option =>
  new Option('--save <path>', 'write a program that diverges there, as a scenario: a file, or a folder that exists');

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/** Asked before the work begins, so that no result is lost to a mistyped path. */
export function assertSavable(path: string | undefined): void {
  if (path === STANDARD_OUTPUT)
    throw new UsageError('--save takes a file or a folder; `shrink --output -` writes to standard output');
  if (path === undefined || !isFolder(path)) {
    assertWritable(path);
    return;
  }
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new UsageError(`cannot write into '${path}': ${fileTrouble(error)}`);
  }
}

/** Says where it is, as a line below the failure. */
export function saveScenario(path: string, failure: FailureReport, finding: Finding): string {
  const file = isFolder(path) ? join(path, scenarioName(failure)) : path;
  if (!writeResult(file, scenarioOf(failure, finding))) return field('not saved', 'the program stands above');
  return field('saved', `${file}, which \`scenario\`, \`replay\` and \`shrink\` take`);
}

/** Where a failure on the subject was met. */
export const findingOn = ({ specification, target }: Subject): Finding => ({
  target: target.name,
  kernel: target.kernel,
  rules: specification.rules(),
  invariants: ALL_INVARIANTS,
  profile: specification.config.profile.id,
  modelHash: modelHash(),
});
