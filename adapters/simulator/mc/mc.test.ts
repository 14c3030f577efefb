import { describe, expect, it } from '@jest/globals';
import type { Facts } from '../../../model/core/facts.ts';
import { printOutcome } from '../../../model/core/outcome.ts';
import { FULL_MACHINE, type Feature } from '../../../model/core/profile.ts';
import { newSimulated, type Simulated } from '../index.ts';
import { mceSeverity, reportOf } from './mca.ts';
import { OneToOneMap } from './one-to-one.ts';

const DESIGNS = {
  'set-uc-in-guest': ['virtual', 'isolate-uncacheable'],
  'guest-check': ['virtual', 'isolate-nothing'],
  'vmm-signals-unmap': ['virtual', 'isolate-as-told'],
  'not-present-whole-page': ['virtual', 'isolate-absent'],
  'bare-metal': ['no-vmm', 'isolate-uncacheable'],
} as const satisfies Record<string, readonly Feature[]>;
type Design = keyof typeof DESIGNS;

const NOW: Design = 'not-present-whole-page';
const METAL: Design = 'bare-metal';
const VIRTUAL: readonly Design[] = ['set-uc-in-guest', 'guest-check', 'vmm-signals-unmap', NOW];

const hostOf = (design: Design): Simulated =>
  newSimulated({
    profile: { id: design, title: '', release: [7, 3, 4], features: DESIGNS[design], realm: 'mc', source: '' },
    machine: FULL_MACHINE,
  });

/** A command as a line of a program; whose it is that names no guest, that of `g`. */
function runLine(host: Simulated, line: string): string {
  const [name = '', ...words] = line.split(' ');
  const given = words.map((word): [string, string | bigint] => {
    const [key = '', value = ''] = word.split('=');
    return [key, key === 'value' && /^\d/.test(value) ? BigInt(value) : value];
  });
  return printOutcome(host.run({ name, args: Object.fromEntries([['guest', 'g'], ...given]) }));
}

/** Runs a program of which every line tells what it comes to, behind an arrow; nothing stands for `ok`. */
function expectProgram(design: Design, program: string): Facts {
  const host = hostOf(design);
  const lines = program
    .trim()
    .split('\n')
    .map((line) => line.trim().split(' -> '));
  const seen = lines.map(([command = '']) => `${command} -> ${runLine(host, command)}`);
  expect(seen).toEqual(lines.map(([command = '', outcome = 'ok']) => `${command} -> ${outcome}`));
  return host.facts();
}

const anon = (memory: 'ordinary' | 'gmem' = 'ordinary'): string => `
  guest.create memory=${memory}
  page.alloc gfn=0 use=anon owner=0 cpu=0
  hw.poison gfn=0 line=1`;

const LOAD = 'task.touch task=0 gfn=0 line=1 how=load';

/** Up to where the guest's kernel handles what it is told of the page that its task consumed. */
const CONSUMED = `${anon()}
  ${LOAD} -> machine check
  host.recover cpu=0 -> SIGBUS BUS_MCEERR_AR to the VMM
  vmm.answer by=0
  kernel.handle cpu=0`;

describe('the 1:1 map', () => {
  it('splits a large entry for the page that is to differ, and leaves its neighbour', () => {
    const map = new OneToOneMap();
    map.changePageAttr(map.decoyOf(3), { present: false });
    expect([2, 3, 4].map((pfn) => map.shows(pfn))).toEqual(['present', 'absent', 'present']);
  });

  it('takes a decoy for the address that it looks like, and tells where nothing has changed', () => {
    const map = new OneToOneMap();
    expect(map.decoyOf(1)).not.toBe(map.addressOf(1));
    expect(map.fixAddr(map.decoyOf(1))).toBe(map.addressOf(1));
    expect(map.changePageAttr(map.decoyOf(1), { uncacheable: true })).toBe(true);
    expect(map.changePageAttr(map.addressOf(1), { uncacheable: true })).toBe(false);
  });
});

