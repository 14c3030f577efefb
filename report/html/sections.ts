/** The parts of the page about the run as a whole. */
import _ from 'lodash';
import { match } from 'ts-pattern';
import { isUnexplained } from '../../conformance/divergences.ts';
import type { InvariantReport, KnownReport, Report, RuleReport, RunReport } from '../json.ts';
import { missingRuns, printRun } from '../runs.ts';
import { countsOf, invariantText } from '../terminal.ts';
import { plural } from '../text.ts';
import { html, type Content, type Html } from './html.ts';
import { answer, ruleSentence } from './sentences.ts';

const VERDICTS = {
  conforms: { sign: '✓', text: 'Conforms' },
  diverges: { sign: '✗', text: 'Diverges' },
  inconclusive: { sign: '?', text: 'Inconclusive' },
} as const;

export function header(report: Report): Html {
  const { verdict, target, profile, runs } = report;
  const { programs, commands } = countsOf(report);
  const { sign, text } = VERDICTS[verdict];
  const reasons = _.uniq(runs.flatMap(({ reason }) => reason ?? []));
  return html`<header>
    <p class="quiet">gmem-conformance report</p>
    <h1>
      <span class="verdict ${verdict}"><span aria-hidden="true">${sign}</span> ${text}</span>
      <code>${target}</code> against <code>${profile}</code>
    </h1>
    <p>
      ${plural(programs, 'program')} with ${plural(commands, 'command')} ${programs === 1 ? 'was' : 'were'} checked.
      ${outcome(report)}
    </p>
    ${reasons.map((reason) => html`<p class="note inconclusive">Inconclusive: ${reason}</p>`)} ${contents(report)}
  </header> `;
}

function outcome({ verdict, failures, knownDivergences }: Report): string {
  const excused = _.sumBy(knownDivergences, 'programs');
  return match(verdict)
    .with('conforms', () =>
      excused === 0
        ? 'Every observation was one that the specification allows.'
        : `Every observation was one that the specification allows, but for ${plural(excused, 'program')} that diverged as is known.`,
    )
    .with('diverges', () =>
      match(failures.length)
        .with(0, () => 'What is known of this target is not so, or no longer.')
        .with(1, () => 'One program diverged; it is shown below, cut down to the shortest that still does.')
        .otherwise(
          (count) => `${count} programs diverged; each is shown below, cut down to the shortest that still does.`,
        ),
    )
    .with(
      'inconclusive',
      () => 'The environment failed before there could be a verdict; that says nothing about the target.',
    )
    .exhaustive();
}

function contents(report: Report): Html {
  const { failures, knownDivergences, skipped, unmodelled } = report;
  const counts = countsOf(report);
  const entries: readonly (readonly [string, string, string])[] = [
    ...(failures.length === 0 ? [] : [['divergences', 'Divergences', `${failures.length}`] as const]),
    ...(knownDivergences.length === 0 ? [] : [['known', 'Known divergences', `${knownDivergences.length}`] as const]),
    ['invariants', 'Invariants', `${counts.held} of ${counts.invariants} held`],
    ['rules', 'Rules', `${counts.exercised} of ${counts.rules} exercised`],
    ...(skipped.length + unmodelled.length === 0
      ? []
      : [
          [
            'unchecked',
            'Not checked',
            plural(skipped.length + unmodelled.length, 'entry').replace('entrys', 'entries'),
          ] as const,
        ]),
  ];
  return html`<nav aria-label="Contents">
    <ul>
      ${entries.map(
        ([id, title, count]) => html`<li><a href="#${id}">${title}</a> <span class="quiet">${count}</span></li> `,
      )}
    </ul>
  </nav>`;
}

