/** docs/page-encryption-status.md and its plots: what `npm run bench -- status` measured, which bench/status.json keeps. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Design, StatusMeasured, StatusResult } from '../bench/status.ts';
import { ROOT } from '../report/installation.ts';
import { svgOf, type Plot, type Series } from './svg-plot.ts';

const { results, largestCalls } = (
  JSON.parse(readFileSync(join(ROOT, 'bench/status.json'), 'utf8')) as {
    readonly results: { readonly status: StatusMeasured };
  }
).results.status;

const inGroup = (group: string): readonly StatusResult[] => results.filter((each) => each.group === group);
const DESIGNS = results[0]?.counts.map(({ design }) => design) ?? [];

/** Counts as they are, and what was divided to three digits. */
const grouped = (value: number): string =>
  value.toLocaleString('en-US', Number.isInteger(value) ? {} : { maximumSignificantDigits: 3 });
const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [row(head), row(head.map((_cell, index) => (index === 0 ? '---' : '---:'))), ...rows.map(row)].join('\n');

/** Bytes as people say them. */
function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let [left, unit] = [value, 0];
  for (; left >= 1024; left /= 1024) unit++;
  return `${grouped(left)} ${units[unit] ?? ''}`;
}

function nanoseconds(value: number): string {
  if (value < 1000) return `${grouped(value)} ns`;
  return value < 1_000_000 ? `${grouped(value / 1000)} µs` : `${grouped(value / 1_000_000)} ms`;
}

type Pick = (result: StatusResult, index: number) => number;

const steps: Pick = ({ counts }, index) => counts[index]?.steps ?? NaN;
const callRatio: Pick = ({ times }, index) => times[index]?.callRatio ?? NaN;
const callNs: Pick = ({ times }, index) => times[index]?.callNs ?? NaN;
const hostBytes: Pick = ({ counts }, index) => counts[index]?.bytes ?? NaN;
const listNs: Pick = ({ times }, index) => times[index]?.listNs ?? NaN;

const seriesOf = (group: string, pick: Pick): readonly Series[] =>
  DESIGNS.map((name, index) => ({ name, points: inGroup(group).map((each) => [each.x, pick(each, index)] as const) }));

const PLOTS: Readonly<Record<string, Plot>> = {
  steps: {
    title: 'Steps of a call, by how many ranges there are',
    description:
      'The list and the donation grow with the number of ranges, the tree with its logarithm, the bitmap not at all.',
    xLabel: 'shared ranges, every second page',
    yLabel: 'nodes visited, words or entries written',
    series: seriesOf('fragmentation', steps),
  },
  time: {
    title: 'Time of a call, by how many ranges there are',
    description: 'List and tree meet at about a hundred ranges.',
    xLabel: 'shared ranges, every second page',
    yLabel: 'nanoseconds of processor time',
    series: seriesOf('fragmentation', callNs),
  },
  bytes: {
    title: 'What the host holds, by the size of the guest',
    description: 'The bitmap grows with the memory of the guest, the others with the number of its shared ranges.',
    xLabel: 'memory of the guest in GiB, with 60 shared regions',
    yLabel: 'bytes',
    series: seriesOf('size', hostBytes),
  },
  list: {
    title: 'Handing the set to user space, by the size of the guest',
    description: 'Finding the ranges in a bitmap takes as long as the bitmap is large.',
    xLabel: 'memory of the guest in GiB, with 60 shared regions',
    yLabel: 'nanoseconds of processor time',
    series: seriesOf('size', listNs),
  },
};

export const PLOT_NAMES = Object.keys(PLOTS);
export const plotFile = (name: string): string => `docs/page-encryption-status-${name}.svg`;
export const plotSvg = (name: string): string => svgOf(PLOTS[name] as Plot);

const image = (name: string): string => `![${PLOTS[name]?.title ?? ''}](page-encryption-status-${name}.svg)`;

const perDesign = (
  group: string,
  first: string,
  name: (result: StatusResult) => string,
  cell: (result: StatusResult, index: number) => string,
): string =>
  table(
    [first, ...DESIGNS],
    inGroup(group).map((each) => [name(each), ...DESIGNS.map((_design, index) => cell(each, index))]),
  );