describe('how bad a report is', () => {
  const graded = (
    ...[severity, context]: [Parameters<typeof reportOf>[0], Parameters<typeof mceSeverity>[2]]
  ): string => {
    const { status, mcgStatus } = reportOf(severity, 0);
    return mceSeverity(status, mcgStatus, context);
  };

  it('depends on what the CPU was doing where action is required', () => {
    expect(graded('required', 'user')).toBe('AR');
    expect(graded('required', 'kernel-recov')).toBe('AR');
    expect(graded('required', 'kernel')).toBe('PANIC');
    expect(graded('optional', 'kernel')).toBe('AO');
  });

  it('is the worst in a handler without MCIP', () => {
    const { status } = reportOf('optional', 0);
    expect(mceSeverity(status, 0n, 'user')).toBe('PANIC');
  });
});

describe('the host', () => {
  it('takes a frame away that a vCPU consumed, and tells its thread', () => {
    const facts = expectProgram(
      NOW,
      `${anon()}
      ${LOAD} -> machine check
      host.recover cpu=0 -> SIGBUS BUS_MCEERR_AR to the VMM`,
    );
    expect(facts).toMatchObject({ poisoned: [0], absent: [{ frame: 0, count: 1 }], stageTwo: [] });
    expect(facts.backing?.[0]).toEqual({ vm: 'g', gfn: 0, frame: undefined, taken: true });
    expect(facts.hostMaps?.map(({ gfn }) => gfn)).toEqual([1, 2, 3]);
  });

  it('has no way to recover where memory is a guest_memfd, and ends the VMM', () => {
    const facts = expectProgram(
      NOW,
      `${anon('gmem')}
      ${LOAD} -> machine check
      host.recover cpu=0 -> SIGBUS to the VMM
      guest.reboot replace=yes -> EIO
      hw.poison gfn=1 line=0 -> EIO`,
    );
    expect(facts.guests).toMatchObject([{ state: 'killed' }]);
    expect(facts).toMatchObject({ poisoned: [0], absent: [] });
  });

  it('marks a page of a guest_memfd, which leaves stage 2 and answers EHWPOISON', () => {
    const facts = expectProgram(
      NOW,
      `${anon('gmem')}
      hw.scrub gfn=0
      ${LOAD} -> MEMORY_FAULT EHWPOISON gpa=0x0 private
      device.read gfn=0 line=0 -> EFAULT`,
    );
    expect(facts.backing?.[0]).toEqual({ vm: 'g', gfn: 0, frame: 0, taken: true });
    expect(facts.touches).toMatchObject([{ by: 'device', comesTo: 'fault' }]);
  });

  it('tells each vCPU that is stopped at the page, once it is taken', () => {
    expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=anon owner=both cpu=0
      hw.poison gfn=0 line=0
      task.touch task=0 gfn=0 line=0 how=load -> machine check
      task.touch task=1 gfn=0 line=0 how=load -> machine check
      host.recover cpu=0 -> SIGBUS BUS_MCEERR_AR to the VMM
      host.recover cpu=1 -> SIGBUS BUS_MCEERR_AR to the VMM`,
    );
  });

  it('re-enters a guest whose page was marked in the meantime, which touches it once more', () => {
    expectProgram(
      NOW,
      `${anon('gmem')}
      ${LOAD} -> machine check
      page.simulate gfn=0 where=host -> EBUSY
      host.recover cpu=0 -> MEMORY_FAULT EHWPOISON gpa=0x0 private
      vmm.answer by=0`,
    );
  });

  it('tells a system call EFAULT, and the main thread of the VMM', () => {
    expectProgram(
      NOW,
      `${anon()}
      device.read gfn=0 line=0 -> ok 0x0
      device.read gfn=0 line=1 -> EFAULT
      device.read gfn=0 line=0 -> EFAULT
      vmm.answer by=main
      vmm.answer by=main -> ENOENT
      kernel.handle cpu=0
      vmm.answer by=main -> ENOENT
      kernel.recover by=worker`,
    );
  });

  it('gives no poisoned frame to anyone again, and no other frame of the VMM is lost', () => {
    const facts = expectProgram(NOW, `${CONSUMED}\nguest.destroy`);
    expect(facts.free).toEqual([1, 2, 3].map((frame) => ({ frame, count: 1 })));
  });

  it('unpoisons only what no hardware reported, and the guest frame stays taken', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.unpoison gfn=0 where=host -> EBUSY
      page.simulate gfn=0 where=host
      page.simulate gfn=0 where=host -> EHWPOISON
      page.unpoison gfn=0 where=host
      page.simulate gfn=0 where=host -> ENOENT
      kernel.touch cpu=0 gfn=0 line=0 how=load value=0 -> SIGBUS BUS_MCEERR_AR to the VMM
      hw.poison gfn=1 line=0
      hw.scrub gfn=1
      page.unpoison gfn=1 where=host -> EOPNOTSUPP`,
    );
    expect(facts.free).toEqual([{ frame: 0, count: 1 }]);
  });

  it('is not asked about lines that nobody reads', () => {
    expectProgram(
      NOW,
      `${anon()}
      task.touch task=0 gfn=0 line=1 how=store value=7
      task.touch task=0 gfn=0 line=1 how=flush value=0
      task.touch task=0 gfn=0 line=0 how=load
      ${LOAD} -> machine check`.replace('how=load\n', 'how=load -> ok 0x0\n'),
    );
  });
});

