/**
 * Writes a program of system calls: lays out its data area, numbers its steps, and remembers which of them stands for
 * which label of the model's program. It knows calls and addresses, and no command.
 */
import { PAGE_MASK, PAGE_SIZE } from '../../model/core/abi.ts';
import type { Label } from '../../model/core/state.ts';
import type { CallProgram, Layout, Names, Operand, Segment, Step } from './calls.ts';
import { KVM, SYS, type KvmIoctl, type SystemCall } from './uapi.ts';

export const value = (number: bigint, names?: string | Names): Operand =>
  names === undefined ? { kind: 'value', value: number } : { kind: 'value', value: number, names };
export const address = (offset: number): Operand => ({ kind: 'address', offset });
export const load = (offset: number, bytes: 4 | 8): Operand => ({ kind: 'load', offset, bytes });

/** The operand a constant further on; only a number or a result can be. */
export function plus(operand: Operand, more: bigint): Operand {
  if (more === 0n) return operand;
  if (operand.kind === 'value') return value(BigInt.asUintN(64, operand.value + more));
  if (operand.kind === 'result') return { ...operand, plus: BigInt.asUintN(64, operand.plus + more) };
  throw new Error(`a ${operand.kind} cannot be added to`);
}

const roundUp = (bytes: bigint): bigint => (bytes + PAGE_MASK) & ~PAGE_MASK;

/**
 * Mappings are asked for at addresses of our own, far apart, so that nothing else comes to lie where one was, and what
 * lies behind one is known. All begin in the lower half of the address space.
 */
const FIRST_MAPPING = 1n << 36n;
const PAST_MAPPINGS = 1n << 46n;
const GAP = 1n << 26n;

/** What a reader may want to know of a program of system calls, and who executes it does not need. */
export interface Legend {
  /** Labels of the model's program, by the step whose result they stand for. */
  readonly names: ReadonlyMap<number, string>;
  /** What lies in the data area, in order. */
  readonly variables: readonly Variable[];
  readonly texts: ReadonlyMap<number, string>;
  readonly blocks: readonly Block[];
}

export interface Variable {
  readonly offset: number;
  readonly layout: Layout;
  /** What it is filled with before the program starts; the rest is zero. */
  readonly fields: Readonly<Record<string, bigint>>;
}

/** Steps that do together what has a name: C has a function for them. */
export interface Block {
  readonly name: BlockName;
  readonly args: readonly Operand[];
  readonly first: number;
  readonly count: number;
  /** The step whose result is that of the block. */
  readonly result: number;
}

export type BlockName =
  | 'host_load'
  | 'host_store'
  | 'map_secret'
  | 'read_by_process_vm'
  | 'write_by_process_vm'
  | 'read_by_splice'
  | 'read_by_mem'
  | 'write_by_mem'
  | 'guest_load'
  | 'guest_store'
  | 'guest_walk'
  | 'guest_clock'
  | 'add_code_slot'
  | 'prepare_vcpu';

/** What a label stands for. Several descriptors may name one object. */
interface Open {
  readonly descriptor: Operand;
  readonly object: Label;
}

interface Mapped {
  readonly start: Operand;
  /** The address that was asked for; the kernel gives it, where it gives a mapping. */
  readonly place: bigint;
  readonly bytes: bigint;
}

export class Lowering {
  readonly #steps: Step[] = [];
  readonly #segments: Segment[] = [];
  readonly #outputs: { readonly offset: number; readonly length: number }[] = [];
  readonly #open = new Map<Label, Open>();
  readonly #mappings = new Map<Label, Mapped>();
  readonly #names = new Map<number, string>();
  readonly #variables: Variable[] = [];
  readonly #texts = new Map<number, string>();
  readonly #blocks: Block[] = [];
  #dataBytes = 0;
  #nextMapping = FIRST_MAPPING;

  get steps(): readonly Step[] {
    return this.#steps;
  }

  /** Room for `bytes` zeroed bytes in the data area. */
  reserve(bytes: number, align = 8): number {
    const offset = Math.ceil(this.#dataBytes / align) * align;
    this.#dataBytes = offset + bytes;
    return offset;
  }

  /** Fills part of the data area before the program starts. */
  fill(offset: number, bytes: Uint8Array): void {
    this.#segments.push({ offset, bytes });
  }

  /** A string that ends in a zero byte. */
  text(text: string): Operand {
    const bytes = new TextEncoder().encode(`${text}\0`);
    const offset = this.reserve(bytes.length);
    this.fill(offset, bytes);
    this.#texts.set(offset, text);
    return address(offset);
  }

  /** Room for a structure of zeroes. */
  room(layout: Layout): number {
    return this.#variable(layout, {});
  }

  #variable(layout: Layout, fields: Variable['fields']): number {
    const offset = this.reserve(layout.bytes);
    this.#variables.push({ offset, layout, fields });
    return offset;
  }

  /** A structure with those fields set and all else zero. Answers where it lies. */
  struct(layout: Layout, fields: Readonly<Record<string, bigint>>): number {
    const offset = this.#variable(layout, fields);
    this.fill(offset, structBytes(layout, fields));
    return offset;
  }

  /** Sets a field of a structure when the program gets there. */
  put(struct: number, layout: Layout, field: string, operand: Operand): void {
    const place = layout.fields[field];
    if (place === undefined || place.bytes < 4) throw new Error(`${layout.name} has no such field: ${field}`);
    this.#steps.push({ kind: 'put', offset: struct + place.offset, bytes: place.bytes as 4 | 8, operand });
  }

