/** Pieces of Markdown, as GitHub reads it. */
import { oneLine, printable } from './text.ts';

/** Cells are Markdown, but for the bars and ends of lines that would end a cell. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return [line(heading), line(heading.map(() => '---')), ...rows.map(line)].join('\n');
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

export const code = (text: string): string => `\`${text}\``;

/** Text from elsewhere, in one line, of which nothing is read as Markdown or HTML. An underscore in a word is none. */
export const plain = (text: string): string =>
  oneLine(text).replace(/[\\`*[\]<>&~$#]|(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu, '\\$&');

/** Text from elsewhere, with lines and blanks as they are. */
export function fenced(text: string): string {
  const longest = Math.max(0, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(Math.max(3, longest + 1));
  return `${fence}text\n${printable(text)}\n${fence}`;
}
