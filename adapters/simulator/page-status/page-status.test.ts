import { describe, expect, it } from '@jest/globals';
import type { Facts } from '../../../model/core/facts.ts';
import { printOutcome } from '../../../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../../../model/core/profile.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import { newSimulated, type Simulated } from '../index.ts';

const BITMAP = 'page-status-bitmap';
const LIST = 'page-status-range-list';
const TREE = 'page-status-interval-tree';
const DONATION = 'page-status-guest-donation';
const KEPT_BY_HOST = [BITMAP, LIST, TREE];

const PAGE = 4096n;
const PRIVATE = 0x10n;
const FOUR_GIB = 1n << 32n;

interface Wanted {
  readonly bound?: bigint;
  readonly policy?: string;
  readonly on?: 'yes' | 'no';
  readonly gib?: string;
}

/** A host with a guest `guest0`, whose announcements are on. */
class Host {
  private readonly host: Simulated;

  constructor(profile: string, wanted: Wanted = {}) {
    this.host = newSimulated({ profile: profileById(profile), machine: FULL_MACHINE });
    this.create('guest0', wanted);
  }

  create(guest: string, { bound = 4n, policy = 'none', on = 'yes', gib = '2' }: Wanted = {}): void {
    this.run('status.create', { guest, gib, bound, policy });
    this.run('status.enable', { guest, on });
  }
  run(name: string, args: AnyCommand['args'] = {}): string {
    return printOutcome(this.host.run({ name, args: { guest: 'guest0', ...args } }));
  }
  share(frame: bigint, pages = 1n, guest = 'guest0'): string {
    return this.run('status.announce', { guest, gpa: frame * PAGE, pages, attributes: 0n });
  }
  hide(frame: bigint, pages = 1n): string {
    return this.run('status.announce', { gpa: frame * PAGE, pages, attributes: PRIVATE });
  }
  list(size = 0x1000n, guest = 'guest0'): string {
    return this.run('status.list', { guest, size });
  }
  page(frame: bigint): string {
    return this.run('status.page', { gpa: frame * PAGE });
  }
  psc(entries: readonly bigint[], { end = BigInt(entries.length) - 1n, race = 'no' } = {}): string {
    const [e0 = 0n, e1 = 0n, e2 = 0n] = entries;
    return this.run('status.psc', { cur: 0n, end, e0, e1, e2, race });
  }
  /** More than `bound` ranges, where that is what counts; else a page that has no bit. */
  overflow(profile: string): void {
    if (profile === BITMAP) this.share(FOUR_GIB / PAGE);
    else this.run('status.flood', { pattern: 'alternate', count: '16' });
  }
  get facts(): Facts {
    return this.host.facts();
  }
}

