/**
 * A bit for each frame, set where it is shared. Source: v2 "Add AMD SEV specific Hypercall3", December 2020:
 * kvm_sev_page_enc_bitmap, which sev_resize_page_enc_bitmap() makes larger, here only when memory is plugged.
 */
import type { Range, StatusRecord } from './record.ts';

/** unsigned long: a unit. It is two elements of the array. */
const WORD_BITS = 64;
const WORD_BYTES = 8;
const ELEMENT_BITS = 32;
const ALL = 0xffff_ffff;

/** Frames below 4 GiB always have a bit: firmware is there, and MMIO. */
const FRAMES_BELOW_4G = 2 ** 20;

const words = (frames: number): number => Math.ceil(Math.max(frames, FRAMES_BELOW_4G) / WORD_BITS);

export class Bitmap implements StatusRecord {
  steps = 0;
  private bits: Uint32Array;
  /** Elements outside of these two are zero. */
  private firstSet = Infinity;
  private lastSet = -1;
  /** What peek() has seen since the last change. */
  private seen: readonly Range[] | undefined;

  constructor(frames: number) {
    this.bits = new Uint32Array(2 * words(frames));
  }

  get units(): number {
    return this.bits.length / 2;
  }

  get bytes(): number {
    return this.units * WORD_BYTES;
  }

  note(start: number, end: number, shared: boolean): boolean {
    const last = Math.min(end, this.bits.length * ELEMENT_BITS);
    if (shared && last < end) return false;
    if (start < last) this.write(start, last, shared);
    return true;
  }

  /** bitmap_set(), bitmap_clear() */
  private write(start: number, end: number, shared: boolean): void {
    this.seen = undefined;
    const first = Math.floor(start / ELEMENT_BITS);
    const last = Math.floor((end - 1) / ELEMENT_BITS);
    const head = (ALL << (start % ELEMENT_BITS)) >>> 0;
    const tail = ALL >>> (ELEMENT_BITS - 1 - ((end - 1) % ELEMENT_BITS));
    if (first === last) this.writeMasked(first, head & tail, shared);
    else {
      this.writeMasked(first, head, shared);
      this.bits.fill(shared ? ALL : 0, first + 1, last);
      this.writeMasked(last, tail, shared);
    }
    this.steps += Math.floor(last / 2) - Math.floor(first / 2) + 1;
    if (!shared) return;
    this.firstSet = Math.min(this.firstSet, first);
    this.lastSet = Math.max(this.lastSet, last);
  }

  private writeMasked(at: number, mask: number, shared: boolean): void {
    const before = this.bits[at] as number;
    this.bits[at] = shared ? before | mask : before & ~mask;
  }

  /** find_next_bit(), find_next_zero_bit() until the end: every word is read. */
  read(): readonly Range[] {
    this.steps += this.units;
    return this.scan(0, this.bits.length);
  }

  /** Where nothing was ever set there is nothing to be seen. */
  peek(): readonly Range[] {
    return (this.seen ??= this.scan(this.firstSet, this.lastSet + 1));
  }

  private scan(first: number, end: number): readonly Range[] {
    const { bits } = this;
    const ranges: Range[] = [];
    let start = -1;
    for (let at = first; at < end; at++) {
      const word = bits[at] as number;
      if (word === (start < 0 ? 0 : ALL)) continue;
      for (let bit = 0; bit < ELEMENT_BITS; bit++) {
        const isSet = ((word >>> bit) & 1) === 1;
        if (isSet === start >= 0) continue;
        const frame = at * ELEMENT_BITS + bit;
        if (isSet) start = frame;
        else {
          ranges.push({ start, end: frame });
          start = -1;
        }
      }
    }
    if (start >= 0) ranges.push({ start, end: end * ELEMENT_BITS });
    return ranges;
  }

  has(frame: number): boolean {
    this.steps++;
    const word = this.bits[Math.floor(frame / ELEMENT_BITS)] ?? 0;
    return ((word >>> (frame % ELEMENT_BITS)) & 1) === 1;
  }

  /** bitmap_zero() */
  drop(): void {
    this.steps += this.units;
    this.bits.fill(0, Math.min(this.firstSet, this.bits.length), this.lastSet + 1);
    this.firstSet = Infinity;
    this.lastSet = -1;
    this.seen = undefined;
  }

  /** sev_resize_page_enc_bitmap() */
  resize(frames: number): void {
    if (words(frames) === this.units) return;
    const larger = new Uint32Array(2 * words(frames));
    larger.set(this.bits);
    this.steps += this.units;
    this.bits = larger;
  }
}
