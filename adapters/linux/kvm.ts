/** The kernel of this machine. */
import { accessSync, constants } from 'node:fs';
import { spawnAgent } from './agent.ts';
import { compilerMissing } from './compile.ts';
import { MemoryLimit } from './memory-limit.ts';
import { KernelTarget } from './target.ts';

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

export async function openKvm(): Promise<KernelTarget> {
  const limit = MemoryLimit.create();
  return await KernelTarget.open({
    name: 'kvm',
    about: limit?.inWords ?? 'no memory limit, for want of a cgroup that can be made',
    connect: async () => spawnAgent(limit),
    close: async () => limit?.remove(),
  });
}