/** What was run, so that it can be run again. */
export function subject({ target, about, kernel, profile, modelHash, version, runs }: Report): Html {
  const [run, ...others] = runs;
  const rows: readonly (readonly [string, Content])[] = [
    ['Target', html`<code>${target}</code>`],
    ...(kernel === undefined ? [] : [['Kernel', _.compact([kernel.release, kernel.backEnd]).join(', ')] as const]),
    ...(about === undefined ? [] : [['What it is', about] as const]),
    ['Profile', html`<code>${profile}</code>`],
    ['Specification', html`<code>${modelHash}</code>`],
    ['Version of the kit', version],
    ...(run === undefined || others.length > 0
      ? []
      : ([
          ['Run', printRun(run)],
          ['Time', seconds(run)],
        ] as const)),
  ];
  return html`<section id="subject">
    <h2>What was run</h2>
    <dl class="pair">
      ${rows.map(
        ([name, value]) =>
          html`<div>
            <dt>${name}</dt>
            <dd>${value}</dd>
          </div> `,
      )}
    </dl>
    ${others.length === 0 ? '' : runsTable(runs)}${missingRuns(runs).map((run) => html`<p class="note inconclusive">Missing: ${printRun(run)}</p>`)}
  </section> `;
}

const seconds = ({ durationMs, stopped }: RunReport): string =>
  `${(durationMs / 1000).toFixed(1)} s${stopped === undefined ? '' : `, stopped: ${stopped}`}`;

const runsTable = (runs: readonly RunReport[]): Html =>
  table(
    ['Run', 'Verdict', 'Programs', 'Commands', 'Time'],
    runs.map((run) => [
      printRun(run),
      html`<span class="${run.verdict}">${run.verdict}</span>${run.reason === undefined ? '' : `: ${run.reason}`}`,
      run.programs,
      run.commands,
      seconds(run),
    ]),
  );

