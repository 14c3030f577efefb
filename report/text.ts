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

/**
 * The text with everything made visible that steers a terminal, ends a line, turns the direction of writing or is no
 * character at all. XML, for one, has no way to write some of these.
 */
export const printable = (text: string): string =>
  text.replace(
    /(?![\n\t])[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Noncharacter_Code_Point}]/gu,
    (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`,
  );

/** The text where a format has room for one line. */
export const oneLine = (text: string): string => printable(text).replace(/\s+/g, ' ').trim();
