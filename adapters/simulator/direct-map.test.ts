import { describe, expect, it } from '@jest/globals';
import { ATTRIBUTE_PRIVATE, FALLOC, GMEM_FLAG, INVALID_GPA, KVM_MEM, U64_MAX, VM_TYPE } from '../../model/core/abi.ts';
import type { CacheFact, Facts } from '../../model/core/facts.ts';
import { printOutcome } from '../../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { SimulatorMachine } from './index.ts';

const PAGE = 0x1000n;
const ARENA = { base: 'arena', offset: 0n };
const gave = (value: bigint): string => `ok 0x${value.toString(16)}`;
const PUNCH = FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE;
const COUNTED = 'direct-map-rfc-v2';
const ALL = ['direct-map-rfc-v1', COUNTED, 'direct-map-v12', 'direct-map-v13'];
const BY_REINSERTION = ALL.slice(0, 2);
const BY_HOST_ADDRESS = ALL.slice(2);

/** A VM whose frames 0 to 3 are private memory of a file that is out of the direct map. */
class Host {
  readonly machine: SimulatorMachine;

  constructor(profile: string) {
    this.machine = new SimulatorMachine({ profile: profileById(profile), machine: FULL_MACHINE });
    this.run('vm.create', { vm: 'vm0', dev: 'kvm', type: VM_TYPE.SW_PROTECTED });
    this.run('vcpu.create', { vcpu: 'vcpu0', vm: 'vm0', id: 0n });
    const flags = GMEM_FLAG.NO_DIRECT_MAP;
    this.run('gmem.create', { file: 'file0', vm: 'vm0', size: 4n * PAGE, flags, reserved: 0n });
    const slot = { vm: 'vm0', api: 'v2', slot: 0n, flags: KVM_MEM.GUEST_MEMFD, gpa: 0n, size: 4n * PAGE };
    this.run('slot.set', { ...slot, hva: ARENA, gmem: 'file0', offset: 0n });
    this.convert(0n, 4n, ATTRIBUTE_PRIVATE);
    for (const gpc of ['gpc0', 'gpc1']) this.run('gpc.init', { gpc, vcpu: 'vcpu0' });
  }

  run(name: string, args: AnyCommand['args']): string {
    return printOutcome(this.machine.run({ name, args }));
  }
  convert(page: bigint, pages: bigint, attributes: bigint): string {
    return this.run('attributes.set', { vm: 'vm0', address: page * PAGE, size: pages * PAGE, attributes, flags: 0n });
  }
  allocate(page: bigint, pages: bigint): string {
    const range = { offset: page * PAGE, length: pages * PAGE };
    return this.run('gmem.fallocate', { fd: 'file0', mode: FALLOC.KEEP_SIZE, ...range });
  }
  punch(page: bigint, pages: bigint): string {
    return this.run('gmem.fallocate', { fd: 'file0', mode: PUNCH, offset: page * PAGE, length: pages * PAGE });
  }
  store(gpa: bigint, value: bigint): string {
    return this.run('guest.store', { vcpu: 'vcpu0', gpa, value });
  }
  load(gpa: bigint): string {
    return this.run('guest.load', { vcpu: 'vcpu0', gpa });
  }
  read(gpa: bigint, length = 8n): string {
    return this.run('kvm.read-guest', { vcpu: 'vcpu0', gpa, length });
  }
  write(gpa: bigint, length: bigint, value: bigint): string {
    return this.run('kvm.write-guest', { vcpu: 'vcpu0', gpa, length, value });
  }
  activate(gpc: string, gpa: bigint, length = 8n): string {
    return this.run('gpc.activate', { gpc, gpa, length });
  }
  refresh(gpc: string): string {
    return this.run('gpc.refresh', { gpc, length: 8n });
  }
  readCache(gpc: string): string {
    return this.run('gpc.read', { gpc });
  }
  deactivate(gpc: string): string {
    return this.run('gpc.deactivate', { gpc });
  }
  touch(page: bigint, mode: 'architectural' | 'speculative', cpu = '0'): string {
    return this.run('kernel.load', { fd: 'file0', page, cpu, mode });
  }
  walk(gva: bigint, access: 'read' | 'write' = 'read', cr3 = 0n): string {
    return this.run('guest.walk', { vcpu: 'vcpu0', cr3, gva, access });
  }
  get facts(): Facts {
    return this.machine.facts();
  }
  cache(label: string): CacheFact | undefined {
    return this.facts.caches?.find(({ gpc }) => gpc === label);
  }
}