  /** Writes a word when the program gets there. */
  store(offset: number, operand: Operand): void {
    this.#steps.push({ kind: 'put', offset, bytes: 8, operand });
  }

  /** Part of the data area that comes back when the program has ended. Answers its number. */
  output(offset: number, length: number): number {
    return this.#outputs.push({ offset, length }) - 1;
  }

  /** Answers the number of the step, under which its result comes back. */
  call(name: SystemCall, ...args: readonly Operand[]): number {
    return this.#steps.push({ kind: 'call', number: SYS[name], args }) - 1;
  }

  ioctl(descriptor: Operand, request: KvmIoctl, argument: Operand): number {
    return this.call('ioctl', descriptor, value(KVM[request], `KVM_${request}`), argument);
  }

  /** Leaves out what `body` writes where the operand is (not) the number. */
  skip(when: 'equal' | 'unequal', operand: Operand, number: bigint, body: () => unknown): void {
    const at = this.#steps.length;
    this.#steps.push({ kind: 'skip', count: 0, when, operand, value: number });
    body();
    this.#steps[at] = { kind: 'skip', count: this.#steps.length - at - 1, when, operand, value: number };
  }

  /** The steps that `body` writes have a name; it answers the step whose result is theirs. */
  block(name: BlockName, args: readonly Operand[], body: () => number): void {
    const first = this.#steps.length;
    const result = body();
    this.#blocks.push({ name, args, first, count: this.#steps.length - first, result });
  }

  result(step: number): Operand {
    return { kind: 'result', step, plus: 0n };
  }

  /** A name for the result of a step. */
  called(name: string, step: number): Operand {
    this.#names.set(step, name);
    return this.result(step);
  }

  opened(label: Label, step: number, object = label): void {
    this.#open.set(label, { descriptor: this.called(label, step), object });
  }

  /**
   * The descriptor behind a label. A closed one is −1, and not the number that it was, which may be another file's by
   * now: in a program, a label never means anything else than it first did.
   */
  descriptor(label: Label): Operand {
    return this.#open.get(label)?.descriptor ?? NO_DESCRIPTOR;
  }

  /** What the descriptor refers to, by the label that first named it. */
  object(label: Label): Label | undefined {
    return this.#open.get(label)?.object;
  }

  /** Any open descriptor of an object. */
  descriptorOf(object: Label): Operand | undefined {
    return [...this.#open.values()].find((open) => open.object === object)?.descriptor;
  }

  closed(label: Label): void {
    this.#open.delete(label);
  }

  isOpen(object: Label): boolean {
    return this.descriptorOf(object) !== undefined;
  }

  /** An address at which a mapping of that length finds room, or zero where it is too long for that. */
  placeFor(bytes: bigint): bigint {
    const place = this.#nextMapping;
    if (bytes > PAST_MAPPINGS - place - GAP) return 0n;
    this.#nextMapping += roundUp(bytes) + GAP;
    return place;
  }

  mapped(label: Label, step: number, place: bigint, bytes: bigint): void {
    this.#mappings.set(label, { start: this.called(label, step), place, bytes: roundUp(bytes) });
  }

  /** Where a mapping is, if it is; undefined where the kernel was left to choose. */
  placeOf(label: Label): bigint | undefined {
    const place = this.#mappings.get(label)?.place;
    return place === 0n ? undefined : place;
  }

  /** Where a mapping began, also after it was unmapped; undefined where there never was one. */
  mappingStart(label: Label): Operand | undefined {
    return this.#mappings.get(label)?.start;
  }

  unmap(label: Label): number {
    const mapping = this.#mappings.get(label);
    return mapping === undefined
      ? this.call('munmap', value(PAGE_SIZE), value(0n))
      : this.call('munmap', mapping.start, value(mapping.bytes));
  }

  /** Undoes what the program may have left behind in the process. */
  cleanUp(firstDescriptor: Operand): void {
    for (const label of this.#mappings.keys()) this.unmap(label);
    this.call('close_range', firstDescriptor, value(0xffff_ffffn, '~0U'), value(0n));
  }

  program(): CallProgram {
    return {
      dataBytes: this.#dataBytes,
      segments: this.#segments,
      steps: this.#steps,
      outputs: this.#outputs,
    };
  }

  legend(): Legend {
    return { names: this.#names, variables: this.#variables, texts: this.#texts, blocks: this.#blocks };
  }
}

const NO_DESCRIPTOR: Operand = value(BigInt.asUintN(64, -1n), '-1');

export function structBytes(layout: Layout, fields: Readonly<Record<string, bigint>>): Uint8Array {
  const bytes = new Uint8Array(layout.bytes);
  const view = new DataView(bytes.buffer);
  for (const [name, number] of Object.entries(fields)) {
    const place = layout.fields[name];
    if (place === undefined) throw new Error(`${layout.name} has no such field: ${name}`);
    setUint(view, place, number);
  }
  return bytes;
}

function setUint(view: DataView, { offset, bytes }: Layout['fields'][string], number: bigint): void {
  if (bytes === 8) view.setBigUint64(offset, number, true);
  else if (bytes === 4) view.setUint32(offset, Number(BigInt.asUintN(32, number)), true);
  else if (bytes === 2) view.setUint16(offset, Number(BigInt.asUintN(16, number)), true);
  else view.setUint8(offset, Number(BigInt.asUintN(8, number)));
}
