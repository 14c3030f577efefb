/**
 * The contract between the conformance engine and anything that can be tested. An adapter translates commands into
 * deeds and reports what came of them; it decides nothing.
 */
import type { Facts } from '../model/core/facts.ts';
import type { Observation } from '../model/core/outcome.ts';
import type { Machine, Profile } from '../model/core/profile.ts';
import type { AnyCommand } from '../model/core/specification.ts';

/**
 * What a target can do beyond executing commands. A capability that is missing is reported as skipped, with the
 * sentence given here; commands and invariants that need it are left out.
 */
export const CAPABILITIES = {
  facts: 'reports what is true inside the machine, so that invariants can be evaluated on it',
  'memory-failure': 'can inject a memory failure into a page',
  'fault-injection': 'can make an allocation of kernel memory fail',
} as const;

export type Capability = keyof typeof CAPABILITIES;
export const ALL_CAPABILITIES = Object.keys(CAPABILITIES) as readonly Capability[];

/** What one command came to. */
export interface Observed {
  readonly outcome: Observation;
  /**
   * Facts after the command: values, which do not change once they are told. The same object as before the command, or the
   * same part, may be returned where nothing changed, and is not looked at again.
   */
  readonly facts?: Facts;
}

/** A kernel, as far as known divergences depend on it. */
export interface KernelIdentity {
  /** As uname(2) tells it: `7.3.4-amd64`. */
  readonly release: string;
  /** The module that runs vCPUs: `kvm_intel`. */
  readonly backEnd?: string;
}

export interface ExecuteOptions {
  /** False where facts are not wanted, so that a target need not look for them. */
  readonly facts?: boolean | undefined;
}

/** What programs for a target may have. */
export interface Abilities {
  readonly capabilities: ReadonlySet<Capability>;
  /** Names of the commands that it can execute; all of them where this is left out. */
  readonly commands?: ReadonlySet<string> | undefined;
}

/** Which two commands run at the same time, and how: one of them as a whole, at a point within the other. */
export interface Schedule {
  /** Index of the first of the two. */
  readonly at: number;
  /** Which of them is interrupted. */
  readonly interrupted: 'first' | 'second';
  /** At how manieth point at which it may be, from zero on. */
  readonly point: number;
}

/** What a program came to in which two commands ran at the same time. */
export interface RacedProgram {
  /** In the order of the program; of the two, with facts after both. */
  readonly observed: readonly Observed[];
  /** In the middle of the interrupted command: before the other one ran, and after it. */
  readonly midway: readonly Facts[];
}

/** Otherwise why there is no such schedule: the command has no such point, or the other one would have to wait there. */
export type Raced = RacedProgram | 'no-such-point' | 'blocked';

export interface Target extends Abilities {
  /** As on the command line: `simulator`, `mutant:stale-stage-two`. */
  readonly name: string;
  /** What the machine behind the target offers. */
  readonly machine: Machine;
  /** What it is, in words: `Linux 7.3.4, kvm_amd`. */
  readonly about?: string;
  /** The rules that it should keep, where it knows; the caller may force others. */
  readonly profile?: Profile;
  /** What stands behind a missing capability, in words; shown with the skip. */
  readonly missing?: Partial<Record<Capability, string>>;
  /** The kernel behind the target, where there is one. */
  readonly kernel?: KernelIdentity;
  /** Targets of one family share a file of known divergences, divergences/FAMILY.json. */
  readonly family?: string;
  /**
   * Executes a program on a fresh machine whose rules should be those of the profile. The observations come in the
   * order of the commands, one each; fewer mean that the target is gone. A target that lives in this process may
   * execute each command when its observation is asked for, and must release the machine when iteration ends early.
   */
  execute(
    program: readonly AnyCommand[],
    profile: Profile,
    options?: ExecuteOptions,
  ): Iterable<Observed> | Promise<Iterable<Observed>>;
  /** Where facts are dear: runs want them of one in so many programs. */
  readonly factsEvery?: number;
  /**
   * Nobody waits any longer for the program that is being executed. Returns what is known of why it takes so long, as the
   * end of a sentence; may be empty.
   */
  abandon?(): string;
  /** The end of what it has said beside its answers, such as standard error. Shown with a failure. */
  log?(): string;
  /** Executes two neighbouring commands at the same time, where the target can be made to. */
  race?(program: readonly AnyCommand[], profile: Profile, schedule: Schedule): Raced;
  /** Lets go of what the target holds: processes, sockets, virtual machines. Called once, after the last program. */
  close?(): Promise<void>;
}

/** What went wrong on the target's side, so that nothing can be said of what it did. Makes a program inconclusive. */
export class TargetFailure extends Error {}

/** A target that exists but cannot be tested from here; the message says why. */
export class UnavailableError extends Error {}

/**
 * What came of a command, as far as a log tells: what was observed, or only whether the call got to user space
 * (`reached`) or was answered with an error before that (`refused`).
 */
export type Came = Observation | 'reached' | 'refused';

/** What a line of a recorded log tells, with its number, from 1 on; 0 for what comes before the first. */
export type LogEntry = { readonly line: number } & (
  | {
      readonly kind: 'command';
      readonly command: AnyCommand;
      /** Left out where the log does not tell. */
      readonly came?: Came | undefined;
      readonly facts?: Facts | undefined;
      /** When, as the log counts time. */
      readonly seconds?: number | undefined;
    }
  /** Something is missing from the log here. */
  | { readonly kind: 'gap' }
  | { readonly kind: 'malformed'; readonly why: string }
);
