/**
 * Every number and structure of the kernel's user interface that a lowered program uses, for x86-64; each with the
 * header that fixes it. Numbers that rules speak of are in model/core/abi.ts.
 */
import { ATTRIBUTE_PRIVATE, CAP, FALLOC, GMEM_FLAG, KVM_MEM, VM_TYPE } from '../../model/core/abi.ts';
import type { Field, Layout, Names } from './calls.ts';

/** Source: arch/x86/entry/syscalls/syscall_64.tbl. */
export const SYS = {
  read: 0,
  write: 1,
  close: 3,
  fstat: 5,
  mmap: 9,
  munmap: 11,
  ioctl: 16,
  pread64: 17,
  pwrite64: 18,
  msync: 26,
  dup: 32,
  getpid: 39,
  uname: 63,
  ftruncate: 77,
  openat: 257,
  vmsplice: 278,
  fallocate: 285,
  pipe2: 293,
  process_vm_readv: 310,
  process_vm_writev: 311,
  memfd_create: 319,
  close_range: 436,
  memfd_secret: 447,
  cachestat: 451,
} as const;

export type SystemCall = keyof typeof SYS;

/** Source: include/uapi/linux/fcntl.h, include/uapi/asm-generic/fcntl.h. */
export const AT_FDCWD = -100n;
export const O_RDWR = 0x2n;
export const O_CLOEXEC = 0x8_0000n;

/** Source: include/uapi/asm-generic/mman-common.h, include/uapi/linux/mman.h. */
export const PROT_READ_WRITE = 0x3n;
export const MAP = {
  SHARED: 0x01n,
  PRIVATE: 0x02n,
  SHARED_VALIDATE: 0x03n,
  ANONYMOUS: 0x20n,
  POPULATE: 0x8000n,
} as const;
export const MS_ASYNC = 1n;

/** The widths of an ioctl number. Source: include/uapi/asm-generic/ioctl.h. */
const DIRECTION = { none: 0n, write: 1n, read: 2n, both: 3n } as const;
const KVMIO = 0xaen;

const ioctl = (direction: keyof typeof DIRECTION, number: bigint, bytes = 0): bigint =>
  (DIRECTION[direction] << 30n) | (BigInt(bytes) << 16n) | (KVMIO << 8n) | number;

type Width = 'u8' | 'u16' | 'u32' | 'u64';
const BYTES = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;

/** A structure whose named fields follow one another without holes; `bytes` is its whole size. */
function struct(
  name: string,
  bytes: number,
  fields: Readonly<Record<string, Width | readonly [Width, Names]>>,
  offset = 0,
): Layout {
  let at = offset;
  const laid = Object.entries(fields).map(([field, type]) => {
    const [width, names] = typeof type === 'string' ? [type] : type;
    const place: Field = { offset: at, bytes: BYTES[width], ...(names === undefined ? {} : { names }) };
    at += BYTES[width];
    return [field, place] as const;
  });
  return { name: `struct ${name}`, bytes, fields: Object.fromEntries(laid) };
}

/** The names that a table of numbers has in the kernel's headers. */
const named = (of: Names['of'], prefix: string, table: Readonly<Record<string, bigint>>, suffix = ''): Names => ({
  of,
  names: Object.fromEntries(Object.entries(table).map(([name, number]) => [`${prefix}${name}${suffix}`, number])),
});

/** Source: arch/x86/include/uapi/asm/kvm.h. */
export const VM_TYPES = named('values', 'KVM_X86_', VM_TYPE, '_VM');
/** Source: include/uapi/linux/kvm.h. */
export const CAPS = named('values', 'KVM_CAP_', CAP);
const SLOT_FLAGS = named('bits', 'KVM_MEM_', KVM_MEM);
/** NO_DIRECT_MAP is only proposed: no header has the name. */
const { NO_DIRECT_MAP: _proposed, ...RELEASED_FLAGS } = GMEM_FLAG;
const GMEM_FLAGS = named('bits', 'GUEST_MEMFD_FLAG_', RELEASED_FLAGS);
const ATTRIBUTES: Names = { of: 'bits', names: { KVM_MEMORY_ATTRIBUTE_PRIVATE: ATTRIBUTE_PRIVATE } };
/** Source: include/uapi/linux/falloc.h. */
export const FALLOC_MODES = named('bits', 'FALLOC_FL_', FALLOC);

