import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { printOutcome } from '../core/outcome.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';

/** What each line comes to. */
function outcomes(profile: string, text: string): readonly string[] {
  const specification = new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
  let state = specification.initial;
  return parseProgram(specification, text).program.map((command) => {
    const step = specification.step(state, command);
    ({ state } = step);
    return printOutcome(step.outcome);
  });
}

const start = (memory = 'ordinary', use = 'anon', owner = '0'): string => `guest.create guest=guest0 memory=${memory}
page.alloc guest=guest0 gfn=1 use=${use} owner=${owner} cpu=0
`;
const POISONED = 'hw.poison guest=guest0 gfn=1 line=1\n';
const load = (how = 'load', task = '0', gfn = '1'): string =>
  `task.touch guest=guest0 task=${task} gfn=${gfn} line=1 how=${how} value=0\n`;
const kernel = (how: string, cpu = '0'): string =>
  `kernel.touch guest=guest0 cpu=${cpu} gfn=1 line=1 how=${how} value=0\n`;
const HOST = 'host.recover guest=guest0 cpu=0\n';
const ANSWER = 'vmm.answer guest=guest0 by=0\n';
const HANDLE = 'kernel.handle guest=guest0 cpu=0\n';
const RECOVER = 'kernel.recover guest=guest0 by=0\n';
const ISOLATE = 'kernel.isolate guest=guest0 by=0\n';

/** From a task that loads what is bad to its kernel, which has given the page up. */
const GIVEN_UP = `${start()}${POISONED}${load()}${HOST}${ANSWER}${HANDLE}${RECOVER}`;

/** What the last of the lines come to. */
const last = (count: number, profile: string, text: string): readonly string[] => outcomes(profile, text).slice(-count);

describe('the story of the thread', () => {
  it('up to isolation is the same in every guest', () => {
    for (const profile of ['set-uc-in-guest', 'guest-check', 'vmm-signals-unmap', 'not-present-whole-page'])
      expect([profile, ...outcomes(profile, GIVEN_UP)]).toEqual([
        profile,
        'ok',
        'ok',
        'ok',
        'machine check',
        'SIGBUS BUS_MCEERR_AR to the VMM',
        'ok',
        'ok',
        'SIGBUS BUS_MCEERR_AR to the task',
      ]);
  });

  it('ends in a second machine check and a panic where the page becomes uncacheable', () => {
    expect(last(3, 'set-uc-in-guest', `${GIVEN_UP}${ISOLATE}${ANSWER}${HANDLE}`)).toEqual([
      'SIGBUS BUS_MCEERR_AR to the VMM',
      'ok',
      'machine check, ends the guest',
    ]);
  });

  it.each([
    ['not-present-whole-page', 'oops'],
    ['vmm-signals-unmap', 'oops'],
    ['guest-check', 'SIGBUS BUS_MCEERR_AR to the VMM'],
  ])('ends well in %s, where a later load of the kernel is answered by %s', (profile, answer) => {
    expect(last(2, profile, `${GIVEN_UP}${ISOLATE}${kernel('load')}`)).toEqual(['ok', answer]);
  });

  it('has no second machine check without a VMM: the flush consumes nothing', () => {
    const text = `${start()}${POISONED}${load()}${HANDLE}${RECOVER}${ISOLATE}${kernel('flush')}`;
    expect(last(5, 'bare-metal', text)).toEqual([
      'machine check',
      'ok',
      'SIGBUS BUS_MCEERR_AR to the task',
      'ok',
      'ok',
    ]);
  });
});

describe('what the host took', () => {
  const TAKEN = `${start('ordinary', 'anon', 'both')}page.simulate guest=guest0 gfn=1 where=host\n`;

  it.each(['load', 'store', 'fetch', 'flush', 'copyin'])('is answered by the VMM: %s', (how) => {
    expect(last(1, 'not-present-whole-page', TAKEN + load(how))).toEqual(['SIGBUS BUS_MCEERR_AR to the VMM']);
  });

  it('is answered anew each time, also while the first is handled', () => {
    const text = `${TAKEN}${load()}${ANSWER}${load('store', '1')}vmm.answer guest=guest0 by=1\n${HANDLE}${RECOVER}${load('store', '1')}`;
    expect(last(7, 'not-present-whole-page', text)).toEqual([
      'SIGBUS BUS_MCEERR_AR to the VMM',
      'ok',
      'SIGBUS BUS_MCEERR_AR to the VMM',
      'ok',
      'ok',
      'SIGBUS BUS_MCEERR_AR to the task',
      'EBUSY',
    ]);
  });

  it('stays so when the guest is rebooted, and when it moves, until it is replaced', () => {
    const again = 'page.alloc guest=guest0 gfn=1 use=anon owner=0 cpu=0\n';
    const reboot = (replace: string) => `guest.reboot guest=guest0 replace=${replace}\n`;
    const told = 'SIGBUS BUS_MCEERR_AR to the VMM';
    expect(last(1, 'not-present-whole-page', `${TAKEN}${reboot('no')}${again}`)).toEqual([told]);
    expect(last(1, 'not-present-whole-page', `${TAKEN}${reboot('yes')}${again}`)).toEqual(['ok']);
    expect(last(1, 'not-present-whole-page', `${TAKEN}guest.migrate guest=guest0\n${load()}`)).toEqual([told]);
  });

  it('of gmem is told by the exit, and kills the VMM where the host consumed it first', () => {
    const found = `${start('gmem')}${POISONED}hw.scrub guest=guest0 gfn=1\n${load()}`;
    expect(last(1, 'not-present-whole-page', found)).toEqual(['MEMORY_FAULT EHWPOISON gpa=0x1000 private']);
    expect(last(1, 'not-present-whole-page', `${start('gmem')}${POISONED}${load()}${HOST}`)).toEqual([
      'SIGBUS to the VMM',
    ]);
  });

  it('is unpoisoned for the host only: the VMM keeps its poison entry', () => {
    const text = `${TAKEN}page.unpoison guest=guest0 gfn=1 where=host\npage.unpoison guest=guest0 gfn=1 where=host\n${load()}`;
    expect(last(3, 'not-present-whole-page', text)).toEqual(['ok', 'EBUSY', 'SIGBUS BUS_MCEERR_AR to the VMM']);
  });
});

