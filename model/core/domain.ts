/**
 * The kinds of arguments that commands take: how each is written, read, drawn at random and made simpler. ABI integers
 * keep their full width, also where a value will be refused.
 */
import { I64_MAX, I64_MIN, PAGE_SIZE, U16_MAX, U32_MAX, U64_MAX } from './abi.ts';
import { pick, randomU64, type Random } from './random.ts';
import { ARENA, NO_FD, OTHER, type Address, type FdKind, type Label, type State } from './state.ts';

export type ArgValue = bigint | Label | Address;

export interface Domain<T extends ArgValue = ArgValue> {
  readonly kind:
    'integer' | 'fd' | 'mapping' | 'cache' | 'td' | 'guest' | 'image' | 'vm' | 'file' | 'fresh' | 'choice' | 'address';
  /** For documents: `u64`, `fd of a vm`, … */
  readonly describe: string;
  /** The least and the largest value of an integer. */
  readonly min?: bigint;
  readonly max?: bigint;
  /** The words of a choice. */
  readonly words?: readonly string[];
  print(value: T): string;
  /** Throws a RangeError that says what is wanted. */
  parse(text: string): T;
  /** Any value of the domain, sensible or not. */
  wild(random: Random, state: State): T;
  /** Values that are simpler than the given one, simplest first. */
  simpler(value: T, state: State): readonly T[];
}

export interface FreshDomain extends Domain<Label> {
  readonly kind: 'fresh';
  readonly prefix: string;
}

const LABEL = /^[a-z][a-z0-9_-]{0,31}$/;

export function parseLabel(text: string): Label {
  if (!LABEL.test(text)) throw new RangeError(`'${text}' is not a label: write lower-case letters, digits, - or _`);
  return text;
}

export const printInteger = (value: bigint): string =>
  value < 0n ? `-${printInteger(-value)}` : value < 10n ? value.toString() : `0x${value.toString(16)}`;

function parseInteger(text: string, min: bigint, max: bigint): bigint {
  const match = /^(-?)(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})$/.exec(text);
  if (match === null) throw new RangeError(`'${text}' is not an integer: write decimal digits or 0x and hex digits`);
  const value = (match[1] === '-' ? -1n : 1n) * BigInt(match[2] as string);
  if (value < min || value > max)
    throw new RangeError(`${text} does not fit: wanted ${printInteger(min)} to ${printInteger(max)}`);
  return value;
}

const magnitude = (value: bigint): bigint => (value < 0n ? -value : value);

/** Integers nearer to zero: zero, powers of two below, half, one page less, one less. */
function simplerIntegers(value: bigint): readonly bigint[] {
  if (value === 0n) return [];
  const candidates = new Set<bigint>([0n, 1n, PAGE_SIZE, value / 2n]);
  for (let bit = 0n; bit < 64n; bit++) if (((value >> bit) & 1n) === 1n) candidates.add(value & ~(1n << bit));
  candidates.add(value - (value > 0n ? PAGE_SIZE : -PAGE_SIZE));
  candidates.add(value - (value > 0n ? 1n : -1n));
  if (value < 0n) candidates.add(-value);
  return [...candidates]
    .filter((each) => magnitude(each) < magnitude(value) || (each >= 0n && value < 0n && each === -value))
    .sort((a, b) => (magnitude(a) < magnitude(b) ? -1 : magnitude(a) > magnitude(b) ? 1 : 0));
}

interface IntegerOptions {
  /** Values of this argument at which something changes. */
  readonly boundaries?: readonly bigint[];
}

function integer(describe: string, min: bigint, max: bigint, boundaries: readonly bigint[]): Domain<bigint> {
  const edges = [0n, 1n, PAGE_SIZE - 1n, PAGE_SIZE, PAGE_SIZE + 1n, max, max - 1n, min, max - PAGE_SIZE + 1n];
  const choices = [...new Set([...edges, ...boundaries])].filter((value) => value >= min && value <= max);
  const span = max - min + 1n;
  return {
    kind: 'integer',
    describe,
    min,
    max,
    print: printInteger,
    parse: (text) => parseInteger(text, min, max),
    wild: (random) => (random.below(3) > 0 ? pick(random, choices) : min + (randomU64(random) % span)),
    simpler: (value) => simplerIntegers(value).filter((each) => each >= min && each <= max),
  };
}

export const u64 = (options: IntegerOptions = {}): Domain<bigint> =>
  integer('u64', 0n, U64_MAX, [
    1n << 31n,
    1n << 32n,
    1n << 52n,
    (1n << 63n) - PAGE_SIZE,
    I64_MAX,
    1n << 63n,
    U64_MAX - PAGE_SIZE + 1n,
    ...(options.boundaries ?? []),
  ]);
export const u16 = (options: IntegerOptions = {}): Domain<bigint> =>
  integer('u16', 0n, U16_MAX, options.boundaries ?? []);
export const u32 = (options: IntegerOptions = {}): Domain<bigint> =>
  integer('u32', 0n, U32_MAX, [1n << 16n, 1n << 31n, 0xffffn, ...(options.boundaries ?? [])]);
export const i64 = (options: IntegerOptions = {}): Domain<bigint> =>
  integer('i64', I64_MIN, I64_MAX, [-1n, -PAGE_SIZE, I64_MAX - PAGE_SIZE + 1n, ...(options.boundaries ?? [])]);
