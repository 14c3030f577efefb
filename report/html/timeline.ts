/** A failing program as a timeline: what was expected and observed, and the machine behind each command. */
import type { FailureReport, Report, StepReport } from '../json.ts';
import { Stage, type Drawing, type DrawnLane, type Mark, type Moment, type Panel, type Piece } from './drawing.ts';
import { readFacts } from './facts.ts';
import { html, type Html } from './html.ts';
import { eventsOf, range } from './lanes.ts';
import { ruleSentence } from './sentences.ts';

type Ran = NonNullable<StepReport['ran']>;

export function timeline(failure: FailureReport, report: Report, id: string): Html {
  const { steps, at } = failure;
  const ran = steps.flatMap((step) => step.ran ?? []);
  const stage = new Stage(ran.map(momentOf));
  return html`<div class="timeline" data-at="${at}">
    ${witness(failure, id)}
    <div class="controls" hidden>
      <button type="button" data-move="-1">← Previous</button>
      <button type="button" data-move="1">Next →</button>
      <output>Command ${at + 1} of ${steps.length}</output>
      <span class="quiet">or by arrow keys</span>
    </div>
    <ol class="steps">
      ${ran.map((each, index) => step({ failure, report, stage, id }, each, index))}
    </ol>
  </div> `;
}

const momentOf = ({ state, facts }: Ran): Moment => ({
  specification: readFacts(state).seen,
  ...(facts === undefined ? {} : { target: readFacts(facts).seen }),
});

const stepId = (id: string, index: number): string => `${id}-${index + 1}`;

function witness({ steps, at }: FailureReport, id: string): Html {
  const rows = steps.map(
    ({ command, ran }, index) => html`<tr${index === at ? html` class="parting"` : ''}>
<td>${index + 1}</td>
<td>${ran === undefined ? html`<code>${command}</code>` : html`<a href="#${stepId(id, index)}"><code>${command}</code></a>`}</td>
<td>${ran?.expected ?? 'not run'}</td>
<td>${ran?.observed}${index === at ? html` <strong>◀ here</strong>` : ''}</td>
</tr>
`,
  );
  return html`<div class="scroll" tabindex="0" role="group" aria-label="The program">
    <table class="witness">
      <thead>
        <tr>
          <th scope="col">#</th>
          <th scope="col">Command</th>
          <th scope="col">Expected</th>
          <th scope="col">Observed</th>
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
  </div> `;
}

interface Context {
  readonly failure: FailureReport;
  readonly report: Report;
  readonly stage: Stage;
  readonly id: string;
}

function step(context: Context, ran: Ran, index: number): Html {
  const { failure, report, stage, id } = context;
  const isParting = index === failure.at;
  const { rule, expected, observed } = ran;
  return html`<li id="${stepId(id, index)}" class="step${isParting ? ' parting' : ''}">
    <h4><span class="quiet">${index + 1}</span> <code>${failure.steps[index]?.command}</code></h4>
    ${isParting ? html`<p class="here">Here expectation and observation part.</p>` : ''}
    <dl class="pair">
      <div>
        <dt>Expected</dt>
        <dd>${expected}</dd>
      </div>
      <div>
        <dt>Observed</dt>
        <dd>${observed}</dd>
      </div>
      ${isParting ? brokenInvariant(failure) : ''}
    </dl>
    <p class="quiet">${ruleSentence(report, rule)}</p>
    ${remarks(ran)} ${machine(stage, index, ran.facts !== undefined, isParting)}
  </li> `;
}

/** The invariant's sentence stands at the head of the divergence. */
const brokenInvariant = ({ invariant, observed }: FailureReport): Html | undefined =>
  invariant === undefined
    ? undefined
    : html`<div>
        <dt>Broken</dt>
        <dd><code>${invariant}</code>: ${observed}</dd>
      </div>`;

function remarks({ facts }: Ran): Html | undefined {
  if (facts === undefined) return undefined;
  const { seen, notes } = readFacts(facts);
  const lines = [...eventsOf(seen), ...notes];
  return lines.length === 0
    ? undefined
    : html`<ul class="remarks">
        ${lines.map((line) => html`<li>${line}</li>`)}
      </ul>`;
}

/** The machine behind a command: once where the target shows all that the specification does, and it is the same. */
function machine(stage: Stage, at: number, isSeen: boolean, isParting: boolean): Html {
  const expected = stage.draw(at, 'specification');
  const observed = isSeen ? stage.draw(at, 'target') : [];
  if (isSeen && (isParting || differ(expected, observed) || isLess(observed, expected))) {
    const panels = stage.panels.map((panel) => both(panel, expected, observed));
    return html`<h5>The machine behind it: what the specification calls for, and what the target shows</h5>
      <div class="worlds">${panels}</div>`;
  }
  const drawings = isSeen ? observed : expected;
  const who = isSeen ? 'specification and target agree' : 'by the specification; the target does not show its inside';
  return html`<h5>The machine behind it <span class="quiet">(${who})</span></h5>
    ${drawings.length === 0 ? html`<p class="quiet">Nothing to draw yet.</p>` : html`<div class="panels">${drawings.map((drawing) => table(drawing))}</div>`}`;
}

