import { describe, expect, it } from '@jest/globals';
import { fails, ok, printOutcome, sameOutcome, type Observation } from './outcome.ts';

/** One of each kind, and for each kind one that differs in each part. */
const OUTCOMES: readonly (readonly [string, () => Observation])[] = [
  ['ok', () => ok()],
  ['ok 0x0', () => ok(0n)],
  ['ok 0xffffffffffffffff', () => ok(0xffff_ffff_ffff_ffffn)],
  ['ok -0x1', () => ok(-1n)],
  ['EINVAL', () => ({ ...fails('EINVAL') })],
  ['EEXIST', () => fails('EEXIST')],
  ['MMIO read gpa=0x1000', () => ({ kind: 'mmio', gpa: 0x1000n, write: false })],
  ['MMIO write gpa=0x1000', () => ({ kind: 'mmio', gpa: 0x1000n, write: true })],
  ['MMIO read gpa=0x2000', () => ({ kind: 'mmio', gpa: 0x2000n, write: false })],
  ['MEMORY_FAULT EFAULT gpa=0x0 private', () => ({ kind: 'memory-fault', errno: 'EFAULT', gpa: 0n, private: true })],
  ['MEMORY_FAULT EFAULT gpa=0x0 shared', () => ({ kind: 'memory-fault', errno: 'EFAULT', gpa: 0n, private: false })],
  ['MEMORY_FAULT EIO gpa=0x0 private', () => ({ kind: 'memory-fault', errno: 'EIO', gpa: 0n, private: true })],
  ['MEMORY_FAULT EFAULT gpa=0x8 private', () => ({ kind: 'memory-fault', errno: 'EFAULT', gpa: 8n, private: true })],
  ['SIGBUS', () => ({ kind: 'signal', signal: 'SIGBUS' })],
  ['SIGSEGV', () => ({ kind: 'signal', signal: 'SIGSEGV' })],
  ['oops', () => ({ kind: 'oops' })],
  ['machine check', () => ({ kind: 'machine-check', ends: 'nobody' })],
  ['machine check, ends the guest', () => ({ kind: 'machine-check', ends: 'guest' })],
  ['SIGBUS BUS_MCEERR_AR to the task', () => ({ kind: 'sigbus', to: 'task', code: 'AR' })],
  ['SIGBUS BUS_MCEERR_AR to the VMM', () => ({ kind: 'sigbus', to: 'vmm', code: 'AR' })],
  ['SIGBUS to the VMM', () => ({ kind: 'sigbus', to: 'vmm', code: 'none' })],
  ['crash: gone', () => ({ kind: 'crash', message: 'gone' })],
];

describe('outcomes', () => {
  it.each(OUTCOMES)('%s is printed so', (text, outcome) => {
    expect(printOutcome(outcome())).toBe(text);
  });

  it('are the same where every part is, whichever object holds them', () => {
    for (const [text, one] of OUTCOMES)
      for (const [other, two] of OUTCOMES)
        expect([text, other, sameOutcome(one(), two())]).toEqual([
          text,
          other,
          text === other && one().kind !== 'crash',
        ]);
  });
});