describe.each(ALL)('%s', (profile) => {
  it('takes a page out of the direct map when a guest uses it, and puts it back when it is freed', () => {
    const host = new Host(profile);
    expect(host.store(0n, 7n)).toBe('ok');
    expect(host.touch(0n, 'architectural', '1')).toBe('oops');
    expect(host.facts.absent).toEqual([{ frame: expect.any(Number), count: 1 }]);
    host.punch(0n, 1n);
    expect(host.facts.absent).toEqual([]);
    expect(host.run('gmem.create', { file: 'f', vm: 'vm0', size: PAGE, flags: 0n, reserved: 0n })).toBe('ok');
  });

  it('gives pages that read as zero', () => {
    const host = new Host(profile);
    host.store(0n, 7n);
    host.punch(0n, 1n);
    expect(host.load(0n)).toBe('ok 0x0');
  });

  it('survives the oops', () => {
    const host = new Host(profile);
    host.store(0n, 7n);
    expect(host.touch(0n, 'architectural', '1')).toBe('oops');
    expect(host.load(0n)).toBe('ok 0x7');
    expect(host.run('fd.close', { fd: 'file0' })).toBe('ok');
  });

  it('refuses the flag nowhere, and tells of it', () => {
    const host = new Host(profile);
    const flags = BigInt(/0x\w+/.exec(host.run('cap.check', { fd: 'vm0', cap: 244n }))?.[0] ?? 0);
    expect(flags & GMEM_FLAG.NO_DIRECT_MAP).toBe(GMEM_FLAG.NO_DIRECT_MAP);
    expect(host.facts.inodes?.map(({ noDirectMap }) => noDirectMap)).toEqual([false, true]);
  });
});

describe('a page that was allocated and not used', () => {
  it.each([
    ['direct-map-rfc-v1', 'oops'],
    ['direct-map-rfc-v2', 'oops'],
    ['direct-map-v12', 'ok 0x0'],
    ['direct-map-v13', 'oops'],
  ])('in %s is met by the kernel with: %s', (profile, outcome) => {
    const host = new Host(profile);
    host.allocate(0n, 1n);
    expect(host.touch(0n, 'architectural', '1')).toBe(outcome);
  });
});

describe('a speculative access', () => {
  it('meets nothing where the page is absent, and leaks what a TLB still shows', () => {
    const flushed = new Host(COUNTED);
    flushed.store(0n, 7n);
    flushed.read(0n);
    expect(flushed.touch(0n, 'speculative')).toBe('ok 0x0');
    expect(flushed.facts.staleTlb).toEqual([]);

    // The RFC of July 2024 does not flush.
    const stale = new Host('direct-map-rfc-v1');
    stale.store(0n, 7n);
    stale.read(0n);
    expect(stale.touch(0n, 'speculative')).toBe('ok 0x7');
    expect(stale.touch(0n, 'speculative', '1')).toBe('ok 0x0');
    expect(stale.facts.staleTlb).toMatchObject([{ cpu: 0, count: 1 }]);
  });
});

describe.each(BY_REINSERTION)('short accesses in %s', (profile) => {
  it('reach private memory, cross pages, and leave nothing behind', () => {
    const host = new Host(profile);
    expect(host.write(PAGE - 16n, 32n, 5n)).toBe('ok');
    expect(host.load(PAGE)).toBe('ok 0x5');
    expect(host.read(PAGE - 8n, 16n)).toBe(gave(10n));
    expect(host.facts.absent?.reduce((sum, { count }) => sum + count, 0)).toBe(2);
    expect(host.facts.shares ?? []).toEqual([]);
  });

  it('go through the host address where the frame is shared', () => {
    const host = new Host(profile);
    host.convert(0n, 1n, 0n);
    expect(host.write(0n, 8n, 3n)).toBe('ok');
    expect(host.run('host.load', { mapping: 'arena', offset: 0n })).toBe('ok 0x3');
  });

  it('fail where there is no memory, and keep what the pages before came to', () => {
    const host = new Host(profile);
    expect(host.write(4n * PAGE - 8n, 16n, 9n)).toBe('EFAULT');
    expect(host.load(4n * PAGE - 8n)).toBe('ok 0x9');
    expect(host.convert(4n, 1n, ATTRIBUTE_PRIVATE)).toBe('ok');
    expect(host.read(4n * PAGE)).toBe('EFAULT');
    host.run('memory.fail', { fd: 'file0', page: 3n });
    expect(host.read(3n * PAGE)).toBe('EHWPOISON');
  });
});

