/**
 * The kernel's objects. They refer to each other by address where the kernel holds a pointer without owning what it
 * points at: what is read through such a pointer is whatever stands there now.
 *
 * `label` and the fields named after births are for facts alone. No mechanism may read them.
 */
import type { Label } from '../../model/core/state.ts';
import type { Lock } from './kernel.ts';
import type { RunMap } from './ranges.ts';

/** struct file */
export type File = PlainFile | VmFile | VcpuFile | GmemFile | AnonymousFile;

interface AnyFile {
  readonly address: number;
  readonly label: Label;
  /** f_count: descriptors, mappings, and system calls under way. */
  count: number;
}

/** /dev/kvm, and a file that is not KVM's. */
export interface PlainFile extends AnyFile {
  readonly kind: 'device' | 'other';
}

export interface VmFile extends AnyFile {
  readonly kind: 'vm';
  readonly kvm: number;
}

export interface VcpuFile extends AnyFile {
  readonly kind: 'vcpu';
  readonly vcpu: Vcpu;
}

/** struct file of guest_memfd with its struct gmem_file. */
export interface GmemFile extends AnyFile {
  readonly kind: 'gmem';
  readonly inode: Inode;
  /** struct gmem_file: address of the struct kvm that it was created for. */
  readonly kvm: number;
  /** File page to the address of the memslot that is bound there. */
  readonly bindings: RunMap<number>;
  readonly birthVm: Label;
}

/** Shared anonymous memory, or secret memory, which the kernel keeps in a file of its own. */
export interface AnonymousFile extends AnyFile {
  readonly kind: 'anonymous' | 'secret';
  readonly inode: Inode;
}

/** Pages of a page cache: page p is in frame p + delta. */
export interface CachedPages {
  readonly delta: number;
  readonly uptodate: boolean;
  /** Whether a guest or the host has been given the pages. For facts alone. */
  readonly shown: boolean;
}

export interface Inode {
  readonly label: Label;
  readonly number: number;
  readonly pages: number;
  readonly flags: bigint;
  /** i_count: the files on it. */
  count: number;
  readonly invalidateLock: Lock;
  /** i_pages */
  readonly pageCache: RunMap<CachedPages>;
  /** i_mmap: the mappings of any file on this inode. */
  readonly mappings: Set<Vma>;
  /** gmem_file_list */
  readonly gmemFiles: Set<GmemFile>;
}

/** A user page-table entry for page p of a mapping: the page is in frame p + this, or had a memory failure. */
export type Pte = number | typeof HWPOISON_ENTRY;
export const HWPOISON_ENTRY = 'hwpoison';

/** struct vm_area_struct, with the page-table entries under it. Pages are numbered from the start of the mapping. */
export interface Vma {
  readonly label: Label;
  readonly file: GmemFile | AnonymousFile;
  /** First virtual page. */
  readonly start: number;
  readonly pages: number;
  /** Page of the file at the start. */
  readonly pgoff: number;
  readonly ptes: RunMap<Pte>;
}

/** A stage-2 entry for guest frame g: it is in frame g + delta. */
export interface Spte {
  readonly delta: number;
  readonly private: boolean;
  readonly writable: boolean;
}

/** struct kvm_memory_slot */
export interface MemSlot {
  readonly address: number;
  readonly birthVm: Label;
  readonly asId: number;
  readonly id: number;
  readonly baseGfn: number;
  readonly npages: number;
  flags: number;
  /** userspace_addr, in pages. */
  readonly userspacePage: number;
  /** `file` is the address of a struct file that the slot has no reference to. */
  readonly gmem: { file: number | undefined; pgoff: number; birthFile: Label | undefined };
  /** arch.lpage_info for pages of 2 MiB and of 1 GiB: disallow_lpage where it is not zero, by index. */
  lpageInfo: readonly [Map<number, number>, Map<number, number>];
}

/** struct kvm_vcpu */
export interface Vcpu {
  readonly kvm: number;
  readonly vcpuId: bigint;
  readonly mutex: Lock;
  /** What KVM_EXIT_MEMORY_FAULT says, since KVM_RUN was entered. */
  memoryFault: { readonly gpa: bigint; readonly private: boolean } | undefined;
  /** A SIGBUS was sent to the thread that runs the vCPU. */
  sigbus: boolean;
}

/** struct gfn_to_pfn_cache */
export interface PfnCache {
  readonly label: Label;
  readonly kvm: number;
  readonly lock: Lock;
  readonly refreshLock: Lock;
  /** INVALID_GPA where it was never activated. */
  gpa: bigint;
  /** Of the table of slots that the fields below were read from. */
  generation: number;
  /** Address of the slot. */
  memslot: number | undefined;
  /** uhva: the virtual page behind the guest frame. */
  userspacePage: number | undefined;
  /** The frame that khva maps. */
  pfn: number | undefined;
  active: boolean;
  valid: boolean;
  /** The pfn is a page of a gmem file that this cache holds in the direct map. */
  private: boolean;
}

/** struct gfn_to_hva_cache */
export interface HvaCache {
  readonly label: Label;
  readonly kvm: number;
  /** Of the table of slots that the fields below were read from. */
  generation: number;
  gpa: bigint;
  len: bigint;
  /** hva: the virtual page behind the first guest frame; undefined where that is an error. */
  userspacePage: number | undefined;
  /** Address of the slot; none where the range crosses pages. */
  memslot: number | undefined;
}

/** struct kvm */
export interface Kvm {
  readonly address: number;
  readonly label: Label;
  readonly type: bigint;
  readonly hasPrivateMem: boolean;
  usersCount: number;
  readonly lock: Lock;
  readonly slotsLock: Lock;
  readonly mmuLock: Lock;
  /** One table of slots, and one root of stage-2 tables, per address space. */
  readonly memslots: readonly Map<number, MemSlot>[];
  readonly roots: readonly RunMap<Spte>[];
  readonly vcpus: Map<bigint, Vcpu>;
  /** Counts the changes of the tables of slots. */
  generation: number;
  /** gpc_list: the caches that are active. */
  readonly gpcList: Set<PfnCache>;
  /** RFC v2, attribute_change_in_progress and gmem_active_invalidate_count. */
  gpcInvalidateInProgress: number;
  /** Counts invalidations of caches by guest frame. */
  gpcInvalidateSeq: number;
  /** The caches that the vCPUs have. */
  readonly caches: Set<PfnCache>;
  /** mem_attr_array: attributes that are not zero, by guest frame. */
  readonly attributes: RunMap<bigint>;
  /** Nodes of mem_attr_array that are allocated, by index. */
  readonly attributeNodes: RunMap<true>;
  mmuInvalidateSeq: number;
  mmuInvalidateInProgress: number;
  mmuInvalidateRange: { readonly start: number; readonly end: number } | undefined;
  mnActiveInvalidateCount: number;
  /** Tasks between srcu_read_lock() and srcu_read_unlock(). */
  srcuReaders: number;
}
