/**
 * The machine behind each command, as tables of lanes: what is the same, what the command changed, and where the
 * specification's machine and the target's differ. Data only; timeline.ts makes markup of it.
 */
import _ from 'lodash';
import type { Seen } from './facts.ts';
import { SPACES, type Lane, type Run, type Space, type Tone } from './lanes.ts';

export type Side = 'specification' | 'target';

/** What is true behind one command; of the target only where it sees inside itself. */
export type Moment = Readonly<Partial<Record<Side, Seen>>>;

/** `new` and `gone`: by this command. `differs` and `absent`: unlike the other side, which has another or has more. */
export type Mark = 'new' | 'gone' | 'differs' | 'absent';

interface Column {
  readonly start: number;
  readonly end: number;
}

/** One space of one owner. Its columns are the same at every command, so that one can leaf through the drawings. */
export interface Panel {
  readonly space: Space;
  readonly owner: string;
  readonly columns: readonly Column[];
  /** Columns that are left out, because there are too many. */
  readonly hidden: number;
}

export interface Piece {
  /** Index of its first column, and how many it covers. */
  readonly column: number;
  readonly span: number;
  readonly start: number;
  readonly end: number;
  readonly tone: Tone;
  readonly text: string;
  /** Of the target only. */
  readonly note: string | undefined;
  readonly marks: readonly Mark[];
}

export interface DrawnLane {
  readonly name: string;
  /** Pieces that overlap stand in several rows. Undefined where the facts do not say. */
  readonly rows: readonly (readonly Piece[])[] | undefined;
}

export interface Drawing {
  readonly panel: Panel;
  readonly lanes: readonly DrawnLane[];
}

const MAX_COLUMNS = 48;

/** What a lane says of each column. */
type Cells = readonly (readonly Run[])[];

export class Stage {
  readonly panels: readonly Panel[];
  readonly #moments: readonly Moment[];
  readonly #runs = new Map<string, readonly Run[] | undefined>();

