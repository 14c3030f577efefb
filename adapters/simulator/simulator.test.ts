import { describe, expect, it } from '@jest/globals';
import { FALLOC, GMEM_FLAG, KVM_MEM, VM_TYPE } from '../../model/core/abi.ts';
import type { FactParts } from '../../model/core/facts.ts';
import type { Outcome } from '../../model/core/outcome.ts';
import { printOutcome } from '../../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import type { Inode, MemSlot } from './objects.ts';
import { WouldBlock } from './kernel.ts';
import { SimulatorMachine, machineTarget, simulatorTarget } from './index.ts';

const PAGE = 4096n;
const SHARED = GMEM_FLAG.MMAP | GMEM_FLAG.INIT_SHARED;
const PUNCH = FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE;
const ARENA = { base: 'arena', offset: 0n };

type Args = AnyCommand['args'];

/** Short forms of the commands, and their outcomes as text. */
class Host {
  readonly machine: SimulatorMachine;

  constructor(profile = 'linux-7.3', Machine = SimulatorMachine) {
    this.machine = new Machine({ profile: profileById(profile), machine: FULL_MACHINE });
  }

  run(name: string, args: Args): string {
    return printOutcome(this.machine.run({ name, args }));
  }
  vm(vm: string, type: bigint = VM_TYPE.DEFAULT): string {
    return this.run('vm.create', { vm, dev: 'kvm', type });
  }
  vcpu(vcpu: string, vm: string, id = 0n): string {
    return this.run('vcpu.create', { vcpu, vm, id });
  }
  close(fd: string): string {
    return this.run('fd.close', { fd });
  }
  gmem(file: string, vm: string, pages: bigint, flags = 0n): string {
    return this.run('gmem.create', { file, vm, size: pages * PAGE, flags, reserved: 0n });
  }
  link(file: string, vm: string, from: string): string {
    return this.run('gmem.link', { file, vm, from, flags: 0n });
  }
  slot(vm: string, slot: bigint, gmem: string, pages: bigint, change: Args = {}): string {
    const flags = gmem === '' ? 0n : KVM_MEM.GUEST_MEMFD;
    const args = { vm, api: 'v2', slot, flags, gpa: 0n, size: pages * PAGE, hva: ARENA, gmem, offset: 0n };
    return this.run('slot.set', { ...args, ...change });
  }
  allocate(fd: string, page: bigint, pages: bigint): string {
    return this.run('gmem.fallocate', { fd, mode: FALLOC.KEEP_SIZE, offset: page * PAGE, length: pages * PAGE });
  }
  punch(fd: string, page: bigint, pages: bigint): string {
    return this.run('gmem.fallocate', { fd, mode: PUNCH, offset: page * PAGE, length: pages * PAGE });
  }
  convert(vm: string, page: bigint, pages: bigint, attributes: bigint): string {
    return this.run('attributes.set', { vm, address: page * PAGE, size: pages * PAGE, attributes, flags: 0n });
  }
  map(mapping: string, fd: string, pages: bigint): string {
    return this.run('mem.map', { mapping, fd, length: pages * PAGE, offset: 0n, sharing: 'shared' });
  }
  unmap(mapping: string): string {
    return this.run('mem.unmap', { mapping });
  }
  load(vcpu: string, page: bigint): string {
    return this.run('guest.load', { vcpu, gpa: page * PAGE });
  }
  store(vcpu: string, page: bigint, value: bigint): string {
    return this.run('guest.store', { vcpu, gpa: page * PAGE, value });
  }
  hostLoad(mapping: string, page: bigint): string {
    return this.run('host.load', { mapping, offset: page * PAGE });
  }
  hostStore(mapping: string, page: bigint, value: bigint): string {
    return this.run('host.store', { mapping, offset: page * PAGE, value });
  }
  prefault(vcpu: string, page: bigint, pages: bigint): string {
    return this.run('vcpu.prefault', { vcpu, gpa: page * PAGE, size: pages * PAGE, flags: 0n });
  }
  get facts(): FactParts {
    return this.machine.facts() as FactParts;
  }
}

