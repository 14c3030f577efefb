import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { RunMap } from '../ranges.ts';
import { Bitmap } from './bitmap.ts';
import { GuestDonation, Structure } from './guest-donation.ts';
import { IntervalTree } from './interval-tree.ts';
import { RangeList } from './range-list.ts';
import { FRAMES, isCanonical, type Range, type StatusRecord } from './record.ts';
import { RedBlackTree, type TreeNode } from './red-black-tree.ts';

interface Change {
  readonly start: number;
  readonly length: number;
  readonly shared: boolean;
}

/** A donation with the guest that writes it. */
class Donated extends GuestDonation {
  private readonly own: RunMap<true>;

  constructor(capacity: number) {
    const own = new RunMap<true>();
    super(own);
    this.own = own;
    this.structure = new Structure(capacity, () => {
      throw new Error('read outside of the structure');
    });
  }

  override note(start: number, end = start, shared = false): true {
    if (shared) this.own.set(start, end, true);
    else this.own.delete(start, end);
    return super.note(start);
  }
}

const GIB = 2 ** 18;

const DESIGNS: readonly (readonly [string, (bound: number) => StatusRecord])[] = [
  ['bitmap', () => new Bitmap(4 * GIB)],
  ['range list', (bound) => new RangeList(bound)],
  ['interval tree', (bound) => new IntervalTree(bound)],
  ['guest donation', (bound) => new Donated(bound)],
];

const rangesOf = (frames: ReadonlySet<number>): readonly Range[] => {
  const ranges: { start: number; end: number }[] = [];
  for (const frame of [...frames].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last?.end === frame) last.end++;
    else ranges.push({ start: frame, end: frame + 1 });
  }
  return ranges;
};

/** Close together, and around the ends of words. */
const changes = fc.array(
  fc.record({
    start: fc.nat(300),
    length: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 140 })),
    shared: fc.boolean(),
  }),
  { maxLength: 60 },
);

const apply = (record: StatusRecord, { start, length, shared }: Change): boolean =>
  record.note(start, start + length, shared);

describe.each(DESIGNS)('%s', (_name, create) => {
  it('has what a set of frames has', () => {
    fc.assert(
      fc.property(changes, (stream) => {
        const record = create(1000);
        const frames = new Set<number>();
        for (const change of stream) {
          if (!apply(record, change)) throw new Error('there is room');
          for (let frame = change.start; frame < change.start + change.length; frame++)
            if (change.shared) frames.add(frame);
            else frames.delete(frame);
        }
        expect(record.peek()).toEqual(rangesOf(frames));
        expect(record.read()).toEqual(rangesOf(frames));
        const asked = Array.from({ length: 450 }, (_each, frame) => frame);
        expect(asked.filter((frame) => record.has(frame))).toEqual(asked.filter((frame) => frames.has(frame)));
      }),
    );
  });
});

describe.each(DESIGNS.slice(0, 3))('%s', (_name, create) => {
  it('forgets everything', () => {
    const record = create(10);
    record.note(3, 5, true);
    record.drop();
    expect(record.read()).toEqual([]);
    expect(record.note(4, 5, true)).toBe(true);
    expect(record.read()).toEqual([{ start: 4, end: 5 }]);
  });
});