describe('share events', () => {
  it('tell of each share and unshare since the last command', () => {
    const host = new Host(COUNTED);
    host.read(0n);
    expect(host.facts.shareEvents?.map(({ event }) => event)).toEqual(['share', 'unshare']);
    host.load(0n);
    expect(host.facts.shareEvents).toEqual([]);
  });
});

describe('caches', () => {
  it.each(ALL)('in %s are refused by what is not an address', (profile) => {
    const host = new Host(profile);
    expect(host.activate('gpc0', INVALID_GPA)).toBe('EINVAL');
    expect(host.activate('gpc0', PAGE - 8n, 16n)).toBe('EINVAL');
    expect(host.refresh('gpc0')).toBe('EINVAL');
    expect(host.readCache('gpc0')).toBe('EINVAL');
    expect(host.activate('gpc0', 9n * PAGE)).toBe('EFAULT');
    expect(host.cache('gpc0')).toMatchObject({ active: true, valid: false, gfn: 9 });
    expect(host.deactivate('gpc0')).toBe('ok');
  });

  it('hold one share each, and the last one unmaps the page', () => {
    const host = new Host(COUNTED);
    host.store(0n, 7n);
    expect([host.activate('gpc0', 0n), host.activate('gpc1', 8n)]).toEqual(['ok', 'ok']);
    expect(host.facts.shares).toMatchObject([{ sharing: 2, holders: ['gpc0', 'gpc1'] }]);
    expect(host.deactivate('gpc0')).toBe('ok');
    expect(host.readCache('gpc1')).toBe('ok 0x0');
    expect(host.run('gpc.write', { gpc: 'gpc1', value: 4n })).toBe('ok');
    expect(host.load(8n)).toBe('ok 0x4');
    host.deactivate('gpc1');
    expect([host.facts.shares, host.facts.staleTlb]).toEqual([[], []]);
    expect(host.touch(0n, 'architectural')).toBe('oops');
  });

  it('cannot have one page together where shares are not counted', () => {
    const host = new Host('direct-map-rfc-v1');
    expect([host.activate('gpc0', 0n), host.activate('gpc1', 8n)]).toEqual(['ok', 'EFAULT']);
    expect(host.read(0n)).toBe('ok 0x0');
    expect(host.readCache('gpc0')).toBe('ok 0x0');
    expect([host.refresh('gpc0'), host.activate('gpc0', 16n)]).toEqual(['ok', 'ok']);
    host.deactivate('gpc0');
    expect(host.activate('gpc1', 8n)).toBe('ok');
  });

  it('keep one share when they are refreshed, and give it back when they move', () => {
    const host = new Host(COUNTED);
    host.activate('gpc0', 0n);
    host.refresh('gpc0');
    expect(host.facts.shares).toMatchObject([{ sharing: 1 }]);
    host.convert(0n, 1n, 0n);
    host.convert(0n, 1n, ATTRIBUTE_PRIVATE);
    expect(host.cache('gpc0')?.valid).toBe(false);
    host.refresh('gpc0');
    expect(host.facts.shares).toMatchObject([{ sharing: 1 }]);
    host.activate('gpc0', PAGE);
    expect(host.facts.shares).toMatchObject([{ sharing: 1, holders: ['gpc0'] }]);
    host.activate('gpc0', 9n * PAGE);
    expect(host.facts.shares).toEqual([]);
  });

  it('let go of a page that goes', () => {
    const host = new Host(COUNTED);
    host.activate('gpc0', 0n);
    host.punch(0n, 1n);
    expect(host.cache('gpc0')).toMatchObject({ active: true, valid: false });
    expect([host.facts.shares, host.facts.absent]).toEqual([[], []]);
    host.deactivate('gpc0');
    expect(host.facts.absent).toEqual([]);
    expect(host.activate('gpc0', 0n)).toBe('ok');
  });

  it('let go of a page whose slot goes, before it can be punched behind their back', () => {
    const host = new Host(COUNTED);
    host.activate('gpc0', 0n);
    const none = { base: 'arena', offset: 0n };
    const gone = { vm: 'vm0', api: 'v2', slot: 0n, flags: 0n, gpa: 0n, size: 0n, hva: none, gmem: 'none', offset: 0n };
    expect(host.run('slot.set', gone)).toBe('ok');
    expect(host.facts.shares).toEqual([]);
    host.punch(0n, 1n);
    host.deactivate('gpc0');
    expect(host.facts.absent).toEqual([]);
  });

  it('put a page that is gone, where nobody tells them: the design of July 2024', () => {
    const host = new Host('direct-map-rfc-v1');
    host.activate('gpc0', 0n);
    host.punch(0n, 1n);
    expect(host.cache('gpc0')?.valid).toBe(true);
    expect(host.deactivate('gpc0')).toBe('oops');
  });

  it('go with their VM, and give back what they hold', () => {
    const host = new Host(COUNTED);
    host.activate('gpc0', 0n);
    for (const fd of ['file0', 'vcpu0', 'vm0']) expect(host.run('fd.close', { fd })).toBe('ok');
    expect([host.facts.caches, host.facts.shares, host.facts.absent]).toEqual([[], [], []]);
  });

  it.each(BY_HOST_ADDRESS)('in %s reach what the slot shows, and no file with the flag', (profile) => {
    const host = new Host(profile);
    host.convert(0n, 4n, 0n);
    expect(host.activate('gpc0', 0n)).toBe('ok');
    expect(host.run('gpc.write', { gpc: 'gpc0', value: 6n })).toBe('ok');
    expect(host.run('host.load', { mapping: 'arena', offset: 0n })).toBe('ok 0x6');

    const flags = GMEM_FLAG.NO_DIRECT_MAP | GMEM_FLAG.MMAP | GMEM_FLAG.INIT_SHARED;
    host.run('vm.create', { vm: 'vm1', dev: 'kvm', type: VM_TYPE.DEFAULT });
    host.run('vcpu.create', { vcpu: 'vcpu1', vm: 'vm1', id: 0n });
    host.run('gmem.create', { file: 'file1', vm: 'vm1', size: PAGE, flags, reserved: 0n });
    host.run('mem.map', { mapping: 'map0', fd: 'file1', length: PAGE, offset: 0n, sharing: 'shared' });
    const slot = { vm: 'vm1', api: 'v2', slot: 0n, flags: KVM_MEM.GUEST_MEMFD, gpa: 0n, size: PAGE };
    host.run('slot.set', { ...slot, hva: { base: 'map0', offset: 0n }, gmem: 'file1', offset: 0n });
    host.run('gpc.init', { gpc: 'gpc2', vcpu: 'vcpu1' });
    expect(host.activate('gpc2', 0n)).toBe('EFAULT');
    expect(host.run('kvm.write-guest', { vcpu: 'vcpu1', gpa: 0n, length: 8n, value: 8n })).toBe('ok');
    expect(host.run('host.load', { mapping: 'map0', offset: 0n })).toBe('ok 0x8');
    expect(host.run('kernel.load', { fd: 'file1', page: 0n, cpu: '0', mode: 'architectural' })).toBe('oops');
  });
});

