/** Kernels in QEMU that complain, crash or hang while they execute a program, and what becomes of the run. */
import { afterEach, expect, it } from '@jest/globals';
import _ from 'lodash';
import { readFileSync } from 'node:fs';
import { checkProgram } from '../../conformance/check.ts';
import type { ProgramVerdict } from '../../conformance/verdict.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { parseProgram } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import type { Kernel } from './kernels.ts';
import { qemuSuite } from '../../properties/kernel.ts';
import { scenarioText } from '../../scenarios/library.ts';
import type { Operand, Step } from './calls.ts';
import { lower, type LoweredProgram } from './lower.ts';
import { address, value } from './lowering.ts';
import { openQemu } from './qemu-target.ts';
import type { KernelTarget } from './target.ts';
import { AT_FDCWD, O_RDWR, SYS, WORD } from './uapi.ts';

const PROGRAM = `
  vm.create vm=vm0 dev=kvm type=0
  gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0
  file.stat fd=file0 field=size
  file.io fd=file0 op=write offset=0
  gmem.create file=file1 vm=vm0 size=0x1000 flags=0 reserved=0`;
/** The command that is another when the kernel is provoked, by its index. */
const FILE_IO = 3;

const call = (number: number, ...args: readonly Operand[]): CallStep => ({ kind: 'call', number, args });
const result = (step: number): Operand => ({ kind: 'result', step, plus: 0n });
const isCall = (step: Step, number: number): boolean => step.kind === 'call' && step.number === number;

type Spoil = (lowered: LoweredProgram) => LoweredProgram;
type CallStep = Extract<Step, { readonly kind: 'call' }>;

/** Lowers so many programs in another way, and then no more. */
function spoiled(spoil: Spoil, times = Infinity): typeof lower {
  let left = times;
  return (...args) => (left-- > 0 ? spoil(lower(...args)) : lower(...args));
}

/** Another call in place of the write to the file. */
function instead(lowered: LoweredProgram, call: CallStep): LoweredProgram {
  const { firstSteps, calls } = lowered;
  const [first = 0, next = 0] = firstSteps.slice(FILE_IO);
  const isWrite = (step: Step): boolean =>
    step.kind === 'call' && step.number === SYS.write && _.isEqual(step.args[2], value(BigInt(WORD.bytes)));
  const steps = calls.steps.map((step, at) => (at >= first && at < next && isWrite(step) ? call : step));
  return { ...lowered, calls: { ...calls, steps } };
}

/** A text is written to another file, one through which the kernel is provoked. */
function provoking(path: string, text: string): Spoil {
  return (lowered) => {
    const { calls } = lowered;
    const name = { offset: calls.dataBytes, bytes: Buffer.from(`${path}\0`) };
    const message = { offset: name.offset + name.bytes.length, bytes: Buffer.from(text) };
    // The second file that a program opens is one that it has no other use for.
    const [, opening = 0] = calls.steps.flatMap((step, at) => (isCall(step, SYS.openat) ? [at] : []));
    const open: CallStep = call(SYS.openat, value(AT_FDCWD), address(name.offset), value(O_RDWR));
    const dataBytes = message.offset + message.bytes.length;
    const write = call(SYS.write, result(opening), address(message.offset), value(BigInt(text.length)));
    const steps = calls.steps.map((step, at) => (at === opening ? open : step));
    return instead(
      { ...lowered, calls: { ...calls, steps, dataBytes, segments: [...calls.segments, name, message] } },
      write,
    );
  };
}
const sysrq = (key: string): Spoil => provoking('/proc/sysrq-trigger', key);
const lkdtm = (crashType: string): Spoil => provoking('/sys/kernel/debug/provoke-crash/DIRECT', crashType);

const KILL = 62;
const SIGKILL = 9n;
/** The agent kills the process group that it leads. */
const suicide: Spoil = (lowered) => instead(lowered, call(KILL, value(0n), value(SIGKILL)));

/** The processes of QEMU that this one has started. */
const machines = (): readonly string[] =>
  readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8')
    .split(' ')
    .filter((pid) => pid !== '' && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('qemu-system'));

let target: KernelTarget | undefined;
afterEach(async () => {
  await target?.close();
  target = undefined;
});

