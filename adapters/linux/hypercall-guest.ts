/**
 * A guest that calls its host: page tables, segments, gates, and at each place of its text one instruction. Behind the
 * instruction it rings the doorbell; so does the handler of an exception, which says which one it was. Unlike the guests
 * that touch memory (guest.ts), it runs in the ring and with the width of registers that the call wants.
 */
import { PAGE_SIZE } from '../../model/core/abi.ts';
import type { Operand } from './calls.ts';
import { CONTROL, copy, ENTRY_FLAGS, RFLAGS, SEGMENTS, writeCpuid } from './guest.ts';
import { address, structBytes, value, type Lowering } from './lowering.ts';
import {
  DTABLE,
  MAP,
  PROT_READ_WRITE,
  REGION,
  REGS,
  RUN,
  SEGMENT,
  SREGS,
  SREGS_SEGMENTS,
  SREGS_TABLES,
} from './uapi.ts';

export type Instruction = 'vmcall' | 'vmmcall';
export type Place = 'vmcall' | 'vmmcall' | 'ordinary' | 'announcement';

/** `mov [edi], eax`, which rings the doorbell, has the same bytes with 32 bits and with 64; then `ud2`, `nop`. */
const RING = [0x89, 0x07, 0x0f, 0x0b, 0x90];
const CODE: Readonly<Record<Instruction, Uint8Array>> = {
  vmcall: Uint8Array.of(0x0f, 0x01, 0xc1, ...RING),
  vmmcall: Uint8Array.of(0x0f, 0x01, 0xd9, ...RING),
};
/** As far apart as the code is long. */
const PLACES: Readonly<Record<Place, number>> = { vmcall: 0, vmmcall: 8, ordinary: 16, announcement: 24 };

/** Pages of guest memory: virtual addresses are physical ones. */
const PAGE = { pml4: 0, pdpt: 1, directory: 2, table: 3, text: 4, handlers: 5, descriptors: 6, stack: 7 } as const;
const PAGES = 8;
const at = (page: number, offset = 0): number => page * Number(PAGE_SIZE) + offset;

/** Behind the memory, so that who stores there leaves with KVM_EXIT_MMIO; handlers of exceptions store eight bytes further on. */
export const DOORBELL = BigInt(at(PAGES));
export const EXCEPTION_DOORBELL = DOORBELL + 8n;

const WRITABLE = 2n;
const VECTORS = 32;
const HANDLER_BYTES = 16;
/** Within the page of descriptors. */
const [GDT, IDT, TSS] = [0, 0x200, 0x800];
const TSS_BYTES = 0x68;
const STACK_TOP = BigInt(at(PAGE.stack, 0xff0));

/** Code for ring 0 in 64-bit mode, which is all that a gate needs. Source: SDM 3.4.5. */
const KERNEL_CODE = 0x00af_9b00_0000_ffffn;
const KERNEL_SELECTOR = 8n;
/** A present 64-bit interrupt gate. Source: SDM 6.14.1. */
const GATE = 0x8e00n;

const PHYSICAL_BITS = 36;

const word = (number: bigint): Uint8Array => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, number), true);
  return bytes;
};

/** How a call is made. */
export interface Mode {
  readonly cpl: '0' | '3';
  readonly bits: '64' | '32';
}

/** What the guest has in its registers. */
export interface CallRegisters {
  readonly nr: bigint;
  readonly a0: bigint;
  readonly a1: bigint;
  readonly a2: bigint;
}

/** What comes back of KVM_RUN. */
export interface RunSteps {
  readonly step: number;
  /** Outputs: the head of struct kvm_run, and struct kvm_regs. */
  readonly exit: number;
  readonly regs: number;
}

/** With the answer that the VMM gives to KVM_EXIT_HYPERCALL. */
const EXIT_BYTES = RUN.hypercallRet + 8;

export class HypercallGuest {
  /** The step that opens its VM. */
  readonly opening: number;
  readonly vm: Operand;
  readonly #lowering: Lowering;
  readonly #file: Operand;
  readonly #memory: number;
  readonly #vcpu: Operand;
  readonly #run: Operand;

