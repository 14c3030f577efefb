/** Reports that were saved: `run --json`. */
import { z } from 'zod';
import { excerpt } from '../conformance/excerpt.ts';
import { Report, REPORT_SCHEMA } from './json.ts';

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
  return data;
}

const Schema = z.object({ schema: z.string() });

function mistake({ issues: [issue] }: z.ZodError): string {
  if (issue === undefined) return 'no report';
  const field = issue.path.map(String).map(excerpt).join('.');
  return `${field === '' ? '' : `${field}: `}${excerpt(issue.message)}`;
}
