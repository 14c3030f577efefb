/** Tables and numbers as people read them. */
import Table from 'cli-table3';
import { NO_LINES } from '../report/tables.ts';

const PLAIN = {
  chars: NO_LINES,
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
};

/** The first column holds names, the others numbers. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const colAligns = head.map((_title, index) => (index === 0 ? ('left' as const) : ('right' as const)));
  const table = new Table({ ...PLAIN, head: [...head], colAligns });
  for (const row of rows) table.push([...row]);
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

export const count = (value: number): string => Math.round(value).toLocaleString('en-US');

/** Three digits that count: `0.98`, `12.3`, `1,240`. */
export const ratio = (value: number): string => (value >= 100 ? count(value) : value.toFixed(value >= 10 ? 1 : 2));

export const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** One line on standard error that the next one replaces, where that is a terminal. */
export const showProgress = (text: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
};
