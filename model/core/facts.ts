/**
 * What is true of a machine at a command boundary: the common vocabulary in which invariants are stated. The
 * specification derives facts from its state; a target reports as much of its own as it sees. A part that it cannot see
 * is left out, and what invariants say of that part is reported as not observable. A part that is there is complete, as
 * far as invariants can tell: what a target leaves out of one, it leaves out with everything that refers to it.
 *
 * Facts name things by what they are, not by what the machine calls them: a struct kvm by the label of the descriptor
 * that created it, also after its memory was freed and became another struct kvm.
 */
import type {
  EndingEvent,
  IsolationEvent,
  McCached,
  McGuest,
  McOneToOne,
  McStage,
  McUse,
  McWork,
  TouchEvent,
} from './machine-check.ts';
import { holdsIn, type Condition, type Profile } from './profile.ts';
import type { Range } from './ranges.ts';
import type { ConsumptionEvent, HostWriteEvent, Label } from './state.ts';

/** A struct kvm that has not been destroyed. */
export interface VmFact {
  readonly vm: Label;
}

/** Guest frames with the attribute PRIVATE, from `start` up to `end`. */
export interface PrivateFact {
  readonly vm: Label;
  readonly start: number;
  readonly end: number;
}

/** A guest_memfd file that has not been released. */
export interface FileFact {
  readonly file: Label;
  /** The VM that the file was created for. */
  readonly vm: Label;
  readonly inode: Label;
}

export interface InodeFact {
  readonly inode: Label;
  readonly pages: number;
  /** Created with NO_DIRECT_MAP. */
  readonly noDirectMap?: boolean;
}

export interface SlotFact {
  readonly vm: Label;
  readonly slot: number;
  readonly baseGfn: number;
  readonly pages: number;
  /** Made with KVM_MEM_GUEST_MEMFD. */
  readonly gmem: boolean;
  /** The file that the slot refers to, released or not; undefined where it refers to none. */
  readonly file: Label | undefined;
  readonly firstPage: number;
  /** Its host address, in pages: any number that tells pages of user space apart and counts them in a row. */
  readonly hostPage?: number;
}

/** An entry of a file's table of bindings. */
export interface BindingFact {
  readonly file: Label;
  readonly start: number;
  readonly end: number;
  readonly vm: Label;
  readonly slot: number;
  /** Whether that VM still has that slot. */
  readonly live: boolean;
}

/** `count` pages of an inode from `page` on are in its page cache. */
export interface ResidentFact {
  readonly inode: Label;
  readonly page: number;
  readonly count: number;
  /** The first of the physical frames in a row that hold them. Whoever reports entries of stage 2, or caches, knows it. */
  readonly frame?: number;
  /** References to each of those frames; mechanism, so left out by a target that does not count. */
  readonly references?: number;
}

/** Frames that are neither in the page cache of an inode nor on the free list, although somebody counts on them. */
export interface OrphanFact {
  readonly frame: number;
  readonly references: number;
}

/** Frames in a row. */
export interface FrameRun {
  readonly frame: number;
  readonly count: number;
}

export interface StageTwoFact {
  readonly vm: Label;
  readonly gfn: number;
  readonly frame: number;
  readonly count: number;
  readonly private: boolean;
}

/** Entries of a user page table, from page `page` of a mapping on. */
export interface UserMappingFact {
  readonly mapping: Label;
  readonly page: number;
  readonly count: number;
  /** What the mapping was made to show there: pages of an inode. */
  readonly inode: Label;
  readonly inodePage: number;
  /** The first of the physical frames in a row that are there. Left out by a target that cannot see frames. */
  readonly frame?: number;
  /** The address of the first entry, in pages. */
  readonly hostPage?: number;
}

/** A page that was shown to a guest or to the host for the first time since the last command. */
export interface FirstTouch {
  readonly inode: Label;
  readonly page: number;
  readonly zero: boolean;
}

/** A frame with a sharing count: so many users need it in the direct map. */
export interface ShareFact {
  readonly frame: number;
  /** The number of shares, without the one that some implementations count for "no shares". */
  readonly sharing: number;
  /** The caches that have a share each. */
  readonly holders: readonly Label[];
}

/** Frames that the TLB of a CPU shows in the direct map, although the direct map does not. */
export interface StaleTlbFact extends FrameRun {
  readonly cpu: number;
}

