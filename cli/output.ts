/** Where results go: the terminal and files. */
import { SingleBar } from 'cli-progress';
import { accessSync, constants, existsSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isatty } from 'node:tty';
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

function assertFileWritable(file: string): void {
  try {
    if (!existsSync(file)) accessSync(dirname(file), constants.W_OK | constants.X_OK);
    else if (statSync(file).isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' });
    else accessSync(file, constants.W_OK);
  } catch (error) {
    throw new UsageError(`cannot write '${file}': ${fileTrouble(error)}`);
  }
}

/** Writes the file; where that fails after all, the text goes to the terminal. */
export function writeResult(file: string | undefined, text: string): void {
  if (file === undefined) return;
  if (file === STANDARD_OUTPUT) {
    process.stdout.write(text);
    return;
  }
  try {
    writeFileSync(file, text);
  } catch (error) {
    say(text);
    throw new UsageError(`cannot write '${file}': ${fileTrouble(error)}; its content stands above`);
  }
}

/** A file that is replaced as a whole, which its folder must allow. */
export function assertReplaceable(path: string, shown: string, remedy: string): void {
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
  if (process.stderr.isTTY) bar.start(total, 0);
  return {
    update: (done) => bar.update(done),
    stop: () => bar.stop(),
  };
}
