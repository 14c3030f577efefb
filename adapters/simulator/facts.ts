/** What is true of the simulated machine, in the vocabulary of model/core/facts.ts. Only looks, changes nothing. */
import _ from 'lodash';
import type {
  BindingFact,
  Facts,
  FactParts,
  FileFact,
  FrameRun,
  HvaCacheFact,
  InodeFact,
  OrphanFact,
  PrivateFact,
  ResidentFact,
  ShareFact,
  SlotFact,
  StaleTlbFact,
  StageTwoFact,
  McPart,
  SevPart,
  StatusPart,
  TdPart,
  UserMappingFact,
  VmFact,
} from '../../model/core/facts.ts';
import type { Label } from '../../model/core/state.ts';
import { INVALID_GPA, KVM_MEM, toPages } from '../../model/core/abi.ts';
import { PART } from './kernel.ts';
import { HWPOISON_ENTRY, type HvaCache, type Inode, type MemSlot, type PfnCache } from './objects.ts';
import { RunMap } from './ranges.ts';
import type { Syscalls } from './syscalls.ts';

const GUEST_MEMFD = Number(KVM_MEM.GUEST_MEMFD);

type DirectMapParts = 'absent' | 'unremoved' | 'shares' | 'staleTlb' | 'caches' | 'hvaCaches' | 'shareEvents';
/** What every profile about guest_memfd has. */
export type Simulated = Omit<FactParts, DirectMapParts | TdPart | McPart | SevPart | StatusPart>;

/** The facts now, of which the parts that are not stale are those of `before`. */
export function collectFacts(machine: Syscalls, before: Simulated = NOTHING): Simulated {
  const stale = (parts: number): boolean => (machine.stale & parts) !== 0;
  const objects = stale(PART.SLOTS | PART.FILES | PART.VMS);
  // Frames that are pinned across a command are leaked; pins are too frequent to mark anything stale.
  const pages = stale(PART.RESIDENT | PART.USER) || machine.pins.size > 0 || before.orphans.length > 0;
  return {
    vms: stale(PART.VMS) ? vmsOf(machine) : before.vms,
    private: stale(PART.VMS) ? privateOf(machine) : before.private,
    files: stale(PART.FILES) ? filesOf(machine) : before.files,
    inodes: stale(PART.FILES) ? inodesOf(machine) : before.inodes,
    slots: objects ? slotsOf(machine) : before.slots,
    bindings: objects ? bindingsOf(machine) : before.bindings,
    resident: pages ? residentOf(machine) : before.resident,
    orphans: pages ? orphansOf(machine) : [],
    stageTwo: stale(PART.STAGE_TWO) ? stageTwoOf(machine) : before.stageTwo,
    user: stale(PART.USER) ? userOf(machine) : before.user,
    poisoned: stale(PART.POISONED) ? [...machine.poisoned].sort((a, b) => a - b) : before.poisoned,
    free: stale(PART.FREE) ? machine.freeRuns.slice() : before.free,
    firstTouches: stale(PART.EVENTS) ? [...machine.firstTouches] : before.firstTouches,
    outOfBounds: stale(PART.EVENTS) ? [...machine.outOfBounds] : before.outOfBounds,
  };
}

const NOTHING: Simulated = {
  vms: [],
  private: [],
  files: [],
  inodes: [],
  slots: [],
  bindings: [],
  resident: [],
  stageTwo: [],
  user: [],
  poisoned: [],
  free: [],
  orphans: [],
  firstTouches: [],
  outOfBounds: [],
};

/** What profiles with direct-map removal have besides. */
export function directMapFacts(machine: Syscalls): Facts {
  const { absent, unremoved, tlbs, sharingCounts, shareEvents } = machine;
  const caches = [...machine.caches.values()];
  return {
    absent: absent.all.map(runOf),
    unremoved: unremoved.all.map(runOf),
    staleTlb: tlbs.flatMap((tlb, cpu) => absent.all.flatMap((run) => shownBy(tlb, cpu, run))),
    caches: caches.map((gpc) => ({
      gpc: gpc.label,
      vm: machine.kvms.at(gpc.kvm).label,
      gfn: gpc.gpa === INVALID_GPA ? undefined : toPages(gpc.gpa),
      active: gpc.active,
      valid: machine.kvmGpcCheck(gpc, 0n),
      frame: gpc.pfn,
    })),
    hvaCaches: Array.from(machine.hvaCaches.values(), (ghc) => hvaCacheOf(machine, ghc)),
    shares: machine.countsShares()
      ? [...sharingCounts].map(([frame, sharing]) => ({ frame, sharing, holders: holdersOf(caches, frame) }))
      : keptBy(caches),
    // The RFC of July 2024 traces nothing.
    ...(!machine.has('direct-map-one-cache') && { shareEvents: [...shareEvents] }),
  };
}

