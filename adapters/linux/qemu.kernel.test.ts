import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { AgentGone, AgentHung, type AgentConnection } from './agent.ts';
import type { CallProgram, Operand, Step } from './calls.ts';
import { cachedKernels } from './kernels.ts';
import { startQemu, type QemuMachine } from './qemu.ts';

const value = (number: number): Operand => ({ kind: 'value', value: BigInt(number) });
const address = (offset: number): Operand => ({ kind: 'address', offset });
const result = (step: number): Operand => ({ kind: 'result', step, plus: 0n });
const call = (number: number, ...args: readonly Operand[]): Step => ({ kind: 'call', number, args });

/** A program that opens a file for reading and writing as its step 0. */
const withFile = (path: string, text: string, ...steps: readonly Step[]): CallProgram => ({
  dataBytes: 4096,
  segments: [
    { offset: 0, bytes: Buffer.from(path) },
    { offset: TEXT, bytes: Buffer.from(text) },
  ],
  steps: [call(CALL.open, address(0), value(O_RDWR)), ...steps],
  outputs: [],
});

const CALL = { write: 1, open: 2, ioctl: 16, getpid: 39, kill: 62, ppoll: 271 } as const;
const O_RDWR = 2;
const TEXT = 1024;
const KVM_CREATE_VM = 0xae01;
const KVM_CHECK_EXTENSION = 0xae03;
const KVM_CAP_VM_TYPES = 235;
const SOFTWARE_PROTECTED = 1;

const SOON = { timeoutMs: 20_000 };
const GETPID: CallProgram = { dataBytes: 0, segments: [], outputs: [], steps: [call(CALL.getpid)] };
const DIE: CallProgram = { ...GETPID, steps: [call(CALL.getpid), call(CALL.kill, result(0), value(9))] };
const HANG: CallProgram = { ...GETPID, steps: [call(CALL.ppoll, value(0), value(0), value(0))] };

/** A kernel of each origin, the newest; without one, the reason is in the title of what is skipped. */
function wanted(origin: string, script: string, fits: (name: string) => boolean) {
  const kernel = cachedKernels().findLast(({ name }) => fits(name));
  const hasQemu = spawnSync('qemu-system-x86_64', ['--version']).status === 0;
  const why = !hasQemu
    ? 'no qemu-system-x86_64'
    : kernel === undefined
      ? `no kernel: run scripts/${script}`
      : undefined;
  const title = why === undefined ? `${origin} ${kernel?.name ?? ''}` : `${origin} (skipped: ${why})`;
  return { kernel, title, suite: why === undefined ? describe : describe.skip };
}

const isBuilt = (name: string): boolean => name.includes('-built-');
const DEBIAN = wanted('kernel of Debian', 'debian-kernel', (name) => !name.includes('-built'));
const BUILT = wanted('kernel that was built', 'build-kernel', isBuilt);

const ourFolders = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('gmem-qemu-'));

for (const { kernel, title, suite } of [DEBIAN, BUILT]) {
  suite(title, () => {
    const foldersBefore = ourFolders();
    let machine: QemuMachine;
    let agent: AgentConnection;

    beforeAll(async () => {
      if (kernel === undefined) throw new Error('skipped');
      machine = await startQemu({ kernel });
      agent = await machine.connect();
      await agent.run(GETPID, SOON);
      process.stdout.write(`${kernel.name}: booted in ${Math.round(machine.bootMs)} ms under ${machine.accel}\n`);
    });
    afterAll(async () => machine.kill());

    it('has KVM, with the VM types that it was built for', async () => {
      const types = call(CALL.ioctl, result(0), value(KVM_CHECK_EXTENSION), value(KVM_CAP_VM_TYPES));
      const create = (type: number) => call(CALL.ioctl, result(0), value(KVM_CREATE_VM), value(type));
      const program = withFile('/dev/kvm', '', types, create(0), create(SOFTWARE_PROTECTED));
      const [kvm = -1n, mask = 0n, plain = -1n, guarded = -1n] = (await agent.run(program, SOON)).results;
      const builtIn = isBuilt(kernel?.name ?? '');
      expect([kvm, plain].every((fd) => fd > 0n)).toBe(true);
      expect((mask >> BigInt(SOFTWARE_PROTECTED)) & 1n).toBe(builtIn ? 1n : 0n);
      expect(guarded > 0n).toBe(builtIn);
    });

    it('has the files through which failures are injected', async () => {
      const files = ['/sys/kernel/debug/hwpoison/corrupt-pfn'];
      if (isBuilt(kernel?.name ?? '')) files.push('/sys/kernel/debug/failslab/probability', '/proc/self/fail-nth');
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
        withFile('/dev/kmsg', text, call(CALL.write, result(0), address(TEXT), value(text.length)));
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
}

const { suite: describeBuilt, kernel: built } = BUILT;
describeBuilt('a machine that does not boot', () => {
  it('says so, with the end of its console, and leaves nothing behind', async () => {
    if (built === undefined) throw new Error('skipped');
    const foldersBefore = ourFolders();
    const started = startQemu({ kernel: built, append: 'rdinit=/no-such-init', timeoutMs: 30_000 });
    await expect(started).rejects.toThrow(/does not boot: QEMU ended(.|\n)*Kernel panic/);
    expect(ourFolders()).toEqual(foldersBefore);
  });
});
