/** What the proposals about the direct map come to, told in programs from their messages and from what was said of them. */
import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import type { Facts } from '../core/facts.ts';
import { printOutcome } from '../core/outcome.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';
import { factsOfState } from '../facts-of-state.ts';

/** Two private frames at 0, backed by the first pages of a file without direct map; the third frame is shared. */
const PRIVATE = `
  vm.create vm=vm0 dev=kvm type=1
  vcpu.create vcpu=vcpu0 vm=vm0 id=0
  gmem.create file=file0 vm=vm0 size=0x3000 flags=4 reserved=0
  slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x3000 hva=arena gmem=file0 offset=0
  attributes.set vm=vm0 address=0 size=0x2000 attributes=8 flags=0
`;

/** A frame at 0 that guest and host share through a mapping of a file without direct map. */
const MAPPED = `
  vm.create vm=vm0 dev=kvm type=0
  vcpu.create vcpu=vcpu0 vm=vm0 id=0
  gmem.create file=file0 vm=vm0 size=0x3000 flags=7 reserved=0
  mem.map mapping=map0 fd=file0 length=0x3000 offset=0 sharing=shared
  slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x3000 hva=map0 gmem=file0 offset=0
`;

const CACHES = 'gpc.init gpc=a vcpu=vcpu0\ngpc.init gpc=b vcpu=vcpu0\n';
const BOTH = `${CACHES}gpc.activate gpc=a gpa=0 length=8\ngpc.activate gpc=b gpa=8 length=8\n`;
const STORE = 'guest.store vcpu=vcpu0 gpa=0 value=7\n';
const LOAD = 'kernel.load fd=file0 page=0 cpu=0 mode=';

function run(profile: string, text: string): { readonly last: string; readonly facts: Facts } {
  const specification = new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
  let { initial: state } = specification;
  let last = '';
  for (const command of parseProgram(specification, text).program) {
    expect(last).not.toMatch('unmodelled');
    const step = specification.step(state, command);
    last = `${step.rule} ${step.unmodelled === undefined ? printOutcome(step.outcome) : 'unmodelled'}`;
    ({ state } = step);
  }
  return { last, facts: factsOfState(state) };
}

/** How many pages of the file are absent, which caches share which frame, and which caches are valid. */
const summary = ({ absent = [], shares, caches = [] }: Facts) => ({
  absent: absent.reduce((sum, { count }) => sum + count, 0),
  shares: shares?.map(({ holders }) => holders),
  valid: caches.filter(({ valid }) => valid).map(({ gpc }) => gpc),
});

