/** The command line as one file for the tests that start it: it starts in a third of the time that the sources take. */
import { afterAll } from '@jest/globals';
import { buildSync } from 'esbuild';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';

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
