/** What guests announce: the workloads on which the four records of page-encryption status are measured. */
import type { Range } from '../adapters/simulator/page-status/record.ts';

export interface Announcement extends Range {
  readonly shared: boolean;
}

export interface Workload {
  readonly name: string;
  /** Frames of the guest's memory. */
  readonly frames: number;
  /** What the guest shares from its start on. */
  readonly initial: readonly Announcement[];
  /** Comes over and over. */
  readonly stream: readonly Announcement[];
}

export const GIB = 2 ** 18;
const PAGES_OF_2M = 512;
/** Firmware maps devices from here on. */
const MMIO = 0xc_0000;
const STATIC_RANGES = 18;
const REGIONS = 60;
/** DMA buffers that a guest has at a time. */
const OUTSTANDING = 4;
const STREAM_CALLS = 4096;

/** xorshift32: the same numbers everywhere. */
export function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
}

/** The calls that the mail of January 2021 shows of a booting guest, in order: address, pages, encrypted. */
const LOG: readonly (readonly [gpa: number, pages: number, encrypted: 0 | 1])[] = [
  [0x1f018000, 1, 1],
  [0x1f00e000, 1, 0],
  [0x1f00e000, 1, 0],
  [0x1f018000, 1, 0],
  [0x1f008000, 1, 0],
  [0x1f006000, 1, 0],
  [0x1f008000, 1, 1],
  [0x1f006000, 1, 1],
  [0x1f007000, 1, 0],
  [0x1f005000, 1, 0],
  [0x1f007000, 1, 1],
  [0x1f005000, 1, 1],
  [0x1e83b000, 1, 0],
  [0x1e839000, 1, 0],
  [0x1e83b000, 1, 1],
  [0x1e839000, 1, 1],
  [0x1e5eb000, 1, 0],
  [0x1e5e9000, 1, 0],
  [0x1e5eb000, 1, 1],
  [0x1e5e9000, 1, 1],
  [0x1d767000, 100, 0],
  [0x1e501000, 1, 1],
  [0x1d767000, 100, 1],
  [0x1e501000, 1, 0],
  [0x1d767000, 100, 0],
  [0x1e501000, 1, 1],
];

const logStream: readonly Announcement[] = LOG.map(([gpa, pages, encrypted]) => ({
  start: gpa / 4096,
  end: gpa / 4096 + pages,
  shared: encrypted === 0,
}));

const share = (start: number, pages: number): Announcement => ({ start, end: start + pages, shared: true });

/** Ranges of 2 MiB, so far from each other. */
const spread = (ranges: number, from: number, distance: number): readonly Announcement[] =>
  Array.from({ length: ranges }, (_range, index) => share(from + index * distance, PAGES_OF_2M));

/** Pages between such ranges that are shared one by one and taken back, a few at a time, each at a place from chance. */
function churn(frames: number, distance: number): readonly Announcement[] {
  const random = numbers(1);
  const taken: number[] = [];
  const stream: Announcement[] = [];
  while (stream.length < STREAM_CALLS - OUTSTANDING || taken.length > 0) {
    const page = random(frames);
    if (taken.length === OUTSTANDING || stream.length >= STREAM_CALLS - OUTSTANDING) {
      const [oldest = 0] = taken.splice(random(taken.length), 1);
      stream.push({ start: oldest, end: oldest + 1, shared: false });
    } else if (page % distance >= PAGES_OF_2M && !taken.includes(page)) {
      taken.push(page);
      stream.push(share(page, 1));
    }
  }
  return stream;
}

/** The log as it stands, over and over, below the static ranges. */
export const BOOT: Workload = {
  name: 'boot, the log',
  frames: GIB / 2,
  initial: spread(STATIC_RANGES, MMIO, Math.floor((4 * GIB - MMIO) / STATIC_RANGES)),
  stream: logStream,
};

/** The same guest with more memory, of which DMA takes pages behind the static ranges. */
export const BOOT_ABOVE: Workload = {
  name: 'boot, the log above 4 GiB',
  frames: 8 * GIB,
  initial: BOOT.initial,
  stream: logStream.map(({ start, end, shared }) => ({ start: start + 4 * GIB, end: end + 4 * GIB, shared })),
};

/** As many regions as the thread has seen in a running guest, and pages among them that go to and fro. */
export function steady(gib: number): Workload {
  const frames = gib * GIB;
  const distance = Math.floor(frames / REGIONS);
  return {
    name: `${REGIONS} regions, ${gib >= 1024 ? `${gib / 1024} TiB` : `${gib} GiB`}`,
    frames,
    initial: spread(REGIONS, 0, distance),
    stream: churn(frames, distance),
  };
}

/** Every second page, and of those one at a time that is taken back and shared again. */
export function fragmented(ranges: number): Workload {
  const random = numbers(1);
  const initial = Array.from({ length: ranges }, (_range, index) => share(2 * index, 1));
  const stream = Array.from({ length: STREAM_CALLS / 2 }, () => {
    const page = 2 * random(ranges);
    return [{ start: page, end: page + 1, shared: false }, share(page, 1)];
  }).flat();
  return { name: `${ranges} ranges`, frames: 4 * GIB, initial, stream };
}

export const FRAGMENTATION: readonly number[] = [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
export const SIZES_GIB: readonly number[] = [4, 16, 64, 256, 1024, 4096, 16384];
