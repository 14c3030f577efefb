/**
 * What is drawn of a machine. A space is something with addresses: a guest's memory, a file, the host's frames. A lane
 * of it is one kind of fact about its addresses. To draw a new fact, add a lane.
 */
import _ from 'lodash';
import { ARENA } from '../../model/core/state.ts';
import { plural } from '../text.ts';
import type { Seen } from './facts.ts';
import { pieces, type Frames } from './frames.ts';

/** How a stretch is coloured and hatched. What it means always stands in its text as well. */
export type Tone = 'plain' | 'binding' | 'page' | 'shared' | 'private' | 'poison' | 'bad';

/** Addresses from `start`, up to `end` exclusively, of which one thing is true. */
export interface Run {
  readonly start: number;
  readonly end: number;
  readonly tone: Tone;
  /** What is true of the part from `from` to `to`. */
  readonly text: (from: number, to: number) => string;
  /** What is true as well, but is mechanism in which two machines may differ. */
  readonly note?: (from: number, to: number) => string;
}

export interface Lane {
  readonly name: string;
  /** Undefined where the facts do not say. */
  readonly runs: (seen: Seen, owner: string) => readonly Run[] | undefined;
}

export interface Space {
  readonly name: 'guest' | 'file' | 'frames';
  /** What one address of it is. */
  readonly unit: string;
  readonly about: string;
  /** The specification has no frames: those in its facts are only names of pages. */
  readonly targetOnly?: true;
  readonly owners: (seen: Seen) => readonly string[];
  readonly lanes: readonly Lane[];
}

/** Small numbers as everybody writes them, others in hexadecimal, as in programs. */
const number = (value: number): string => (value < 10 ? `${value}` : `0x${value.toString(16)}`);
export const range = (from: number, to: number): string =>
  to - from === 1 ? number(from) : `${number(from)}–${number(to - 1)}`;

/** Text about a run whose addresses are those of something else, which begins at `base` where the run begins. */
type About = (first: number, end: number) => string;
const pagesOf =
  (of: string): About =>
  (first, end) =>
    `${of}[${range(first, end)}]`;
const frames: About = (first, end) => `frame ${range(first, end)}`;

const run = (start: number, count: number, tone: Tone, text: string | Run['text']): Run => ({
  start,
  end: start + count,
  tone,
  text: typeof text === 'string' ? () => text : text,
});
const shifted =
  (about: About, shift: number): Run['text'] =>
  (from, to) =>
    about(from + shift, to + shift);

const world = (isPrivate: boolean): 'private' | 'shared' => (isPrivate ? 'private' : 'shared');

type StageTwo = NonNullable<Seen['stageTwo']>[number];
type Mapping = NonNullable<Seen['user']>[number];
type Cache = NonNullable<Seen['caches']>[number];

const stageTwoText = ({ vm, private: isPrivate }: StageTwo): About => {
  const kind = world(isPrivate);
  return (first, end) => `${vm} gfn ${range(first, end)}, ${kind}`;
};
const cacheText = ({ gpc, valid }: Cache): string => `${gpc}, ${valid ? 'valid' : 'not valid'}`;

/** The arena, memory of the host process for slots that show no file, is mapped from the start. */
const mappings = ({ user }: Seen): readonly Mapping[] | undefined => user?.filter(({ mapping }) => mapping !== ARENA);

/** Addresses from `start` on that show frames, in words about what those frames hold. */
const showing = (seen: Seen, start: number, shown: Frames, tone: Tone, suffix = ''): readonly Run[] =>
  pieces(seen, shown).map(({ frame, count, page }) => {
    const at = start + frame - shown.frame;
    const note = shifted(frames, frame - at);
    if (page === undefined) return run(at, count, 'bad', (from, to) => `${note(from, to)}, in no file${suffix}`);
    const text = shifted(pagesOf(page.inode), page.index - at);
    return { ...run(at, count, tone, (from, to) => `${text(from, to)}${suffix}`), note };
  });

/** Pages of `inode` of which something is true because it is true of the frames that hold them. */
const held = (seen: Seen, inode: string, of: Frames, tone: Tone, text: string | About, start = 0): readonly Run[] =>
  pieces(seen, of).flatMap(({ frame, count, page }) => {
    if (page?.inode !== inode) return [];
    const shift = start + frame - of.frame - page.index;
    return [run(page.index, count, tone, typeof text === 'string' ? text : shifted(text, shift))];
  });

