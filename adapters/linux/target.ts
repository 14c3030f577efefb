/** A kernel behind the adapter contract: programs are lowered, executed by an agent, and read back. */
import type { Observed, Target } from '../adapter.ts';
import { UnavailableError } from '../adapter.ts';
import type { Machine } from '../../model/core/machine.ts';
import type { Profile } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { AgentFailure, type AgentConnection } from './agent.ts';
import type { CallResults } from './calls.ts';
import { lower, observations, type LoweredProgram } from './lower.ts';
import { NoGuestMemory, profileOf, question, type Kernel } from './probe.ts';

/** Where agents come from, and what their kernel has to say meanwhile. */
export interface Host {
  /** The name of the target: `kvm`. */
  readonly name: string;
  /** What there is to say of it, besides what its kernel says of itself. */
  readonly about?: string;
  /** A new agent, after the first one or after one that failed. */
  connect(): Promise<AgentConnection>;
  /** What the kernel has reported of itself since it was last asked: warnings, oopses; in full. */
  reports?(): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** How long a program may take before its agent counts as hung. */
const PROGRAM_MS = 20_000;

export interface KernelOptions {
  /** Another way to lower programs: for tests of whether a wrong one is noticed. */
  readonly lower?: typeof lower;
  readonly programMs?: number;
}

export class KernelTarget implements Target {
  readonly name: string;
  readonly capabilities = new Set<never>();
  readonly missing = {
    facts: 'what a kernel shows of itself (fdinfo, pagemap) is not read yet',
    'memory-failure': 'memory failures are not injected into kernels yet',
    'fault-injection': 'failing allocations are not injected into kernels yet',
  } as const;
  readonly kernel: Kernel;
  readonly family = 'linux';
  readonly #host: Host;
  readonly #options: Required<KernelOptions>;
  #agent: AgentConnection | undefined;
  #isClosed = false;

  private constructor(host: Host, options: Required<KernelOptions>, agent: AgentConnection, kernel: Kernel) {
    this.name = host.name;
    this.kernel = kernel;
    this.#host = host;
    this.#options = options;
    this.#agent = agent;
  }

  /** Starts an agent and asks the kernel what it is. Throws UnavailableError. */
  static async open(host: Host, options: KernelOptions = {}): Promise<KernelTarget> {
    try {
      const agent = await host.connect();
      const { calls, answer } = question();
      return new KernelTarget(
        host,
        { lower, programMs: PROGRAM_MS, ...options },
        agent,
        answer(await agent.run(calls, { timeoutMs: PROGRAM_MS })),
      );
    } catch (error) {
      await host.close();
      throw error instanceof NoGuestMemory ? new UnavailableError(error.message) : error;
    }
  }

  get about(): string {
    const { release, backEnd } = this.kernel;
    return [`Linux ${release}`, backEnd, this.#host.about].filter((each) => each !== undefined).join(', ');
  }

  get machine(): Machine {
    return this.kernel.machine;
  }

  /** The rules that the kernel should keep, by its release. */
  get profile(): Profile {
    return profileOf(this.kernel.release);
  }

  /** Rejects where the agent hung or went: what came of the program cannot be known. */
  async execute(program: readonly AnyCommand[]): Promise<readonly Observed[]> {
    const lowered = this.#options.lower(program, this.machine);
    try {
      return await this.#observed(lowered, await this.#run(lowered, false));
    } catch (error) {
      if (!(error instanceof AgentFailure) || this.#isClosed) throw error;
      return await this.#again(lowered, error);
    }
  }

  /** Once more, with a new agent that tells of every step, to see which command the first one did not survive. */
  async #again(lowered: LoweredProgram, first: AgentFailure): Promise<readonly Observed[]> {
    this.#agent = undefined;
    // What the kernel said when the first one went: it may have gone as well.
    const last = await this.#reports();
    try {
      return await this.#observed(lowered, await this.#run(lowered, true), last);
    } catch (error) {
      if (!(error instanceof AgentFailure)) throw error;
      this.#agent = undefined;
      const reports = joined(last, await this.#reports());
      if (reports === undefined) throw new Error(`${first.message}; once more: ${error.message}`);
      const survived = observations(lowered, { results: error.partial.results, outputs: [] });
      return [...survived.map((outcome) => ({ outcome })), { outcome: { kind: 'crash', message: reports } }];
    }
  }

  async #run({ calls }: LoweredProgram, stream: boolean): Promise<CallResults> {
    this.#agent ??= await this.#host.connect();
    if (this.#isClosed) await this.#agent.close();
    return await this.#agent.run(calls, { timeoutMs: this.#options.programMs, stream });
  }

  /** A kernel that complains while it executes a program has failed it, whatever it answered. */
  async #observed(lowered: LoweredProgram, results: CallResults, last?: string): Promise<readonly Observed[]> {
    const observed = observations(lowered, results).map((outcome) => ({ outcome }));
    const reports = joined(last, await this.#reports());
    return reports === undefined
      ? observed
      : [...observed.slice(0, -1), { outcome: { kind: 'crash', message: reports } }];
  }

  async #reports(): Promise<string | undefined> {
    const reports = (await this.#host.reports?.()) ?? [];
    return reports.length === 0 ? undefined : reports.join('\n');
  }

  /** A program that is being executed is given up. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#agent?.close();
    await this.#host.close();
  }
}

const joined = (...reports: readonly (string | undefined)[]): string | undefined => {
  const told = reports.filter((report) => report !== undefined);
  return told.length === 0 ? undefined : told.join('\n');
};
