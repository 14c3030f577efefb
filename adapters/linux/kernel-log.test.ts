import { describe, expect, it } from '@jest/globals';
import { KernelLog, type KernelReport } from './kernel-log.ts';
import { printPlace, type Place } from './places.ts';

const STACK = ['Call Trace:', ' <TASK>', ' dump_stack_lvl+0x5d/0x80', ' kvm_gmem_release+0xdd/0x100', ' </TASK>'];
const END_TRACE = '---[ end trace 0000000000000000 ]---';
const BOX = '='.repeat(66);

/** What reports look like, each with the line that is its title. */
const REPORTS: readonly { kind: KernelReport['kind']; title: string; lines: readonly string[] }[] = [
  {
    kind: 'warning',
    title: 'WARNING: virt/kvm/guest_memfd.c:412 at kvm_gmem_release+0xdd/0x100, CPU#1: agent/87',
    lines: [
      ...['------------[ cut here ]------------', 'xa_load(&f->bindings, index) != slot'],
      ...['WARNING: virt/kvm/guest_memfd.c:412 at kvm_gmem_release+0xdd/0x100, CPU#1: agent/87', 'Modules linked in:'],
      ...['CPU: 1 UID: 0 PID: 87 Comm: agent Not tainted 7.3.4-gmem #1 PREEMPT', ...STACK, END_TRACE],
    ],
  },
  {
    kind: 'warning',
    title: 'WARNING: CPU: 0 PID: 87 at virt/kvm/kvm_main.c:1201 kvm_put_kvm+0x2a/0x300 [kvm]',
    lines: [
      ...['------------[ cut here ]------------'],
      ...['WARNING: CPU: 0 PID: 87 at virt/kvm/kvm_main.c:1201 kvm_put_kvm+0x2a/0x300 [kvm]', ...STACK, END_TRACE],
    ],
  },
  {
    kind: 'oops',
    title: 'BUG: kernel NULL pointer dereference, address: 0000000000000018',
    lines: [
      ...[
        'BUG: kernel NULL pointer dereference, address: 0000000000000018',
        '#PF: supervisor read access in kernel mode',
      ],
      ...['Oops: Oops: 0000 [#1] SMP NOPTI', 'RIP: 0010:kvm_gmem_get_pfn+0x31/0x1a0', ...STACK, END_TRACE],
    ],
  },
  {
    kind: 'oops',
    title: 'kernel BUG at mm/filemap.c:160!',
    lines: ['------------[ cut here ]------------', 'kernel BUG at mm/filemap.c:160!', ...STACK, END_TRACE],
  },
  {
    kind: 'oops',
    title: 'Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP',
    lines: [
      'Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP',
      ...[...STACK, END_TRACE],
    ],
  },
  {
    kind: 'sanitizer',
    title: 'BUG: KASAN: slab-use-after-free in kvm_gmem_unbind+0x9c/0x1b0',
    lines: [
      ...['BUG: KASAN: slab-use-after-free in kvm_gmem_unbind+0x9c/0x1b0', 'Read of size 8 at addr ffff888003c1a010'],
      ...[
        ...STACK,
        '',
        'Allocated by task 87:',
        ' kasan_save_stack+0x24/0x50',
        'Memory state around the buggy address:',
        BOX,
      ],
    ],
  },
  {
    kind: 'lockdep',
    title: 'WARNING: possible circular locking dependency detected',
    lines: [
      ...['WARNING: possible circular locking dependency detected', '7.3.4-gmem-lockdep #1 Not tainted'],
      ...['agent/87 is trying to acquire lock:', 'stack backtrace:', ...STACK],
    ],
  },
  {
    kind: 'lockdep',
    title: 'WARNING: possible recursive locking detected',
    lines: ['WARNING: possible recursive locking detected', 'stack backtrace:', ...STACK],
  },
  {
    kind: 'bug',
    title: 'BUG: Bad page state in process agent  pfn:03c1a',
    lines: ['BUG: Bad page state in process agent  pfn:03c1a', 'page dumped because: nonzero _refcount', ...STACK],
  },
  {
    kind: 'bug',
    title: 'watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [agent:87]',
    lines: ['watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [agent:87]', ...STACK],
  },
  {
    kind: 'hung-task',
    title: 'INFO: task agent:87 blocked for more than 120 seconds.',
    lines: ['INFO: task agent:87 blocked for more than 120 seconds.', '      Not tainted 7.3.4-gmem #1', ...STACK],
  },
  {
    kind: 'rcu-stall',
    title: 'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:',
    lines: ['rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:', 'rcu: \t0-...0: (1 GPs behind)', ...STACK],
  },
  {
    kind: 'panic',
    title: 'Kernel panic - not syncing: Fatal exception',
    lines: ['Kernel panic - not syncing: Fatal exception', '---[ end Kernel panic - not syncing: Fatal exception ]---'],
  },
];

