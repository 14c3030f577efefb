/** Shapes of text that several reports share. */
export const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

const LABEL_WIDTH = 12;
export const field = (label: string, value: string): string => `${label.padEnd(LABEL_WIDTH)}${value}`;

export type Row = readonly [name: string, text: string];

/** Names with explanations beside them, indented, the explanations aligned. */
export function aligned(rows: readonly Row[]): readonly string[] {
  const width = Math.max(0, ...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`.trimEnd());
}

/** The rows under a title, or nothing where there are none. */
export const group = (title: string, rows: readonly Row[]): readonly string[] =>
  rows.length === 0 ? [] : [title, ...aligned(rows)];

/** The word as a POSIX shell reads it back. */
export const shellWord = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