describe('direct-map-rfc-v2', () => {
  const after = (text: string): string => run('direct-map-rfc-v2', PRIVATE + text).last;
  const facts = (text: string) => summary(run('direct-map-rfc-v2', PRIVATE + text).facts);

  it.each([
    ['a page that a guest uses is out of the direct map', `${STORE}${LOAD}architectural`, 'kernel.load/absent oops'],
    ['nothing leaks by speculation', `${STORE}${LOAD}speculative`, 'kernel.load/nothing-leaks ok 0x0'],
    ['KVM reads it', `${STORE}kvm.read-guest vcpu=vcpu0 gpa=0 length=8`, 'kvm.read-guest/reinserted ok 0x7'],
    [
      'KVM reads two pages',
      `${STORE}kvm.write-guest vcpu=vcpu0 gpa=0xff8 length=16 value=5\nkvm.read-guest vcpu=vcpu0 gpa=0xff8 length=16`,
      'kvm.read-guest/two-pages ok 0xa',
    ],
    [
      'and leaves it absent',
      `${STORE}kvm.read-guest vcpu=vcpu0 gpa=0 length=8\n${LOAD}architectural`,
      'kernel.load/absent oops',
    ],
    ['a cache keeps it present', `${BOTH}${STORE}${LOAD}architectural`, 'kernel.load/loaded ok 0x7'],
    [
      'of two users the first to go takes nothing away',
      `${BOTH}${STORE}gpc.deactivate gpc=b\ngpc.read gpc=a`,
      'gpc.read/current ok 0x7',
    ],
    [
      'the last one takes it out',
      `${BOTH}gpc.deactivate gpc=b\ngpc.deactivate gpc=a\n${LOAD}architectural`,
      'kernel.load/absent oops',
    ],
    [
      'a cache lets go of it when its slot is deleted',
      `${BOTH}${STORE}slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0 hva=0 gmem=none offset=0\n${LOAD}architectural`,
      'kernel.load/absent oops',
    ],
    [
      'a punched page comes back as a new one',
      `${BOTH}${STORE}gmem.fallocate fd=file0 mode=3 offset=0 length=0x1000\ngpc.read gpc=a`,
      'gpc.read/reinserted ok 0x0',
    ],
    [
      'a cache cannot be used after it was deactivated',
      `${BOTH}gpc.deactivate gpc=a\ngpc.read gpc=a`,
      'gpc.read/inactive EINVAL',
    ],
    ['a cache whose file is gone has no page', `${BOTH}fd.close fd=file0\ngpc.read gpc=a`, 'gpc.read/page-lost EFAULT'],
    [
      'a write that fails half-way leaves what it wrote',
      'kvm.write-guest vcpu=vcpu0 gpa=0x1ff8 length=16 value=5\nkvm.read-guest vcpu=vcpu0 gpa=0x1ff8 length=8',
      'kvm.read-guest/reinserted ok 0x5',
    ],
    [
      'a table that points at itself translates',
      `guest.store vcpu=vcpu0 gpa=0 value=3\nguest.walk vcpu=vcpu0 cr3=0 gva=0x10 access=read`,
      'guest.walk/translated ok 0x10',
    ],
    [
      'and is marked',
      `guest.store vcpu=vcpu0 gpa=0 value=3\nguest.walk vcpu=vcpu0 cr3=0 gva=0 access=write\nguest.load vcpu=vcpu0 gpa=0`,
      'guest.load/guest-memory ok 0x63',
    ],
    [
      'an instruction is fetched',
      'guest.mmio vcpu=vcpu0 rip=0x1000 gpa=0x100000',
      'guest.mmio/fetched MMIO read gpa=0x100000',
    ],
    [
      'a file that the host maps as well is not part of it',
      'gmem.create file=file1 vm=vm0 size=0x1000 flags=5 reserved=0',
      'gmem.create/mapped-without-direct-map unmodelled',
    ],
  ])('%s', (_name, text, expected) => {
    expect(after(text)).toBe(expected);
  });

  const KEPT = 'ghc.create ghc=g vcpu=vcpu0\nghc.init ghc=g gpa=0x2000 length=16\n';
  const LOST = `${KEPT}ghc.init ghc=g gpa=0x3000 length=8\n`;
  const NEXT = 'slot.set vm=vm0 api=v2 slot=1 flags=0 gpa=0x3000 size=0x1000 hva=arena+0x8000 gmem=none offset=0\n';

  it.each([
    ['writes and reads', `ghc.write ghc=g offset=8 length=8 value=5\nghc.read ghc=g offset=0 length=16`, 'read ok 0x5'],
    [
      'goes where the host looks',
      `host.store mapping=arena offset=0x2000 value=7\nghc.read ghc=g offset=0 length=8`,
      'read ok 0x7',
    ],
    ['has an end', 'ghc.read ghc=g offset=8 length=16', 'beyond-range EINVAL'],
    [
      'is of no use for private memory',
      `attributes.set vm=vm0 address=0x2000 size=0x1000 attributes=8 flags=0\nguest.store vcpu=vcpu0 gpa=0x2000 value=9\nghc.read ghc=g offset=0 length=8`,
      'reinserted ok 0x9',
    ],
    [
      'goes with its slot',
      `slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0 hva=0 gmem=none offset=0\nghc.read ghc=g offset=0 length=8`,
      'range-lost EFAULT',
    ],
  ])('a host address that is kept %s', (_name, text, expected) => {
    expect(after(KEPT + text)).toBe(`ghc.read/${expected}`);
  });

  it.each([
    ['another range is refused', '', 'ghc.init/no-slot EFAULT'],
    ['it has no address for the range of before', 'ghc.read ghc=g offset=0 length=8', 'ghc.read/no-address EFAULT'],
    ['it has that again when the slots change', `${NEXT}ghc.read ghc=g offset=0 length=8`, 'ghc.read/read ok 0x0'],
    [
      'and may go on into them',
      `${NEXT}ghc.init ghc=g gpa=0x2ff8 length=16\nghc.write ghc=g offset=0 length=16 value=1\nghc.read ghc=g offset=8 length=8`,
      'ghc.read/page-by-page ok 0x1',
    ],
  ])('where a cache cannot be set up, %s', (_name, text, expected) => {
    expect(after(LOST + text)).toBe(expected);
  });

  it('removes a page that is allocated and not used yet', () => {
    expect(facts('gmem.fallocate fd=file0 mode=1 offset=0 length=0x3000')).toEqual({
      absent: 3,
      shares: [],
      valid: [],
    });
  });

  it('counts a share for each cache, and none for what is over', () => {
    const used = `${STORE}kvm.read-guest vcpu=vcpu0 gpa=0 length=8\n`;
    expect(facts(used)).toEqual({ absent: 1, shares: [], valid: [] });
    expect(facts(used + BOTH)).toEqual({ absent: 0, shares: [['a', 'b']], valid: ['a', 'b'] });
    expect(facts(`${used}${BOTH}gpc.refresh gpc=a length=8\ngpc.activate gpc=b gpa=0 length=8`)).toEqual({
      absent: 0,
      shares: [['a', 'b']],
      valid: ['a', 'b'],
    });
    expect(facts(`${used}${BOTH}gpc.activate gpc=a gpa=0x1000 length=8`)).toEqual({
      absent: 0,
      shares: [['a'], ['b']],
      valid: ['a', 'b'],
    });
  });

  it('revokes a cache by a conversion, which gives its share back when it is refreshed', () => {
    const converted = `${BOTH}attributes.set vm=vm0 address=0 size=0x1000 attributes=0 flags=0\n`;
    expect(facts(converted)).toEqual({ absent: 0, shares: [['a', 'b']], valid: [] });
    expect(facts(`${converted}gpc.refresh gpc=a length=8\ngpc.deactivate gpc=b`)).toEqual({
      absent: 1,
      shares: [],
      valid: ['a'],
    });
    const andBack = `${converted}attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0\n`;
    expect(facts(`${andBack}gpc.refresh gpc=a length=8`)).toEqual({
      absent: 0,
      shares: [['a', 'b']],
      valid: ['a', 'b'],
    });
  });

  it.each([
    ['a hole', 'gmem.fallocate fd=file0 mode=3 offset=0 length=0x1000'],
    ['a release', 'fd.close fd=file0'],
  ])('takes page and shares from the caches at %s', (_name, event) => {
    expect(facts(`${BOTH}${event}`)).toEqual({ absent: 0, shares: [], valid: [] });
  });

  it('takes the shares from the caches at a memory failure, and leaves the page in the file', () => {
    expect(facts(`${BOTH}memory.fail fd=file0 page=0`)).toEqual({ absent: 1, shares: [], valid: [] });
  });

  it('looks a page up anew where the slot shows another part of the file, at the same host address', () => {
    const moved = `${BOTH}guest.store vcpu=vcpu0 gpa=0x1000 value=9
      slot.set vm=vm0 api=v2 slot=0 flags=0 gpa=0 size=0 hva=0 gmem=none offset=0
      slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=arena gmem=file0 offset=0x1000\n`;
    expect(after(`${moved}gpc.read gpc=a`)).toBe('gpc.read/reinserted ok 0x9');
    expect(facts(`${moved}gpc.read gpc=a\ngpc.deactivate gpc=b`)).toEqual({ absent: 1, shares: [['a']], valid: ['a'] });
  });

  it('lets caches go with their VM', () => {
    expect(
      summary(run('direct-map-rfc-v2', `${PRIVATE}${BOTH}fd.close fd=file0\nfd.close fd=vcpu0\nfd.close fd=vm0`).facts)
        .valid,
    ).toEqual([]);
    expect(
      run('direct-map-rfc-v2', `${PRIVATE}${BOTH}fd.close fd=file0\nfd.close fd=vcpu0\nfd.close fd=vm0`).facts.caches,
    ).toEqual([]);
  });
});