/** A VM with one vCPU and four pages of guest_memfd in slot 0. */
function started(flags = SHARED, type: bigint = VM_TYPE.DEFAULT): Host {
  const host = new Host();
  host.vm('vm0', type);
  host.vcpu('cpu0', 'vm0');
  host.gmem('file0', 'vm0', 4n, flags);
  expect(host.slot('vm0', 0n, 'file0', 4n)).toBe('ok');
  return host;
}

describe('lifetime', () => {
  it.each([
    ['vm0', 'cpu0', 'file0', 'map0'],
    ['file0', 'map0', 'cpu0', 'vm0'],
    ['map0', 'file0', 'vm0', 'cpu0'],
    ['cpu0', 'vm0', 'map0', 'file0'],
  ])('ends with the last of %s, %s, %s, %s', (...order) => {
    const host = started();
    host.map('map0', 'file0', 4n);
    host.store('cpu0', 0n, 1n);
    for (const [index, label] of order.entries()) {
      expect(host.facts.vms).toHaveLength(1);
      expect(label === 'map0' ? host.unmap(label) : host.close(label)).toBe('ok');
      expect(host.facts.vms).toHaveLength(index === 3 ? 0 : 1);
    }
    const { files, slots, bindings, stageTwo, orphans, inodes } = host.facts;
    expect([files, slots, bindings, stageTwo, orphans]).toEqual([[], [], [], [], []]);
    expect(inodes.map(({ inode }) => inode)).toEqual(['arena']);
  });

  it('gives the address of a dead struct kvm to the next one, and a file keeps its VM from dying', () => {
    const host = new Host();
    const addressOf = (vm: string) => [...host.machine.vmList].find(({ label }) => label === vm)?.address;
    host.vm('vm0');
    const first = addressOf('vm0');
    host.close('vm0');
    host.vm('vm1');
    expect(addressOf('vm1')).toBe(first);
    host.gmem('file0', 'vm1', 1n);
    host.close('vm1');
    host.vm('vm2');
    expect(addressOf('vm2')).not.toBe(first);
    expect(host.slot('vm2', 0n, 'file0', 1n)).toBe('EINVAL');
  });

  it('keeps the VM alive for a mapping of a closed file', () => {
    const host = started();
    host.map('map0', 'file0', 4n);
    for (const fd of ['file0', 'cpu0', 'vm0']) host.close(fd);
    expect(host.hostStore('map0', 1n, 7n)).toBe('ok');
    expect(host.facts.files).toHaveLength(1);
    host.unmap('map0');
    expect(host.facts.vms).toEqual([]);
  });

  it('keeps a vCPU id taken after its descriptor was closed', () => {
    const host = started();
    host.close('cpu0');
    expect(host.vcpu('cpu1', 'vm0', 0n)).toBe('EEXIST');
    expect(host.vcpu('cpu1', 'vm0', 4096n)).toBe('EINVAL');
    expect(host.vcpu('cpu1', 'vm0', 4095n)).toBe('ok');
  });

  it('leaves slots behind when the last descriptor of their file is closed', () => {
    const host = started();
    host.store('cpu0', 0n, 1n);
    host.run('fd.dup', { as: 'file1', fd: 'file0' });
    host.close('file0');
    expect(host.load('cpu0', 0n)).toBe('ok 0x1');
    host.close('file1');
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.facts.slots).toMatchObject([{ gmem: true, file: undefined }]);
    expect(host.load('cpu0', 0n)).toBe('MEMORY_FAULT EFAULT gpa=0x0 shared');
  });
});