  /** `file` is one through which bytes are copied. */
  constructor(lowering: Lowering, kvm: Operand, file: Operand, isTextWritable: boolean) {
    this.#lowering = lowering;
    this.#file = file;
    this.#memory = lowering.reserve(at(PAGES), Number(PAGE_SIZE));
    this.#writeTables(isTextWritable);
    this.#writeText();
    this.#writeDescriptors();
    this.opening = lowering.ioctl(kvm, 'CREATE_VM', value(0n));
    this.vm = lowering.result(this.opening);
    const region = lowering.struct(REGION, { memory_size: BigInt(at(PAGES)) });
    lowering.put(region, REGION, 'userspace_addr', address(this.#memory));
    lowering.ioctl(this.vm, 'SET_USER_MEMORY_REGION', address(region));
    this.#vcpu = lowering.result(lowering.ioctl(this.vm, 'CREATE_VCPU', value(0n)));
    const [protection, flags] = [value(PROT_READ_WRITE), value(MAP.SHARED)];
    const run = lowering.call('mmap', value(0n), value(PAGE_SIZE), protection, flags, this.#vcpu, value(0n));
    this.#run = lowering.result(run);
    lowering.ioctl(this.#vcpu, 'SET_CPUID2', address(writeCpuid(lowering, PHYSICAL_BITS)));
  }

  /** The guest's kernel puts an instruction into its own text. */
  patch(place: Place, instruction: Instruction): void {
    const bytes = CODE[instruction];
    const code = new DataView(bytes.buffer).getBigUint64(0, true);
    this.#lowering.store(this.#memory + at(PAGE.text, PLACES[place]), value(code));
  }

  call(place: Place, mode: Mode, { nr, a0, a1, a2 }: CallRegisters): RunSteps {
    const lowering = this.#lowering;
    lowering.ioctl(this.#vcpu, 'SET_SREGS', address(writeSregs(lowering, mode)));
    const rip = BigInt(at(PAGE.text, PLACES[place]));
    const entry = { rip, rdi: DOORBELL, rsp: STACK_TOP, rflags: RFLAGS };
    const regs = lowering.struct(REGS, { rax: nr, rbx: a0, rcx: a1, rdx: a2, ...entry });
    lowering.ioctl(this.#vcpu, 'SET_REGS', address(regs));
    return this.#goOn();
  }

  /** Goes on behind an exit, with an answer or with what is in the exit. */
  answer(ret: bigint | undefined): RunSteps {
    const lowering = this.#lowering;
    if (ret !== undefined) {
      const answer = lowering.reserve(8);
      lowering.fill(answer, word(ret));
      const place = { ...this.#run, plus: BigInt(RUN.hypercallRet) } as Operand;
      copy(lowering, this.#file, address(answer), place, 8);
    }
    return this.#goOn();
  }

  /** Unmaps what keeps the vCPU; its descriptors go with those of the program. */
  close(): number {
    this.#lowering.call('munmap', this.#run, value(PAGE_SIZE));
    this.#lowering.call('close', this.#vcpu);
    return this.#lowering.call('close', this.vm);
  }

  #goOn(): RunSteps {
    const lowering = this.#lowering;
    const [exit, regs] = [lowering.reserve(EXIT_BYTES), lowering.reserve(REGS.bytes)];
    const step = lowering.ioctl(this.#vcpu, 'RUN', value(0n));
    copy(lowering, this.#file, this.#run, address(exit), EXIT_BYTES);
    lowering.ioctl(this.#vcpu, 'GET_REGS', address(regs));
    return { step, exit: lowering.output(exit, EXIT_BYTES), regs: lowering.output(regs, REGS.bytes) };
  }

  #fill(page: number, offset: number, bytes: Uint8Array): void {
    this.#lowering.fill(this.#memory + at(page, offset), bytes);
  }

  #writeTables(isTextWritable: boolean): void {
    const entry = (table: number, index: number, page: number, flags = ENTRY_FLAGS): void =>
      this.#fill(table, index * 8, word(BigInt(at(page)) | flags));
    entry(PAGE.pml4, 0, PAGE.pdpt);
    entry(PAGE.pdpt, 0, PAGE.directory);
    entry(PAGE.directory, 0, PAGE.table);
    for (let page = 0; page <= PAGES; page++)
      entry(PAGE.table, page, page, page === PAGE.text && !isTextWritable ? ENTRY_FLAGS & ~WRITABLE : ENTRY_FLAGS);
  }

  /** As the kernel of a guest of 7.3 is compiled: ordinary hypercalls are VMCALL, announcements VMMCALL. */
  #writeText(): void {
    const text: Readonly<Record<Place, Instruction>> = {
      vmcall: 'vmcall',
      vmmcall: 'vmmcall',
      ordinary: 'vmcall',
      announcement: 'vmmcall',
    };
    for (const [place, instruction] of Object.entries(text))
      this.#fill(PAGE.text, PLACES[place as Place], CODE[instruction]);
    // `mov eax, vector`; `mov [rdi + 8], eax`; `ud2`.
    for (let vector = 0; vector < VECTORS; vector++) {
      const handler = Uint8Array.of(0xb8, vector, 0, 0, 0, 0x89, 0x47, 0x08, 0x0f, 0x0b);
      this.#fill(PAGE.handlers, vector * HANDLER_BYTES, handler);
    }
  }

  #writeDescriptors(): void {
    this.#fill(PAGE.descriptors, GDT + 8, word(KERNEL_CODE));
    for (let vector = 0; vector < VECTORS; vector++) {
      const handler = BigInt(at(PAGE.handlers, vector * HANDLER_BYTES));
      this.#fill(PAGE.descriptors, IDT + 16 * vector, word(handler | (KERNEL_SELECTOR << 16n) | (GATE << 32n)));
    }
    // The stack of ring 0.
    this.#fill(PAGE.descriptors, TSS + 4, word(STACK_TOP));
  }
}

/** Answers where the structure lies. */
function writeSregs(lowering: Lowering, { cpl, bits }: Mode): number {
  const dpl = BigInt(cpl);
  const code = { ...SEGMENTS.cs, dpl, selector: KERNEL_SELECTOR | dpl };
  const data = { ...SEGMENTS.ss, dpl, selector: 0x10n | dpl };
  const segments = {
    cs: bits === '64' ? code : { ...code, l: 0n, db: 1n },
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr: { ...SEGMENTS.tr, base: BigInt(at(PAGE.descriptors, TSS)), limit: BigInt(TSS_BYTES - 1) },
    ldt: SEGMENTS.ldt,
  };
  const offset = lowering.struct(SREGS, { ...CONTROL, cr3: BigInt(at(PAGE.pml4)) });
  for (const [name, fields] of Object.entries(segments))
    lowering.fill(offset + SREGS_SEGMENTS[name as keyof typeof segments], structBytes(SEGMENT, fields));
  const tables = { gdt: { base: GDT, limit: 15n }, idt: { base: IDT, limit: BigInt(16 * VECTORS - 1) } };
  for (const [name, { base, limit }] of Object.entries(tables))
    lowering.fill(
      offset + SREGS_TABLES[name as keyof typeof tables],
      structBytes(DTABLE, { base: BigInt(at(PAGE.descriptors, base)), limit }),
    );
  return offset;
}
