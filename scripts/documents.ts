/** Documents that are written by a program, and never by hand. */
import { divergencesJsonSchema } from '../conformance/divergences.ts';
import { reportJsonSchema } from '../report/json.ts';
import { rulesMarkdown } from '../report/rules-markdown.ts';

export interface Document {
  /** From the root of the repository. */
  readonly path: string;
  readonly text: () => string;
}

export const DOCUMENTS: readonly Document[] = [
  { path: 'docs/rules.md', text: rulesMarkdown },
  { path: 'docs/report.schema.json', text: () => `${JSON.stringify(reportJsonSchema(), null, 2)}\n` },
  { path: 'docs/divergences.schema.json', text: () => `${JSON.stringify(divergencesJsonSchema(), null, 2)}\n` },
];