/** Beside the list, of which the time itself is told. */
const beside = (ns: number, ratio: number, index: number): string =>
  DESIGNS[index] === 'range list' ? `1 = ${nanoseconds(ns)}` : grouped(ratio);

const workOf = ({ counts, times }: StatusResult, index: number): string => {
  const { steps: mean, mostSteps } = counts[index] ?? { steps: NaN, mostSteps: NaN };
  const { callNs: ns, callRatio: ratio } = times[index] ?? { callNs: NaN, callRatio: NaN };
  return `${grouped(mean)} (${grouped(mostSteps)}), ${beside(ns, ratio, index)}`;
};

const costOf = ({ counts, times }: StatusResult, index: number): string => {
  const { listNs: ns, listRatio: ratio } = times[index] ?? { listNs: NaN, listRatio: NaN };
  return `${bytes(counts[index]?.bytes ?? NaN)}, ${beside(ns, ratio, index)}`;
};

/** The first number of ranges at which the tree is below the list. */
const treeWinsFrom = (pick: Pick): number => {
  const [list, tree] = [DESIGNS.indexOf('range list'), DESIGNS.indexOf('interval tree')];
  return inGroup('fragmentation').find((each) => pick(each, tree) < pick(each, list))?.x ?? NaN;
};

const at = (group: string, x: number): StatusResult => inGroup(group).find((each) => each.x === x) as StatusResult;
const of = (pick: Pick, group: string, x: number, design: Design): number =>
  pick(at(group, x), DESIGNS.indexOf(design));

const rotationsOf = (group: string, x: number): string =>
  grouped(at(group, x).counts[DESIGNS.indexOf('interval tree')]?.rotations ?? NaN);

const HEAD = `# Which record of page-encryption status is best?

A guest with encrypted memory tells its host which pages it shares. In December 2020 and January 2021 the thread of "Add AMD SEV specific
Hypercall3" argued about where the host keeps that: the bitmap of the patches, a list of shared ranges (Sean Christopherson, Ashish
Kalra), an interval tree, or memory that the guest donates (both Steve Rutherford), by what each would have to do. This page measures it, with the four
that the simulator has (\`adapters/simulator/page-status\`), which keep one contract
([adr/0012-sev.md](adr/0012-sev.md)) and say the same of the same calls. It is written by \`npm run docs\` from
\`bench/status.json\`, and that by \`npm run bench -- status --json bench/status.json\`.
`;

const answer = (): string => `## The answer

- **For the log's own pages, the list; for 60 regions the tree, by a fifth at most.** With the log's own calls, from pages below the static ranges, it visits
  ${grouped(of(steps, 'boot', 0, 'range list'))} nodes a call, and the tree ${grouped(of(steps, 'boot', 0, 'interval tree'))}.
  Ashish Kalra's conclusion holds for his guest, and by more than he claimed, because of where the pages are: where DMA takes pages behind the static
  ranges, the list visits ${grouped(of(steps, 'boot', 1, 'range list'))} and the tree ${grouped(of(steps, 'boot', 1, 'interval tree'))}. With the 60 regions of Steve
  Rutherford's sample, and pages among them that go to and fro, the tree takes ${grouped(of(callRatio, 'size', 4, 'interval tree'))} of the time of the list, so that
  the simpler code may decide.
- **For a host that does not trust its guests with a large bound, the tree.** It visits fewer nodes than the list from ${treeWinsFrom(steps)} ranges on, and
  takes less time from ${treeWinsFrom(callNs)} on. At ${grouped(4096)} ranges, which a guest can have at will, a call costs
  ${grouped(1 / of(callRatio, 'fragmentation', 4096, 'interval tree'))} times as much with the list. With a bound of a
  few dozen the difference is small either way, so that the list will do.
- **Rotations are not what a tree costs.** "Expensive tree rotations" were the argument against it. There are ${rotationsOf('boot', 0)} of them a call with the log's
  calls, ${rotationsOf('size', 4)} with 60 regions: about one in four calls at most. What the tree pays with few ranges is the way down.
- **The bitmap is best at a call, and worst at everything else.** One word a call, whatever the guest has done. But it takes
  ${bytes(of(hostBytes, 'size', 4, 'bitmap'))} for 4 GiB and ${bytes(of(hostBytes, 'size', 16384, 'bitmap'))} for 16 TiB, of which all is read
  (${nanoseconds(of(listNs, 'size', 16384, 'bitmap'))}) to find 60 ranges, and one call about all memory writes all of it. It alone needs no bound on ranges and no
  mark for them; it is for hosts whose guests are small, and need not be trusted.
- **The donation takes the host's work away, and not the work.** ${bytes(of(hostBytes, 'size', 4, 'guest donation'))} and no step of the host for any call. The
  guest pays what the list pays, or more, as it moves entries of an array; a guest with a tree of its own would pay less. The host pays when it reads: it must
  copy, and check every entry. Donate once, and a guest that calls for ever is found out at its second call. What the guest gave does not grow
  when memory is plugged: it ends in the mark, as a list does at its bound.
`;

