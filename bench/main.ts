/**
 * `npm run bench`: measurements side by side, in one run. Nothing is asserted. Run from its source it compiles itself
 * first: tsx keeps the names of inner functions, which makes just those slow that are to be measured.
 */
import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import { spawnSync } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import type { Bench } from './bench.ts';
import { KERNEL } from './kernel.ts';
import { huntInThread, KILLS } from './kills.ts';
import { say } from './print.ts';
import { SHRINK } from './shrink.ts';
import { SIZE } from './size.ts';
import { STATUS } from './status.ts';
import { THROUGHPUT } from './throughput.ts';

const BENCHES: readonly Bench[] = [THROUGHPUT, KILLS, SIZE, SHRINK, KERNEL, STATUS];

interface Options {
  readonly quick: boolean;
  readonly seeds?: number;
  readonly json?: string;
}

async function measure(name: string | undefined, { quick, seeds = quick ? 1 : 5, json }: Options): Promise<void> {
  const results: Record<string, unknown> = {};
  for (const bench of BENCHES.filter((each) => name === undefined || each.name === name)) {
    say(`${bench.name}: ${bench.question}\n`);
    const started = performance.now();
    results[bench.name] = await bench.run({ quick, seeds });
    say(`\n(${((performance.now() - started) / 1000).toFixed(0)} s)\n`);
  }
  if (json !== undefined)
    writeFileSync(json, `${JSON.stringify({ schema: 1, node: process.version, quick, seeds, results }, null, 2)}\n`);
}

function seedsFrom(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new InvalidArgumentError('Write a whole number from 1 to 999.');
  return Number(text);
}

const commandLine = (): Command =>
  new Command('npm run bench --')
    .description('Measures the kit beside fast-check alone, and beside itself on much memory. Ratios count.')
    .addArgument(new Argument('[name]', 'only this one').choices(BENCHES.map(({ name }) => name)))
    .option('--quick', 'a rough answer, soon', false)
    .addOption(new Option('--seeds <number>', 'seeds for each mutant (default: 5, or 1 if quick)').argParser(seedsFrom))
    .option('--json <file>', 'write the numbers there as well')
    .action(measure);

/** Compiles as the package is compiled, and runs that. */
function runCompiled(source: string): void {
  const here = dirname(source);
  const tsc = join(here, '../node_modules/typescript/bin/tsc');
  const compiled = join(here, '../node_modules/.cache/gmem-bench/bench/main.js');
  // Programs in C are compiled when they are needed, from beside the package's root.
  cpSync(join(here, '../agent'), join(compiled, '../../agent'), { recursive: true });
  for (const args of [
    [tsc, '-p', join(here, 'tsconfig.build.json')],
    [compiled, ...process.argv.slice(2)],
  ]) {
    const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
    process.exitCode = status ?? 1;
    if (process.exitCode !== 0) return;
  }
}

const [, script = ''] = process.argv;
if (!isMainThread) huntInThread();
else if (script.endsWith('.js')) await commandLine().parseAsync();
else runCompiled(script.endsWith('.ts') ? script : join(script, 'main.ts'));
