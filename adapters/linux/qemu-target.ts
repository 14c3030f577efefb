/** A kernel image in a virtual machine. */
import { UnavailableError } from '../adapter.ts';
import { compilerMissing } from './compile.ts';
import { cachedKernels, type Kernel } from './kernels.ts';
import { QemuFailure, qemuPath, startQemu, type QemuMachine } from './qemu.ts';
import { KernelTarget, type Host } from './target.ts';

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

/** Boots the kernel. Throws UnavailableError. */
export async function openQemu({ kernel, modules, append }: QemuTargetOptions): Promise<KernelTarget> {
  const chosen = kernel === undefined ? cachedKernels().at(-1) : { image: kernel, ...(modules && { modules }) };
  if (chosen === undefined)
    throw new UnavailableError('there is no kernel: give --kernel IMAGE, or fetch one with scripts/debian-kernel');
  try {
    return await KernelTarget.open(new QemuHost(chosen, append));
  } catch (error) {
    throw error instanceof QemuFailure ? new UnavailableError(error.message) : error;
  }
}

/** Starts the machine when an agent is first wanted, and again when it has died. */
class QemuHost implements Host {
  readonly name = 'qemu';
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

  async connect(): ReturnType<QemuMachine['connect']> {
    return await (await this.#running()).connect();
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

  async reports(): Promise<readonly string[]> {
    const machine = this.#machine;
    if (machine === undefined) return [];
    const reports = await machine.reportsSince(this.#told);
    this.#told += reports.length;
    return reports.map(({ lines }) => lines.join('\n'));
  }

  async close(): Promise<void> {
    await this.#machine?.kill();
  }
}
