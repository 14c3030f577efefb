/** What a target says, and whatever else a report quotes, changes the form of no file that is written from it. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import _ from 'lodash';
import { testsOf, type Case, type CaseStatus } from '../report/cases.ts';
import { printGithub } from '../report/github.ts';
import { Report } from '../report/json.ts';
import { printJunit } from '../report/junit.ts';
import { printKtap } from '../report/ktap.ts';
import { printMarkdown } from '../report/markdown.ts';
import { SCENARIOS_SCHEMA, testsOfScenarios, type ScenariosReport } from '../report/scenario.ts';
import { oneLine, printable } from '../report/text.ts';
import { junitErrors, readGithub, readJunit, readKtap, readMarkdown } from './format-readers.ts';
import { SAMPLE } from './sample-report.ts';

/** What means something in one of the formats, or in a terminal. */
const SIGNS = [
  ...['<', '>', '&', '"', "'", ']]>', '<!--', '&#0;', 'true', '<b>'],
  ...['#', ' # SKIP', 'ok 1 ', 'not ok 1', '1..2', '  KTAP version 1', '# Subtest: x', 'Bail out!', 'ERROR'],
  ...['::error::', '%', '%0A', ',', ':', '::', 'title='],
  ...['|', '`', '\n```\n', '~~~', '*', '_', '__', '[x](y)', '![', '\\', '\\|', '- ', '1. ', '---', '$', '<br>', 'a_b'],
  ...['\n', '\r', '\r\n', '\t', ' ', '\u0000', '\u001b[2J', '\u0085', '\u2028', '\u202e', '\ud800', '\uffff', '𝒳'],
];
const hostile = fc.oneof(
  fc.array(fc.constantFrom(...SIGNS), { maxLength: 6 }).map((parts) => parts.join('')),
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.array(fc.nat(0xffff), { maxLength: 8 }).map((units) => String.fromCharCode(...units)),
);

/** Where the schema leaves no choice. */
const FIXED = new Set(['schema', 'verdict', 'kind', 'status']);

function textsOf(value: unknown): readonly string[] {
  if (typeof value === 'string') return [value];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, each]) => (FIXED.has(key) ? [] : textsOf(each)));
}

/** Equal texts stay equal, so that what names a rule goes on naming it. */
const replaced = (report: Report, texts: ReadonlyMap<string, string>): Report =>
  JSON.parse(JSON.stringify(report), (key, value: unknown) =>
    typeof value === 'string' && !FIXED.has(key) ? (texts.get(value) ?? value) : value,
  ) as Report;

const TEXTS = _.uniq(textsOf(SAMPLE));
const reports = fc
  .array(hostile, { minLength: TEXTS.length, maxLength: TEXTS.length })
  .map((texts) => replaced(SAMPLE, new Map(_.zip(TEXTS, texts) as [string, string][])));

const casesOf = (report: Report): readonly Case[] => testsOf(report).suites.flatMap(({ cases }) => cases);
const countOf = (cases: readonly Case[], ...statuses: readonly CaseStatus[]): number =>
  cases.filter(({ status }) => statuses.includes(status)).length;

test('the sample is a report, and has cases of every status', () => {
  expect(Report.parse(SAMPLE)).toEqual(SAMPLE);
  expect(_.countBy(casesOf(SAMPLE), 'status')).toEqual({ passed: 4, failed: 5, error: 2, known: 2, skipped: 6 });
});

describe('JUnit', () => {
  test('is valid', async () => {
    expect(await junitErrors([printJunit(testsOf(SAMPLE))])).toEqual([]);
    expect(await junitErrors([printJunit(testsOf(SAMPLE)).replace(' tests=', ' count=')])).not.toEqual([]);
    const property = fc.asyncProperty(fc.array(reports, { minLength: 1, maxLength: 20 }), async (many) => {
      expect(await junitErrors(many.map((report) => printJunit(testsOf(report))))).toEqual([]);
    });
    // To shrink takes minutes here; the next test shrinks most of what can be wrong.
    await fc.assert(property, { numRuns: 5, endOnFailure: true });
  });

  const RESULTS = { passed: 'passed', failed: 'failure', error: 'error', skipped: 'skipped', known: 'skipped' };

  test('says of every case what came of it, and counts them', () => {
    const property = fc.property(reports, (report) => {
      const read = readJunit(printJunit(testsOf(report)));
      const written = testsOf(report).suites;
      expect(read.map(({ name }) => name)).toEqual(written.map(({ name }) => oneLine(name)));
      read.forEach((suite, index) => {
        const { cases } = written[index] ?? { cases: [] };
        expect(suite).toMatchObject({
          tests: cases.length,
          failures: countOf(cases, 'failed'),
          errors: countOf(cases, 'error'),
          skipped: countOf(cases, 'skipped', 'known'),
        });
        expect(suite.cases.map(({ name, result }) => [name, result])).toEqual(
          cases.map(({ name, status }) => [oneLine(name), RESULTS[status]]),
        );
        suite.cases.forEach(({ message, text }, at) => {
          const { status, summary, detail } = cases[at] as Case;
          expect(message).toContain(status === 'passed' ? '' : oneLine(summary));
          expect(text).toBe(printable(status === 'passed' ? `${summary}\n${detail}` : detail).trim());
        });
      });
    });
    fc.assert(property);
  });
});

