/** Tables for a terminal. */
import Table from 'cli-table3';
import type { Rule } from '../model/core/specification.ts';
import { aligned, type Row } from './text.ts';

/** A table whose columns are told apart by two blanks alone. */
export const NO_LINES = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/** `widths` limits columns, whose text then wraps; a column without a width is as wide as it must be. */
export function printTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  widths: readonly (number | undefined)[] = [],
): string {
  const table = new Table({
    head: [...head],
    colWidths: head.map((_title, column) => widths[column] ?? null),
    wordWrap: true,
    chars: NO_LINES,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  table.push(...rows.map((row) => [...row]));
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Rules as a table that fits the width where it can. */
export function printRules(rules: readonly Rule[], width: number): string {
  const names = Math.max(0, ...rules.map(({ id }) => id.length));
  const shared = Math.max(width - names - 8, 60);
  const [result, when, source] = [0.22, 0.43, 0.35].map((part) => Math.floor(shared * part));
  return printTable(
    ['rule', 'when', 'result', 'source'],
    rules.map((rule) => [
      rule.id,
      rule.condition === '' ? rule.when : `${rule.when} (${rule.condition})`,
      rule.kind === 'unmodelled' ? `unmodelled: ${rule.result}` : rule.result,
      rule.source,
    ]),
    [undefined, when, result, source],
  );
}

export interface TargetLine {
  readonly name: string;
  readonly summary: string;
  /** What it is on this machine. */
  readonly about?: string;
  /** Why it cannot be tested here, where that is so. */
  readonly unavailable?: string;
  /** What it cannot do, with the reason. */
  readonly missing: readonly Row[];
}

export const printTargets = (targets: readonly TargetLine[]): string =>
  targets
    .flatMap(({ name, summary, about, unavailable, missing }) => [
      `${name}  ${summary}`,
      ...(about === undefined ? [] : [`  here: ${about}`]),
      ...(unavailable === undefined ? [] : [`  not available: ${unavailable}`]),
      ...(missing.length === 0 ? [] : ['  without:', ...aligned(missing)]),
    ])
    .join('\n');
