import { describe, expect, test } from '@jest/globals';
import { Stage, type Moment, type Piece, type Side } from './drawing.ts';
import { readFacts, type Seen } from './facts.ts';
import { eventsOf } from './lanes.ts';

const STAGE_TWO = { vm: 'vm0', gfn: 4, frame: 0x40, count: 1, private: false };
const RESIDENT = { inode: 'file0', page: 2, count: 1, frame: 0x40 };
const MAPPED = { mapping: 'map0', page: 1, count: 1, inode: 'file0', inodePage: 2, frame: 0x40 };
const SLOT = { vm: 'vm0', slot: 1, baseGfn: 4, pages: 2, gmem: true, file: 'file0', firstPage: 2 };

const signed = ({ text, note, marks }: Piece): string =>
  [...marks, text, ...(note === undefined ? [] : [`(${note})`])].join(' ');

/** Rows of a lane behind the last of the moments, as text. */
function rowsOf(moments: readonly Moment[], lane: string, side: Side = 'target'): readonly (readonly string[])[] {
  const [owner = '', name = ''] = lane.split('/');
  const drawings = new Stage(moments).draw(moments.length - 1, side);
  const drawing = drawings.find(({ panel }) => panel.owner === owner);
  const rows = drawing?.lanes.find((each) => each.name === name)?.rows ?? [];
  return rows.map((row) => row.map(signed));
}

/** The one row of a lane, where the facts are these and were unknown before. */
const rowOf = (seen: Seen, lane: string): readonly string[] => {
  const [row = [], ...others] = rowsOf([{ target: {} }, { target: seen }], lane);
  expect(others).toEqual([]);
  return row;
};

