/**
 * Numbers of the kernel's user interface that the specification speaks about.
 * Source: include/uapi/linux/kvm.h, include/uapi/linux/falloc.h, include/uapi/asm-generic/mman-common.h.
 */

export const PAGE_SHIFT = 12n;
export const PAGE_SIZE = 4096n;
export const PAGE_MASK = PAGE_SIZE - 1n;
/** Loads and stores move one naturally aligned 8-byte word. */
export const WORD_BYTES = 8n;

export const U16_MAX = 0xffffn;
export const U32_MAX = 0xffff_ffffn;
export const U64_MAX = 0xffff_ffff_ffff_ffffn;
export const I64_MAX = 0x7fff_ffff_ffff_ffffn;
export const I64_MIN = -0x8000_0000_0000_0000n;

/** VM types of KVM_CREATE_VM on x86. Source: arch/x86/include/uapi/asm/kvm.h. */
export const VM_TYPE = { DEFAULT: 0n, SW_PROTECTED: 1n, SEV: 2n, SEV_ES: 3n, SNP: 4n, TDX: 5n } as const;

/** flags of struct kvm_userspace_memory_region(2). */
export const KVM_MEM = { LOG_DIRTY_PAGES: 1n, READONLY: 2n, GUEST_MEMFD: 4n } as const;

/** flags of struct kvm_create_guest_memfd. NO_DIRECT_MAP is proposed: docs/adr/0009-direct-map.md. */
export const GMEM_FLAG = { MMAP: 1n, INIT_SHARED: 2n, NO_DIRECT_MAP: 4n } as const;

/** attributes of struct kvm_memory_attributes. */
export const ATTRIBUTE_PRIVATE = 8n;

/** mode of fallocate(2). */
export const FALLOC = {
  KEEP_SIZE: 0x01n,
  PUNCH_HOLE: 0x02n,
  NO_HIDE_STALE: 0x04n,
  COLLAPSE_RANGE: 0x08n,
  ZERO_RANGE: 0x10n,
  INSERT_RANGE: 0x20n,
  UNSHARE_RANGE: 0x40n,
  WRITE_ZEROES: 0x80n,
} as const;

/** Extension numbers of KVM_CHECK_EXTENSION that this specification answers for. */
export const CAP = {
  USER_MEMORY: 3n,
  NR_MEMSLOTS: 10n,
  MAX_VCPUS: 66n,
  READONLY_MEM: 81n,
  MULTI_ADDRESS_SPACE: 118n,
  MAX_VCPU_ID: 128n,
  USER_MEMORY2: 231n,
  MEMORY_FAULT_INFO: 232n,
  MEMORY_ATTRIBUTES: 233n,
  GUEST_MEMFD: 234n,
  VM_TYPES: 235n,
  PRE_FAULT_MEMORY: 236n,
  GUEST_MEMFD_FLAGS: 244n,
} as const;

/** Source: include/linux/kvm_host.h, arch/x86/include/asm/kvm_host.h (SHRT_MAX less three internal slots). */
export const KVM_USER_MEM_SLOTS = 32_764n;
/** Source: include/linux/kvm_host.h. */
export const KVM_MEM_MAX_NR_PAGES = 0x7fff_ffffn;
/** S_IFREG with mode 0600: what fstat shows of a guest_memfd file. Source: alloc_anon_inode(), kvm_gmem_create(). */
export const GMEM_FILE_MODE = 0o100_600n;

/** Number of whole pages in `bytes`, which must be a multiple of the page size. Exact up to 2^53 pages. */
export const toPages = (bytes: bigint): number => Number(bytes >> PAGE_SHIFT);
export const isPageAligned = (bytes: bigint): boolean => (bytes & PAGE_MASK) === 0n;
/** INVALID_GPA of include/linux/kvm_types.h: what KVM says where there is no guest physical address. */
export const INVALID_GPA = ~0n & U64_MAX;
/** The value that a C `u64` addition leaves. */
export const wrap64 = (value: bigint): bigint => value & U64_MAX;
