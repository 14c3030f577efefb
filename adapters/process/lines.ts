/** What a child process writes, as lines and as text that harms no terminal. */

/** So long may a line be. */
export const MAX_LINE_BYTES = 4 * 1024 * 1024;

const NEWLINE = 0x0a;

/** Cuts a stream of bytes into lines, and holds no more than one of them. */
export class LineReader {
  readonly #deliver: (line: Buffer) => void;
  readonly #tooLong: () => void;
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** `tooLong` is called instead of `deliver` for a line that is, and then nothing is read any more. */
  constructor(deliver: (line: Buffer) => void, tooLong: () => void) {
    this.#deliver = deliver;
    this.#tooLong = tooLong;
  }

  /** Bytes of a line that has not been ended. */
  get unended(): number {
    return this.#bytes;
  }

  push(chunk: Buffer): void {
    for (let rest = chunk; this.#bytes <= MAX_LINE_BYTES;) {
      const end = rest.indexOf(NEWLINE);
      this.#add(end < 0 ? rest : rest.subarray(0, end));
      if (this.#bytes > MAX_LINE_BYTES) this.#overflow();
      else if (end >= 0) this.#deliver(this.#take());
      if (end < 0) return;
      rest = rest.subarray(end + 1);
    }
  }

  #add(part: Buffer): void {
    this.#chunks.push(part);
    this.#bytes += part.length;
  }

  #take(): Buffer {
    const line = Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#bytes = 0;
    return line;
  }

  #overflow(): void {
    this.#chunks = [];
    this.#tooLong();
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The line as text, or undefined where it is not UTF-8. */
export function decoded(line: Buffer): string | undefined {
  try {
    return utf8.decode(line);
  } catch {
    return undefined;
  }
}

/** What a stranger wrote, without what would steer a terminal; line ends and tabs stay. */
export const harmless = (text: string): string => text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');

const QUOTED_CHARACTERS = 160;

/** A line as messages quote it. */
export function quoted(line: Buffer): string {
  const text = harmless(line.subarray(0, 4 * QUOTED_CHARACTERS).toString('utf8')).replace(/[\n\t]/g, '?');
  return text.length <= QUOTED_CHARACTERS ? text : `${text.slice(0, QUOTED_CHARACTERS)}…`;
}