describe('a lane', () => {
  test.each<[string, Seen, readonly string[]]>([
    ['vm0/slots', { slots: [SLOT] }, ['slot 1: file0[2–3]']],
    ['vm0/slots', { slots: [{ ...SLOT, file: undefined }] }, ['slot 1: no file']],
    ['vm0/slots', { slots: [{ ...SLOT, slot: 0x10001, gmem: false }] }, ['slot 0x10001: host memory']],
    ['vm0/attribute', { vms: [{ vm: 'vm0' }], private: [{ vm: 'vm0', start: 0x10, end: 0x20 }] }, ['private']],
    ['vm0/stage 2', { stageTwo: [STAGE_TWO], resident: [RESIDENT] }, ['file0[2], shared (frame 0x40)']],
    ['vm0/stage 2', { stageTwo: [{ ...STAGE_TWO, private: true }] }, ['frame 0x40, in no file, private']],
    [
      'vm0/stage 2',
      { stageTwo: [{ ...STAGE_TWO, count: 2 }], resident: [RESIDENT] },
      ['file0[2], shared (frame 0x40)', 'frame 0x41, in no file, shared'],
    ],
    [
      'vm0/pfn caches',
      {
        vms: [{ vm: 'vm0' }],
        resident: [RESIDENT],
        caches: [
          { gpc: 'gpc0', vm: 'vm0', gfn: 4, active: true, valid: true, frame: 0x40 },
          { gpc: 'gpc1', vm: 'vm0', gfn: 6, active: true, valid: false },
          { gpc: 'gpc2', vm: 'vm0', active: false, valid: false },
        ],
      },
      ['file0[2], by gpc0, valid (frame 0x40)', 'gpc1, not valid'],
    ],
    [
      'file0/open as',
      {
        inodes: [{ inode: 'file0', pages: 4, noDirectMap: true }],
        files: [{ file: 'file1', vm: 'vm0', inode: 'file0' }],
      },
      ['file1 of vm0, NO_DIRECT_MAP'],
    ],
    [
      'file0/bound to',
      {
        inodes: [{ inode: 'file0', pages: 4 }],
        bindings: [
          { file: 'file0', start: 0, end: 2, vm: 'vm0', slot: 1, live: true },
          { file: 'file0', start: 2, end: 4, vm: 'vm0', slot: 2, live: false },
        ],
      },
      ['vm0 slot 1 through file0', 'vm0 slot 2 through file0, a slot that is gone'],
    ],
    ['file0/page cache', { resident: [RESIDENT] }, ['present (frame 0x40)']],
    ['file0/page cache', { resident: [{ inode: 'file0', page: 2, count: 1 }] }, ['present']],
    ['file0/poison', { resident: [RESIDENT], poisoned: [0x40, 0x41] }, ['poisoned']],
    ['file0/in stage 2', { resident: [RESIDENT], stageTwo: [STAGE_TWO] }, ['vm0 gfn 4, shared']],
    ['file0/in the host', { resident: [RESIDENT], user: [MAPPED] }, ['map0[1] (frame 0x40)']],
    [
      'file0/in the host',
      { resident: [{ ...RESIDENT, inode: 'file1' }], user: [MAPPED], inodes: [{ inode: 'file0', pages: 4 }] },
      ['map0[1] (file1[2])'],
    ],
    ['file0/direct map', { resident: [{ ...RESIDENT, count: 3 }], absent: [{ frame: 0x41, count: 9 }] }, ['removed']],
    [
      'file0/shares',
      { resident: [RESIDENT], shares: [{ frame: 0x40, sharing: 2, holders: ['gpc0', 'gpc1'] }] },
      ['2 shares: gpc0, gpc1'],
    ],
    ['/page cache', { resident: [RESIDENT] }, ['file0[2]']],
    ['/references', { resident: [{ ...RESIDENT, references: 3 }] }, ['3']],
    ['/free list', { free: [{ frame: 0x40, count: 8 }] }, ['free']],
    ['/lost', { orphans: [{ frame: 0x40, references: 1 }] }, ['in no file, 1 reference']],
    ['/poison', { poisoned: [0x40] }, ['poisoned']],
    ['/in stage 2', { stageTwo: [STAGE_TWO] }, ['vm0 gfn 4, shared (in no file)']],
    ['/in the host', { resident: [RESIDENT], user: [MAPPED] }, ['map0[1]']],
    ['/direct map', { absent: [{ frame: 0x40, count: 2 }] }, ['removed']],
    ['/shares', { shares: [{ frame: 0x40, sharing: 1, holders: [] }] }, ['1 share']],
    ['/stale TLB', { staleTlb: [{ cpu: 3, frame: 0x40, count: 1 }] }, ['CPU 3']],
    [
      '/pfn caches',
      { caches: [{ gpc: 'gpc0', vm: 'vm0', gfn: 4, active: true, valid: true, frame: 0x40 }] },
      ['gpc0, valid'],
    ],
  ])('%s of %j', (lane, seen, expected) => {
    expect(rowOf(seen, lane)).toEqual(expected);
  });

  test('puts what overlaps into rows of its own', () => {
    const slots = [SLOT, { ...SLOT, slot: 2, baseGfn: 5 }, { ...SLOT, slot: 3, baseGfn: 6 }];
    expect(rowsOf([{ target: {} }, { target: { slots } }], 'vm0/slots')).toEqual([
      ['slot 1: file0[2–3]', 'slot 3: file0[2–3]'],
      ['slot 2: file0[2–3]'],
    ]);
  });
});