describe('page contents', () => {
  it('are zeroed when a frame is used again, not when it is freed', () => {
    const host = started();
    host.store('cpu0', 0n, 42n);
    const frame = host.facts.stageTwo[0]?.frame ?? -1;
    host.punch('file0', 0n, 1n);
    expect(host.machine.readWord(frame, 0)).toBe(42n);
    expect(host.facts.free).toEqual([{ frame, count: 1 }]);
    expect(host.load('cpu0', 3n)).toBe('ok 0x0');
    expect(host.facts.resident).toContainEqual({ inode: 'file0', page: 3, frame, count: 1, references: 1 });
    expect(host.facts.firstTouches).toEqual([{ inode: 'file0', page: 3, zero: true }]);
  });

  it('are those of an earlier owner where the zeroing is left out', () => {
    class NeverClears extends SimulatorMachine {
      override clearHighpage(): void {
        // The mistake.
      }
    }
    const program = [
      { name: 'vm.create', args: { vm: 'vm0', dev: 'kvm', type: 0n } },
      { name: 'gmem.create', args: { file: 'file0', vm: 'vm0', size: PAGE, flags: SHARED, reserved: 0n } },
      { name: 'mem.map', args: { mapping: 'map0', fd: 'file0', length: PAGE, offset: 0n, sharing: 'shared' } },
      { name: 'host.store', args: { mapping: 'map0', offset: 0n, value: 5n } },
      { name: 'gmem.fallocate', args: { fd: 'file0', mode: PUNCH, offset: 0n, length: PAGE } },
      { name: 'host.load', args: { mapping: 'map0', offset: 0n } },
    ];
    const profile = profileById('linux-7.3');
    const last = (target: ReturnType<typeof simulatorTarget>) =>
      [...(target.execute(program, profile) as Iterable<{ outcome: Outcome; facts?: unknown }>)].at(-1);
    expect(last(simulatorTarget())).toMatchObject({ outcome: { value: 0n } });
    expect(last(machineTarget('never-clears', (config) => new NeverClears(config)))).toMatchObject({
      outcome: { value: 5n },
      facts: { firstTouches: [{ zero: false }] },
    });
  });

  it('are shared by the host, the guest and another mapping of the file', () => {
    const host = started();
    host.map('map0', 'file0', 4n);
    host.map('map1', 'file0', 9n);
    host.hostStore('map0', 2n, 3n);
    expect(host.load('cpu0', 2n)).toBe('ok 0x3');
    expect(host.hostLoad('map1', 2n)).toBe('ok 0x3');
    expect(host.facts.resident).toContainEqual(expect.objectContaining({ inode: 'file0', page: 2, references: 3 }));
    expect(host.hostLoad('map1', 4n)).toBe('SIGBUS');
    expect(host.hostLoad('map1', 9n)).toBe('SIGSEGV');
  });

  it('are zero after a punch, for every VM that sees the inode', () => {
    const host = new Host('gmem-link-rfc');
    for (const vm of ['vm0', 'vm1']) host.vm(vm);
    host.vcpu('cpu0', 'vm0');
    host.vcpu('cpu1', 'vm1');
    host.gmem('file0', 'vm0', 4n, SHARED);
    expect(host.link('file1', 'vm1', 'file0')).toBe('ok');
    expect(host.link('file2', 'vm0', 'file0')).toBe('EINVAL');
    host.slot('vm0', 0n, 'file0', 4n);
    host.slot('vm1', 3n, 'file1', 4n, { gpa: 8n * PAGE });
    host.store('cpu0', 1n, 9n);
    expect(host.load('cpu1', 9n)).toBe('ok 0x9');
    expect(host.facts.stageTwo).toHaveLength(2);
    host.punch('file1', 0n, 4n);
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.load('cpu0', 1n)).toBe('ok 0x0');
  });
});

