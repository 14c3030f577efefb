/** Reports that were saved: `run --json`. */
import _ from 'lodash';
import { z } from 'zod';
import { excerpt } from '../conformance/excerpt.ts';
import { Report, REPORT_SCHEMA } from './json.ts';
import { worstVerdict } from './runs.ts';

/** A file that is no report. The message names the file and the field, and says what to do. */
export class ReportError extends Error {}

/** `name` is the file's, for messages. Throws a ReportError. */
export function parseReport(json: string, name: string): Report {
  let content: unknown;
  try {
    content = JSON.parse(json);
  } catch (error) {
    throw new ReportError(`${name}: not JSON: ${(error as Error).message}; give what \`run --json\` has written`);
  }
  const schema = Schema.safeParse(content).data?.schema;
  if (schema !== undefined && schema !== REPORT_SCHEMA)
    throw new ReportError(
      `${name}: schema is ${excerpt(schema)}, and this version reads ${REPORT_SCHEMA}: run it again, or take the version that wrote it`,
    );
  const { data, error } = Report.safeParse(content);
  if (error !== undefined) throw new ReportError(`${name}: ${mistake(error)}; give what \`run --json\` has written`);
  assertVerdictFits(data, name);
  return data;
}

/** The verdict becomes an exit status, so it must be that of the rest of the report. */
function assertVerdictFits({ verdict, runs, failures }: Report, name: string): void {
  const told = worstVerdict([..._.map(runs, 'verdict'), ...failures.map(() => 'diverges' as const)]);
  if (verdict !== told)
    throw new ReportError(
      `${name}: verdict is ${verdict}, and its runs and failures come to ${told}: the file was changed; give it as \`run --json\` has written it`,
    );
}

const Schema = z.object({ schema: z.string() });

function mistake({ issues: [issue] }: z.ZodError): string {
  if (issue === undefined) return 'no report';
  const field = issue.path.map(String).map(excerpt).join('.');
  return `${field === '' ? '' : `${field}: `}${excerpt(issue.message)}`;
}
