/** The kernel of this machine. */
import { accessSync, constants } from 'node:fs';
import { spawnAgent, type AgentConnection } from './agent.ts';
import { compilerMissing } from './compile.ts';
import type { KernelReport } from './kernel-log.ts';
import { KernelMessages } from './kernel-messages.ts';
import { MemoryLimit } from './memory-limit.ts';
import { KernelTarget, type Host } from './target.ts';

/** Why this machine's kernel cannot be tested, or undefined where it can. */
export function kvmUnavailable(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `it takes Linux on x86-64, and this is ${process.platform} on ${process.arch}`;
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? 'there is no /dev/kvm: load kvm_intel or kvm_amd, or give this machine nested virtualization'
      : 'you may not open /dev/kvm: join its group (often `kvm`), or run as root';
  }
  return compilerMissing();
}

export const openKvm = (): Promise<KernelTarget> => KernelTarget.open(new KvmHost());

/** Starts agents, holds them to a memory limit, and listens to what the kernel says of them. */
class KvmHost implements Host {
  readonly name = 'kvm';
  readonly #limit = MemoryLimit.create();
  readonly #messages = KernelMessages.watch();
  #agent: AgentConnection | undefined;

  get about(): string {
    const limit = this.#limit?.inWords ?? 'no memory limit, for want of a cgroup that can be made';
    return typeof this.#messages === 'string' ? `${limit}, its log not watched: ${this.#messages}` : limit;
  }

  connect(): Promise<AgentConnection> {
    this.#agent = spawnAgent(this.#limit);
    return Promise.resolve(this.#agent);
  }

  reports(): Promise<readonly KernelReport[]> {
    return Promise.resolve(typeof this.#messages === 'string' ? [] : this.#messages.reportsOn(this.#agent?.pid));
  }

  close(): Promise<void> {
    this.#limit?.remove();
    if (typeof this.#messages !== 'string') this.#messages.close();
    return Promise.resolve();
  }
}
