/**
 * What it takes for a vCPU to touch guest physical memory: a few bytes of code, and page tables that name every guest
 * page which the program touches. Both lie in a slot of the kit's own, in a place that the program does not speak of.
 * An access is: set the registers, KVM_RUN, see how it came back. Code that got past the access rings a doorbell: it
 * stores what it has to a page behind the kit's slot, where there is no memory, and so leaves with KVM_EXIT_MMIO.
 *
 * The code runs in 64-bit user mode, which every back end of KVM runs on the processor itself; some emulate the kernel
 * mode of guests that they do not know, and an emulator reads memory by other ways than stage 2.
 */
import _ from 'lodash';
import { PAGE_MASK, PAGE_SIZE } from '../../model/core/abi.ts';
import type { Label } from '../../model/core/state.ts';
import type { Operand } from './calls.ts';
import { address, load, structBytes, value, type Lowering } from './lowering.ts';
import type { GuestReading, Reading } from './reading.ts';
import {
  CLOCK,
  CPUID_ENTRY,
  CPUID_HEADER_BYTES,
  EXIT,
  MAP,
  MSRS,
  PROT_READ_WRITE,
  REGION,
  REGS,
  RUN,
  SEGMENT,
  SREGS,
  SREGS_SEGMENTS,
  TRANSLATION,
  WORD,
} from './uapi.ts';

/** `mov rax, [rbx]`, or `mov [rbx], rax`; then the doorbell, `mov [rdx], rax`; behind it, `ud2`. */
export const LOAD = Uint8Array.of(0x48, 0x8b, 0x03, 0x48, 0x89, 0x02, 0x0f, 0x0b);
export const STORE = Uint8Array.of(0x48, 0x89, 0x03, 0x48, 0x89, 0x02, 0x0f, 0x0b);
const STORE_AT = LOAD.length;
/** Where the code rings the doorbell, and does nothing else. */
export const RING_AT = 3;

/** Present, writable, user, accessed, dirty: the processor has nothing left to note in the tables. Source: SDM 4.5. */
export const ENTRY_FLAGS = 0x67n;
const ENTRIES = 512;
const ENTRY_BYTES = 8;

/**
 * Protected mode, numeric errors, write protection, paging; physical address extension; long mode enabled, active, and no
 * execution of what an entry does not let execute, so that its bit 63 is not a reserved one.
 */
const CR0 = 0x8001_0021n;
const CR4 = 0x20n;
const EFER = 0xd00n;
/** What the register holds after reset. Source: arch/x86/include/asm/apicdef.h, APIC_DEFAULT_PHYS_BASE. */
const APIC_BASE = 0xfee0_0900n;
export const CONTROL = { cr0: CR0, cr4: CR4, efer: EFER, apic_base: APIC_BASE } as const;
export const RFLAGS = 0x2n;

const CODE_SEGMENT = { limit: 0xffff_ffffn, selector: 0x33n, type: 11n, present: 1n, dpl: 3n, s: 1n, l: 1n, g: 1n };
const DATA_SEGMENT = { limit: 0xffff_ffffn, selector: 0x2bn, type: 3n, present: 1n, dpl: 3n, db: 1n, s: 1n, g: 1n };
/** What a processor checks when it enters a guest, and never uses here. Source: SDM 28.3.1.2. */
const TASK_SEGMENT = { limit: 0xffffn, type: 11n, present: 1n };
const LOCAL_TABLE = { limit: 0xffffn, type: 2n, present: 1n };
export const SEGMENTS = {
  cs: CODE_SEGMENT,
  ds: DATA_SEGMENT,
  es: DATA_SEGMENT,
  fs: DATA_SEGMENT,
  gs: DATA_SEGMENT,
  ss: DATA_SEGMENT,
  tr: TASK_SEGMENT,
  ldt: LOCAL_TABLE,
} as const;

/** FPU, PSE, MSR, PAE, CX8, APIC, PGE, CMOV, FXSR, SSE, SSE2; SYSCALL, NX, long mode. */
const CPUID_1_EDX = 0x0700_a369n;
const CPUID_8000_0001_EDX = 0x2010_0800n;

/** A step that tells of success, and the output that has the answer. */
type Seen = Pick<Extract<Reading, { readonly kind: 'field' }>, 'step' | 'output'>;

/** Where the kit's own slot lies in a VM. */
export interface Hideout {
  readonly slot: bigint;
  readonly gpa: bigint;
}

