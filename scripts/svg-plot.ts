/** Lines over two logarithmic axes, as SVG that is the same for the same numbers. */

export interface Series {
  readonly name: string;
  /** Neither may be zero or less. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Plot {
  readonly title: string;
  /** What is to be seen, for those who do not see it. */
  readonly description: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly Series[];
}

const WIDTH = 720;
const HEIGHT = 420;
const LEFT = 76;
const RIGHT = 150;
const TOP = 44;
const BOTTOM = 56;
/** Told apart also by those who see fewer colours: Okabe and Ito, 2008. */
const STYLES = [
  { colour: '#0072b2', dash: '' },
  { colour: '#d55e00', dash: ' stroke-dasharray="7 3"' },
  { colour: '#009e73', dash: ' stroke-dasharray="2 3"' },
  { colour: '#cc79a7', dash: ' stroke-dasharray="9 3 2 3"' },
] as const;
const styleOf = (index: number): (typeof STYLES)[number] => STYLES[index % STYLES.length] ?? STYLES[0];
/** Names at the ends of lines are so far apart. */
const LINE_HEIGHT = 15;

const fixed = (value: number): string => value.toFixed(1);

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

interface Axis {
  readonly low: number;
  readonly high: number;
  readonly step: number;
}

/** Whole powers of ten around the values. */
function axisOf(values: readonly number[]): Axis {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  return { low, high, step: high - low > 8 ? 2 : 1 };
}

const place = ({ low, high }: Axis, value: number): number => (Math.log10(value) - low) / (high - low);

const ticksOf = ({ low, high, step }: Axis): readonly number[] =>
  Array.from({ length: Math.floor((high - low) / step) + 1 }, (_tick, index) => low + index * step);

const power = (exponent: number): string =>
  exponent >= 0 && exponent <= 3 ? String(10 ** exponent) : `10<tspan dy="-5" font-size="9">${exponent}</tspan>`;

const text = (x: number, y: number, content: string, attributes = ''): string =>
  `<text x="${fixed(x)}" y="${fixed(y)}"${attributes === '' ? '' : ` ${attributes}`}>${content}</text>`;

export function svgOf({ title, description, xLabel, yLabel, series }: Plot): string {
  const points = series.flatMap((each) => each.points);
  const [across, up] = [axisOf(points.map(([x]) => x)), axisOf(points.map(([, y]) => y))];
  const x = (value: number): number => LEFT + place(across, value) * (WIDTH - LEFT - RIGHT);
  const y = (value: number): number => HEIGHT - BOTTOM - place(up, value) * (HEIGHT - TOP - BOTTOM);
  const [middleX, middleY] = [(LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12" role="img">`,
    `<title>${escape(title)}</title>`,
    `<desc>${escape(description)}</desc>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    text(LEFT, 24, escape(title), 'font-size="15"'),
    ...ticksOf(across).map((tick) =>
      gridLine(
        x(10 ** tick),
        y(10 ** up.low),
        x(10 ** tick),
        y(10 ** up.high),
        text(x(10 ** tick), HEIGHT - BOTTOM + 18, power(tick), 'text-anchor="middle"'),
      ),
    ),
    ...ticksOf(up).map((tick) =>
      gridLine(
        x(10 ** across.low),
        y(10 ** tick),
        x(10 ** across.high),
        y(10 ** tick),
        text(LEFT - 8, y(10 ** tick) + 4, power(tick), 'text-anchor="end"'),
      ),
    ),
    text(middleX, HEIGHT - 14, escape(xLabel), 'text-anchor="middle"'),
    text(18, middleY, escape(yLabel), `text-anchor="middle" transform="rotate(-90 18 ${fixed(middleY)})"`),
    ...series.map((each, index) => lineOf(each, index, x, y)),
    ...namesOf(series, y),
    '</svg>',
    '',
  ].join('\n');
}

const gridLine = (x1: number, y1: number, x2: number, y2: number, label: string): string =>
  `<line x1="${fixed(x1)}" y1="${fixed(y1)}" x2="${fixed(x2)}" y2="${fixed(y2)}" stroke="#ddd"/>${label}`;

type Scale = (value: number) => number;

function lineOf({ points }: Series, index: number, x: Scale, y: Scale): string {
  const path = points.map(([px, py], at) => `${at === 0 ? 'M' : 'L'}${fixed(x(px))} ${fixed(y(py))}`).join('');
  const { colour, dash } = styleOf(index);
  return `<path d="${path}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>`;
}

/** Each beside the end of its line, moved down where another one is there. */
function namesOf(series: readonly Series[], y: Scale): readonly string[] {
  const ends = series
    .map(({ name, points }, index) => ({ name, index, at: y(points.at(-1)?.[1] ?? 1) + 4 }))
    .sort((a, b) => a.at - b.at);
  let free = TOP;
  return ends.map(({ name, index, at }) => {
    free = Math.max(free, at);
    const label = text(WIDTH - RIGHT + 10, free, escape(name), `fill="${styleOf(index).colour}"`);
    free += LINE_HEIGHT;
    return label;
  });
}