describe('the VMM', () => {
  it('answers every touch of a taken frame by a machine check', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=anon owner=both cpu=0
      page.simulate gfn=0 where=host
      task.touch task=0 gfn=0 line=0 how=flush -> SIGBUS BUS_MCEERR_AR to the VMM
      vmm.answer by=0
      task.touch task=1 gfn=0 line=0 how=store value=1 -> SIGBUS BUS_MCEERR_AR to the VMM
      vmm.answer by=1`,
    );
    expect(facts.cpus).toMatchObject([{ stage: 'machine-check' }, { stage: 'machine-check' }]);
  });

  it.each([
    ['no', true],
    ['yes', false],
  ] as const)('keeps what is taken over a reboot with replace=%s: %s', (replace, taken) => {
    const facts = expectProgram(NOW, `${CONSUMED}\nguest.reboot replace=${replace}`);
    expect(facts.backing?.[0]).toMatchObject({ gfn: 0, taken });
    expect(facts.guestPages?.[0]).toMatchObject({ use: 'free', poisoned: false, oneToOne: 'present' });
    expect(facts.guests).toMatchObject([{ state: 'running', replaced: taken ? 0 : 1 }]);
  });

  it('does what is left to do on threads before it resets their vCPUs', () => {
    const facts = expectProgram(NOW, `${anon()}\n${LOAD} -> machine check\nguest.reboot replace=no`);
    expect(facts.backing?.[0]).toMatchObject({ taken: true });
    expect(facts.cpus).toMatchObject([{ stage: 'runs' }, { stage: 'runs' }]);
  });

  it('migrates contents, and what is taken as such', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=1 use=anon owner=0 cpu=0
      task.touch task=0 gfn=1 line=0 how=store value=5
      page.simulate gfn=0 where=host
      guest.migrate
      task.touch task=0 gfn=1 line=0 how=load -> ok 0x5
      kernel.touch cpu=0 gfn=0 line=0 how=load value=0 -> SIGBUS BUS_MCEERR_AR to the VMM
      guest.migrate -> EBUSY`,
    );
    expect(facts.backing?.map(({ frame }) => frame)).toEqual([undefined, 4, 5, 6]);
  });

  it('cannot migrate what it cannot read, and knows of poison then', () => {
    expectProgram(
      NOW,
      `${anon()}
      guest.migrate -> EFAULT
      guest.migrate
      vmm.answer by=main`,
    );
    expectProgram(NOW, 'guest.create memory=gmem\nguest.migrate -> EOPNOTSUPP');
  });

  it('migrates in the order of addresses, whatever was plugged in last', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      guest.unplug gfn=0
      guest.plug gfn=0
      hw.poison gfn=0 line=0
      hw.poison gfn=1 line=0
      guest.migrate -> EFAULT`,
    );
    expect(facts.backing?.filter(({ frame }) => frame === undefined)).toMatchObject([{ gfn: 0 }]);
  });

  it('forgets poison of memory that it removes, and adds good memory', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.simulate gfn=2 where=host
      guest.unplug gfn=2 -> EBUSY
      vmm.answer by=main
      kernel.handle cpu=0
      guest.unplug gfn=2 -> EBUSY
      kernel.recover by=worker
      kernel.isolate by=worker
      guest.unplug gfn=2
      page.free gfn=2 -> EFAULT
      guest.plug gfn=2
      guest.plug gfn=2 -> EEXIST
      page.alloc gfn=2 use=kernel owner=0 cpu=0
      guest.unplug gfn=2 -> EBUSY`,
    );
    expect(facts.backing).toContainEqual({ vm: 'g', gfn: 2, frame: 4, taken: false });
  });
});

