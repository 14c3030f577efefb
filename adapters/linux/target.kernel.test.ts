import { afterEach, expect, it } from '@jest/globals';
import { checkProgram } from '../../conformance/check.ts';
import type { Divergence } from '../../conformance/verdict.ts';
import { GMEM_FLAG, KVM_MEM } from '../../model/core/abi.ts';
import { parseProgram, printProgram, type Program } from '../../model/core/program.ts';
import type { Command } from '../../model/catalogue.ts';
import { holdings, isAlive, kernelSuite, WatchedKernel } from '../../properties/kernel.ts';
import { AgentHung, spawnAgent } from './agent.ts';
import type { CallProgram } from './calls.ts';
import type { KernelOptions } from './target.ts';
import { lower } from './lower.ts';

const LOAD = `
  vm.create vm=vm0 dev=kvm type=0
  slot.set vm=vm0 api=v1 slot=0 flags=0 gpa=0 size=0x1000 hva=arena gmem=none offset=0
  vcpu.create vcpu=vcpu0 vm=vm0 id=0
  guest.load vcpu=vcpu0 gpa=0`;

/** `jmp .` */
const FOREVER = Uint8Array.of(0xeb, 0xfe);

/** The same calls, but what the guest does first is never done. */
const withoutEnd = (calls: CallProgram): CallProgram => ({
  ...calls,
  segments: calls.segments.map((segment) =>
    segment.note?.startsWith('load:') === true ? { ...segment, bytes: FOREVER } : segment,
  ),
});

/** What KVM is known to do otherwise than it says; docs/disagreements.md has the reasons. */
function known({ rule, observed, at }: Divergence, program: Program): boolean {
  const commands = program.slice(0, at + 1) as readonly Command[];
  const last = commands.at(-1);
  if (last?.name === 'slot.set' && rule === 'slot.set/beyond-file')
    return observed === 'ok' && last.args.offset + last.args.size >= 1n << 63n;
  // With shadow paging, what lies at the host address is fetched ahead into slots of mappable files.
  const mappable = new Set(
    commands.flatMap(({ name, args }) =>
      name === 'gmem.create' && (args.flags & GMEM_FLAG.MMAP) !== 0n ? [args.file] : [],
    ),
  );
  return (
    /^(guest|host)\./.test(rule) &&
    commands.some(
      ({ name, args }) =>
        name === 'slot.set' && (args.flags & KVM_MEM.GUEST_MEMFD) !== 0n && args.hva.base !== '' && mappable.size > 0,
    )
  );
}

kernelSuite('a kernel', () => {
  const opened: WatchedKernel[] = [];
  const open = async (options?: KernelOptions): Promise<WatchedKernel> => {
    const kernel = await WatchedKernel.open(options);
    opened.push(kernel);
    return kernel;
  };
  const check = (kernel: WatchedKernel, text: string) => {
    const { specification, target } = kernel;
    return checkProgram({ specification, target }, parseProgram(specification, text).program);
  };
  afterEach(async () => {
    for (const { target } of opened.splice(0)) await target.close();
  });

  it('does what its profile says, but for what is known', async () => {
    const { specification, target, ...kernel } = await open();
    void kernel;
    const others: string[] = [];
    let checked = 0;
    for (const { commands, trace } of (opened[0] as WatchedKernel).programs(11, 150)) {
      const verdict = await checkProgram({ specification, target }, commands, trace);
      if (verdict.kind === 'conforms') checked += verdict.commands;
      else if (verdict.kind === 'inconclusive' || !known(verdict, commands))
        others.push(`${JSON.stringify(verdict)}\n${printProgram(specification, commands)}`);
    }
    expect(others).toEqual([]);
    expect(checked).toBeGreaterThan(1000);
  });
});