describe.each(BY_REINSERTION)('a walk in %s', (profile) => {
  const PRESENT = 1n;
  const WRITABLE = 2n;
  /** Tables in frames 0, 1, 2 and 3, the last of which maps frame 3 itself. */
  const walkable = (last = WRITABLE): Host => {
    const host = new Host(profile);
    for (const table of [0n, 1n, 2n]) host.store(table * PAGE, ((table + 1n) * PAGE) | PRESENT | WRITABLE);
    host.store(3n * PAGE, (3n * PAGE) | PRESENT | last);
    return host;
  };

  it('translates, and sets accessed and dirty bits', () => {
    const host = walkable();
    expect(host.walk(0x123n)).toBe(gave(0x3123n));
    expect(host.load(0n)).toBe(gave(0x1023n));
    expect(host.load(3n * PAGE)).toBe(gave(0x3023n));
    expect(host.walk(0n, 'write')).toBe(gave(0x3000n));
    expect([host.load(0n), host.load(3n * PAGE)]).toEqual([gave(0x1023n), gave(0x3063n)]);
    expect(host.facts.shares ?? []).toEqual([]);
    expect(host.facts.absent?.reduce((sum, { count }) => sum + count, 0)).toBe(4);
  });

  it('finds nothing, and sets nothing, where an entry is not present or not writable', () => {
    const host = walkable(0n);
    expect(host.walk(0n, 'write')).toBe(gave(U64_MAX));
    expect(host.walk(1n << 12n)).toBe(gave(U64_MAX));
    expect(host.walk(0n, 'read', 9n * PAGE)).toBe(gave(U64_MAX));
    expect(host.load(0n)).toBe(gave(0x1003n));
  });

  it('reads a table twice only where shares are counted', () => {
    const host = new Host(profile);
    host.store(0n, PRESENT);
    expect(host.walk(0n)).toBe(profile === COUNTED ? 'ok 0x0' : gave(U64_MAX));
  });
});