describe('KTAP', () => {
  const RESULTS = {
    passed: 'ok',
    failed: 'not ok',
    error: 'not ok ERROR',
    skipped: 'ok SKIP',
    known: 'ok XFAIL',
  };
  const withoutHash = (text: string): string => oneLine(text).replaceAll('#', '\\u{23}');

  test('is read by its rules, and says of every case what came of it', () => {
    const property = fc.property(reports, (report) => {
      const read = readKtap(printKtap(testsOf(report)));
      const written = testsOf(report).suites;
      expect(read.map(({ name }) => name)).toEqual(written.map(({ name }) => withoutHash(name)));
      expect(read.map(({ subtests }) => subtests.map(({ name, result, message }) => [name, result, message]))).toEqual(
        written.map(({ cases }) =>
          cases.map(({ name, status, summary }) => [withoutHash(name), RESULTS[status], withoutHash(summary)]),
        ),
      );
      const texts = read.flatMap(({ subtests }) => subtests.map(({ text }) => text));
      const lines = (text: string): readonly string[] => text.split('\n').map((line) => line.trimEnd());
      expect(texts.map(lines)).toEqual(casesOf(report).map(({ detail }) => lines(printable(detail))));
    });
    fc.assert(property);
  });

  test('ends with the totals, as kselftest does', () => {
    expect(printKtap(testsOf(SAMPLE))).toMatch(/\n# Totals: pass:4 fail:5 xfail:2 xpass:0 skip:6 error:2\n$/);
  });
});

describe('annotations of GitHub', () => {
  test('are one for each case that failed, and one that sums up', () => {
    const property = fc.property(reports, (report) => {
      const read = readGithub(printGithub(testsOf(report)));
      const wrong = casesOf(report).filter(({ status }) => status === 'failed' || status === 'error');
      expect(read.filter(({ level }) => level === 'error')).toEqual(
        wrong.map(({ name, summary, detail }) => ({
          level: 'error',
          title: oneLine(`gmem-conformance: ${name}`),
          message: printable(detail === '' ? summary : `${summary}\n\n${detail}`),
        })),
      );
      const [last, ...others] = read.filter(({ level }) => level === 'notice');
      expect(others).toEqual([]);
      for (const [, value] of testsOf(report).summary) expect(last?.message).toContain(printable(value));
    });
    fc.assert(property);
  });

  test('warn of known divergences that nobody has explained', () => {
    expect(readGithub(printGithub(testsOf(SAMPLE))).filter(({ level }) => level === 'warning')).toEqual([
      { level: 'warning', title: 'gmem-conformance: other', message: 'nobody has explained it\nobserved ok' },
    ]);
  });
});

describe('Markdown', () => {
  test('is headings, tables and blocks, and no text of a report is more than text', () => {
    const property = fc.property(reports, (report) => {
      const { headings, tables, blocks } = readMarkdown(printMarkdown(testsOf(report)));
      const suites = testsOf(report).suites;
      const failed = casesOf(report).filter(({ status }) => status === 'failed');
      expect(blocks).toEqual(failed.map(({ detail }) => `${printable(detail)}\n`));
      expect(headings.slice(1, 1 + failed.length)).toEqual(failed.map(({ name }) => `Failed: ${oneLine(name)}`.trim()));
      expect(tables[0]).toEqual(testsOf(report).summary.map((cells) => cells.map(oneLine)));
      expect(tables.slice(1, 1 + suites.length)).toEqual(
        suites.map(({ cases }) => cases.map(({ name, status, summary }) => [oneLine(name), status, oneLine(summary)])),
      );
      expect(tables).toHaveLength(1 + suites.length + 2);
    });
    fc.assert(property);
  });
});

test('scenarios are tests in each format as well', async () => {
  const [failure] = SAMPLE.failures;
  const verdicts = ['conforms', 'diverges', 'known', 'inconclusive', 'skipped'] as const;
  const report: ScenariosReport = {
    schema: SCENARIOS_SCHEMA,
    ..._.pick(SAMPLE, 'version', 'modelHash', 'target'),
    verdict: 'diverges',
    scenarios: verdicts.map((verdict) => ({
      name: `one-that-${verdict}`,
      title: 'SKIP is no word for a title.',
      profile: 'linux-7.3',
      verdict,
      durationMs: 7,
      ...(verdict === 'diverges' ? { failure } : {}),
      ...(verdict === 'conforms' ? {} : { reason: `why it ${verdict}` }),
    })),
  };
  const tests = testsOfScenarios(report, () => SAMPLE);
  expect(await junitErrors([printJunit(tests)])).toEqual([]);
  const names = verdicts.map((verdict) => `one-that-${verdict}`);
  expect(readJunit(printJunit(tests))[0]?.cases.map(({ name, result }) => [name, result])).toEqual(
    _.zip(names, ['passed', 'failure', 'skipped', 'error', 'skipped']),
  );
  expect(readKtap(printKtap(tests))[0]?.subtests.map(({ name, result }) => [name, result])).toEqual(
    _.zip(names, ['ok', 'not ok', 'ok XFAIL', 'not ok ERROR', 'ok SKIP']),
  );
  expect(readGithub(printGithub(tests)).map(({ level }) => level)).toEqual(['error', 'error', 'notice']);
  const { headings, blocks } = readMarkdown(printMarkdown(tests));
  expect(headings).toEqual(['gmem-conformance: diverges', 'Failed: one-that-diverges', 'Scenarios']);
  expect(blocks[0]).toContain(`replay ${failure?.token ?? ''}`);
});
