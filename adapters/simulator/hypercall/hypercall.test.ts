import { describe, expect, it } from '@jest/globals';
import { printOutcome } from '../../../model/core/outcome.ts';
import { FULL_MACHINE, profileById, type Feature } from '../../../model/core/profile.ts';
import { newSimulated, type Simulated } from '../index.ts';

const FIX_HYPERCALL_INSN = 1n << 5n;
const MAP_GPA_RANGE = 12n;

interface Machine {
  readonly feature?: Feature;
  readonly cpu?: 'amd' | 'intel';
  readonly sev?: 'yes' | 'no';
  readonly text?: 'writable' | 'read-only';
}
interface Call {
  readonly cpl?: '0' | '3';
  readonly bits?: '64' | '32';
  readonly nr?: bigint;
  readonly a0?: bigint;
  readonly a1?: bigint;
  readonly a2?: bigint;
}

/** A guest whose VMM listens. */
class Guest {
  readonly host: Simulated;

  constructor({ feature, cpu = 'amd', sev = 'no', text = 'writable' }: Machine = {}) {
    const features = feature === undefined ? [] : [feature];
    const profile = { ...profileById('hypercall-linux-7.3'), features };
    this.host = newSimulated({ profile, machine: FULL_MACHINE });
    this.run('guest', { cpu, sev, text });
    this.run('exits', { mask: 1n << MAP_GPA_RANGE });
  }

  run(command: string, args: Record<string, string | bigint> = {}): string {
    return printOutcome(this.host.run({ name: `hypercall.${command}`, args: { guest: 'g', ...args } }));
  }
  call(by: string, { cpl = '0', bits = '64', nr = MAP_GPA_RANGE, a0 = 0x1000n, a1 = 1n, a2 = 16n }: Call = {}): string {
    return this.run('call', { by, cpl, bits, nr, a0, a1, a2 });
  }
}

const EXIT = /^HYPERCALL gpa=0x1000 pages=0x1 private/;

describe('an instruction that the processor has', () => {
  it.each([
    ['amd', 'vmmcall'],
    ['intel', 'vmcall'],
  ] as const)('asks the VMM: %s, %s', (cpu, by) => {
    const guest = new Guest({ cpu });
    expect(guest.call(by)).toMatch(EXIT);
    expect(guest.host.facts()).toEqual({ hypercalls: [{ guest: 'g', pending: true }] });
    expect(guest.run('return', { sets: 'yes', ret: 7n })).toBe('ok 0x7');
    expect(guest.host.facts()).toEqual({ hypercalls: [{ guest: 'g', pending: false }] });
  });

  it.each([
    [{ cpl: '3' }, 'EPERM'],
    [{ cpl: '3', nr: 0n }, 'EPERM'],
    [{ nr: 99n }, 'ENOSYS'],
    [{ a0: 1n }, 'EINVAL'],
    [{ a1: 0n }, 'EINVAL'],
    [{ a0: 0x1000n, a1: (1n << 64n) - 1n }, 'EINVAL'],
    [{ a0: 0x1000n, a1: (1n << 64n) - 2n }, /^HYPERCALL/],
    [{ bits: '32', a1: 0x1_0000_0000n }, 'EINVAL'],
    [{ bits: '32', nr: 0x1_0000_000cn }, EXIT],
    [{ bits: '32', cpl: '3' }, 'EPERM'],
  ] as const)('with %j is answered %s', (call, answer) => {
    expect(new Guest().call('vmmcall', call)).toMatch(answer);
  });

  it('finds zero where the VMM puts no answer into the exit, whatever was there', () => {
    const guest = new Guest();
    expect(guest.call('vmmcall', { cpl: '3' })).toBe('EPERM');
    guest.call('vmmcall');
    expect(guest.run('return', { sets: 'no', ret: 7n })).toBe('ok 0x0');
  });

  it('is answered ENOSYS where the VMM does not listen, before its arguments are looked at', () => {
    const guest = new Guest();
    guest.run('exits', { mask: 0n });
    expect(guest.call('vmmcall', { a1: 0n })).toBe('ENOSYS');
  });

  it('gives the guest 32 bits of the answer in compatibility mode', () => {
    const guest = new Guest();
    guest.call('vmmcall', { bits: '32' });
    expect(guest.run('return', { sets: 'yes', ret: 0x1_0000_0002n })).toBe('ok 0x2');
  });
});

