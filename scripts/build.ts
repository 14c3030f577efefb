/**
 * `npm run build`: dist/ as ES modules with types, and the library once more in dist/cjs as CommonJS, because a jest
 * project that compiles its tests to CommonJS, as most do, cannot load ES modules from node_modules.
 */
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..');
const ESM = join(ROOT, 'dist');
const COMMON = join(ESM, 'cjs');

/** What only the command line needs. */
const NOT_LIBRARY = /^(cli|adapters\/(linux|mutants|process|targets))\b/;

rmSync(ESM, { recursive: true, force: true });
execFileSync(
  process.execPath,
  [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', join(ROOT, 'tsconfig.build.json')],
  {
    stdio: 'inherit',
  },
);

const library = readdirSync(ESM, { recursive: true, encoding: 'utf8' }).filter((file) => !NOT_LIBRARY.test(file));

await build({
  entryPoints: library.filter((file) => file.endsWith('.js')).map((file) => join(ESM, file)),
  outbase: ESM,
  outdir: COMMON,
  format: 'cjs',
  platform: 'node',
  target: 'node20',
  define: { 'import.meta.dirname': '__dirname' },
});

for (const file of library.filter((each) => each.endsWith('.d.ts'))) {
  mkdirSync(dirname(join(COMMON, file)), { recursive: true });
  copyFileSync(join(ESM, file), join(COMMON, file));
}

writeFileSync(join(COMMON, 'package.json'), '{ "type": "commonjs" }\n');