/** What vCPUs of a program are given. */
export interface GuestPlan extends Hideout {
  /** How much memory the code and the tables take, behind which the doorbell lies. */
  readonly bytes: number;
  /** Guest pages that the tables show, from virtual page 1 on; the last one is the doorbell. */
  readonly shown: readonly bigint[];
  readonly guestPhysicalBits: number;
}

/** The tables and the code of one program, and where to find what in them. */
export class Guest {
  readonly #lowering: Lowering;
  readonly #hideout: Hideout;
  readonly #offset: number;
  readonly #bytes: number;
  /** Guest page to the virtual page that shows it. */
  readonly #virtual = new Map<bigint, bigint>();
  /** A guest page that no slot shows. */
  readonly #doorbell: bigint;
  readonly #guestPhysicalBits: number;
  readonly #cpuid: number;
  readonly #sregs: number;

  /** `pages` are the guest addresses, page aligned, that accesses of the program go to. */
  constructor(lowering: Lowering, hideout: Hideout, pages: Iterable<bigint>, guestPhysicalBits: number) {
    this.#lowering = lowering;
    this.#guestPhysicalBits = guestPhysicalBits;
    this.#hideout = hideout;
    for (const page of pages) if (!this.#virtual.has(page)) this.#virtual.set(page, BigInt(this.#virtual.size + 1));
    this.#bytes = Guest.bytes(this.#virtual.size);
    this.#doorbell = hideout.gpa + BigInt(this.#bytes);
    this.#virtual.set(this.#doorbell, BigInt(this.#virtual.size + 1));
    this.#offset = lowering.reserve(this.#bytes, Number(PAGE_SIZE));
    this.#writeTables();
    lowering.fill(this.#offset + 3 * Number(PAGE_SIZE), LOAD);
    lowering.fill(this.#offset + 3 * Number(PAGE_SIZE) + STORE_AT, STORE);
    this.#cpuid = writeCpuid(lowering, guestPhysicalBits);
    this.#sregs = writeSregs(lowering, hideout.gpa);
  }

  /** Bytes of guest memory that the code and the tables for it, so many pages and the doorbell take. */
  private static bytes(pages: number): number {
    return (4 + Math.ceil((pages + 2) / ENTRIES)) * Number(PAGE_SIZE);
  }

  /** As much, and the page of the doorbell behind it. */
  static room(pages: number): number {
    return Guest.bytes(pages) + Number(PAGE_SIZE);
  }

  /** Page map level 4, directory pointers, directory, code, then the tables; virtual page 0 shows the code. */
  #writeTables(): void {
    const page = (number: number): bigint => this.#hideout.gpa + BigInt(number) * PAGE_SIZE;
    const entry = (table: number, index: number, target: bigint): void => {
      const bytes = new Uint8Array(ENTRY_BYTES);
      new DataView(bytes.buffer).setBigUint64(0, target | ENTRY_FLAGS, true);
      this.#lowering.fill(this.#offset + table * Number(PAGE_SIZE) + index * ENTRY_BYTES, bytes);
    };
    entry(0, 0, page(1));
    entry(1, 0, page(2));
    for (let table = 0; (table + 4) * Number(PAGE_SIZE) < this.#bytes; table++) entry(2, table, page(table + 4));
    const show = (virtual: number, target: bigint): void =>
      entry(4 + Math.floor(virtual / ENTRIES), virtual % ENTRIES, target);
    show(0, page(3));
    for (const [target, virtual] of this.#virtual) show(Number(virtual), target);
  }

  plan(): GuestPlan {
    return {
      ...this.#hideout,
      bytes: this.#bytes,
      shown: [...this.#virtual.keys()],
      guestPhysicalBits: this.#guestPhysicalBits,
    };
  }

  /** Gives a VM the slot that holds tables and code. */
  furnish(vm: Operand): void {
    const { slot, gpa } = this.#hideout;
    const lowering = this.#lowering;
    lowering.block('add_code_slot', [vm], () => {
      const region = lowering.struct(REGION, { slot, guest_phys_addr: gpa, memory_size: BigInt(this.#bytes) });
      lowering.put(region, REGION, 'userspace_addr', address(this.#offset));
      return lowering.ioctl(vm, 'SET_USER_MEMORY_REGION', address(region));
    });
  }

  /** Whether a slot there would collide with the kit's own. */
  collides(gpa: bigint, bytes: bigint): boolean {
    const { gpa: start } = this.#hideout;
    return gpa < start + BigInt(this.#bytes) && start < gpa + bytes;
  }

  /** Takes that slot away for a while. */
  withdraw(vm: Operand): void {
    const region = this.#lowering.struct(REGION, { slot: this.#hideout.slot });
    this.#lowering.ioctl(vm, 'SET_USER_MEMORY_REGION', address(region));
  }

  /** Makes a vCPU ready for accesses; answers where its struct kvm_run is mapped. */
  prepare(label: Label): Operand {
    const lowering = this.#lowering;
    const vcpu = lowering.descriptor(label);
    let run = 0;
    lowering.block('prepare_vcpu', [vcpu], () => {
      run = lowering.call(
        'mmap',
        value(0n, 'NULL'),
        value(PAGE_SIZE),
        value(PROT_READ_WRITE, 'PROT_READ | PROT_WRITE'),
        value(MAP.SHARED, 'MAP_SHARED'),
        vcpu,
        value(0n),
      );
      lowering.ioctl(vcpu, 'SET_CPUID2', address(this.#cpuid));
      lowering.ioctl(vcpu, 'SET_SREGS', address(this.#sregs));
      return run;
    });
    return lowering.called(`${label}_run`, run);
  }

  /** KVM_TRANSLATE, while the vCPU has the page tables of the program in place of the kit's own. */
  walk(vcpu: Operand, cr3: bigint, gva: bigint): Seen {
    const lowering = this.#lowering;
    const struct = lowering.struct(TRANSLATION, { linear_address: gva });
    let step = 0;
    lowering.block('guest_walk', [vcpu, value(cr3), value(gva)], () => {
      lowering.ioctl(vcpu, 'SET_CPUID2', address(this.#cpuid));
      lowering.ioctl(vcpu, 'SET_SREGS', address(writeSregs(lowering, cr3)));
      step = lowering.ioctl(vcpu, 'TRANSLATE', address(struct));
      lowering.ioctl(vcpu, 'SET_SREGS', address(this.#sregs));
      return step;
    });
    const { offset, bytes } = TRANSLATION.fields.physical_address;
    return { step, output: lowering.output(struct + offset, bytes) };
  }

  /**
   * Has the clock of a vCPU at a guest address while it runs, and looks whether a time comes to `host`. Answers the step that
   * tells whether the vCPU has a clock, and where the answer comes to lie.
   */
  clock(vcpu: Operand, run: Operand, file: Operand, gpa: bigint, host: Operand): Seen {
    const lowering = this.#lowering;
    const seen = lowering.reserve(WORD.bytes);
    const time = address(lowering.reserve(CLOCK.bytes));
    const version = lowering.reserve(CLOCK.bytes);
    const set = (data: bigint): number =>
      lowering.ioctl(vcpu, 'SET_MSRS', address(lowering.struct(MSRS, { nmsrs: 1n, index: CLOCK.msr, data })));
    const clear = (): unknown => copy(lowering, file, time, host, CLOCK.bytes);
    let step = 0;
    lowering.block('guest_clock', [vcpu, run, value(gpa), host], () => {
      step = set(0n);
      lowering.skip('unequal', lowering.result(step), 1n, () => {
        clear();
        set(gpa | CLOCK.enabled);
        this.#ring(vcpu);
        set(0n);
        copy(lowering, file, host, address(version), CLOCK.bytes);
        lowering.skip('equal', load(version, CLOCK.versionBytes), 0n, () => lowering.store(seen, value(1n)));
        clear();
      });
      return step;
    });
    return { step, output: lowering.output(seen, WORD.bytes) };
  }

  /** Lets a vCPU run until it has rung the doorbell. */
  #ring(vcpu: Operand): void {
    const regs = this.#lowering.struct(REGS, { rdx: this.#doorbellAddress, rip: BigInt(RING_AT), rflags: RFLAGS });
    this.#lowering.ioctl(vcpu, 'SET_REGS', address(regs));
    this.#lowering.ioctl(vcpu, 'RUN', value(0n));
  }

  get #doorbellAddress(): bigint {
    return (this.#virtual.get(this.#doorbell) ?? 0n) * PAGE_SIZE;
  }

  /** One access of eight bytes, which must not cross a page that was not announced. */
  access(
    vcpu: Operand,
    run: Operand,
    file: Operand,
    gpa: bigint,
    stored: bigint | undefined,
  ): Omit<GuestReading, 'kind'> {
    const virtual = this.#virtual.get(gpa & ~PAGE_MASK);
    if (virtual === undefined) throw new Error(`no table shows guest address 0x${gpa.toString(16)}`);
    const lowering = this.#lowering;
    const exit = lowering.reserve(RUN.bytes);
    const [name, args] =
      stored === undefined
        ? (['guest_load', [vcpu, run, value(gpa)]] as const)
        : (['guest_store', [vcpu, run, value(gpa), value(stored)]] as const);
    let step = 0;
    lowering.block(name, args, () => {
      const regs = lowering.struct(REGS, {
        rax: stored ?? 0n,
        rbx: virtual * PAGE_SIZE + (gpa & PAGE_MASK),
        rdx: this.#doorbellAddress,
        rip: BigInt(stored === undefined ? 0 : STORE_AT),
        rflags: RFLAGS,
      });
      lowering.ioctl(vcpu, 'SET_REGS', address(regs));
      step = lowering.ioctl(vcpu, 'RUN', value(0n));
      copy(lowering, file, run, address(exit), RUN.bytes);
      // An access that was left to be emulated is completed by the next KVM_RUN, which would spoil its registers.
      lowering.skip('unequal', load(exit + RUN.exitReason, 4), EXIT.MMIO, () =>
        lowering.skip('equal', load(exit + RUN.mmioPhysAddr, 8), this.#doorbell, () =>
          lowering.ioctl(vcpu, 'RUN', value(0n)),
        ),
      );
      return step;
    });
    return { step, exit: lowering.output(exit, RUN.bytes), doorbell: this.#doorbell, loads: stored === undefined };
  }
}

/** Copies bytes by way of a file, so that an address which cannot be read or written gives EFAULT and no signal. */
export function copy(lowering: Lowering, file: Operand, from: Operand, to: Operand, bytes: number): CopySteps {
  const out = lowering.call('pwrite64', file, from, value(BigInt(bytes)), value(0n));
  return { out, into: lowering.call('pread64', file, to, value(BigInt(bytes)), value(0n)) };
}

export interface CopySteps {
  /** The step that reads the bytes. */
  readonly out: number;
  /** The step that writes them. */
  readonly into: number;
}

/** What a vCPU says of itself: enough for long mode, and how wide guest physical addresses are. */
export const cpuidLeaves = (guestPhysicalBits: number): readonly CpuidLeaf[] => [
  { function: 0n, eax: 1n },
  { function: 1n, edx: CPUID_1_EDX },
  { function: 0x8000_0000n, eax: 0x8000_0008n },
  { function: 0x8000_0001n, edx: CPUID_8000_0001_EDX },
  { function: 0x8000_0008n, eax: (48n << 8n) | BigInt(guestPhysicalBits) },
];

type CpuidLeaf = Readonly<Partial<Record<'eax' | 'edx', bigint>> & { function: bigint }>;

const cpuidEntries = _.memoize((guestPhysicalBits: number): readonly Uint8Array[] =>
  cpuidLeaves(guestPhysicalBits).map((leaf) => structBytes(CPUID_ENTRY, leaf)),
);

/** A struct kvm_cpuid2 with these leaves; answers where it lies. */
export function writeCpuid(lowering: Lowering, guestPhysicalBits: number): number {
  const entries = cpuidEntries(guestPhysicalBits);
  const offset = lowering.reserve(CPUID_HEADER_BYTES + entries.length * CPUID_ENTRY.bytes);
  lowering.fill(offset, Uint8Array.of(entries.length));
  entries.forEach((entry, index) => lowering.fill(offset + CPUID_HEADER_BYTES + index * CPUID_ENTRY.bytes, entry));
  return offset;
}

const SEGMENT_BYTES = Object.entries(SEGMENTS).map(([name, fields]) => ({
  place: SREGS_SEGMENTS[name as keyof typeof SREGS_SEGMENTS],
  bytes: structBytes(SEGMENT, fields),
}));

function writeSregs(lowering: Lowering, tables: bigint): number {
  const offset = lowering.struct(SREGS, { ...CONTROL, cr3: tables });
  for (const { place, bytes } of SEGMENT_BYTES) lowering.fill(offset + place, bytes);
  return offset;
}