  /** `moments`: behind each command that was run. */
  constructor(moments: readonly Moment[]) {
    this.#moments = moments;
    this.panels = SPACES.flatMap((space) => ownersOf(space, moments).map((owner) => this.#panel(space, owner))).filter(
      ({ columns }) => columns.length > 0,
    );
  }

  /** Panels in which there is something to see behind command `at`. */
  draw(at: number, side: Side): readonly Drawing[] {
    return this.panels
      .filter(({ space }) => isTold(space, side) && this.#moments[at]?.[side] !== undefined)
      .map((panel) => ({ panel, lanes: this.#lanes(panel, at, side) }))
      .filter(({ lanes }) => lanes.some(({ rows }) => (rows ?? []).length > 0));
  }

  #panel(space: Space, owner: string): Panel {
    const everything = space.lanes.flatMap((lane) => this.#ever(space, owner, lane));
    // What was there before the first command, and never changes, is no part of the story.
    const columns = columnsOf(everything.flatMap((runs) => runs ?? [])).filter((column) =>
      space.lanes.some((lane) => this.#changes(space, owner, lane, column)),
    );
    return { space, owner, columns: columns.slice(0, MAX_COLUMNS), hidden: Math.max(0, columns.length - MAX_COLUMNS) };
  }

  #changes(space: Space, owner: string, lane: Lane, column: Column): boolean {
    return SIDES.some((side) => {
      const [first, ...others] = this.#moments.map((_moment, at) =>
        this.#runsOf(space, owner, lane, at, side)
          ?.filter((run) => covers(run, column))
          .map((run) => textAt(run, column)),
      );
      return others.some((texts) => !_.isEqual(texts, first));
    });
  }

  /** What the lane shows behind each command, on both sides. */
  #ever(space: Space, owner: string, lane: Lane): readonly (readonly Run[] | undefined)[] {
    return SIDES.flatMap((side) => this.#moments.map((_moment, at) => this.#runsOf(space, owner, lane, at, side)));
  }

  #runsOf(space: Space, owner: string, lane: Lane, at: number, side: Side): readonly Run[] | undefined {
    const key = JSON.stringify([space.name, owner, lane.name, at, side]);
    if (!this.#runs.has(key)) {
      const seen = isTold(space, side) ? this.#moments[at]?.[side] : undefined;
      this.#runs.set(key, seen && lane.runs(seen, owner)?.filter(({ start, end }) => start < end));
    }
    return this.#runs.get(key);
  }

  /** Lanes in which something is to be seen at some command, so that the drawings are of one height. */
  #lanes(panel: Panel, at: number, side: Side): readonly DrawnLane[] {
    return panel.space.lanes
      .filter((lane) => this.#isUsed(panel, lane))
      .map((lane) => ({ name: lane.name, rows: this.#rows(panel, lane, at, side) }));
  }

  #isUsed(panel: Panel, lane: Lane): boolean {
    const runs = this.#ever(panel.space, panel.owner, lane).flatMap((each) => each ?? []);
    return runs.some((run) => panel.columns.some((column) => covers(run, column)));
  }

  #rows(panel: Panel, lane: Lane, at: number, side: Side): readonly (readonly Piece[])[] | undefined {
    const now = this.#cellsOf(panel, lane, at, side);
    if (now === undefined) return undefined;
    const before = at === 0 ? panel.columns.map(() => []) : this.#cellsOf(panel, lane, at - 1, side);
    const other = this.#cellsOf(panel, lane, at, otherSide(side));
    const { columns } = panel;
    const lacks = (cells: Cells | undefined, run: Run, index: number): boolean => {
      const column = columns[index] as Column;
      return cells !== undefined && !(cells[index] ?? []).some((each) => textAt(each, column) === textAt(run, column));
    };
    const isHere = (run: Run, index: number): readonly Mark[] => [
      ...(lacks(before, run, index) ? (['new'] as const) : []),
      ...(lacks(other, run, index) ? (['differs'] as const) : []),
    ];
    const isElsewhere = (run: Run, index: number): readonly Mark[] | undefined => {
      if (!lacks(now, run, index)) return undefined;
      return before === undefined || lacks(before, run, index) ? ['absent'] : ['gone', 'absent'];
    };
    const wasHere = (run: Run, index: number): readonly Mark[] | undefined =>
      lacks(now, run, index) && (other === undefined || lacks(other, run, index)) ? ['gone'] : undefined;
    return packed([
      ...piecesOf(now, columns, side, isHere),
      ...piecesOf(other ?? [], columns, side, isElsewhere),
      ...piecesOf(before ?? [], columns, side, wasHere),
    ]);
  }

  #cellsOf({ space, owner, columns }: Panel, lane: Lane, at: number, side: Side): Cells | undefined {
    const runs = this.#runsOf(space, owner, lane, at, side);
    return runs && columns.map((column) => runs.filter((run) => covers(run, column)));
  }
}

const SIDES: readonly Side[] = ['specification', 'target'];
const otherSide = (side: Side): Side => (side === 'target' ? 'specification' : 'target');
const isTold = ({ targetOnly }: Space, side: Side): boolean => side === 'target' || targetOnly !== true;

const ownersOf = (space: Space, moments: readonly Moment[]): readonly string[] =>
  _.uniq(moments.flatMap((moment) => SIDES.flatMap((side) => (moment[side] ? space.owners(moment[side]) : []))));

const covers = (run: Run, { start, end }: Column): boolean => run.start <= start && end <= run.end;
const textAt = (run: Run, { start, end }: Column): string => run.text(start, end);

/** Columns between the places where some run begins or ends; not where there is never anything. */
function columnsOf(runs: readonly Run[]): readonly Column[] {
  const bounds = _.sortedUniq(_.sortBy(runs.flatMap(({ start, end }) => [start, end])));
  return _.initial(bounds)
    .map((start, index) => ({ start, end: bounds[index + 1] ?? start }))
    .filter((column) => runs.some((run) => covers(run, column)));
}

/** The runs cut where their marks change, or where columns are left out; without those that `marksOf` does not want. */
function piecesOf(
  cells: Cells,
  columns: readonly Column[],
  side: Side,
  marksOf: (run: Run, index: number) => readonly Mark[] | undefined,
): readonly Piece[] {
  return _.uniq(cells.flat()).flatMap((run) => {
    const pieces: Piece[] = [];
    cells.forEach((runs, index) => {
      const marks = runs.includes(run) ? marksOf(run, index) : undefined;
      if (marks === undefined) return;
      const { start, end } = columns[index] as Column;
      const last = pieces.at(-1);
      const goesOn = last?.end === start && _.isEqual(last.marks, marks);
      if (goesOn) pieces.pop();
      const from = goesOn ? last : { start, column: index, span: 0 };
      pieces.push({
        column: from.column,
        span: from.span + 1,
        start: from.start,
        end,
        tone: run.tone,
        text: run.text(from.start, end),
        note: side === 'target' ? run.note?.(from.start, end) : undefined,
        marks,
      });
    });
    return pieces;
  });
}

/** The pieces in as few rows as it takes that none overlaps another. */
function packed(pieces: readonly Piece[]): readonly (readonly Piece[])[] {
  const rows: Piece[][] = [];
  for (const piece of _.sortBy(pieces, 'column')) {
    const row = rows.find((each) => {
      const last = each.at(-1);
      return last === undefined || last.column + last.span <= piece.column;
    });
    if (row === undefined) rows.push([piece]);
    else row.push(piece);
  }
  return rows;
}
