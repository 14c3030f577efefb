import { describe, expect, it } from '@jest/globals';
import { parseProgram } from '../../model/core/program.ts';
import { FULL_MACHINE, profileById } from '../../model/core/profile.ts';
import { Specification } from '../../model/core/specification.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import type { CallResults } from './calls.ts';
import { factsOf, type Look } from './looks.ts';
import { lower, type LoweredProgram } from './lower.ts';
import { SYS } from './uapi.ts';

const SPECIFICATION = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);

const FILE = 'vm.create vm=vm0 dev=kvm type=0\ngmem.create file=file0 vm=vm0 size=0x2000 flags=3 reserved=0\n';

const looking = (text: string, isLooking = true): LoweredProgram =>
  lower(parseProgram(SPECIFICATION, FILE + text).program, FULL_MACHINE, { looking: isLooking });

const lastOf = ({ looks }: LoweredProgram): Look => {
  const look = looks.at(-1);
  if (look === undefined) throw new Error('nothing is looked at');
  return look;
};

const words = (...numbers: readonly bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(numbers).buffer);

describe('a program that looks', () => {
  it('looks behind every command, and one that does not makes no other calls for it', () => {
    const lowered = looking('file.stat fd=file0 field=size');
    expect(lowered.looks).toHaveLength(3);
    const numbersOf = ({ calls }: LoweredProgram): readonly number[] =>
      calls.steps.flatMap((step) => (step.kind === 'call' ? [step.number] : []));
    expect(numbersOf(lowered).filter((number) => number === SYS.cachestat)).toHaveLength(4);
    const blind = looking('file.stat fd=file0 field=size', false);
    expect(blind.looks).toEqual([]);
    expect(numbersOf(blind)).not.toContain(SYS.cachestat);
  });

  it('leaves out files that are closed, too large or empty, with their mappings', () => {
    expect(
      lastOf(looking('mem.map mapping=map1 fd=file0 length=0x1000 offset=0 sharing=shared')).mappings,
    ).toHaveLength(1);
    for (const text of [
      'mem.map mapping=map1 fd=file0 length=0x1000 offset=0 sharing=shared\nfd.close fd=file0',
      'fd.close fd=file0\ngmem.create file=file1 vm=vm0 size=0x11000 flags=3 reserved=0\n' +
        'mem.map mapping=map1 fd=file1 length=0x1000 offset=0 sharing=shared',
      'fd.close fd=file0\ngmem.create file=file1 vm=vm0 size=0 flags=3 reserved=0',
    ])
      expect(lastOf(looking(text))).toMatchObject({ files: [], mappings: [] });
    const empty = looking('mem.map mapping=map1 fd=file0 length=0 offset=0 sharing=shared');
    expect(lastOf(empty)).toMatchObject({ files: [{ inode: 'file0' }], mappings: [] });
  });
});

describe('facts', () => {
  const FACTS: Look = {
    steps: [0, 3],
    files: [{ inode: 'file0', stat: 0, size: 0, cached: 1 }],
    mappings: [{ mapping: 'map0', inode: 'file0', firstPage: 1, read: 1, entries: 2 }],
    loaded: { inode: 'file0', page: 1, copied: { out: 1, into: 2 }, content: 3 },
  };
  const PRESENT = 1n << 63n;
  const shown = (change: Partial<CallResults> = {}, entry = PRESENT | (1n << 61n) | 0x1234n): CallResults => ({
    results: [0n, 8n, 4096n],
    outputs: [words(0x2000n), words(0n, 1n), words(entry), new Uint8Array(4096)],
    ...change,
  });

  it('are read from sizes, counts, entries and content', () => {
    expect(factsOf([FACTS], shown())).toEqual([
      {
        inodes: [{ inode: 'file0', pages: 2 }],
        resident: [{ inode: 'file0', page: 1, count: 1 }],
        user: [{ mapping: 'map0', page: 0, count: 1, inode: 'file0', inodePage: 1, frame: 0x1234 }],
        firstTouches: [{ inode: 'file0', page: 1, zero: true }],
      },
    ]);
  });

  it('have no frames where the kernel hides them, and no entries that are not present', () => {
    const [hidden] = factsOf([FACTS], shown({}, PRESENT));
    expect(hidden?.user).toEqual([{ mapping: 'map0', page: 0, count: 1, inode: 'file0', inodePage: 1 }]);
    expect(factsOf([FACTS], shown({}, 0x1234n))[0]?.user).toEqual([]);
  });

  it('lack a file that cannot be looked at, and its mappings', () => {
    expect(factsOf([FACTS], shown({ results: [-9n, 8n, 0n] }))).toEqual([
      { inodes: [], resident: [], user: [], firstTouches: [] },
    ]);
  });

  it('name the frames that have failed so far, where memory fails at all', () => {
    const looks = [FACTS, { ...FACTS, failed: 4 }, { ...FACTS, failed: 5 }, FACTS];
    const results = shown();
    const outputs = [...results.outputs, words(0x1234n), words(0n)];
    expect(factsOf(looks, { ...results, outputs }).map(({ poisoned }) => poisoned)).toEqual([
      ...[[], [0x1234], [0x1234], [0x1234]],
    ]);
  });

  it('tell of a first touch once, only of what was loaded, and of every byte', () => {
    expect(factsOf([FACTS, FACTS], shown()).map(({ firstTouches }) => firstTouches?.length)).toEqual([1, 0]);
    expect(factsOf([FACTS], shown({ results: [0n, 8n, 0n] }))[0]?.firstTouches).toEqual([]);
    const { outputs } = shown();
    const dirty = new Uint8Array(4096).fill(1, 4095);
    expect(factsOf([FACTS], shown({ outputs: [...outputs.slice(0, 3), dirty] }))[0]?.firstTouches).toEqual([
      { inode: 'file0', page: 1, zero: false },
    ]);
  });
});