/** Source: include/uapi/linux/kvm.h. */
const REGION_FIELDS = {
  slot: 'u32',
  flags: ['u32', SLOT_FLAGS],
  guest_phys_addr: 'u64',
  memory_size: 'u64',
  userspace_addr: 'u64',
} as const;
export const REGION = struct('kvm_userspace_memory_region', 32, REGION_FIELDS);
export const REGION2 = struct('kvm_userspace_memory_region2', 160, {
  ...REGION_FIELDS,
  guest_memfd_offset: 'u64',
  guest_memfd: 'u32',
});
export const CREATE_GUEST_MEMFD = struct('kvm_create_guest_memfd', 64, {
  size: 'u64',
  flags: ['u64', GMEM_FLAGS],
  reserved: 'u64',
});
export const MEMORY_ATTRIBUTES = struct('kvm_memory_attributes', 32, {
  address: 'u64',
  size: 'u64',
  attributes: ['u64', ATTRIBUTES],
  flags: 'u64',
});
export const PRE_FAULT_MEMORY = struct('kvm_pre_fault_memory', 64, { gpa: 'u64', size: 'u64', flags: 'u64' });

/** `args` names the first of four. */
export const ENABLE_CAP = struct('kvm_enable_cap', 104, { cap: 'u32', flags: 'u32', args: 'u64' });
/** Capabilities that are enabled, of which no rule about guest memory speaks. */
export const ENABLED_CAP = {
  VM_COPY_ENC_CONTEXT_FROM: 197n,
  EXIT_HYPERCALL: 201n,
  VM_MOVE_ENC_CONTEXT_FROM: 206n,
  DISABLE_QUIRKS2: 213n,
} as const;

/** Source: arch/x86/include/uapi/asm/kvm.h. */
export const REGS = struct('kvm_regs', 144, {
  rax: 'u64',
  rbx: 'u64',
  rcx: 'u64',
  rdx: 'u64',
  rsi: 'u64',
  rdi: 'u64',
  rsp: 'u64',
  rbp: 'u64',
  r8: 'u64',
  r9: 'u64',
  r10: 'u64',
  r11: 'u64',
  r12: 'u64',
  r13: 'u64',
  r14: 'u64',
  r15: 'u64',
  rip: 'u64',
  rflags: 'u64',
});

export const TRANSLATION = {
  name: 'struct kvm_translation',
  bytes: 24,
  fields: { linear_address: { offset: 0, bytes: 8 }, physical_address: { offset: 8, bytes: 8 } },
} as const satisfies Layout;

/** A struct kvm_msrs begins with the number of entries and a word of padding. */
const MSRS_HEADER_BYTES = 8;
/** With one entry. Source: arch/x86/include/uapi/asm/kvm.h. */
export const MSRS = struct('kvm_msrs', 24, { nmsrs: 'u32', pad: 'u32', index: 'u32', reserved: 'u32', data: 'u64' });
/** Source: arch/x86/include/uapi/asm/kvm_para.h, arch/x86/include/asm/pvclock-abi.h. */
export const CLOCK = { msr: 0x4b56_4d01n, enabled: 1n, bytes: 32, versionBytes: 4 } as const;

/** Within struct kvm_sregs: where each segment register begins, and the control registers. */
export const SREGS = struct(
  'kvm_sregs',
  312,
  { cr0: 'u64', cr2: 'u64', cr3: 'u64', cr4: 'u64', cr8: 'u64', efer: 'u64', apic_base: 'u64' },
  224,
);
/** Where the tables of segments and of gates are. */
export const SREGS_TABLES = { gdt: 192, idt: 208 } as const;
export const DTABLE = struct('kvm_dtable', 16, { base: 'u64', limit: 'u16' });
export const SREGS_SEGMENTS = { cs: 0, ds: 24, es: 48, fs: 72, gs: 96, ss: 120, tr: 144, ldt: 168 } as const;
export const SEGMENT = struct('kvm_segment', 24, {
  base: 'u64',
  limit: 'u32',
  selector: 'u16',
  type: 'u8',
  present: 'u8',
  dpl: 'u8',
  db: 'u8',
  s: 'u8',
  l: 'u8',
  g: 'u8',
  avl: 'u8',
  unusable: 'u8',
});
export const CPUID_ENTRY = struct('kvm_cpuid_entry2', 40, {
  function: 'u32',
  index: 'u32',
  flags: 'u32',
  eax: 'u32',
  ebx: 'u32',
  ecx: 'u32',
  edx: 'u32',
});
/** A struct kvm_cpuid2 begins with the number of entries and a word of padding. */
export const CPUID_HEADER_BYTES = 8;