const BEFORE = ['Linux version 7.3.4', 'Spectre V2 : WARNING: nothing to do with us', 'init: agent started'];
const AFTER = ['Memory failure: 0x3c1a: recovery action for dirty LRU page: Recovered', 'init: agent exited with 0'];

/** As it comes over a serial line. */
const serial = (lines: readonly string[], prefix = '[    1.234567] '): Buffer =>
  Buffer.from(lines.map((line) => `${prefix}${line}\r\n`).join(''));

function logged(...chunks: readonly Buffer[]): KernelLog {
  const log = new KernelLog();
  for (const chunk of chunks) log.push(chunk);
  return log;
}

describe('the log of a kernel', () => {
  it.each(REPORTS)('has a report of kind $kind: $title', ({ kind, title, lines }) => {
    const log = logged(serial([...BEFORE, ...lines, ...AFTER]));
    expect(log.reportsSince(0)).toEqual([{ kind, title, lines, complete: true, place: undefined }]);
  });

  it('has one report after the other', () => {
    const log = logged(serial(REPORTS.flatMap(({ lines }) => [...BEFORE, ...lines, ...AFTER])));
    expect(log.reportsSince(0).map(({ title }) => title)).toEqual(REPORTS.map(({ title }) => title));
  });

  it('does not depend on how it is cut into chunks, nor on who is named beside the time', () => {
    const bytes = serial(REPORTS[0]?.lines ?? [], '[    1.234567][   T87] ');
    const single = Array.from(bytes, (byte) => Buffer.from([byte]));
    expect(logged(...single).reportsSince(0)).toEqual(logged(bytes).reportsSince(0));
    expect(logged(bytes).reportsSince(0)).toMatchObject([{ lines: REPORTS[0]?.lines }]);
  });

  it('says what came since a mark', () => {
    const [first, second] = REPORTS;
    const log = logged(serial(first?.lines ?? []));
    const mark = log.mark();
    log.push(serial(second?.lines ?? []));
    expect(log.reportsSince(mark)).toMatchObject([{ title: second?.title }]);
    expect(log.reportsSince(log.mark())).toEqual([]);
  });

  it('has each report where the program was when it began, and keeps what says so to itself', () => {
    const [first, second] = REPORTS;
    const [head = '', ...rest] = first?.lines ?? [];
    const told: string[] = [];
    const log = new KernelLog();
    log.on('line', (line) => told.push(line));
    const places = (...list: readonly Place[]) => serial(list.map(printPlace));
    log.push(Buffer.concat([places('before', 0, 12), serial([head]), serial(rest), places(13, 'after')]));
    log.push(serial(second?.lines ?? []));
    expect(log.reportsSince(0)).toMatchObject([
      { lines: first?.lines, place: 12 },
      { lines: second?.lines, place: 'after' },
    ]);
    expect([...told, log.tail(100)].join('\n')).not.toContain('gmem: ');
  });

  it('has a report that did not come to its end as incomplete', () => {
    const log = logged(
      serial(['Kernel panic - not syncing: Attempted to kill init!', 'CPU: 0 UID: 0 PID: 1 Comm: init']),
    );
    expect(log.reportsSince(0)).toMatchObject([{ kind: 'panic', complete: false, lines: { length: 2 } }]);
  });

  it('takes no word in the middle of a line, and no forced failure of an allocation, for a report', () => {
    const harmless = ['FAULT_INJECTION: forcing a failure.', 'name failslab, interval 1, probability 0', ...STACK];
    expect(logged(serial([...BEFORE, ...harmless, ...AFTER])).reportsSince(0)).toEqual([]);
  });

  it('tells its end, with a line that has not ended', () => {
    const log = logged(serial(['one', 'two', 'three']), Buffer.from('[    1.234567] and'));
    expect(log.tail(2)).toBe('three\n[    1.234567] and');
  });

  it('stays bounded', () => {
    const log = logged(serial(Array.from({ length: 10_000 }, (_, index) => `line ${index}`)));
    const kept = log.tail(1_000_000).split('\n');
    expect(kept.length).toBeLessThanOrEqual(2000);
    expect(kept.at(-1)).toBe('line 9999');

    const endless = logged(serial(['Kernel panic - not syncing: x', ...Array.from({ length: 1000 }, () => 'more')]));
    expect(endless.reportsSince(0)[0]?.lines).toHaveLength(400);
  });
});
