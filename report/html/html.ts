/** Text with markup, put together so that whatever is inserted stays text. */

/** Markup that is known to be well-formed: what `html` made, or a constant of ours. */
export class Html {
  readonly markup: string;

  constructor(markup: string) {
    this.markup = markup;
  }
}

export type Content = Html | string | number | undefined | readonly Content[];

/** A template whose values are escaped, in elements and in quoted attributes; arrays are joined, undefined is nothing. */
export const html = (strings: TemplateStringsArray, ...values: readonly Content[]): Html =>
  new Html(strings.reduce((before, after, index) => `${before}${markupOf(values[index - 1])}${after}`));

function markupOf(content: Content): string {
  if (content === undefined) return '';
  if (content instanceof Html) return content.markup;
  if (typeof content === 'string') return escape(visible(content));
  return typeof content === 'number' ? `${content}` : content.map(markupOf).join('');
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');

/** Characters that cannot be seen, some of which turn the reading direction of what follows, by their numbers. */
export const visible = (text: string): string =>
  text.replace(/[^\P{C}\n\t]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);

/** JSON that a parser of HTML finds nothing in, not even the end of the script element that it stands in. */
export const jsonForScript = (value: unknown): Html =>
  new Html(JSON.stringify(value).replace(/[<\p{C}]/gu, (character) => character.split('').map(escapedUnit).join('')));

const escapedUnit = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
