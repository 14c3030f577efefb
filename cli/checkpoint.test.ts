import { afterAll, expect, test } from '@jest/globals';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { referenceTarget } from '../adapters/reference/reference.ts';
import type { Progress } from '../conformance/progress.ts';
import { resumption, type Asked } from './checkpoint.ts';
import { UsageError } from './errors.ts';
import { specify } from './options.ts';

const folder = mkdtempSync(join(tmpdir(), 'gmem-checkpoint-'));
afterAll(() => rmSync(folder, { recursive: true }));

const asked: Asked = {
  target: referenceTarget(),
  specification: specify('linux-7.3'),
  timeLimitMs: 1000,
  seed: 1,
  runs: 100,
  shard: { index: 1, count: 4 },
  maxCommands: 80,
  divergences: [],
};

const progress: Progress = {
  programs: 25,
  commands: 7,
  elapsedMs: 1,
  environment: 0,
  rules: {},
  checks: {},
  shown: [],
  unmodelled: {},
  known: {},
  lost: { programs: 0, inARow: 0 },
};

test('a run goes on from what it has told, and from no more programs than it has', () => {
  const file = join(folder, 'kept.json');
  resumption(file, asked).onProgress(progress);
  expect(resumption(file, asked).resume).toEqual(progress);
  writeFileSync(file, readFileSync(file, 'utf8').replace('"programs":25', '"programs":26'));
  expect(() => resumption(file, asked)).toThrow(
    new UsageError(`cannot resume from '${file}': it tells of 26 programs, and the run has 25; name a new file`),
  );
});
