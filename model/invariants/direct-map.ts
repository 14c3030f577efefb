import type {
  CacheFact,
  FactParts,
  FrameRun,
  PrivateFact,
  ShareFact,
  SlotFact,
  UserMappingFact,
} from '../core/facts.ts';
import type { Condition } from '../core/profile.ts';
import { isFramed, residentAt, slotAt, type Framed } from './frames.ts';
import { always, clause, hex, type Invariant } from './invariant.ts';

const overlap = (a: FrameRun, b: FrameRun): FrameRun | undefined => {
  const frame = Math.max(a.frame, b.frame);
  const end = Math.min(a.frame + a.count, b.frame + b.count);
  return frame < end ? { frame, count: end - frame } : undefined;
};

const isWithin = (runs: readonly FrameRun[], frame: number): boolean =>
  runs.some((run) => run.frame <= frame && frame < run.frame + run.count);

/** The parts of the run that none of the others has. */
const without = (run: FrameRun, others: readonly FrameRun[]): readonly FrameRun[] =>
  others.reduce<readonly FrameRun[]>(
    (parts, other) =>
      parts.flatMap((part) => {
        const common = overlap(part, other);
        if (common === undefined) return [part];
        const end = common.frame + common.count;
        return [
          { frame: part.frame, count: common.frame - part.frame },
          { frame: end, count: part.frame + part.count - end },
        ].filter(({ count }) => count > 0);
      }),
    [run],
  );

type Presence = Pick<FactParts, 'inodes' | 'resident' | 'absent' | 'shares'>;
const PRESENCE = ['inodes', 'resident', 'absent', 'shares'] as const;

/** Frames that are not to be seen in the direct map, or that are there because they are shared. */
const accounted = ({ absent, shares }: Presence): readonly FrameRun[] => [
  ...absent,
  ...shares.filter(({ sharing }) => sharing > 0).map(({ frame }) => ({ frame, count: 1 })),
];

interface Pages extends FrameRun {
  readonly inode: string;
  readonly page: number;
}

/** Pages of files with NO_DIRECT_MAP that the direct map shows although nobody shares them. */
function strayPages(facts: Presence): readonly Pages[] {
  const files = new Set(facts.inodes.filter(({ noDirectMap }) => noDirectMap === true).map(({ inode }) => inode));
  if (files.size === 0) return [];
  const known = accounted(facts);
  return facts.resident
    .filter(isFramed)
    .filter(({ inode }) => files.has(inode))
    .flatMap(({ inode, page, frame, count }) =>
      without({ frame, count }, known).map((part) => ({ inode, page: page + part.frame - frame, ...part })),
    );
}

/** The page of the run that was out of the direct map, or shared, before; frames may have other numbers now. */
function wasOut(before: Presence, { inode, page, count }: Pages): number | undefined {
  const out = accounted(before);
  for (const earlier of before.resident.filter(isFramed)) {
    if (earlier.inode !== inode) continue;
    const first = Math.max(page, earlier.page);
    const last = Math.min(page + count, earlier.page + earlier.count);
    if (last <= first) continue;
    const common = { frame: earlier.frame + first - earlier.page, count: last - first };
    const hit = out.map((run) => overlap(common, run)).find((each) => each !== undefined);
    if (hit !== undefined) return hit.frame - earlier.frame + earlier.page;
  }
  return undefined;
}

const names = ({ holders }: ShareFact): string => (holders.length === 0 ? 'no cache' : holders.join(', '));

const sharesHeld = clause(['shares'], ({ after }) => {
  const wrong = after.shares.find(({ sharing, holders }) => sharing !== holders.length);
  return wrong && `frame ${hex(wrong.frame)} is shared ${wrong.sharing} times, by ${names(wrong)}`;
});

const sharedPresent = clause(['shares', 'absent'], ({ after }) => {
  const wrong = after.shares.find(({ frame, sharing }) => sharing > 0 && isWithin(after.absent, frame));
  return wrong && `frame ${hex(wrong.frame)} is shared by ${names(wrong)}, and the direct map does not show it`;
});

const notLeftBehind = clause(PRESENCE, ({ before, after }) => {
  if (before === undefined) return undefined;
  for (const stray of strayPages(after)) {
    const page = wasOut(before, stray);
    if (page !== undefined)
      return `page ${hex(page)} of ${stray.inode} is back in the direct map, and nobody shares it`;
  }
  return undefined;
});

const shownBy = (tables: readonly FrameRun[], strays: readonly Pages[]): string | undefined => {
  for (const stray of strays) {
    const used = tables.map((run) => overlap(stray, run)).find((run) => run !== undefined);
    if (used !== undefined)
      return `page ${hex(used.frame - stray.frame + stray.page)} of ${stray.inode} is in use, and the direct map shows it`;
  }
  return undefined;
};

