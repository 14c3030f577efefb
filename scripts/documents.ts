/** Documents that are written by a program, and never by hand. */
import { divergencesJsonSchema } from '../conformance/divergences.ts';
import { reportJsonSchema } from '../report/json.ts';
import { scenariosJsonSchema } from '../report/scenario.ts';
import { rulesMarkdown } from '../report/rules-markdown.ts';
import { pageStatusMarkdown, PLOT_NAMES, plotFile, plotSvg } from './page-status-markdown.ts';
import { sevMarkdown } from './sev-markdown.ts';
import { designsMarkdown } from './designs-markdown.ts';
import { machineCheckDesignsMarkdown } from './machine-check-designs-markdown.ts';
import { tdDesignsMarkdown } from './td-designs-markdown.ts';
import { answerSchema, protocolReference, requestSchema } from './protocol-reference.ts';

export interface Document {
  /** From the root of the repository. */
  readonly path: string;
  readonly text: () => string;
}

const json = (schema: object): string => `${JSON.stringify(schema, null, 2)}\n`;

export const DOCUMENTS: readonly Document[] = [
  { path: 'docs/rules.md', text: rulesMarkdown },
  { path: 'docs/direct-map-designs.md', text: designsMarkdown },
  { path: 'docs/tdx-designs.md', text: tdDesignsMarkdown },
  { path: 'docs/machine-check-designs.md', text: machineCheckDesignsMarkdown },
  { path: 'docs/sev.md', text: sevMarkdown },
  { path: 'docs/page-encryption-status.md', text: pageStatusMarkdown },
  ...PLOT_NAMES.map((name) => ({ path: plotFile(name), text: () => plotSvg(name) })),
  { path: 'docs/report.schema.json', text: () => json(reportJsonSchema()) },
  { path: 'docs/divergences.schema.json', text: () => json(divergencesJsonSchema()) },
  { path: 'docs/protocol-reference.md', text: protocolReference },
  { path: 'docs/protocol-requests.schema.json', text: () => json(requestSchema()) },
  { path: 'docs/protocol-answers.schema.json', text: () => json(answerSchema()) },
  { path: 'docs/scenarios.schema.json', text: () => json(scenariosJsonSchema()) },
];