describe('all four', () => {
  /** xorshift32 */
  const numbers = (seed: number): ((below: number) => number) => {
    let state = seed;
    return (below) => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % below;
    };
  };

  it('say the same after a long stream over 4 GiB, with thousands of ranges', () => {
    const records = DESIGNS.map(([, create]) => create(20_000));
    const random = numbers(1);
    for (let call = 0; call < 6000; call++) {
      const length = random(10) === 0 ? 1 + random(2000) : 1;
      const change = { start: random(4 * GIB - length), length, shared: random(4) > 0 };
      for (const record of records) apply(record, change);
    }
    const [first, ...others] = records.map((record) => record.read());
    expect((first as readonly Range[]).length).toBeGreaterThan(1000);
    for (const other of others) expect(other).toEqual(first);
  });

  it('stay within the steps that a call may take, also where one call undoes thousands', () => {
    for (const create of DESIGNS.map(([, each]) => each)) {
      const record = create(2000);
      let most = 0;
      const take = (start: number, end: number, shared: boolean): void => {
        const before = record.steps;
        record.note(start, end, shared);
        most = Math.max(most, record.steps - before);
      };
      const alternate = (): void => {
        for (let frame = 0; frame < 2000; frame++) take(2 * frame, 2 * frame + 1, true);
      };
      alternate();
      take(0, 4 * GIB, false);
      alternate();
      take(0, 4 * GIB, true);
      expect(most).toBeLessThanOrEqual(8 * (record.units + 4));
      expect(record.bytes).toBeLessThanOrEqual(64 * (record.units + 4));
    }
  });
});

describe.each(DESIGNS.slice(1, 3))('%s at its bound', (_name, create) => {
  const full = (): StatusRecord => {
    const record = create(2);
    record.note(0, 10, true);
    record.note(20, 30, true);
    return record;
  };

  it('takes what needs no more ranges', () => {
    const record = full();
    expect(record.note(5, 8, true)).toBe(true);
    expect(record.note(10, 20, true)).toBe(true);
    expect(record.read()).toEqual([{ start: 0, end: 30 }]);
  });

  it.each([
    ['another range', 40, 41, true],
    ['a hole in one', 4, 5, false],
  ])('refuses %s, and changes nothing', (_what, start, end, shared) => {
    const record = full();
    expect(record.note(start, end, shared)).toBe(false);
    expect(record.read()).toEqual([
      { start: 0, end: 10 },
      { start: 20, end: 30 },
    ]);
  });
});

describe('bitmap', () => {
  it('has no bit behind its end, and needs none for what is private', () => {
    const bitmap = new Bitmap(64 * GIB);
    expect(bitmap.note(64 * GIB - 1, 64 * GIB + 1, true)).toBe(false);
    expect(bitmap.read()).toEqual([]);
    expect(bitmap.note(0, FRAMES, false)).toBe(true);
    expect(bitmap.has(FRAMES - 1)).toBe(false);
  });

  it('covers 4 GiB at least, and grows with the memory only', () => {
    const bitmap = new Bitmap(2 * GIB);
    expect(bitmap.units).toBe((4 * GIB) / 64);
    bitmap.note(7, 9, true);
    bitmap.resize(64 * GIB);
    expect(bitmap.units).toBe(GIB);
    expect(bitmap.read()).toEqual([{ start: 7, end: 9 }]);
  });
});

describe('donation', () => {
  const donated = (): { record: Donated; structure: Structure } => {
    const record = new Donated(2);
    record.note(3, 5, true);
    return { record, structure: record.structure as Structure };
  };

  it('takes a count once, whatever it is afterwards', () => {
    const { record, structure } = donated();
    structure.race();
    expect(record.peek()).toEqual([{ start: 3, end: 5 }]);
    expect(record.read()).toEqual([{ start: 3, end: 5 }]);
  });

  it('takes no count beyond the structure', () => {
    const { record, structure } = donated();
    structure.scribble([], 3);
    expect(record.read()).toBe('broken');
  });

  it('stays what it must not be', () => {
    const { record, structure } = donated();
    structure.scribble([{ start: 9, end: 8 }]);
    expect(record.peek()).toBe('broken');
    record.note(20, 21, true);
    expect(record.read()).toBe('broken');
  });

  it('says for good that ranges are missing', () => {
    const { record } = donated();
    record.note(7, 8, true);
    record.note(9, 10, true);
    record.note(7, 10, false);
    expect(record.read()).toBe('broken');
  });

  it('is unknown until the guest gives it, if the guest shares anything', () => {
    const pageTables = new RunMap<true>();
    const record = new GuestDonation(pageTables);
    expect(record.read()).toEqual([]);
    pageTables.set(1, 2, true);
    expect(record.read()).toBe('not-yet');
  });
});