const runOf = ({ start, end }: FrameRange): FrameRun => ({ frame: start, count: end - start });

function hvaCacheOf(machine: Syscalls, ghc: HvaCache): HvaCacheFact {
  const { label, kvm, gpa, len, memslot, userspacePage } = ghc;
  const valid = memslot !== undefined && userspacePage !== undefined && len > 0n && !machine.isGhcOutdated(ghc);
  const about = { ghc: label, vm: machine.kvms.at(kvm).label, gfn: toPages(gpa), valid };
  return valid ? { ...about, hostPage: userspacePage } : about;
}

/** Frames that are in the direct map for a cache, where nobody counts. */
const keptBy = (caches: readonly PfnCache[]): ShareFact[] =>
  _.uniq(caches.flatMap(({ private: isKept, pfn }) => (isKept && pfn !== undefined ? [pfn] : []))).map((frame) => {
    const holders = holdersOf(caches, frame);
    return { frame, sharing: holders.length, holders };
  });

const shownBy = (tlb: RunMap<true>, cpu: number, { start, end }: FrameRange): StaleTlbFact[] =>
  tlb.slice(start, end).map((run) => ({ cpu, frame: run.start, count: run.end - run.start }));

const holdersOf = (caches: readonly PfnCache[], frame: number): Label[] =>
  caches.filter((gpc) => gpc.private && gpc.pfn === frame).map(({ label }) => label);

interface FrameRange {
  readonly start: number;
  readonly end: number;
}

const vmsOf = (machine: Syscalls): VmFact[] => Array.from(machine.vmList, ({ label }) => ({ vm: label }));

function privateOf(machine: Syscalls): PrivateFact[] {
  const facts: PrivateFact[] = [];
  for (const { label, attributes } of machine.vmList)
    for (const { start, end } of attributes.all) facts.push({ vm: label, start, end });
  return facts;
}

const inodesOf = (machine: Syscalls): InodeFact[] =>
  Array.from(machine.inodes, (inode) => ({
    inode: inode.label,
    pages: inode.pages,
    ...(machine.has('direct-map') && { noDirectMap: machine.kvmGmemTestNoDirectMap(inode) }),
  }));

function filesOf(machine: Syscalls): FileFact[] {
  const facts: FileFact[] = [];
  for (const inode of machine.inodes)
    for (const file of inode.gmemFiles) facts.push({ file: file.label, vm: file.birthVm, inode: inode.label });
  return facts;
}

const fullId = (slot: MemSlot): number => slot.asId * 0x1_0000 + slot.id;

function slotsOf(machine: Syscalls): SlotFact[] {
  const facts: SlotFact[] = [];
  for (const kvm of machine.vmList)
    for (const slots of kvm.memslots)
      for (const slot of slots.values())
        facts.push({
          vm: kvm.label,
          slot: fullId(slot),
          baseGfn: slot.baseGfn,
          pages: slot.npages,
          gmem: (slot.flags & GUEST_MEMFD) !== 0,
          file: slot.gmem.file === undefined ? undefined : slot.gmem.birthFile,
          firstPage: slot.gmem.pgoff,
          hostPage: slot.userspacePage,
        });
  return facts;
}

function bindingsOf(machine: Syscalls): BindingFact[] {
  const live = new Set<MemSlot>();
  for (const kvm of machine.vmList) for (const slots of kvm.memslots) for (const slot of slots.values()) live.add(slot);
  const facts: BindingFact[] = [];
  for (const inode of machine.inodes)
    for (const file of inode.gmemFiles)
      for (const { start, end, value } of file.bindings.all) {
        const slot = machine.slots.at(value);
        facts.push({ file: file.label, start, end, vm: slot.birthVm, slot: fullId(slot), live: live.has(slot) });
      }
  return facts;
}

/** A run that is still growing. */
type Changeable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * Pages in page caches, cut where the number of references changes, and where a mapping of them starts or ends: what
 * refers to a run refers to the whole of it.
 */
