/** Every invariant notices what breaks it, and lets pass what merely looks like it. */
import { describe, expect, it } from '@jest/globals';
import _ from 'lodash';
import { mutantById, type Mutant } from '../adapters/mutants/index.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { checkSecrecy, twinOf } from '../conformance/secret.ts';
import { factsOfState } from '../model/facts-of-state.ts';
import type { FactParts, Facts, RecordFact, StatusWorkFact } from '../model/core/facts.ts';
import { headerOf, printProgram } from '../model/core/program.ts';
import {
  brokenBy,
  INVARIANTS,
  invariantsOf,
  isConcededAfter,
  isObservable,
  unseenParts,
} from '../model/invariants/index.ts';
import type { Invariant, Moment } from '../model/invariants/invariant.ts';
import { generated, parse, scenarioTexts, specify } from './support.ts';

const RECORD: RecordFact = { guest: 'guest0', ranges: [{ start: 2, end: 4 }], incomplete: false };
const WORK: StatusWorkFact = { guest: 'guest0', units: 1, bytes: 320, calls: 1, steps: 40 };

/**
 * vm0 shows pages 2 to 5 of file0 at gfn 0x10, private; its first page is mapped in stage 2, its second in the host. The
 * file is out of the direct map, but for the second page, which gpc0 shares. vm0 has key 1, and vm1 is a mirror of it.
 */
const SOUND = {
  vms: [{ vm: 'vm0' }, { vm: 'vm1' }],
  private: [{ vm: 'vm0', start: 0x10, end: 0x14 }],
  files: [
    { file: 'file0', vm: 'vm0', inode: 'file0' },
    { file: 'file1', vm: 'vm1', inode: 'file0' },
  ],
  inodes: [{ inode: 'file0', pages: 8, noDirectMap: true }],
  slots: [
    {
      vm: 'vm0',
      slot: 0,
      baseGfn: 0x10,
      pages: 4,
      gmem: true,
      file: 'file0',
      firstPage: 2,
      hostPage: 0x200,
    },
  ],
  bindings: [{ file: 'file0', start: 2, end: 6, vm: 'vm0', slot: 0, live: true }],
  resident: [
    { inode: 'file0', page: 2, frame: 100, count: 1, references: 1 },
    { inode: 'file0', page: 3, frame: 101, count: 1, references: 2 },
  ],
  stageTwo: [{ vm: 'vm0', gfn: 0x10, frame: 100, count: 1, private: true }],
  user: [{ mapping: 'map0', page: 1, count: 1, inode: 'file0', inodePage: 3, frame: 101, hostPage: 0x201 }],
  poisoned: [],
  free: [{ frame: 102, count: 1 }],
  orphans: [],
  firstTouches: [{ inode: 'file0', page: 2, zero: true }],
  outOfBounds: [],
  absent: [{ frame: 100, count: 1 }],
  unremoved: [],
  shares: [{ frame: 101, sharing: 1, holders: ['gpc0'] }],
  staleTlb: [],
  caches: [{ gpc: 'gpc0', vm: 'vm0', gfn: 0x11, active: true, valid: true, frame: 101 }],
  hvaCaches: [{ ghc: 'ghc0', vm: 'vm0', gfn: 0x11, valid: true, hostPage: 0x201 }],
  shareEvents: [],
  tdPages: [{ vm: 'vm0', gfn: 0x10, frame: 100, key: 1, state: 'mapped' }],
  lines: [{ frame: 100, line: 0, state: 'foreign' }],
  keys: [
    { key: 1, state: 'assigned', vm: 'vm0', flushed: true },
    { key: 2, state: 'leaked', vm: 'vm2', flushed: false },
  ],
  hostMaps: [{ vm: 'vm0', gfn: 0x11, frame: 101, by: 'user' }],
  hostWrites: [],
  consumptions: [],
  announced: [{ guest: 'guest0', ranges: [{ start: 2, end: 4 }] }],
  records: [RECORD],
  statusWork: [WORK],
  keyUsers: [
    { vm: 'vm0', key: 1 },
    { vm: 'vm1', key: 1, owner: 'vm0' },
  ],
  regions: [
    { vm: 'vm0', start: 0, end: 2 },
    { vm: 'vm0', start: 1, end: 2 },
  ],
  pins: [
    { page: 0, count: 1 },
    { page: 1, count: 2 },
  ],
  stretches: [{ vm: 'vm2', regions: 1 }],
  saveAreas: [{ vm: 'vm0', vcpu: 0, stale: false }],
  guests: [
    { vm: 'vm0', state: 'running', disturbed: true, reboots: 0, replaced: 0 },
    { vm: 'vm1', state: 'running', disturbed: false, reboots: 0, replaced: 0 },
  ],
  cpus: [
    { vm: 'vm0', cpu: 0, stage: 'machine-check', work: 'none', checks: 0 },
    { vm: 'vm0', cpu: 1, stage: 'runs', work: 'recover', checks: 10 },
    { vm: 'vm1', cpu: 0, stage: 'runs', work: 'none', checks: 0 },
  ],
  tasks: [
    { vm: 'vm0', task: 0, alive: false },
    { vm: 'vm1', task: 0, alive: true },
  ],
  guestPages: [
    { vm: 'vm0', gfn: 0x10, use: 'anon', poisoned: true, oneToOne: 'absent', shownTo: [], poisonFor: [0] },
    { vm: 'vm0', gfn: 0x11, use: 'anon', poisoned: false, oneToOne: 'present', shownTo: [1], poisonFor: [] },
  ],
  backing: [
    { vm: 'vm0', gfn: 0x10, frame: 100, taken: false },
    { vm: 'vm0', gfn: 0x12, taken: true },
  ],
  touches: [{ vm: 'vm0', gfn: 0x12, line: 0, by: 'task', how: 'load', comesTo: 'machine-check' }],
  cached: [{ frame: 100, line: 1, state: 'clean' }],
  isolations: [{ vm: 'vm0', gfn: 0x10, touched: 0 }],
  endings: [],
} satisfies Facts;

const [SLOT] = SOUND.slots;
const [BINDING] = SOUND.bindings;
const [ENTRY] = SOUND.stageTwo;
const [USER] = SOUND.user;
const [CACHE] = SOUND.caches;
const [HVA_CACHE] = SOUND.hvaCaches;
if (SLOT === undefined || BINDING === undefined || ENTRY === undefined || USER === undefined || CACHE === undefined)
  throw new Error('unsound');
if (HVA_CACHE === undefined) throw new Error('unsound');

/** Parts that only profiles about the direct map have. */
const DIRECT_MAP = ['absent', 'unremoved', 'shares', 'staleTlb', 'caches', 'hvaCaches', 'shareEvents'] as const;