const guestUsesAbsent = clause([...PRESENCE, 'stageTwo'], ({ after }) => shownBy(after.stageTwo, strayPages(after)));

const hostUsesAbsent = clause([...PRESENCE, 'user'], ({ after }) =>
  shownBy(after.user.filter(isFramed), strayPages(after)),
);

const residentAbsent = clause([...PRESENCE, 'unremoved'], ({ after }) => {
  const [stray] = strayPages(after).flatMap(({ inode, page, frame, count }) =>
    without({ frame, count }, after.unremoved).map((part) => ({ inode, page: page + part.frame - frame })),
  );
  return stray && `the direct map shows page ${hex(stray.page)} of ${stray.inode}, and nobody shares it`;
});

const flushed = clause(['staleTlb'], ({ after: { staleTlb } }) => {
  const [stale] = staleTlb;
  return stale && `the TLB of CPU ${stale.cpu} shows frame ${hex(stale.frame)}, which was taken out of the direct map`;
});

const pageAt = (resident: FactParts['resident'], frame: number): string | undefined => {
  const run = residentAt(resident, frame);
  return run && `${run.inode} ${run.page + frame - run.frame}`;
};

/** Tracepoints name frames, so whoever has them knows that a frame keeps its number. */
const traced = clause(['shares', 'shareEvents', 'resident'], ({ before, after }) => {
  if (before === undefined) return undefined;
  const sharing = (shares: readonly ShareFact[], frame: number): number =>
    shares.find((share) => share.frame === frame)?.sharing ?? 0;
  for (const { frame } of [...before.shares, ...after.shares, ...after.shareEvents]) {
    const earlier = pageAt(before.resident, frame);
    // A page that goes takes its count with it.
    if (earlier !== undefined && earlier !== pageAt(after.resident, frame)) continue;
    const events = after.shareEvents.filter((each) => each.frame === frame);
    const told = events.reduce((sum, { event }) => sum + (event === 'share' ? 1 : -1), 0);
    const [was, is] = [sharing(before.shares, frame), sharing(after.shares, frame)];
    if (is - was !== told)
      return `frame ${hex(frame)} was shared ${was} times and is ${is} times; the trace explains ${told}`;
  }
  return undefined;
});

interface ValidCache extends Framed<CacheFact> {
  readonly gfn: number;
}

const isValid = (cache: CacheFact): cache is ValidCache =>
  cache.valid && cache.gfn !== undefined && cache.frame !== undefined;

const validIsActive = clause(['caches'], ({ after }) => {
  for (const { gpc, active, valid, frame } of after.caches) {
    if (valid && !active) return `${gpc} is valid and not active`;
    if (valid && frame === undefined) return `${gpc} is valid and points at nothing`;
  }
  return undefined;
});

const isPrivate = (ranges: readonly PrivateFact[], { vm, gfn }: ValidCache): boolean =>
  ranges.some((range) => range.vm === vm && range.start <= gfn && gfn < range.end);

const notBacked = ({ gpc, vm, gfn, frame }: ValidCache): string =>
  `${gpc} is valid and points at frame ${hex(frame)}, which does not back gfn ${hex(gfn)} of ${vm}`;

const BACKING = ['slots', 'files', 'resident'] as const;
type Backing = Pick<FactParts, (typeof BACKING)[number]>;

/** Whether the file of the slot that has the guest frame has that frame there. */
function isBacked(
  { slots, files, resident }: Backing,
  { vm, gfn, frame }: Pick<ValidCache, 'vm' | 'gfn' | 'frame'>,
): boolean {
  const slot = slotAt(slots, vm, gfn);
  const run = residentAt(resident, frame);
  if (slot === undefined || run === undefined) return false;
  const inode = files.find(({ file }) => file === slot.file)?.inode;
  return run.inode === inode && frame - run.frame + run.page === gfn - slot.baseGfn + slot.firstPage;
}

/** Where the guest frame is private, the file of its slot backs it. */
const privateBacked = clause(['caches', 'private', ...BACKING], ({ after }) => {
  const wrong = after.caches
    .filter(isValid)
    .find((cache) => isPrivate(after.private, cache) && !isBacked(after, cache));
  return wrong && notBacked(wrong);
});

/** Whether the guest frame is still private is not asked: a conversion takes no share away. But its slot must have the page. */
const sharedByUsers = clause(['shares', 'caches', ...BACKING], ({ after }) => {
  for (const { frame, holders } of after.shares)
    for (const { gpc, vm, gfn } of after.caches.filter((each) => holders.includes(each.gpc))) {
      const isUser = gfn !== undefined && isBacked(after, { vm, gfn, frame });
      if (!isUser) return `${gpc} has a share of frame ${hex(frame)}, which does not back its guest address any more`;
    }
  return undefined;
});