class NumberNode implements TreeNode {
  readonly key: number;
  left: this | undefined = undefined;
  right: this | undefined = undefined;
  parent: this | undefined = undefined;
  isRed = true;

  constructor(key: number) {
    this.key = key;
  }
}

/** Black nodes on each way down. Throws where the tree is none, or not balanced. */
function blackHeight(node: NumberNode | undefined, parent?: NumberNode): number {
  if (node === undefined) return 1;
  if (node.parent !== parent) throw new Error(`${node.key}: parent is another`);
  if (node.isRed && parent?.isRed === true) throw new Error(`${node.key}: red under red`);
  const [left, right] = [blackHeight(node.left, node), blackHeight(node.right, node)];
  if (left !== right) throw new Error(`${node.key}: ${left} black nodes on the left, ${right} on the right`);
  return left + (node.isRed ? 0 : 1);
}

describe('red-black tree', () => {
  const link = (tree: RedBlackTree<NumberNode>, key: number): NumberNode => {
    const node = new NumberNode(key);
    let under = tree.root;
    for (;;) {
      const side = under !== undefined && key < under.key ? 'left' : 'right';
      const below = under?.[side];
      if (below === undefined) {
        tree.link(node, under, side);
        return node;
      }
      under = below;
    }
  };

  const inOrder = (tree: RedBlackTree<NumberNode>): readonly number[] => {
    const keys: number[] = [];
    let node = tree.root;
    while (node?.left !== undefined) node = node.left;
    for (; node !== undefined; node = tree.next(node)) keys.push(node.key);
    return keys;
  };

  it('stays in order and balanced, whatever comes and goes', () => {
    const comings = fc.array(fc.tuple(fc.boolean(), fc.nat(200)), { maxLength: 200 });
    fc.assert(
      fc.property(comings, (stream) => {
        const tree = new RedBlackTree<NumberNode>({ steps: 0, rotations: 0 });
        const nodes = new Map<number, NumberNode>();
        for (const [comes, key] of stream) {
          const node = nodes.get(key);
          if (comes && node === undefined) nodes.set(key, link(tree, key));
          else if (!comes && node !== undefined) {
            tree.unlink(node);
            nodes.delete(key);
          }
          if (tree.root?.isRed === true) throw new Error('the root is red');
          blackHeight(tree.root);
        }
        expect(inOrder(tree)).toEqual([...nodes.keys()].sort((a, b) => a - b));
      }),
    );
  });

  it('is not deep, also where keys come in order', () => {
    const work = { steps: 0, rotations: 0 };
    const tree = new RedBlackTree<NumberNode>(work);
    for (let key = 0; key < 4096; key++) link(tree, key);
    expect(blackHeight(tree.root)).toBeGreaterThan(6);
    expect(work.rotations).toBeGreaterThan(1000);
  });
});

describe('ranges that a reader may count on', () => {
  it.each([
    [
      'sorted',
      [
        [1, 2],
        [4, 5],
      ],
      true,
    ],
    [
      'unsorted',
      [
        [4, 5],
        [1, 2],
      ],
      false,
    ],
    [
      'overlapping',
      [
        [1, 4],
        [3, 5],
      ],
      false,
    ],
    [
      'adjacent',
      [
        [1, 3],
        [3, 5],
      ],
      false,
    ],
    ['empty', [[1, 1]], false],
    ['at the end', [[FRAMES - 1, FRAMES]], true],
    ['past the end', [[FRAMES - 1, FRAMES + 1]], false],
  ])('%s', (_what, pairs, expected) => {
    expect(isCanonical(pairs.map(([start = 0, end = 0]) => ({ start, end })))).toBe(expected);
  });
});
