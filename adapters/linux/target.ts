/** A kernel behind the adapter contract: programs are lowered, executed by an agent, and read back. */
import type { Capability, ExecuteOptions, Observed, Target } from '../adapter.ts';
import { UnavailableError } from '../adapter.ts';
import type { Facts } from '../../model/core/facts.ts';
import type { Machine } from '../../model/core/machine.ts';
import type { Observation } from '../../model/core/outcome.ts';
import type { Profile } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { AgentFailure, type AgentConnection } from './agent.ts';
import { LIMITS, type CallResults } from './calls.ts';
import type { KernelReport } from './kernel-log.ts';
import { factsOf } from './looks.ts';
import { lower, observations, type LoweredProgram } from './lower.ts';
import type { Place } from './places.ts';
import { NoGuestMemory, profileOf, question, type Kernel } from './probe.ts';

/** Where agents come from, and what their kernel has to say meanwhile. */
export interface Host {
  /** The name of the target: `kvm`. */
  readonly name: string;
  /** What there is to say of it, besides what its kernel says of itself. */
  readonly about?: string;
  /** Whether programs may write to the log of the kernel, so that it is known at which command a report was made. */
  readonly tellsPlaces?: boolean;
  /** Whether programs may have memory fail: known once there is an agent. */
  readonly failsMemory?: boolean;
  /** A new agent, after the first one or after one that failed. */
  connect(): Promise<AgentConnection>;
  /** What the kernel has reported of itself since it was last asked: warnings, oopses. */
  reports?(): Promise<readonly KernelReport[]>;
  /** The kernel complained, and is not to be trusted any more: the next agent shall have another, where that is possible. */
  replaceKernel?(): Promise<void>;
  close(): Promise<void>;
}

/** How long a program may take before its agent counts as hung. */
const PROGRAM_MS = 15_000;

/** Frames that have failed are lost to their kernel. After so many, 16 MiB, it is replaced. */
const MOST_FAILURES = 4096;

/** Looking takes longer than most commands. */
const FACTS_EVERY = 8;

export interface KernelOptions {
  /** Another way to lower programs: for tests of whether a wrong one is noticed. */
  readonly lower?: typeof lower;
  readonly programMs?: number;
  /** How many frames may fail in one kernel. */
  readonly mostFailures?: number;
}

export class KernelTarget implements Target {
  readonly name: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly missing: Partial<Record<Capability, string>>;
  readonly factsEvery = FACTS_EVERY;
  readonly kernel: Kernel;
  readonly family = 'linux';
  readonly #host: Host;
  readonly #options: Required<KernelOptions>;
  #agent: AgentConnection | undefined;
  #isClosed = false;
  /** Of memory, in this kernel, at most. */
  #failures = 0;
  /** Settles when nothing is being executed any more. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(host: Host, options: Required<KernelOptions>, agent: AgentConnection, kernel: Kernel) {
    this.name = host.name;
    this.kernel = kernel;
    const failsMemory = host.failsMemory === true;
    this.capabilities = new Set<Capability>([
      ...(kernel.blind === undefined ? (['facts'] as const) : []),
      ...(failsMemory ? (['memory-failure'] as const) : []),
    ]);
    this.missing = {
      ...(kernel.blind !== undefined && { facts: kernel.blind }),
      ...(!failsMemory && { 'memory-failure': 'memory failures are injected only into kernels in QEMU that allow it' }),
      'fault-injection': 'failing allocations are not injected into kernels yet',
    };
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
        { lower, programMs: PROGRAM_MS, mostFailures: MOST_FAILURES, ...options },
        agent,
        answer(await agent.run(calls, { timeoutMs: PROGRAM_MS })),
      );
    } catch (error) {
      await host.close();
      throw error instanceof NoGuestMemory ? new UnavailableError(error.message) : error;
    }
  }

  get about(): string {
    const { release, backEnd, blind, showsFrames } = this.kernel;
    const frames = blind === undefined && !showsFrames ? 'frames hidden from this user' : undefined;
    return [`Linux ${release}`, backEnd, this.#host.about, frames].filter((each) => each !== undefined).join(', ');
  }

  get machine(): Machine {
    return this.kernel.machine;
  }

  /** The rules that the kernel should keep, by its release. */
  get profile(): Profile {
    return profileOf(this.kernel.release);
  }

  /** Rejects where the agent hung or went: what came of the program cannot be known. */
  execute(
    program: readonly AnyCommand[],
    _profile: Profile,
    { facts = true }: ExecuteOptions = {},
  ): Promise<readonly Observed[]> {
    // Whoever asked last may have lost patience meanwhile; there is one agent, and it does one thing after the other.
    const executed = this.#last.then(() => this.#execute(program, facts));
    this.#last = executed.catch(() => undefined);
    return executed;
  }