/** Frames that something shows, from its address `start` on. */
const shown = (seen: Seen, of: Frames, tone: Tone, about: About, start: number): readonly Run[] =>
  pieces(seen, of).map(({ frame, count, page }) => {
    const text = shifted(about, start - of.frame);
    if (page !== undefined) return run(frame, count, tone, text);
    return { ...run(frame, count, 'bad', text), note: () => 'in no file' };
  });

/** What a mapping shows of the inode that it is of; and what is there instead, where the frame holds another page. */
function mapped(seen: Seen, { mapping, page, count, inode, inodePage, frame }: Mapping): readonly Run[] {
  const text = shifted(pagesOf(mapping), page - inodePage);
  if (frame === undefined) return [run(inodePage, count, 'shared', text)];
  return showing(seen, inodePage, { frame, count }, 'shared').map((found) => {
    const holds = found.text(found.start, found.end);
    const isRight = holds === pagesOf(inode)(found.start, found.end);
    return isRight ? { ...found, text } : { ...found, tone: 'bad', text, note: found.text };
  });
}

const guest: Space = {
  name: 'guest',
  unit: 'gfn',
  about: 'guest physical memory of',
  owners: ({ vms = [], slots = [], stageTwo = [] }) => _.uniq([...vms, ...slots, ...stageTwo].map(({ vm }) => vm)),
  lanes: [
    {
      name: 'slots',
      runs: ({ slots }, owner) =>
        slots
          ?.filter(({ vm }) => vm === owner)
          .map(({ slot, baseGfn, pages, gmem, file: shownFile, firstPage }) => {
            const name = `slot ${number(slot)}`;
            if (!gmem) return run(baseGfn, pages, 'binding', `${name}: host memory`);
            if (shownFile === undefined) return run(baseGfn, pages, 'binding', `${name}: no file`);
            const text = shifted(pagesOf(shownFile), firstPage - baseGfn);
            return run(baseGfn, pages, 'binding', (from, to) => `${name}: ${text(from, to)}`);
          }),
    },
    {
      name: 'attribute',
      runs: (seen, owner) =>
        seen.private
          ?.filter(({ vm }) => vm === owner)
          .map(({ start, end }) => run(start, end - start, 'private', 'private')),
    },
    {
      name: 'stage 2',
      runs: (seen, owner) =>
        seen.stageTwo
          ?.filter(({ vm }) => vm === owner)
          .flatMap((entry) => {
            const kind = world(entry.private);
            return showing(seen, entry.gfn, entry, kind, `, ${kind}`);
          }),
    },
    {
      name: 'pfn caches',
      runs: (seen, owner) =>
        seen.caches
          ?.filter(({ vm }) => vm === owner)
          .flatMap((cache) => {
            if (cache.gfn === undefined) return [];
            if (cache.frame === undefined) return [run(cache.gfn, 1, 'plain', cacheText(cache))];
            const suffix = `, by ${cacheText(cache)}`;
            return showing(seen, cache.gfn, { frame: cache.frame, count: 1 }, 'plain', suffix);
          }),
    },
  ],
};

const file: Space = {
  name: 'file',
  unit: 'page',
  about: 'pages of',
  owners: ({ inodes = [], resident = [], files = [] }) =>
    _.uniq([...inodes, ...resident, ...files].map(({ inode }) => inode)),
  lanes: [
    {
      name: 'open as',
      runs: ({ files, inodes = [] }, owner) =>
        files
          ?.filter(({ inode }) => inode === owner)
          .map(({ file: name, vm }) => {
            const { pages = 0, noDirectMap = false } = inodes.find(({ inode }) => inode === owner) ?? {};
            return run(0, pages, 'plain', `${name} of ${vm}${noDirectMap ? ', NO_DIRECT_MAP' : ''}`);
          }),
    },
    {
      name: 'bound to',
      runs: ({ bindings, files = [] }, owner) =>
        bindings
          ?.filter((binding) => (files.find((each) => each.file === binding.file)?.inode ?? binding.file) === owner)
          .map(({ file: name, start, end, vm, slot, live }) => {
            const text = `${vm} slot ${number(slot)} through ${name}`;
            return live
              ? run(start, end - start, 'binding', text)
              : run(start, end - start, 'bad', `${text}, a slot that is gone`);
          }),
    },
    {
      name: 'page cache',
      runs: ({ resident }, owner) =>
        resident
          ?.filter(({ inode }) => inode === owner)
          .map(({ page, count, frame }) => ({
            ...run(page, count, 'page', 'present'),
            ...(frame !== undefined && { note: shifted(frames, frame - page) }),
          })),
    },
    {
      name: 'poison',
      runs: (seen, owner) =>
        seen.poisoned?.flatMap((frame) => held(seen, owner, { frame, count: 1 }, 'poison', 'poisoned')),
    },
    {
      name: 'in stage 2',
      runs: (seen, owner) =>
        seen.stageTwo?.flatMap((entry) =>
          held(seen, owner, entry, world(entry.private), stageTwoText(entry), entry.gfn),
        ),
    },
    {
      name: 'in the host',
      runs: (seen, owner) =>
        mappings(seen)
          ?.filter(({ inode }) => inode === owner)
          .flatMap((mapping) => mapped(seen, mapping)),
    },
    {
      name: 'direct map',
      runs: (seen, owner) => seen.absent?.flatMap((gone) => held(seen, owner, gone, 'private', 'removed')),
    },
    {
      name: 'shares',
      runs: (seen, owner) =>
        seen.shares?.flatMap((share) =>
          held(seen, owner, { frame: share.frame, count: 1 }, 'shared', sharesText(share)),
        ),
    },
  ],
};

