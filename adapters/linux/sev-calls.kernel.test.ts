/** Guests that call their host, and contexts that are to be copied or moved where there are none, on kernels without SEV. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { existsSync } from 'node:fs';
import { runCampaign } from '../../conformance/campaign.ts';
import { checkProgram } from '../../conformance/check.ts';
import { Coverage } from '../../conformance/coverage.ts';
import { FULL_MACHINE } from '../../model/core/profile.ts';
import { printOutcome } from '../../model/core/outcome.ts';
import { printProgram, type Program } from '../../model/core/program.ts';
import { kernelSuite, qemuSuite } from '../../properties/kernel.ts';
import { FIXED_SEED, generated, parse, specify } from '../../properties/support.ts';
import type { Target } from '../adapter.ts';
import { spawnAgent, type AgentConnection } from './agent.ts';
import type { Instruction } from './hypercall-guest.ts';
import { startQemu, type QemuMachine } from './qemu.ts';
import { sevCallsTarget } from './sev-calls.ts';

const CALLS = specify('hypercall-linux-7.3');
const KEYS = specify('sev-linux-7.3');

const OWN = { amd: 'vmmcall', intel: 'vmcall' } as const satisfies Record<string, Instruction>;
type Processor = keyof typeof OWN;

const WORDS = {
  text: ['writable', 'read-only'],
  exits: ['0x1000', '0'],
  quirk: ['', 'hypercall.quirk guest=g mask=0x20'],
  alternatives: ['', 'hypercall.alternatives guest=g'],
  by: ['vmcall', 'vmmcall', 'ordinary', 'announcement'],
  cpl: ['0', '3'],
  bits: ['64', '32'],
} as const;
type Setting = { readonly [K in keyof typeof WORDS]: (typeof WORDS)[K][number] };

const settings = (): readonly Setting[] =>
  Object.entries(WORDS).reduce<readonly object[]>(
    (sofar, [name, words]) => sofar.flatMap((each) => words.map((word) => ({ ...each, [name]: word }))),
    [{}],
  ) as readonly Setting[];

/** A page, its neighbours, and the ends of what 32, 40, 52 and 64 bits can say. */
const EDGES = [
  '0',
  '1',
  '0xfff',
  '0x1000',
  '0xffffffff',
  '0x100001000',
  '0xffffffffff000',
  '0xfffffffffffff000',
  '0xffffffffffffffff',
];

const call = ({ by, cpl, bits }: Pick<Setting, 'by' | 'cpl' | 'bits'>, args = 'nr=12 a0=0x1000 a1=1 a2=0x10'): string =>
  `hypercall.call guest=g by=${by} cpl=${cpl} bits=${bits} ${args}`;

function programOf(cpu: Processor, setting: Setting): Program {
  const { text, exits, quirk, alternatives } = setting;
  const guest = `hypercall.guest guest=g cpu=${cpu} sev=no text=${text}`;
  const lines = [guest, `hypercall.exits guest=g mask=${exits}`, quirk, alternatives, call(setting), call(setting)];
  return parse(CALLS, lines.join('\n'));
}

/** The same calls, by guests of the processor that there is. */
const onProcessor = (cpu: Processor, program: Program): Program =>
  program.map(({ name, args }) =>
    name === 'hypercall.guest' ? { name, args: { ...args, cpu, sev: 'no' } } : { name, args },
  );

