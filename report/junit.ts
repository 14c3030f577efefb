/**
 * JUnit XML, in the dialect that the XSD of Jenkins allows and other CI systems read: no attribute or element that one of
 * them is known to refuse.
 */
import _ from 'lodash';
import XMLBuilder from 'fast-xml-builder';
import { match } from 'ts-pattern';
import type { Case, Suite, Tests } from './cases.ts';
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

export const printJunit = (tests: Tests): string =>
  BUILDER.build({
    '?xml': { '@_version': '1.0', '@_encoding': 'UTF-8' },
    testsuites: {
      '@_name': 'gmem-conformance',
      ...tally(tests.suites.flatMap(({ cases }) => cases)),
      ...time(tests),
      testsuite: tests.suites.map((suite) => testsuite(suite, tests)),
    },
  });

const testsuite = ({ name, cases }: Suite, { subject, summary }: Tests): object => ({
  '@_name': name,
  ...tally(cases),
  '@_skipped': cases.filter(({ status }) => status === 'skipped' || status === 'known').length,
  properties: { property: summary.map(([key, value]) => ({ '@_name': key, '@_value': value })) },
  testcase: cases.map((each) => ({
    '@_name': each.name,
    // What stands before the last dot is shown as a package, and tells the jobs of a matrix apart.
    '@_classname': `${subject}.${name}`,
    ...time(each),
    ...outcome(each),
  })),
});

const time = ({ durationMs }: { readonly durationMs?: number }): object =>
  durationMs === undefined ? {} : { '@_time': (durationMs / 1000).toFixed(3) };

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