const sharesText = ({ sharing, holders }: NonNullable<Seen['shares']>[number]): string =>
  `${plural(sharing, 'share')}${holders.length === 0 ? '' : `: ${holders.join(', ')}`}`;

const host: Space = {
  name: 'frames',
  unit: 'frame',
  about: 'page frames of the host',
  targetOnly: true,
  owners: () => [''],
  lanes: [
    {
      name: 'page cache',
      runs: ({ resident }) =>
        resident?.flatMap(({ inode, page, frame, count }) =>
          frame === undefined ? [] : [run(frame, count, 'page', shifted(pagesOf(inode), page - frame))],
        ),
    },
    {
      name: 'references',
      runs: ({ resident }) =>
        resident?.flatMap(({ frame, count, references }) =>
          frame === undefined || references === undefined ? [] : [run(frame, count, 'plain', `${references}`)],
        ),
    },
    {
      name: 'free list',
      runs: ({ free }) => free?.map(({ frame, count }) => run(frame, count, 'plain', 'free')),
    },
    {
      name: 'lost',
      runs: ({ orphans }) =>
        orphans?.map(({ frame, references }) => run(frame, 1, 'bad', `in no file, ${plural(references, 'reference')}`)),
    },
    {
      name: 'poison',
      runs: ({ poisoned }) => poisoned?.map((frame) => run(frame, 1, 'poison', 'poisoned')),
    },
    {
      name: 'in stage 2',
      runs: (seen) =>
        seen.stageTwo?.flatMap((entry) => shown(seen, entry, world(entry.private), stageTwoText(entry), entry.gfn)),
    },
    {
      name: 'in the host',
      runs: (seen) =>
        mappings(seen)?.flatMap(({ mapping, page, count, frame }) =>
          frame === undefined ? [] : shown(seen, { frame, count }, 'shared', pagesOf(mapping), page),
        ),
    },
    {
      name: 'direct map',
      runs: ({ absent }) => absent?.map(({ frame, count }) => run(frame, count, 'private', 'removed')),
    },
    {
      name: 'shares',
      runs: ({ shares }) => shares?.map((share) => run(share.frame, 1, 'shared', sharesText(share))),
    },
    {
      name: 'stale TLB',
      runs: ({ staleTlb }) => staleTlb?.map(({ cpu, frame, count }) => run(frame, count, 'bad', `CPU ${cpu}`)),
    },
    {
      name: 'pfn caches',
      runs: ({ caches }) =>
        caches?.flatMap((cache) => (cache.frame === undefined ? [] : [run(cache.frame, 1, 'plain', cacheText(cache))])),
    },
  ],
};

export const SPACES: readonly Space[] = [guest, file, host];

/** What happened during the command, in sentences. */
export const eventsOf = ({ firstTouches = [], shareEvents = [], outOfBounds = [] }: Seen): readonly string[] => [
  ...firstTouches.map(
    ({ inode, page, zero }) =>
      `${pagesOf(inode)(page, page + 1)} is shown for the first time, and ${zero ? 'is zero' : 'is not zero'}.`,
  ),
  ...shareEvents.map(({ event, frame }) => `kvm_gmem_${event}: frame ${number(frame)}.`),
  ...outOfBounds.map((text) => `Out of bounds: ${text}`),
];
