/**
 * Caches that tell lines by address and key, over memory without integrity: the copies of one line under two keys know
 * nothing of each other. Source: AMD64 Architecture Programmer's Manual, volume 2, 15.34.9.
 */
import type { Word } from './host-mm.ts';
import { LINES } from './memory-controller.ts';

/** What is seen of a line under a key. */
type Seen = Exclude<Word, 'poison'>;

interface Copy {
  word: Seen;
  isDirty: boolean;
}

interface MemoryLine {
  value: bigint;
  key: number;
}

export class KeyedCache {
  private readonly memory = new Map<string, MemoryLine>();
  private readonly copies = new Map<string, Map<number, Copy>>();

  load(frame: number, line: number, key: number): Seen {
    const copies = this.copiesOf(frame, line);
    const copy = copies.get(key) ?? { word: this.decrypt(frame, line, key), isDirty: false };
    copies.set(key, copy);
    return copy.word;
  }

  store(frame: number, line: number, key: number, value: bigint): void {
    this.copiesOf(frame, line).set(key, { word: value, isDirty: true });
  }

  /** Both copies leave, that of the key last which is written last. */
  evict(frame: number, line: number, last: number): void {
    const copies = this.copiesOf(frame, line);
    for (const key of [...[...copies.keys()].filter((each) => each !== last), last]) {
      const copy = copies.get(key);
      if (copy?.isDirty === true && typeof copy.word === 'bigint') this.write(frame, line, key, copy.word);
    }
    copies.clear();
  }

  /** CLFLUSH of each line of a page. */
  clflush(frame: number): void {
    for (const line of LINES) this.evict(frame, line, 0);
  }

  /** The line, as memory has it from now on. */
  write(frame: number, line: number, key: number, value: bigint): void {
    this.memory.set(numberOf(frame, line), { value, key });
  }

  holds(key: number): boolean {
    return [...this.copies.values()].some((copies) => copies.has(key));
  }

  reset(): void {
    this.memory.clear();
    this.copies.clear();
  }

  private decrypt(frame: number, line: number, key: number): Seen {
    const { value, key: under } = this.memory.get(numberOf(frame, line)) ?? { value: 0n, key: 0 };
    return under === key ? value : 'ciphertext';
  }

  private copiesOf(frame: number, line: number): Map<number, Copy> {
    const number = numberOf(frame, line);
    const copies = this.copies.get(number) ?? new Map<number, Copy>();
    this.copies.set(number, copies);
    return copies;
  }
}

const numberOf = (frame: number, line: number): string => `${frame}:${line}`;
