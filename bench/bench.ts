/** What one benchmark is to the command line. */

export interface BenchOptions {
  /** A rough answer, soon. */
  readonly quick: boolean;
  /** Seeds for each mutant, where the benchmark has any. */
  readonly seeds: number;
}

export interface Bench {
  readonly name: string;
  /** What is compared, as a sentence. */
  readonly question: string;
  /** Prints its table, and returns what is written with --json. */
  run(options: BenchOptions): Promise<unknown>;
}
