/**
 * A program with what was expected and observed beside each command. The text is itself a program: everything that is
 * not a command is a comment, so it can be saved and replayed.
 */
import type { Colors } from './colors.ts';

export interface WitnessLine {
  readonly command: string;
  /** Undefined where the command was not run. */
  readonly ran?: { readonly rule: string; readonly expected: string; readonly observed: string } | undefined;
}

export interface WitnessOptions {
  readonly colors: Colors;
  /** Index of the command at which expectation and observation part. */
  readonly at?: number;
  /** Whether to name the rule that decided each command. */
  readonly rules?: boolean;
}

const MARK = '<-- here';

export function printWitness(lines: readonly WitnessLine[], { colors, at, rules = false }: WitnessOptions): string {
  const cells = lines.map(({ command, ran }) => [
    command,
    ...(rules ? [ran?.rule ?? ''] : []),
    ran?.expected ?? 'not run',
    ran?.observed ?? '',
  ]);
  const heading = ['# command', ...(rules ? ['rule'] : []), 'expected', 'observed'];
  const widths = heading.map((title, column) =>
    Math.max(title.length, ...cells.map((row) => (row[column] ?? '').length)),
  );
  const align = (row: readonly string[], separator: string): string => {
    const [command = '', ...rest] = row.map((cell, column) => cell.padEnd(widths[column] ?? 0));
    return `${command}  ${separator} ${rest.join('  ')}`;
  };
  const body = cells.map((row, index) => {
    const line = align(row, '#');
    return index === at ? colors.red(`${line}  ${MARK}`) : line.trimEnd();
  });
  return [colors.dim(align(heading, ' ').trimEnd()), ...body].join('\n');
}
