import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);

/** The rule that decides the last command. */
function lastRule(...lines: readonly string[]): string | undefined {
  let state = specification.initial;
  let rule: string | undefined;
  const start = ['vm.create vm=vm0 dev=kvm type=1', 'vcpu.create vcpu=vcpu0 vm=vm0 id=0'];
  for (const command of parseProgram(specification, [...start, ...lines].join('\n')).program)
    ({ state, rule } = specification.step(state, command));
  return rule;
}

describe('a frame without a slot', () => {
  const load = 'guest.load vcpu=vcpu0 gpa=0x2000';
  const other = 'guest.load vcpu=vcpu0 gpa=0x1000';
  const prefault = 'vcpu.prefault vcpu=vcpu0 gpa=0x2000 size=0x1000 flags=0';
  const below = 'slot.set vm=vm0 api=v2 slot=1 flags=0 gpa=0 size=0x2000 hva=arena gmem=none offset=0';
  const below3 = 'slot.set vm=vm0 api=v2 slot=1 flags=0 gpa=0 size=0x3000 hva=arena gmem=none offset=0';
  const intoIt = 'vcpu.prefault vcpu=vcpu0 gpa=0 size=0x4000 flags=0';
  const make = (attributes: number) =>
    `attributes.set vm=vm0 address=0x2000 size=0x1000 attributes=${attributes} flags=0`;
  const slot = 'slot.set vm=vm0 api=v2 slot=0 flags=0 gpa=0x10000 size=0x1000 hva=arena gmem=none offset=0';

  it.each([
    ['is MMIO', [load], 'guest.load/no-slot'],
    ['is MMIO again', [load, load], 'guest.load/no-slot'],
    ['is a fault where it is private', [make(8), load], 'guest.load/private-without-slot'],
    ['is not spoken of where it was MMIO and became private', [load, make(8), load], 'guest.load/mmio-remembered'],
    ['is not spoken of where it was pre-faulted as MMIO', [prefault, make(8), load], 'guest.load/mmio-remembered'],
    ['is not spoken of where a pre-fault ended', [below, intoIt, make(8), load], 'guest.load/mmio-remembered'],
    ['is a fault where it was pre-faulted as private', [make(8), prefault, load], 'guest.load/private-without-slot'],
    ['is spoken of where another one was MMIO', [other, make(8), load], 'guest.load/private-without-slot'],
    ['is not spoken of when another slot has changed', [load, slot, make(8), load], 'guest.load/mmio-remembered'],
    ['is not spoken of when it has a slot since', [load, below3, make(8), load], 'guest.load/mmio-remembered'],
    ['is spoken of once it was mapped', [load, below3, load, make(8), load], 'guest.load/private-without-gmem'],
    ['is MMIO where it became private and shared again', [load, make(8), make(0), load], 'guest.load/no-slot'],
  ])('%s', (_name, lines, rule) => {
    expect(lastRule(...lines)).toBe(rule);
  });
});