describe('marks', () => {
  const before: Seen = { resident: [RESIDENT], stageTwo: [STAGE_TWO] };
  const after: Seen = { resident: [RESIDENT], stageTwo: [] };
  const empty: Seen = { resident: [], stageTwo: [] };

  test('show what a command made and what it took away', () => {
    expect(rowsOf([{ target: empty }, { target: before }], 'file0/page cache')).toEqual([['new present (frame 0x40)']]);
    expect(rowsOf([{ target: empty }, { target: before }, { target: after }], 'vm0/stage 2')).toEqual([
      ['gone file0[2], shared (frame 0x40)'],
    ]);
  });

  test('show where the two sides part, in both', () => {
    const moments = [
      { specification: empty, target: empty },
      { specification: before, target: before },
      { specification: after, target: before },
    ];
    expect(rowsOf(moments, 'vm0/stage 2', 'specification')).toEqual([['gone absent file0[2], shared']]);
    expect(rowsOf(moments, 'vm0/stage 2', 'target')).toEqual([['differs file0[2], shared (frame 0x40)']]);
    expect(rowsOf(moments, 'file0/page cache', 'target')).toEqual([['present (frame 0x40)']]);
  });

  test('do not depend on the names that frames have', () => {
    const elsewhere: Seen = {
      resident: [{ ...RESIDENT, frame: 7 }],
      stageTwo: [{ ...STAGE_TWO, frame: 7 }],
    };
    const moments = [
      { specification: empty, target: empty },
      { specification: elsewhere, target: before },
    ];
    expect(rowsOf(moments, 'vm0/stage 2')).toEqual([['new file0[2], shared (frame 0x40)']]);
  });

  test('stand on the part of a stretch that they are about', () => {
    const two = { resident: [{ ...RESIDENT, count: 2 }] };
    expect(rowsOf([{ target: { resident: [] } }, { target: before }, { target: two }], 'file0/page cache')).toEqual([
      ['present (frame 0x40)', 'new present (frame 0x41)'],
    ]);
  });

  test('are not made where one side does not say', () => {
    const moments = [
      { specification: before, target: {} },
      { specification: before, target: before },
    ];
    expect(rowsOf(moments, 'vm0/stage 2')).toEqual([['file0[2], shared (frame 0x40)']]);
  });
});

describe('columns', () => {
  const columnsOf = (moments: readonly Moment[]) => new Stage(moments).panels.map(({ columns }) => columns);

  test('leave out what was there from the start and never changed', () => {
    const arena = { inode: 'arena', page: 0, count: 64, frame: 0 };
    expect(columnsOf([{ target: { resident: [arena] } }, { target: { resident: [arena] } }])).toEqual([]);
    expect(
      columnsOf([{ specification: { resident: [arena] } }, { specification: { resident: [arena, RESIDENT] } }]),
    ).toEqual([[{ start: 2, end: 3 }]]);
  });

  test('leave out what is far between, and are not more than can be looked at', () => {
    const free = Array.from({ length: 200 }, (_each, index) => ({ frame: index * 1e9, count: 1 }));
    const [panel] = new Stage([{ target: {} }, { target: { free } }]).panels;
    expect(panel?.columns).toHaveLength(48);
    expect(panel?.columns[1]).toEqual({ start: 1e9, end: 1e9 + 1 });
    expect(panel?.hidden).toBe(152);
  });
});

describe('facts from anywhere', () => {
  test('are read as far as they are facts, and the rest is named', () => {
    const { seen, notes } = readFacts({
      stageTwo: [STAGE_TWO],
      slots: [{ vm: {} }],
      resident: 'all',
      poisoned: [-1, 0.5],
      new: 1,
    });
    expect(seen).toEqual({ stageTwo: [STAGE_TWO] });
    expect(notes).toEqual(
      ['slots', 'resident', 'poisoned'].map((part) => `The part “${part}” of the facts cannot be read.`),
    );
    expect(readFacts([null]).notes).toEqual(['The facts cannot be read.']);
  });

  test('are read up to a bound', () => {
    const { seen, notes } = readFacts({ poisoned: Array.from({ length: 1000 }, (_each, index) => index) });
    expect(seen.poisoned).toHaveLength(256);
    expect(notes).toEqual(['Of the part “poisoned” of the facts, 744 entries are not drawn.']);
  });

  test('say what happened during the command', () => {
    expect(
      eventsOf({
        firstTouches: [{ inode: 'file0', page: 1, zero: false }],
        shareEvents: [{ event: 'unshare', frame: 0x40 }],
        outOfBounds: ['lpage_info[3]'],
      }),
    ).toEqual([
      'file0[1] is shown for the first time, and is not zero.',
      'kvm_gmem_unshare: frame 0x40.',
      'Out of bounds: lpage_info[3]',
    ]);
  });
});
