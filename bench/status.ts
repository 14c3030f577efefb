/** The thread's open question: which record of what a guest shares is best, and for whom? */
import { Bitmap } from '../adapters/simulator/page-status/bitmap.ts';
import { GuestDonation, Structure } from '../adapters/simulator/page-status/guest-donation.ts';
import { IntervalTree } from '../adapters/simulator/page-status/interval-tree.ts';
import { RangeList } from '../adapters/simulator/page-status/range-list.ts';
import type { Range, StatusRecord } from '../adapters/simulator/page-status/record.ts';
import { RunMap } from '../adapters/simulator/ranges.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { cpuRatio, takeTurns, type Measured } from './measure.ts';
import { count, printTable, ratio, say } from './print.ts';
import {
  BOOT,
  BOOT_ABOVE,
  FRAGMENTATION,
  fragmented,
  GIB,
  SIZES_GIB,
  steady,
  type Announcement,
  type Workload,
} from './status-workloads.ts';

/** No workload needs more ranges. */
const BOUND = 20_000;
const ENTRY_BYTES = 16;

/** What is measured: announcements go in, and the set comes out. */
interface Contestant {
  readonly record: StatusRecord;
  /** Nodes, elements and words; of the donation those that the guest writes. */
  readonly steps: () => number;
  readonly rotations: () => number;
  readonly note: (announcement: Announcement) => void;
}

const none = (): number => 0;

const contestant = (record: StatusRecord, rotations = none): Contestant => ({
  record,
  steps: () => record.steps,
  rotations,
  note: ({ start, end, shared }) => {
    record.note(start, end, shared);
  },
});

/** The guest notes what it shares, and writes it down. */
function donation(): Contestant {
  const pageTables = new RunMap<true>();
  const record = new GuestDonation(pageTables);
  record.structure = new Structure(BOUND, () => {
    throw new Error('the host reads outside of the structure');
  });
  return {
    record,
    steps: () => record.written,
    rotations: none,
    note: ({ start, end, shared }) => {
      if (shared) pageTables.set(start, end, true);
      else pageTables.delete(start, end);
      record.note(start);
    },
  };
}

const DESIGNS = ['bitmap', 'range list', 'interval tree', 'guest donation'] as const;
export type Design = (typeof DESIGNS)[number];

const CREATE: Readonly<Record<Design, (frames: number) => Contestant>> = {
  bitmap: (frames) => contestant(new Bitmap(frames)),
  'range list': () => contestant(new RangeList(BOUND)),
  'interval tree': () => {
    const tree = new IntervalTree(BOUND);
    return contestant(tree, () => tree.rotations);
  },
  'guest donation': donation,
};

function create(design: Design, { frames, initial }: Workload): Contestant {
  const made = CREATE[design](frames);
  initial.forEach(made.note);
  return made;
}

/** What does not depend on the machine. */
export interface Counted {
  readonly design: Design;
  /** In the mean and at most, for a call of the stream. */
  readonly steps: number;
  readonly mostSteps: number;
  readonly rotations: number;
  /** Of the host. */
  readonly bytes: number;
  /** Ranges that there are behind the stream, and the steps and bytes of handing them to user space. */
  readonly ranges: number;
  readonly listSteps: number;
  readonly listBytes: number;
}

const round = (value: number): number => Number(value.toPrecision(4));

export function countsOf(workload: Workload): readonly Counted[] {
  return DESIGNS.map((design) => {
    const made = create(design, workload);
    const [before, rotationsBefore] = [made.steps(), made.rotations()];
    let mostSteps = 0;
    for (const announcement of workload.stream) {
      const sofar = made.steps();
      made.note(announcement);
      mostSteps = Math.max(mostSteps, made.steps() - sofar);
    }
    const calls = workload.stream.length;
    const steps = round((made.steps() - before) / calls);
    const rotations = round((made.rotations() - rotationsBefore) / calls);
    const { record } = made;
    const { bytes, steps: beforeList } = record;
    const ranges = (record.read() as readonly Range[]).length;
    const listSteps = record.steps - beforeList;
    return { design, steps, mostSteps, rotations, bytes, ranges, listSteps, listBytes: ranges * ENTRY_BYTES };
  });
}

/** Nanoseconds of processor time, on one machine; ratios are the medians of those of each round. */
interface Timed {
  readonly design: Design;
  readonly callNs: number;
  readonly callRatio: number;
  readonly listNs: number;
  readonly listRatio: number;
}

/** A round of calls takes about so many. */
const CALLS = 20_000;
/** A list that walks ten thousand nodes takes its time. */
const VISITS = 4_000_000;
/** Hand-overs of a round, together, at least. */
const HAND_OVER_STEPS = 400_000;