describe('an access to MMIO', () => {
  it.each(BY_REINSERTION)('in %s has its instruction fetched from private memory', (profile) => {
    const host = new Host(profile);
    expect(host.run('guest.mmio', { vcpu: 'vcpu0', rip: 0n, gpa: 9n * PAGE })).toBe(
      host.run('guest.load', { vcpu: 'vcpu0', gpa: 9n * PAGE }),
    );
    expect(host.touch(0n, 'architectural')).toBe(profile === COUNTED ? 'oops' : 'ok 0x0');
  });
});

describe('a change of the direct map that fails', () => {
  const fail = (host: Host, change: 'split' | 'restore'): string => host.run('fault.direct-map', { change });

  it.each([
    ['direct-map-rfc-v1', 'stays there for good', 1, 'ok 0x0'],
    [COUNTED, 'leaves it when it is tried again', 1, 'oops'],
    ['direct-map-v13', 'does not enter the file before it can', 0, 'oops'],
  ])('in %s: a page that cannot leave %s', (profile, _name, stuck, touched) => {
    const host = new Host(profile);
    fail(host, 'split');
    expect(host.allocate(0n, 2n)).toBe('ENOMEM');
    expect(host.facts.unremoved).toHaveLength(stuck);
    expect(host.facts.absent).toEqual([]);
    expect(host.allocate(0n, 2n)).toBe('ok');
    expect(host.touch(0n, 'architectural', '1')).toBe(touched);
    expect(host.touch(1n, 'architectural', '1')).toBe('oops');
  });

  it.each(ALL)('in %s: no guest gets the page', (profile) => {
    const host = new Host(profile);
    fail(host, 'split');
    expect(host.store(0n, 7n)).toBe('MEMORY_FAULT ENOMEM gpa=0x0 private');
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.store(0n, 7n)).toBe('ok');
  });

  it.each([
    ['direct-map-rfc-v1', 'the kernel stops', 'oops', 0],
    [COUNTED, 'nobody gets it any more', 'ok', 0],
    ['direct-map-v12', 'it is free and absent', 'ok', 1],
    ['direct-map-v13', 'it is free and absent', 'ok', 1],
  ])('in %s: of a page that cannot come back, %s', (profile, _name, outcome, freeAndAbsent) => {
    const host = new Host(profile);
    host.store(0n, 7n);
    fail(host, 'restore');
    expect(host.punch(0n, 1n)).toBe(outcome);
    const { absent = [], free = [] } = host.facts;
    expect(absent).toHaveLength(1);
    expect(free.filter(({ frame }) => frame === absent[0]?.frame)).toHaveLength(freeAndAbsent);
  });

  it.each([
    ['direct-map-rfc-v1', 'ENOMEM'],
    [COUNTED, 'EHWPOISON'],
  ])('in %s: KVM does not touch what it cannot reinsert, and says %s', (profile, error) => {
    const host = new Host(profile);
    host.store(0n, 7n);
    fail(host, 'restore');
    expect(host.read(0n)).toBe(error);
    const other = new Host(profile);
    other.store(0n, 7n);
    fail(other, 'restore');
    expect(other.activate('gpc0', 0n)).toBe('EFAULT');
    expect(other.facts.shares).toEqual([]);
  });
});

