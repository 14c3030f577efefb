/**
 * Contestants that take turns in one process, round after round: A B C A B C. Whatever else the machine does meets all
 * of them alike, so ratios mean something where absolute numbers do not.
 */

export interface Contestant {
  readonly name: string;
  /** Does the work of one round, and tells how many units of work that was. */
  run(round: number): number | Promise<number>;
}

export interface Rounds {
  readonly warmUps: number;
  readonly rounds: number;
}

/** Nanoseconds for each unit of work. */
interface Sample {
  readonly cpu: number;
  readonly wall: number;
}

export interface Measured extends Sample {
  readonly name: string;
  readonly samples: readonly Sample[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) return NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
}

async function sample(contestant: Contestant, round: number): Promise<Sample> {
  const cpuBefore = process.cpuUsage();
  const before = performance.now();
  const units = await contestant.run(round);
  const wall = performance.now() - before;
  const { user, system } = process.cpuUsage(cpuBefore);
  return { cpu: ((user + system) * 1000) / units, wall: (wall * 1_000_000) / units };
}

/** The median of each contestant over all rounds after the warm-up. */
export async function takeTurns(
  contestants: readonly Contestant[],
  { warmUps, rounds }: Rounds,
): Promise<readonly Measured[]> {
  const samples = contestants.map((): Sample[] => []);
  for (let round = 0; round < warmUps + rounds; round++)
    for (const [index, contestant] of contestants.entries()) {
      const taken = await sample(contestant, round);
      if (round >= warmUps) samples[index]?.push(taken);
    }
  return contestants.map(({ name }, index) => {
    const own = samples[index] as Sample[];
    return { name, cpu: median(own.map(({ cpu }) => cpu)), wall: median(own.map(({ wall }) => wall)), samples: own };
  });
}

/** How much more processor time `one` takes for a unit than `other`: the median of the ratios of each round. */
export const cpuRatio = (one: Measured, other: Measured): number =>
  median(one.samples.map(({ cpu }, round) => cpu / (other.samples[round] as Sample).cpu));

/** The ratios of each round of time that passes, from the least to the greatest: where another process does the work. */
export const wallRatios = (one: Measured, other: Measured): readonly number[] =>
  one.samples.map(({ wall }, round) => wall / (other.samples[round] as Sample).wall).sort((a, b) => a - b);
