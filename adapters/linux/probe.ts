/** What a kernel says of itself, asked before the first program. */
import { CAP, PAGE_SIZE } from '../../model/core/abi.ts';
import type { Machine } from '../../model/core/machine.ts';
import { holdsIn, PROFILES, type Profile } from '../../model/core/profile.ts';
import type { CallProgram, CallResults, Operand } from './calls.ts';
import { errnoName } from './errno.ts';
import { address, Lowering, value } from './lowering.ts';
import {
  AT_FDCWD,
  CPUID_ENTRY,
  CPUID_HEADER_BYTES,
  MAP,
  O_CLOEXEC,
  O_RDWR,
  PAGEMAP,
  PROT_READ_WRITE,
  REGION,
  UTSNAME,
} from './uapi.ts';

export interface Kernel {
  /** As uname(2) tells it: `7.3.4-amd64`. */
  readonly release: string;
  /** The module that runs vCPUs: `kvm_intel`, or `built in`. */
  readonly backEnd: string;
  readonly machine: Machine;
  /** Why nothing can be looked at from outside, or undefined where it can. */
  readonly blind: string | undefined;
  /** Whether it is told in which frames pages are: it takes CAP_SYS_ADMIN. */
  readonly showsFrames: boolean;
}

/** The kernel has no /dev/kvm, or no guest memory files. */
export class NoGuestMemory extends Error {}

const ASKED = [
  CAP.GUEST_MEMFD,
  CAP.VM_TYPES,
  CAP.MEMORY_ATTRIBUTES,
  CAP.PRE_FAULT_MEMORY,
  CAP.MULTI_ADDRESS_SPACE,
  CAP.MAX_VCPUS,
  CAP.MAX_VCPU_ID,
] as const;

/** What a program may take of the machine: not what there is, for others live there too. */
export const PROGRAM_MEMORY = 64n << 20n;

/** Built into the kernel, both makers' modules are there; then the processor tells which one is at work. */
const BACK_ENDS = ['kvm_pvm', 'kvm_intel', 'kvm_amd'] as const;

/** With five levels of page tables a process may name addresses above this one. Source: TASK_SIZE_MAX. */
const FOUR_LEVELS_TOP = 1n << 47n;
const FIVE_LEVELS_TOP = 1n << 56n;
/** Where two-dimensional paging does not limit them, guest frames have as many bits as a page table can hold. */
const MOST_PHYSICAL_BITS = 52;

interface Question {
  readonly calls: CallProgram;
  readonly answer: (results: CallResults) => Kernel;
}

/** The program that asks, and how to read what comes back. Reading throws NoGuestMemory. */
export function question(): Question {
  const lowering = new Lowering();
  const folder = value(BigInt.asUintN(64, AT_FDCWD), 'AT_FDCWD');
  const open = (path: string, flags: bigint): number =>
    lowering.call('openat', folder, lowering.text(path), value(flags | O_CLOEXEC));
  const device = open('/dev/kvm', O_RDWR);
  const kvm = lowering.result(device);
  const answers = new Map(ASKED.map((cap) => [cap, lowering.ioctl(kvm, 'CHECK_EXTENSION', value(cap))]));
  const backEnds = BACK_ENDS.map((name) => [name, open(`/sys/module/${name}`, 0n)] as const);
  const name = lowering.reserve(UTSNAME.bytes);
  lowering.call('uname', address(name));
  const uname = lowering.output(name + UTSNAME.release, UTSNAME.fieldBytes);
  const cpuid = askCpuid(lowering, kvm);
  // The highest page of four levels is refused to a process; the next one only where there is no fifth level.
  const vm = lowering.result(lowering.ioctl(kvm, 'CREATE_VM', value(0n)));
  const region = lowering.struct(REGION, { memory_size: PAGE_SIZE, userspace_addr: FOUR_LEVELS_TOP });
  const fifth = lowering.ioctl(vm, 'SET_USER_MEMORY_REGION', address(region));
  const pagemap = open('/proc/self/pagemap', 0n);
  const entry = askFrame(lowering, lowering.result(pagemap));
  const cachestat = lowering.call('cachestat', value(BigInt.asUintN(64, -1n)));
  const secret = lowering.call('memfd_secret', value(0n));
  // Without arguments it refuses what it is asked, if it is there.
  const processVm = lowering.call('process_vm_readv');
  lowering.cleanUp(kvm);
  return {
    calls: lowering.program(),
    answer: ({ results, outputs }) => {
      const result = (step: number | undefined): bigint => results[step ?? 0] ?? 0n;
      const cap = (number: (typeof ASKED)[number]): bigint => result(answers.get(number));
      if (result(device) < 0n)
        throw new NoGuestMemory(`/dev/kvm cannot be opened: ${errnoName(Number(-result(device)))}`);
      const release = textOf(outputs[uname]);
      if (cap(CAP.GUEST_MEMFD) <= 0n)
        throw new NoGuestMemory(
          `Linux ${release} has no guest memory files: KVM_CAP_GUEST_MEMFD is ${cap(CAP.GUEST_MEMFD)}`,
        );
      const twoDimensionalPaging = cap(CAP.PRE_FAULT_MEMORY) > 0n;
      return {
        release,
        backEnd: backEndOf(
          backEnds.filter(([, step]) => result(step) >= 0n).map(([module]) => module),
          outputs[cpuid],
        ),
        blind:
          result(pagemap) < 0n
            ? `/proc/self/pagemap cannot be opened: ${errnoName(Number(-result(pagemap)))}`
            : result(cachestat) === -ENOSYS
              ? 'the kernel has no cachestat()'
              : undefined,
        showsFrames: frameOf(outputs[entry]) !== 0n,
        machine: {
          vmTypes: cap(CAP.VM_TYPES),
          memoryAttributes: cap(CAP.MEMORY_ATTRIBUTES) > 0n,
          twoDimensionalPaging,
          addressSpaces: Math.max(Number(cap(CAP.MULTI_ADDRESS_SPACE)), 1),
          guestPhysicalBits: twoDimensionalPaging ? physicalBits(outputs[cpuid]) : MOST_PHYSICAL_BITS,
          vcpuPhysicalBits: physicalBits(outputs[cpuid]),
          userTop: (result(fifth) === 0n ? FIVE_LEVELS_TOP : FOUR_LEVELS_TOP) - PAGE_SIZE,
          maxVcpuIds: cap(CAP.MAX_VCPU_ID),
          maxVcpus: cap(CAP.MAX_VCPUS),
          secretMemory: result(secret) >= 0n,
          processVm: result(processVm) !== -ENOSYS,
          memoryBytes: PROGRAM_MEMORY,
        },
      };
    },
  };
}