describe('the handler', () => {
  it('panics at the eleventh machine check of one system call', () => {
    const again = `${load('copyin')}${HANDLE}`;
    expect(last(2, 'bare-metal', `${start()}${POISONED}${again.repeat(10)}`)).toEqual(['machine check', 'ok']);
    expect(last(1, 'bare-metal', `${start()}${POISONED}${again.repeat(11)}`)).toEqual([
      'machine check, ends the machine',
    ]);
  });

  it('panics where the system call meets another page', () => {
    const other = 'page.alloc guest=guest0 gfn=2 use=anon owner=0 cpu=0\nhw.poison guest=guest0 gfn=2 line=1\n';
    const text = `${start()}${POISONED}${other}${load('copyin')}${HANDLE}${load('copyin', '0', '2')}${HANDLE}`;
    expect(last(1, 'bare-metal', text)).toEqual(['machine check, ends the machine']);
  });

  it.each([
    ['clean', 'ok'],
    ['dirty', 'SIGBUS BUS_MCEERR_AR to the task'],
    ['anon', 'SIGBUS BUS_MCEERR_AR to the task'],
  ])('treats a page that is %s as its kind', (use, outcome) => {
    expect(last(1, 'bare-metal', `${start('ordinary', use)}${POISONED}${load()}${HANDLE}${RECOVER}`)).toEqual([
      outcome,
    ]);
  });

  it('can do nothing about a page table but kill, and the second time nothing at all', () => {
    const walk = (task: string): string =>
      `${load('walk', task)}kernel.handle guest=guest0 cpu=${task}\nkernel.recover guest=guest0 by=${task}\n`;
    const text = `${start('ordinary', 'table', 'both')}${POISONED}${walk('0')}${walk('1')}`;
    expect(last(6, 'bare-metal', text)).toEqual([
      'machine check',
      'ok',
      'SIGBUS to the task',
      'machine check',
      'ok',
      'ok',
    ]);
  });

  it('goes on where the kernel copied with a fixup, and panics where it did not', () => {
    expect(last(2, 'bare-metal', `${start()}${POISONED}${kernel('copy')}${HANDLE}`)).toEqual(['machine check', 'ok']);
    expect(last(2, 'bare-metal', `${start()}${POISONED}${kernel('load')}${HANDLE}`)).toEqual([
      'machine check',
      'machine check, ends the machine',
    ]);
  });
});

describe('KVM_X86_SET_MCE', () => {
  const set = (severity: string, bank = '1', valid = 'yes'): string =>
    `mce.set guest=guest0 cpu=0 bank=${bank} severity=${severity} valid=${valid} gfn=1\n`;
  const control = (register: string): string => `mce.control guest=guest0 cpu=0 register=${register} value=off\n`;
  const answers = (count: number, text: string): readonly string[] =>
    last(count, 'not-present-whole-page', start() + text);

  it('refuses banks that are not there, and what is not valid', () => {
    expect(answers(2, set('required', '2') + set('required', '1', 'no'))).toEqual(['EINVAL', 'EINVAL']);
  });

  it('is a triple fault while another is in progress, or where the guest takes none', () => {
    expect(answers(2, set('optional') + set('required'))).toEqual(['ok', 'KVM_EXIT_SHUTDOWN']);
    expect(answers(1, control('cr4-mce') + set('required'))).toEqual(['KVM_EXIT_SHUTDOWN']);
  });

  it('does nothing where the bank is disabled', () => {
    expect(answers(2, control('bank1-ctl') + set('required') + HANDLE)).toEqual(['ok', 'ENOENT']);
  });

  it('that overwrites a report loses it, and a kernel of which action is required panics', () => {
    expect(answers(3, set('corrected') + set('required') + HANDLE)).toEqual([
      'ok',
      'ok',
      'machine check, ends the guest',
    ]);
    expect(answers(2, set('corrected') + set('optional') + HANDLE)).toEqual(['ok', 'ok']);
  });

  it('that says that no action is needed ends what is in progress, which the handler does not survive', () => {
    expect(answers(3, set('required') + set('no-action') + HANDLE)).toEqual([
      'ok',
      'ok',
      'machine check, ends the guest',
    ]);
  });
});