describe('KVM_X86_SET_MCE', () => {
  const SET = 'mce.set cpu=0 gfn=0 valid=yes';

  it('refuses a bank that is not there, and a report that is not valid', () => {
    expectProgram(
      NOW,
      `guest.create memory=ordinary
      ${SET} bank=2 severity=required -> EINVAL
      mce.set cpu=0 gfn=0 bank=1 severity=required valid=no -> EINVAL`,
    );
  });

  it('is a triple fault during a machine check, and without CR4.MCE', () => {
    const TRIPLE = 'bank=0 severity=optional -> KVM_EXIT_SHUTDOWN';
    expectProgram(
      NOW,
      `guest.create memory=ordinary\n${SET} bank=1 severity=optional\n${SET} ${TRIPLE}\n${SET} ${TRIPLE}`.replace(
        /[^\n]*$/,
        `${SET} bank=0 severity=optional -> EIO`,
      ),
    );
    expectProgram(NOW, `guest.create memory=ordinary\nmce.control cpu=0 register=cr4-mce value=off\n${SET} ${TRIPLE}`);
  });

  it.each(['mcg-ctl', 'bank1-ctl'])('ignores what is disabled by %s, but for what needs no action', (register) => {
    expectProgram(
      NOW,
      `guest.create memory=ordinary
      mce.control cpu=0 register=${register} value=off
      ${SET} bank=1 severity=required
      kernel.handle cpu=0 -> ENOENT
      ${SET} bank=1 severity=no-action
      mce.control cpu=0 register=${register} value=on
      ${SET} bank=1 severity=required
      kernel.handle cpu=0 -> machine check, ends the guest`,
    );
  });

  it('overwrites MCG_STATUS with a report that needs no action, which the handler does not survive', () => {
    expectProgram(
      NOW,
      `guest.create memory=ordinary
      ${SET} bank=1 severity=optional
      ${SET} bank=0 severity=no-action
      kernel.handle cpu=0 -> machine check, ends the guest`,
    );
  });

  it('loses no report silently: a second one in a bank is marked', () => {
    expectProgram(
      NOW,
      `guest.create memory=ordinary
      ${SET} bank=1 severity=required
      ${SET} bank=1 severity=corrected
      kernel.handle cpu=0 -> machine check, ends the guest`,
    );
  });

  it('leaves reports alone that were not signaled', () => {
    expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=dirty owner=0 cpu=0
      ${SET} bank=0 severity=corrected
      ${SET} bank=1 severity=required
      kernel.handle cpu=0
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task`,
    );
  });
});

describe('the kernel of a guest', () => {
  it.each(VIRTUAL)('in %s kills who consumed, and isolates', (design) => {
    const facts = expectProgram(design, `${CONSUMED}\nkernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task`);
    expect(facts.tasks).toMatchObject([{ alive: false }, { alive: true }]);
    expect(facts.guestPages?.[0]).toMatchObject({ use: 'free', poisoned: true, shownTo: [], oneToOne: 'present' });
    expect(facts.cpus).toMatchObject([{ work: 'isolate', checks: 0 }, { work: 'none' }]);
  });

  it('that makes the page uncacheable touches what is not there, and panics', () => {
    const facts = expectProgram(
      'set-uc-in-guest',
      `${CONSUMED}
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task
      kernel.isolate by=0 -> SIGBUS BUS_MCEERR_AR to the VMM
      vmm.answer by=0
      kernel.handle cpu=0 -> machine check, ends the guest`,
    );
    expect(facts.endings).toEqual([{ vm: 'g', by: 'panic', of: 0, how: 'isolate' }]);
  });

  it.each([
    ['guest-check', 'present'],
    ['vmm-signals-unmap', 'absent'],
    [NOW, 'absent'],
  ] as const)('in %s leaves the page %s in the 1:1 map', (design, oneToOne) => {
    const facts = expectProgram(
      design,
      `${CONSUMED}
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task
      kernel.isolate by=0`,
    );
    expect(facts.guestPages?.slice(0, 2)).toMatchObject([{ oneToOne }, { oneToOne: 'present' }]);
    expect(facts.isolations).toEqual([{ vm: 'g', gfn: 0, touched: 0 }]);
  });

  it('in vmm-signals-unmap flushes what nobody has unmapped', () => {
    const facts = expectProgram(
      'vmm-signals-unmap',
      `guest.create memory=ordinary
      mce.set cpu=0 bank=1 severity=required valid=yes gfn=3
      kernel.handle cpu=0
      kernel.recover by=0
      kernel.isolate by=0`,
    );
    expect(facts.isolations).toEqual([{ vm: 'g', gfn: 3, touched: 2 }]);
    expect(facts.guestPages?.[3]).toMatchObject({ oneToOne: 'uncacheable' });
  });

  it('oopses at a page that is not in the 1:1 map, and copies fail', () => {
    expectProgram(
      NOW,
      `${CONSUMED}
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task
      kernel.isolate by=0
      kernel.touch cpu=1 gfn=0 line=0 how=copy value=0 -> EIO
      kernel.touch cpu=1 gfn=0 line=0 how=store value=0 -> oops
      task.touch task=1 gfn=0 line=0 how=load value=0 -> ENOENT`,
    );
  });

  it('panics in its own touch, but for a copy with a fixup', () => {
    const taken = 'guest.create memory=ordinary\npage.simulate gfn=0 where=host';
    expectProgram(
      NOW,
      `${taken}
      kernel.touch cpu=0 gfn=0 line=0 how=copy value=0 -> SIGBUS BUS_MCEERR_AR to the VMM
      vmm.answer by=0
      kernel.handle cpu=0
      kernel.recover by=0 -> ENOENT
      page.alloc gfn=0 use=anon owner=0 cpu=0 -> SIGBUS BUS_MCEERR_AR to the VMM
      vmm.answer by=0
      kernel.handle cpu=0 -> machine check, ends the guest`,
    );
  });

  it.each(['kernel', 'table'])('cannot recover memory of use %s', (use) => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=${use} owner=0 cpu=0
      mce.set cpu=0 bank=1 severity=required valid=yes gfn=0
      kernel.handle cpu=0
      kernel.recover by=0 -> SIGBUS to the task`,
    );
    expect(facts.cpus).toMatchObject([{ work: 'none' }, { work: 'none' }]);
    expect(facts.poisoned).toEqual([]);
  });

  it('drops a clean page and kills nobody, until somebody has written to it', () => {
    const program = (store: string, killed: string): string => `guest.create memory=ordinary
      page.alloc gfn=0 use=clean owner=0 cpu=0
      ${store}
      mce.set cpu=0 bank=1 severity=required valid=yes gfn=0
      kernel.handle cpu=0
      kernel.recover by=0${killed}`;
    const TOUCH = 'task.touch task=0 gfn=0 line=0';
    const facts = expectProgram(NOW, `${program(`${TOUCH} how=flush value=0`, '')}\n${TOUCH} how=load -> EBUSY`);
    expect(facts.guestPages?.[0]).toMatchObject({ shownTo: [], poisonFor: [], poisoned: true });
    expectProgram(NOW, program(`${TOUCH} how=store value=1`, ' -> SIGBUS BUS_MCEERR_AR to the task'));
  });

  it('leaves tasks an entry that tells of poison, and kills them late', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=anon owner=both cpu=0
      page.simulate gfn=0 where=guest
      task.touch task=0 gfn=0 line=0 how=copyin -> EFAULT
      task.touch task=0 gfn=0 line=0 how=load -> SIGBUS BUS_MCEERR_AR to the task`,
    );
    expect(facts.guestPages?.[0]).toMatchObject({ use: 'free', shownTo: [], poisonFor: [1] });
  });

  it('counts machine checks of a system call, and gives up at the eleventh', () => {
    const once = `
      task.touch task=0 gfn=0 line=1 how=copyin -> machine check
      kernel.handle cpu=0`;
    expectProgram(METAL, `${anon()}${once.repeat(10)}${once} -> machine check, ends the machine`);
  });

  it('gives up at a second page before it has done its work about the first', () => {
    expectProgram(
      METAL,
      `${anon()}
      page.alloc gfn=1 use=anon owner=0 cpu=0
      hw.poison gfn=1 line=0
      task.touch task=0 gfn=0 line=1 how=copyin -> machine check
      kernel.handle cpu=0
      task.touch task=0 gfn=1 line=0 how=copyin -> machine check
      kernel.handle cpu=0 -> machine check, ends the machine`,
    );
  });

  it('kills whoever comes second, as long as an entry tells of the page', () => {
    expectProgram(
      METAL,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=anon owner=both cpu=0
      hw.poison gfn=0 line=0
      task.touch task=0 gfn=0 line=0 how=load -> machine check
      task.touch task=1 gfn=0 line=0 how=fetch -> machine check
      kernel.handle cpu=0
      kernel.handle cpu=1
      kernel.recover by=1 -> SIGBUS BUS_MCEERR_AR to the task
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task
      kernel.isolate by=0 -> ENOENT`,
    );
  });

  it('frees nothing that is poisoned, and unpoisons nothing that it still uses', () => {
    const facts = expectProgram(
      NOW,
      `guest.create memory=ordinary
      page.alloc gfn=0 use=kernel owner=0 cpu=0
      page.simulate gfn=0 where=guest -> EBUSY
      page.unpoison gfn=0 where=guest -> EBUSY
      page.free gfn=0
      page.alloc gfn=0 use=anon owner=0 cpu=0 -> EHWPOISON
      page.simulate gfn=1 where=guest
      page.unpoison gfn=1 where=guest
      page.alloc gfn=1 use=table owner=both cpu=0`,
    );
    expect(facts.guestPages?.slice(0, 2)).toMatchObject([
      { use: 'free', poisoned: true },
      { use: 'table', poisoned: false, shownTo: [] },
    ]);
  });
});