/** A page that is mapped, and what pagemap says of its frame. */
function askFrame(lowering: Lowering, pagemap: Operand): number {
  const [place, bytes] = [lowering.placeFor(PAGE_SIZE), value(PAGE_SIZE)];
  const flags = value(MAP.PRIVATE | MAP.ANONYMOUS | MAP.POPULATE);
  const none = value(BigInt.asUintN(64, -1n));
  lowering.call('mmap', value(place), bytes, value(PROT_READ_WRITE), flags, none, value(0n));
  const { entryBytes } = PAGEMAP;
  const entry = lowering.reserve(entryBytes);
  const at = (place / PAGE_SIZE) * BigInt(entryBytes);
  lowering.call('pread64', pagemap, address(entry), value(BigInt(entryBytes)), value(at));
  lowering.call('munmap', value(place), bytes);
  return lowering.output(entry, entryBytes);
}

/** The frame in an entry of pagemap; zero where there is none, or it is not told. */
function frameOf(entry: Uint8Array = new Uint8Array(PAGEMAP.entryBytes)): bigint {
  return new DataView(entry.buffer, entry.byteOffset, entry.byteLength).getBigUint64(0, true) & PAGEMAP.frame;
}

const ENOSYS = 38n;
const CPUID_ENTRIES = 256;

function askCpuid(lowering: Lowering, kvm: ReturnType<Lowering['result']>): number {
  const bytes = CPUID_HEADER_BYTES + CPUID_ENTRIES * CPUID_ENTRY.bytes;
  const offset = lowering.reserve(bytes);
  const count = new Uint8Array(4);
  new DataView(count.buffer).setUint32(0, CPUID_ENTRIES, true);
  lowering.fill(offset, count);
  lowering.ioctl(kvm, 'GET_SUPPORTED_CPUID', address(offset));
  return lowering.output(offset, bytes);
}

type Register = 'eax' | 'ebx' | 'ecx' | 'edx';

/** A register of a leaf, from a struct kvm_cpuid2; undefined where the processor has no such leaf. */
function registerOf(cpuid: Uint8Array | undefined, leaf: number, register: Register): number | undefined {
  if (cpuid === undefined) return undefined;
  const view = new DataView(cpuid.buffer, cpuid.byteOffset, cpuid.byteLength);
  const entries = Math.min(view.getUint32(0, true), CPUID_ENTRIES);
  for (let entry = 0; entry < entries; entry++) {
    const at = CPUID_HEADER_BYTES + entry * CPUID_ENTRY.bytes;
    if (view.getUint32(at, true) === leaf)
      return view.getUint32(at + (CPUID_ENTRY.fields[register]?.offset ?? 0), true);
  }
  return undefined;
}

/** MAXPHYADDR. */
const physicalBits = (cpuid: Uint8Array | undefined): number =>
  (registerOf(cpuid, 0x8000_0008, 'eax') ?? MOST_PHYSICAL_BITS) & 0xff;

/** `Auth`, of AuthenticAMD. */
const isAmd = (cpuid: Uint8Array | undefined): boolean => registerOf(cpuid, 0, 'ebx') === 0x6874_7541;

function backEndOf(present: readonly string[], cpuid: Uint8Array | undefined): string {
  const [one, other] = present;
  if (one === undefined) return 'built in';
  return other === undefined || one === 'kvm_pvm' ? one : isAmd(cpuid) ? 'kvm_amd' : 'kvm_intel';
}

function textOf(bytes: Uint8Array = new Uint8Array()): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? bytes.length : end)).replace(/[^\x20-\x7e]/g, '?');
}

/** The newest profile without proposals that is not newer than the kernel; the oldest where all are. */
export function profileOf(release: string): Profile {
  const [, major = '0', minor = '0', patch = '0'] = /^(\d+)\.(\d+)(?:\.(\d+))?/.exec(release) ?? [];
  const kernel = { release: [Number(major), Number(minor), Number(patch)] as const, features: [] };
  const released = PROFILES.filter(
    (profile) => profile.features.length === 0 && holdsIn(profile, { realm: 'guest-memory' }),
  );
  return released.findLast((each) => holdsIn(kernel, { since: each.release.join('.') })) ?? (released[0] as Profile);
}