/** Parts that only profiles about records of shared pages, about keys of SEV, or about TDs have. */
const OF_STATUS = ['announced', 'records', 'statusWork'] as const;
const OF_SEV = ['keyUsers', 'regions', 'pins', 'stretches', 'saveAreas'] as const;
const OF_TDS = ['tdPages', 'lines', 'keys', 'hostMaps', 'hostWrites', 'consumptions'] as const;

/** Parts that only profiles about machine checks have. */
const OF_MACHINE_CHECKS = [
  'guests',
  'cpus',
  'tasks',
  'guestPages',
  'backing',
  'cached',
  'touches',
  'isolations',
  'endings',
] as const;

const [BAD_PAGE, PAGE] = SOUND.guestPages;
const [HANDLING, WORKING, CPU] = SOUND.cpus;
const [, BYSTANDER] = SOUND.guests;
const [TOUCH] = SOUND.touches;
const [BACKED, TAKEN] = SOUND.backing;
if (BAD_PAGE === undefined || PAGE === undefined || HANDLING === undefined || WORKING === undefined)
  throw new Error('unsound');
if (CPU === undefined || BYSTANDER === undefined || TOUCH === undefined || BACKED === undefined || TAKEN === undefined)
  throw new Error('unsound');

const [TD_PAGE] = SOUND.tdPages;
const [KEY, LEAKED] = SOUND.keys;
const [OWNER, MIRROR] = SOUND.keyUsers;
if (TD_PAGE === undefined || KEY === undefined || LEAKED === undefined) throw new Error('unsound');
if (OWNER === undefined || MIRROR === undefined) throw new Error('unsound');

/** As a target reports them that cannot see frames. */
const FRAMELESS: Partial<Facts> = { stageTwo: [], caches: [], resident: [{ inode: 'file0', page: 2, count: 2 }] };

interface Case {
  readonly after: Partial<Facts>;
  readonly before?: Partial<Facts>;
  readonly failed?: boolean;
}

const SECOND_SLOT = { ...SLOT, slot: 1, baseGfn: 0x20 };
const SECOND_BINDING = { ...BINDING, slot: 1 };