/** What must agree on every processor that runs guests by itself. */
function agreement(cpu: Processor, opened: () => Target): void {
  const check = async (program: Program, coverage?: Coverage): Promise<string> => {
    const target = opened();
    const verdict = await checkProgram({ specification: CALLS, target, ...(coverage && { coverage }) }, program);
    return verdict.kind === 'conforms' ? 'conforms' : `${JSON.stringify(verdict)}\n${printProgram(CALLS, program)}`;
  };

  it('a call comes to what the rules say, by each instruction, in each ring, with the quirk and without', async () => {
    for (const setting of settings()) expect(await check(programOf(cpu, setting))).toBe('conforms');
  });

  it('arguments at their edges do', async () => {
    const guest = `hypercall.guest guest=g cpu=${cpu} sev=no text=writable\nhypercall.exits guest=g mask=0x1000\n`;
    for (const bits of WORDS.bits)
      for (const [a0, a1] of EDGES.flatMap((gpa) => EDGES.map((pages) => [gpa, pages] as const))) {
        const asked = call({ by: OWN[cpu], cpl: '0', bits }, `nr=12 a0=${a0} a1=${a1} a2=0xffffffffffffffff`);
        expect(await check(parse(CALLS, `${guest}${asked}\n`))).toBe('conforms');
      }
  });

  it('random programs conform, and reach every rule that this processor can', async () => {
    const coverage = new Coverage(CALLS);
    for (const { commands } of generated(CALLS, { seed: FIXED_SEED, programs: 250, maxCommands: 25 }))
      expect(await check(onProcessor(cpu, commands), coverage)).toBe('conforms');
    // Of a guest that is not there nothing is said, and nothing executed.
    const missed = CALLS.rules().filter(({ id }) => coverage.hits(id) === 0 && !id.endsWith('/no-guest'));
    expect(missed.map(({ id }) => id)).toEqual(['hypercall.guest/no-sev', 'hypercall.call/not-intercepted']);
  });

  it('a kernel that took one instruction for the other would not', async () => {
    const setting = { text: 'writable', exits: '0x1000', quirk: '', alternatives: '', by: 'ordinary' } as const;
    const foreign = programOf(cpu === 'amd' ? 'intel' : 'amd', {
      ...setting,
      quirk: WORDS.quirk[1],
      cpl: '0',
      bits: '64',
    });
    expect(await check(foreign)).toMatch(/^\{"kind":"diverges"/);
  });
}

/** What kvm_amd says, whether there is SEV or not. */
function refusals(opened: () => Target): void {
  it('contexts that are not there are neither copied nor moved, with the errors that the rules say', async () => {
    const options = { seed: FIXED_SEED, runs: 120, maxCommands: 25 };
    const { verdict, failure, coverage } = await runCampaign(KEYS, opened(), options);
    expect({ verdict, failure }).toEqual({ verdict: 'conforms' });
    const rows = ['bad-descriptor', 'not-a-vm', 'same-vm', 'from-plain'];
    const rules = ['copy', 'move'].flatMap((name) => rows.map((row) => `sev.${name}/${row}`));
    expect(rules.filter((rule) => coverage.hits(rule) === 0)).toEqual([]);
  });
}

qemuSuite(
  'debian',
  (kernel) => {
    let machine: QemuMachine;
    let target: Target;
    beforeAll(async () => {
      machine = await startQemu({ kernel });
      target = sevCallsTarget(await machine.connect(), OWN.amd, { name: 'qemu', machine: FULL_MACHINE });
    });
    afterAll(async () => machine.kill());

    agreement('amd', () => target);

    refusals(() => target);
  },
  ': calls of guests, and contexts to copy and to move',
);

const backEnd = ['kvm_pvm', 'kvm_intel', 'kvm_amd'].find((module) => existsSync(`/sys/module/${module}`));

kernelSuite(`${backEnd ?? 'KVM'} of this machine: calls of guests, and contexts to copy and to move`, () => {
  const cpu: Processor = backEnd === 'kvm_amd' ? 'amd' : 'intel';
  let agent: AgentConnection;
  let target: Target;
  beforeAll(() => {
    agent = spawnAgent();
    target = sevCallsTarget(agent, OWN[cpu], { name: 'kvm', machine: FULL_MACHINE });
  });
  afterAll(async () => agent.close());

  const outcomes = async (program: Program): Promise<readonly string[]> =>
    Array.from(await target.execute(program, CALLS.config.profile), ({ outcome }) => printOutcome(outcome));

  if (backEnd === 'kvm_amd') refusals(() => target);
  else
    it('contexts are copied and moved by AMD’s module alone', async () => {
      const froms = ['none', 'null', 'vm0', 'vm1'];
      const asked = froms.flatMap((from) => [`sev.copy vm=vm0 from=${from}`, `sev.move vm=vm0 from=${from}`]);
      const vms = 'sev.vm vm=vm0 type=default\nsev.vm vm=vm1 type=default\n';
      const seen = await outcomes(parse(KEYS, `${vms}${asked.join('\n')}\n`));
      expect(seen).toEqual(['ok', 'ok', ...asked.map(() => 'EINVAL')]);
    });

  if (backEnd !== 'kvm_pvm') agreement(cpu, () => target);
  else
    it('ring 0 is emulated, where a call that KVM patches never gets done; the rest is as the rules say', async () => {
      const guest = 'hypercall.guest guest=g cpu=intel sev=no text=writable\n';
      const masks = ['0x1001', '0x1000'].map((mask) => `hypercall.exits guest=g mask=${mask}\n`).join('');
      const quirks = ['0x8000000000000000', '0x20'].map((mask) => `hypercall.quirk guest=g mask=${mask}\n`).join('');
      const calls = ['3', '0'].map((cpl) => call({ by: 'vmcall', cpl: cpl as '0' | '3', bits: '64' })).join('\n');
      const seen = await outcomes(parse(CALLS, `${guest}${masks}${quirks}${calls}\n`));
      expect(seen).toEqual(['ok', 'EINVAL', 'ok', 'EINVAL', 'ok', 'EPERM', '#UD']);
    });
});
