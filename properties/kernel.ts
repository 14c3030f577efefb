/** What tests on kernels share: those on the kernel of this machine, and those in QEMU. */
import { describe, it } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { spawnAgent, type AgentConnection } from '../adapters/linux/agent.ts';
import { newestKernel, type CachedKernel, type Origin } from '../adapters/linux/kernels.ts';
import { kvmUnavailable } from '../adapters/linux/kvm.ts';
import { qemuUnavailable } from '../adapters/linux/qemu-target.ts';
import { KernelTarget, type KernelOptions } from '../adapters/linux/target.ts';
import { Generator, type GeneratedProgram } from '../conformance/generate.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { Specification } from '../model/core/specification.ts';

/** A suite on /dev/kvm; where there is none, the reason is in the title of what is skipped. */
export function kernelSuite(title: string, body: () => void): void {
  const unavailable = kvmUnavailable();
  if (unavailable === undefined) describe(title, body);
  else describe.skip(`${title} (skipped: ${unavailable})`, body);
}

/** A suite on the newest kernel of that origin, in QEMU. */
export function qemuSuite(origin: Origin, body: (kernel: CachedKernel) => void, title = ''): void {
  const kernel = newestKernel(origin);
  const unavailable = qemuUnavailable() ?? (kernel === undefined ? `no kernel: run ${SCRIPTS[origin]}` : undefined);
  if (kernel !== undefined && unavailable === undefined) describe(`${kernel.name} in QEMU${title}`, () => body(kernel));
  // A suite must have a test, or jest takes its file for a mistake.
  else describe.skip(`kernel in QEMU${title} (skipped: ${unavailable ?? ''})`, () => it(origin, () => undefined));
}

const SCRIPTS: Readonly<Record<Origin, string>> = {
  debian: 'scripts/debian-kernel',
  built: 'scripts/build-kernel',
  checked: 'scripts/build-kernel --lockdep --kasan',
};

const GETPID = 39;
/** Its one result is the agent's process. */
export const WHO = {
  dataBytes: 0,
  segments: [],
  outputs: [],
  steps: [{ kind: 'call', number: GETPID, args: [] }],
} as const;

/** What a process holds, as the kernel tells it. */
export interface Holdings {
  readonly descriptors: number;
  readonly mappings: number;
  readonly residentKiB: number;
}

export function holdings(pid: number): Holdings {
  const [, resident = '0'] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return {
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    mappings: readFileSync(`/proc/${pid}/maps`, 'utf8').trimEnd().split('\n').length,
    residentKiB: Number(resident),
  };
}

/** Where a process that is gone and not yet waited for counts as gone. */
export function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** The kernel of this machine as a target whose agents can be looked at. */
export class WatchedKernel {
  readonly target: KernelTarget;
  readonly specification: Specification;
  readonly #agents: readonly AgentConnection[];

  private constructor(target: KernelTarget, agents: readonly AgentConnection[]) {
    this.target = target;
    this.#agents = agents;
    this.specification = new Specification({ profile: target.profile, machine: target.machine }, CATALOGUE);
  }

  static async open(options: KernelOptions = {}, spawn: typeof spawnAgent = spawnAgent): Promise<WatchedKernel> {
    const agents: AgentConnection[] = [];
    const connect = () => {
      agents.push(spawn());
      return Promise.resolve(agents.at(-1) as AgentConnection);
    };
    const host = { name: 'kvm', connect, close: () => Promise.resolve() };
    return new WatchedKernel(await KernelTarget.open(host, options), agents);
  }

  /** How many agents there have been. */
  get agents(): number {
    return this.#agents.length;
  }

  /** Programs that this kernel can execute, from one seed. */
  *programs(seed: number, count: number, maxCommands = 80): Iterable<GeneratedProgram> {
    const { capabilities } = this.target;
    const generator = new Generator(this.specification, { maxCommands, capabilities });
    const random = new SmallFastRandom(seed, 1, 2, 3);
    for (let program = 0; program < count; program++) yield generator.generate(random);
  }

  /** The process of the newest agent, which must be idle. */
  async pid(): Promise<number> {
    const results = await this.#agents.at(-1)?.run(WHO, { timeoutMs: 10_000 });
    return Number(results?.results[0]);
  }
}
