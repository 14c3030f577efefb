/** `npm run bench`: measurements side by side, in one process. Nothing is asserted. */
import { Argument, Command, Option } from 'commander';
import { writeFileSync } from 'node:fs';
import type { Bench } from './bench.ts';
import { KILLS } from './kills.ts';
import { say } from './print.ts';
import { SHRINK } from './shrink.ts';
import { SIZE } from './size.ts';
import { THROUGHPUT } from './throughput.ts';

const BENCHES: readonly Bench[] = [THROUGHPUT, KILLS, SIZE, SHRINK];

interface Options {
  readonly quick: boolean;
  readonly seeds?: number;
  readonly json?: string;
}

async function main(name: string | undefined, { quick, seeds = quick ? 1 : 5, json }: Options): Promise<void> {
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

await new Command('npm run bench --')
  .description('Measures the kit side by side with fast-check alone, and itself on large memory. Ratios count.')
  .addArgument(new Argument('[name]', 'only this one').choices(BENCHES.map(({ name }) => name)))
  .option('--quick', 'a rough answer, soon', false)
  .addOption(
    new Option('--seeds <number>', 'seeds for each mutant (default: 5, with --quick 1)').argParser((text) =>
      Math.max(1, Math.trunc(Number(text)) || 1),
    ),
  )
  .option('--json <file>', 'write the numbers there as well')
  .action(main)
  .parseAsync();
