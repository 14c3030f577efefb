/** A run that is spread over several processes or machines, which know nothing of each other. */

export interface Shard {
  /** From 1. */
  readonly index: number;
  readonly count: number;
}

/** As on the command line: `2/4`. */
export const printShard = ({ index, count }: Shard): string => `${index}/${count}`;

/** An odd number, so that the products with 0 to 2^32 - 1 differ in their low 32 bits (2^32 over the golden ratio). */
const STEP = 0x9e37_79b9;

/**
 * What is the shard's own of a run: a seed that no other shard of the run has, and its part of the programs. Shard 1
 * keeps the seed of the run.
 */
export const shareOf = (
  { index, count }: Shard,
  { seed, runs }: { readonly seed: number; readonly runs: number },
): { readonly seed: number; readonly runs: number } => ({
  seed: (seed + Math.imul(index - 1, STEP)) >>> 0,
  // Without a limit on the run, none on its parts.
  runs: runs === Infinity ? runs : Math.floor(runs / count) + (index <= runs % count ? 1 : 0),
});
