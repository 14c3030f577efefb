/** The file of known divergences of a target: where it is, how it is read, and how a run writes it. */
import { Option } from 'commander';
import _ from 'lodash';
import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { Target } from '../adapters/adapter.ts';
import {
  DivergenceError,
  parseDivergences,
  printDivergences,
  type KnownDivergence,
} from '../conformance/divergences.ts';
import type { Checking } from '../conformance/check.ts';
import { Known, revised, type KnownResult, type KnownStatus } from '../conformance/known.ts';
import { ROOT } from '../report/installation.ts';
import { fileTrouble, UsageError } from './errors.ts';
import { assertReplaceable, replaceFile } from './output.ts';

export interface DivergenceOptions {
  /** A file, or false for none; by default that of the target's family. */
  readonly divergences?: string | false;
  readonly updateDivergences?: boolean;
}

export const divergencesOption = (): Option =>
  new Option('--divergences <file>', "known divergences (default: those of the target's family, if it has any)");

export const noDivergencesOption = (): Option => new Option('--no-divergences', 'heed no known divergences');

export const updateDivergencesOption = (): Option =>
  new Option('--update-divergences', 'go on behind what is not known, and write to the file what was found');

export interface DivergenceFile {
  /** As messages name it. */
  readonly name: string;
  readonly path: string;
  readonly entries: readonly KnownDivergence[];
}

const FOLDER = join(ROOT, 'divergences');

/** What is known of the target, or undefined where no file is about it. Throws a UsageError. */
export function loadDivergences(
  { name, family }: Target,
  { divergences, updateDivergences: update = false }: DivergenceOptions,
): DivergenceFile | undefined {
  const path = pathOf(family, divergences);
  if (path === undefined) {
    if (!update) return undefined;
    throw new UsageError(
      divergences === false
        ? '--update-divergences writes a file, and --no-divergences says that there is none: give one of them'
        : `target '${name}' belongs to no family with known divergences: name a file with --divergences`,
    );
  }
  const shown = divergences === undefined ? relative(process.cwd(), path) : path;
  if (update) assertReplaceable(path, shown, 'name another file with --divergences');
  return { name: shown, path, entries: parsed(readText(path, shown, update), shown) };
}

function pathOf(family: string | undefined, divergences: string | false | undefined): string | undefined {
  if (divergences !== undefined) return divergences === false ? undefined : divergences;
  return family === undefined ? undefined : join(FOLDER, `${family}.json`);
}

function readText(path: string, shown: string, mayBeMissing: boolean): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (mayBeMissing && (error as NodeJS.ErrnoException).code === 'ENOENT') return '[]';
    throw new UsageError(
      `cannot read '${shown}': ${fileTrouble(error)}; name a file of known divergences, or none with --no-divergences`,
    );
  }
}

function parsed(json: string, shown: string): readonly KnownDivergence[] {
  try {
    return parseDivergences(json, shown);
  } catch (error) {
    throw error instanceof DivergenceError ? new UsageError(error.message) : error;
  }
}

/** What is known of the target, for who has a divergence of it: asking runs the witness of every entry, once. */
export const knownOn = (checking: Checking, divergences: readonly KnownDivergence[]): (() => Promise<Known>) =>
  _.once(async () => {
    const known = new Known(checking, { divergences });
    await known.examine();
    return known;
  });

const DONE: Partial<Record<KnownStatus, string>> = { stale: 'removed', changed: 'corrected', new: 'added' };

/** Writes what a run found out to the file, and says what that was. */
export function updateDivergences({ name, path }: DivergenceFile, known: readonly KnownResult[]): string {
  const changes = known.flatMap(({ entry: { id }, status }) => (DONE[status] ? [`${DONE[status]} ${id}`] : []));
  if (changes.length === 0) return `${name} is as it should be`;
  const text = printDivergences(revised(known));
  try {
    replaceFile(path, text);
  } catch (error) {
    throw new UsageError(`cannot write '${name}': ${fileTrouble(error)}; it was to hold\n${text}`);
  }
  return `${name}: ${changes.join(', ')}`;
}