const differ = (...drawings: readonly (readonly Drawing[])[]): boolean =>
  drawings.flat().some((drawing) => piecesOf(drawing).some(({ marks }) => marks.includes('differs')));

/** Whether a target that sees only part of itself leaves out something that the specification tells. */
const isLess = (observed: readonly Drawing[], expected: readonly Drawing[]): boolean =>
  expected.some(({ panel, lanes }) => {
    const same = observed.find((drawing) => drawing.panel === panel);
    return lanes.some(({ rows = [] }, index) => rows.length > 0 && same?.lanes[index]?.rows === undefined);
  });

const piecesOf = ({ lanes }: Drawing): readonly Piece[] => lanes.flatMap(({ rows }) => rows ?? []).flat();

function both(panel: Panel, expected: readonly Drawing[], observed: readonly Drawing[]): Html | undefined {
  const [left, right] = [expected, observed].map((drawings) => drawings.find((drawing) => drawing.panel === panel));
  if (left === undefined && right === undefined) return undefined;
  const shown = (drawing: Drawing | undefined, side: string): Html =>
    html`<div>${drawing && table(drawing, side)}</div> `;
  return html`${shown(left, 'Specification')}${shown(right, 'Target')}`;
}

function table({ panel, lanes }: Drawing, side?: string): Html {
  const { space, owner, columns, hidden } = panel;
  const title = `${side === undefined ? '' : `${side}: `}${space.about}${space.name === 'frames' ? '' : ` ${owner}`}`;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="${title}">
    <table class="lanes">
      <caption>
        ${title}${hidden === 0 ? '' : `, without its last ${hidden} parts`}
      </caption>
      <thead>
        <tr>
          <th scope="col">${space.unit}</th>
          ${columns.map(({ start, end }) => html`<th scope="col">${range(start, end)}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${lanes.map((lane) => laneRows(lane, columns.length))}
      </tbody>
    </table>
  </div> `;
}

function laneRows({ name, rows }: DrawnLane, width: number): Html {
  if (rows === undefined)
    return html`<tr>
      <th scope="row">${name}</th>
      <td colspan="${width}" class="quiet">not told</td>
    </tr> `;
  const [first = [], ...others] = rows;
  const heading = html`<th scope="row" ${rows.length > 1 ? html` rowspan="${rows.length}"` : ''}>${name}</th>`;
  return html`<tr>
      ${heading}${cells(first, width)}
    </tr>
    ${others.map(
      (row) =>
        html`<tr>
          ${cells(row, width)}
        </tr> `,
    )}`;
}

function cells(pieces: readonly Piece[], width: number): Html {
  const ends = pieces.map(({ column, span }) => column + span);
  const gap = (from: number, to: number): readonly Html[] => Array.from({ length: to - from }, () => html`<td></td>`);
  return html`${pieces.map((piece, index) => [gap(ends[index - 1] ?? 0, piece.column), cell(piece)])}${gap(ends.at(-1) ?? 0, width)}`;
}

const MARKS = {
  new: ['+', 'new'],
  gone: ['−', 'gone'],
  differs: ['≠', 'only here'],
  absent: ['≠', 'not here'],
} as const satisfies Record<Mark, readonly [string, string]>;

function cell({ span, tone, marks, text, note }: Piece): Html {
  const signs = marks.map((mark) => {
    const [sign, word] = MARKS[mark];
    return html`<b class="sign ${mark}"
      ><span aria-hidden="true">${sign}</span><span class="unseen">${word}: </span></b
    >`;
  });
  const isHere = !marks.includes('gone') && !marks.includes('absent');
  const content = isHere
    ? html`${text}${note === undefined ? '' : html` <small>${note}</small>`}`
    : html`<del>${text}</del>`;
  const wide = span === 1 ? '' : html` colspan="${span}"`;
  return html`<td${wide} class="${[isHere ? tone : 'ghost', ...marks].join(' ')}">${signs}${content}</td>`;
}

/** What the drawings are made of. */
export const LEGEND = html`<dl class="legend">
  <div>
    <dt><b class="sign new">+</b></dt>
    <dd>new since the command before</dd>
  </div>
  <div>
    <dt><b class="sign gone">−</b> <del>dashed</del></dt>
    <dd>gone since then</dd>
  </div>
  <div>
    <dt><b class="sign differs">≠</b></dt>
    <dd>
      the specification and the target differ. An entry of stage 2 or of the host’s page tables that the target lacks is
      no fault by itself: those may go at any time
    </dd>
  </div>
  <div>
    <dt><code>file0[2–5]</code></dt>
    <dd>pages 2 to 5 of file0</dd>
  </div>
</dl> `;
