import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { NoCompiler } from './compile.ts';
import { startQemu } from './qemu.ts';

const { PATH = '' } = process.env;
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-test-'));
});
afterEach(() => {
  process.env['PATH'] = PATH;
  rmSync(folder, { recursive: true });
});

/** Puts something in the place of QEMU. */
function pretendQemu(script: string): void {
  writeFileSync(join(folder, 'qemu-system-x86_64'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  process.env['PATH'] = `${folder}${delimiter}${PATH}`;
}

/** As startQemu() would fail; where there is no compiler it says that instead. */
async function failure(options: { readonly timeoutMs?: number } = {}): Promise<string> {
  const image = join(folder, 'vmlinuz');
  writeFileSync(image, '');
  const reason: unknown = await startQemu({ kernel: { image }, accel: 'tcg', ...options }).catch(
    (error: unknown) => error,
  );
  return reason instanceof NoCompiler ? 'no compiler' : String(reason);
}

const ourFolders = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('gmem-qemu-'));

describe('a machine that cannot be started', () => {
  it('for want of QEMU: the error names the package', async () => {
    process.env['PATH'] = folder;
    expect(await failure()).toBe('QemuFailure: there is no qemu-system-x86_64: apt-get install qemu-system-x86');
  });

  it('for want of a kernel: the error names the file', async () => {
    pretendQemu('exit 0');
    const image = join(folder, 'nothing');
    expect(existsSync(image)).toBe(false);
    await expect(startQemu({ kernel: { image } })).rejects.toThrow(`there is no kernel ${image}`);
  });

  it('because QEMU refuses: the error has what it says and what the console said, and nothing stays behind', async () => {
    pretendQemu('echo last words; echo "no such machine" >&2; exit 1');
    const before = ourFolders();
    const message = await failure();
    expect([
      'no compiler',
      'QemuFailure: the machine does not boot: QEMU ended (1) no such machine\nthe end of its console:\nlast words',
    ]).toContain(message);
    expect(ourFolders()).toEqual(before);
  });

  it('in time: the error has what the console said, and nothing stays behind', async () => {
    pretendQemu('echo "Linux version"; exec sleep 60');
    const before = ourFolders();
    const message = await failure({ timeoutMs: 2000 });
    expect([
      'no compiler',
      'QemuFailure: the machine does not boot: it took longer than 2000 ms\nthe end of its console:\nLinux version',
    ]).toContain(message);
    expect(ourFolders()).toEqual(before);
  });
});