describe('direct-map-rfc-v1', () => {
  const after = (text: string): string => run('direct-map-rfc-v1', PRIVATE + text).last;

  it.each([
    ['a second cache of a page is refused', BOTH, 'gpc.activate/kept-by-another EFAULT'],
    ['until the first lets go', `${BOTH}gpc.deactivate gpc=a\ngpc.read gpc=b`, 'gpc.read/reinserted ok 0x0'],
    [
      'KVM reads beside a cache',
      `${BOTH}${STORE}kvm.read-guest vcpu=vcpu0 gpa=0 length=8`,
      'kvm.read-guest/reinserted ok 0x7',
    ],
    [
      'a table that is used on two levels cannot be walked',
      'guest.store vcpu=vcpu0 gpa=0 value=3\nguest.walk vcpu=vcpu0 cr3=0 gva=0 access=read',
      'guest.walk/table-kept ok 0xffffffffffffffff',
    ],
  ])('%s', (_name, text, expected) => {
    expect(after(text)).toBe(expected);
  });
});

describe.each(['direct-map-v12', 'direct-map-v13'])('%s', (profile) => {
  const after = (text: string): string => run(profile, text).last;

  it.each([
    [
      'KVM goes through the user mapping',
      `${MAPPED}${STORE}kvm.read-guest vcpu=vcpu0 gpa=0 length=8`,
      'kvm.read-guest/read ok 0x7',
    ],
    [
      'and leaves the direct map alone',
      `${MAPPED}kvm.read-guest vcpu=vcpu0 gpa=0 length=8\n${LOAD}architectural`,
      'kernel.load/absent oops',
    ],
    ['GUP gives no such page to a cache', MAPPED + BOTH, 'gpc.activate/no-direct-map EFAULT'],
    [
      'what KVM sees of a private frame is not settled',
      `${PRIVATE}kvm.read-guest vcpu=vcpu0 gpa=0 length=8`,
      'kvm.read-guest/private-by-address unmodelled',
    ],
    [
      'a table that points at itself translates',
      `${MAPPED}guest.store vcpu=vcpu0 gpa=0 value=3\nguest.walk vcpu=vcpu0 cr3=0 gva=0 access=read`,
      'guest.walk/translated ok 0x0',
    ],
  ])('%s', (_name, text, expected) => {
    expect(after(text)).toBe(expected);
  });
});