/** The head of struct kvm_run, and the part of each exit that says what happened. Source: include/uapi/linux/kvm.h. */
export const RUN = {
  bytes: 64,
  exitReason: 8,
  /** KVM_EXIT_MMIO. */
  mmioPhysAddr: 32,
  mmioData: 40,
  mmioIsWrite: 52,
  /** KVM_EXIT_MEMORY_FAULT. */
  faultFlags: 32,
  faultGpa: 40,
  /** KVM_EXIT_INTERNAL_ERROR. */
  suberror: 32,
  internalData: 40,
  /** KVM_EXIT_HYPERCALL. */
  hypercallNr: 32,
  hypercallArgs: 40,
  hypercallRet: 88,
} as const;

export const EXIT = {
  HYPERCALL: 3n,
  HLT: 5n,
  MMIO: 6n,
  SHUTDOWN: 8n,
  FAIL_ENTRY: 9n,
  INTERNAL_ERROR: 17n,
  MEMORY_FAULT: 39n,
} as const;
export const MEMORY_EXIT_FLAG_PRIVATE = 8n;

export const KVM = {
  CREATE_VM: ioctl('none', 0x01n),
  CHECK_EXTENSION: ioctl('none', 0x03n),
  GET_SUPPORTED_CPUID: ioctl('both', 0x05n, 8),
  CREATE_VCPU: ioctl('none', 0x41n),
  SET_USER_MEMORY_REGION: ioctl('write', 0x46n, REGION.bytes),
  SET_USER_MEMORY_REGION2: ioctl('write', 0x49n, REGION2.bytes),
  RUN: ioctl('none', 0x80n),
  GET_REGS: ioctl('read', 0x81n, REGS.bytes),
  SET_REGS: ioctl('write', 0x82n, REGS.bytes),
  SET_SREGS: ioctl('write', 0x84n, SREGS.bytes),
  TRANSLATE: ioctl('both', 0x85n, TRANSLATION.bytes),
  SET_MSRS: ioctl('write', 0x89n, MSRS_HEADER_BYTES),
  SET_CPUID2: ioctl('write', 0x90n, CPUID_HEADER_BYTES),
  ENABLE_CAP: ioctl('write', 0xa3n, ENABLE_CAP.bytes),
  SET_MEMORY_ATTRIBUTES: ioctl('write', 0xd2n, MEMORY_ATTRIBUTES.bytes),
  CREATE_GUEST_MEMFD: ioctl('both', 0xd4n, CREATE_GUEST_MEMFD.bytes),
  PRE_FAULT_MEMORY: ioctl('both', 0xd5n, PRE_FAULT_MEMORY.bytes),
} as const;

export type KvmIoctl = keyof typeof KVM;

/** Source: arch/x86/include/uapi/asm/stat.h. */
export const STAT = {
  name: 'struct stat',
  bytes: 144,
  fields: {
    st_mode: { offset: 24, bytes: 4 },
    st_size: { offset: 48, bytes: 8 },
    st_blocks: { offset: 64, bytes: 8 },
  },
} as const satisfies Layout;

/** Source: include/uapi/linux/mman.h. */
export const CACHESTAT_RANGE = struct('cachestat_range', 16, { off: 'u64', len: 'u64' });
export const CACHESTAT = struct('cachestat', 40, { nr_cache: 'u64' });

/** Source: Documentation/admin-guide/mm/pagemap.rst. */
export const PAGEMAP = { entryBytes: 8, present: 1n << 63n, frame: (1n << 55n) - 1n } as const;

/** Source: include/uapi/linux/uio.h. */
export const IOVEC = struct('iovec', 16, { iov_base: 'u64', iov_len: 'u64' });

/** What a load or a store moves, and what programs offer to read(2) and write(2). */
export const WORD: Layout = { name: '__u64', bytes: 8, fields: {} };

/** struct utsname. Source: include/uapi/linux/utsname.h. */
export const UTSNAME = { bytes: 390, fieldBytes: 65, release: 130 } as const;