describe('guest accesses', () => {
  it('use an entry that is present without asking anybody', () => {
    class StaleStageTwo extends SimulatorMachine {
      override kvmGmemInvalidateStart(_inode: Inode): void {
        // The mistake.
      }
      override kvmGmemInvalidateEnd(): void {
        // Nothing was started.
      }
    }
    const host = new Host('linux-7.3', StaleStageTwo);
    host.vm('vm0');
    host.vcpu('cpu0', 'vm0');
    host.gmem('file0', 'vm0', 4n, SHARED);
    host.slot('vm0', 0n, 'file0', 4n);
    host.store('cpu0', 0n, 8n);
    host.punch('file0', 0n, 4n);
    expect(host.load('cpu0', 0n)).toBe('ok 0x8');
    expect(host.facts.free.map(({ frame }) => frame)).toContain(host.facts.stageTwo[0]?.frame);
  });

  it('follow a conversion: no entry of the other kind stays', () => {
    const host = started(0n, VM_TYPE.SW_PROTECTED);
    expect(host.store('cpu0', 0n, 1n)).toBe('ok');
    expect(host.facts.stageTwo).toMatchObject([{ private: false }]);
    expect(host.convert('vm0', 0n, 2n, 8n)).toBe('ok');
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.load('cpu0', 0n)).toBe('ok 0x0');
    expect(host.facts.stageTwo).toMatchObject([{ private: true }]);
    expect(host.facts.private).toEqual([{ vm: 'vm0', start: 0, end: 2 }]);
    host.convert('vm0', 0n, 1n, 0n);
    expect(host.load('cpu0', 0n)).toBe('ok 0x1');
  });

  it('tell private from shared where no slot is', () => {
    const host = started(0n, VM_TYPE.SW_PROTECTED);
    host.convert('vm0', 100n, 1n, 8n);
    expect(host.load('cpu0', 100n)).toBe('MEMORY_FAULT EFAULT gpa=0x64000 private');
    expect(host.store('cpu0', 101n, 1n)).toBe('MMIO write gpa=0x65000');
    expect(host.prefault('cpu0', 101n, 1n)).toBe('ENOENT');
  });

  it('through user memory end when that memory is unmapped', () => {
    const host = new Host();
    host.vm('vm0');
    host.vcpu('cpu0', 'vm0');
    host.slot('vm0', 0n, '', 64n);
    host.slot('vm0', 1n, '', 1n, { gpa: 64n * PAGE, flags: KVM_MEM.READONLY });
    host.hostStore('arena', 3n, 6n);
    expect(host.load('cpu0', 3n)).toBe('ok 0x6');
    expect(host.load('cpu0', 64n)).toBe('ok 0x0');
    expect(host.store('cpu0', 64n, 1n)).toBe('MMIO write gpa=0x40000');
    host.unmap('arena');
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.load('cpu0', 3n)).toBe('EFAULT');
    expect(host.facts.free).toMatchObject([{ count: 64 }]);
  });

  it('count what a pre-fault has mapped before it failed', () => {
    const host = started(0n, VM_TYPE.SW_PROTECTED);
    host.convert('vm0', 0n, 100n, 8n);
    host.run('memory.fail', { fd: 'file0', page: 2n });
    expect(host.prefault('cpu0', 0n, 100n)).toBe('ok 0x4000');
    host.run('memory.fail', { fd: 'file0', page: 2n });
    expect(host.prefault('cpu0', 0n, 100n)).toBe('ok 0x2000');
    expect(host.prefault('cpu0', 2n, 1n)).toBe('EHWPOISON');
    expect(host.prefault('cpu0', 4n, 1n)).toBe('EFAULT');
  });
});

describe('memory failure', () => {
  it('is answered until the page is punched, and the frame is never used again', () => {
    const host = started();
    host.store('cpu0', 0n, 1n);
    const frame = host.facts.stageTwo[0]?.frame ?? -1;
    host.run('memory.fail', { fd: 'file0', page: 0n });
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.load('cpu0', 0n)).toBe('MEMORY_FAULT EHWPOISON gpa=0x0 shared');
    expect(host.load('cpu0', 0n)).toBe('MEMORY_FAULT EHWPOISON gpa=0x0 shared');
    host.punch('file0', 0n, 1n);
    expect(host.facts).toMatchObject({ poisoned: [frame], free: [], orphans: [] });
    expect(host.load('cpu0', 0n)).toBe('ok 0x0');
    expect(host.facts.stageTwo[0]?.frame).not.toBe(frame);
  });

  it('leaves its mark in the page tables that mapped the page, but in no others', () => {
    const host = started();
    host.map('map0', 'file0', 4n);
    host.map('map1', 'file0', 4n);
    host.hostStore('map0', 0n, 1n);
    host.run('memory.fail', { fd: 'file0', page: 0n });
    expect([host.hostLoad('map0', 0n), host.hostLoad('map1', 0n)]).toEqual(['SIGBUS', 'SIGBUS']);
    host.punch('file0', 0n, 1n);
    expect([host.hostLoad('map0', 0n), host.hostLoad('map1', 0n)]).toEqual(['SIGBUS', 'ok 0x0']);
  });

  it('shows as an orphan when an error path forgets its reference', () => {
    class LeaksPoison extends SimulatorMachine {
      override folioPut(...[folio]: Parameters<SimulatorMachine['folioPut']>): void {
        if (!this.poisoned.has(folio.frame)) super.folioPut(folio);
      }
    }
    const host = new Host('linux-7.3', LeaksPoison);
    host.vm('vm0');
    host.vcpu('cpu0', 'vm0');
    host.gmem('file0', 'vm0', 1n, SHARED);
    host.slot('vm0', 0n, 'file0', 1n);
    host.store('cpu0', 0n, 1n);
    host.run('memory.fail', { fd: 'file0', page: 0n });
    host.load('cpu0', 0n);
    host.punch('file0', 0n, 1n);
    expect(host.facts.orphans).toEqual([{ frame: host.facts.poisoned[0], references: 2 }]);
  });
});

