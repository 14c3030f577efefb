import { describe, expect, it } from '@jest/globals';
import type { Facts } from '../../../model/core/facts.ts';
import { printOutcome } from '../../../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../../../model/core/profile.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import { newSimulated, type Simulated } from '../index.ts';
import { KeyedCache } from './keyed-cache.ts';
import { MemoryController, SHARED_KEY } from './memory-controller.ts';

const POISON = 'tdx-poison-rfc-v1';
const GMEM = 'tdx-guest-memfd';
const EXPLICIT = 'share-explicitly';
const TDX = [POISON, GMEM, EXPLICIT];
const SEV = 'sev-c-bit';
const PV = 's390-pv';

/** A host with a guest `td0` and one vCPU; `runs` where its memory is finished, with frame 0 added. */
class Guest {
  private readonly host: Simulated;

  constructor(profile: string, until: 'created' | 'added' | 'runs' = 'runs') {
    this.host = newSimulated({ profile: profileById(profile), machine: FULL_MACHINE });
    this.run('td.create', { exits: 'yes' });
    if (until === 'created') return;
    this.run('td.init', { flags: 0n, cpuids: 1n });
    this.run('td.vcpu', { vcpu: '0' });
    if (TDX.includes(profile)) this.run('td.vcpu-init', { vcpu: '0', flags: 0n });
    this.run('td.add', { vcpu: '0', gfn: 0n, pages: 1n, value: 7n });
    if (until === 'runs') this.run('td.finalize');
  }

  run(name: string, args: AnyCommand['args'] = {}): string {
    return printOutcome(this.host.run({ name, args: { td: 'td0', ...args } }));
  }
  load(gfn = 0n, world = 'private', line = 0n): string {
    return this.run('td.load', { vcpu: '0', gfn, line, world });
  }
  store(value: bigint, width: 'word' | 'line' = 'word', gfn = 0n, world = 'private'): string {
    return this.run('td.store', { vcpu: '0', gfn, line: 0n, world, width, value });
  }
  convert(to: 'private' | 'shared', gfn = 0n): string {
    return this.run('td.convert', { gfn, to });
  }
  read(via: string, gfn = 0n): string {
    return this.run('host.read', { gfn, line: 0n, via });
  }
  write(via: string, value: bigint, width: 'word' | 'line' = 'word', gfn = 0n): string {
    return this.run('host.write', { gfn, line: 0n, via, width, value });
  }
  move(how: string, gfn = 0n): string {
    return this.run('host.move', { gfn, how });
  }
  get facts(): Facts {
    return this.host.facts();
  }
}

describe('memory with integrity', () => {
  const FRAME = 3;
  const controller = (): MemoryController => {
    const memory = new MemoryController();
    memory.store(FRAME, 0, 1, 7n, 'line');
    return memory;
  };

  it('shows nothing of a private line without the key, and checks nothing', () => {
    const memory = controller();
    expect(memory.load(FRAME, 0, SHARED_KEY)).toBe(0n);
    expect(memory.load(FRAME, 0, 1)).toBe(7n);
  });

  it('poisons a line of another key when it is read, and not when it is written', () => {
    const memory = controller();
    memory.store(FRAME, 0, SHARED_KEY, 8n, 'line');
    expect(memory.lineAt(FRAME, 0).isPoisoned).toBe(false);
    expect(memory.load(FRAME, 0, SHARED_KEY)).toBe(8n);
    expect(memory.load(FRAME, 0, 1)).toBe('poison');
    expect(memory.load(FRAME, 0, SHARED_KEY)).toBe('poison');
  });

  it('poisons a private line at once when the host writes a part of it, and heals with a whole one', () => {
    const memory = controller();
    memory.store(FRAME, 0, SHARED_KEY, 8n, 'word');
    expect(memory.load(FRAME, 0, 1)).toBe('poison');
    memory.store(FRAME, 0, 1, 9n, 'word');
    expect(memory.load(FRAME, 0, 1)).toBe('poison');
    memory.store(FRAME, 0, 1, 9n, 'line');
    expect(memory.load(FRAME, 0, 1)).toBe(9n);
  });

  it('knows which keys caches hold lines of', () => {
    const memory = controller();
    expect(memory.isFlushed(1)).toBe(false);
    memory.writeBack(1, FRAME + 1);
    expect(memory.isFlushed(1)).toBe(false);
    memory.writeBack(1, FRAME);
    expect(memory.isFlushed(1)).toBe(true);
  });
});

