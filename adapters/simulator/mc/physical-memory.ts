/** Memory as the hardware has it: words, lines that are bad, and a cache, which keeps only what speculation has fetched. */
import type { CachedFact, FrameRun, LineFact } from '../../../model/core/facts.ts';
import type { McCached } from '../../../model/core/machine-check.ts';

/** Lines of a page. */
export const LINES: readonly number[] = [0, 1];

/** What a load that consumes poison gives. */
export type Loaded = bigint | 'poison';

export interface CacheLine {
  state: McCached;
  word: bigint;
}

export class PhysicalMemory {
  /** The first word of each line, by frame. */
  private readonly words = new Map<number, bigint[]>();
  /** Bad lines, by frame. */
  private readonly bad = new Map<number, Set<number>>();
  /** By frame, and by line. */
  private readonly cache = new Map<number, Map<number, CacheLine>>();

  load(frame: number, line: number): Loaded {
    const hit = this.hit(frame, line);
    if (hit !== undefined) return hit.state === 'poisoned' ? 'poison' : hit.word;
    return this.isBad(frame, line) ? 'poison' : this.word(frame, line);
  }

  /** Raises nothing, and leaves poison what it is. */
  store(frame: number, line: number, value: bigint): void {
    const hit = this.hit(frame, line);
    if (hit === undefined) this.write(frame, line, value);
    else if (hit.state !== 'poisoned') Object.assign(hit, { state: 'dirty', word: value });
  }

  /** By speculation: nobody consumes what is bad. */
  fetch(frame: number, line: number): void {
    if (this.hit(frame, line) !== undefined || this.isBad(frame, line)) return;
    const lines = this.cache.get(frame) ?? new Map<number, CacheLine>();
    this.cache.set(frame, lines.set(line, { state: 'clean', word: this.word(frame, line) }));
  }

  /** A cache has the line no more. Tells whether poison went to memory. */
  writeBack(frame: number, line: number): boolean {
    const hit = this.hit(frame, line);
    this.cache.get(frame)?.delete(line);
    return hit !== undefined && this.toMemory(frame, line, hit);
  }

  protected toMemory(frame: number, line: number, { state, word }: CacheLine): boolean {
    if (state === 'dirty') this.write(frame, line, word);
    if (state === 'poisoned') this.spoil(frame, line);
    return state === 'poisoned';
  }

  /** What a store has left in a cache goes bad. Tells whether there is such. */
  spoilCached(frame: number, line: number): boolean {
    const hit = this.hit(frame, line);
    if (hit?.state !== 'dirty') return false;
    hit.state = 'poisoned';
    return true;
  }

  spoil(frame: number, line: number): void {
    this.bad.set(frame, new Set([...(this.bad.get(frame) ?? []), line]));
  }

  isBad(frame: number, line: number): boolean {
    return this.bad.get(frame)?.has(line) === true;
  }

  hasBadLine(frame: number): boolean {
    return this.bad.has(frame);
  }

  private write(frame: number, line: number, value: bigint): void {
    const words = this.words.get(frame) ?? LINES.map(() => 0n);
    words[line] = value;
    this.words.set(frame, words);
  }

  private hit(frame: number, line: number): CacheLine | undefined {
    return this.cache.get(frame)?.get(line);
  }

  private word(frame: number, line: number): bigint {
    return this.words.get(frame)?.[line] ?? 0n;
  }

  /** Bad lines of these frames. */
  badLines(frames: readonly number[]): readonly LineFact[] {
    return frames.flatMap((frame) =>
      [...(this.bad.get(frame) ?? [])].map((line): LineFact => ({ frame, line, state: 'poisoned' })),
    );
  }

  /** Lines of these frames that are in a cache. */
  cachedLines(frames: readonly number[]): readonly CachedFact[] {
    return frames.flatMap((frame) =>
      [...(this.cache.get(frame) ?? [])].map(([line, { state }]): CachedFact => ({ frame, line, state })),
    );
  }
}

/** Frames as runs, which facts speak of. */
export const runs = (frames: Iterable<number>): readonly FrameRun[] =>
  [...frames].sort((a, b) => a - b).map((frame) => ({ frame, count: 1 }));
