/** C programs of this package, compiled when they are needed and kept for the next time. */
import { spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from './cache.ts';

export interface Build {
  readonly name: string;
  /** Relative to the root of the package; headers too, because what they say is part of what is built. */
  readonly files: readonly string[];
  readonly flags: readonly string[];
}

const WARNINGS = ['-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow', '-Werror'];
const PROGRAM = ['agent/program.c', 'agent/program.h', 'agent/protocol.h'];

export const AGENT: Build = {
  name: 'agent',
  files: ['agent/main.c', ...PROGRAM],
  // Static, because the same file also runs in a guest that has nothing else.
  flags: ['-std=c11', '-O2', '-static', ...WARNINGS],
};

/** The first process of a guest. */
export const INIT: Build = {
  name: 'init',
  files: ['agent/init.c', 'agent/frames.c', 'agent/frames.h'],
  flags: AGENT.flags,
};

/** In place of the agent: a task whose memory fails. */
export const TASK: Build = { name: 'task', files: ['agent/task.c'], flags: AGENT.flags };

export const AGENT_FUZZER: Build = {
  name: 'agent-fuzz',
  files: ['agent/fuzz.c', ...PROGRAM],
  flags: ['-std=c11', '-O2', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', ...WARNINGS],
};

export class NoCompiler extends Error {
  override readonly name = 'NoCompiler';
}

export class CompileFailed extends Error {
  override readonly name = 'CompileFailed';
}

/** `$CC`, which may have arguments, or `cc`. */
export function compilerCommand(): readonly [string, ...string[]] {
  const [command = 'cc', ...args] = (process.env['CC'] ?? '').split(/\s+/).filter((word) => word !== '');
  return [command, ...args];
}

/** What the compiler says of itself. Throws NoCompiler. */
export function compilerVersion(): string {
  const [command, ...args] = compilerCommand();
  const { status, stdout } = spawnSync(command, [...args, '--version'], { encoding: 'utf8' });
  if (status !== 0)
    throw new NoCompiler(`there is no C compiler '${command}': set CC, or apt-get install gcc libc6-dev`);
  return stdout;
}

/** Why nothing can be compiled here, or undefined where it can. */
export function compilerMissing(): string | undefined {
  try {
    compilerVersion();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** The folder of package.json: the tree when run from source, two levels above this file when built. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('package.json is missing from the installation');
    folder = parent;
  }
  return folder;
}

/** A folder that can be written, and by nobody else: what is in it will be executed. */
function usable(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.W_OK | constants.X_OK);
    const { uid, mode } = statSync(folder);
    return uid === process.getuid?.() && (mode & 0o022) === 0;
  } catch {
    return false;
  }
}

function folderForPrograms(): string {
  const candidates = [cacheFolder(), join(tmpdir(), `gmem-conformance-${process.getuid?.() ?? ''}`)];
  const folder = candidates.find(usable);
  if (folder === undefined) throw new CompileFailed(`no folder for compiled programs: tried ${candidates.join(', ')}`);
  return folder;
}

/** The path of the executable. Throws NoCompiler or CompileFailed. */
export function compile({ name, files, flags }: Build): string {
  const [command, ...args] = compilerCommand();
  const root = packageRoot();
  const hash = createHash('sha256').update(JSON.stringify([compilerVersion(), command, args, flags]));
  for (const file of files) hash.update(`\0${file}\0`).update(readFileSync(join(root, file)));
  const executable = join(folderForPrograms(), `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(executable)) return executable;

  // Another process may be compiling the same: each writes a file of its own, and the last to finish has the name.
  const unfinished = `${executable}.${randomUUID()}`;
  const sources = files.filter((file) => file.endsWith('.c'));
  const { status, stderr, error } = spawnSync(command, [...args, ...flags, '-o', unfinished, ...sources], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) {
    rmSync(unfinished, { force: true });
    throw new CompileFailed(`${basename(command)} cannot build ${name}:\n${error?.message ?? stderr}`);
  }
  renameSync(unfinished, executable);
  return executable;
}
