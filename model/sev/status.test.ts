import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { printOutcome } from '../core/outcome.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';

const HOST = ['page-status-bitmap', 'page-status-range-list', 'page-status-interval-tree'];
const LIST = 'page-status-range-list';
const DONATION = 'page-status-guest-donation';

/** What each line of the text comes to, behind a guest that is listened to. */
function outcomes(profile: string, text: string, { bound = 16, policy = 'none' } = {}): readonly string[] {
  const specification = new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
  const start = `status.create guest=g gib=2 bound=${bound} policy=${policy}\nstatus.enable guest=g on=yes\n`;
  let state = specification.initial;
  return parseProgram(specification, start + text)
    .program.map((command) => {
      const step = specification.step(state, command);
      ({ state } = step);
      return step.unmodelled === undefined ? printOutcome(step.outcome) : 'silent';
    })
    .slice(2);
}

const say = (gpa: string, pages: string | number, attributes: number): string =>
  `status.announce guest=g gpa=${gpa} pages=${pages} attributes=${attributes}\n`;
const share = (frame: number, pages = 1): string => say(`0x${(frame * 4096).toString(16)}`, pages, 0);
const hide = (frame: number, pages = 1): string => say(`0x${(frame * 4096).toString(16)}`, pages, 16);
const LIST_ALL = 'status.list guest=g size=4096\n';
const GUEST_H = 'status.create guest=h gib=2 bound=16 policy=none\n';

describe.each(HOST)('%s', (profile) => {
  it('records what is announced, merged and split', () => {
    const text = share(1) + share(3) + share(2) + LIST_ALL + hide(2) + LIST_ALL + share(3, 2) + share(4) + LIST_ALL;
    expect(outcomes(profile, text)).toEqual([
      ...['ok', 'ok', 'ok', 'ranges 0x1-0x4'],
      ...['ok', 'ranges 0x1-0x2 0x3-0x4'],
      ...['ok', 'ok', 'ranges 0x1-0x2 0x3-0x5'],
    ]);
  });

  it('marks what the VMM did not hear, until the guest is reset', () => {
    const deaf = `status.enable guest=g on=no\n`;
    const reset = 'status.reset guest=g by=reboot\n';
    expect(outcomes(profile, share(1) + deaf + hide(9) + LIST_ALL + hide(1) + LIST_ALL + reset + LIST_ALL)).toEqual([
      ...['ok', 'ok', 'ENOSYS', 'ranges 0x1-0x2', 'ENOSYS', 'incomplete ranges', 'ok', 'ranges'],
    ]);
  });

  it('has no number for who asks how many ranges a marked record has', () => {
    const count = 'status.list guest=g size=0\n';
    const deaf = 'status.enable guest=g on=no\n';
    expect(outcomes(profile, count + deaf + count + share(1) + count)).toEqual([
      'ok 0x0',
      'ok',
      'ok 0x0',
      'ENOSYS',
      'ENODATA',
    ]);
  });

  it('carries the mark to another machine, and uses no record that has one', () => {
    const text = `status.enable guest=g on=no\n${share(1)}status.page guest=g gpa=0x1000\nstatus.save guest=g image=i\n${GUEST_H}status.load guest=h image=i\nstatus.page guest=h gpa=0x1000\nstatus.list guest=h size=16\n`;
    expect(outcomes(profile, text)).toEqual([
      ...['ok', 'ENOSYS', 'ENODATA', 'ok 0x0', 'ok', 'ok', 'ENODATA', 'incomplete ranges'],
    ]);
  });

  it('fills the record of another machine from what was saved, and from nothing that was changed', () => {
    const text = `${share(1)}status.save guest=g image=i\n${GUEST_H}status.load guest=g image=i\nstatus.load guest=h image=i\nstatus.page guest=h gpa=0x1fff\nstatus.page guest=h gpa=0x2000\nstatus.damage image=i how=overlap\nstatus.load guest=h image=i\n`;
    expect(outcomes(profile, text)).toEqual(['ok', 'ok 0x1', 'ok', 'EBUSY', 'ok', 'ok 0x1', 'ok 0x0', 'ok', 'EINVAL']);
  });

  it('writes all ranges, or none', () => {
    const text = `${share(1)}${share(5)}status.list guest=g size=31\nstatus.list guest=g size=32\nstatus.list guest=g size=0\n`;
    expect(outcomes(profile, text)).toEqual(['ok', 'ok', 'E2BIG', 'ranges 0x1-0x2 0x5-0x6', 'ok 0x2']);
  });

  it('keeps what is shared beyond the memory of the guest over kexec', () => {
    const text = `${share(1)}${share(0xfe000)}status.reset guest=g by=kexec\n${LIST_ALL}`;
    expect(outcomes(profile, text)).toEqual(['ok', 'ok', 'ok', 'ranges 0xfe000-0xfe001']);
  });

  it('takes eight hypercalls, and throttles or disables the guest from then on', () => {
    const flood = 'status.flood guest=g pattern=same count=64\n';
    const tick = 'status.tick guest=g\n';
    expect(outcomes(profile, flood + share(1) + tick + share(1), { policy: 'throttle' })).toEqual([
      ...['ok 0x8', 'EAGAIN', 'ok', 'ok'],
    ]);
    const calls = share(1).repeat(8) + say('1', 1, 0) + tick + share(1);
    expect(outcomes(profile, calls, { policy: 'disable' }).slice(8)).toEqual([
      ...['KVM_EXIT_INTERNAL_ERROR', 'ok', 'KVM_EXIT_INTERNAL_ERROR'],
    ]);
  });

  it('takes the same from a page-state change, up to the first entry that is none', () => {
    const psc = (cur: number, end: number, ...entries: readonly bigint[]): string =>
      `status.psc guest=g cur=${cur} end=${end} ${entries.map((each, at) => `e${at}=${each}`).join(' ')} race=yes\n`;
    const entry = (gfn: bigint, operation: bigint, isLarge = 0n, done = 0n): bigint =>
      done | (gfn << 12n) | (operation << 52n) | (isLarge << 56n);
    const text = [
      psc(0, 2, entry(5n, 2n), entry(512n, 2n, 1n, 500n), entry(6n, 2n)),
      psc(1, 2, entry(100n, 2n), entry(5n, 1n), entry(7n, 15n)),
      psc(0, 2, entry(100n, 2n), entry(513n, 2n, 1n), entry(101n, 2n)),
      psc(0, 253, entry(102n, 2n), 0n, 0n),
      psc(0, 252, entry(103n, 2n), 0n, 0n),
      psc(9, 2, entry(104n, 2n), 0n, 0n),
    ].join('');
    expect(outcomes(profile, text + LIST_ALL)).toEqual([
      ...['ok', 'ok', 'VMGEXIT_PSC_ERROR_INVALID_ENTRY', 'VMGEXIT_PSC_ERROR_INVALID_HDR', 'ok', 'ok'],
      'ranges 0x6-0x7 0x64-0x65 0x67-0x68 0x3f4-0x400',
    ]);
  });
});

