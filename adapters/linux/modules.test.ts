import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { dependencies, resolveModules } from './modules.ts';

const { PATH } = process.env;
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-modules-'));
  mkdirSync(join(folder, 'kernel/virt'), { recursive: true });
});
afterEach(() => {
  process.env['PATH'] = PATH;
  rmSync(folder, { recursive: true });
});

/** What of a module's file says what it depends on. */
const image = (depends: string): Buffer => Buffer.from(`\x7fELF\0license=GPL\0depends=${depends}\0name=x\0`);
const put = (path: string, bytes: Buffer): void => writeFileSync(join(folder, 'kernel', path), bytes);
const names = (...wanted: readonly string[]) => resolveModules(folder, wanted).map(({ name }) => name);

describe('the modules to load', () => {
  it('come after what they need, each once, whatever the spelling', () => {
    put('virt/irqbypass.ko', image(''));
    put('kvm.ko', image('irqbypass'));
    put('ccp.ko', image(''));
    put('kvm-amd.ko', image('kvm,ccp'));
    put('kvm-intel.ko', image('kvm'));
    expect(names('kvm_amd', 'kvm-intel', 'kvm')).toEqual(['irqbypass', 'kvm', 'ccp', 'kvm_amd', 'kvm_intel']);
  });

  it('leave out what is built into the kernel', () => {
    put('kvm.ko', image('built-in-too'));
    expect(names('virtio_console', 'kvm')).toEqual(['kvm']);
  });

  it('are unpacked', () => {
    const plain = image('');
    put('a.ko.gz', gzipSync(plain));
    const wanted = ['a'];
    for (const [name, command] of [
      ['b.ko.xz', 'xz'],
      ['c.ko.zst', 'zstd'],
    ] as const) {
      const { status, stdout } = spawnSync(command, ['-c'], { input: plain });
      if (status !== 0) continue;
      put(name, stdout);
      wanted.push(name.slice(0, 1));
    }
    expect(resolveModules(folder, wanted)).toEqual(wanted.map((name) => ({ name, image: plain })));
  });

  it('cannot be unpacked without the program for it, and the error says which package has it', () => {
    put('kvm.ko.xz', Buffer.from('whatever'));
    process.env['PATH'] = folder;
    expect(() => names('kvm')).toThrow(/kvm\.ko\.xz is compressed, and there is no xz: apt-get install xz-utils/);
  });

  it('cannot come from a folder that is not there', () => {
    expect(() => resolveModules(join(folder, 'missing'), [])).toThrow(/there is no folder of modules .*missing/);
  });
});

describe('what a module depends on', () => {
  it('is nothing where it does not say', () => {
    expect(dependencies(Buffer.from('\x7fELF\0depends=\0'))).toEqual([]);
    expect(dependencies(Buffer.from('\x7fELF'))).toEqual([]);
  });
});
