import type { FrameRun, ResidentFact, StageTwoFact, UserMappingFact } from '../core/facts.ts';
import type { Condition } from '../core/profile.ts';
import { isFramed, residentAt, slotAt, type Framed } from './frames.ts';
import { always, clause, hex, type Invariant } from './invariant.ts';
import { neverRemapped } from './machine-check.ts';

/** The first frame of the run that holds no page of any inode; `resident` in the order of frames. */
function uncovered(resident: readonly Framed<ResidentFact>[], { frame, count }: StageTwoFact): number | undefined {
  let next = frame;
  for (const run of resident) {
    if (next >= frame + count || run.frame > next) break;
    next = Math.max(next, run.frame + run.count);
  }
  return next < frame + count ? next : undefined;
}

const stageTwoFresh = clause(['stageTwo', 'resident'], ({ after }) => {
  if (after.stageTwo.length === 0) return undefined;
  const resident = after.resident.filter(isFramed).sort((a, b) => a.frame - b.frame);
  for (const entry of after.stageTwo) {
    const gone = uncovered(resident, entry);
    if (gone !== undefined)
      return `gfn ${hex(entry.gfn + gone - entry.frame)} of ${entry.vm} shows frame ${hex(gone)}, which was freed or given to another owner`;
  }
  return undefined;
});

