import { describe, expect, it } from '@jest/globals';
import { DOMParser } from '@xmldom/xmldom';
import { svgOf } from './svg-plot.ts';

const PLOT = {
  title: 'steps & bytes',
  description: 'a < b',
  xLabel: 'ranges',
  yLabel: 'steps',
  series: [
    {
      name: 'flat',
      points: [
        [1, 1],
        [100, 1],
      ] as const,
    },
    {
      name: 'steep',
      points: [
        [1, 1],
        [100, 10_000],
      ] as const,
    },
    {
      name: 'as flat',
      points: [
        [1, 1],
        [100, 1.1],
      ] as const,
    },
  ],
};

describe('a plot', () => {
  const document = new DOMParser().parseFromString(svgOf(PLOT), 'image/svg+xml');
  const all = (name: string) => Array.from(document.getElementsByTagName(name));

  it('has a line for each series, from the left to the right', () => {
    const paths = all('path').map((path) => path.getAttribute('d') ?? '');
    expect(paths).toHaveLength(3);
    const [flat = '', steep = ''] = paths;
    const heights = (path: string) => [...path.matchAll(/ ([\d.]+)/g)].map(([, y]) => Number(y));
    expect(new Set(heights(flat)).size).toBe(1);
    expect(heights(steep)).toEqual([...heights(steep)].sort((a, b) => b - a));
  });

  it('names series without writing one name over another', () => {
    const names = all('text').filter((text) => /flat|steep/.test(text.textContent ?? ''));
    const rows = names.map((text) => Number(text.getAttribute('y'))).sort((a, b) => a - b);
    expect(rows).toHaveLength(3);
    expect(Math.min(...rows.slice(1).map((row, index) => row - (rows[index] ?? 0)))).toBeGreaterThanOrEqual(15);
  });

  it('says in words what it shows', () => {
    expect(all('title')[0]?.textContent).toBe('steps & bytes');
    expect(all('desc')[0]?.textContent).toBe('a < b');
  });
});