describe.each([...KEPT_BY_HOST, DONATION])('%s', (profile) => {
  const host = (wanted: Wanted = {}): Host => {
    const created = new Host(profile, wanted);
    if (profile === DONATION) created.run('status.donate', { gpa: 0n, entries: 4n });
    return created;
  };

  it('hands over what was announced, in frames, merged and cut', () => {
    const guest = host();
    expect([guest.share(1n, 2n), guest.share(3n), guest.share(10n, 5n), guest.hide(12n)]).toEqual(Array(4).fill('ok'));
    expect(guest.list()).toBe('ranges 0x1-0x4 0xa-0xc 0xd-0xf');
    expect([guest.page(3n), guest.page(12n)]).toEqual(['ok 0x1', 'ok 0x0']);
    expect(guest.facts.records).toEqual([{ ...guest.facts.announced?.[0], incomplete: false }]);
  });

  it('writes nothing into a buffer that is too short', () => {
    const guest = host();
    guest.share(1n);
    guest.share(3n);
    expect([0n, 31n, 32n].map((size) => guest.list(size))).toEqual(['ok 0x2', 'E2BIG', 'ranges 0x1-0x2 0x3-0x4']);
  });

  it.each([
    ['an address within a page', { gpa: 1n }],
    ['no pages', { pages: 0n }],
    ['frames that wrap', { gpa: PAGE, pages: (1n << 64n) - 1n }],
    ['frames past 2^40', { gpa: ((1n << 40n) - 1n) * PAGE, pages: 2n }],
    ['reserved attributes', { attributes: 0x20n }],
  ])('refuses %s, and announces nothing', (_what, args) => {
    const guest = host();
    expect(guest.run('status.announce', { gpa: 0n, pages: 1n, attributes: 0n, ...args })).toBe('EINVAL');
    expect(guest.list()).toBe('ranges');
  });

  it('keeps the mark, and drops what was recorded, until the VMM resets the guest', () => {
    const guest = host({ bound: 4n });
    guest.overflow(profile);
    expect([guest.page(0n), guest.list(), guest.list(0n)]).toEqual(['ENODATA', 'incomplete ranges', 'ENODATA']);
    expect(guest.hide(0n, 1n << 40n)).toBe('ok');
    guest.run('status.plug', { gib: '64' });
    guest.run('status.reset', { by: 'kexec' });
    expect(guest.list()).toBe('incomplete ranges');
    guest.run('status.reset', { by: 'reboot' });
    expect([guest.page(0n), guest.list()]).toEqual(['ok 0x0', 'ranges']);
  });

  it('travels with its mark, or with its ranges', () => {
    const guest = host();
    guest.share(7n);
    expect(guest.run('status.save', { image: 'image0' })).toBe('ok 0x1');
    guest.overflow(profile);
    expect(guest.run('status.save', { image: 'image1' })).toBe('ok 0x0');
    for (const [to, image] of [
      ['guest1', 'image0'],
      ['guest2', 'image1'],
    ] as const) {
      guest.create(to);
      expect(guest.run('status.load', { guest: to, image })).toBe('ok');
    }
    expect([guest.list(0x100n, 'guest1'), guest.list(0x100n, 'guest2')]).toEqual([
      'ranges 0x7-0x8',
      'incomplete ranges',
    ]);
    expect(guest.facts.announced?.slice(1)).toMatchObject([{ ranges: [{ start: 7 }] }, { guest: 'guest2' }]);
  });

  it.each(['unsorted', 'overlap', 'adjacent', 'empty', 'past-end', 'short'])('loads no image that is %s', (how) => {
    const guest = host();
    guest.run('status.save', { image: 'image0' });
    guest.run('status.damage', { image: 'image0', how });
    guest.create('guest1');
    expect(guest.run('status.load', { guest: 'guest1', image: 'image0' })).toBe('EINVAL');
  });

  it('loads nothing into a guest that has announced anything', () => {
    const guest = host();
    guest.run('status.save', { image: 'image0' });
    guest.share(1n);
    expect(guest.run('status.load', { image: 'image0' })).toBe('EBUSY');
    guest.run('status.reset', { by: 'reboot' });
    expect(guest.run('status.load', { image: 'image0' })).toBe('ok');
  });

  it('makes all memory private by one announcement of the next kernel, and what is behind it not', () => {
    const guest = host();
    guest.share(0n, 4n);
    guest.share(0x9_0000n);
    expect(guest.run('status.reset', { by: 'kexec' })).toBe('ok');
    expect(guest.list()).toBe('ranges 0x90000-0x90001');
  });

  it('does not take memory away', () => {
    const guest = host({ gib: '64' });
    expect([guest.run('status.plug', { gib: '64' }), guest.run('status.plug', { gib: '2' })]).toEqual(['ok', 'EINVAL']);
  });
});