describe('caches that tell lines by key', () => {
  it('hold two copies that know nothing of each other, and the last one written counts', () => {
    const cache = new KeyedCache();
    cache.store(0, 0, 1, 7n);
    cache.store(0, 0, 0, 8n);
    expect([cache.load(0, 0, 1), cache.load(0, 0, 0)]).toEqual([7n, 8n]);
    cache.evict(0, 0, 1);
    expect([cache.load(0, 0, 1), cache.load(0, 0, 0)]).toEqual([7n, 'ciphertext']);
  });
});

describe.each(TDX)('%s', (profile) => {
  it('runs a guest in its private memory', () => {
    const guest = new Guest(profile);
    expect(guest.load()).toBe('ok 0x7');
    expect(guest.store(8n)).toBe('ok');
    expect(guest.load()).toBe('ok 0x8');
    expect(guest.read('direct')).toBe('ok 0x0');
  });

  it('ends a TD that reads what the host has written, and keeps the page for ever', () => {
    const guest = new Guest(profile);
    guest.write('direct', 9n, 'line');
    expect(guest.facts.hostWrites).toHaveLength(1);
    expect(guest.facts.lines).toMatchObject([{ state: 'foreign' }]);
    expect(guest.load()).toBe('machine check, ends the guest');
    expect(guest.load()).toBe('KVM_EXIT_INTERNAL_ERROR');
    const [poisoned] = guest.facts.poisoned ?? [];
    guest.run('td.destroy');
    expect(guest.facts.free?.map(({ frame }) => frame)).not.toContain(poisoned);
  });

  it('shuts down where the core cannot go on, and starts again with nothing', () => {
    const guest = new Guest(profile);
    guest.write('direct', 9n, 'line');
    guest.run('core.stop');
    expect(guest.load()).toBe('shutdown');
    expect(guest.facts).toMatchObject({ vms: [], tdPages: [], poisoned: [], free: [] });
    expect(guest.facts.consumptions).toEqual([{ by: 'guest', ended: 'machine', recoverable: false }]);
  });

  it('panics where the kernel reads poison', () => {
    const guest = new Guest(profile);
    guest.write('direct', 9n, 'word');
    expect(guest.read('direct')).toBe('machine check, ends the machine');
    expect(guest.facts.vms).toEqual([]);
  });

  it('removes a page in the order that the module wants, and leaves nothing of the TD in it', () => {
    const guest = new Guest(profile);
    expect(guest.run('sept.remove', { gfn: 0n })).toBe('TDX_GPA_RANGE_NOT_BLOCKED');
    guest.run('sept.block', { gfn: 0n });
    expect(guest.run('sept.remove', { gfn: 0n })).toBe('TDX_TLB_TRACKING_NOT_DONE');
    guest.run('sept.track');
    expect(guest.run('sept.remove', { gfn: 0n })).toBe('ok');
    expect(guest.facts).toMatchObject({ tdPages: [], lines: [] });
  });

  it('leaks the page and the key of a TD that the module does not let go', () => {
    const guest = new Guest(profile);
    guest.run('seam.busy', { times: '2' });
    guest.run('td.destroy');
    expect(guest.facts.keys).toMatchObject([{ state: 'leaked', vm: 'td0' }, { state: 'free' }]);
    const frames = guest.facts.tdPages?.map(({ frame }) => frame) ?? [];
    expect(frames).toHaveLength(1);
    expect(guest.facts.free?.map(({ frame }) => frame)).not.toContain(frames[0]);
  });

  it('frees a key in the order that the module wants', () => {
    const guest = new Guest(profile, 'created');
    guest.run('td.init', { flags: 0n, cpuids: 1n });
    expect(guest.run('key.free')).toBe('TDX_LIFECYCLE_STATE_INCORRECT');
    expect(guest.run('key.write-back')).toBe('TDX_NO_HKID_READY_TO_WBCACHE');
    guest.run('key.flush-done');
    expect(guest.run('key.free')).toBe('TDX_WBCACHE_NOT_COMPLETE');
    guest.run('key.write-back');
    expect(guest.run('page.reclaim', { page: 'control' })).toBe('TDX_LIFECYCLE_STATE_INCORRECT');
    expect(guest.run('key.free')).toBe('ok');
    expect(guest.run('page.reclaim', { page: 'root' })).toBe('TDX_TD_ASSOCIATED_PAGES_EXIST');
    expect(guest.run('page.reclaim', { page: 'control' })).toBe('ok');
    expect(guest.run('page.reclaim', { page: 'root' })).toBe('ok');
    expect(guest.facts).toMatchObject({ lines: [], keys: [{ state: 'free', flushed: true }, { state: 'free' }] });
  });
});

