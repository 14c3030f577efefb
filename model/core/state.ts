/**
 * What the specification remembers of a machine: plain immutable data, entities in maps under the label of the
 * descriptor that first named them. Nothing is stored that can be derived: a file's bindings are the slots that name
 * it, and an object's reference count is the number of things that refer to it.
 */
import type { Address, Label } from './label.ts';
import { FRESH_MC_MACHINE, type McMachine } from './machine-check.ts';
import type { Config } from './profile.ts';
import { EMPTY, type RangeMap, type RangeSet } from './ranges.ts';
import { FRESH_HYPERCALL_MACHINE, type HypercallMachine } from './state-hypercall.ts';
import { FRESH_SEV_MACHINE, type SevMachine } from './state-sev.ts';
import { FRESH_STATUS_MACHINE, type StatusMachine } from './state-status.ts';

export type { Address, Label } from './label.ts';

export type FdKind = 'device' | 'vm' | 'vcpu' | 'gmem' | 'other';

/** What a descriptor refers to. Several descriptors may refer to one thing. */
export interface OpenFile {
  readonly kind: FdKind;
  readonly id: Label;
}

export interface Slot {
  /** As given to the ioctl: address space in the upper 16 bits. */
  readonly id: number;
  readonly baseGfn: number;
  readonly pages: number;
  readonly flags: bigint;
  readonly hva: Address;
  /** Set where the slot was made with KVM_MEM_GUEST_MEMFD. `file` is undefined once that file is gone. */
  readonly gmem?: { readonly file: Label | undefined; readonly firstPage: number; readonly only: boolean };
}

/** What a run of stage-2 entries points at: page `gfn + delta` of an inode. */
export interface StageTwoTarget {
  readonly inode: Label;
  readonly delta: number;
  readonly private: boolean;
  readonly writable: boolean;
}

/** One struct kvm. */
export interface Vm {
  readonly type: bigint;
  readonly slots: ReadonlyMap<number, Slot>;
  /** Guest frames whose attribute is PRIVATE. */
  readonly private: RangeSet;
  readonly stageTwo: RangeMap<StageTwoTarget>;
  /** Guest frames that KVM may remember to be MMIO: no slot showed them when they were last touched or pre-faulted. */
  readonly mmio: RangeSet;
}

export interface Vcpu {
  readonly vm: Label;
  readonly apicId: bigint;
}

/** One struct file of guest_memfd: a VM's view of an inode. */
export interface GmemFile {
  readonly vm: Label;
  readonly inode: Label;
}

export type PageWords = ReadonlyMap<number, bigint>;

/** Memory: a guest_memfd inode, the anonymous arena of the host process, or secret memory of it. */
export interface Inode {
  readonly kind: 'gmem' | 'anonymous' | 'secret';
  readonly pages: number;
  /** Flags of KVM_CREATE_GUEST_MEMFD; zero for others. */
  readonly flags: bigint;
  /** Pages that hold a folio. */
  readonly resident: RangeSet;
  /** Pages that were taken out of the direct map; none where the file was created without NO_DIRECT_MAP. */
  readonly removed: RangeSet;
  /** Words that are not zero, by page and by index within it. */
  readonly words: ReadonlyMap<number, PageWords>;
  /** Pages with a memory failure that has not been punched out. */
  readonly poisoned: RangeSet;
}

export interface Mapping {
  readonly inode: Label;
  /** The guest memory file that the mapping keeps open. */
  readonly file: Label | undefined;
  readonly firstPage: number;
  readonly pages: number;
  /** Pages of the mapping, counted from its start, that the process has touched: its page table shows them. */
  readonly touched: RangeSet;
  /** Pages whose entry turned into a poison entry; it stays until the mapping goes, also after the page was punched. */
  readonly poisonEntries: RangeSet;
}

/** A gfn_to_pfn_cache. What it has looked up may be outdated; whether it is, is not stored. */
export interface Cache {
  readonly vm: Label;
  /** The guest address that it is activated for; undefined while it is inactive. */
  readonly gpa: bigint | undefined;
  /** The page that it has looked up. While it is `reinserted`, the cache keeps it in the direct map. */
  readonly page: { readonly inode: Label; readonly page: number; readonly reinserted: boolean } | undefined;
}

/** A gfn_to_hva_cache: a guest range, whose host address is kept until the slots change. */
export interface HvaCache {
  readonly vm: Label;
  /** What it was last set up for with success; before that no bytes at 0. */
  readonly gpa: bigint;
  readonly length: bigint;
  /** It has been left without a host address, and is so until the slots change. */
  readonly lost: boolean;
}

