/**
 * JUnit XML, in the dialect that the XSD of Jenkins allows and other CI systems read: no attribute or element that one of
 * them is known to refuse.
 */
import _ from 'lodash';
import XMLBuilder from 'fast-xml-builder';
import { match } from 'ts-pattern';
import { suitesOf, summaryOf, type Case, type Suite } from './cases.ts';
import type { Report } from './json.ts';
import { countsOf } from './terminal.ts';
import { oneLine, printable } from './text.ts';

const BUILDER = new XMLBuilder({
  format: true,
  ignoreAttributes: false,
  suppressEmptyNode: true,
  // By default an attribute whose value is `true` loses it.
  suppressBooleanAttributes: false,
  attributeValueProcessor: (_name, value) => oneLine(`${value as string | number}`),
  tagValueProcessor: (_name, value) => printable(value as string),
});

export function printJunit(report: Report): string {
  const suites = suitesOf(report);
  return BUILDER.build({
    '?xml': { '@_version': '1.0', '@_encoding': 'UTF-8' },
    testsuites: {
      '@_name': 'gmem-conformance',
      ...tally(suites.flatMap(({ cases }) => cases)),
      '@_time': seconds(countsOf(report).durationMs),
      testsuite: suites.map((suite) => testsuite(suite, report)),
    },
  });
}

const testsuite = ({ name, cases }: Suite, report: Report): object => ({
  '@_name': name,
  ...tally(cases),
  '@_skipped': cases.filter(({ status }) => status === 'skipped' || status === 'known').length,
  properties: { property: summaryOf(report).map(([key, value]) => ({ '@_name': key, '@_value': value })) },
  testcase: cases.map((each) => ({
    '@_name': each.name,
    // What stands before the last dot is shown as a package, and tells the jobs of a matrix apart.
    '@_classname': `${report.target} ${report.profile}.${name}`,
    ...(each.durationMs === undefined ? {} : { '@_time': seconds(each.durationMs) }),
    ...outcome(each),
  })),
});

const tally = (cases: readonly Case[]): object => {
  const { failed = 0, error = 0 } = _.countBy(cases, 'status');
  return { '@_tests': cases.length, '@_failures': failed, '@_errors': error };
};

const outcome = ({ status, summary, detail }: Case): object =>
  match(status)
    .with('passed', () => ({ 'system-out': detail === '' ? summary : `${summary}\n${detail}` }))
    .with('failed', () => ({ failure: { '@_message': summary, '@_type': 'divergence', '#text': detail } }))
    .with('error', () => ({ error: { '@_message': summary, '@_type': 'inconclusive', '#text': detail } }))
    .with('skipped', () => ({ skipped: { '@_message': summary }, ...output(detail) }))
    .with('known', () => ({ skipped: { '@_message': `known divergence: ${summary}` }, ...output(detail) }))
    .exhaustive();

const output = (text: string): object => (text === '' ? {} : { 'system-out': text });

const seconds = (durationMs: number): string => (durationMs / 1000).toFixed(3);