export const i32 = (options: IntegerOptions = {}): Domain<bigint> =>
  integer('i32', -0x8000_0000n, 0x7fff_ffffn, [-1n, ...(options.boundaries ?? [])]);

function reference(
  kind: 'fd' | 'mapping' | 'cache' | 'td' | 'guest' | 'image' | 'vm' | 'file',
  describe: string,
  candidates: (state: State) => Label[],
): Domain<Label> {
  return {
    kind,
    describe,
    print: (label) => label,
    parse: parseLabel,
    wild: (random, state) => pick(random, candidates(state)),
    simpler: (label, state) => {
      const all = candidates(state);
      const index = all.indexOf(label);
      return index < 0 ? all : all.slice(0, index);
    },
  };
}

/** A descriptor that the command expects to be of the given kind. Any other, and `none` for −1, may be named. */
export const fd = (kind: FdKind | 'any'): Domain<Label> =>
  reference('fd', kind === 'any' ? 'descriptor' : `descriptor of a ${kind}`, (state) => [NO_FD, ...state.fds.keys()]);

export const mapping = (): Domain<Label> =>
  reference('mapping', 'mapping', (state) => [ARENA, ...state.mappings.keys()]);

export const cache = (): Domain<Label> => reference('cache', 'cache', (state) => [NO_FD, ...state.caches.keys()]);

export const hvaCache = (): Domain<Label> =>
  reference('cache', 'cache of a host address', (state) => [NO_FD, ...state.hvaCaches.keys()]);

export const td = (): Domain<Label> => reference('td', 'TD', (state) => [NO_FD, ...state.td.tds.keys()]);

/** A guest whose memory can go bad. */
export const guest = (): Domain<Label> => reference('guest', 'guest', (state) => [NO_FD, ...state.mc.guests.keys()]);

/** A guest that says which of its pages it shares. */
export const statusGuest = (): Domain<Label> =>
  reference('guest', 'guest', (state) => [NO_FD, ...state.status.guests.keys()]);

/** What was saved of such a guest. */
export const statusImage = (): Domain<Label> =>
  reference('image', 'image', (state) => [NO_FD, ...state.status.images.keys()]);

/** A guest that calls the host. */
export const callingGuest = (): Domain<Label> =>
  reference('guest', 'guest', (state) => [NO_FD, ...state.hypercall.guests.keys()]);

/** A VM that can be an SEV guest. */
export const sevVm = (): Domain<Label> => reference('vm', 'VM', (state) => [NO_FD, ...state.sev.vms.keys()]);

/** What a VM is to get a key from: such a VM, or a descriptor that is none. */
export const sevSource = (): Domain<Label> =>
  reference('vm', 'descriptor of a VM', (state) => [NO_FD, OTHER, ...state.sev.vms.keys()]);

/** A file of guest memory of such a VM. */
export const sevFile = (): Domain<Label> => reference('file', 'file', (state) => [NO_FD, ...state.sev.files.keys()]);

/** A label that the command gives to what it creates. */
export const fresh = (prefix: string): FreshDomain => ({
  kind: 'fresh',
  prefix,
  describe: `new ${prefix} label`,
  print: (label) => label,
  parse: parseLabel,
  wild: () => {
    throw new Error('a new label is given by the generator');
  },
  simpler: () => [],
});

export function choice<T extends string>(...options: readonly [T, ...T[]]): Domain<T> {
  return {
    kind: 'choice',
    describe: options.join(' | '),
    words: options,
    print: (value) => value,
    parse: (text) => {
      const found = options.find((option) => option === text);
      if (found === undefined) throw new RangeError(`'${text}' is not one of ${options.join(', ')}`);
      return found;
    },
    wild: (random) => pick(random, options),
    simpler: (value) => options.slice(0, options.indexOf(value)),
  };
}

export const sameAddress = (a: Address, b: Address): boolean => a.base === b.base && a.offset === b.offset;

/** An address of the host process, written `arena+0x1000` or as a bare number. */
export function address(): Domain<Address> {
  const bare = u64({ boundaries: [0x7fff_ffff_f000n, 0x7fff_ffff_e000n, 0x8000_0000_0000n] });
  return {
    kind: 'address',
    describe: 'mapping+offset | u64',
    print: ({ base, offset }) =>
      base === '' ? printInteger(offset) : offset === 0n ? base : `${base}+${printInteger(offset)}`,
    parse: (text) => {
      if (/^[0-9]/.test(text)) return { base: '', offset: bare.parse(text) };
      const [base = '', offset, ...rest] = text.split('+');
      if (rest.length > 0) throw new RangeError(`'${text}' is not an address: write mapping+offset or a number`);
      return { base: parseLabel(base), offset: offset === undefined ? 0n : bare.parse(offset) };
    },
    wild: (random, state) =>
      random.below(2) === 0
        ? { base: '', offset: bare.wild(random, state) }
        : { base: pick(random, [ARENA, ...state.mappings.keys()]), offset: bare.wild(random, state) },
    simpler: (value, state) => [
      ...(value.base === '' ? [] : [{ base: '', offset: 0n }]),
      ...(value.base === ARENA || value.base === '' ? [] : [{ base: ARENA, offset: 0n }]),
      ...bare.simpler(value.offset, state).map((offset) => ({ base: value.base, offset })),
    ],
  };
}
