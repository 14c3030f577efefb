import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { CAP, VM_TYPE } from '../../model/core/abi.ts';
import { qemuSuite } from '../../properties/kernel.ts';
import { AgentGone, AgentHung, type AgentConnection } from './agent.ts';
import type { CallProgram, Operand, Step } from './calls.ts';
import { address, value } from './lowering.ts';
import { startQemu, type QemuMachine } from './qemu.ts';
import { AT_FDCWD, KVM, O_RDWR, SYS } from './uapi.ts';

const number = (each: number | bigint): Operand => value(BigInt(each));
const result = (step: number): Operand => ({ kind: 'result', step, plus: 0n });
const call = (system: number, ...args: readonly Operand[]): Step => ({ kind: 'call', number: system, args });

/** A program that opens a file for reading and writing as its step 0. */
const withFile = (path: string, text: string, ...steps: readonly Step[]): CallProgram => ({
  dataBytes: 4096,
  segments: [
    { offset: 0, bytes: Buffer.from(path) },
    { offset: TEXT, bytes: Buffer.from(text) },
  ],
  steps: [call(SYS.openat, value(AT_FDCWD), address(0), value(O_RDWR)), ...steps],
  outputs: [],
});

const TEXT = 1024;
/** Calls that only these tests make. */
const CALL = { getpid: 39, kill: 62, ppoll: 271 } as const;

const SOON = { timeoutMs: 20_000 };
const GETPID: CallProgram = { dataBytes: 0, segments: [], outputs: [], steps: [call(CALL.getpid)] };
const DIE: CallProgram = { ...GETPID, steps: [call(CALL.getpid), call(CALL.kill, result(0), number(9))] };
const HANG: CallProgram = { ...GETPID, steps: [call(CALL.ppoll, number(0), number(0), number(0))] };

const ourFolders = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('gmem-qemu-'));

for (const origin of ['debian', 'built'] as const)
  qemuSuite(origin, (kernel) => {
    const isBuilt = origin === 'built';
    const foldersBefore = ourFolders();
    let machine: QemuMachine;
    let agent: AgentConnection;

    beforeAll(async () => {
      machine = await startQemu({ kernel });
      agent = await machine.connect();
      await agent.run(GETPID, SOON);
      process.stdout.write(`${kernel.name}: booted in ${Math.round(machine.bootMs)} ms under ${machine.accel}\n`);
    });
    afterAll(async () => machine.kill());

    it('has KVM, with the VM types that it was built for', async () => {
      const types = call(SYS.ioctl, result(0), value(KVM.CHECK_EXTENSION), value(CAP.VM_TYPES));
      const create = (type: bigint) => call(SYS.ioctl, result(0), value(KVM.CREATE_VM), value(type));
      const program = withFile('/dev/kvm', '', types, create(VM_TYPE.DEFAULT), create(VM_TYPE.SW_PROTECTED));
      const [kvm = -1n, mask = 0n, plain = -1n, guarded = -1n] = (await agent.run(program, SOON)).results;
      expect([kvm, plain].every((fd) => fd > 0n)).toBe(true);
      expect((mask >> VM_TYPE.SW_PROTECTED) & 1n).toBe(isBuilt ? 1n : 0n);
      expect(guarded > 0n).toBe(isBuilt);
    });

    it('has the files through which failures are injected', async () => {
      const files = ['/sys/kernel/debug/hwpoison/corrupt-pfn'];
      if (isBuilt) files.push('/sys/kernel/debug/failslab/probability', '/proc/self/fail-nth');
      for (const file of files) {
        const program = withFile(file, '');
        const { results } = await agent.run(program, SOON);
        expect({ file, opens: (results[0] ?? -1n) > 0n || results[0] === -13n }).toEqual({ file, opens: true });
      }
    });

    it('gives a new agent after one that died', async () => {
      const error: unknown = await agent.run(DIE, SOON).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(AgentGone);
      expect((error as AgentGone).departure.signal).toBe('SIGKILL');
      agent = await machine.connect();
      expect((await agent.run(GETPID, SOON)).results[0]).toBeGreaterThan(1n);
    });

    it('gives a new agent after one that hung', async () => {
      await expect(agent.run(HANG, { timeoutMs: 500 })).rejects.toThrow(AgentHung);
      agent = await machine.connect();
      expect((await agent.run(GETPID, SOON)).results[0]).toBeGreaterThan(1n);
    });

    it('gives a new agent in place of one that is well', async () => {
      const before = agent;
      agent = await machine.connect();
      await before.close();
      expect((await agent.run(GETPID, SOON)).results[0]).toBeGreaterThan(1n);
    });

    it('shows what the kernel reports', async () => {
      const mark = machine.log.mark();
      expect(machine.log.reportsSince(0)).toEqual([]);
      const said = 'WARNING: mm/test.c:1 at nowhere+0x0/0x1, CPU#0: agent/42';
      const write = (text: string) =>
        withFile('/dev/kmsg', text, call(SYS.write, result(0), address(TEXT), number(text.length)));
      await agent.run(write(said), SOON);
      await agent.run(write('---[ end trace 0000000000000000 ]---'), SOON);
      expect(await machine.reportsSince(mark)).toMatchObject([{ kind: 'warning', title: said, complete: true }]);
    });

    it('is missed by its agent when it is gone', async () => {
      const running = agent.run(HANG, SOON);
      await machine.kill();
      const error: unknown = await running.catch((reason: unknown) => reason);
      expect((error as AgentGone).departure.signal).toBe('SIGKILL');
      expect((error as AgentGone).message).toContain('the machine ended');
      await expect(machine.connect()).rejects.toThrow('QEMU ended');
      expect(ourFolders()).toEqual(foldersBefore);
    });
  });

qemuSuite(
  'built',
  (kernel) => {
    it('says that it does not boot, with the end of its console, and leaves nothing behind', async () => {
      const foldersBefore = ourFolders();
      const started = startQemu({ kernel, append: 'rdinit=/no-such-init', timeoutMs: 30_000 });
      await expect(started).rejects.toThrow(/does not boot: QEMU ended(.|\n)*Kernel panic/);
      expect(ourFolders()).toEqual(foldersBefore);
    });
  },
  ', without an init',
);