/** What a cache holds of a line for one key. Ciphertext, which tells nothing, has no value. */
export interface CachedCopy {
  readonly value: bigint | undefined;
  readonly dirty: boolean;
}

/** A line of memory, told by its first word. */
export interface Line {
  readonly value: bigint;
  /** The key that it was last written under: the guest's private one, or the one that all of the host has. */
  readonly under: 'guest' | 'host';
  readonly poisoned: boolean;
  /** Copies in caches, for each key; they are kept from one command to the next only where caches are looked at. */
  readonly guestCopy?: CachedCopy | undefined;
  readonly hostCopy?: CachedCopy | undefined;
}

/** A physical page. */
export interface TdPage {
  /** Its number, never used twice. */
  readonly frame: number;
  readonly lines: readonly Line[];
}

/** A guest frame of a TD. */
export interface TdFrame {
  readonly private: boolean;
  /** The entry of S-EPT; outside of TDX `mapped` where the page has something of the guest in it. */
  readonly entry: 'none' | 'pending' | 'mapped' | 'blocked';
  /** The entry is blocked, and all vCPUs have been out of the guest since. */
  readonly tracked: boolean;
  /** The page of the guest; in both worlds where pages are private or shared in their place. */
  readonly page: TdPage;
  /** The page at the host address, where that is another. */
  readonly vmmPage: TdPage | undefined;
  /** s390: the page is encrypted for the host; the host has changed what is encrypted. */
  readonly exported: 'no' | 'yes' | 'changed';
  /** The VMM has made a mapping of the frame, where that takes an act. */
  readonly isMapped: boolean;
  /** A device has the page at the host address. */
  readonly isPinned: boolean;
  /** The page at the host address is in swap. */
  readonly isSwapped: boolean;
}

export interface TdVcpu {
  readonly isInitialized: boolean;
  /** A CPU may hold state of it. */
  readonly isAssociated: boolean;
  /** Guest addresses that it has asked to convert, of which the VMM has not answered for the first chunk. */
  readonly asks?: { readonly next: bigint; readonly end: bigint } | undefined;
}

/** A guest whose memory the host must not touch. */
export interface Td {
  readonly exitsOnHypercall: boolean;
  readonly phase: 'created' | 'initialized' | 'runnable';
  /** The private key; 0 where keys have no numbers, undefined where it has none (yet, or any more). */
  readonly key: number | undefined;
  /** How far its key is on its way back: vCPUs are flushed, caches are written back. */
  readonly flush: 'none' | 'vcpus' | 'caches';
  /** Control pages, with those of S-EPT, and the root page that the module still owns. */
  readonly owned: { readonly control: boolean; readonly root: boolean };
  readonly vcpus: ReadonlyMap<string, TdVcpu>;
  readonly frames: readonly TdFrame[];
  /** KVM says that the VM is dead; or the module that it had a machine check. */
  readonly ended: 'no' | 'dead' | 'machine-check';
}

/** A store of the host that reached a line of a page which belongs to a TD, and was not exported. */
export interface HostWriteEvent {
  readonly frame: number;
  readonly line: number;
  readonly via: 'user' | 'gup' | 'direct' | 'dma' | 'zero';
}

/** Poison was consumed. */
export interface ConsumptionEvent {
  readonly by: 'guest' | 'kernel';
  readonly ended: 'guest' | 'machine';
  /** The core could have gone on. */
  readonly recoverable: boolean;
}

/** What the machine that runs TDs has besides them. */
export interface TdMachine {
  readonly tds: ReadonlyMap<Label, Td>;
  /** Keys that were not got back, and whose they were. */
  readonly leakedKeys: ReadonlyMap<number, Label>;
  /** Frames that had a machine check. */
  readonly poisonedFrames: readonly number[];
  /** Frames below this number have been used. */
  readonly nextFrame: number;
  /** So many of the next calls of the module answer that it is busy. */
  readonly busy: number;
  /** The core that consumes poison next cannot go on. */
  readonly coreStops: boolean;
  /** What happened in the last command that changed anything. */
  readonly hostWrites: readonly HostWriteEvent[];
  readonly consumptions: readonly ConsumptionEvent[];
}

/** A machine that was just started. */
export const FRESH_TD_MACHINE: TdMachine = {
  tds: new Map(),
  leakedKeys: new Map(),
  poisonedFrames: [],
  nextFrame: 0,
  busy: 0,
  coreStops: false,
  hostWrites: [],
  consumptions: [],
};

/**
 * The next change of its kind in the direct map fails, once: an entry that is to be split for a page that leaves the direct
 * map for the first time since it is in its file; or the entry of a page that comes back.
 */