describe.each(KEPT_BY_HOST)('%s', (profile) => {
  it('is incomplete once it was not told of a change', () => {
    const guest = new Host(profile, { on: 'no' });
    expect([guest.hide(0n), guest.list()]).toEqual(['ENOSYS', 'ranges']);
    expect([guest.share(0n), guest.list()]).toEqual(['ENOSYS', 'incomplete ranges']);
  });

  it('is asked to wait by a policy that throttles, and announces nothing meanwhile', () => {
    const guest = new Host(profile, { policy: 'throttle' });
    expect(guest.run('status.flood', { pattern: 'same', count: '16' })).toBe('ok 0x8');
    expect([guest.share(3n), guest.list()]).toEqual(['EAGAIN', 'ranges']);
    guest.run('status.tick');
    expect([guest.share(3n), guest.list()]).toEqual(['ok', 'ranges 0x3-0x4']);
  });

  it('is not run any more under a policy that disables, until it is reset', () => {
    const guest = new Host(profile, { policy: 'disable' });
    guest.run('status.flood', { pattern: 'same', count: '16' });
    guest.run('status.tick');
    expect([guest.share(0n), guest.run('status.reset', { by: 'kexec' })]).toEqual(
      Array(2).fill('KVM_EXIT_INTERNAL_ERROR'),
    );
    guest.run('status.reset', { by: 'reboot' });
    expect(guest.share(0n)).toBe('ok');
  });

  it('counts what calls cost', () => {
    const guest = new Host(profile);
    guest.run('status.flood', { pattern: 'alternate', count: '4' });
    expect(guest.facts.statusWork?.[0]).toMatchObject({ calls: 4 });
    expect(guest.facts.statusWork?.[0]?.steps).toBeGreaterThan(3);
    guest.list();
    expect(guest.facts.statusWork?.[0]).toMatchObject({ calls: 0, steps: 0 });
  });
});

describe('page-state changes', () => {
  /** struct psc_entry */
  const entry = (gfn: bigint, to: 'private' | 'shared' | 'smash', { huge = false, currentPage = 0n } = {}): bigint =>
    currentPage | (gfn << 12n) | ({ private: 1n, shared: 2n, smash: 3n }[to] << 52n) | ((huge ? 1n : 0n) << 56n);

  it('say what announcements say, page by page or by 2 MiB, and what is left of them', () => {
    const guest = new Host(LIST);
    const rest = entry(512n, 'shared', { huge: true, currentPage: 500n });
    expect(guest.psc([entry(3n, 'shared'), rest, entry(8n, 'smash')])).toBe('ok');
    expect(guest.facts.statusWork?.[0]?.calls).toBe(3);
    expect(guest.list()).toBe('ranges 0x3-0x4 0x3f4-0x400');
    expect(guest.psc([entry(512n, 'private', { huge: true })])).toBe('ok');
    expect(guest.list()).toBe('ranges 0x3-0x4');
  });

  it('take the page behind a partly done entry as the page that it is', () => {
    const guest = new Host(LIST);
    guest.psc([entry(0n, 'shared', { huge: true, currentPage: 256n }), entry(256n, 'shared')]);
    expect(guest.list()).toBe('ranges 0x100-0x200');
  });

  it('end at an entry that is none, and keep what came before', () => {
    const guest = new Host(LIST);
    const none = entry(3n, 'shared', { huge: true });
    expect(guest.psc([entry(3n, 'shared'), none, entry(9n, 'shared')])).toBe('VMGEXIT_PSC_ERROR_INVALID_ENTRY');
    expect(guest.list()).toBe('ranges 0x3-0x4');
  });

  it('take a header once, and none that is too long', () => {
    const guest = new Host(LIST);
    expect(guest.psc([], { end: 253n })).toBe('VMGEXIT_PSC_ERROR_INVALID_HDR');
    expect(guest.psc([entry(3n, 'shared')], { race: 'yes' })).toBe('ok');
    expect(guest.facts.outOfBounds).toEqual([]);
  });

  it('are refused where nobody listens, and where there are too many', () => {
    expect(new Host(LIST, { on: 'no' }).psc([entry(3n, 'shared')])).toBe('VMGEXIT_PSC_ERROR_GENERIC');
    const guest = new Host(LIST, { policy: 'throttle' });
    guest.run('status.flood', { pattern: 'same', count: '16' });
    expect(guest.psc([entry(3n, 'shared')])).toBe('VMGEXIT_PSC_ERROR_GENERIC');
    expect(guest.list()).toBe('ranges');
  });
});