describe('a list or a tree', () => {
  it.each(HOST.slice(1))('is marked when it is full, in %s', (profile) => {
    const text = share(1) + share(3) + share(5) + LIST_ALL + hide(1, 9) + LIST_ALL;
    expect(outcomes(profile, text, { bound: 2 })).toEqual([
      ...['ok', 'ok', 'ok', 'incomplete ranges', 'ok', 'incomplete ranges'],
    ]);
  });

  it('is full as well when a range is split', () => {
    expect(outcomes(LIST, share(1, 3) + hide(2) + LIST_ALL, { bound: 1 })).toEqual(['ok', 'ok', 'incomplete ranges']);
  });

  it('takes the whole address space as one range', () => {
    expect(outcomes(LIST, say('0', '0x10000000000', 0) + LIST_ALL, { bound: 1 })).toEqual([
      ...['ok', 'ranges 0x0-0x10000000000'],
    ]);
  });

  it('does not take more from an image than it may keep', () => {
    const text = `${share(1)}${share(3)}status.save guest=g image=i\nstatus.create guest=h gib=2 bound=1 policy=none\nstatus.load guest=h image=i\n`;
    expect(outcomes(LIST, text).at(-1)).toBe('E2BIG');
  });
});

describe('a bitmap', () => {
  const END = 2 ** 20;

  it('is as long as the memory, and grows by hot-plug only', () => {
    const plug = 'status.plug guest=g gib=64\n';
    expect(
      outcomes(HOST[0] as string, share(END - 1) + hide(END, 8) + LIST_ALL + plug + share(END) + LIST_ALL),
    ).toEqual([...['ok', 'ok', 'ranges 0xfffff-0x100000', 'ok', 'ok', 'ranges 0xfffff-0x100001']]);
    expect(outcomes(HOST[0] as string, share(END - 1, 2) + LIST_ALL + plug + LIST_ALL)).toEqual([
      ...['ok', 'incomplete ranges', 'ok', 'incomplete ranges'],
    ]);
  });
});

describe('the donation', () => {
  const DONATE = 'status.donate guest=g gpa=0x1000 entries=2\n';

  it('has in it what was shared before, and is all that the host knows', () => {
    expect(outcomes(DONATION, LIST_ALL + share(1) + LIST_ALL + DONATE + share(3) + LIST_ALL)).toEqual([
      ...['ranges', 'ok', 'incomplete ranges', 'ok', 'ok', 'ranges 0x1-0x2 0x3-0x4'],
    ]);
  });

  it('is marked by the guest when it is full, from the start or later', () => {
    const three = share(1) + share(3) + share(5);
    expect(outcomes(DONATION, three + DONATE + LIST_ALL).at(-1)).toBe('incomplete ranges');
    expect(outcomes(DONATION, DONATE + three + LIST_ALL).at(-1)).toBe('incomplete ranges');
  });

  it('is made once', () => {
    expect(outcomes(DONATION, DONATE + DONATE)).toEqual(['ok', 'EEXIST']);
    expect(outcomes(DONATION, DONATE + DONATE + share(1), { policy: 'disable' })).toEqual([
      ...['ok', 'KVM_EXIT_INTERNAL_ERROR', 'KVM_EXIT_INTERNAL_ERROR'],
    ]);
  });

  it.each(['0x1008 entries=2', '0x1000 entries=0', '0x80000000 entries=1', '0x7ffff000 entries=256'])(
    'of a structure at %s is refused',
    (where) => {
      expect(outcomes(DONATION, `status.donate guest=g gpa=${where}\n`)).toEqual(['EINVAL']);
    },
  );

  it('is read once, and never believed', () => {
    const scribble = (how: string): string => `status.scribble guest=g how=${how}\n`;
    expect(outcomes(DONATION, DONATE + share(1) + scribble('race') + LIST_ALL)).toEqual([
      ...['ok', 'ok', 'ok', 'ranges 0x1-0x2'],
    ]);
    expect(outcomes(DONATION, DONATE + scribble('count') + LIST_ALL + share(1) + LIST_ALL)).toEqual([
      ...['ok', 'ok', 'incomplete ranges', 'ok', 'incomplete ranges'],
    ]);
  });
});