/** Boots the kernel, and answers what checks the program on it. */
async function boot({ image, modules }: Kernel, lowering: typeof lower, programMs = 5000): Promise<Check> {
  const opened = await openQemu({ kernel: image, modules }, { lower: lowering, programMs });
  target = opened;
  const specification = new Specification({ profile: opened.profile, machine: opened.machine }, CATALOGUE);
  const { program } = parseProgram(specification, PROGRAM);
  return async () => checkProgram({ specification, target: opened }, program);
}
type Check = () => Promise<ProgramVerdict>;

const CONFORMS = { kind: 'conforms', commands: 5 };
const crash = (message: RegExp) => ({
  kind: 'diverges',
  at: FILE_IO,
  observed: expect.stringMatching(message) as unknown,
});

qemuSuite('debian', (kernel) => {
  it('panics: a divergence with what it said last, at the command; then there is a new machine', async () => {
    const check = await boot(kernel, spoiled(sysrq('c'), 1));
    expect(await check()).toMatchObject(crash(/^crash: Kernel panic - not syncing: sysrq triggered crash\n/));
    expect(await check()).toEqual(CONFORMS);
  });

  it('has lost as much memory as it may: then there is a new machine', async () => {
    const { image, modules } = kernel;
    const opened = await openQemu({ kernel: image, modules }, { mostFailures: 3 });
    target = opened;
    const specification = new Specification({ profile: opened.profile, machine: opened.machine }, CATALOGUE);
    const { program } = parseProgram(specification, scenarioText('poison-entry-outlives-punch'));
    const at: (string | undefined)[] = [];
    for (let time = 0; time < 4; time++) {
      expect(await checkProgram({ specification, target: opened }, program)).toMatchObject({ kind: 'conforms' });
      at.push(machines()[0]);
    }
    expect(at[0]).toBe(at[2]);
    expect(at[3]).not.toBe(at[2]);
  });

  it('is killed from outside: the program is executed once more, on a new machine', async () => {
    const check = await boot(kernel, lower);
    const [first] = machines();
    const verdict = check();
    process.kill(Number(first), 'SIGKILL');
    expect(await verdict).toEqual(CONFORMS);
    expect(machines()).toHaveLength(1);
    expect(machines()).not.toEqual([first]);
  });

  it('loses its agent twice: no verdict, and says at which command', async () => {
    const check = await boot(kernel, spoiled(suicide, 1));
    expect(await check()).toEqual({
      kind: 'inconclusive',
      reason: expect.stringMatching(/killed by SIGKILL.*; once more: .*killed by SIGKILL.*, at command 4, file\.io$/s),
    });
    expect(await check()).toEqual(CONFORMS);
  });
});

qemuSuite('built', (kernel) => {
  it('warns once: a divergence at the command, each time, because each time the kernel is a new one', async () => {
    const check = await boot(kernel, spoiled(lkdtm('WARNING')));
    for (let time = 0; time < 2; time++)
      expect(await check()).toMatchObject(crash(/^crash: (-.*\n)?WARNING: drivers\/misc\/lkdtm\/bugs\.c:/));
  });

  it('runs into a BUG(): a divergence at the command, though the agent does not survive it', async () => {
    const check = await boot(kernel, spoiled(lkdtm('BUG'), 1));
    expect(await check()).toMatchObject(crash(/kernel BUG at drivers\/misc\/lkdtm\/bugs\.c:/));
    expect(await check()).toEqual(CONFORMS);
  });

  it('hangs: no verdict, and says at which command; then there is a new machine', async () => {
    const check = await boot(kernel, spoiled(lkdtm('HARDLOCKUP'), 1), 2000);
    expect(await check()).toEqual({
      kind: 'inconclusive',
      reason: expect.stringMatching(/not ended the program in 2000 ms; once more: .* 2000 ms, at command 4, file\.io$/),
    });
    expect(await check()).toEqual(CONFORMS);
    expect(machines()).toHaveLength(1);
  });
});

qemuSuite('checked', (kernel) => {
  it('reads what was freed: what KASAN says is a divergence at the command', async () => {
    const check = await boot(kernel, spoiled(lkdtm('READ_AFTER_FREE')));
    expect(await check()).toMatchObject(crash(/BUG: KASAN: slab-use-after-free in lkdtm_READ_AFTER_FREE/));
  });

  it('keeps a lock: what lockdep says is a divergence at the command', async () => {
    const check = await boot(kernel, spoiled(lkdtm('SPINLOCKUP'), 1));
    expect(await check()).toMatchObject(crash(/WARNING: lock held when returning to user space!/));
    expect(await check()).toEqual(CONFORMS);
  });
});