describe('a page that is allocated and not used yet', () => {
  const ALLOCATED = `${MAPPED}gmem.fallocate fd=file0 mode=1 offset=0 length=0x3000\n`;

  it.each([
    ['direct-map-v12', 'kernel.load/not-zeroed unmodelled', 0],
    ['direct-map-v13', 'kernel.load/absent oops', 3],
  ])('is in the direct map or not: %s', (profile, expected, absent) => {
    expect(run(profile, `${ALLOCATED}${LOAD}architectural`).last).toBe(expected);
    expect(summary(run(profile, ALLOCATED).facts)).toEqual({ absent, shares: [], valid: [] });
    expect(summary(run(profile, `${ALLOCATED}host.load mapping=map0 offset=0`).facts).absent).toBe(absent || 1);
  });
});

describe('a page that cannot leave the direct map', () => {
  const SPLIT = 'fault.direct-map change=split\n';
  const ALLOCATE = 'gmem.fallocate fd=file0 mode=1 offset=0 length=0x2000\n';

  it.each([
    ['direct-map-rfc-v2', ALLOCATE, 'gmem.fallocate/stays-in-direct-map ENOMEM', 1],
    ['direct-map-v13', ALLOCATE, 'gmem.fallocate/stays-in-direct-map ENOMEM', 0],
    ['direct-map-v12', ALLOCATE, 'gmem.fallocate/allocate ok', 0],
    ['direct-map-v12', STORE, 'guest.store/stays-in-direct-map MEMORY_FAULT ENOMEM gpa=0x0 private', 0],
    [
      'direct-map-rfc-v2',
      'vcpu.prefault vcpu=vcpu0 gpa=0 size=0x2000 flags=0\n',
      'vcpu.prefault/stays-in-direct-map ENOMEM',
      1,
    ],
  ])('%s: %s', (profile, text, expected, unremoved) => {
    const { last, facts } = run(profile, PRIVATE + SPLIT + text);
    expect(last).toBe(expected);
    expect(facts.unremoved).toHaveLength(unremoved);
    expect(run(profile, PRIVATE + SPLIT + text + text).last).toMatch(/ok/);
  });

  it('stops a pre-fault half-way', () => {
    const { last } = run(
      'direct-map-rfc-v2',
      `${PRIVATE}${STORE}${SPLIT}vcpu.prefault vcpu=vcpu0 gpa=0 size=0x2000 flags=0`,
    );
    expect(last).toBe('vcpu.prefault/part ok 0x1000');
  });

  it('makes the host fault again', () => {
    const { last, facts } = run('direct-map-v12', `${MAPPED}${SPLIT}host.load mapping=map0 offset=0`);
    expect([last, summary(facts).absent]).toEqual(['host.load/loaded ok 0x0', 1]);
  });

  it('leaves open what KVM comes to that needs it', () => {
    expect(run('direct-map-rfc-v2', `${PRIVATE}${SPLIT}kvm.read-guest vcpu=vcpu0 gpa=0 length=8`).last).toBe(
      'kvm.read-guest/direct-map-may-fail unmodelled',
    );
  });
});

describe.each(['direct-map-v12', 'direct-map-v13'])('GUP in %s', (profile) => {
  it('gives no page that is out of the direct map to a guest whose slot has it at its host address', () => {
    const slot = 'slot.set vm=vm0 api=v1 slot=1 flags=0 gpa=0x10000 size=0x1000 hva=map0 gmem=none offset=0\n';
    const { last } = run(profile, `${MAPPED}${slot}guest.load vcpu=vcpu0 gpa=0x10000`);
    expect(last).toBe('guest.load/host-page-hidden EFAULT');
  });
});

describe('linux-7.3', () => {
  it('has no such flag and no such commands', () => {
    expect(run('linux-7.3', PRIVATE.slice(0, PRIVATE.indexOf('slot.set'))).last).toBe(
      'gmem.create/unsupported-flag EINVAL',
    );
    expect(() => run('linux-7.3', `${LOAD}architectural`)).toThrow(/kernel.load/);
  });
});