describe('a private page, to the host', () => {
  it.each([
    [POISON, { user: 'SIGBUS', gup: 'EFAULT', direct: 'ok 0x0', kcore: 'ok 0x0', dma: 'EIO' }],
    [GMEM, { user: 'ok 0x0', gup: 'ok 0x0', direct: 'ok 0x0', kcore: 'ok 0x0', dma: 'EIO' }],
    [EXPLICIT, { user: 'SIGSEGV', gup: 'EFAULT', direct: 'ok 0x0', kcore: 'ok 0x0', dma: 'EIO' }],
    [SEV, { user: 'ciphertext', gup: 'ciphertext', direct: 'ciphertext', kcore: 'ciphertext', dma: 'EIO' }],
    [PV, { user: 'ciphertext', gup: 'ciphertext', direct: 'ciphertext', kcore: 'ciphertext', dma: 'EIO' }],
  ])('in %s', (profile, seen) => {
    const ways = Object.keys(seen);
    expect(Object.fromEntries(ways.map((via) => [via, new Guest(profile).read(via)]))).toEqual(seen);
  });

  it.each([
    [POISON, 'EBUSY'],
    [GMEM, 'ok'],
    [EXPLICIT, 'EBUSY'],
    [SEV, 'EBUSY'],
    [PV, 'ok'],
  ])('in %s, when it is swapped out: %s', (profile, answer) => {
    expect(new Guest(profile).move('swap-out')).toBe(answer);
  });
});

describe('only in tdx-poison-rfc-v1', () => {
  it('lets a device write to a page that became private under it', () => {
    const guest = new Guest(POISON, 'created');
    guest.run('dma.map', { gfn: 1n });
    expect(guest.convert('private', 1n)).toBe('ok');
    expect(guest.read('gup', 1n)).toBe('EFAULT');
    expect(guest.write('dma', 5n, 'word', 1n)).toBe('ok');
    expect(guest.read('direct', 1n)).toBe('ok 0x5');
  });

  it('hides private pages from /proc/kcore by PG_hwpoison until they are shared', () => {
    const guest = new Guest(POISON, 'created');
    guest.write('user', 5n);
    guest.convert('private');
    expect(guest.read('kcore')).toBe('ok 0x0');
    guest.convert('shared');
    expect(guest.read('kcore')).toBe('ok 0x5');
  });
});

describe('only in share-explicitly', () => {
  it('waits for devices before a page becomes private, and takes it from the VMM', () => {
    const guest = new Guest(EXPLICIT, 'created');
    guest.run('host.map', { gfn: 0n });
    guest.run('dma.map', { gfn: 0n });
    expect(guest.convert('private')).toBe('EAGAIN');
    guest.run('dma.unmap', { gfn: 0n });
    expect(guest.convert('private')).toBe('ok');
    expect(guest.read('user')).toBe('SIGBUS');
    expect(guest.facts.hostMaps).toEqual([]);
  });
});

describe('only in sev-c-bit', () => {
  it('keeps what both have written until one of them leaves the caches last', () => {
    const guest = new Guest(SEV);
    guest.store(8n);
    guest.write('user', 9n);
    expect([guest.load(), guest.read('user')]).toEqual(['ok 0x8', 'ok 0x9']);
    guest.run('cache.evict', { gfn: 0n, line: 0n, last: 'shared' });
    expect([guest.load(), guest.read('user')]).toEqual(['ciphertext', 'ok 0x9']);
  });
});

describe('only in s390-pv', () => {
  it('moves encrypted pages, and gives them back to the guest', () => {
    const guest = new Guest(PV);
    for (const how of ['migrate', 'swap-out', 'swap-in']) expect(guest.move(how)).toBe('ok');
    expect(guest.facts.tdPages).toMatchObject([{ state: 'exported' }]);
    expect(guest.load()).toBe('ok 0x7');
    expect(guest.facts.tdPages).toMatchObject([{ state: 'mapped' }]);
  });

  it('never gives a page back that the host has changed', () => {
    const guest = new Guest(PV);
    guest.write('user', 9n);
    expect([guest.load(), guest.convert('shared')]).toEqual(['SIGSEGV', 'SIGSEGV']);
  });
});
