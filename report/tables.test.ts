import { describe, expect, test } from '@jest/globals';
import type { Rule } from '../model/core/specification.ts';
import { printRules, printTargets } from './tables.ts';

const RULE: Rule = {
  id: 'slot.set/overlap',
  command: 'slot.set',
  kind: 'refusal',
  when: 'the range overlaps another slot of the same address space, whatever that slot shows to the guest',
  result: 'EEXIST',
  source: 'virt/kvm/kvm_main.c: kvm_check_memslot_overlap()',
  condition: 'since 7.2',
};

describe('tables', () => {
  test('of rules fit the terminal', () => {
    const lines = printRules([RULE], 100).split('\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
    expect(lines.length).toBeGreaterThan(2);
  });

  test('of rules name the condition, and mark what is unmodelled', () => {
    expect(printRules([RULE], 400)).toContain('guest (since 7.2)');
    expect(printRules([{ ...RULE, kind: 'unmodelled', result: 'nobody knows' }], 400)).toContain(
      'unmodelled: nobody knows',
    );
  });

  test('of targets say what is not available and what is lacking', () => {
    const kvm = { name: 'kvm', summary: 'this kernel', unavailable: 'no /dev/kvm', missing: [] };
    const qemu = { name: 'qemu', summary: 'a kernel image', missing: [['facts', 'nobody looks inside']] as const };
    expect(printTargets([kvm, qemu]).split('\n')).toEqual([
      'kvm  this kernel',
      '  not available: no /dev/kvm',
      'qemu  a kernel image',
      '  without:',
      '  facts  nobody looks inside',
    ]);
  });
});
