/** Strict readers of the formats that a report is written in; each throws at the first thing that the format forbids. */
import { DOMParser } from '@xmldom/xmldom';
import MarkdownIt from 'markdown-it';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { validateXML } from 'xmllint-wasm';

export interface ReadCase {
  readonly name: string;
  readonly result: string;
  readonly message: string;
  /** What else stands there. */
  readonly text: string;
}

export interface ReadSuite {
  readonly name: string;
  readonly cases: readonly ReadCase[];
}

const XSD = readFileSync(join(__dirname, 'junit.xsd'), 'utf8');

/** What is wrong with the documents, by line; they are checked at once, because the checker takes long to start. */
export async function junitErrors(documents: readonly string[]): Promise<readonly string[]> {
  const xml = documents.map((contents, index) => ({ fileName: `${index}.xml`, contents }));
  const { errors } = await validateXML({ xml, schema: XSD });
  return errors.map(({ rawMessage }) => rawMessage);
}

interface Counted extends ReadSuite {
  readonly tests: number;
  readonly failures: number;
  readonly errors: number;
  readonly skipped: number;
}

export function readJunit(text: string): readonly Counted[] {
  const onError = (level: string, message: string): void => {
    // A warning is about what is allowed, such as U+FFFD.
    if (level !== 'warning') throw new Error(message);
  };
  const document = new DOMParser({ onError }).parseFromString(text, 'text/xml');
  return [...document.getElementsByTagName('testsuite')].map((suite) => {
    const count = (name: string): number => Number(suite.getAttribute(name));
    return {
      name: suite.getAttribute('name') ?? '',
      tests: count('tests'),
      failures: count('failures'),
      errors: count('errors'),
      skipped: count('skipped'),
      cases: [...suite.getElementsByTagName('testcase')].map((each) => {
        const result = ['failure', 'error', 'skipped'].find((name) => each.getElementsByTagName(name).length > 0);
        const element = result === undefined ? null : each.getElementsByTagName(result)[0];
        return {
          name: each.getAttribute('name') ?? '',
          result: result ?? 'passed',
          message: element?.getAttribute('message') ?? '',
          text: [...each.childNodes].map(({ textContent }) => (textContent ?? '').trim()).join(''),
        };
      }),
    };
  });
}

const RESULT = /^(ok|not ok) (\d+)(?: ([^#\n]*?))?(?: # (?:(SKIP|XFAIL|ERROR)(?: |$))?([^#\n]*))?$/;

interface KtapTest extends ReadCase {
  readonly subtests: readonly KtapTest[];
}

/** Documentation/dev-tools/ktap.rst of the kernel, and no line but those that it names. */
export function readKtap(text: string): readonly KtapTest[] {
  if (!text.endsWith('\n')) throw new Error('the last line does not end');
  const lines = text.slice(0, -1).split('\n');
  const tests = readTests(lines, '');
  if (readDiagnostics(lines, '').length === 0 || lines.length > 0) throw new Error(`left over: ${lines.join('\n')}`);
  return tests;
}

function readTests(lines: string[], margin: string): readonly KtapTest[] {
  if (lines.shift() !== `${margin}KTAP version 1`) throw new Error('no version line');
  const [, count] = new RegExp(`^${margin}1\\.\\.(\\d+)$`).exec(lines.shift() ?? '') ?? [];
  if (count === undefined) throw new Error('no plan');
  return Array.from({ length: Number(count) }, (_each, index) => readTest(lines, margin, index + 1));
}

function readTest(lines: string[], margin: string, expected: number): KtapTest {
  const before = readDiagnostics(lines, margin);
  const deeper = `${margin}  `;
  const subtests = lines[0] === `${deeper}KTAP version 1` ? readTests(lines, deeper) : [];
  const line = lines.shift() ?? '';
  const [, result, number, name = '', directive, message = ''] = RESULT.exec(line.slice(margin.length)) ?? [];
  if (result === undefined || !line.startsWith(margin)) throw new Error(`no result: ${line}`);
  if (Number(number) !== expected) throw new Error(`not number ${expected}: ${line}`);
  if (directive === 'ERROR' && result === 'ok') throw new Error(`an error is ok: ${line}`);
  const failed = subtests.some((each) => each.result.startsWith('not ok'));
  if (subtests.length > 0 && failed !== (result === 'not ok')) throw new Error(`not what its subtests say: ${line}`);
  return {
    name,
    result: directive === undefined ? result : `${result} ${directive}`,
    message,
    text: before.join('\n'),
    subtests,
  };
}

function readDiagnostics(lines: string[], margin: string): readonly string[] {
  const read: string[] = [];
  while (lines[0]?.startsWith(`${margin}#`) === true) read.push((lines.shift() ?? '').slice(margin.length + 3));
  return read;
}

export interface Annotation {
  readonly level: string;
  readonly title: string;
  readonly message: string;
}

/** Undone as the runner of GitHub Actions does it: in data %0A, %0D and %25, in a property %3A and %2C as well. */
export function readGithub(text: string): readonly Annotation[] {
  if (!text.endsWith('\n')) throw new Error('the last line does not end');
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => {
      const [, level, title, message] = /^::(error|warning|notice) title=([^:,\r]*)::([^\r]*)$/.exec(line) ?? [];
      if (level === undefined || title === undefined || message === undefined)
        throw new Error(`no workflow command: ${line}`);
      return { level, title: decode(title, /%(25|0A|0D|3A|2C)/g), message: decode(message, /%(25|0A|0D)/g) };
    });
}

const decode = (text: string, escapes: RegExp): string =>
  text.replace(escapes, (_escape, digits: string) => String.fromCharCode(parseInt(digits, 16)));

export interface Page {
  readonly headings: readonly string[];
  /** Rows behind the heading. */
  readonly tables: readonly (readonly (readonly string[])[])[];
  readonly blocks: readonly string[];
}

/** Throws where there is anything but headings, tables, sentences, emphasis and fenced blocks. */
export function readMarkdown(text: string): Page {
  const headings: string[] = [];
  const tables: string[][][] = [];
  const blocks: string[] = [];
  let inside = '';
  for (const { type, content, children } of new MarkdownIt({ html: true }).parse(text, {})) {
    if (!/^((heading|table|thead|tbody|tr|th|td|paragraph)_(open|close)|inline|fence)$/.test(type))
      throw new Error(`unexpected ${type}: ${content}`);
    if (type === 'fence') blocks.push(content);
    if (type === 'table_open') tables.push([]);
    if (type === 'tr_open') tables.at(-1)?.push([]);
    if (type.endsWith('_open')) inside = type;
    if (type !== 'inline') continue;
    const words = (children ?? []).map((child) => {
      if (!/^(text|strong_open|strong_close)$/.test(child.type))
        throw new Error(`unexpected ${child.type}: ${content}`);
      return child.content;
    });
    if (inside === 'heading_open') headings.push(words.join(''));
    if (inside === 'td_open' || inside === 'th_open') tables.at(-1)?.at(-1)?.push(words.join(''));
  }
  return { headings, tables: tables.map((rows) => rows.slice(1)), blocks };
}
