/** One divergence: what was broken, the timeline that shows it, and how to see it again. */
import type { FailureReport, Report } from '../json.ts';
import { replayCommand } from '../terminal.ts';
import { plural } from '../text.ts';
import { html, type Content, type Html } from './html.ts';
import { ruleSentence } from './sentences.ts';
import { LEGEND, timeline } from './timeline.ts';

export function divergences(report: Report): Html | undefined {
  const { failures } = report;
  if (failures.length === 0) return undefined;
  return html`<section id="divergences">
    <h2>${failures.length === 1 ? 'The divergence' : 'Divergences'}</h2>
    ${failures.map((failure, index) => divergence(failure, report, `d${index + 1}`, index === 0))}
  </section> `;
}

function divergence(failure: FailureReport, report: Report, id: string, isOpen: boolean): Html {
  const { steps, at, token, twin, log } = failure;
  const program = steps.map(({ command }) => command).join('\n');
  const header = `# profile: ${report.profile}\n# target: ${report.target}\n`;
  return html`<details class="divergence" id="${id}" ${isOpen ? html` open` : ''}>
    <summary>
      <h3>${title(failure)}</h3>
      <span class="quiet">at command ${at + 1} of ${steps.length}</span>
    </summary>
    <dl class="facts">
      ${claims(failure, report).map(
        ([name, value]) =>
          html`<div>
            <dt>${name}</dt>
            <dd>${value}</dd>
          </div> `,
      )}
    </dl>
    ${failure.reproduced ? '' : html`<p class="note inconclusive">Run once more, to be shown here, the program did not fail: the target is not deterministic.</p>`}
    <h4>Timeline</h4>
    ${timeline(failure, report, id)} ${LEGEND} ${twin === undefined ? '' : twinProgram(twin, steps)}
    ${
      log === undefined
        ? ''
        : html`<h4>Beside its answers the target wrote</h4>
            <pre tabindex="0">${log}</pre>`
    }
    <h4>See it again</h4>
    ${copyable(`${id}-replay`, 'command', replayCommand(token, report.target))}
    ${copyable(`${id}-program`, 'program', `${header}${program}\n`)}
  </details> `;
}

const title = ({ rule, invariant, expected, observed }: FailureReport): Html =>
  invariant === undefined
    ? html`<code>${rule}</code>: expected ${expected}, observed ${observed}`
    : html`<code>${invariant}</code> is broken`;

function claims(failure: FailureReport, report: Report): readonly (readonly [string, Content])[] {
  const { rule, invariant, expected, observed, first, originalLength, steps, shrinkRuns } = failure;
  const broken = report.invariants.find(({ id }) => id === invariant);
  return [
    ...(invariant === undefined
      ? [['Expected', expected] as const]
      : [['Invariant', html`<code>${invariant}</code>: ${expected} <cite>${broken?.source}</cite>`] as const]),
    ['Observed', observed],
    ['Rule', ruleSentence(report, rule)],
    ...(first === undefined
      ? []
      : [
          [
            'At first',
            html`<code>${first.rule}</code
              >${first.invariant === undefined ? '' : html`, <code>${first.invariant}</code>`} is what the program broke
              before it was shrunk: there may be two faults`,
          ] as const,
        ]),
    ['Shrunk', `from ${originalLength} to ${plural(steps.length, 'command')} in ${plural(shrinkRuns, 'run')}`],
  ];
}

const twinProgram = (twin: readonly string[], steps: FailureReport['steps']): Html =>
  html`<h4>The other program</h4>
    <p>It differs in private data only, in the lines that are marked. The host can tell the two apart.</p>
    <pre tabindex="0">
${twin.map((line, index) => (line === steps[index]?.command ? html`${line} ` : html`<mark>${line}</mark> `))}</pre> `;

const copyable = (id: string, what: string, text: string): Html =>
  html`<div class="copyable">
    <button type="button" data-copy="${id}" hidden>Copy the ${what}</button>
    <pre id="${id}" tabindex="0" aria-label="The ${what}"><code>${text}</code></pre>
  </div> `;
