/** A file that holds what a run has come to, from which a run that was killed goes on. */
import { Option } from 'commander';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import type { Target } from '../adapters/adapter.ts';
import { printDivergences, type KnownDivergence } from '../conformance/divergences.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { excerpt } from '../conformance/excerpt.ts';
import { Progress } from '../conformance/progress.ts';
import { printShard, shareOf, type Shard } from '../conformance/shard.ts';
import { VERSION } from '../report/installation.ts';
import { fileTrouble, UsageError } from './errors.ts';
import type { Subject } from './options.ts';
import { assertReplaceable, replaceFile, warn } from './output.ts';

export const resumeOption = (): Option =>
  new Option('--resume <file>', 'keep there what the run has come to; where the file exists, go on from that');

const SCHEMA = 'gmem-conformance-checkpoint/1';

const Checkpoint = z.strictObject({
  schema: z.literal(SCHEMA),
  /** What must be the same for the rest of the run to be the rest of that run. */
  settings: z.record(z.string(), z.string()),
  progress: Progress,
});

type Settings = Readonly<Record<string, string>>;

/** What a run is asked to do, as far as the programs and what they come to depend on it. */
export interface Asked extends Subject {
  readonly seed: number;
  readonly runs: number;
  readonly shard?: Shard | undefined;
  readonly maxCommands: number;
  readonly divergences: readonly KnownDivergence[];
}

const settingsOf = ({ target, specification, divergences, ...asked }: Asked): Settings => ({
  version: VERSION,
  model: modelHash(),
  target: target.name,
  kernel: kernelOf(target),
  profile: specification.config.profile.id,
  capabilities: [...target.capabilities].sort().join(' ') || 'none',
  ...Object.fromEntries(Object.entries(target.machine).map(([name, value]) => [`machine.${name}`, String(value)])),
  seed: `${asked.seed}`,
  runs: asked.runs === Infinity ? 'without limit' : `${asked.runs}`,
  shard: asked.shard === undefined ? 'none' : printShard(asked.shard),
  'max-commands': `${asked.maxCommands}`,
  divergences: createHash('sha256').update(printDivergences(divergences)).digest('hex').slice(0, 12),
});

const kernelOf = ({ kernel }: Target): string => [kernel?.release, kernel?.backEnd].filter(Boolean).join(' ') || 'none';

/** The seed of the run that the file is of, where there is such a file. Throws a UsageError. */
export function seedIn(path: string | undefined): number | undefined {
  const seed = path === undefined ? undefined : read(path)?.settings['seed'];
  return seed === undefined ? undefined : Number(seed);
}

export interface Resumption {
  /** Undefined where the run begins here. */
  readonly resume: Progress | undefined;
  readonly onProgress: (progress: Progress) => void;
}

/** Throws a UsageError where the file is of another run, or cannot be written. */
export function resumption(path: string, asked: Asked): Resumption {
  assertReplaceable(path, path, 'name another file with --resume');
  const settings = settingsOf(asked);
  const saved = read(path);
  if (saved !== undefined) {
    assertSame(path, saved.settings, settings);
    assertWithin(path, saved.progress, asked);
  }
  return { resume: saved?.progress, onProgress: saver(path, settings) };
}

function read(path: string): z.infer<typeof Checkpoint> | undefined {
  if (!existsSync(path)) return undefined;
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const trouble = error instanceof SyntaxError ? 'it is not JSON' : fileTrouble(error);
    throw new UsageError(
      `cannot resume from '${path}': ${trouble}; name a file that \`run --resume\` has made, or a new one`,
    );
  }
  const { data, error } = Checkpoint.safeParse(content);
  if (data !== undefined) return data;
  const [issue] = error.issues;
  const field = (issue?.path ?? []).map(String).map(excerpt).join('.') || 'its content';
  throw new UsageError(
    `cannot resume from '${path}': ${field}: ${excerpt(issue?.message ?? '')}; name a file that \`run --resume\` has made, or a new one`,
  );
}

function assertSame(path: string, saved: Settings, settings: Settings): void {
  const name = [...Object.keys(settings), ...Object.keys(saved)].find((each) => saved[each] !== settings[each]);
  if (name === undefined) return;
  const [was = '', is = ''] = [saved[name], settings[name]].map((value) => excerpt(value ?? 'absent'));
  throw new UsageError(
    `'${path}' is of another run: ${excerpt(name)} was ${was}, and is ${is}; give the same options, or name a new file`,
  );
}

/** A file that was changed may tell of programs that the run has not. */
function assertWithin(path: string, { programs }: Progress, asked: Asked): void {
  const { runs } = asked.shard === undefined ? asked : shareOf(asked.shard, asked);
  if (programs > runs)
    throw new UsageError(
      `cannot resume from '${path}': it tells of ${programs} programs, and the run has ${runs}; name a new file`,
    );
}

/** A run goes on where the file cannot be written any more; what it has found is worth more than the file. */
function saver(path: string, settings: Settings): (progress: Progress) => void {
  let isFailing = false;
  return (progress) => {
    try {
      replaceFile(path, JSON.stringify({ schema: SCHEMA, settings, progress }));
      isFailing = false;
    } catch (error) {
      if (!isFailing)
        warn(`cannot write '${path}': ${fileTrouble(error)}; a run that is killed now goes on from earlier`);
      isFailing = true;
    }
  };
}
