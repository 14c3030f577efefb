/** A kernel image in a virtual machine. */
import { UnavailableError } from '../adapter.ts';
import { compilerMissing } from './compile.ts';
import type { KernelReport } from './kernel-log.ts';
import { newestKernel, type Kernel } from './kernels.ts';
import { QemuFailure, qemuPath, startQemu, type QemuMachine } from './qemu.ts';
import { KernelTarget, type Host, type KernelOptions } from './target.ts';

/** Why no kernel can be tested in QEMU here, or undefined where one can. */
export function qemuUnavailable(): string | undefined {
  if (qemuPath() === undefined) return 'there is no qemu-system-x86_64: apt-get install qemu-system-x86';
  return compilerMissing();
}

interface QemuTargetOptions {
  /** Path of a bzImage; without it, the newest kernel that was fetched or built. */
  readonly kernel?: string | undefined;
  readonly modules?: string | undefined;
  /** Added to the kernel's command line. */
  readonly append?: string | undefined;
}

/** One that is slow only where there is no other. */
const newest = (): Kernel | undefined => newestKernel('debian', 'built') ?? newestKernel('checked');

/** Boots the kernel. Throws UnavailableError. */
export async function openQemu(
  { kernel, modules, append }: QemuTargetOptions,
  options?: KernelOptions,
): Promise<KernelTarget> {
  const chosen = kernel === undefined ? newest() : { image: kernel, ...(modules && { modules }) };
  if (chosen === undefined)
    throw new UnavailableError('there is no kernel: give --kernel IMAGE, or fetch one with scripts/debian-kernel');
  try {
    return await KernelTarget.open(new QemuHost(chosen, append), options);
  } catch (error) {
    throw error instanceof QemuFailure ? new UnavailableError(error.message) : error;
  }
}

/** Starts the machine when an agent is first wanted, and again when it has died. */
class QemuHost implements Host {
  readonly name = 'qemu';
  readonly tellsPlaces = true;
  readonly #kernel: Kernel;
  readonly #append: string | undefined;
  /** The last one, also when it is gone: what it said is still wanted. */
  #machine: QemuMachine | undefined;
  #isGone = false;
  #told = 0;

  constructor(kernel: Kernel, append: string | undefined) {
    this.#kernel = kernel;
    this.#append = append;
  }

  get failsMemory(): boolean {
    return this.#machine?.failsMemory === true;
  }

  async connect(): ReturnType<QemuMachine['connect']> {
    const machine = await this.#running();
    try {
      return await machine.connect();
    } catch (error) {
      if (!(error instanceof QemuFailure)) throw error;
      // It has gone since, or does not do what it should.
      await this.replaceKernel();
      return await (await this.#running()).connect();
    }
  }

  async replaceKernel(): Promise<void> {
    await this.#machine?.kill();
    this.#isGone = true;
  }

  async #running(): Promise<QemuMachine> {
    if (this.#machine !== undefined && !this.#isGone) return this.#machine;
    const machine = await startQemu({
      kernel: this.#kernel,
      ...(this.#append !== undefined && { append: this.#append }),
    });
    this.#told = machine.log.mark();
    void machine.exited.then(() => {
      if (this.#machine === machine) this.#isGone = true;
    });
    this.#isGone = false;
    return (this.#machine = machine);
  }

  async reports(): Promise<readonly KernelReport[]> {
    const machine = this.#machine;
    if (machine === undefined) return [];
    const reports = await machine.reportsSince(this.#told);
    this.#told += reports.length;
    return reports;
  }

  async close(): Promise<void> {
    await this.#machine?.kill();
  }
}
