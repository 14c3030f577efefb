import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KernelMessages } from './kernel-messages.ts';

let folder = '';
let path = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-kmsg-'));
  path = join(folder, 'kmsg');
  writeFileSync(path, records('Linux version 7.3.4', ...warning(87)));
});
afterEach(() => rmSync(folder, { recursive: true }));

const TITLE = 'WARNING: virt/kvm/guest_memfd.c:412 at kvm_gmem_release+0xdd/0x100, CPU#1: agent/87';
const warning = (pid: number): readonly string[] => [
  '------------[ cut here ]------------',
  TITLE,
  `CPU: 1 UID: 0 PID: ${pid} Comm: agent Not tainted 7.3.4 #1 PREEMPT`,
  ' </TASK>',
  '---[ end trace 0000000000000000 ]---',
];

/** As /dev/kmsg has them, of the kernel (4) or of a process that writes to the log (12). */
const recorded = (priority: number, lines: readonly string[]): string =>
  lines.map((line, index) => `${priority},${index + 300},${5_140_900 + index},-;${line}\n`).join('');
const records = (...lines: readonly string[]): string => recorded(4, lines);

/** Watches, and answers what is reported of process 87 when that has been said. */
function reported(said: string) {
  const messages = KernelMessages.watch(path);
  if (typeof messages === 'string') throw new Error(messages);
  appendFileSync(path, said);
  const reports = messages.reportsOn(87);
  messages.close();
  return reports;
}

describe('the kernel of this machine', () => {
  it('is not blamed for what it said before', () => {
    expect(reported('')).toEqual([]);
  });

  it('is heard when it warns of a process', () => {
    expect(reported(records(...warning(87)))).toMatchObject([
      { kind: 'warning', title: TITLE, lines: warning(87), place: undefined },
    ]);
  });

  it('may warn of other processes', () => {
    expect(reported(records(...warning(88)))).toEqual([]);
    expect(
      reported(records('INFO: task khugepaged:88 blocked for more than 120 seconds.', 'pid:88', ' </TASK>')),
    ).toEqual([]);
  });

  it('is heard when it does not say of whom', () => {
    const bug = ['BUG: Bad page state in process agent  pfn:03c1a', ' </TASK>'];
    expect(reported(records(...bug))).toMatchObject([{ kind: 'bug', lines: bug }]);
  });

  it('did not say what processes write to its log', () => {
    expect(reported(recorded(12, warning(87)))).toEqual([]);
  });

  it('is understood: bytes that are escaped, lines that tell of a device', () => {
    const [cut = '', title = '', ...rest] = warning(87);
    const said = `${records(cut, `kvm: \\x5c was not expected`)} SUBSYSTEM=misc\n DEVICE=c10:232\n${records(title, ...rest)}`;
    expect(reported(said)).toMatchObject([{ lines: [cut, 'kvm: \\ was not expected', title, ...rest] }]);
  });

  it('cannot be heard where its messages cannot be read, which is said', () => {
    expect(KernelMessages.watch(join(folder, 'none'))).toMatch(/none cannot be read: ENOENT$/);
  });
});
