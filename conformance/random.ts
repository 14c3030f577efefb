import type fc from 'fast-check';
import type { Random } from '../model/core/random.ts';

/**
 * Four 32-bit words stretched into a stream of integers (the small fast counting generator, sfc32). Programs ask for
 * hundreds of numbers each, most of them below ten.
 */
export class SmallFastRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  constructor(a: number, b: number, c: number, counter: number) {
    this.#a = a | 0;
    this.#b = b | 0;
    this.#c = c | 0;
    this.#counter = counter | 0;
    for (let round = 0; round < 12; round++) this.#next();
  }

  /** As many draws from fast-check's stream as seed this one; the same seed gives the same programs everywhere. */
  static from(random: fc.Random): SmallFastRandom {
    const word = (): number => random.nextInt(-0x8000_0000, 0x7fff_ffff);
    return new SmallFastRandom(word(), word(), word(), 1);
  }

  #next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + sum) | 0;
    return sum >>> 0;
  }

  below(bound: number): number {
    return Math.floor((this.#next() / 0x1_0000_0000) * bound);
  }
}