/** For each invariant, what breaks it and what is said then. */
const BROKEN: readonly (readonly [string, RegExp, Case])[] = [
  [
    'poison/never-remapped',
    /^the VMM has gfn 0x11 of vm0 mapped, which is the poisoned frame 0x65$/,
    { after: { poisoned: [101], user: [], stageTwo: [] } },
  ],
  [
    'poison/never-remapped',
    /^task 1 has gfn 0x11 of vm0 mapped, which its kernel knows to be poisoned$/,
    { after: { guestPages: [BAD_PAGE, { ...PAGE, poisoned: true }] } },
  ],
  [
    'poison/answered-by-mce',
    /^a flush of gfn 0x12 of vm0, which is poisoned, by a task, came to a skipped$/,
    { after: { touches: [TOUCH, { ...TOUCH, how: 'flush', comesTo: 'skipped' }] } },
  ],
  [
    'poison/answered-by-mce',
    /^CPU 0 of vm0 had left the guest for a touch of poison, and runs without a machine check$/,
    { before: { cpus: [{ ...HANDLING, stage: 'vmm' }] }, after: { cpus: [{ ...HANDLING, stage: 'runs' }] } },
  ],
  [
    'poison/isolate-untouched',
    /^isolating gfn 0x12 of vm0, which the host has taken, touched 1 of its lines$/,
    { after: { isolations: [{ vm: 'vm0', gfn: 0x12, touched: 1 }] } },
  ],
  [
    'poison/isolated',
    /^gfn 0x10 of vm0 was isolated, and the 1:1 map shows it as before$/,
    { after: { guestPages: [{ ...BAD_PAGE, oneToOne: 'present' }, PAGE] } },
  ],
  [
    'poison/uncached',
    /^gfn 0x10 of vm0 is uncacheable, and a cache has line 1 of it$/,
    { after: { guestPages: [{ ...BAD_PAGE, oneToOne: 'uncacheable' }, PAGE] } },
  ],
  [
    'poison/contained',
    /^vm0 panicked because it consumed poison while it isolated the page$/,
    { after: { endings: [{ vm: 'vm0', by: 'panic', of: 0x10, how: 'isolate' }] } },
  ],
  [
    'poison/contained',
    /^task 0 of vm0 was killed for a page that it does not have$/,
    { before: {}, after: { endings: [{ vm: 'vm0', task: 0, by: 'signal', of: 0x11 }] } },
  ],
  [
    'poison/carried',
    /^gfn 0x12 of vm0 was taken, and is there again, although nobody replaced it$/,
    { before: {}, after: { backing: [BACKED, { ...TAKEN, frame: 105, taken: false }] } },
  ],
  [
    'poison/others-go-on',
    /^vm1 is panicked, and nothing bad was its own$/,
    { after: { guests: [{ ...BYSTANDER, state: 'panicked' }] } },
  ],
  [
    'poison/others-go-on',
    /^CPU 0 of vm1 does not go on, and nothing bad is its own$/,
    { after: { cpus: [{ ...CPU, stage: 'vmm' }] } },
  ],
  [
    'poison/others-go-on',
    /^task 0 of vm1 was killed, and nothing bad is its own$/,
    { after: { tasks: [{ vm: 'vm1', task: 0, alive: false }] } },
  ],
  [
    'poison/bounded',
    /^CPU 1 of vm0 took 11 machine checks, and its task did not go on$/,
    { after: { cpus: [HANDLING, { ...WORKING, checks: 11 }, CPU] } },
  ],
  [
    'td/no-host-write',
    /^the host stored to line 1 of frame 0x64, which is TD-private, by way of direct$/,
    { after: { hostWrites: [{ frame: 100, line: 1, via: 'direct' }] } },
  ],
  [
    'td/no-user-write',
    /^the host stored to line 0 of frame 0x64, which is TD-private, by way of dma$/,
    { after: { hostWrites: [{ frame: 100, line: 0, via: 'dma' }] } },
  ],
  [
    'shared/complete-or-flagged',
    /^guest0 shares 0x2-0x4, and what is recorded is nothing, without the mark$/,
    { after: { records: [{ ...RECORD, ranges: [] }] } },
  ],
  [
    'shared/canonical',
    /^of what is recorded of guest0, range 4 to 4 is empty$/,
    { after: { records: [{ ...RECORD, ranges: [{ start: 4, end: 4 }] }] } },
  ],
  [
    'shared/canonical',
    /^the record of guest0 is incomplete, and has 0x2-0x4 all the same$/,
    { after: { records: [{ ...RECORD, incomplete: true }] } },
  ],
  [
    'shared/bounded',
    /^the record of guest0 takes 321 bytes, of 320 that 1 units may take$/,
    { after: { statusWork: [{ ...WORK, bytes: 321 }] } },
  ],
  [
    'shared/bounded',
    /^1 calls of guest0 took 41 steps, of 40 that 1 units may take$/,
    { after: { statusWork: [{ ...WORK, steps: 41 }] } },
  ],
  [
    'td/not-mapped-by-host',
    /^a mapping of a device, of gfn 0x10 of vm0, shows frame 0x64, which is private to vm0$/,
    { after: { hostMaps: [{ vm: 'vm0', gfn: 0x10, frame: 100, by: 'dma' }] } },
  ],
  [
    'poison/contained',
    /^the guest consumed poison where the core could go on, and that ended the machine$/,
    { after: { vms: [], consumptions: [{ by: 'guest', ended: 'machine', recoverable: true }] } },
  ],
  [
    'poison/contained',
    /^poison ended the machine, and vm0 is there still$/,
    { after: { consumptions: [{ by: 'kernel', ended: 'machine', recoverable: true }] } },
  ],
  [
    'key/one-owner',
    /^frame 0x64, gfn 0x10 of vm0, is under key 1, which is vm1’s$/,
    { after: { keys: [{ ...KEY, vm: 'vm1' }] } },
  ],
  [
    'key/one-owner',
    /^key 2 is free, and a cache holds lines under it$/,
    { after: { keys: [KEY, { key: 2, state: 'free', flushed: false }] } },
  ],
  ['key/one-owner', /^keys 1 and 2 are both vm0’s$/, { after: { keys: [KEY, { ...KEY, key: 2 }] } }],
  [
    'key/one-owner',
    /^key 2 was leaked by vm2, and is in use again$/,
    { before: { keys: [KEY, LEAKED] }, after: { keys: [KEY, { ...KEY, key: 2, vm: 'vm1' }] } },
  ],
  [
    'key/one-owner',
    /^key 1 is vm0’s, and a cache holds lines that another wrote under it$/,
    { after: { keys: [{ ...KEY, flushed: false }] } },
  ],
  ['key/one-owner', /^vm1 uses key 2, which is nobody’s$/, { after: { keyUsers: [OWNER, { vm: 'vm1', key: 2 }] } }],
  ['key/one-owner', /^key 1 is vm0’s, who does not use it$/, { after: { keyUsers: [MIRROR] } }],
  [
    'key/helper-within-owner',
    /^vm1 uses key 1 as a mirror of vm2, which is gone$/,
    { after: { keyUsers: [OWNER, { ...MIRROR, owner: 'vm2' }] } },
  ],
  [
    'key/helper-within-owner',
    /^vm1 uses key 1 as a mirror of vm0, which does not own it$/,
    { after: { keyUsers: [{ ...OWNER, key: 2 }, MIRROR] } },
  ],
  [
    'key/helper-within-owner',
    /^vm2 uses key 1 as a mirror of vm1, which does not own it$/,
    {
      after: {
        vms: [{ vm: 'vm0' }, { vm: 'vm1' }, { vm: 'vm2' }],
        keyUsers: [OWNER, MIRROR, { vm: 'vm2', key: 1, owner: 'vm1' }],
      },
    },
  ],
  [
    'key/pins-balanced',
    /^page 0x1 of the arena is in 1 regions, and pinned 2 times$/,
    { after: { regions: [{ vm: 'vm0', start: 0, end: 2 }] } },
  ],
  [
    'key/pins-balanced',
    /^page 0x0 of the arena is in 1 regions, and pinned 0 times$/,
    { after: { pins: [{ page: 1, count: 2 }] } },
  ],
  [
    'key/end-yields',
    /^2 regions of vm2 were given back before anybody else could run$/,
    { after: { stretches: [{ vm: 'vm2', regions: 2 }] } },
  ],
  [
    'key/save-area-stable',
    /^vCPU 1 of vm0 has other registers than those that were encrypted$/,
    { after: { saveAreas: [{ vm: 'vm0', vcpu: 1, stale: true }] } },
  ],
  [
    'memory/free-is-present',
    /^frame 0x67 is on the free list although it belongs to vm0$/,
    { after: { free: [{ frame: 103, count: 1 }], tdPages: [{ ...TD_PAGE, frame: 103 }] } },
  ],
  [
    'memory/free-is-present',
    /^frame 0x66 is on the free list although line 1 of it is keyed$/,
    { after: { lines: [{ frame: 102, line: 1, state: 'keyed' }] } },
  ],
  [
    'attributes/one-world',
    /^gfn 0x14 of vm0 is shared, and its page belongs to the TD$/,
    { after: { tdPages: [{ ...TD_PAGE, gfn: 0x14 }] } },
  ],
  [
    'gmem/never-rebinds',
    /^file0 belonged to vm1 and now belongs to vm0$/,
    { before: { files: [{ file: 'file0', vm: 'vm1', inode: 'file0' }] }, after: {} },
  ],
  [
    'gmem/never-rebinds',
    /^slot 0 of vm0 is bound to file1, which was created for vm1$/,
    { after: { slots: [{ ...SLOT, file: 'file1' }] } },
  ],
  [
    'gmem/never-rebinds',
    /^file1, which was created for vm1, binds slot 0 of vm0$/,
    { after: { bindings: [{ ...BINDING, file: 'file1' }] } },
  ],
  [
    'gmem/one-slot-per-page',
    /^pages 0x5 of file0 are bound to slots 0 and 1$/,
    { after: { bindings: [BINDING, { ...SECOND_BINDING, start: 5, end: 6 }] } },
  ],
  [
    'gmem/one-slot-per-page',
    /^slot 0 is bound to pages 0x2 to 0x9 of file0, which has 0x8$/,
    { after: { bindings: [{ ...BINDING, end: 9 }] } },
  ],
  ['gmem/file-pins-vm', /^file0 outlives vm0$/, { after: { vms: [{ vm: 'vm1' }] } }],
  [
    'gmem/file-pins-vm',
    /^slot 0 of vm0 refers to file2, which is gone$/,
    { after: { slots: [{ ...SLOT, file: 'file2' }] } },
  ],
  [
    'gmem/bindings-match-slots',
    /^file0 binds slot 0 of vm0, which is gone$/,
    { after: { slots: [], bindings: [{ ...BINDING, live: false }] } },
  ],
  [
    'gmem/bindings-match-slots',
    /^file0 binds pages 0x2 to 0x6 to slot 0 of vm0, which shows something else$/,
    { after: { slots: [{ ...SLOT, firstPage: 3 }] } },
  ],
  [
    'gmem/bindings-match-slots',
    /^slot 0 of vm0 refers to file0, which has no binding for it$/,
    { after: { bindings: [] } },
  ],
  [
    'gmem/slot-immutable',
    /^slot 0 of vm0 lost GUEST_MEMFD without being deleted$/,
    { after: { slots: [{ ...SLOT, gmem: false, file: undefined }] } },
  ],
  [
    'gmem/slot-immutable',
    /^slot 0 of vm0 gained GUEST_MEMFD without being deleted$/,
    { before: { slots: [{ ...SLOT, gmem: false }] }, after: {} },
  ],
  [
    'gmem/slot-immutable',
    /^slot 0 of vm0 changed without being deleted$/,
    { after: { slots: [{ ...SLOT, baseGfn: 0x20 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^gfn 0x11 of vm0 shows frame 0x66, which was freed or given to another owner$/,
    { after: { stageTwo: [{ ...ENTRY, gfn: 0x11, frame: 102 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^page 0x2 of map0 is mapped, and page 0x4 of file0, which it shows, was freed$/,
    { after: { user: [{ ...USER, count: 2 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^page 0x1 of map0 shows frame 0x66, and page 0x3 of file0 is in frame 0x65$/,
    { after: { user: [{ ...USER, frame: 102 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^map0 and map1 show one page as two frames$/,
    { after: { ...FRAMELESS, user: [USER, { ...USER, mapping: 'map1', frame: 102 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^map0 and map1 show one frame as two pages$/,
    { after: { ...FRAMELESS, user: [USER, { ...USER, mapping: 'map1', inodePage: 2 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^gfn 0x10 of vm0 shows page 0x3 of file0, not the page that its slot is bound to$/,
    { after: { stageTwo: [{ ...ENTRY, frame: 101 }] } },
  ],
  ['memory/no-stale-mapping', /^gfn 0x10 of vm0 is mapped, and no slot shows it$/, { after: { slots: [] } }],
  [
    'memory/no-stale-mapping',
    /^gfn 0x10 of vm0 is mapped, and its slot has no file$/,
    { after: { slots: [{ ...SLOT, file: undefined }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^gfn 0x10 of vm0 shows frame 0x64, which is free$/,
    { after: { free: [{ frame: 99, count: 2 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^the dma mapping of gfn 0x10 of vm0 shows frame 0x66, which is free$/,
    { after: { hostMaps: [{ vm: 'vm0', gfn: 0x10, frame: 102, by: 'dma' }] } },
  ],
  [
    'memory/free-is-present',
    /^frame 0x66 is on the free list although it is poisoned$/,
    { after: { poisoned: [102] } },
  ],
  [
    'memory/free-is-present',
    /^frame 0x64 is on the free list although it holds a page$/,
    { after: { free: [{ frame: 99, count: 2 }] } },
  ],
  [
    'memory/fresh-is-zero',
    /^page 0x2 of file0 was shown for the first time with something in it$/,
    { after: { firstTouches: [{ inode: 'file0', page: 2, zero: false }] } },
  ],
  [
    'memory/references-balanced',
    /^frame 0x67 holds no page and is not free: 1 references are left$/,
    { after: { orphans: [{ frame: 103, references: 1 }] } },
  ],
  [
    'memory/references-balanced',
    /^page 0x3 of file0 has 2 references; its file and 0 mappings explain 1$/,
    { after: { user: [] } },
  ],
  ['memory/in-bounds', /^index 3 of 2$/, { after: { outOfBounds: ['index 3 of 2'] } }],
  ['poison/never-remapped', /^gfn 0x10 of vm0 shows the poisoned frame 0x64$/, { after: { poisoned: [100] } }],
  ['poison/never-remapped', /^page 0x1 of map0 shows the poisoned frame 0x65$/, { after: { poisoned: [101] } }],
  [
    'attributes/one-world',
    /^gfn 0x10 of vm0 is private, and stage 2 maps it as shared$/,
    { after: { stageTwo: [{ ...ENTRY, private: false }] } },
  ],
  [
    'attributes/one-world',
    /^gfn 0x10 of vm0 is shared, and stage 2 maps it as private$/,
    { after: { private: [{ vm: 'vm0', start: 0x11, end: 0x14 }] } },
  ],
  [
    'attributes/one-world',
    /^gfn 0x10 of vm0 is mixed, and stage 2 maps it as private$/,
    { after: { private: [{ vm: 'vm0', start: 0x10, end: 0x11 }], stageTwo: [{ ...ENTRY, count: 2 }] } },
  ],
  [
    'memory/no-stale-mapping',
    /^gpc0 is valid and points at frame 0x66, which was freed or given to another owner$/,
    { after: { caches: [{ ...CACHE, frame: 102 }] } },
  ],
  [
    'memory/free-is-present',
    /^frame 0x66 is on the free list although the direct map does not show it$/,
    { after: { absent: [{ frame: 100, count: 3 }] } },
  ],
  [
    'memory/free-is-present',
    /^frame 0x66 is on the free list although it is shared$/,
    { after: { shares: [{ frame: 102, sharing: 1, holders: ['gpc0'] }] } },
  ],
  [
    'direct-map/balanced',
    /^frame 0x65 is shared 2 times, by gpc0$/,
    { after: { shares: [{ frame: 101, sharing: 2, holders: ['gpc0'] }] } },
  ],
  [
    'direct-map/balanced',
    /^frame 0x65 is shared -1 times, by no cache$/,
    { after: { shares: [{ frame: 101, sharing: -1, holders: [] }] } },
  ],
  [
    'direct-map/balanced',
    /^gpc0 has a share of frame 0x65, which does not back its guest address any more$/,
    { after: { slots: [] } },
  ],
  [
    'direct-map/balanced',
    /^gpc0 has a share of frame 0x65, which does not back its guest address any more$/,
    { after: { caches: [{ gpc: 'gpc0', vm: 'vm0', gfn: 0x10, active: true, valid: false }] } },
  ],
  [
    'direct-map/balanced',
    /^frame 0x65 is shared by gpc0, and the direct map does not show it$/,
    { after: { absent: [{ frame: 100, count: 2 }] } },
  ],
  [
    'direct-map/balanced',
    /^page 0x2 of file0 is back in the direct map, and nobody shares it$/,
    { after: { absent: [], stageTwo: [] } },
  ],
  [
    'direct-map/balanced',
    /^page 0x3 of file0 is back in the direct map, and nobody shares it$/,
    { after: { shares: [], user: [] } },
  ],
  [
    'direct-map/balanced',
    /^page 0x2 of file0 is in use, and the direct map shows it$/,
    { before: { absent: [] }, after: { absent: [] } },
  ],
  [
    'direct-map/resident-is-absent',
    /^the direct map shows page 0x2 of file0, and nobody shares it$/,
    { after: { absent: [] } },
  ],
  [
    'direct-map/unreachable',
    /^the TLB of CPU 1 shows frame 0x64, which was taken out of the direct map$/,
    { after: { staleTlb: [{ cpu: 1, frame: 100, count: 1 }] } },
  ],
  [
    'direct-map/traced',
    /^frame 0x65 was shared 1 times and is 0 times; the trace explains 0$/,
    { after: { shares: [] } },
  ],
  [
    'direct-map/traced',
    /^frame 0x65 was shared 1 times and is 1 times; the trace explains 1$/,
    { after: { shareEvents: [{ event: 'share', frame: 101 }] } },
  ],
  ['pfncache/valid-is-current', /^gpc0 is valid and not active$/, { after: { caches: [{ ...CACHE, active: false }] } }],
  [
    'pfncache/valid-is-current',
    /^gpc0 is valid and points at nothing$/,
    { after: { caches: [{ ...CACHE, frame: undefined }] } },
  ],
  [
    'pfncache/valid-is-current',
    /^gpc0 is valid and points at frame 0x64, which does not back gfn 0x11 of vm0$/,
    { after: { caches: [{ ...CACHE, frame: 100 }] } },
  ],
  [
    'pfncache/valid-is-current',
    /^gpc0 is valid and points at frame 0x65, which does not back gfn 0x11 of vm0$/,
    { after: { private: [], user: [] } },
  ],
  [
    'pfncache/valid-is-current',
    /^gpc0 is valid and points at frame 0x65, which the direct map does not show$/,
    { after: { absent: [{ frame: 100, count: 2 }] } },
  ],
  [
    'pfncache/valid-is-current',
    /^gpc0 is valid and points at frame 0x65, which does not back gfn 0x11 of vm0$/,
    { after: { private: [], slots: [{ ...SLOT, hostPage: 0x201 }] } },
  ],
  [
    'pfncache/valid-is-current',
    /^gpc0 is valid and points at frame 0x65, which does not back gfn 0x11 of vm0$/,
    { after: { private: [], slots: [] } },
  ],
  [
    'hva-cache/valid-is-current',
    /^ghc0 keeps a host address for gfn 0x11 of vm0, which is in no slot$/,
    { after: { slots: [] } },
  ],
  [
    'hva-cache/valid-is-current',
    /^ghc0 keeps host page 0x201 for gfn 0x11 of vm0, which its slot has at 0x205$/,
    { after: { slots: [{ ...SLOT, hostPage: 0x204 }] } },
  ],
  [
    'hva-cache/valid-is-current',
    /^ghc0 keeps host page 0x200 for gfn 0x11 of vm0, which its slot has at 0x201$/,
    { after: { hvaCaches: [{ ...HVA_CACHE, hostPage: 0x200 }] } },
  ],
  ...(['vms', 'private', 'files', 'inodes', 'slots', 'bindings', 'resident'] as const).map(
    (part): readonly [string, RegExp, Case] => [
      'errors/no-effect',
      new RegExp(`^the command failed, and these changed: ${part}$`),
      { failed: true, after: { [part]: [] } },
    ],
  ),
  ['errors/no-effect', /these changed: poisoned$/, { failed: true, after: { poisoned: [7] } }],
  ['errors/no-effect', /these changed: stageTwo$/, { failed: true, after: { stageTwo: [{ ...ENTRY, frame: 101 }] } }],
];

/** Much the same, and right. */
const KEPT: readonly (readonly [string, string, Case])[] = [
  ['td/no-host-write', 'a page that nobody wrote to', { after: { hostWrites: [] } }],
  ['td/no-user-write', 'a store of the kernel', { after: { hostWrites: [{ frame: 100, line: 0, via: 'direct' }] } }],
  [
    'shared/complete-or-flagged',
    'a record that has the mark',
    { after: { records: [{ ...RECORD, ranges: [], incomplete: true }] } },
  ],
  [
    'shared/canonical',
    'ranges with a frame between them',
    {
      after: {
        records: [
          {
            ...RECORD,
            ranges: [
              { start: 2, end: 4 },
              { start: 5, end: 6 },
            ],
          },
        ],
      },
    },
  ],
  ['shared/bounded', 'a guest that called nobody', { after: { statusWork: [{ ...WORK, calls: 0, steps: 0 }] } }],
  [
    'td/not-mapped-by-host',
    'a mapping of a page that was exported',
    {
      after: {
        tdPages: [{ ...TD_PAGE, state: 'exported' }],
        hostMaps: [{ vm: 'vm0', gfn: 0x10, frame: 100, by: 'user' }],
      },
    },
  ],
  [
    'poison/contained',
    'a machine that a core took down which could not go on',
    { after: { vms: [], consumptions: [{ by: 'guest', ended: 'machine', recoverable: false }] } },
  ],
  ['poison/never-remapped', 'a poison entry', { after: { poisoned: [100], stageTwo: [] } }],
  [
    'poison/contained',
    'a task that is killed for a page of its own',
    { before: {}, after: { endings: [{ vm: 'vm0', task: 0, by: 'signal', of: 0x10 }] } },
  ],
  [
    'poison/contained',
    'a panic of a kernel that loaded what was bad',
    { after: { endings: [{ vm: 'vm0', by: 'panic', of: 0x10, how: 'load' }] } },
  ],
  [
    'poison/answered-by-mce',
    'a device that is told of a fault',
    { after: { touches: [{ ...TOUCH, by: 'device', comesTo: 'fault' }] } },
  ],
  [
    'poison/answered-by-mce',
    'a CPU that was given a machine check',
    { before: { cpus: [{ ...HANDLING, stage: 'vmm' }] }, after: {} },
  ],
  [
    'poison/answered-by-mce',
    'a CPU of a guest that was rebooted',
    {
      before: { cpus: [{ ...HANDLING, stage: 'host-work' }] },
      after: {
        guests: [{ vm: 'vm0', state: 'running', disturbed: true, reboots: 1, replaced: 0 }, BYSTANDER],
        cpus: [{ ...HANDLING, stage: 'runs' }],
      },
    },
  ],
  [
    'poison/isolate-untouched',
    'a flush of a page that is there',
    { after: { isolations: [{ vm: 'vm0', gfn: 0x10, touched: 2 }] } },
  ],
  ['poison/isolated', 'an uncacheable entry', { after: { guestPages: [{ ...BAD_PAGE, oneToOne: 'uncacheable' }] } }],
  [
    'poison/uncached',
    'a page that the host has taken, whose lines are not the guest’s to flush',
    {
      after: {
        guestPages: [{ ...BAD_PAGE, oneToOne: 'uncacheable' }, PAGE],
        backing: [{ ...BACKED, taken: true }],
      },
    },
  ],
  ['poison/carried', 'a frame that was unplugged', { before: {}, after: { backing: [BACKED] } }],
  [
    'poison/carried',
    'a frame that was replaced when the guest was rebooted',
    {
      before: {},
      after: {
        guests: [{ vm: 'vm0', state: 'running', disturbed: true, reboots: 1, replaced: 1 }, BYSTANDER],
        backing: [BACKED, { ...TAKEN, frame: 105, taken: false }],
      },
    },
  ],
  [
    'poison/others-go-on',
    'a guest that ended for what was its own',
    { after: { guests: [{ vm: 'vm0', state: 'panicked', disturbed: true, reboots: 0, replaced: 0 }, BYSTANDER] } },
  ],
  ['poison/bounded', 'a tenth machine check', { after: { cpus: [HANDLING, { ...WORKING, checks: 10 }] } }],
  [
    'key/one-owner',
    'pages where keys have no numbers',
    { after: { keys: [], keyUsers: [], tdPages: [{ ...TD_PAGE, key: 0 }] } },
  ],
  [
    'key/one-owner',
    'a key that waits for its flush',
    { after: { keys: [KEY, { key: 2, state: 'reclaim', flushed: false }] } },
  ],
  ['key/helper-within-owner', 'an owner without mirrors', { after: { keyUsers: [OWNER] } }],
  ['key/pins-balanced', 'a VM without regions', { after: { regions: [], pins: [] } }],
  ['key/end-yields', 'a VM that ends without regions', { after: { stretches: [] } }],
  ['key/save-area-stable', 'a vCPU that nobody encrypted', { after: { saveAreas: [] } }],
  ['gmem/never-rebinds', 'a slot that refers to no file', { after: { slots: [{ ...SLOT, file: undefined }] } }],
  [
    'gmem/one-slot-per-page',
    'bindings that touch',
    { after: { bindings: [BINDING, { ...SECOND_BINDING, start: 6, end: 8 }] } },
  ],
  [
    'gmem/one-slot-per-page',
    'two files of an inode with a page each way',
    { after: { bindings: [BINDING, { ...SECOND_BINDING, file: 'file1', vm: 'vm1' }] } },
  ],
  [
    'gmem/file-pins-vm',
    'a VM that ends together with its file',
    { after: { files: [], vms: [], slots: [], bindings: [] } },
  ],
  [
    'gmem/bindings-match-slots',
    'a slot whose file is gone',
    { after: { slots: [SLOT, { ...SECOND_SLOT, file: undefined }] } },
  ],
  ['gmem/slot-immutable', 'a slot that is deleted', { after: { slots: [] } }],
  [
    'gmem/slot-immutable',
    'a slot of host memory that moves',
    {
      before: { slots: [{ ...SLOT, gmem: false, file: undefined }] },
      after: { slots: [{ ...SLOT, gmem: false, file: undefined, baseGfn: 0x20 }] },
    },
  ],
  [
    'memory/no-stale-mapping',
    'a shared entry that shows host memory',
    { after: { stageTwo: [{ ...ENTRY, frame: 101, private: false }] } },
  ],
  [
    'memory/no-stale-mapping',
    'mappings of pages whose frames are not known',
    { after: { ...FRAMELESS, user: [{ ..._.omit(USER, 'frame'), inodePage: 2, count: 2 }] } },
  ],
  [
    'memory/no-stale-mapping',
    'two mappings of one page, and of neighbours',
    {
      after: {
        ...FRAMELESS,
        user: [USER, { ...USER, mapping: 'map1' }, { ...USER, mapping: 'map2', inodePage: 2, frame: 100 }],
      },
    },
  ],
  ['memory/free-is-present', 'a poisoned frame that is not free', { after: { poisoned: [100, 103] } }],
  ['memory/fresh-is-zero', 'nothing that was touched', { after: { firstTouches: [] } }],
  [
    'memory/references-balanced',
    'a page that two mappings show',
    {
      after: {
        user: [USER, { ...USER, mapping: 'map1' }],
        resident: [{ inode: 'file0', page: 3, frame: 101, count: 1, references: 3 }],
      },
    },
  ],
  ['memory/in-bounds', 'nothing out of bounds', { after: { outOfBounds: [] } }],
  ['poison/never-remapped', 'a poisoned frame that nothing shows', { after: { poisoned: [102] } }],
  [
    'attributes/one-world',
    'an entry within a private run',
    { after: { stageTwo: [{ ...ENTRY, gfn: 0x12, count: 2 }] } },
  ],
  [
    'memory/no-stale-mapping',
    'a cache that is not valid and still points at a page that is gone',
    { after: { caches: [{ ...CACHE, valid: false, frame: 102 }] } },
  ],
  ['memory/free-is-present', 'an absent frame that is not free', { after: { absent: [{ frame: 100, count: 2 }] } }],
  [
    'direct-map/balanced',
    'a page of a guest frame that is not private any more, until the cache is refreshed',
    { after: { private: [], caches: [{ gpc: 'gpc0', vm: 'vm0', gfn: 0x11, active: true, valid: false }] } },
  ],
  [
    'direct-map/balanced',
    'a page that two caches share',
    { after: { shares: [{ frame: 101, sharing: 2, holders: ['gpc0', 'gpc1'] }] } },
  ],
  [
    'direct-map/balanced',
    'a page that was allocated and that nobody has used',
    { before: { resident: [], absent: [] }, after: { absent: [], stageTwo: [] } },
  ],
  [
    'direct-map/balanced',
    'a page of another number that took the frame of one that is gone',
    {
      after: {
        resident: [
          { inode: 'file0', page: 7, frame: 100, count: 1 },
          { inode: 'file0', page: 3, frame: 101, count: 1 },
        ],
        absent: [],
        stageTwo: [],
        user: [],
      },
    },
  ],
  [
    'direct-map/resident-is-absent',
    'a page that could not leave, and that nobody has',
    { after: { absent: [], unremoved: [{ frame: 100, count: 1 }], stageTwo: [] } },
  ],
  [
    'direct-map/balanced',
    'a page that never was out, and that nobody has',
    { before: { absent: [] }, after: { absent: [], unremoved: [{ frame: 100, count: 1 }], stageTwo: [] } },
  ],
  [
    'direct-map/resident-is-absent',
    'a file that is in the direct map',
    { after: { absent: [], shares: [], inodes: [{ inode: 'file0', pages: 8, noDirectMap: false }] } },
  ],
  ['direct-map/unreachable', 'TLBs that show nothing', { after: { staleTlb: [] } }],
  [
    'direct-map/traced',
    'a short access, which shares and unshares',
    {
      after: {
        shareEvents: [
          { event: 'share', frame: 100 },
          { event: 'unshare', frame: 100 },
        ],
      },
    },
  ],
  [
    'direct-map/traced',
    'a page that took its share with it',
    { after: { shares: [], resident: [{ inode: 'file0', page: 2, frame: 100, count: 1 }] } },
  ],
  [
    'pfncache/valid-is-current',
    'a cache that is not valid',
    { after: { caches: [{ ...CACHE, valid: false, frame: 100 }] } },
  ],
  ['pfncache/valid-is-current', 'a cache of a shared frame that the host has mapped', { after: { private: [] } }],
  [
    'pfncache/valid-is-current',
    'a cache of a shared frame, of a slot of which nobody tells the host address',
    { after: { private: [], slots: [_.omit(SLOT, 'hostPage')] } },
  ],
  [
    'pfncache/valid-is-current',
    'a cache of a shared frame, where nobody tells what addresses the entries have',
    { after: { private: [], user: [_.omit(USER, 'hostPage')] } },
  ],
  [
    'hva-cache/valid-is-current',
    'a cache that will look again',
    { after: { slots: [], hvaCaches: [{ ...HVA_CACHE, valid: false }] } },
  ],
  ['errors/no-effect', 'a failure that drops cached translations', { failed: true, after: { stageTwo: [] } }],
  [
    'errors/no-effect',
    'a failure that splits an entry of stage 2',
    {
      failed: true,
      before: { stageTwo: [{ ...ENTRY, count: 4 }] },
      after: { stageTwo: [{ ...ENTRY, gfn: 0x12, frame: 102, count: 2 }] },
    },
  ],
  [
    'errors/no-effect',
    'a failure after which the same facts come in another order',
    { failed: true, after: { files: [...SOUND.files].reverse(), resident: [...SOUND.resident].reverse() } },
  ],
  ['errors/no-effect', 'a success that changes everything', { after: { vms: [], files: [], slots: [], bindings: [] } }],
];

const invariantOf = (id: string): Invariant => {
  const found = INVARIANTS.find((each) => each.id === id);
  if (found === undefined) throw new Error(`no invariant ${id}`);
  return found;
};

const momentOf = ({ before, after, failed = false }: Case): Moment => ({
  before: { ...SOUND, ...before },
  after: { ...SOUND, ...after },
  failed,
});

describe('an invariant', () => {
  it.each(INVARIANTS.map((each) => [each.id, each] as const))('%s holds on sound facts', (_id, invariant) => {
    expect(isObservable(invariant, SOUND)).toBe(true);
    expect(brokenBy(invariant, { before: undefined, after: SOUND, failed: false })).toBeUndefined();
    expect(brokenBy(invariant, { before: SOUND, after: SOUND, failed: true })).toBeUndefined();
  });

  it.each(BROKEN)('%s is broken: %s', (id, message, broken) => {
    expect(brokenBy(invariantOf(id), momentOf(broken))).toMatch(message);
  });

  it.each(KEPT)('%s is kept by %s', (id, _name, kept) => {
    expect(brokenBy(invariantOf(id), momentOf(kept))).toBeUndefined();
  });

  it('has facts here that break it, and others that keep it', () => {
    const ids = INVARIANTS.map(({ id }) => id);
    expect([...new Set(BROKEN.map(([id]) => id))].toSorted()).toEqual(ids.toSorted());
    expect([...new Set(KEPT.map(([id]) => id))].toSorted()).toEqual(ids.toSorted());
  });

  it('is not observable where the facts lack what it speaks of', () => {
    const black = _.omit(
      SOUND,
      'free',
      'orphans',
      'firstTouches',
      'outOfBounds',
      ...DIRECT_MAP,
      ...OF_TDS,
      ...OF_MACHINE_CHECKS,
      ...OF_STATUS,
      ...OF_SEV,
    );
    const blind = INVARIANTS.filter((each) => !isObservable(each, black)).map(({ id }) => id);
    expect(blind).toEqual([
      'memory/free-is-present',
      'memory/fresh-is-zero',
      'memory/references-balanced',
      'memory/in-bounds',
      'direct-map/balanced',
      'direct-map/resident-is-absent',
      'direct-map/unreachable',
      'direct-map/traced',
      'pfncache/valid-is-current',
      'hva-cache/valid-is-current',
      'td/no-host-write',
      'td/no-user-write',
      'td/not-mapped-by-host',
      'poison/contained',
      'key/one-owner',
      'key/helper-within-owner',
      'key/pins-balanced',
      'key/end-yields',
      'key/save-area-stable',
      'poison/answered-by-mce',
      'poison/isolate-untouched',
      'poison/isolated',
      'poison/uncached',
      'poison/carried',
      'poison/others-go-on',
      'poison/bounded',
      'shared/complete-or-flagged',
      'shared/bounded',
      'shared/canonical',
    ]);
  });

  it.each(BROKEN.map((each, index) => [`${each[0]} (${index + 1})`, each] as const))(
    '%s says nothing of parts that are left out, nor without those before',
    (_name, [id, , broken]) => {
      const invariant = invariantOf(id);
      const { before, after, failed } = momentOf(broken);
      const parts = Object.keys(after) as (keyof FactParts)[];
      for (const part of parts)
        for (const facts of [_.omit(after, part), _.pick(after, part)])
          expect(brokenBy(invariant, { before: {}, after: facts, failed: true })).toBe(
            brokenBy(invariant, { before: undefined, after: facts, failed: true }),
          );
      const looksAt = new Set(invariant.clauses.flatMap((each) => each.parts));
      expect(brokenBy(invariant, { before, after: _.omit(after, [...looksAt]), failed })).toBeUndefined();
      expect(brokenBy(invariant, { before, after: _.pick(after, [...looksAt]), failed })).toBeDefined();
    },
  );

  it('names the parts without which not all of it can be told', () => {
    const seen = new Set(['resident', 'user', 'inodes'] as const);
    const unseen = INVARIANTS.filter((each) => isObservable(each, _.pick(SOUND, [...seen]))).map(
      (each) => [each.id, unseenParts(each, seen)] as const,
    );
    expect(unseen).toEqual([
      ['memory/no-stale-mapping', ['stageTwo', 'slots', 'files', 'caches', 'free', 'hostMaps']],
      [
        'errors/no-effect',
        [
          ...['vms', 'private', 'files', 'slots', 'bindings', 'poisoned', 'tdPages', 'keys', 'lines'],
          ...['keyUsers', 'regions', 'pins', 'stageTwo'],
        ],
      ],
    ]);
  });
});

describe('facts of a stranger', () => {
  const each = _.range(200);
  const all = { gfn: 0, page: 0, frame: 100, count: each.length };
  const stale = invariantOf('memory/no-stale-mapping');

  it('are not searched anew for every page of every entry, and may come in any order', () => {
    let looks = 0;
    const resident = each.toReversed().map((page) => ({
      inode: 'file0',
      get page() {
        looks++;
        return page;
      },
      get frame() {
        looks++;
        return 100 + page;
      },
      count: 1,
    }));
    const after: Facts = {
      resident,
      slots: [{ ...SLOT, baseGfn: 0, pages: 2 * each.length }],
      stageTwo: each.map((gfn) => ({ ...ENTRY, ...all, gfn, private: false })),
      user: each.map((index) => ({ ...USER, ...all, mapping: `map${index}`, inodePage: 0 })),
      free: [],
    };
    expect(brokenBy(stale, momentOf({ after }))).toBeUndefined();
    expect(looks).toBeLessThan(20 * each.length ** 2);
    const without = resident.filter((run) => run.page !== 7);
    expect(brokenBy(stale, momentOf({ after: { ...after, stageTwo: [], resident: without } }))).toBe(
      'page 0x7 of map0 is mapped, and page 0x7 of file0, which it shows, was freed',
    );
  });
});

describe('the facts of the specification', () => {
  it.each([
    'gmem-link-rfc',
    'direct-map-rfc-v2',
    'direct-map-v12',
    'share-explicitly',
    's390-pv',
    'not-present-whole-page',
  ])('keep every invariant of %s that can be evaluated on them, over random programs', (profile) => {
    const specification = specify(profile);
    const rules = invariantsOf(specification.config.profile);
    const broken: string[] = [];
    for (const { commands, trace } of generated(specification, { programs: 400 })) {
      let before: Facts | undefined;
      let earlier = specification.initial;
      for (const [at, { state, outcome }] of trace.entries()) {
        const after = factsOfState(state);
        const failed = outcome.kind === 'errno' && state === earlier;
        for (const invariant of rules) {
          if (isConcededAfter(specification.config.profile, invariant, commands[at]?.name ?? '')) continue;
          const how = brokenBy(invariant, { before, after, failed });
          if (how !== undefined) broken.push(`${invariant.id}: ${how}\n${printProgram(specification, commands)}`);
        }
        [before, earlier] = [after, state];
      }
    }
    expect(broken).toEqual([]);
  });
});

describe('memory/private-is-secret', () => {
  const specification = specify();
  const SETTING = `
    vm.create vm=vm0 dev=kvm type=1
    vcpu.create vcpu=vcpu0 vm=vm0 id=0
    gmem.create file=file0 vm=vm0 size=0x1000 flags=1 reserved=0
    slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=arena gmem=file0 offset=0
    mem.map mapping=map0 fd=file0 length=0x1000 offset=0 sharing=shared`;
  const STORE = 'guest.store vcpu=vcpu0 gpa=0 value=7';
  const leaking = parse(specification, `${SETTING}\n${STORE}\nhost.load mapping=map0 offset=0`);
  const leaky = mutantById('private-page-mapped-by-host')?.target ?? simulatorTarget();

  it('is broken by a target that shows the host what the guest stored', async () => {
    const verdict = await checkSecrecy({ specification, target: leaky }, leaking);
    expect(verdict).toMatchObject({
      kind: 'diverges',
      at: 6,
      invariant: 'memory/private-is-secret',
      observed: 'the host saw ok 0x7 with one secret and ok 0xa5c35a3c96e71dbe with another',
    });
  });

  it('is kept by a target that does not', async () => {
    const verdict = await checkSecrecy({ specification, target: simulatorTarget() }, leaking);
    expect(verdict).toEqual({ kind: 'conforms', commands: leaking.length });
  });

  it('lets the guest read its own secrets', async () => {
    const program = parse(specification, `${SETTING}\n${STORE}\nguest.load vcpu=vcpu0 gpa=0`);
    expect((await checkSecrecy({ specification, target: leaky }, program)).kind).toBe('conforms');
  });

  it('is about private memory only: what goes to host memory is no secret', () => {
    const shared = SETTING.replace('flags=4', 'flags=0').replace('gmem=file0', 'gmem=none');
    expect(twinOf(specification, leaking)).toHaveLength(leaking.length);
    expect(twinOf(specification, parse(specification, `${shared}\n${STORE}`))).toBeUndefined();
    expect(twinOf(specification, parse(specification, SETTING))).toBeUndefined();
  });

  it('says nothing where an allocation failed: the secret may have gone to the host by right', async () => {
    const program = parse(
      specification,
      `vm.create vm=vm0 dev=kvm type=1
      vcpu.create vcpu=vcpu0 vm=vm0 id=0
      gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0
      slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=arena gmem=file0 offset=0
      fault.slab skip=0
      attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
      guest.store vcpu=vcpu0 gpa=0 value=7
      host.load mapping=arena offset=0`,
    );
    expect(twinOf(specification, program)).toHaveLength(program.length);
    const verdict = await checkSecrecy({ specification, target: simulatorTarget() }, program);
    expect(verdict).toEqual({ kind: 'conforms', commands: 0 });
  });

  it('says nothing where the target is gone half-way', async () => {
    const target = { ...simulatorTarget(), execute: () => [] };
    expect(await checkSecrecy({ specification, target }, leaking)).toMatchObject({ kind: 'inconclusive' });
  });
});

describe('invariants at work', () => {
  /** The invariants that the facts of the target break anywhere in the program, whatever its outcomes are. */
  async function idsBroken({ target }: Mutant, text: string): Promise<readonly string[]> {
    const specification = specify(headerOf(text)['profile']);
    const told: string[] = [];
    let before: Facts | undefined;
    for (const { outcome, facts } of await target.execute(parse(specification, text), specification.config.profile)) {
      if (facts === undefined) break;
      const moment = { before, after: facts, failed: outcome.kind === 'errno' };
      told.push(...INVARIANTS.filter((each) => brokenBy(each, moment) !== undefined).map(({ id }) => id));
      before = facts;
    }
    return told;
  }

  it('are broken by the mutants in the scenarios that name them', async () => {
    const told = new Set<string>();
    for (const { text, mutant: id } of scenarioTexts()) {
      const mutant = mutantById(id ?? '');
      if (mutant?.origin === 'hand-written') for (const broken of await idsBroken(mutant, text)) told.add(broken);
    }
    expect([...told].toSorted()).toEqual(INVARIANTS.map(({ id }) => id).toSorted());
  });
});