/** A gfn_to_pfn_cache that has been set up and whose VM is there. */
export interface CacheFact {
  readonly gpc: Label;
  readonly vm: Label;
  /** The guest frame that it is activated for. */
  readonly gfn?: number | undefined;
  readonly active: boolean;
  /** What kvm_gpc_check() says, for an access within the page. */
  readonly valid: boolean;
  /** The frame that it points at. */
  readonly frame?: number | undefined;
}

/** A gfn_to_hva_cache whose VM is there. */
export interface HvaCacheFact {
  readonly ghc: Label;
  readonly vm: Label;
  /** The guest frame in which its range begins. */
  readonly gfn: number;
  /** Whether an access would go to the host address that it keeps, unless the frame is private, without another look. */
  readonly valid: boolean;
  /** That address, in pages, where the cache is valid. */
  readonly hostPage?: number;
}

/** A tracepoint: kvm_gmem_share or kvm_gmem_unshare. */
export interface ShareEvent {
  readonly event: 'share' | 'unshare';
  readonly frame: number;
}

/** A page that belongs to a TD, or outside of TDX one with something of a guest in it. */
export interface TdPageFact {
  readonly vm: Label;
  readonly gfn: number;
  readonly frame: number;
  /** The private key that it is under; 0 where keys have no numbers. */
  readonly key: number;
  /** `pending`: given and not accepted; `exported`: encrypted for the host, which may have it. */
  readonly state: 'pending' | 'mapped' | 'blocked' | 'exported';
}

/** A line that is not as its page should be. Lines that are not listed are in order. */
export interface LineFact {
  readonly frame: number;
  readonly line: number;
  /**
   * `foreign`: in a page of a TD, written under the shared key; `keyed`: in no page of a guest, under a private key still, or,
   * in a cache, to be written back under one.
   */
  readonly state: 'foreign' | 'keyed' | 'poisoned';
}

/** A private key (HKID, ASID) of the machine. */
export interface KeyFact {
  readonly key: number;
  /** `reclaim`: given back, and not flushed yet. */
  readonly state: 'free' | 'assigned' | 'reclaim' | 'leaked';
  /** Whose it is, or was when it leaked. */
  readonly vm?: Label | undefined;
  /** No cache holds a line under it. */
  readonly flushed: boolean;
}

/** A mapping of user space (an entry that is present) or of a device, which shows the frame. */
export interface HostMapFact {
  readonly vm: Label;
  readonly gfn: number;
  readonly frame: number;
  readonly by: 'user' | 'dma';
}

/** A guest whose pages can go bad, until it is destroyed. */
export interface GuestFact {
  readonly vm: Label;
  readonly state: McGuest['state'];
  /** A bad line, a memory failure or a machine check was its own since it was created, or its control registers were written. */
  readonly disturbed: boolean;
  /** So many times it was rebooted. */
  readonly reboots: number;
  /** So many times with what the host took being replaced. */
  readonly replaced: number;
}

/** A CPU of a guest that runs. */
export interface CpuFact {
  readonly vm: Label;
  readonly cpu: number;
  readonly stage: McStage;
  /** The next step of what it has to do before its task goes on in user mode. */
  readonly work: McWork['step'] | 'none';
  /** Machine checks that it took since that work was begun. */
  readonly checks: number;
}

/** A task of a guest that runs. */
export interface TaskFact {
  readonly vm: Label;
  readonly task: number;
  readonly alive: boolean;
}

/** What the kernel of a guest that runs knows of a frame. */
export interface GuestPageFact {
  readonly vm: Label;
  readonly gfn: number;
  readonly use: McUse;
  readonly poisoned: boolean;
  /** Its entry in the 1:1 map. */
  readonly oneToOne: McOneToOne;
  /** Tasks whose page tables show it. */
  readonly shownTo: readonly number[];
  /** Tasks whose page tables have a poison entry in its place. */
  readonly poisonFor: readonly number[];
}

/** A guest frame that is plugged. */
export interface BackingFact {
  readonly vm: Label;
  readonly gfn: number;
  /** Undefined where no frame backs it any more. */
  readonly frame?: number | undefined;
  /** The host took it away, and whatever the guest does with it comes to the VMM. */
  readonly taken: boolean;
}

