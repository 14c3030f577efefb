import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cachedKernels, newestKernel } from './kernels.ts';

const { XDG_CACHE_HOME } = process.env;
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-kernels-'));
  process.env['XDG_CACHE_HOME'] = folder;
});
afterEach(() => {
  rmSync(folder, { recursive: true });
  if (XDG_CACHE_HOME === undefined) Reflect.deleteProperty(process.env, 'XDG_CACHE_HOME');
  else process.env['XDG_CACHE_HOME'] = XDG_CACHE_HOME;
});

it('finds the kernels in the cache folder, the newest last', () => {
  expect(cachedKernels()).toEqual([]);
  const kernels = join(folder, 'gmem-conformance/kernels');
  const names = ['7.10.1-built-0', '7.9.2+deb13-amd64', '7.10.1-built-lockdep-kasan-1a2b3c4d'];
  for (const name of [...names, '.unpack.x']) mkdirSync(join(kernels, name), { recursive: true });
  mkdirSync(join(kernels, '7.9.2+deb13-amd64/modules'));
  for (const name of names) writeFileSync(join(kernels, name, 'vmlinuz'), '');
  expect(cachedKernels()).toEqual([
    {
      name: '7.9.2+deb13-amd64',
      origin: 'debian',
      image: join(kernels, '7.9.2+deb13-amd64/vmlinuz'),
      modules: join(kernels, '7.9.2+deb13-amd64/modules'),
    },
    { name: '7.10.1-built-0', origin: 'built', image: join(kernels, '7.10.1-built-0/vmlinuz') },
    {
      name: '7.10.1-built-lockdep-kasan-1a2b3c4d',
      origin: 'checked',
      image: join(kernels, '7.10.1-built-lockdep-kasan-1a2b3c4d/vmlinuz'),
    },
  ]);
  expect(newestKernel('debian', 'built')?.name).toBe('7.10.1-built-0');
  expect(newestKernel('checked')?.name).toBe('7.10.1-built-lockdep-kasan-1a2b3c4d');
});

it('takes the one that was built last for the newest of a version, whatever its configuration', () => {
  const kernels = join(folder, 'gmem-conformance/kernels');
  for (const [name, seconds] of [
    ['7.9.1-built-ffffffff', 30],
    ['7.10.1-built-ffffffff', 10],
    ['7.10.1-built-00000000', 20],
  ] as const) {
    mkdirSync(join(kernels, name), { recursive: true });
    writeFileSync(join(kernels, name, 'vmlinuz'), '');
    utimesSync(join(kernels, name), seconds, seconds);
  }
  expect(newestKernel('built')?.name).toBe('7.10.1-built-00000000');
});