describe('on bare metal', () => {
  it('the hardware tells the kernel, and flushing consumes nothing', () => {
    const facts = expectProgram(
      METAL,
      `${anon()}
      ${LOAD} -> machine check
      kernel.handle cpu=0
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task
      kernel.isolate by=0
      kernel.touch cpu=0 gfn=0 line=1 how=copy value=0 -> machine check
      kernel.handle cpu=0
      kernel.touch cpu=0 gfn=0 line=1 how=load value=0 -> machine check
      kernel.handle cpu=0 -> machine check, ends the machine
      hw.scrub gfn=0 -> EIO`,
    );
    expect(facts.lines).toEqual([{ frame: 0, line: 1, state: 'poisoned' }]);
  });

  it('what is scrubbed waits for the worker, on CPU 0', () => {
    expectProgram(
      METAL,
      `${anon()}
      hw.scrub gfn=1
      hw.scrub gfn=0
      ${LOAD} -> machine check
      kernel.recover by=worker -> EBUSY
      kernel.handle cpu=0
      kernel.recover by=worker
      kernel.isolate by=worker
      kernel.recover by=worker -> ENOENT
      kernel.recover by=0 -> SIGBUS BUS_MCEERR_AR to the task`,
    );
  });

  it('a device is told that memory is bad, and nobody else', () => {
    const facts = expectProgram(METAL, `${anon()}\ndevice.read gfn=0 line=1 -> EIO`);
    expect(facts.touches).toMatchObject([{ by: 'device', comesTo: 'fault' }]);
    expect(facts.poisoned).toEqual([]);
  });
});
