/** Kernels that scripts/debian-kernel and scripts/build-kernel have left in the cache folder. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from './cache.ts';

export interface Kernel {
  /** Path of a bzImage. */
  readonly image: string;
  /** A folder such as /lib/modules/VERSION; none where everything is built in. */
  readonly modules?: string;
}

/** Who built it: Debian, or scripts/build-kernel; `checked` is slow, because it checks locks or memory accesses. */
export type Origin = 'debian' | 'built' | 'checked';

export interface CachedKernel extends Kernel {
  /** As the release of Debian or the version of the sources: `7.2.12+deb13-amd64`, `7.3.4-1~bpo13+1-built-1a2b3c4d`. */
  readonly name: string;
  readonly origin: Origin;
}

/** Those that are there, the newest last: by version, and of one version by when it was built. */
export function cachedKernels(): readonly CachedKernel[] {
  const folder = join(cacheFolder(), 'kernels');
  if (!existsSync(folder)) return [];
  const { compare } = new Intl.Collator('en', { numeric: true });
  const builtAt = (name: string): number => statSync(join(folder, name)).mtimeMs;
  return readdirSync(folder)
    .sort((a, b) => compare(withoutHash(a), withoutHash(b)) || builtAt(a) - builtAt(b))
    .map((name) => ({ name, image: join(folder, name, 'vmlinuz'), modules: join(folder, name, 'modules') }))
    .filter(({ image }) => existsSync(image))
    .map(({ modules, ...kernel }) => ({
      ...kernel,
      origin: originOf(kernel.name),
      ...(existsSync(modules) && { modules }),
    }));
}

/** The newest of one of these origins. */
export const newestKernel = (...origins: readonly Origin[]): CachedKernel | undefined =>
  cachedKernels().findLast(({ origin }) => origins.includes(origin));

const withoutHash = (name: string): string => name.replace(/(-built.*)-[0-9a-f]+$/, '$1');

/** scripts/build-kernel names what it builds VERSION-built-HASH, or VERSION-built-lockdep-kasan-HASH. */
function originOf(name: string): Origin {
  const [, variant] = /-built((?:-[a-z]+)*)-[0-9a-f]+$/.exec(name) ?? [];
  return variant === undefined ? 'debian' : variant === '' ? 'built' : 'checked';
}
