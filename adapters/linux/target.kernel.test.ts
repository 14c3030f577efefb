import { afterEach, expect, it } from '@jest/globals';
import { checkProgram } from '../../conformance/check.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { parseProgram } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { setTimeout } from 'node:timers/promises';
import { holdings, isAlive, kernelSuite, WatchedKernel, WHO } from '../../properties/kernel.ts';
import { AgentHung, spawnAgent } from './agent.ts';
import type { CallProgram } from './calls.ts';
import type { KernelReport } from './kernel-log.ts';
import { KernelTarget, type KernelOptions } from './target.ts';
import { lower } from './lower.ts';

const LOAD = `
  vm.create vm=vm0 dev=kvm type=0
  slot.set vm=vm0 api=v1 slot=0 flags=0 gpa=0 size=0x1000 hva=arena gmem=none offset=0
  vcpu.create vcpu=vcpu0 vm=vm0 id=0
  guest.load vcpu=vcpu0 gpa=0`;

/** `mov (%rbx), %rax`, with which a load begins. */
const LOAD_CODE = [0x48, 0x8b, 0x03];
/** `jmp .` */
const FOREVER = Uint8Array.of(0xeb, 0xfe);

/** The same calls, but what the guest does first is never done. */
const withoutEnd = (calls: CallProgram): CallProgram => ({
  ...calls,
  segments: calls.segments.map((segment) =>
    LOAD_CODE.every((byte, at) => segment.bytes[at] === byte) ? { ...segment, bytes: FOREVER } : segment,
  ),
});

const endless = (...args: Parameters<typeof lower>) => {
  const lowered = lower(...args);
  return { ...lowered, calls: withoutEnd(lowered.calls) };
};

kernelSuite('a kernel', () => {
  const opened: WatchedKernel[] = [];
  const open = async (options?: KernelOptions): Promise<WatchedKernel> => {
    const kernel = await WatchedKernel.open(options);
    opened.push(kernel);
    return kernel;
  };
  afterEach(async () => {
    for (const { target } of opened.splice(0)) await target.close();
  });

  it('leaves nothing in the agent: no descriptor, no mapping, no memory', async () => {
    const kernel = await open();
    const { specification, target } = kernel;
    const run = async (seed: number, count: number) => {
      for (const { commands, trace } of kernel.programs(seed, count))
        await checkProgram({ specification, target }, commands, trace);
      return holdings(await kernel.pid());
    };
    const before = await run(1, 30);
    const after = await run(2, 300);
    expect({ ...after, residentKiB: 0 }).toEqual({ ...before, residentKiB: 0 });
    expect(before.descriptors).toBe(3);
    expect(after.residentKiB).toBeLessThan(before.residentKiB + 2048);
    expect(after.residentKiB).toBeLessThan(32 << 10);
    expect(kernel.agents).toBe(1);
  });

  it('goes on with a new agent where one is killed in mid-run, or cannot tell', async () => {
    const kernel = await open();
    const { specification, target } = kernel;
    const kinds = new Map<string, number>();
    let kills = 0;
    for (const { commands, trace } of kernel.programs(3, 60)) {
      // The last one may have been killed when it had nothing to do: nobody has noticed yet.
      const pid = await kernel.pid().catch(() => undefined);
      const verdict = checkProgram({ specification, target }, commands, trace);
      if (kills < 8 && pid !== undefined) {
        await setTimeout(kills);
        process.kill(pid, 'SIGKILL');
        kills++;
      }
      const { kind } = await verdict;
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
    expect(kinds.get('conforms') ?? 0).toBeGreaterThan(50);
    expect(kernel.agents).toBeGreaterThan(4);
    expect(kernel.agents).toBeLessThanOrEqual(1 + kills);
  });

  it('cannot tell where every agent hangs, and says so in time', async () => {
    const kernel = await open({ lower: endless, programMs: 300 });
    const { specification, target } = kernel;
    const started = performance.now();
    const verdict = await checkProgram({ specification, target }, parseProgram(specification, LOAD).program);
    expect(verdict).toMatchObject({ kind: 'inconclusive', reason: expect.stringContaining('300 ms') as unknown });
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it('gives up what it executes when it is closed, and starts no other agent', async () => {
    const kernel = await open({ lower: endless });
    const { specification, target } = kernel;
    const pid = await kernel.pid();
    const verdict = checkProgram({ specification, target }, parseProgram(specification, LOAD).program);
    await setTimeout(200);
    await target.close();
    expect(await verdict).toMatchObject({
      kind: 'inconclusive',
      reason: expect.stringContaining('SIGKILL') as unknown,
    });
    expect(kernel.agents).toBe(1);
    expect(isAlive(pid)).toBe(false);
  });

  it('has failed the program during which it complained, though nobody knows at which command', async () => {
    const title = 'WARNING: virt/kvm/guest_memfd.c:412 at kvm_gmem_release+0xdd/0x100, CPU#1: agent/87';
    const report: KernelReport = { kind: 'warning', title, lines: [title], complete: true, place: undefined };
    const said: KernelReport[] = [];
    const target = await KernelTarget.open({
      name: 'kvm',
      connect: () => Promise.resolve(spawnAgent()),
      reports: () => Promise.resolve(said.splice(0)),
      close: () => Promise.resolve(),
    });
    const specification = new Specification({ profile: target.profile, machine: target.machine }, CATALOGUE);
    const { program } = parseProgram(specification, LOAD);
    said.push(report);
    expect(await checkProgram({ specification, target }, program)).toMatchObject({
      kind: 'diverges',
      at: program.length - 1,
      observed: `crash: (reported while the program ran; at which command is not known)\n${title}`,
    });
    expect(await checkProgram({ specification, target }, program)).toMatchObject({ kind: 'conforms' });
    await target.close();
  });

  it('lets go of an agent whose guest never stops', async () => {
    const kernel = await open();
    const { specification, target } = kernel;
    const { calls } = lower(parseProgram(specification, LOAD).program, target.machine);
    const agent = spawnAgent();
    const [pid = 0n] = (await agent.run(WHO, { timeoutMs: 10_000 })).results;
    const started = performance.now();
    await expect(agent.run(withoutEnd(calls), { timeoutMs: 300 })).rejects.toBeInstanceOf(AgentHung);
    expect(performance.now() - started).toBeLessThan(2000);
    expect(await agent.close()).toMatchObject({ signal: 'SIGKILL' });
    expect(isAlive(Number(pid))).toBe(false);
  });
});