/** A line of a frame that backs a guest frame, and that a cache has. */
export interface CachedFact {
  readonly frame: number;
  readonly line: number;
  /** As it is in memory; with something that was stored since; or gone bad in the cache. */
  readonly state: McCached;
}

/** The frames that a guest shares, by its own page tables. */
export interface AnnouncedFact {
  readonly guest: Label;
  readonly ranges: readonly Range[];
}

/** What the host would hand to a migration of the guest. */
export interface RecordFact extends AnnouncedFact {
  readonly incomplete: boolean;
}

/** What the record of a guest costs the host. */
export interface StatusWorkFact {
  readonly guest: Label;
  /** What the VMM allows: ranges, words of a bitmap, or entries that the guest gave. */
  readonly units: number;
  /** Bytes that the host holds for it. */
  readonly bytes: number;
  /** Hypercalls of the guest in the last command; each entry of a page-state change counts as one. */
  readonly calls: number;
  /** Nodes, array elements and words that those visited or wrote. */
  readonly steps: number;
}

/** A guest that calls the host. */
export interface HypercallFact {
  readonly guest: Label;
  /** An exit of it waits for the VMM's answer. */
  readonly pending: boolean;
}

/** A VM that uses a key of SEV. */
export interface KeyUserFact {
  readonly vm: Label;
  readonly key: number;
  /** The VM that it mirrors, also where that is gone. */
  readonly owner?: Label | undefined;
}

/** Pages of the arena that are registered as a guest's, from `start` up to `end`. */
export interface RegionFact {
  readonly vm: Label;
  readonly start: number;
  readonly end: number;
}

/** A page of the arena that is pinned. */
export interface PinFact {
  readonly page: number;
  readonly count: number;
}

/** What KVM did of a VM's end without letting others run in between. */
export interface StretchFact {
  readonly vm: Label;
  /** Regions that were given back in a row. */
  readonly regions: number;
}

/** A vCPU whose save area was encrypted. */
export interface SaveAreaFact {
  readonly vm: Label;
  readonly vcpu: number;
  /** Its registers are others than those that were encrypted. */
  readonly stale: boolean;
}

/** Every part that facts can have. */
export interface FactParts {
  readonly vms: readonly VmFact[];
  readonly private: readonly PrivateFact[];
  readonly files: readonly FileFact[];
  readonly inodes: readonly InodeFact[];
  readonly slots: readonly SlotFact[];
  readonly bindings: readonly BindingFact[];
  readonly resident: readonly ResidentFact[];
  readonly stageTwo: readonly StageTwoFact[];
  readonly user: readonly UserMappingFact[];
  /** Frames with a memory failure. */
  readonly poisoned: readonly number[];
  /** The parts below are mechanism, which the specification of guest_memfd has not. */
  readonly free: readonly FrameRun[];
  /** Whoever reports these counts references to resident pages as well. */
  readonly orphans: readonly OrphanFact[];
  readonly firstTouches: readonly FirstTouch[];
  /** Frames that the direct map does not show. */
  readonly absent: readonly FrameRun[];
  /** Frames of files with NO_DIRECT_MAP that could not leave the direct map, and that nobody has been given since. */
  readonly unremoved: readonly FrameRun[];
  /** Frames whose sharing count is not zero. */
  readonly shares: readonly ShareFact[];
  readonly staleTlb: readonly StaleTlbFact[];
  readonly caches: readonly CacheFact[];
  readonly hvaCaches: readonly HvaCacheFact[];
  /** Since the last command, in order. */
  readonly shareEvents: readonly ShareEvent[];
  readonly tdPages: readonly TdPageFact[];
  readonly lines: readonly LineFact[];
  readonly keys: readonly KeyFact[];
  readonly hostMaps: readonly HostMapFact[];
  /** Since the last command, in order. */
  readonly hostWrites: readonly HostWriteEvent[];
  /** Since the last command, in order. */
  readonly consumptions: readonly ConsumptionEvent[];
  readonly guests: readonly GuestFact[];
  readonly cpus: readonly CpuFact[];
  readonly tasks: readonly TaskFact[];
  readonly guestPages: readonly GuestPageFact[];
  readonly backing: readonly BackingFact[];
  readonly cached: readonly CachedFact[];
  /** Since the last command, in order: touches of a page that is taken; on bare metal, of a bad line that is consumed. */
  readonly touches: readonly TouchEvent[];
  /** Since the last command, in order. */
  readonly isolations: readonly IsolationEvent[];
  /** Since the last command, in order. */
  readonly endings: readonly EndingEvent[];
  readonly announced: readonly AnnouncedFact[];
  readonly records: readonly RecordFact[];
  readonly statusWork: readonly StatusWorkFact[];
  readonly hypercalls: readonly HypercallFact[];
  readonly keyUsers: readonly KeyUserFact[];
  readonly regions: readonly RegionFact[];
  readonly pins: readonly PinFact[];
  /** Since the last command, in order. */
  readonly stretches: readonly StretchFact[];
  /** Since the last command, in order. */
  readonly saveAreas: readonly SaveAreaFact[];
  /** Writes or reads outside of an array that the machine made since the last command, in words. */
  readonly outOfBounds: readonly string[];
}