async function timesOf(workload: Workload, counts: readonly Counted[], quick: boolean): Promise<readonly Timed[]> {
  const rounds = quick ? { warmUps: 1, rounds: 3 } : { warmUps: 3, rounds: 9 };
  const made = DESIGNS.map((design) => ({ name: design, ...create(design, workload) }));
  const { stream } = workload;
  const most = Math.max(...counts.map(({ steps }) => steps));
  const times = Math.max(1, Math.round(Math.min(CALLS, VISITS / most) / stream.length));
  const calls = await takeTurns(
    made.map(({ name, note }) => ({
      name,
      run: () => {
        for (let time = 0; time < times; time++) stream.forEach(note);
        return times * stream.length;
      },
    })),
    rounds,
  );
  const lists = await takeTurns(
    made.map(({ name, record }, index) => {
      const handOvers = Math.ceil(HAND_OVER_STEPS / (counts[index] as Counted).listSteps);
      return {
        name,
        run: () => {
          for (let time = 0; time < handOvers; time++) record.read();
          return handOvers;
        },
      };
    }),
    rounds,
  );
  const base = DESIGNS.indexOf('range list');
  return DESIGNS.map((design, index) => {
    const [call, list] = [calls[index] as Measured, lists[index] as Measured];
    return {
      design,
      callNs: round(call.cpu),
      callRatio: round(cpuRatio(call, calls[base] as Measured)),
      listNs: round(list.cpu),
      listRatio: round(cpuRatio(list, lists[base] as Measured)),
    };
  });
}

/** One call about all memory, which was shared in alternate pages up to the bound: what a hostile guest can make a call cost. */
export function largestCall(
  gib: number,
  ranges: number,
): readonly { readonly design: Design; readonly steps: number }[] {
  return DESIGNS.map((design) => {
    const workload = fragmented(ranges);
    const made = create(design, { ...workload, frames: gib * GIB });
    const before = made.steps();
    made.note({ start: 0, end: gib * GIB, shared: false });
    return { design, steps: made.steps() - before };
  });
}

export interface StatusResult {
  readonly workload: string;
  readonly group: string;
  /** What the group varies: ranges, or GiB. */
  readonly x: number;
  readonly counts: readonly Counted[];
  readonly times: readonly Timed[];
}

/** What is written with --json. */
export interface StatusMeasured {
  readonly results: readonly StatusResult[];
  readonly largestCalls: readonly {
    readonly gib: number;
    readonly ranges: number;
    readonly calls: ReturnType<typeof largestCall>;
  }[];
}

interface Group {
  readonly name: string;
  readonly workloads: readonly { readonly x: number; readonly workload: Workload }[];
}

export const GROUPS: readonly Group[] = [
  {
    name: 'boot',
    workloads: [
      { x: 0, workload: BOOT },
      { x: 1, workload: BOOT_ABOVE },
    ],
  },
  { name: 'fragmentation', workloads: FRAGMENTATION.map((x) => ({ x, workload: fragmented(x) })) },
  { name: 'size', workloads: SIZES_GIB.map((x) => ({ x, workload: steady(x) })) },
];

async function status({ quick }: BenchOptions): Promise<StatusMeasured> {
  const results: StatusResult[] = [];
  for (const { name: group, workloads } of GROUPS)
    for (const { x, workload } of workloads) {
      const counts = countsOf(workload);
      const times = await timesOf(workload, counts, quick);
      results.push({ workload: workload.name, group, x, counts, times });
      print(workload.name, counts, times);
    }
  return { results, largestCalls: [4, 64, 1024].map((gib) => ({ gib, ranges: 4096, calls: largestCall(gib, 4096) })) };
}

function print(name: string, counts: readonly Counted[], times: readonly Timed[]): void {
  const head = [name, 'steps', 'most', 'ns/call', 'ratio', 'bytes', 'list steps', 'list ns', 'ratio'];
  const rows = counts.map((each, index) => {
    const { callNs, callRatio, listNs, listRatio } = times[index] as Timed;
    return [
      each.design,
      ratio(each.steps),
      count(each.mostSteps),
      count(callNs),
      ratio(callRatio),
      count(each.bytes),
      count(each.listSteps),
      count(listNs),
      ratio(listRatio),
    ];
  });
  say(`${printTable(head, rows)}\n`);
}

export const STATUS: Bench = {
  name: 'status',
  question: 'Which record of the pages that a guest shares is best, and for whom? (ratios: range list = 1)',
  run: status,
};
