import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseFragment, type DefaultTreeAdapterMap } from 'parse5';
import { html, jsonForScript, visible } from './html.ts';

type Element = DefaultTreeAdapterMap['element'];

const parsed = (markup: string): Element => parseFragment(markup).childNodes[0] as Element;
const textOf = (element: Element): string =>
  element.childNodes.map((node) => ('value' in node ? node.value : '')).join('');

/** Text with what could be taken for markup in it. */
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom('<', '>', '&', '"', "'", '</p>', '</script>', '<!--', '-->', ']]>', '&lt;', '&#0;', '${', '`'),
      fc.string({ unit: 'binary' }),
    ),
  )
  .map((parts) => parts.join(''));

describe('a template', () => {
  test('shows text as it is, whatever it holds', () => {
    fc.assert(
      fc.property(hostile, (text) => {
        expect(textOf(parsed(html`<p>${text}</p>`.markup))).toBe(visible(text));
      }),
    );
  });

  test('keeps text within a quoted attribute', () => {
    fc.assert(
      fc.property(hostile, (text) => {
        expect(parsed(html`<p title="${text}"></p>`.markup).attrs).toEqual([{ name: 'title', value: visible(text) }]);
      }),
    );
  });

  test('takes markup, numbers, lists and nothing', () => {
    expect(html`<p>${html`<b>1</b>`}${2}${['<', html`<i></i>`]}${undefined}</p>`.markup).toBe(
      '<p><b>1</b>2&lt;<i></i></p>',
    );
  });
});

test('characters that cannot be seen are shown by their numbers', () => {
  const unseen = [0x202e, 0, 0xd800, 0xe0041, 0xd].map((code) => String.fromCodePoint(code));
  expect(visible(unseen.join('a'))).toBe('\\u{202e}a\\u{0}a\\u{d800}a\\u{e0041}a\\u{d}');
  expect(visible('line\n\tnext – ≠ 语 😀')).toBe('line\n\tnext – ≠ 语 😀');
});

test('JSON in a script element ends where it ends', () => {
  fc.assert(
    fc.property(fc.dictionary(hostile, hostile), (value) => {
      const script = parsed(`<script>${jsonForScript(value).markup}</script>`);
      expect(JSON.parse(textOf(script))).toEqual(JSON.parse(JSON.stringify(value)));
    }),
  );
});
