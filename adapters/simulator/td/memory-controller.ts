/**
 * Memory with integrity: each line carries the key that it was written under and a code (MAC) computed with it. Source:
 * Intel TDX Module architecture specification, chapter on memory integrity; the erratum X86_BUG_TDX_PW_MCE in
 * Documentation/arch/x86/tdx.rst.
 */

/** Lines of a page that commands can name. */
export const LINES_PER_PAGE = 2;
export const LINES: readonly number[] = [0, 1];

/** The key that everything of the host is under. */
export const SHARED_KEY = 0;

export type Width = 'word' | 'line';

/** What a load of a line gives: its first word, or nothing but poison. */
export type Loaded = bigint | 'poison';

export interface Line {
  value: bigint;
  /** The key that its code was computed with. */
  keyId: number;
  isPoisoned: boolean;
}

export class MemoryController {
  private readonly lines = new Map<number, Line>();
  /** Lines that caches may hold, by private key. */
  private readonly cached = new Map<number, Set<number>>();

  /** A line that was never written is zero and the host's. */
  lineAt(frame: number, line: number): Readonly<Line> {
    return this.lines.get(numberOf(frame, line)) ?? { value: 0n, keyId: SHARED_KEY, isPoisoned: false };
  }

  load(frame: number, line: number, keyId: number): Loaded {
    const found = this.lineAt(frame, line);
    if (found.isPoisoned) return 'poison';
    // The TD-owner bit of the line is set: without the key there is nothing to check, and nothing to see.
    if (keyId === SHARED_KEY && found.keyId !== SHARED_KEY) return 0n;
    if (found.keyId !== keyId) {
      this.write(frame, line, { ...found, isPoisoned: true });
      return 'poison';
    }
    this.remember(frame, line, keyId);
    return found.value;
  }

  /** A store of a part of a line must take the rest from memory; one of the whole line needs nothing of what was there. */
  store(frame: number, line: number, keyId: number, value: bigint, width: Width): void {
    this.remember(frame, line, keyId);
    const { keyId: before, isPoisoned } = this.lineAt(frame, line);
    this.write(frame, line, { value, keyId, isPoisoned: width === 'word' && (isPoisoned || before !== keyId) });
  }

  /** Lines under the key leave the caches; of one page alone, where it is given. */
  writeBack(keyId: number, frame?: number): void {
    const held = this.cached.get(keyId);
    if (held === undefined) return;
    if (frame === undefined) held.clear();
    else for (const line of LINES) held.delete(numberOf(frame, line));
  }

  isFlushed(keyId: number): boolean {
    return (this.cached.get(keyId)?.size ?? 0) === 0;
  }

  /** Lines that are not as memory of the host is: poisoned, or under a private key. */
  unusual(): { frame: number; line: number; state: Readonly<Line> }[] {
    return [...this.lines]
      .filter(([, { keyId, isPoisoned }]) => isPoisoned || keyId !== SHARED_KEY)
      .map(([number, state]) => ({ frame: Math.floor(number / LINES_PER_PAGE), line: number % LINES_PER_PAGE, state }));
  }

  reset(): void {
    this.lines.clear();
    this.cached.clear();
  }

  private write(frame: number, line: number, state: Line): void {
    this.lines.set(numberOf(frame, line), state);
  }

  private remember(frame: number, line: number, keyId: number): void {
    if (keyId === SHARED_KEY) return;
    const held = this.cached.get(keyId) ?? new Set();
    this.cached.set(keyId, held.add(numberOf(frame, line)));
  }
}

const numberOf = (frame: number, line: number): number => frame * LINES_PER_PAGE + line;