function residentOf(machine: Syscalls): ResidentFact[] {
  const facts: ResidentFact[] = [];
  for (const inode of machine.inodes) {
    let last: Changeable<Required<ResidentFact>> | undefined;
    let cuts: ReadonlySet<number> | undefined;
    for (const { start, end, value } of inode.pageCache.all) {
      for (const run of countReferences(machine, start + value.delta, end + value.delta)) {
        const { references } = run;
        if (references > 1) cuts ??= mappingEdges(inode);
        for (const piece of cut(run, references > 1 ? cuts : undefined)) {
          const count = piece.end - piece.start;
          const page = piece.start - value.delta;
          const follows = last !== undefined && last.page + last.count === page && cuts?.has(piece.start) !== true;
          if (last?.references === references && last.frame + last.count === piece.start && follows)
            last.count += count;
          else facts.push((last = { inode: inode.label, page, frame: piece.start, count, references }));
        }
      }
    }
  }
  return facts;
}

/** Frames with which a run of user page-table entries starts, or that follow one. */
function mappingEdges(inode: Inode): ReadonlySet<number> {
  const edges = new Set<number>();
  for (const { ptes } of inode.mappings)
    for (const { start, end, value } of ptes.all)
      if (value !== HWPOISON_ENTRY) edges.add(start + value).add(end + value);
  return edges;
}

function cut(run: CountedFrames, edges: ReadonlySet<number> | undefined): readonly Omit<CountedFrames, 'references'>[] {
  if (edges === undefined || run.end - run.start === 1) return [run];
  const within = [...edges].filter((edge) => edge > run.start && edge < run.end).sort((a, b) => a - b);
  return [run.start, ...within].map((start, index) => ({ start, end: within[index] ?? run.end }));
}

interface CountedFrames {
  readonly start: number;
  readonly end: number;
  readonly references: number;
}

function countReferences(machine: Syscalls, start: number, end: number): CountedFrames[] {
  const counted: CountedFrames[] = [];
  const add = (from: number, to: number, references: number): void => {
    let at = from;
    for (const [frame, pins] of pinsWithin(machine, from, to)) {
      if (frame > at) counted.push({ start: at, end: frame, references });
      counted.push({ start: frame, end: frame + 1, references: references + pins });
      at = frame + 1;
    }
    if (at < to) counted.push({ start: at, end: to, references });
  };
  for (const run of machine.references.slice(start, end)) add(run.start, run.end, run.value);
  for (const gap of machine.references.gaps(start, end)) add(gap.start, gap.end, 0);
  return counted.sort((a, b) => a.start - b.start);
}

const pinsWithin = (machine: Syscalls, start: number, end: number): (readonly [number, number])[] =>
  [...machine.pins].filter(([frame]) => frame >= start && frame < end).sort(([a], [b]) => a - b);

/** Frames that are referred to although no page cache has them. They are searched for only where the totals differ. */
function orphansOf(machine: Syscalls): OrphanFact[] {
  if (machine.referenced === machine.resident && machine.pins.size === 0) return [];
  const cached = new RunMap<true>();
  for (const { pageCache } of machine.inodes)
    for (const { start, end, value } of pageCache.all) cached.set(start + value.delta, end + value.delta, true);
  const orphans: OrphanFact[] = [];
  for (const { start, end } of machine.references.all)
    for (const gap of cached.gaps(start, end))
      for (const run of countReferences(machine, gap.start, gap.end))
        for (let frame = run.start; frame < run.end; frame++) orphans.push({ frame, references: run.references });
  for (const [frame, references] of machine.pins)
    if (machine.references.get(frame) === undefined && cached.get(frame) === undefined)
      orphans.push({ frame, references });
  return orphans;
}

function stageTwoOf(machine: Syscalls): StageTwoFact[] {
  const facts: StageTwoFact[] = [];
  for (const { label, roots } of machine.vmList)
    for (const root of roots) {
      let last: Changeable<StageTwoFact> | undefined;
      for (const { start, end, value } of root.all) {
        const frame = start + value.delta;
        if (
          last !== undefined &&
          last.gfn + last.count === start &&
          last.frame + last.count === frame &&
          last.private === value.private
        )
          last.count += end - start;
        else facts.push((last = { vm: label, gfn: start, frame, count: end - start, private: value.private }));
      }
    }
  return facts;
}

function userOf(machine: Syscalls): UserMappingFact[] {
  const facts: UserMappingFact[] = [];
  for (const { label, ptes, file, pgoff, start: first } of machine.vmas.values())
    for (const { start, end, value } of ptes.all)
      if (value !== HWPOISON_ENTRY)
        facts.push({
          mapping: label,
          page: start,
          count: end - start,
          inode: file.inode.label,
          inodePage: pgoff + start,
          frame: start + value,
          hostPage: first + start,
        });
  return facts;
}
