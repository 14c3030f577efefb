/** Logs that are longer than memory. */
import { describe, expect, it } from '@jest/globals';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { bundledCommandLine, inFolder, runCommandLine } from '../properties/command-line.ts';

const CLI = bundledCommandLine();

const MIB = 1 << 20;
/** Half of it is what the command line itself needs. */
const HEAP_MIB = 64;
const ANNOUNCEMENTS = 80_000;
/** Behind each announcement come so many other lines of a kernel. */
const OTHERS = 7;
/** Pages that are shared before the first of them is private again. */
const OUTSTANDING = 40;

const other =
  '[    1.000000] virtio_blk virtio1: [vda] 41943040 512-byte logical blocks, as a kernel has them by the thousand\n';

function announcement(index: number): string {
  const isBack = index > OUTSTANDING && index % 2 === 1;
  const page = 2 * (isBack ? index - 1 - OUTSTANDING : index);
  return `[    1.000000] page_enc_status_hc invoked, gpa = ${page.toString(16)}000, npages  = 1, enc = ${isBack ? 1 : 0}\n`;
}

/** Answers how many bytes were written. */
function writeLog(path: string): number {
  const log = openSync(path, 'w');
  let bytes = 0;
  for (let index = 0; index < ANNOUNCEMENTS; index++)
    bytes += writeSync(log, announcement(index) + other.repeat(OTHERS));
  closeSync(log);
  return bytes;
}

describe('check-trace', () => {
  it('reads a log to its end with less memory than that is long', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'dmesg.txt');
      expect(writeLog(path)).toBeGreaterThan(HEAP_MIB * MIB);
      const env = { NODE_OPTIONS: `--max-old-space-size=${HEAP_MIB}` };
      const { status, stdout, stderr } = await runCommandLine(CLI, ['check-trace', path], { env });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(stdout).toContain(`read        ${ANNOUNCEMENTS} commands, `);
    });
  });
});
