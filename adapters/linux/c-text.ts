/** Text that becomes C: comments, strings, numbers, and lines in the style of the kernel. */
import type { Names } from './calls.ts';

const TAB = 8;
const MOST_NAMES = 2;
export const COLUMNS = 100;

/** Nothing in it ends the comment, begins another or steers a terminal. */
export const commented = (text: string): string =>
  text
    .replace(/(?!\t)\p{Cc}/gu, '?')
    .replace(/\?(?=\?\/)/g, '? ')
    .replace(/\*(?=\/)/g, '* ')
    .replace(/\/(?=\*)/g, '/ ');

/** A comment of its own, with lines as given. */
export const blockComment = (lines: readonly string[]): string =>
  ['/*', ...lines.map((line) => ` *${line.startsWith('\t') ? '' : ' '}${commented(line)}`.trimEnd()), ' */'].join('\n');

const ESCAPES: Readonly<Record<string, string>> = { '"': '\\"', '\\': '\\\\', '\n': '\\n', '\t': '\\t' };

export const quoted = (text: string): string =>
  `"${text
    .replace(/["\\\n\t]/g, (character) => ESCAPES[character] ?? character)
    .replace(/\?(?=\?)/g, '\\?')
    .replace(/\p{Cc}/gu, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`)}"`;

/** A name for a variable: never a keyword or a function, because it ends in a digit or an underscore. */
export function identifier(label: string, taken: ReadonlySet<string>): string {
  let name = label.replace(/[^A-Za-z0-9_]/g, '_');
  if (!/^[a-z]+[0-9]+(_run)?$/.test(name)) name += '_';
  while (taken.has(name)) name += '_';
  return name;
}

/** Small numbers are counted, all others are addresses, sizes or bits. */
export const number = (value: bigint): string => {
  if (value < 0n) return `-${number(-value)}`;
  return value < 10n ? `${value}` : `0x${value.toString(16)}`;
};

/** `A | B | 0x100`, as far as there are names. */
export function withNames(value: bigint, { of, names }: Names): string {
  if (of === 'values') return Object.entries(names).find(([, each]) => each === value)?.[0] ?? number(value);
  const set = Object.entries(names).filter(([, bit]) => (value & bit) !== 0n);
  const rest = set.reduce((left, [, bit]) => left & ~bit, value);
  // A number that names do not explain is one that came by chance.
  if (rest !== 0n && set.length > MOST_NAMES) return number(value);
  return [...set.map(([name]) => name), ...(rest === 0n && set.length > 0 ? [] : [number(rest)])].join(' | ');
}

const width = (line: string): number =>
  Array.from(line).reduce((at, character) => (character === '\t' ? at + TAB - (at % TAB) : at + 1), 0);

const indentation = (columns: number): string => '\t'.repeat(Math.floor(columns / TAB)) + ' '.repeat(columns % TAB);

/** `text(part, part)` after a tab, over as many lines as it takes, aligned with the opening parenthesis. */
export function call(before: string, parts: readonly string[], after = ');'): string {
  const lines = [`\t${before}(`];
  const margin = indentation(width(lines[0] ?? ''));
  parts.forEach((part, index) => {
    const text = part + (index < parts.length - 1 ? ',' : after);
    const line = lines[lines.length - 1] ?? '';
    const joined = index === 0 ? line + text : `${line} ${text}`;
    if (index === 0 || width(joined) <= COLUMNS) lines[lines.length - 1] = joined;
    else lines.push(margin + text);
  });
  return lines.join('\n');
}

/** A string that may be longer than a line: C joins literals that follow one another. */
export function longString(before: string, text: string, after = ');'): string {
  const margin = indentation(width(`\t${before}(`));
  const room = COLUMNS - width(margin) - 4 - after.length;
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/(?<= )/)) {
    if (line !== '' && line.length + word.trimEnd().length > room) {
      lines.push(line);
      line = '';
    }
    line += word;
  }
  return `\t${before}(${[...lines, line].map(quoted).join(`\n${margin}`)}${after}`;
}

/** A field of a structure in an initializer, with its comma. */
export const fieldLine = (name: string, value: string): string =>
  name === 'reserved' ? `\t\t.reserved = { ${value} },` : `\t\t.${name} = ${value},`;
