/** Before the tests on kernels: what this machine offers them, and so what is left out and why. */
import { spawnSync } from 'node:child_process';
import { compilerVersion } from './adapters/linux/compile.ts';
import { cachedKernels } from './adapters/linux/kernels.ts';
import { kvmUnavailable } from './adapters/linux/kvm.ts';

/** All of them together; kernels that hang are not to be waited for. */
const LIMIT_MS = 1_800_000;

const firstLine = (text: string): string => text.split('\n', 1)[0] ?? '';

function compiler(): string {
  try {
    return firstLine(compilerVersion());
  } catch (error) {
    return `no: ${(error as Error).message}; left out: all`;
  }
}

function qemu(): string {
  const { status, stdout } = spawnSync('qemu-system-x86_64', ['--version'], { encoding: 'utf8' });
  return status === 0 ? firstLine(stdout) : 'no: apt-get install qemu-system-x86; left out: kernels in QEMU';
}

function kvm(): string {
  const reason = kvmUnavailable();
  return reason === undefined ? 'yes' : `no: ${reason}; left out: this machine's kernel`;
}

function kernels(): string {
  const names = cachedKernels().map(({ name }) => name);
  return names.length === 0
    ? 'none: run scripts/debian-kernel or scripts/build-kernel; left out: kernels in QEMU'
    : names.join(', ');
}

export default function printOffers(): void {
  const rows = { 'C compiler': compiler(), '/dev/kvm': kvm(), QEMU: qemu(), kernels: kernels() };
  const lines = Object.entries(rows).map(([name, offer]) => `${name.padEnd(12)}${offer}`);
  process.stdout.write(`\n${lines.join('\n')}\n\n`);
  setTimeout(() => {
    process.stderr.write(`the tests on kernels have not ended in ${LIMIT_MS / 1000} s\n`);
    process.exit(1);
  }, LIMIT_MS).unref();
}
