/** A source of randomness that a caller lends to the specification; the specification has none of its own. */
export interface Random {
  /** An integer from 0 to `bound` − 1; `bound` is positive. */
  below(bound: number): number;
}

export function pick<const T>(random: Random, choices: readonly T[]): T {
  if (choices.length === 0) throw new RangeError('pick: nothing to choose from');
  return choices[random.below(choices.length)] as T;
}

/** `undefined` where there is nothing to choose from. */
export function pickOr<T>(random: Random, choices: readonly T[]): T | undefined {
  return choices.length === 0 ? undefined : choices[random.below(choices.length)];
}

export const randomU64 = (random: Random): bigint =>
  (BigInt(random.below(0x1_0000_0000)) << 32n) | BigInt(random.below(0x1_0000_0000));
