/** Kernel modules of a folder such as /lib/modules/VERSION: which files to load, in which order. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gunzipSync } from 'node:zlib';

export interface Module {
  readonly name: string;
  /** The ELF file, not compressed. */
  readonly image: Buffer;
}

const SUFFIX = /\.ko(\.gz|\.xz|\.zst)?$/;

/**
 * The modules and what they depend on, each after what it needs. A name that is no file is left out: it is built into
 * the kernel, or the kernel was built without.
 */
export function resolveModules(folder: string, wanted: readonly string[]): readonly Module[] {
  const files = moduleFiles(folder);
  const resolved = new Map<string, Module>();
  const resolve = (name: string) => {
    const file = files.get(name);
    if (file === undefined || resolved.has(name)) return;
    const image = decompress(file);
    for (const needed of dependencies(image)) resolve(needed);
    resolved.set(name, { name, image });
  };
  for (const name of wanted) resolve(moduleName(name));
  return [...resolved.values()];
}

/** The kernel takes `kvm-amd` and `kvm_amd` for the same name. */
const moduleName = (text: string): string => text.replaceAll('-', '_');

function moduleFiles(folder: string): ReadonlyMap<string, string> {
  if (!existsSync(folder)) throw new Error(`there is no folder of modules ${folder}`);
  return new Map(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => SUFFIX.test(path))
      .map((path) => [moduleName(basename(path).replace(SUFFIX, '')), join(folder, path)]),
  );
}

/** A module says of itself what it depends on: `depends=kvm,ccp`, between zero bytes. */
export function dependencies(image: Buffer): readonly string[] {
  const [, names = ''] = /\0depends=([^\0]*)\0/.exec(image.toString('latin1')) ?? [];
  return names.split(',').filter(Boolean).map(moduleName);
}

function decompress(file: string): Buffer {
  if (file.endsWith('.gz')) return gunzipSync(readFileSync(file));
  if (file.endsWith('.xz')) return output('xz', 'xz-utils', file);
  if (file.endsWith('.zst')) return output('zstd', 'zstd', file);
  return readFileSync(file);
}

function output(command: string, debianPackage: string, file: string): Buffer {
  try {
    const { env } = process;
    return execFileSync(command, ['-dc', file], { env, maxBuffer: 1 << 30, stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${file} is compressed, and there is no ${command}: apt-get install ${debianPackage}`, {
      cause: error,
    });
  }
}