  async #execute(program: readonly AnyCommand[], facts: boolean): Promise<readonly Observed[]> {
    if (program.length === 0) return [];
    const lowered = this.#lowered(program, facts && this.capabilities.has('facts'));
    try {
      return await this.#judged(lowered, await this.#run(lowered, false));
    } catch (error) {
      if (!(error instanceof AgentFailure) || this.#isClosed) throw error;
      return await this.#again(program, lowered, error);
    }
  }

  /** Without looking, where the calls for that are too many. */
  #lowered(program: readonly AnyCommand[], looking: boolean): LoweredProgram {
    const { tellsPlaces, failsMemory } = this.#host;
    const options = { tellsPlaces, failsMemory };
    const lowered = this.#options.lower(program, this.machine, { ...options, looking });
    const { dataBytes, steps } = lowered.calls;
    const isTooLarge = looking && (dataBytes > LIMITS.dataBytes || steps.length > LIMITS.steps);
    return isTooLarge ? this.#options.lower(program, this.machine, options) : lowered;
  }

  /** Once more, with a new agent that tells of every step, to see which command the first one did not survive. */
  async #again(
    program: readonly AnyCommand[],
    lowered: LoweredProgram,
    first: AgentFailure,
  ): Promise<readonly Observed[]> {
    // What the kernel said when the first one went: it may have gone as well.
    const before = await this.#renew();
    try {
      return await this.#judged(lowered, await this.#run(lowered, true), before);
    } catch (error) {
      if (!(error instanceof AgentFailure)) throw error;
      const reports = [...before, ...(await this.#renew())];
      const survived = observations(lowered, { results: error.partial.results, outputs: [] });
      if (reports.length > 0) return crashed(survived, reports, survived.length);
      const at = program[survived.length];
      const where = at === undefined ? 'after the last command' : `at command ${survived.length + 1}, ${at.name}`;
      throw new Error(`${first.message}; once more: ${error.message}, ${where}`);
    }
  }

  async #run({ calls, readings }: LoweredProgram, stream: boolean): Promise<CallResults> {
    await this.#limitFailures(readings.filter(({ kind }) => kind === 'failure').length);
    this.#agent ??= await this.#host.connect();
    if (this.#isClosed) await this.#agent.close();
    return await this.#agent.run(calls, { timeoutMs: this.#options.programMs, stream });
  }

  async #limitFailures(more: number): Promise<void> {
    if (this.#failures > 0 && this.#failures + more > this.#options.mostFailures) {
      await this.#agent?.close();
      this.#agent = undefined;
      await this.#host.replaceKernel?.();
      this.#failures = 0;
    }
    this.#failures += more;
  }

  /** A kernel that complains while it executes a program has failed it, whatever it answered. */
  async #judged(
    lowered: LoweredProgram,
    results: CallResults,
    before: readonly KernelReport[] = [],
  ): Promise<readonly Observed[]> {
    const outcomes = observations(lowered, results);
    const reports = [...before, ...(await this.#reports())];
    if (reports.length === 0) {
      const facts = factsOf(lowered.looks, results);
      return outcomes.map((outcome, at) => withFacts(outcome, facts[at]));
    }
    reports.push(...(await this.#renew(true)));
    return crashed(outcomes, reports, outcomes.length - 1);
  }

  /**
   * Neither an agent that failed nor a kernel that complained, or in which the agent is stuck, sees another program.
   * Answers what the kernel has reported by then.
   */
  async #renew(complained = false): Promise<readonly KernelReport[]> {
    const departure = await this.#agent?.close();
    this.#agent = undefined;
    const isStuck = departure?.code === null && departure.signal === null;
    if (isStuck) await this.#host.replaceKernel?.();
    const reports = await this.#reports();
    if (complained || reports.length > 0) await this.#host.replaceKernel?.();
    return reports;
  }

  async #reports(): Promise<readonly KernelReport[]> {
    return (await this.#host.reports?.()) ?? [];
  }

  /** A program that is being executed is given up. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#agent?.close();
    await this.#host.close();
  }
}

/** What was observed up to the command at which the kernel first complained; at the latest at the one that is given. */
function crashed(
  outcomes: readonly Observation[],
  reports: readonly KernelReport[],
  latest: number,
): readonly Observed[] {
  const place = reports[0]?.place;
  const at = place === 'before' ? 0 : typeof place === 'number' ? Math.min(place, latest) : latest;
  const message = [...whereabouts(place), ...reports.flatMap(({ lines }) => lines)].join('\n');
  return [...outcomes.slice(0, at).map((outcome) => ({ outcome })), { outcome: { kind: 'crash', message } }];
}

/** What is to be said of the place of a report that is not a command. */
function whereabouts(place: Place | undefined): readonly string[] {
  switch (place) {
    case undefined:
      return ['(reported while the program ran; at which command is not known)'];
    case 'before':
      return ['(reported before the first command)'];
    case 'after':
      return ['(reported after the last command, when what the program left open was closed)'];
    default:
      return [];
  }
}
const withFacts = (outcome: Observation, facts: Facts | undefined): Observed =>
  facts === undefined ? { outcome } : { outcome, facts };
