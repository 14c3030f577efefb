/**
 * Writes a program of system calls: lays out its data area, numbers its steps, and remembers which of them stands for
 * which label of the model's program. It knows calls and addresses, and no command.
 */
import { PAGE_MASK, PAGE_SIZE } from '../../model/core/abi.ts';
import type { Label } from '../../model/core/state.ts';
import type { CallProgram, Layout, Operand, Segment, Step } from './calls.ts';
import { KVM, SYS, type KvmIoctl, type SystemCall } from './uapi.ts';

export const value = (number: bigint, symbol?: string): Operand =>
  symbol === undefined ? { kind: 'value', value: number } : { kind: 'value', value: number, symbol };
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

/** What a label stands for. Several descriptors may name one object. */
interface Open {
  readonly descriptor: Operand;
  readonly object: Label;
}

interface Mapped {
  readonly start: Operand;
  readonly bytes: bigint;
}

export class Lowering {
  readonly #steps: Step[] = [];
  readonly #segments: Segment[] = [];
  readonly #outputs: { readonly offset: number; readonly length: number }[] = [];
  readonly #open = new Map<Label, Open>();
  readonly #mappings = new Map<Label, Mapped>();
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
  fill(offset: number, bytes: Uint8Array, note?: string): void {
    this.#segments.push(note === undefined ? { offset, bytes } : { offset, bytes, note });
  }

  /** A structure with those fields set and all else zero. Answers where it lies. */
  struct(layout: Layout, fields: Readonly<Record<string, bigint>>): number {
    const offset = this.reserve(layout.bytes);
    this.#segments.push({ offset, bytes: structBytes(layout, fields), layout });
    return offset;
  }

  /** Sets a field of a structure when the program gets there. */
  put(struct: number, layout: Layout, field: string, operand: Operand): void {
    const place = layout.fields[field];
    if (place === undefined || place.bytes < 4) throw new Error(`${layout.name} has no such field: ${field}`);
    this.#steps.push({ kind: 'put', offset: struct + place.offset, bytes: place.bytes as 4 | 8, operand });
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

  result(step: number): Operand {
    return { kind: 'result', step, plus: 0n };
  }

  opened(label: Label, descriptor: Operand, object = label): void {
    this.#open.set(label, { descriptor, object });
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

  closed(label: Label): void {
    this.#open.delete(label);
  }

  isOpen(object: Label): boolean {
    return [...this.#open.values()].some((open) => open.object === object);
  }

  /** An address at which a mapping of that length finds room, or zero where it is too long for that. */
  placeFor(bytes: bigint): bigint {
    const place = this.#nextMapping;
    if (bytes > PAST_MAPPINGS - place - GAP) return 0n;
    this.#nextMapping += roundUp(bytes) + GAP;
    return place;
  }

  mapped(label: Label, start: Operand, bytes: bigint): void {
    this.#mappings.set(label, { start, bytes: roundUp(bytes) });
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
}

const NO_DESCRIPTOR: Operand = value(BigInt.asUintN(64, -1n), '-1');

export function structBytes(layout: Layout, fields: Readonly<Record<string, bigint>>): Uint8Array {
  const bytes = new Uint8Array(layout.bytes);
  const view = new DataView(bytes.buffer);
  for (const [name, number] of Object.entries(fields)) {
    const place = layout.fields[name];
    if (place === undefined) throw new Error(`${layout.name} has no such field: ${name}`);
    for (let byte = 0; byte < place.bytes; byte++)
      view.setUint8(place.offset + byte, Number((number >> BigInt(8 * byte)) & 0xffn));
  }
  return bytes;
}
