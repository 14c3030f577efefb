/** Kernels that scripts/debian-kernel and scripts/build-kernel have left in the cache folder. */
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export interface Kernel {
  /** Path of a bzImage. */
  readonly image: string;
  /** A folder such as /lib/modules/VERSION; none where everything is built in. */
  readonly modules?: string;
}

export interface CachedKernel extends Kernel {
  /** As the release of Debian or the version of the sources: `7.2.12+deb13-amd64`, `7.3.4-1~bpo13+1-built-1a2b3c4d`. */
  readonly name: string;
}

/** Those that are there, the newest last. */
export function cachedKernels(): readonly CachedKernel[] {
  const { XDG_CACHE_HOME: xdg = '' } = process.env;
  const folder = join(xdg === '' ? join(homedir(), '.cache') : xdg, 'gmem-conformance', 'kernels');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort(new Intl.Collator('en', { numeric: true }).compare)
    .map((name) => ({ name, image: join(folder, name, 'vmlinuz'), modules: join(folder, name, 'modules') }))
    .filter(({ image }) => existsSync(image))
    .map(({ modules, ...kernel }) => (existsSync(modules) ? { ...kernel, modules } : kernel));
}
