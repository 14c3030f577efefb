/**
 * What is true of a machine at a command boundary: the common vocabulary in which invariants are stated. The
 * specification derives facts from its state; a target that sees inside itself reports its own. A part that a target
 * cannot see is left out, and invariants that need it are reported as not observable.
 *
 * Facts name things by what they are, not by what the machine calls them: a struct kvm by the label of the descriptor
 * that created it, also after its memory was freed and became another struct kvm.
 */
import type { Label } from './state.ts';

export interface VmFact {
  readonly vm: Label;
  /** Guest frames with the attribute PRIVATE: pairs of first frame and frame past the end. */
  readonly private: readonly (readonly [number, number])[];
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

/** `count` physical frames from `frame` on hold the pages of an inode from `page` on. */
export interface ResidentFact {
  readonly inode: Label;
  readonly page: number;
  readonly frame: number;
  readonly count: number;
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

export interface UserMappingFact {
  readonly mapping: Label;
  readonly page: number;
  readonly frame: number;
  readonly count: number;
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

/** A tracepoint: kvm_gmem_share or kvm_gmem_unshare. */
export interface ShareEvent {
  readonly event: 'share' | 'unshare';
  readonly frame: number;
}

export interface Facts {
  readonly vms: readonly VmFact[];
  readonly files: readonly FileFact[];
  readonly inodes: readonly InodeFact[];
  readonly slots: readonly SlotFact[];
  readonly bindings: readonly BindingFact[];
  readonly resident: readonly ResidentFact[];
  readonly stageTwo: readonly StageTwoFact[];
  readonly user: readonly UserMappingFact[];
  /** Frames with a memory failure. */
  readonly poisoned: readonly number[];
  /** The parts below are mechanism: only a target that sees inside itself has them. */
  readonly free?: readonly FrameRun[];
  readonly orphans?: readonly OrphanFact[];
  readonly firstTouches?: readonly FirstTouch[];
  /** Frames that the direct map does not show. */
  readonly absent?: readonly FrameRun[];
  /** Frames whose sharing count is not zero. */
  readonly shares?: readonly ShareFact[];
  readonly staleTlb?: readonly StaleTlbFact[];
  readonly caches?: readonly CacheFact[];
  /** Since the last command, in order. */
  readonly shareEvents?: readonly ShareEvent[];
  /** Writes or reads outside of an array that the machine made since the last command, in words. */
  readonly outOfBounds?: readonly string[];
}
