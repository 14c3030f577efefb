import { describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { cpio } from './cpio.ts';

const ARCHIVE = cpio([
  { kind: 'folder', path: 'dev' },
  { kind: 'device', path: 'dev/console', major: 5, minor: 1 },
  { kind: 'file', path: 'init', data: Buffer.from('seven b'), executable: true },
  { kind: 'file', path: 'empty', data: new Uint8Array() },
]);

/** As the kernel reads it: init/initramfs.c. */
function members(archive: Buffer) {
  const found = [];
  for (let at = 0; at < archive.length;) {
    const field = (index: number) => Number(`0x${archive.toString('latin1', at + 6 + 8 * index, at + 14 + 8 * index)}`);
    const magic = archive.toString('latin1', at, at + 6);
    const [mode, links, size, nameSize] = [field(1), field(4), field(6), field(11)];
    const name = archive.toString('latin1', at + 110, at + 110 + nameSize);
    const data = (at + 110 + nameSize + 3) & ~3;
    found.push({
      magic,
      name,
      mode,
      links,
      device: [field(9), field(10)],
      data: archive.toString('latin1', data, data + size),
    });
    at = (data + size + 3) & ~3;
  }
  return found;
}

describe('an archive', () => {
  it('has a header with mode, size and device for each member, and an end', () => {
    const common = { magic: '070701', links: 1, device: [0, 0], data: '' };
    expect(members(ARCHIVE)).toEqual([
      { ...common, name: 'dev\0', mode: 0o040755 },
      { ...common, name: 'dev/console\0', mode: 0o020600, device: [5, 1] },
      { ...common, name: 'init\0', mode: 0o100755, data: 'seven b' },
      { ...common, name: 'empty\0', mode: 0o100644 },
      { ...common, name: 'TRAILER!!!\0', mode: 0 },
    ]);
  });
});

const hasCpio = spawnSync('cpio', ['--version']).status === 0;
const describeCpio = hasCpio ? describe : describe.skip;
describeCpio(`an archive${hasCpio ? '' : ' (skipped: there is no cpio)'}`, () => {
  it('is one for cpio, too', () => {
    const { stdout } = spawnSync('cpio', ['-tv', '--quiet'], { input: ARCHIVE, encoding: 'utf8' });
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, 10), line.split(' ').at(-1)]);
    expect(lines).toEqual([
      ['drwxr-xr-x', 'dev'],
      ['crw-------', 'dev/console'],
      ['-rwxr-xr-x', 'init'],
      ['-rw-r--r--', 'empty'],
    ]);
  });
});