describe('the order of errors', () => {
  it('looks at the slots in guest memory before it looks at the file', () => {
    const host = started();
    const other = { gpa: 2n * PAGE };
    expect(host.slot('vm0', 1n, 'none', 4n, { ...other, size: 1n })).toBe('EINVAL');
    expect(host.slot('vm0', 1n, 'none', 4n, other)).toBe('EEXIST');
    expect(host.slot('vm0', 1n, 'none', 4n, { gpa: 8n * PAGE })).toBe('EBADF');
    expect(host.slot('vm0', 1n, 'kvm', 4n, { gpa: 8n * PAGE })).toBe('EINVAL');
    expect(host.slot('vm0', 0n, 'none', 0n)).toBe('ok');
    expect(host.slot('vm0', 0n, 'none', 0n)).toBe('EINVAL');
  });

  it.each([
    ['linux-6.18', 'EINVAL', 'EINVAL'],
    ['linux-7.2', 'EEXIST', 'EEXIST'],
    ['linux-7.3', 'EEXIST', 'EINVAL'],
  ])('of a range that is bound twice differs in %s', (profile, bound, beyond) => {
    const host = new Host(profile);
    host.vm('vm0');
    host.gmem('file0', 'vm0', 8n);
    host.slot('vm0', 0n, 'file0', 4n);
    expect(host.slot('vm0', 1n, 'file0', 4n, { gpa: 8n * PAGE, offset: 3n * PAGE })).toBe(bound);
    expect(host.slot('vm0', 1n, 'file0', 4n, { gpa: 1n << 52n, offset: 3n * PAGE })).toBe(beyond);
    expect(host.slot('vm0', 1n, 'file0', 4n, { gpa: 1n << 52n, offset: 4n * PAGE })).toBe('EINVAL');
    expect(host.facts.bindings).toHaveLength(1);
    expect(host.slot('vm0', 1n, 'file0', 4n, { gpa: 8n * PAGE, offset: 4n * PAGE })).toBe('ok');
  });

  it('of calls on files and mappings is that of the kernel', () => {
    const host = started();
    expect(host.run('file.io', { fd: 'none', op: 'pread', offset: -1n })).toBe('EINVAL');
    expect(host.run('file.io', { fd: 'none', op: 'pread', offset: 0n })).toBe('EBADF');
    expect(host.run('file.io', { fd: 'file0', op: 'pwrite', offset: 0n })).toBe('ESPIPE');
    expect(host.run('file.io', { fd: 'file0', op: 'read', offset: 0n })).toBe('EINVAL');
    expect(host.run('file.truncate', { fd: 'none', size: -1n })).toBe('EINVAL');
    expect(host.run('file.truncate', { fd: 'file0', size: 0n })).toBe('EINVAL');
    const map = { mapping: 'map0', fd: 'file0', length: 1n, offset: 0n, sharing: 'private' };
    expect(host.run('mem.map', { ...map, fd: 'none', offset: 1n })).toBe('EINVAL');
    expect(host.run('mem.map', { ...map, fd: 'none', length: 0n })).toBe('EBADF');
    expect(host.run('mem.map', { ...map, length: (1n << 64n) - 1n })).toBe('ENOMEM');
    expect(host.run('mem.map', { ...map, offset: (1n << 63n) - PAGE })).toBe('EOVERFLOW');
    expect(host.run('mem.map', map)).toBe('EINVAL');
    const fallocate = { fd: 'file0', mode: PUNCH, offset: 0n, length: PAGE };
    expect(host.run('gmem.fallocate', { ...fallocate, fd: 'vm0' })).toBe('ENODEV');
    expect(host.run('gmem.fallocate', { ...fallocate, offset: (1n << 63n) - PAGE })).toBe('EFBIG');
    expect(host.run('gmem.fallocate', { ...fallocate, mode: 0n, length: 1n })).toBe('EOPNOTSUPP');
    expect(host.run('gmem.fallocate', { ...fallocate, length: 1n })).toBe('EINVAL');
  });
});

