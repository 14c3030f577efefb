/** How rules are put into words wherever they are spoken of. */
import type { Report, RuleReport } from '../json.ts';
import { html, type Html } from './html.ts';

/** A sentence of ours, in which names stand between backticks. */
const prose = (text: string): readonly Html[] =>
  text.split(/`([^`]+)`/).map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : html`${part}`));

/** What the rule answers, and when. */
export const answer = ({ kind, result, when }: RuleReport): Html =>
  kind === 'unmodelled'
    ? html`<em>not specified</em> when ${prose(when)}: ${prose(result)}`
    : html`<code class="result">${result}</code> when ${prose(when)}`;

/** The rule with what the report says of it; the name alone where it says nothing. */
export function ruleSentence({ rules }: Report, id: string): Html {
  const rule = rules.find((each) => each.id === id);
  return rule === undefined
    ? html`<code>${id}</code>`
    : html`<code>${id}</code>: ${answer(rule)}. <cite>${rule.source}</cite>`;
}
