/** The command line as one file for the tests that start it: it starts in a third of the time that the sources take. */
import { afterAll } from '@jest/globals';
import { buildSync } from 'esbuild';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

const ROOT = join(__dirname, '..');

/** Below package.json, by which the kit finds its installation. */
const OUTPUT = join(ROOT, 'dist');

/** The file to give to node, behind whose back nobody else changes it; it is gone after the tests of the caller. */
export function bundledCommandLine(): string {
  mkdirSync(OUTPUT, { recursive: true });
  const folder = mkdtempSync(join(OUTPUT, 'tests-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const outfile = join(folder, 'main.mjs');
  buildSync({
    entryPoints: [join(ROOT, 'cli', 'main.ts')],
    outfile,
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
  });
  return outfile;
}

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Surroundings {
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs the bundled file in the root of the project, to its end. */
export async function runCommandLine(
  file: string,
  args: readonly string[],
  { input = '', env = {} }: Surroundings = {},
): Promise<Ran> {
  const child = spawn(process.execPath, [file, ...args], { cwd: ROOT, env: { ...process.env, ...env } });
  child.stdin.end(input);
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [status] = (await closed) as [number | null];
  return { status, stdout, stderr };
}

/** In a folder that is gone afterwards. */
export async function inFolder(use: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'gmem-cli-'));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
