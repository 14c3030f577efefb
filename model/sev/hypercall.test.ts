import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { printOutcome } from '../core/outcome.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';

const MERGED = 'hypercall-linux-7.3';
const PATCHED = 'hypercall-patched';
const INVERTED = 'hypercall-vmmcall-default';

/** What each line comes to, behind a guest of that kind whose announcements the VMM wants to see. */
function outcomes(profile: string, guest: string, text: string): readonly string[] {
  const specification = new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
  const start = `hypercall.guest guest=g ${guest}\nhypercall.exits guest=g mask=0x1000\n`;
  let state = specification.initial;
  return parseProgram(specification, start + text)
    .program.map((command) => {
      const step = specification.step(state, command);
      ({ state } = step);
      return step.unmodelled === undefined ? printOutcome(step.outcome) : 'silent';
    })
    .slice(2);
}

const call = (by: string, { cpl = 0, bits = 64, nr = '12', a0 = '0x1000', a1 = '1', a2 = '16' } = {}): string =>
  `hypercall.call guest=g by=${by} cpl=${cpl} bits=${bits} nr=${nr} a0=${a0} a1=${a1} a2=${a2}\n`;

const EXIT = 'HYPERCALL gpa=0x1000 pages=0x1 private attributes=0x10';
const AMD = 'cpu=amd sev=no text=writable';
const SEV = 'cpu=amd sev=yes text=writable';
const INTEL = 'cpu=intel sev=no text=writable';
const ALTERNATIVES = 'hypercall.alternatives guest=g\n';
const QUIRK_OFF = 'hypercall.quirk guest=g mask=0x20\n';

describe('an announcement', () => {
  it.each([
    [PATCHED, SEV, 'undecodable', EXIT],
    [PATCHED, AMD, EXIT, EXIT],
    [PATCHED, INTEL, EXIT, EXIT],
    [MERGED, SEV, EXIT, EXIT],
    [MERGED, AMD, EXIT, EXIT],
    [INVERTED, SEV, EXIT, EXIT],
    [INVERTED, AMD, EXIT, EXIT],
    [INVERTED, INTEL, EXIT, EXIT],
  ])('in %s by %s comes to %s, and to %s behind the alternatives', (profile, guest, before, after) => {
    expect(outcomes(profile, guest, call('announcement'))).toEqual([before]);
    expect(outcomes(profile, guest, ALTERNATIVES + call('announcement'))).toEqual(['ok', after]);
  });

  it('by the default that is not the processor’s is #UD without the quirk that patches', () => {
    expect(outcomes(INVERTED, INTEL, QUIRK_OFF + call('ordinary'))).toEqual(['ok', '#UD']);
    expect(outcomes(INVERTED, AMD, QUIRK_OFF + call('ordinary'))).toEqual(['ok', EXIT]);
    expect(outcomes(PATCHED, AMD, QUIRK_OFF + call('ordinary'))).toEqual(['ok', '#UD']);
  });
});

describe('the wrong instruction', () => {
  it('is the guest’s own #UD under SEV', () => {
    expect(outcomes(MERGED, SEV, call('vmcall') + call('ordinary') + call('vmmcall'))).toEqual(['#UD', '#UD', EXIT]);
  });

  it('is patched once, and is the right one from then on', () => {
    const answer = 'hypercall.return guest=g sets=yes ret=0\n';
    expect(outcomes(MERGED, AMD, call('vmcall') + answer + QUIRK_OFF + call('vmcall'))).toEqual([
      EXIT,
      'ok 0x0',
      'ok',
      EXIT,
    ]);
    expect(outcomes(MERGED, 'cpu=intel sev=no text=read-only', call('vmmcall'))).toEqual(['#PF']);
  });

  it('is #GP where KVM emulates VMCALL outside of ring 0, and EPERM where it is VMMCALL', () => {
    expect(outcomes(MERGED, AMD, call('vmcall', { cpl: 3 }))).toEqual(['#GP']);
    expect(outcomes(MERGED, INTEL, call('vmmcall', { cpl: 3 }))).toEqual(['EPERM']);
  });
});

describe('KVM_HC_MAP_GPA_RANGE', () => {
  const by = (change: Parameters<typeof call>[1]): string => call('vmmcall', change);

  it.each([
    [{ cpl: 3, nr: '13' }, 'EPERM'],
    [{ nr: '13', a1: '0' }, 'ENOSYS'],
    [{ nr: '1' }, 'silent'],
    [{ a0: '0x1008' }, 'EINVAL'],
    [{ a1: '0' }, 'EINVAL'],
    [{ a1: '0xffffffffffffffff' }, 'EINVAL'],
    [{ a0: '0xfffffffffffff000', a1: '1' }, 'HYPERCALL gpa=0xfffffffffffff000 pages=0x1 private attributes=0x10'],
    [{ a2: '0xffffffffffffffef' }, 'HYPERCALL gpa=0x1000 pages=0x1 shared attributes=0xffffffffffffffef'],
    [{ bits: 32, nr: '0x10000000c', a0: '0x100001000', a1: '0x100000001' }, EXIT],
  ])('with %j comes to %s', (change, outcome) => {
    expect(outcomes(MERGED, AMD, by(change))).toEqual([outcome]);
  });

  it('is unknown to a VMM that has not asked for it', () => {
    expect(outcomes(MERGED, AMD, `hypercall.exits guest=g mask=0\n${by({ a1: '0' })}`)).toEqual(['ok', 'ENOSYS']);
    expect(outcomes(MERGED, AMD, 'hypercall.exits guest=g mask=0x1001\n')).toEqual(['EINVAL']);
  });

  it('gives the guest whatever the VMM says, in as many bits as it called with', () => {
    const answer = 'hypercall.return guest=g sets=yes ret=0xfffffffffffffffe\n';
    expect(outcomes(MERGED, AMD, by({}) + by({}))).toEqual([EXIT, 'silent']);
    expect(outcomes(MERGED, AMD, by({}) + answer + answer)).toEqual([EXIT, 'ok 0xfffffffffffffffe', 'silent']);
    expect(outcomes(MERGED, AMD, by({ bits: 32 }) + answer)).toEqual([EXIT, 'ok 0xfffffffe']);
  });

  it('gives it zero where the VMM says nothing, although an earlier call was refused', () => {
    const silent = 'hypercall.return guest=g sets=no ret=7\n';
    expect(outcomes(MERGED, AMD, by({ cpl: 3 }) + by({}) + silent)).toEqual(['EPERM', EXIT, 'ok 0x0']);
  });
});