describe('a file of a tebibyte', () => {
  const TEBIBYTE = 1n << 40n;

  it.each(ALL)('in %s is changed at once, but for the page that a change fails for', (profile) => {
    const host = new Host(profile);
    host.run('gmem.create', { file: 'file1', vm: 'vm0', size: TEBIBYTE, flags: GMEM_FLAG.NO_DIRECT_MAP, reserved: 0n });
    const slot = { vm: 'vm0', api: 'v2', slot: 1n, flags: KVM_MEM.GUEST_MEMFD, gpa: TEBIBYTE, size: TEBIBYTE };
    host.run('slot.set', { ...slot, hva: ARENA, gmem: 'file1', offset: 0n });
    host.convert(TEBIBYTE / PAGE, TEBIBYTE / PAGE, ATTRIBUTE_PRIVATE);
    const prefault = (): string =>
      host.run('vcpu.prefault', { vcpu: 'vcpu0', gpa: TEBIBYTE, size: TEBIBYTE, flags: 0n });

    host.run('fault.direct-map', { change: 'split' });
    expect(prefault()).toBe('ENOMEM');
    host.run('fault.direct-map', { change: 'restore' });
    expect(prefault()).toBe(gave(TEBIBYTE));
    host.run('fault.direct-map', { change: 'split' });
    expect(prefault()).toBe(gave(TEBIBYTE));
  });
});

describe('a host address that is kept', () => {
  const kept = (profile: string): Host => {
    const host = new Host(profile);
    host.convert(0n, 4n, 0n);
    expect(host.run('ghc.create', { ghc: 'ghc0', vcpu: 'vcpu0' })).toBe('ok');
    expect(host.run('ghc.init', { ghc: 'ghc0', gpa: 0n, length: 16n })).toBe('ok');
    return host;
  };
  const write = (host: Host, offset: bigint, value: bigint): string =>
    host.run('ghc.write', { ghc: 'ghc0', offset, length: 8n, value });
  const read = (host: Host, offset: bigint): string => host.run('ghc.read', { ghc: 'ghc0', offset, length: 8n });

  it.each(ALL)('in %s is where the process looks, up to its end', (profile) => {
    const host = kept(profile);
    expect(write(host, 8n, 5n)).toBe('ok');
    expect(host.run('host.load', { mapping: 'arena', offset: 8n })).toBe(gave(5n));
    expect(read(host, 16n)).toBe('EINVAL');
  });

  it.each(BY_REINSERTION)('in %s is of no use for private memory', (profile) => {
    const host = kept(profile);
    write(host, 0n, 5n);
    host.convert(0n, 1n, ATTRIBUTE_PRIVATE);
    host.store(0n, 7n);
    expect(read(host, 0n)).toBe(gave(7n));
  });

  it.each(BY_HOST_ADDRESS)('in %s is gone to for private memory as well', (profile) => {
    const host = kept(profile);
    write(host, 0n, 5n);
    host.convert(0n, 1n, ATTRIBUTE_PRIVATE);
    expect(read(host, 0n)).toBe(gave(5n));
  });

  it('is lost by a range that has none, until the slots change', () => {
    const host = kept(COUNTED);
    expect(host.run('ghc.init', { ghc: 'ghc0', gpa: 4n * PAGE, length: 8n })).toBe('EFAULT');
    expect(read(host, 0n)).toBe('EFAULT');
    const slot = { vm: 'vm0', api: 'v2', slot: 1n, flags: 0n, gpa: 4n * PAGE, size: PAGE, gmem: 'none', offset: 0n };
    host.run('slot.set', { ...slot, hva: { base: 'arena', offset: 8n * PAGE } });
    expect(read(host, 0n)).toBe(gave(0n));
  });
});
