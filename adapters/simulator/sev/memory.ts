/**
 * Memory whose pages are under keys, behind caches that are coherent between keys but tag lines with ASIDs. A line that stays
 * behind when its ASID is given to another guest is a hit for that guest. A page is told by its first word. Loads and stores
 * see memory as if it were written through; who gets a page that has a dirty line finds in it one day what that line held.
 * Source: AMD64 Architecture Programmer's Manual, volume 2, 7.10.6 and 15.34.
 */
export type Word = bigint | 'ciphertext';

/** A page that somebody has written under a key. What is encrypted already is ciphertext to whoever encrypts it again. */
interface Page {
  readonly key: number;
  readonly word: Word;
}

interface Line extends Page {
  readonly asid: number;
  /** It is still to be written back. */
  readonly isDirty: boolean;
}

export class KeyedMemory {
  /** Pages that are not the host's, by frame. Those of the host read as zero. */
  private readonly pages = new Map<number, Page>();
  /** Lines in the caches of processors, by frame: of one ASID each, as they are coherent. */
  private readonly lines = new Map<number, Line>();
  /** Lines on their way from the caches to memory. */
  private readonly fabric = new Map<number, Line>();

  /** A load by a guest that runs with an ASID, for which the firmware has set up the key. */
  load(frame: number, asid: number, key: number): Word {
    const hit = [this.lines.get(frame), this.fabric.get(frame)].find((line) => line?.asid === asid);
    if (hit !== undefined) return hit.word;
    const word = this.decrypt(frame, key);
    this.fill(frame, { asid, key, word, isDirty: false });
    return word;
  }

  store(frame: number, asid: number, key: number, word: bigint): void {
    this.pages.set(frame, { key, word });
    this.fill(frame, { asid, key, word, isDirty: true });
  }

  /** LAUNCH_UPDATE_DATA: what the host sees of the page is written again under the key, behind the caches. */
  encryptInPlace(frame: number, key: number): void {
    this.clflush(frame);
    this.pages.set(frame, { key, word: this.pages.has(frame) ? 'ciphertext' : 0n });
  }

  /** The host writes zeroes. */
  clear(frame: number): void {
    this.clflush(frame);
    this.pages.delete(frame);
  }

  /** WBNOINVD: what is dirty is written back, and every line stays. */
  wbnoinvd(): void {
    for (const [frame, line] of this.lines) this.lines.set(frame, { ...line, isDirty: false });
  }

  /** WBINVD on every processor. */
  wbinvd(): void {
    this.wbnoinvd();
    for (const [frame, line] of this.lines) this.fabric.set(frame, line);
    this.lines.clear();
  }

  /** DF_FLUSH */
  dfFlush(): void {
    this.fabric.clear();
  }

  /** Whether a line is left under the ASID of what was written under another key than this one. */
  holdsOther(asid: number, key: number | undefined): boolean {
    return [...this.lines.values(), ...this.fabric.values()].some((line) => line.asid === asid && line.key !== key);
  }

  /** Frames of which a line is still to be written back. */
  get dirtyFrames(): readonly number[] {
    return [...this.lines].filter(([, { isDirty }]) => isDirty).map(([frame]) => frame);
  }

  private decrypt(frame: number, key: number): Word {
    const page = this.pages.get(frame);
    return page?.key === key ? page.word : 'ciphertext';
  }

  private fill(frame: number, line: Line): void {
    this.fabric.delete(frame);
    this.lines.set(frame, line);
  }

  private clflush(frame: number): void {
    this.lines.delete(frame);
    this.fabric.delete(frame);
  }
}