/** A shared guest frame is reached through the host process, whose page table shows it at the host address of the slot. */
const sharedBacked = clause(['caches', 'private', 'slots', 'user'], ({ after }) => {
  if (!after.user.every(isFramed)) return undefined;
  const entries = after.user.filter(isFramed);
  const wrong = after.caches.filter(isValid).find((cache) => {
    if (isPrivate(after.private, cache)) return false;
    const slot = slotAt(after.slots, cache.vm, cache.gfn);
    return slot === undefined || !isWithin(shownBehind(entries, slot, cache.gfn), cache.frame);
  });
  return wrong && notBacked(wrong);
});

/** What the process has behind a guest frame; all that it has, where nobody tells addresses. */
function shownBehind(
  entries: readonly Framed<UserMappingFact>[],
  { hostPage, baseGfn }: SlotFact,
  gfn: number,
): readonly FrameRun[] {
  if (hostPage === undefined) return entries;
  const at = hostPage + gfn - baseGfn;
  return entries.flatMap((entry) => {
    if (entry.hostPage === undefined) return [entry];
    const index = at - entry.hostPage;
    return 0 <= index && index < entry.count ? [{ frame: entry.frame + index, count: 1 }] : [];
  });
}

const hostAddressCurrent = clause(['hvaCaches', 'slots'], ({ after }) => {
  for (const { ghc, vm, gfn, valid, hostPage } of after.hvaCaches) {
    if (!valid) continue;
    const slot = slotAt(after.slots, vm, gfn);
    if (slot === undefined) return `${ghc} keeps a host address for gfn ${hex(gfn)} of ${vm}, which is in no slot`;
    if (hostPage === undefined || slot.hostPage === undefined) continue;
    const shown = slot.hostPage + gfn - slot.baseGfn;
    if (hostPage !== shown)
      return `${ghc} keeps host page ${hex(hostPage)} for gfn ${hex(gfn)} of ${vm}, which its slot has at ${hex(shown)}`;
  }
  return undefined;
});

const validIsPresent = clause(['caches', 'absent'], ({ after }) => {
  const wrong = after.caches.filter(isValid).find(({ frame }) => isWithin(after.absent, frame));
  return wrong && `${wrong.gpc} is valid and points at frame ${hex(wrong.frame)}, which the direct map does not show`;
});

const RFC = 'RFC v2 "Unmapping guest_memfd from Direct Map", September 2024';
const only: Condition = { feature: 'direct-map' };
const LOADS = 'its users load from it without asking anybody';

export const directMapInvariants: readonly Invariant[] = [
  {
    id: 'direct-map/balanced',
    sentence:
      'Every temporary reinsertion is undone exactly once: a page that was taken out of the direct map, or that is in use, is present there exactly while its sharing count is above zero, the count is never negative, and it is zero when its last user is gone.',
    source: `${RFC}, patches 2 to 5: kvm_gmem_get_folio(), kvm_gmem_put_shared_pfn()`,
    only,
    clauses: [sharesHeld, sharedByUsers, always(LOADS, sharedPresent), notLeftBehind, guestUsesAbsent, hostUsesAbsent],
  },
  {
    id: 'direct-map/resident-is-absent',
    sentence:
      'A page of a file without direct map is absent from it for as long as it is in the file, unless it is shared, or could not leave and nobody has been given it.',
    source: `${RFC}, patch 1; review of v12 "Direct Map Removal Support for guest_memfd", April 2026`,
    only: { feature: 'direct-map-on-entry' },
    clauses: [residentAbsent],
  },
  {
    id: 'direct-map/unreachable',
    sentence:
      'A page removed from the direct map is not reachable through it: the TLB flush, on every CPU, is part of the removal.',
    source: `${RFC}, patch 1: kvm_gmem_folio_set_private()`,
    only,
    clauses: [always('another CPU may speculate at any time', flushed)],
  },
  {
    id: 'direct-map/traced',
    sentence: 'A sharing count changes by what the tracepoints tell, and by nothing else.',
    source: `${RFC}, patch 6: kvm_gmem_share, kvm_gmem_unshare`,
    only,
    clauses: [traced],
  },
  {
    id: 'pfncache/valid-is-current',
    sentence:
      'A pfncache that says valid is active and points at the page that currently backs its gpa, and the direct map shows that page.',
    source: `virt/kvm/pfncache.c: kvm_gpc_check(); ${RFC}, patches 7 and 9`,
    only,
    clauses: [validIsActive, privateBacked, sharedBacked, always(LOADS, validIsPresent)],
  },
  {
    id: 'hva-cache/valid-is-current',
    sentence:
      'A gfn_to_hva_cache that is used without another look keeps the host address at which its slot has its guest address now.',
    source: 'virt/kvm/kvm_main.c: kvm_write_guest_offset_cached(), __kvm_gfn_to_hva_cache_init()',
    only,
    clauses: [hostAddressCurrent],
  },
];
