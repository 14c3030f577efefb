import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { I64_MAX, I64_MIN, U32_MAX, U64_MAX } from './abi.ts';
import { address, choice, fd, fresh, i32, i64, mapping, parseLabel, u32, u64, type Domain } from './domain.ts';
import { FULL_MACHINE, profileById } from './profile.ts';
import type { Random } from './random.ts';
import { initialState, type Address } from './state.ts';

const STATE = initialState({ profile: profileById('linux-7.3'), machine: FULL_MACHINE });

const randoms = fc.infiniteStream(fc.nat()).map((numbers): Random => ({
  below: (bound) => (numbers.next().value as number) % bound,
}));

const INTEGERS = [
  ['u64', u64(), 0n, U64_MAX],
  ['u32', u32(), 0n, U32_MAX],
  ['i64', i64(), I64_MIN, I64_MAX],
  ['i32', i32(), -(1n << 31n), (1n << 31n) - 1n],
] as const;

describe.each(INTEGERS)('%s', (describeAs, domain, min, max) => {
  const values = fc.oneof(fc.bigInt({ min, max }), fc.constantFrom(min, max, 0n, 1n, 9n, 10n, max - 1n));

  it('is read back as it was written, at full width', () => {
    fc.assert(fc.property(values, (value) => expect(domain.parse(domain.print(value))).toBe(value)));
  });

  it('is read from decimal and from hex digits', () => {
    fc.assert(
      fc.property(values, (value) => {
        const [sign, digits] = value < 0n ? ['-', -value] : ['', value];
        expect(domain.parse(`${sign}${digits}`)).toBe(value);
        expect(domain.parse(`${sign}0x${digits.toString(16)}`)).toBe(value);
      }),
    );
  });

  it('refuses what does not fit, and says what does', () => {
    expect(() => domain.parse(`${max + 1n}`)).toThrow(/does not fit: wanted .* to 0x/);
    expect(() => domain.parse(`${min - 1n}`)).toThrow(/does not fit: wanted/);
    expect(domain.describe).toBe(describeAs);
  });

  it.each(['', 'x', '0x', '1.5', '1n', '--1', ' 1', '0b1', '0x1_0'])('refuses %j as no integer', (text) => {
    expect(() => domain.parse(text)).toThrow(/not an integer: write decimal digits or 0x and hex digits/);
  });

  it('draws wild values that fit', () => {
    fc.assert(
      fc.property(randoms, (random) => {
        const value = domain.wild(random, STATE);
        expect(value >= min && value <= max).toBe(true);
      }),
    );
  });

  it('becomes simpler step by step, and ends at zero', () => {
    const rank = (value: bigint): bigint => (value < 0n ? -2n * value + 1n : 2n * value);
    expect(domain.simpler(0n, STATE)).toEqual([]);
    fc.assert(
      fc.property(values, (value) => {
        const simpler = domain.simpler(value, STATE);
        for (const each of simpler) {
          expect(rank(each)).toBeLessThan(rank(value));
          expect(each >= min && each <= max).toBe(true);
        }
        expect(simpler[0] ?? 0n).toBe(0n);
      }),
    );
  });
});

describe('an address', () => {
  const domain = address();
  const base = fc.constantFrom('', 'arena', 'map0', 'a-b_c');
  const addresses: fc.Arbitrary<Address> = fc.record({ base, offset: fc.bigInt({ min: 0n, max: U64_MAX }) });

  it('is read back as it was written', () => {
    fc.assert(fc.property(addresses, (value) => expect(domain.parse(domain.print(value))).toEqual(value)));
  });

  it.each([
    ['arena', { base: 'arena', offset: 0n }],
    ['arena+0x1000', { base: 'arena', offset: 0x1000n }],
    ['0x7ffffffff000', { base: '', offset: 0x7fff_ffff_f000n }],
  ])('%s', (text, value) => {
    expect(domain.parse(text)).toEqual(value);
    expect(domain.print(value)).toBe(text);
  });

  it.each([
    ['a+1+2', /not an address: write mapping\+offset or a number/],
    ['Arena', /not a label/],
    ['arena+', /not an integer/],
    ['arena+-1', /does not fit/],
    ['', /not a label/],
  ])('refuses %j', (text, message) => {
    expect(() => domain.parse(text)).toThrow(message);
  });

  it('becomes simpler by a simpler base, or by a smaller offset', () => {
    const rank = (label: string): number => ['', 'arena'].indexOf(label) >>> 0;
    fc.assert(
      fc.property(addresses, (value) => {
        for (const each of domain.simpler(value, STATE)) {
          const isSmaller = each.base === value.base && each.offset < value.offset;
          expect(isSmaller || rank(each.base) < rank(value.base)).toBe(true);
        }
      }),
    );
    expect(domain.simpler({ base: '', offset: 0n }, STATE)).toEqual([]);
  });
});

describe('labels', () => {
  it.each(['vm0', 'a', 'long-label_0123456789-0123456789x'.slice(0, 32)])('%s is one', (text) => {
    expect(parseLabel(text)).toBe(text);
  });

  it.each(['', '0vm', 'VM', 'a b', 'a+b', 'x'.repeat(33), 'ä'])('%j is none', (text) => {
    expect(() => parseLabel(text)).toThrow(/is not a label: write lower-case letters, digits, - or _/);
  });

  it.each<[string, Domain<string>, string[]]>([
    ['a descriptor', fd('vm'), ['none', 'kvm', 'null']],
    ['a mapping', mapping(), ['arena']],
  ])('%s that is drawn wild names something that is there, or nothing', (_name, domain, labels) => {
    fc.assert(fc.property(randoms, (random) => expect(labels).toContain(domain.wild(random, STATE))));
  });

  it('of references become simpler towards what was there first; new labels do not', () => {
    expect(fd('any').simpler('null', STATE)).toEqual(['none', 'kvm']);
    expect(fd('any').simpler('none', STATE)).toEqual([]);
    expect(fresh('vm').simpler('vm7', STATE)).toEqual([]);
    expect(() => fresh('vm').wild({ below: () => 0 }, STATE)).toThrow(/given by the generator/);
  });
});

describe('a choice', () => {
  const domain = choice('v2', 'v1');

  it('is one of its words', () => {
    expect(domain.parse('v1')).toBe('v1');
    expect(() => domain.parse('v3')).toThrow("'v3' is not one of v2, v1");
    expect(domain.simpler('v1', STATE)).toEqual(['v2']);
    expect(domain.simpler('v2', STATE)).toEqual([]);
  });
});