describe('failing allocations', () => {
  it.each<[string, (host: Host) => string]>([
    ['vm.create', (host) => host.vm('vm1')],
    ['vcpu.create', (host) => host.vcpu('cpu1', 'vm0', 1n)],
    ['gmem.create', (host) => host.gmem('file1', 'vm0', 1n)],
    ['slot.set', (host) => host.slot('vm0', 1n, 'file0', 2n, { gpa: 8n * PAGE, offset: 2n * PAGE })],
    ['slot.set to delete', (host) => host.slot('vm0', 0n, '', 0n)],
    ['attributes.set', (host) => host.convert('vm0', 0n, 256n, 8n)],
  ])('leave nothing behind in %s', (_name, attempt) => {
    const host = new Host();
    host.vm('vm0', VM_TYPE.SW_PROTECTED);
    host.gmem('file0', 'vm0', 4n);
    host.slot('vm0', 0n, 'file0', 2n);
    const before = host.facts;
    const results: string[] = [];
    for (let skip = 0n; results.at(-1) !== 'ok'; skip++) {
      expect(host.facts).toEqual(before);
      host.run('fault.slab', { skip });
      results.push(attempt(host));
    }
    expect(new Set(results)).toEqual(new Set(['ENOMEM', 'ok']));
  });

  it('undo the binding of a slot that cannot be had', () => {
    for (const profile of ['linux-7.2', 'linux-7.3']) {
      const host = new Host(profile);
      host.vm('vm0');
      host.gmem('file0', 'vm0', 4n);
      host.run('fault.slab', { skip: 1n });
      expect(host.slot('vm0', 0n, 'file0', 4n)).toBe('ENOMEM');
      expect(host.facts).toMatchObject({ bindings: [], slots: [] });
      expect(host.slot('vm0', 0n, 'file0', 4n)).toBe('ok');
    }
  });
});

describe('huge sizes', () => {
  const PAGES = 1n << 28n;

  it('cost as much as their fragments', () => {
    const host = new Host();
    host.vm('vm0', VM_TYPE.SW_PROTECTED);
    host.vcpu('cpu0', 'vm0');
    host.gmem('file0', 'vm0', PAGES);
    host.slot('vm0', 0n, 'file0', PAGES);
    expect(host.convert('vm0', 0n, PAGES, 8n)).toBe('ok');
    expect(host.allocate('file0', 0n, PAGES)).toBe('ok');
    expect(host.prefault('cpu0', 0n, PAGES)).toBe('ok 0x10000000000');
    expect(host.store('cpu0', PAGES - 1n, 3n)).toBe('ok');
    expect(host.facts).toMatchObject({
      resident: [{ inode: 'arena' }, { inode: 'file0', count: Number(PAGES) }],
      stageTwo: [{ count: Number(PAGES), private: true }],
    });
    host.punch('file0', 5n, 1n);
    expect(host.facts.stageTwo).toHaveLength(2);
    host.punch('file0', 0n, PAGES);
    expect(host.facts.stageTwo).toEqual([]);
    expect(host.load('cpu0', PAGES - 1n)).toBe('ok 0x0');
    expect(host.convert('vm0', 1n, PAGES - 2n, 0n)).toBe('ok');
  });

  it('of mappings are filled as runs by a pre-fault', () => {
    const host = new Host();
    host.vm('vm0');
    host.vcpu('cpu0', 'vm0');
    host.gmem('file0', 'vm0', PAGES, SHARED);
    host.map('map0', 'file0', PAGES);
    host.slot('vm0', 0n, '', PAGES, { hva: { base: 'map0', offset: 0n } });
    expect(host.prefault('cpu0', 0n, PAGES)).toBe('ok 0x10000000000');
    expect(host.facts.user).toContainEqual(expect.objectContaining({ mapping: 'map0', count: Number(PAGES) }));
    host.unmap('map0');
    expect(host.facts.stageTwo).toEqual([]);
  });
});

