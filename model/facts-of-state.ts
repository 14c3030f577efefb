/** What the specification's own state says is true, in the vocabulary of facts. */
import type {
  BindingFact,
  CacheFact,
  FactParts,
  Facts,
  FileFact,
  FrameRun,
  HvaCacheFact,
  InodeFact,
  PrivateFact,
  ResidentFact,
  ShareFact,
  SlotFact,
  StageTwoFact,
  UserMappingFact,
  VmFact,
} from './core/facts.ts';
import { PAGE_SHIFT, toPages } from './core/abi.ts';
import { holdsIn, realmOf } from './core/profile.ts';
import { known, type Address, type Label, type State } from './core/state.ts';
import { isCurrent } from './direct-map/caches.ts';
import { addressless, goesOn } from './direct-map/hva-caches.ts';
import { absentPages, sharesOf } from './direct-map/presence.ts';
import { isOutOfDirectMap } from './gmem/content.ts';
import { stuckPages } from './gmem/direct-map-fault.ts';
import { bindingsOf } from './gmem/lifecycle.ts';
import { slotAt } from './gmem/slots.ts';
import { machineCheckFacts } from './machine-check/facts.ts';
import { keyFacts } from './sev/key-facts.ts';
import { statusFacts } from './sev/status-facts.ts';
import { tdFacts } from './tdx/facts.ts';

/**
 * The specification has no page frames: it numbers the resident pages of all inodes in a row. Inodes may be as large as
 * files can be, so pages that are not resident get no number.
 */
function frameNumbers(state: State): (inode: Label, page: number) => number {
  const runs = new Map<Label, { readonly start: number; readonly end: number; readonly frame: number }[]>();
  let next = 0;
  for (const [label, { resident }] of state.inodes) {
    const own = resident.map(({ start, end }) => {
      const run = { start, end, frame: next };
      next += end - start;
      return run;
    });
    runs.set(label, own);
  }
  return (inode, page) => {
    const run = runs.get(inode)?.find(({ start, end }) => start <= page && page < end);
    if (run === undefined) throw new Error(`specification defect: page ${page} of ${inode} is shown and not resident`);
    return run.frame + page - run.start;
  };
}

/** What the specification knows of, but for the direct map: no mechanism. */
type Common = Pick<
  FactParts,
  'vms' | 'private' | 'files' | 'inodes' | 'slots' | 'bindings' | 'resident' | 'stageTwo' | 'user' | 'poisoned'
>;
type OfDirectMap = Pick<FactParts, 'inodes' | 'absent' | 'unremoved' | 'shares' | 'caches' | 'hvaCaches'>;
type Specified = Common & Partial<OfDirectMap>;

type FrameOf = ReturnType<typeof frameNumbers>;

export function factsOfState(state: State): Facts {
  switch (realmOf(state.config.profile)) {
    case 'td':
      return tdFacts(state);
    case 'page-status':
      return statusFacts(state);
    case 'sev':
      return keyFacts(state);
    case 'hypercall':
      return {
        hypercalls: Array.from(state.hypercall.guests, ([guest, { pending }]) => ({
          guest,
          pending: pending !== undefined,
        })),
      };
    case 'mc':
      return machineCheckFacts(state);
    case 'guest-memory':
      return guestMemoryFacts(state);
  }
}

function guestMemoryFacts(state: State): Specified {
  const vms: VmFact[] = [];
  const privateFrames: PrivateFact[] = [];
  const files: FileFact[] = [];
  const inodes: InodeFact[] = [];
  const slots: SlotFact[] = [];
  const bindings: BindingFact[] = [];
  const resident: ResidentFact[] = [];
  const stageTwo: StageTwoFact[] = [];
  const poisoned: number[] = [];
  const frameOf = frameNumbers(state);
  const hostPageOf = hostPages(state);
  for (const [vm, { private: isPrivate, slots: slotTable, stageTwo: entries }] of state.vms) {
    vms.push({ vm });
    for (const { start, end } of isPrivate) privateFrames.push({ vm, start, end });
    for (const { id: slot, baseGfn, pages, gmem, hva } of slotTable.values())
      slots.push({
        vm,
        slot,
        baseGfn,
        pages,
        gmem: gmem !== undefined,
        file: gmem?.file,
        firstPage: gmem?.firstPage ?? 0,
        ...hostPageOf(hva, 0),
      });
    for (const { start, end, value } of entries)
      stageTwo.push({
        vm,
        gfn: start,
        frame: frameOf(value.inode, start + value.delta),
        count: end - start,
        private: value.private,
      });
  }
  for (const [file, { vm, inode }] of state.files) {
    files.push({ file, vm, inode });
    for (const { start, end, slot } of bindingsOf(state, file))
      bindings.push({ file, start, end, vm, slot: slot.id, live: true });
  }
  for (const [inode, { pages, resident: runs, poisoned: bad }] of state.inodes) {
    inodes.push({ inode, pages });
    for (const { start, end } of runs)
      resident.push({ inode, page: start, frame: frameOf(inode, start), count: end - start });
    for (const { start, end } of bad) for (let page = start; page < end; page++) poisoned.push(frameOf(inode, page));
  }
  return {
    vms,
    private: privateFrames,
    files,
    inodes,
    slots,
    bindings,
    resident,
    stageTwo,
    user: userMappings(state, frameOf, hostPageOf),
    poisoned,
    ...(holdsIn(state.config.profile, { feature: 'direct-map' }) && directMapFacts(state, inodes, frameOf, hostPageOf)),
  };
}

