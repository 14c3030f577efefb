import type { Config } from '../../model/core/profile.ts';
import type { Simulated } from '../simulator/index.ts';

/** A mistake in a mechanism of the simulator, made by hand. */
export interface Fault {
  /** Names the mutant. */
  readonly id: string;
  /** What is wrong, as a sentence. */
  readonly fault: string;
  /** Commands of the shortest program that is known to show it. */
  readonly shortest: number;
  readonly machine: new (config: Config) => Simulated;
  /** The profile in which it shows, where that is not the default. */
  readonly profile?: string;
}
