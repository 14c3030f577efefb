/** Where results go: the terminal and files. */
import { SingleBar } from 'cli-progress';
import _ from 'lodash';
import { accessSync, constants, existsSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isatty } from 'node:tty';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { colorsIf } from '../report/colors.ts';
import { fileTrouble, UsageError } from './errors.ts';

const { NO_COLOR = '', TERM } = process.env;

/** `process.stdout.isTTY` is undefined, not false, in a pipe, and the library of colours then decides by itself. */
export const COLORS = colorsIf(isatty(process.stdout.fd) && NO_COLOR === '' && TERM !== 'dumb');

const WIDTH_WITHOUT_TERMINAL = 160;
export const TERMINAL_WIDTH = process.stdout.isTTY ? process.stdout.columns : WIDTH_WITHOUT_TERMINAL;

export const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** Says it beside the results. */
export const warn = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

/** A result did not get to where the caller wants it. The work goes on; in the end the status says so. */
function lose(sentence: string): void {
  warn(`error: ${sentence}`);
  process.once('exit', () => (process.exitCode = EXIT_STATUS.usage));
}

/**
 * What is being done is done to its end, whatever becomes of the terminal: files are written, and the status is that of
 * the verdict. A reader that has seen enough, such as head(1), is no failure.
 */
export function surviveOutput(): void {
  // Every write fails anew.
  const loseOutput = _.once((error: Error) => lose(`cannot write to standard output: ${fileTrouble(error)}`));
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') loseOutput(error);
  });
  // There is nowhere left to say so.
  process.stderr.on('error', () => undefined);
}

/** In the place of a file. Whoever wants a result there wants nothing else there. */
export const STANDARD_OUTPUT = '-';

/** Says things to the reader, beside results that go to these files. */
export const tellBeside = (...files: readonly (string | undefined)[]): ((text: string) => void) =>
  files.includes(STANDARD_OUTPUT) ? warn : say;

/** Asked before the work begins, so that no result is lost to a mistyped path. */
export function assertWritable(...files: readonly (string | undefined)[]): void {
  if (files.filter((file) => file === STANDARD_OUTPUT).length > 1)
    throw new UsageError('standard output takes one result: name files for the others');
  for (const file of files) if (file !== undefined && file !== STANDARD_OUTPUT) assertFileWritable(file);
}

/** As a shell gives it for a variable that is not set. */
const NO_NAME = 'the name of a file to write is empty: give one, or leave out the option';

function assertFileWritable(file: string): void {
  if (file === '') throw new UsageError(NO_NAME);
  try {
    if (!existsSync(file)) accessSync(dirname(file), constants.W_OK | constants.X_OK);
    else if (statSync(file).isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' });
    else accessSync(file, constants.W_OK);
  } catch (error) {
    throw new UsageError(`cannot write '${file}': ${fileTrouble(error)}`);
  }
}

/** Writes the file, and tells whether it could. If not, the text goes to the terminal, and the caller is told why. */
export function writeResult(file: string | undefined, text: string): boolean {
  if (file === undefined) return true;
  try {
    if (file === STANDARD_OUTPUT) process.stdout.write(text);
    else writeFileSync(file, text);
    return true;
  } catch (error) {
    say(text);
    lose(`cannot write '${file}': ${fileTrouble(error)}; what belongs there stands on standard output`);
    return false;
  }
}

/** A file that is replaced as a whole, which its folder must allow. */
export function assertReplaceable(path: string, shown: string, remedy: string): void {
  if (path === '') throw new UsageError(NO_NAME);
  try {
    accessSync(dirname(realPath(path)), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new UsageError(`cannot write '${shown}': ${fileTrouble(error)}; ${remedy}`);
  }
}

const realPath = (path: string): string => (existsSync(path) ? realpathSync(path) : path);

/** A reader sees the old file or the new one, and never a part. */
export function replaceFile(file: string, text: string): void {
  const path = realPath(file);
  const draft = join(dirname(path), `.${basename(path)}.${process.pid}`);
  // Of a process that was killed here, and had the same number.
  rmSync(draft, { force: true });
  try {
    writeFileSync(draft, text, { flag: 'wx' });
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}

export const jsonText = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

export interface Progress {
  update(done: number): void;
  stop(): void;
}

/** A bar on standard error, where that is a terminal; a number where there may be infinitely many. */
export function showProgress(what: string, total: number): Progress {
  const bar = new SingleBar({
    format:
      total === Infinity
        ? `${what} {value} in {duration_formatted}`
        : `${what} {bar} {value} of {total}, {eta_formatted} left`,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  if (process.stderr.isTTY && TERM !== 'dumb') bar.start(total, 0);
  return {
    update: (done) => bar.update(done),
    stop: () => bar.stop(),
  };
}