/** The first cell of a row is its heading. */
const table = (heading: readonly string[], rows: readonly (readonly Content[])[]): Html =>
  html`<table>
    <thead>
      <tr>
        ${heading.map((title) => html`<th scope="col">${title}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${rows.map(
        ([first, ...rest]) =>
          html`<tr>
            <th scope="row">${first}</th>
            ${rest.map((each) => html`<td>${each}</td>`)}
          </tr> `,
      )}
    </tbody>
  </table>`;

const INVARIANT_SIGNS: Readonly<Record<InvariantReport['status'], string>> = {
  held: '✓',
  broken: '✗',
  'not-observable': '–',
  'not-evaluated': '–',
  conceded: '⚠',
};

export const invariants = ({ invariants: all }: Report): Html =>
  html`<section id="invariants">
    <h2>Invariants</h2>
    <p>Each holds at every command boundary, for every implementation.</p>
    ${table(
      ['Invariant', 'Sentence', 'Status'],
      all.map((invariant) => [
        html`<code>${invariant.id}</code>`,
        html`${invariant.sentence} <cite>${invariant.source}</cite>`,
        html`<span class="status ${invariant.status}"
          ><span aria-hidden="true">${INVARIANT_SIGNS[invariant.status]}</span> ${invariantText(invariant)}</span
        >`,
      ]),
    )}
  </section> `;

type Reach = 'exercised' | 'missed' | 'out';
const reachOf = ({ hits, outOfReach }: RuleReport): Reach => {
  if (hits > 0) return 'exercised';
  return outOfReach === undefined ? 'missed' : 'out';
};

export function rules(report: Report): Html {
  const { exercised, rules: total } = countsOf(report);
  const { missed = 0, out = 0 } = _.countBy(report.rules, reachOf);
  return html`<section id="rules">
    <h2>Rules</h2>
    <p>
      ${exercised} of ${total} rules decided at least one command. ${missed} could have and did not; ${out} are out of
      reach on this target.
    </p>
    <form class="filter" hidden>
      <label>Find <input type="search" name="text" autocomplete="off" /></label>
      <label
        >Show
        <select name="reach">
          <option value="">all rules</option>
          <option value="exercised">exercised</option>
          <option value="missed">never reached</option>
          <option value="out">out of reach</option>
        </select></label
      >
      <output></output>
    </form>
    ${Object.entries(_.groupBy(report.rules, 'system')).map(([system, group]) => ofSystem(system, group))}
  </section> `;
}

const ofSystem = (system: string, group: readonly RuleReport[]): Html =>
  html`<h3 class="system">${system} <span>${extentOf(group)}</span></h3>
    ${Object.entries(_.groupBy(group, 'command')).map(([command, rules]) => ofCommand(command, rules))}`;

function extentOf(group: readonly RuleReport[]): string {
  const { exercised = 0, out = 0 } = _.countBy(group, reachOf);
  return `${exercised} of ${group.length - out} exercised${out === 0 ? '' : `, ${out} out of reach`}`;
}

function ofCommand(command: string, group: readonly RuleReport[]): Html {
  const { exercised = 0, out = 0 } = _.countBy(group, reachOf);
  return html`<details class="command">
    <summary>
      <h4><code>${command}</code></h4>
      <meter min="0" max="${group.length - out}" value="${exercised}" aria-hidden="true"></meter>
      ${extentOf(group)}
    </summary>
    <table>
      <thead>
        <tr>
          <th scope="col">Rule</th>
          <th scope="col">Answer</th>
          <th scope="col">Decided</th>
        </tr>
      </thead>
      <tbody>
        ${group.map(
          (rule) =>
            html`<tr data-reach="${reachOf(rule)}">
              <th scope="row"><code>${rule.id}</code></th>
              <td>${answer(rule)} <cite>${rule.source}</cite></td>
              <td class="status ${reachOf(rule)}">${howOften(rule)}</td>
            </tr> `,
        )}
      </tbody>
    </table>
  </details> `;
}

const howOften = (rule: RuleReport): string =>
  match(reachOf(rule))
    .with('exercised', () => plural(rule.hits, 'time'))
    .with('missed', () => 'never reached')
    .with('out', () => `out of reach: ${rule.outOfReach ?? ''}`)
    .exhaustive();

export function unchecked(report: Report): Html | undefined {
  const { skipped, unmodelled } = report;
  if (skipped.length + unmodelled.length === 0) return undefined;
  return html`<section id="unchecked">
    <h2>Not checked</h2>
    ${
      skipped.length === 0
        ? ''
        : html`<h3>The target cannot do it</h3>
            ${table(
              ['Capability', 'Reason'],
              skipped.map(({ capability, reason }) => [html`<code>${capability}</code>`, reason]),
            )}`
    }
    ${
      unmodelled.length === 0
        ? ''
        : html`<h3>The specification takes no position</h3>
            <p>These programs were checked up to there, and not beyond.</p>
            ${table(
              ['Rule', 'Programs'],
              _.orderBy(unmodelled, ['programs', 'rule'], ['desc', 'asc']).map(({ rule, programs }) => [
                ruleSentence(report, rule),
                programs,
              ]),
            )}`
    }
  </section> `;
}

export function known({ knownDivergences }: Report): Html | undefined {
  if (knownDivergences.length === 0) return undefined;
  return html`<section id="known">
    <h2>Known divergences</h2>
    <p>What is known to differ on this target. It fails no run, unless it has changed.</p>
    ${knownDivergences.map(knownEntry)}
  </section> `;
}

const KNOWN = {
  reproduced: 'still so',
  stale: 'no longer so: the entry is stale',
  changed: 'changed',
  new: 'new',
  'not-applicable': 'does not apply here',
  inconclusive: 'could not be tried',
} as const satisfies Record<KnownReport['status'], string>;

const knownEntry = (entry: KnownReport): Html => {
  const { id, rule, invariant, status, programs, observed, reason, source, note } = entry;
  return html`<article class="known">
    <h3><code>${id}</code> <span class="status ${status}">${KNOWN[status]}</span></h3>
    <p>${reason}${isUnexplained(entry) ? html` <strong>Nobody has explained it.</strong>` : ''}</p>
    ${note === undefined ? '' : html`<p class="note">${note}</p>`}
    <dl class="facts">
      ${
        rule === undefined
          ? ''
          : html`<div>
              <dt>Rule</dt>
              <dd><code>${rule}</code></dd>
            </div>`
      }
      ${
        invariant === undefined
          ? ''
          : html`<div>
              <dt>Invariant</dt>
              <dd><code>${invariant}</code></dd>
            </div>`
      }
      <div>
        <dt>Observed</dt>
        <dd>${observed}</dd>
      </div>
      <div>
        <dt>Met by</dt>
        <dd>${plural(programs, 'program')}</dd>
      </div>
      <div>
        <dt>Source</dt>
        <dd>${source}</dd>
      </div>
    </dl>
  </article> `;
};