describe('an instruction that the processor has not', () => {
  it.each([
    [{ cpu: 'amd' }, 'vmcall', {}, EXIT],
    [{ cpu: 'intel' }, 'vmmcall', {}, EXIT],
    [{ cpu: 'amd', text: 'read-only' }, 'vmcall', {}, '#PF'],
    [{ cpu: 'amd' }, 'vmcall', { cpl: '3' }, '#GP'],
    [{ cpu: 'intel' }, 'vmmcall', { cpl: '3' }, 'EPERM'],
    [{ cpu: 'amd', sev: 'yes' }, 'vmcall', {}, '#UD'],
    [{ cpu: 'amd', sev: 'yes' }, 'vmcall', { cpl: '3' }, '#UD'],
    [{ cpu: 'amd', sev: 'yes', feature: 'hypercall-patched' }, 'vmcall', {}, 'undecodable'],
  ] as const)('on %j: %s %j: %s', (machine, by, call, answer) => {
    expect(new Guest(machine).call(by, call)).toMatch(answer);
  });

  it('stays patched, where a write that fails stays undone', () => {
    const guest = new Guest();
    guest.call('vmcall');
    guest.run('return', { sets: 'yes', ret: 0n });
    guest.run('quirk', { mask: FIX_HYPERCALL_INSN });
    expect(guest.call('vmcall')).toMatch(EXIT);
  });

  it('is undefined once the quirk is disabled, which it stays', () => {
    const guest = new Guest();
    expect(guest.run('quirk', { mask: 1n << 12n })).toBe('EINVAL');
    guest.run('quirk', { mask: FIX_HYPERCALL_INSN });
    guest.run('quirk', { mask: 0n });
    expect(guest.call('vmcall')).toBe('#UD');
    expect(guest.call('vmcall', { cpl: '3' })).toBe('#GP');
  });
});

describe('before and after alternatives', () => {
  it.each([
    ['hypercall-patched', 'undecodable', EXIT],
    [undefined, EXIT, EXIT],
    ['hypercall-vmmcall-default', EXIT, EXIT],
  ] as const)('a guest of SEV announces with %s: %s, %s', (feature, before, after) => {
    const guest = new Guest({ sev: 'yes', ...(feature !== undefined && { feature }) });
    expect(guest.call('announcement')).toMatch(before);
    guest.run('return', { sets: 'yes', ret: 0n });
    guest.run('alternatives');
    expect(guest.call('announcement')).toMatch(after);
  });

  it.each([
    [undefined, 'amd', '#UD', EXIT],
    [undefined, 'intel', EXIT, EXIT],
    ['hypercall-vmmcall-default', 'amd', EXIT, EXIT],
    ['hypercall-vmmcall-default', 'intel', '#UD', EXIT],
  ] as const)('with %s, the ordinary call of %s without the quirk: %s, %s', (feature, cpu, before, after) => {
    const guest = new Guest({ cpu, ...(feature !== undefined && { feature }) });
    guest.run('quirk', { mask: FIX_HYPERCALL_INSN });
    expect(guest.call('ordinary')).toMatch(before);
    guest.run('return', { sets: 'yes', ret: 0n });
    guest.run('alternatives');
    expect(guest.call('ordinary')).toMatch(after);
  });
});

it('has no SEV on Intel, and no exits but one', () => {
  expect(new Guest().run('guest', { cpu: 'intel', sev: 'yes', text: 'writable' })).toBe('EINVAL');
  expect(new Guest().run('exits', { mask: 1n })).toBe('EINVAL');
});