export type DirectMapFault = 'split' | 'restore';

export interface State {
  readonly config: Config;
  readonly fds: ReadonlyMap<Label, OpenFile>;
  readonly vms: ReadonlyMap<Label, Vm>;
  readonly vcpus: ReadonlyMap<Label, Vcpu>;
  readonly files: ReadonlyMap<Label, GmemFile>;
  readonly inodes: ReadonlyMap<Label, Inode>;
  readonly mappings: ReadonlyMap<Label, Mapping>;
  readonly caches: ReadonlyMap<Label, Cache>;
  readonly hvaCaches: ReadonlyMap<Label, HvaCache>;
  /** Pages of each mapping that is gone: its addresses are not used again. */
  readonly unmapped: ReadonlyMap<Label, number>;
  readonly directMapFault: DirectMapFault | undefined;
  readonly td: TdMachine;
  readonly mc: McMachine;
  readonly status: StatusMachine;
  readonly hypercall: HypercallMachine;
  readonly sev: SevMachine;
}

/** Open before a program starts: /dev/kvm, and a file that is not KVM's (/dev/null). */
export const DEVICE: Label = 'kvm';
export const OTHER: Label = 'null';
/** Anonymous, zeroed memory of the host process that is mapped before a program starts. */
export const ARENA: Label = 'arena';
export const ARENA_PAGES = 64;
/** So many pages behind each mapping nothing else is mapped; what lies further on is the host process's affair. */
export const GUARD_PAGES = 512;
/** The descriptor −1. */
export const NO_FD: Label = 'none';

export const RESERVED_LABELS: ReadonlySet<Label> = new Set([DEVICE, OTHER, ARENA, NO_FD]);

export const newMapping = (inode: Label, file: Label | undefined, firstPage: number, pages: number): Mapping => ({
  inode,
  file,
  firstPage,
  pages,
  touched: EMPTY,
  poisonEntries: EMPTY,
});

export function initialState(config: Config): State {
  return {
    config,
    fds: new Map<Label, OpenFile>([
      [DEVICE, { kind: 'device', id: DEVICE }],
      [OTHER, { kind: 'other', id: OTHER }],
    ]),
    vms: new Map(),
    vcpus: new Map(),
    files: new Map(),
    inodes: new Map([
      [
        ARENA,
        {
          kind: 'anonymous',
          pages: ARENA_PAGES,
          flags: 0n,
          resident: [{ start: 0, end: ARENA_PAGES }],
          removed: EMPTY,
          words: new Map(),
          poisoned: EMPTY,
        },
      ],
    ]),
    mappings: new Map([[ARENA, newMapping(ARENA, undefined, 0, ARENA_PAGES)]]),
    caches: new Map(),
    hvaCaches: new Map(),
    unmapped: new Map(),
    directMapFault: undefined,
    td: FRESH_TD_MACHINE,
    mc: FRESH_MC_MACHINE,
    status: FRESH_STATUS_MACHINE,
    hypercall: FRESH_HYPERCALL_MACHINE,
    sev: FRESH_SEV_MACHINE,
  };
}

export function withEntry<K, V>(map: ReadonlyMap<K, V>, key: K, value: V): ReadonlyMap<K, V> {
  const copy = new Map(map);
  copy.set(key, value);
  return copy;
}

export function withoutEntry<K, V>(map: ReadonlyMap<K, V>, key: K): ReadonlyMap<K, V> {
  if (!map.has(key)) return map;
  const copy = new Map(map);
  copy.delete(key);
  return copy;
}

/** The entity that an earlier check has shown to exist. A miss is a defect of the specification. */
export function known<V>(map: ReadonlyMap<Label, V>, label: Label): V {
  const value = map.get(label);
  if (value === undefined) throw new Error(`specification defect: no entity '${label}'`);
  return value;
}

/** The entity behind a descriptor, where the descriptor is open and of that kind. */
export function openAs(state: State, fd: Label, kind: FdKind): Label | undefined {
  const file = state.fds.get(fd);
  return file?.kind === kind ? file.id : undefined;
}

export const withVm = (state: State, id: Label, change: Partial<Vm>): State => ({
  ...state,
  vms: withEntry(state.vms, id, { ...known(state.vms, id), ...change }),
});

export const withInode = (state: State, id: Label, change: Partial<Inode>): State => ({
  ...state,
  inodes: withEntry(state.inodes, id, { ...known(state.inodes, id), ...change }),
});

export const withFd = (state: State, fd: Label, file: OpenFile): State => ({
  ...state,
  fds: withEntry(state.fds, fd, file),
});
