/** Memory as the hardware has it: words, and lines that are bad. Caches are written back between commands, so there are none. */
import type { FrameRun, LineFact } from '../../../model/core/facts.ts';

/** Lines of a page. */
export const LINES: readonly number[] = [0, 1];

/** What a load that consumes poison gives. */
export type Loaded = bigint | 'poison';

export class PhysicalMemory {
  /** The first word of each line, by frame. */
  private readonly words = new Map<number, bigint[]>();
  /** Bad lines, by frame. */
  private readonly bad = new Map<number, Set<number>>();

  load(frame: number, line: number): Loaded {
    return this.isBad(frame, line) ? 'poison' : this.word(frame, line);
  }

  /** Raises nothing, and leaves a bad line bad. */
  store(frame: number, line: number, value: bigint): void {
    const words = this.words.get(frame) ?? LINES.map(() => 0n);
    words[line] = value;
    this.words.set(frame, words);
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

  private word(frame: number, line: number): bigint {
    return this.words.get(frame)?.[line] ?? 0n;
  }

  /** Bad lines of these frames. */
  badLines(frames: readonly number[]): readonly LineFact[] {
    return frames.flatMap((frame) =>
      [...(this.bad.get(frame) ?? [])].map((line): LineFact => ({ frame, line, state: 'poisoned' })),
    );
  }
}

/** Frames as runs, which facts speak of. */
export const runs = (frames: Iterable<number>): readonly FrameRun[] =>
  [...frames].sort((a, b) => a - b).map((frame) => ({ frame, count: 1 }));
