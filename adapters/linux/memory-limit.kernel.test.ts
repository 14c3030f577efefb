/** What becomes of an agent that takes more memory than it may. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { checkProgram } from '../../conformance/check.ts';
import { parseProgram } from '../../model/core/program.ts';
import { isAlive, kernelSuite, WatchedKernel, WHO } from '../../properties/kernel.ts';
import { spawnAgent } from './agent.ts';
import type { CallProgram, Step } from './calls.ts';
import { value } from './lowering.ts';
import { lower } from './lower.ts';
import { MemoryLimit } from './memory-limit.ts';
import { MAP, PROT_READ_WRITE, SYS } from './uapi.ts';

const LIMIT = 16 << 20;
const NO_FILE = value(0xffff_ffff_ffff_ffffn);

/** Maps memory and touches all of it. */
const take = (bytes: number): Step => ({
  kind: 'call',
  number: SYS.mmap,
  args: [
    value(0n),
    value(BigInt(bytes)),
    value(PROT_READ_WRITE),
    value(MAP.PRIVATE | MAP.ANONYMOUS | MAP.POPULATE),
    NO_FILE,
    value(0n),
  ],
});
const taking = (bytes: number): CallProgram => ({ dataBytes: 0, segments: [], outputs: [], steps: [take(bytes)] });
const SOON = { timeoutMs: 20_000 };

const probe = MemoryLimit.create();
probe?.remove();
const suite = probe === undefined ? describe.skip : describe;
const why = probe === undefined ? ' (skipped: no cgroup can be made)' : '';

/** Folders of limits that this process has made. */
function cgroups(): readonly string[] {
  const own = /^\d+:memory:(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
  const mount = own === undefined ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory';
  const path = own ?? /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '';
  return [join(mount, path), dirname(join(mount, path))].flatMap((folder) =>
    existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith('gmem-conformance-')) : [],
  );
}

suite(`a memory limit${why}`, () => {
  const made: MemoryLimit[] = [];
  const create = (bytes: number): MemoryLimit => {
    const limit = MemoryLimit.create(bytes);
    if (limit === undefined) throw new Error('no cgroup');
    made.push(limit);
    return limit;
  };
  afterEach(() => {
    for (const limit of made.splice(0)) limit.remove();
  });

  it('ends the agent that goes beyond it, says so, and holds for the next one', async () => {
    const limit = create(LIMIT);
    for (let attempt = 0; attempt < 2; attempt++) {
      const agent = spawnAgent(limit);
      const [mapped = -1n] = (await agent.run(taking(LIMIT / 2), SOON)).results;
      expect(mapped).toBeGreaterThan(0n);
      await expect(agent.run(taking(2 * LIMIT), SOON)).rejects.toThrow(
        'the agent was killed by SIGKILL: memory limit of 16 MiB reached',
      );
    }
  });

  it('has nothing to say of an agent that is killed for another reason', async () => {
    const agent = spawnAgent(create(LIMIT));
    await agent.run(taking(1 << 20), SOON);
    expect(await agent.close()).toEqual({ code: null, signal: 'SIGKILL', stderr: '' });
  });

  it('takes its agents with it', async () => {
    const limit = create(LIMIT);
    const agent = spawnAgent(limit);
    const [pid = 0n] = (await agent.run(WHO, SOON)).results;
    limit.remove();
    expect(isAlive(Number(pid))).toBe(false);
    expect(cgroups()).toEqual([]);
    await agent.close();
  });

  it('is gone after a process that ends without closing it, and after one that was killed when the next one starts', async () => {
    const source = (end: string): string =>
      `const { MemoryLimit } = await import('./adapters/linux/memory-limit.ts');
       const { spawnAgent } = await import('./adapters/linux/agent.ts');
       const limit = MemoryLimit.create(${LIMIT});
       const agent = spawnAgent(limit);
       await agent.run({ dataBytes: 0, segments: [], outputs: [], steps: [] }, { timeoutMs: 20_000 });
       ${end}`;
    const start = (end: string) =>
      spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', source(end)], {
        cwd: join(__dirname, '../..'),
        encoding: 'utf8',
      });
    expect(start('process.exit(3)')).toMatchObject({ status: 3, stderr: '' });
    expect(cgroups()).toEqual([]);
    expect(start(`process.kill(process.pid, 'SIGKILL'); setTimeout(() => {}, 1000)`).signal).toBe('SIGKILL');
    expect(cgroups()).toHaveLength(1);
    // Its agent takes a moment to follow it, and a cgroup with members is left alone.
    for (let attempt = 0; attempt < 200 && cgroups().length > 0; attempt++) {
      await setTimeout(20);
      create(LIMIT).remove();
    }
    expect(cgroups()).toEqual([]);
  });
});

const onKernel = probe === undefined ? describe.skip : kernelSuite;
onKernel(`a program that takes more memory than agents may${why}`, () => {
  let kernel: WatchedKernel | undefined;
  let limit: MemoryLimit | undefined;
  afterEach(async () => {
    await kernel?.target.close();
    limit?.remove();
  });

  it('is inconclusive, and the run goes on', async () => {
    limit = MemoryLimit.create(LIMIT);
    let isGreedy = true;
    const spoiled = (...args: Parameters<typeof lower>) => {
      const lowered = lower(...args);
      const { calls } = lowered;
      return isGreedy ? { ...lowered, calls: { ...calls, steps: [...calls.steps, take(2 * LIMIT)] } } : lowered;
    };
    kernel = await WatchedKernel.open({ lower: spoiled }, () => spawnAgent(limit));
    const { specification, target } = kernel;
    const { program } = parseProgram(specification, 'vm.create vm=vm0 dev=kvm type=0');
    expect(await checkProgram({ specification, target }, program)).toEqual({
      kind: 'inconclusive',
      reason: expect.stringMatching(
        /limit of 16 MiB reached; once more: .*limit of 16 MiB reached, after the last command$/,
      ),
    });
    isGreedy = false;
    expect(await checkProgram({ specification, target }, program)).toMatchObject({ kind: 'conforms' });
  });
});