export type FactPart = keyof FactParts;

const GUEST_MEMORY: readonly Condition[] = [{ realm: 'guest-memory' }];
const DIRECT_MAP: readonly Condition[] = [{ feature: 'direct-map' }];
const TD: readonly Condition[] = [{ realm: 'td' }];
const MC: readonly Condition[] = [{ realm: 'mc' }];
const MACHINES: readonly Condition[] = [...GUEST_MEMORY, ...TD, ...MC];
const SEV: readonly Condition[] = [{ realm: 'sev' }];
const SEV_FILES: readonly Condition[] = [{ realm: 'sev', feature: 'gmem-link' }];
const STATUS: readonly Condition[] = [{ realm: 'page-status' }];

/** In which profiles there is what a part speaks of: where one of the conditions holds. */
const WHERE: Readonly<Record<FactPart, readonly Condition[]>> = {
  vms: [...MACHINES, ...SEV],
  private: [...GUEST_MEMORY, ...TD],
  files: [...GUEST_MEMORY, ...SEV_FILES],
  inodes: [...GUEST_MEMORY, ...SEV_FILES],
  slots: [...GUEST_MEMORY, ...SEV_FILES],
  bindings: GUEST_MEMORY,
  resident: GUEST_MEMORY,
  stageTwo: MACHINES,
  user: GUEST_MEMORY,
  poisoned: MACHINES,
  free: [...MACHINES, ...SEV],
  orphans: GUEST_MEMORY,
  firstTouches: GUEST_MEMORY,
  absent: [...DIRECT_MAP, ...MC],
  unremoved: DIRECT_MAP,
  shares: DIRECT_MAP,
  staleTlb: DIRECT_MAP,
  caches: DIRECT_MAP,
  hvaCaches: DIRECT_MAP,
  shareEvents: DIRECT_MAP,
  tdPages: TD,
  lines: [...TD, ...MC, ...SEV],
  keys: [...TD, ...SEV],
  hostMaps: [...TD, ...MC],
  hostWrites: TD,
  consumptions: TD,
  outOfBounds: [...GUEST_MEMORY, ...STATUS],
  guests: MC,
  cpus: MC,
  tasks: MC,
  guestPages: MC,
  backing: MC,
  touches: MC,
  cached: MC,
  isolations: MC,
  endings: MC,
  announced: STATUS,
  records: STATUS,
  statusWork: STATUS,
  hypercalls: [{ realm: 'hypercall' }],
  keyUsers: SEV,
  regions: SEV,
  pins: SEV,
  stretches: SEV,
  saveAreas: SEV,
};

/** Whether there is in the profile what the part speaks of. */
export const hasPart = (profile: Profile, part: FactPart): boolean =>
  WHERE[part].some((condition) => holdsIn(profile, condition));

/** Parts about TDs, which other systems have not. */
export type TdPart = 'tdPages' | 'lines' | 'keys' | 'hostMaps' | 'hostWrites' | 'consumptions';

/** Parts about machine checks, which other systems have not. */
export type McPart =
  'guests' | 'cpus' | 'tasks' | 'guestPages' | 'backing' | 'cached' | 'touches' | 'isolations' | 'endings';

/** Parts about guests that announce shared pages, or call the host, which other systems have not. */
export type StatusPart = 'announced' | 'records' | 'statusWork' | 'hypercalls';

/** Parts about SEV guests and their keys, which other systems have not. */
export type SevPart = 'keyUsers' | 'regions' | 'pins' | 'stretches' | 'saveAreas';

/** What a target sees of itself. */
export type Facts = Partial<FactParts>;