const boot = (): string => `## The boot of the log

The calls of the mail's log, over and over, and 18 static ranges, of the 15 to 20 that it speaks of. In the log the pages are below 512 MiB and
the ranges, which firmware sets up for MMIO, are taken to be from 3 GiB on; below that, the same with pages above 4 GiB. Steps of a call in
the mean (and at most), and its time beside that of the list, each round of the run by itself.

${perDesign('boot', 'workload', ({ workload }) => workload, workOf)}
`;

const fragmentation = (): string => `## The worst fragmentation

Every second page is shared, up to the bound, and one after the other is taken back and shared again. This is what a guest does that wants to
cost its host as much as it can.

${image('steps')}

${image('time')}

${perDesign('fragmentation', 'ranges', ({ x }) => grouped(x), workOf)}

One call can also undo everything. Such a call costs a list or tree what the calls before it had to build up, and a bitmap
its whole size, without any:

${table(
  ['steps of one call', ...DESIGNS],
  largestCalls.map(({ gib, ranges, calls }) => [
    `${grouped(gib)} GiB made private, ${grouped(ranges)} ranges before`,
    ...calls.map((call) => grouped(call.steps)),
  ]),
)}
`;

const size = (): string => `## Guests of 4 GiB to 16 TiB

60 regions of 2 MiB, spread over the memory, and pages between them that go to and fro, four at a time: the "60ish
discontiguous shared regions" of Steve Rutherford's sample. First the calls, as above; then what the host holds, and what it takes to hand the set to
user space, beside the list.

${perDesign('size', 'guest', ({ workload }) => workload, workOf)}

${image('bytes')}

${image('list')}

${perDesign('size', 'guest', ({ workload }) => workload, costOf)}

User space gets 16 bytes for each range, in every design: ${bytes(60 * 16)} here. The patches' own ioctl hands over the bits as they
are, which is as much as the host holds.
`;

const TAIL = `## What this does not answer

- **How many ranges large guests have.** The thread has one sample, of one Ubuntu 20.04. Here guests of 16 TiB have 60 regions like small ones, because nobody has
  said anything else. If they have thousands, the tree is the answer for them.
- **Nanoseconds of a kernel.** The structures are written in TypeScript, as a kernel would write them, and run in one process whose caches are warm. Steps
  are those of the algorithm; the place at which list and tree meet in time will be another one in C, where what counts is cache misses. The
  processor did other work as well; single times vary by a third, so that only orders of magnitude mean anything.
- **Locks and allocation.** kmalloc() may fail and takes its time; a bitmap needs none after the start, list and tree one for each new range. vCPUs that call at the same
  time were not measured: a word of a bitmap can be set without a lock.
- **The guest's side** of an announcement, which is an exit, and costs more than any record with a few dozen ranges. Keeping DMA pages shared, as David Gilbert
  proposed, saves more than any choice of structure.
- **Other structures.** A sorted array or a maple tree were not proposed. The donation is measured with an array, as its simplest form.
- In Linux 7.3 the kernel keeps no record at all. The choice is that of each VMM.
`;

export const pageStatusMarkdown = (): string => [HEAD, answer(), boot(), fragmentation(), size(), TAIL].join('\n');