/** Each entry shows the page that its slot is bound to: it is enough to look at both ends. */
const stageTwoBound = clause(['stageTwo', 'resident', 'slots', 'files'], ({ after }) => {
  const wrongPage = (vm: string, gfn: number, frame: number, isPrivate: boolean): string | undefined => {
    const slot = slotAt(after.slots, vm, gfn);
    if (slot === undefined) return `gfn ${hex(gfn)} of ${vm} is mapped, and no slot shows it`;
    if (!isPrivate) return undefined;
    const inode = after.files.find((each) => each.file === slot.file)?.inode;
    const run = residentAt(after.resident, frame);
    if (inode === undefined || run === undefined) return `gfn ${hex(gfn)} of ${vm} is mapped, and its slot has no file`;
    const page = run.page + frame - run.frame;
    if (run.inode !== inode || page !== gfn - slot.baseGfn + slot.firstPage)
      return `gfn ${hex(gfn)} of ${vm} shows page ${hex(page)} of ${run.inode}, not the page that its slot is bound to`;
    return undefined;
  };
  for (const { vm, gfn, frame, count, private: isPrivate } of after.stageTwo) {
    const wrong = wrongPage(vm, gfn, frame, isPrivate) ?? wrongPage(vm, gfn + count - 1, frame + count - 1, isPrivate);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
});

/**
 * A run of entries, cut to what shows one run of resident pages; or its first page, where that is not resident.
 * `resident` in the order of pages: facts come from strangers, so nothing is searched anew for every page.
 */
function wrongEntry(resident: readonly ResidentFact[], entry: UserMappingFact): string | undefined {
  const { mapping, page, count, inode, inodePage, frame } = entry;
  let at = 0;
  for (const run of resident) {
    const shown = inodePage + at;
    if (run.inode !== inode || run.page + run.count <= shown) continue;
    if (at >= count || run.page > shown) break;
    if (frame !== undefined && run.frame !== undefined && frame + at !== run.frame + shown - run.page)
      return `page ${hex(page + at)} of ${mapping} shows frame ${hex(frame + at)}, and page ${hex(shown)} of ${inode} is in frame ${hex(run.frame + shown - run.page)}`;
    at = run.page + run.count - inodePage;
  }
  return at >= count
    ? undefined
    : `page ${hex(page + at)} of ${mapping} is mapped, and page ${hex(inodePage + at)} of ${inode}, which it shows, was freed`;
}

const userFresh = clause(['user', 'resident'], ({ after }) => {
  const resident = after.resident.toSorted((a, b) => a.page - b.page);
  for (const entry of after.user) {
    const wrong = wrongEntry(resident, entry);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
});

const overlap = (a: number, b: number, { count }: UserMappingFact, { count: other }: UserMappingFact): boolean =>
  a < b + other && b < a + count;

/** Entries for one page show one frame, and those for two pages two. */
const userConsistent = clause(['user'], ({ after }) => {
  const framed = after.user.filter(isFramed);
  for (const [index, a] of framed.entries())
    for (const b of framed.slice(index + 1)) {
      const samePages = a.inode === b.inode && overlap(a.inodePage, b.inodePage, a, b);
      const sameFrames = overlap(a.frame, b.frame, a, b);
      const agree = a.inode === b.inode && a.inodePage - b.inodePage === a.frame - b.frame;
      if (agree || !(samePages || sameFrames)) continue;
      const [what, which] = samePages ? ['page', 'two frames'] : ['frame', 'two pages'];
      return `${a.mapping} and ${b.mapping} show one ${what} as ${which}`;
    }
  return undefined;
});

const cacheFresh = clause(['caches', 'resident'], ({ after }) => {
  for (const { gpc, valid, frame } of after.caches)
    if (valid && frame !== undefined && residentAt(after.resident, frame) === undefined)
      return `${gpc} is valid and points at frame ${hex(frame)}, which was freed or given to another owner`;
  return undefined;
});

const freed = (
  free: readonly FrameRun[],
  { frame, count = 1 }: { frame: number; count?: number },
): number | undefined => {
  const run = free.find((each) => each.frame < frame + count && frame < each.frame + each.count);
  return run && Math.max(run.frame, frame);
};

const guestsOfUsed = clause(['stageTwo', 'free'], ({ after: { stageTwo, free } }) => {
  for (const entry of stageTwo) {
    const frame = freed(free, entry);
    if (frame !== undefined)
      return `gfn ${hex(entry.gfn + frame - entry.frame)} of ${entry.vm} shows frame ${hex(frame)}, which is free`;
  }
  return undefined;
});

const hostsOfUsed = clause(['hostMaps', 'free'], ({ after: { hostMaps, free } }) => {
  const stale = hostMaps.find((each) => freed(free, each) !== undefined);
  return (
    stale &&
    `the ${stale.by} mapping of gfn ${hex(stale.gfn)} of ${stale.vm} shows frame ${hex(stale.frame)}, which is free`
  );
});

const freeUnpoisoned = clause(['free', 'poisoned'], ({ after }) => {
  for (const { frame, count } of after.free) {
    const bad = after.poisoned.find((each) => each >= frame && each < frame + count);
    if (bad !== undefined) return `frame ${hex(bad)} is on the free list although it is poisoned`;
  }
  return undefined;
});

const freeUnused = clause(['free', 'resident'], ({ after }) => {
  for (const { frame, count } of after.free) {
    const used = after.resident.find(
      (run): run is Framed<ResidentFact> => isFramed(run) && run.frame < frame + count && frame < run.frame + run.count,
    );
    if (used !== undefined)
      return `frame ${hex(Math.max(used.frame, frame))} is on the free list although it holds a page`;
  }
  return undefined;
});

const freePresent = clause(['free', 'absent'], ({ after }) => {
  for (const { frame, count } of after.free) {
    const absent = after.absent.find((run) => run.frame < frame + count && frame < run.frame + run.count);
    if (absent !== undefined)
      return `frame ${hex(Math.max(absent.frame, frame))} is on the free list although the direct map does not show it`;
  }
  return undefined;
});

const freeUnshared = clause(['free', 'shares'], ({ after }) => {
  for (const { frame, count } of after.free) {
    const shared = after.shares.find((each) => each.frame >= frame && each.frame < frame + count);
    if (shared !== undefined) return `frame ${hex(shared.frame)} is on the free list although it is shared`;
  }
  return undefined;
});

const freeOfTds = clause(['free', 'tdPages'], ({ after }) => {
  for (const { frame, count } of after.free) {
    const page = after.tdPages.find((each) => each.frame >= frame && each.frame < frame + count);
    if (page !== undefined) return `frame ${hex(page.frame)} is on the free list although it belongs to ${page.vm}`;
  }
  return undefined;
});

const freeKeyless = clause(['free', 'lines'], ({ after }) => {
  for (const { frame, count } of after.free) {
    const bad = after.lines.find((each) => each.frame >= frame && each.frame < frame + count);
    if (bad !== undefined)
      return `frame ${hex(bad.frame)} is on the free list although line ${bad.line} of it is ${bad.state}`;
  }
  return undefined;
});

const firstZero = clause(['firstTouches'], ({ after }) => {
  const dirty = after.firstTouches.find(({ zero }) => !zero);
  return dirty && `page ${hex(dirty.page)} of ${dirty.inode} was shown for the first time with something in it`;
});

const noOrphans = clause(['orphans'], ({ after }) => {
  const [orphan] = after.orphans;
  return orphan && `frame ${hex(orphan.frame)} holds no page and is not free: ${orphan.references} references are left`;
});

/** `orphans` are not looked at; but who reports them counts references. */
const balanced = clause(['resident', 'user', 'orphans'], ({ after }) => {
  const user = after.user.filter(isFramed);
  for (const { inode, page, frame, count, references } of after.resident.filter(isFramed)) {
    if (references === undefined) continue;
    for (const at of edgesWithin(user, frame, count)) {
      const mapped = user.filter((each) => at >= each.frame && at < each.frame + each.count).length;
      if (references !== 1 + mapped)
        return `page ${hex(page + at - frame)} of ${inode} has ${references} references; its file and ${mapped} mappings explain ${1 + mapped}`;
    }
  }
  return undefined;
});

/** Frames of a run at which the number of mappings may change. */
function edgesWithin(user: readonly Framed<UserMappingFact>[], frame: number, count: number): readonly number[] {
  const edges = [frame];
  for (const each of user)
    for (const edge of [each.frame, each.frame + each.count])
      if (edge > frame && edge < frame + count) edges.push(edge);
  return edges;
}

const badIn = (poisoned: readonly number[], frame: number, count: number): number | undefined =>
  poisoned.find((bad) => bad >= frame && bad < frame + count);

const poisonNotInStageTwo = clause(['poisoned', 'stageTwo'], ({ after }) => {
  if (after.poisoned.length === 0) return undefined;
  for (const { vm, gfn, frame, count } of after.stageTwo) {
    const bad = badIn(after.poisoned, frame, count);
    if (bad !== undefined) return `gfn ${hex(gfn + bad - frame)} of ${vm} shows the poisoned frame ${hex(bad)}`;
  }
  return undefined;
});

const poisonNotInUser = clause(['poisoned', 'user'], ({ after }) => {
  if (after.poisoned.length === 0) return undefined;
  for (const { mapping, page, frame, count } of after.user.filter(isFramed)) {
    const bad = badIn(after.poisoned, frame, count);
    if (bad !== undefined) return `page ${hex(page + bad - frame)} of ${mapping} shows the poisoned frame ${hex(bad)}`;
  }
  return undefined;
});

const GIVEN_OUT = 'another CPU may be given a page as soon as it is free';
const TOUCHED = 'a guest runs, and so does the host process, while a page is taken from them';

/** Elsewhere there is no page cache and no table of slots. */
const only: Condition = { realm: 'guest-memory' };

export const memoryInvariants: readonly Invariant[] = [
  {
    id: 'memory/no-stale-mapping',
    sentence:
      'No stage-2 entry, user mapping, mapping of a device or valid pfncache points at a page that was freed or given to another owner, or at another page than the slot is bound to.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_invalidate_start()',
    clauses: [
      always(TOUCHED, stageTwoFresh),
      stageTwoBound,
      always(TOUCHED, userFresh),
      userConsistent,
      always(TOUCHED, cacheFresh),
      always(TOUCHED, guestsOfUsed),
      always(TOUCHED, hostsOfUsed),
    ],
  },
  {
    id: 'memory/free-is-present',
    sentence: 'A page on the free list is in the direct map, unpoisoned, keyless and unshared, and holds nothing.',
    source: 'mm/page_alloc.c: free_pages_prepare()',
    clauses: [freeUnpoisoned, freeUnused, freePresent, freeUnshared, freeOfTds, freeKeyless].map((each) =>
      always(GIVEN_OUT, each),
    ),
  },
  {
    id: 'memory/fresh-is-zero',
    sentence:
      'A page that a guest or the host gets for the first time reads as zero: nothing of an earlier owner shows.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_get_pfn(), kvm_gmem_fault_user_mapping()',
    only,
    clauses: [firstZero],
  },
  {
    id: 'memory/references-balanced',
    sentence: 'At rest, the page cache and the user mappings explain every reference to a page, also after errors.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_get_pfn(), folio_put() on each path',
    only,
    clauses: [noOrphans, balanced],
  },
  {
    id: 'memory/in-bounds',
    sentence: 'No table, buffer or structure is read or written outside of what it was made for.',
    source: 'CVE-2024-26991; arch/x86/kvm/mmu/mmu.c: kvm_arch_post_set_memory_attributes()',
    only: [only, { realm: 'page-status' }],
    clauses: [clause(['outOfBounds'], ({ after }) => after.outOfBounds[0])],
  },
  {
    id: 'poison/never-remapped',
    sentence: 'Once a page is known poisoned, no mapping of it is created again, in stage 2 or in user space.',
    source:
      'virt/kvm/guest_memfd.c: kvm_gmem_error_folio(), __kvm_gmem_get_pfn(); mm/memory-failure.c: hwpoison_user_mappings()',
    clauses: [poisonNotInStageTwo, poisonNotInUser, ...neverRemapped],
  },
];
