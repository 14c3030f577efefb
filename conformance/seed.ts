import { randomInt } from 'node:crypto';

export const MIN_SEED = -(2 ** 31);
export const MAX_SEED = 2 ** 32 - 1;

/** The seed that was asked for, by the caller or in GMEM_SEED, or else one from chance. Throws a RangeError. */
export function chooseSeed(asked?: number): number {
  if (asked !== undefined) return asked;
  const { GMEM_SEED: text = '' } = process.env;
  if (text === '') return randomInt(MAX_SEED + 1);
  const seed = /^-?\d+$/.test(text) ? Number(text) : NaN;
  if (seed >= MIN_SEED && seed <= MAX_SEED) return seed;
  throw new RangeError(`GMEM_SEED is '${text}': write a whole number from ${MIN_SEED} to ${MAX_SEED}`);
}