describe('the bitmap', () => {
  it('does not grow by what a guest says', () => {
    const guest = new Host(BITMAP);
    const [before] = guest.facts.statusWork ?? [];
    expect([guest.share((1n << 40n) - 1n), guest.list()]).toEqual(['ok', 'incomplete ranges']);
    expect(guest.facts.statusWork?.[0]?.bytes).toBe(before?.bytes);
  });

  it('has bits for memory that was plugged, and takes an image that fits', () => {
    const guest = new Host(BITMAP, { gib: '64' });
    guest.share(FOUR_GIB / PAGE);
    expect(guest.run('status.save', { image: 'image0' })).toBe('ok 0x1');
    guest.create('guest1');
    const load = (): string => guest.run('status.load', { guest: 'guest1', image: 'image0' });
    expect(load()).toBe('E2BIG');
    guest.run('status.plug', { guest: 'guest1', gib: '64' });
    expect(load()).toBe('ok');
  });
});

describe('the donation', () => {
  const donate = (host: Host, gpa = 0n, entries = 4n): string => host.run('status.donate', { gpa, entries });

  it('is incomplete for the time being before the guest says where its structure is', () => {
    const guest = new Host(DONATION);
    expect(guest.list()).toBe('ranges');
    guest.share(1n);
    expect([guest.list(), guest.list(0n), guest.page(1n)]).toEqual(['incomplete ranges', 'ENODATA', 'ENODATA']);
    expect([donate(guest), guest.list()]).toEqual(['ok', 'ranges 0x1-0x2']);
  });

  it('is given once', () => {
    const guest = new Host(DONATION);
    donate(guest);
    expect(donate(guest)).toBe('EEXIST');
    const attacked = new Host(DONATION, { policy: 'disable' });
    donate(attacked);
    expect([donate(attacked), attacked.share(1n)]).toEqual(Array(2).fill('KVM_EXIT_INTERNAL_ERROR'));
  });

  it.each(['unsorted', 'overlap', 'adjacent', 'empty', 'past-end', 'count'])(
    'is not believed where it is %s',
    (how) => {
      const guest = new Host(DONATION);
      donate(guest);
      expect(guest.run('status.scribble', { how })).toBe('ok');
      expect([guest.list(), guest.share(1n), guest.list()]).toEqual(['incomplete ranges', 'ok', 'incomplete ranges']);
      expect(guest.facts.outOfBounds).toEqual([]);
    },
  );

  it('costs the host the same, whatever the guest does', () => {
    const guest = new Host(DONATION);
    donate(guest);
    guest.run('status.flood', { pattern: 'alternate', count: '64' });
    expect(guest.facts.statusWork).toEqual([{ guest: 'guest0', units: 4, bytes: 16, calls: 0, steps: 0 }]);
  });

  it('travels in the memory of the guest', () => {
    const guest = new Host(DONATION);
    donate(guest);
    guest.share(1n);
    guest.run('status.save', { image: 'image0' });
    guest.create('guest1');
    guest.run('status.load', { guest: 'guest1', image: 'image0' });
    guest.share(3n, 1n, 'guest1');
    expect([guest.list(), guest.list(0x100n, 'guest1')]).toEqual(['ranges 0x1-0x2', 'ranges 0x1-0x2 0x3-0x4']);
  });
});

describe('bounds', () => {
  it.each([LIST, TREE])('%s takes as many ranges as the VMM allows', (profile) => {
    const guest = new Host(profile, { bound: 4n });
    guest.run('status.flood', { pattern: 'alternate', count: '4' });
    expect(guest.list()).toBe('ranges 0x0-0x1 0x2-0x3 0x4-0x5 0x6-0x7');
    guest.share(100n);
    expect(guest.list()).toBe('incomplete ranges');
  });

  it.each([LIST, TREE])('%s takes no image with more', (profile) => {
    const guest = new Host(profile);
    guest.run('status.flood', { pattern: 'alternate', count: '4' });
    guest.run('status.save', { image: 'image0' });
    guest.create('guest1', { bound: 3n });
    expect(guest.run('status.load', { guest: 'guest1', image: 'image0' })).toBe('E2BIG');
  });
});
