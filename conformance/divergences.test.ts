import { describe, expect, it, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { parseProgram } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import {
  describes,
  inapplicable,
  isAftermath,
  parseDivergences,
  printDivergences,
  releaseOf,
  type KnownDivergence,
} from './divergences.ts';

const ROOT = join(__dirname, '..');
const schema = JSON.parse(readFileSync(join(ROOT, 'docs/divergences.schema.json'), 'utf8')) as object;
const validate = new Ajv2020({ strict: false }).compile(schema);

const WITNESS = [
  'vm.create vm=vm0 dev=kvm type=0',
  'gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0',
  'slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=0 gmem=file0 offset=0x7ffffffffffff000',
];
const ENTRY = {
  id: 'overflow',
  rule: 'slot.set/beyond-file',
  profiles: ['linux-6.18'],
  before: '7.2',
  where: { offset: { to: '0x7fffffffffffffff' }, 'offset+size': { from: '0x8000000000000000' } },
  observed: 'ok',
  reason: 'a signed offset',
  source: 'kvm_gmem_bind()',
  witness: WITNESS,
} satisfies KnownDivergence;

const parse = (...entries: readonly unknown[]): readonly KnownDivergence[] =>
  parseDivergences(JSON.stringify(entries), 'known.json');

describe.each(readdirSync(join(ROOT, 'divergences')))('divergences/%s', (name) => {
  const text = readFileSync(join(ROOT, 'divergences', name), 'utf8');

  it('can be read, keeps to the published schema, and is as a run would write it', () => {
    const entries = parseDivergences(text, name);
    expect(printDivergences(entries)).toBe(text);
    validate(JSON.parse(text));
    expect(validate.errors).toBeNull();
  });
});

describe('a file of known divergences', () => {
  it('is read as it is written', () => {
    expect(parse(ENTRY)).toEqual([ENTRY]);
    expect(parseDivergences(printDivergences([ENTRY]), 'again')).toEqual([ENTRY]);
  });

  it.each([
    ['no list', '{}', /^known.json: write a list of entries/],
    ['no JSON', '[{', /^known.json: not JSON: /],
  ])('is refused where it is %s', (_what, text, message) => {
    expect(() => parseDivergences(text, 'known.json')).toThrow(message);
  });

  const without = (key: keyof typeof ENTRY): object =>
    Object.fromEntries(Object.entries(ENTRY).filter(([k]) => k !== key));

  test.each<readonly [string, object, RegExp]>([
    ['an id', without('id'), /entry 1: id: write a name for the entry/],
    [
      'a rule or invariant',
      { ...without('rule'), where: undefined },
      /entry 1 \(overflow\): it names no rule and no inv/,
    ],
    ['an observation', without('observed'), /observed: write what was observed/],
    ['a reason', { ...ENTRY, reason: '' }, /reason: say why/],
    ['a source', without('source'), /source: say where/],
    ['a witness', { ...ENTRY, witness: [] }, /witness: write a program/],
    ['profiles', without('profiles'), /profiles: list the profiles/],
  ])('is refused where an entry lacks %s', (_what, entry, message) => {
    expect(() => parse(JSON.parse(JSON.stringify(entry)))).toThrow(message);
  });

  test.each<readonly [string, object, RegExp]>([
    ['an unknown key', { until: '7.2' }, /there is no 'until' in an entry; there are id, rule/],
    ['an unknown switch of the machine', { machine: { smm: true } }, /machine: there is no 'smm'/],
    ['something else than a release', { before: 'v7.2' }, /before: write a release, such as/],
    ['an empty range of releases', { since: '7.2' }, /since 7.2, before 7.2 is no release at all/],
    ['an unknown rule', { rule: 'slot.set/no' }, /linux-6.18 has no rule 'slot.set\/no': `gmem-conformance rules`/],
    ['an unknown invariant', { invariant: 'no' }, /there is no invariant 'no'; there are /],
    ['an unknown profile', { profiles: ['linux-1'] }, /there is no profile 'linux-1'; there are linux-6.18/],
    ['a witness that is none', { witness: [...WITNESS, 'vm.crate'] }, /line 4 of the witness: .*no command 'vm.crate'/],
    ['a witness without commands', { witness: ['# nothing'] }, /the witness has no command/],
    [
      'a bound that is a number',
      { where: { offset: { from: 4096 } } },
      /where.offset.from: write the number in quotes/,
    ],
    ['a bound that is no number', { where: { offset: { from: 'big' } } }, /where.offset.from: write decimal digits/],
    ['a range without bounds', { where: { offset: {} } }, /where.offset: write from, to or both/],
    ['an empty range', { where: { offset: { from: '2', to: '1' } } }, /where.offset: nothing is from 2 to 1/],
    ['a range of no argument', { where: { length: { from: '1' } } }, /slot.set has no number 'length'; it has slot, /],
    ['a range of a label', { where: { gmem: { from: '1' } } }, /slot.set has no number 'gmem'/],
    ['a range of no name', { where: { 'offset-size': { from: '1' } } }, /write the name of an argument, or a sum/],
    ['a range without a rule', { rule: undefined, invariant: 'gmem/never-rebinds' }, /write the rule too/],
  ])('is refused where an entry has %s, and the message says what to write', (_what, change, message) => {
    expect(() => parse(JSON.parse(JSON.stringify({ ...ENTRY, ...change })))).toThrow(message);
  });

  it('is refused where two entries have one name', () => {
    expect(() => parse(ENTRY, ENTRY)).toThrow('known.json: entry 2 (overflow): an entry above has this id');
  });

  it('does not steer a terminal through what is quoted of it', () => {
    expect(() => parse({ ...ENTRY, id: 'a\u001b[2J' })).toThrow(/^[^\p{Cc}]*$/u);
  });
});

describe('an entry', () => {
  const specification = new Specification({ profile: profileById('linux-6.18'), machine: FULL_MACHINE }, CATALOGUE);
  const on = (release: string, rest: Partial<Target> = {}): Target => ({
    ...referenceTarget(),
    kernel: { release, backEnd: 'kvm_intel' },
    ...rest,
  });
  const whyNot = (change: Partial<KnownDivergence>, target: Target): string | undefined =>
    inapplicable({ ...ENTRY, ...change }, target, specification);

  test.each([
    ['7.1.99', {}, true],
    ['7.2.0', {}, false],
    ['7.2', {}, false],
    ['7.2.0-rc1', {}, false],
    ['6.18.44-some-vendor', { since: '6.18', before: '6.19' }, true],
    ['6.17.9', { since: '6.18', before: '6.19' }, false],
    ['6.18.3', { since: '6.18.4' }, false],
    ['6.18.4', { since: '6.18.4' }, true],
    ['10.0', {}, false],
    ['mine', {}, false],
  ])('on a kernel %s with %j applies: %s', (release, change, applies) => {
    expect(whyNot(change, on(release)) === undefined).toBe(applies);
  });

  it('says why it does not apply', () => {
    const { kernel: _kernel, ...nobody } = on('6.18');
    expect([
      whyNot({}, on('7.3')),
      whyNot({}, nobody),
      whyNot({ profiles: ['linux-7.2'] }, on('6.18')),
      whyNot({ backEnd: 'kvm_amd' }, on('6.18')),
      whyNot({ machine: { twoDimensionalPaging: false } }, on('6.18')),
      whyNot({ witness: ['fault.slab skip=0'] }, on('6.18', { capabilities: new Set() })),
    ]).toEqual([
      'it holds before 7.2, and the kernel is 7.3',
      'the target does not tell which kernel it is',
      'it is about linux-7.2',
      'it is about kvm_amd, and vCPUs are run by kvm_intel',
      "the machine's twoDimensionalPaging is true",
      'the target lacks fault-injection',
    ]);
    expect(whyNot({ machine: { twoDimensionalPaging: true }, backEnd: 'kvm_intel' }, on('6.18'))).toBeUndefined();
  });

  it('about an invariant needs a target that shows facts', () => {
    const { rule: _rule, where: _where, ...rest } = ENTRY;
    const entry = { ...rest, invariant: 'gmem/never-rebinds' };
    expect(inapplicable(entry, on('6.18'), specification)).toBeUndefined();
    expect(inapplicable(entry, on('6.18', { capabilities: new Set() }), specification)).toBe('the target lacks facts');
  });

  const divergence = { kind: 'diverges', at: 0, rule: ENTRY.rule, expected: 'EINVAL', observed: 'ok' } as const;
  const command = (offset: bigint, size: bigint) => ({ name: 'slot.set', args: { offset, size } });
  const LAST = 0x7fff_ffff_ffff_f000n;

  test.each([
    ['where the sum reaches the range', LAST, 0x1000n, true],
    ['where it is within the range', LAST - 0x1000n, 0x3000n, true],
    ['but not below it', LAST - 0x1000n, 0x1000n, false],
    ['but not where an argument is above its range', 1n << 63n, 0x1000n, false],
  ])('speaks of a command %s', (_what, offset, size, speaks) => {
    expect(describes(ENTRY, divergence, command(offset, size))).toBe(speaks);
  });

  it('speaks of no other rule, invariant or observation', () => {
    const at = command(LAST, 0x1000n);
    expect(describes(ENTRY, { ...divergence, rule: 'slot.set/gmem-read-only' }, at)).toBe(false);
    expect(describes(ENTRY, { ...divergence, invariant: 'gmem/never-rebinds' }, at)).toBe(false);
    expect(describes(ENTRY, { ...divergence, observed: 'EIO' }, at)).toBe(false);
    expect(describes(ENTRY, { ...divergence, observed: 'ok 0x1' }, at)).toBe(false);
  });

  it('leaves open what stands for a star, and nothing else', () => {
    const entry = { ...ENTRY, observed: 'crash: *[x].' };
    const observed = (text: string) => describes(entry, { ...divergence, observed: text }, command(LAST, 0x1000n));
    expect(['crash: a\nb[x].', 'crash: [x].', 'crash: ax.', 'a crash: [x].'].map(observed)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});

test('a release is read from what uname tells', () => {
  expect(['6.18.44-amd64', '7.3-rc7', '7.3.4', 'x'].map(releaseOf)).toEqual(['6.18.44', '7.3', '7.3.4', undefined]);
});

describe('what comes after', () => {
  const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
  const { program } = parseProgram(
    specification,
    `vm.create vm=vm0 dev=kvm type=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=1 reserved=0
slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=arena gmem=file0 offset=0
vcpu.create vcpu=vcpu0 vm=vm0 id=0
guest.store vcpu=vcpu0 gpa=0 value=1
host.load mapping=arena offset=0
gup.read mapping=arena offset=0 via=mem
cap.check fd=kvm cap=234`,
  );
  const entry: KnownDivergence = { ...ENTRY, after: ['guest.store/guest-memory-not-host'] };
  const excused = (at: number, observed: string, invariant?: string): boolean => {
    const divergence = { kind: 'diverges', at, rule: 'any', expected: '', observed } as const;
    return isAftermath(
      entry,
      invariant === undefined ? divergence : { ...divergence, invariant },
      program,
      specification,
    );
  };

  it('is excused where it is what memory holds', () => {
    expect([excused(4, 'MMIO'), excused(5, 'ok 0x1'), excused(6, 'ok 0x1')]).toEqual([true, true, true]);
  });

  it('is not where it is before, or a crash, or an invariant, or no access', () => {
    expect([excused(3, 'EINVAL'), excused(5, 'crash: BUG'), excused(5, 'ok', 'x'), excused(7, 'EINVAL')]).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});