function directMapFacts(
  state: State,
  inodes: readonly InodeFact[],
  frameOf: FrameOf,
  hostPageOf: HostPageOf,
): OfDirectMap {
  const absent: FrameRun[] = [];
  const unremoved: FrameRun[] = [];
  const shares: ShareFact[] = [];
  for (const inode of state.inodes.keys()) {
    for (const { start, end } of absentPages(state, inode))
      absent.push({ frame: frameOf(inode, start), count: end - start });
    for (const { start, end } of stuckPages(state, inode))
      unremoved.push({ frame: frameOf(inode, start), count: end - start });
    for (const [page, holders] of sharesOf(state, inode))
      shares.push({ frame: frameOf(inode, page), sharing: holders.length, holders });
  }
  return {
    inodes: inodes.map((each) => ({ ...each, noDirectMap: isOutOfDirectMap(known(state.inodes, each.inode)) })),
    absent,
    unremoved,
    shares,
    caches: cacheFacts(state, frameOf),
    hvaCaches: hvaCacheFacts(state, hostPageOf),
  };
}

/** No mapping is as long: one behind the other, mappings that are there or were have addresses that differ. */
const MAPPING_SPACE = 2 ** 42;

/** The specification has no addresses: it numbers the mappings. None where a program names an address by a number. */
function hostPages({ mappings, unmapped }: State): (address: Address, pages: number) => { readonly hostPage?: number } {
  const numbers = new Map([...mappings.keys(), ...unmapped.keys()].map((label, index) => [label, index]));
  return ({ base, offset }, pages) => {
    const number = numbers.get(base);
    return number === undefined ? {} : { hostPage: number * MAPPING_SPACE + toPages(offset) + pages };
  };
}

type HostPageOf = ReturnType<typeof hostPages>;

const hvaCacheFacts = (state: State, hostPageOf: HostPageOf): HvaCacheFact[] =>
  Array.from(state.hvaCaches, ([ghc, { vm, gpa, length, lost }]) => {
    const gfn = toPages(gpa);
    const range = { gpa, length };
    const valid = length > 0n && !lost && !goesOn(range) && addressless(state, vm, range) === undefined;
    const slot = valid ? slotAt(known(state.vms, vm), gfn) : undefined;
    return { ghc, vm, gfn, valid, ...(slot && hostPageOf(slot.hva, gfn - slot.baseGfn)) };
  });

const cacheFacts = (state: State, frameOf: FrameOf): CacheFact[] =>
  Array.from(state.caches, ([gpc, { vm, gpa, page }]) => ({
    ...{ gpc, vm, active: gpa !== undefined, valid: isCurrent(state, gpc) },
    gfn: gpa === undefined ? undefined : Number(gpa >> PAGE_SHIFT),
    frame: page && frameOf(page.inode, page.page),
  }));

function userMappings(state: State, frameOf: FrameOf, hostPageOf: HostPageOf): UserMappingFact[] {
  const user: UserMappingFact[] = [];
  for (const [mapping, { inode, firstPage, touched }] of state.mappings)
    for (const { start, end } of touched)
      user.push({
        mapping,
        page: start,
        count: end - start,
        inode,
        inodePage: firstPage + start,
        frame: frameOf(inode, firstPage + start),
        ...hostPageOf({ base: mapping, offset: 0n }, start),
      });
  return user;
}