describe('attributes across the edge of a slot', () => {
  it('touch no entry of huge pages that the slot does not have', () => {
    const host = new Host();
    host.vm('vm0', VM_TYPE.SW_PROTECTED);
    host.slot('vm0', 0n, '', 1000n, { gpa: 10n * PAGE });
    host.convert('vm0', 0n, 2000n, 8n);
    host.convert('vm0', 600n, 100n, 0n);
    expect(host.facts.outOfBounds).toEqual([]);
  });

  it('are reported where the check is missing', () => {
    class UncheckedEnd extends SimulatorMachine {
      override hugepageWithinSlot(slot: MemSlot, gfn: number): boolean {
        return gfn >= slot.baseGfn;
      }
    }
    const host = new Host('linux-7.3', UncheckedEnd);
    host.vm('vm0', VM_TYPE.SW_PROTECTED);
    host.slot('vm0', 0n, '', 1000n);
    host.convert('vm0', 0n, 1024n, 8n);
    expect(host.facts.outOfBounds).toContain('lpage_info[0] of slot 0 of vm0: index 2 of 2');
    host.convert('vm0', 0n, 1024n, 8n);
    expect(host.facts.outOfBounds).toEqual([]);
  });
});

describe('facts', () => {
  it('are the same object until something changes', () => {
    const host = started();
    const { facts } = host;
    expect(host.slot('vm0', 9n, 'file0', 4n, { gpa: 1n })).toBe('EINVAL');
    expect(host.facts).toBe(facts);
    host.store('cpu0', 0n, 1n);
    const stored = host.facts;
    expect(stored.slots).toBe(facts.slots);
    expect(stored.stageTwo).not.toBe(facts.stageTwo);
  });
});

describe('hand-over points', () => {
  it('let a slot be deleted while its file is being released', () => {
    const host = started();
    host.machine.onHandOver = (point) => {
      if (point !== 'fput') return;
      host.machine.onHandOver = undefined;
      expect(host.slot('vm0', 0n, 'none', 0n)).toBe('ok');
      expect(host.load('cpu0', 0n)).toBe('MMIO read gpa=0x0');
    };
    host.close('file0');
    expect(host.facts).toMatchObject({ slots: [], bindings: [], files: [] });
  });

  it('let a conversion make a fault start over', () => {
    const host = started(0n, VM_TYPE.SW_PROTECTED);
    host.machine.onHandOver = (point) => {
      if (point !== 'mmu_lock') return;
      host.machine.onHandOver = undefined;
      host.convert('vm0', 0n, 1n, 8n);
    };
    expect(host.store('cpu0', 0n, 1n)).toBe('ok');
    expect(host.facts.stageTwo).toMatchObject([{ private: true }]);
  });
});

describe('a schedule that cannot be', () => {
  it('is given up where a slot would go while a fault reads it', () => {
    const host = started();
    host.machine.onHandOver = (point) => {
      if (point === 'page_fault') host.slot('vm0', 0n, 'none', 0n);
    };
    expect(() => host.load('cpu0', 0n)).toThrow(WouldBlock);
  });

  it('is given up where a lock is held already', () => {
    const host = started();
    host.machine.onHandOver = (point) => {
      if (point === 'invalidate_lock') host.slot('vm0', 0n, 'none', 0n);
    };
    expect(() => host.close('file0')).toThrow('slots_lock is held');
  });
});

describe('the target', () => {
  it('reports a crash and stops', () => {
    class Broken extends SimulatorMachine {
      override kvmGmemRelease(): void {
        throw new Error('kernel oops');
      }
    }
    const target = machineTarget('broken', (config) => new Broken(config));
    const program = [
      { name: 'vm.create', args: { vm: 'vm0', dev: 'kvm', type: 0n } },
      { name: 'gmem.create', args: { file: 'file0', vm: 'vm0', size: PAGE, flags: 0n, reserved: 0n } },
      { name: 'fd.close', args: { fd: 'file0' } },
      { name: 'fd.close', args: { fd: 'vm0' } },
    ];
    const observed = [...(target.execute(program, profileById('linux-7.3')) as Iterable<unknown>)];
    expect(observed).toHaveLength(3);
    expect(observed[2]).toEqual({ outcome: { kind: 'crash', message: 'kernel oops' } });
  });
});
