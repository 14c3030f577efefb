/** The agent's wire protocol. agent/protocol.h describes it; what is here follows it field by field. */
import { LIMITS, type CallProgram, type CallResults, type Operand, type Step } from './calls.ts';

const REQUEST_MAGIC = 0x71726d67;
const REPLY_MAGIC = 0x70726d67;
const PROTOCOL_VERSION = 1;
const FLAG_STREAM = 1;

const REQUEST_BYTES = 40;
const RANGE_BYTES = 8;
const STEP_BYTES = 16;
const OPERAND_BYTES = 16;
const RESULT_BYTES = 8;
const REPLY_BYTES = 16;
const PROGRESS_BYTES = 16;

const STEP_KIND = { call: 0, put: 1, equal: 2, unequal: 3 } as const;
const OPERAND_KIND = { value: 0, address: 1, result: 2, load: 3 } as const;
const STATUS = { done: 0, refused: 1, progress: 2 } as const;

/** Reasons are a line; what is longer comes from something that is not an agent. */
const REASON_BYTES = 1024;

/** What came is no reply of an agent. */
export class GarbledReply extends Error {
  override readonly name = 'GarbledReply';
}

const operandsOf = (step: Step): number => (step.kind === 'call' ? step.args.length : 1);

/** Writes one request. The sizes are known when it begins, so it fills one buffer from several places. */
class RequestWriter {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  /** A number that does not fit must not arrive as another one. */
  u32(at: number, value: number): void {
    if (value >>> 0 !== value) throw new RangeError(`${value} is no number of 32 bits`);
    this.#view.setUint32(at, value, true);
  }

  head(program: CallProgram, operands: number, id: number, stream: boolean): void {
    this.u32(0, this.bytes.length);
    this.u32(4, REQUEST_MAGIC);
    this.u32(8, id);
    this.#view.setUint16(12, PROTOCOL_VERSION, true);
    this.#view.setUint16(14, stream ? FLAG_STREAM : 0, true);
    this.u32(16, 1);
    this.u32(20, program.dataBytes);
    this.u32(24, program.segments.length);
    this.u32(28, program.outputs.length);
    this.u32(32, program.steps.length);
    this.u32(36, operands);
  }

  range(at: number, offset: number, length: number): void {
    this.u32(at, offset);
    this.u32(at + 4, length);
  }

  step(at: number, step: Step): void {
    this.bytes[at + 2] = operandsOf(step);
    switch (step.kind) {
      case 'call':
        this.bytes[at] = STEP_KIND.call;
        this.u32(at + 4, step.number);
        return;
      case 'put':
        this.bytes[at] = STEP_KIND.put;
        this.bytes[at + 1] = step.bytes;
        this.u32(at + 4, step.offset);
        return;
      case 'skip':
        this.bytes[at] = STEP_KIND[step.when];
        this.u32(at + 4, step.count);
        this.#view.setBigUint64(at + 8, step.value, true);
    }
  }

  operand(at: number, operand: Operand): void {
    this.bytes[at] = OPERAND_KIND[operand.kind];
    switch (operand.kind) {
      case 'value':
        this.#view.setBigUint64(at + 8, operand.value, true);
        return;
      case 'address':
        this.u32(at + 8, operand.offset);
        return;
      case 'result':
        this.u32(at + 4, operand.step);
        this.#view.setBigUint64(at + 8, operand.plus, true);
        return;
      case 'load':
        this.bytes[at + 1] = operand.bytes;
        this.u32(at + 8, operand.offset);
    }
  }
}

/** Throws a RangeError where the program cannot be written; whether it can be executed is the agent's to say. */
export function encodeRequest(program: CallProgram, id: number, stream = false): Uint8Array {
  const { segments, outputs, steps } = program;
  const operands = steps.reduce((sum, step) => sum + operandsOf(step), 0);
  const length =
    REQUEST_BYTES +
    (segments.length + outputs.length) * RANGE_BYTES +
    steps.length * STEP_BYTES +
    operands * OPERAND_BYTES +
    segments.reduce((sum, { bytes }) => sum + bytes.length, 0);
  if (length > LIMITS.messageBytes)
    throw new RangeError(`the program takes ${length} bytes; the limit is ${LIMITS.messageBytes}`);
  const writer = new RequestWriter(length);
  writer.head(program, operands, id, stream);

  let at = REQUEST_BYTES;
  for (const { offset, bytes } of segments) {
    writer.range(at, offset, bytes.length);
    at += RANGE_BYTES;
  }
  for (const output of outputs) {
    writer.range(at, output.offset, output.length);
    at += RANGE_BYTES;
  }
  let operandAt = at + steps.length * STEP_BYTES;
  for (const step of steps) {
    writer.step(at, step);
    at += STEP_BYTES;
    if (step.kind === 'call')
      for (const arg of step.args) {
        writer.operand(operandAt, arg);
        operandAt += OPERAND_BYTES;
      }
    else {
      writer.operand(operandAt, step.operand);
      operandAt += OPERAND_BYTES;
    }
  }
  at = operandAt;
  for (const { bytes } of segments) {
    writer.bytes.set(bytes, at);
    at += bytes.length;
  }
  return writer.bytes;
}

export type Reply =
  /** `body` is for decodeResults(), and only until the callback returns. */
  | { readonly status: 'done'; readonly id: number; readonly body: Uint8Array }
  | { readonly status: 'refused'; readonly id: number; readonly reason: string }
  | { readonly status: 'progress'; readonly id: number; readonly step: number; readonly result: bigint };

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function decodeReply(message: Uint8Array): Reply {
  const view = viewOf(message);
  const id = view.getUint32(8, true);
  const status = view.getUint32(12, true);
  const body = message.subarray(REPLY_BYTES);
  switch (status) {
    case STATUS.done:
      return { status: 'done', id, body };
    case STATUS.refused:
      if (body.length > REASON_BYTES) throw new GarbledReply(`a reason of ${body.length} bytes`);
      return { status: 'refused', id, reason: Buffer.from(body).toString('utf8') };
    case STATUS.progress:
      if (body.length !== PROGRESS_BYTES) throw new GarbledReply(`progress of ${body.length} bytes`);
      return { status: 'progress', id, step: view.getUint32(16, true), result: view.getBigInt64(24, true) };
    default:
      throw new GarbledReply(`unknown status ${status}`);
  }
}

/** Puts replies together from the pieces in which a stream delivers them. Keeps one message at most. */
export class ReplyReader {
  #message = new Uint8Array(4096);
  #filled = 0;
  /** How much of the message is awaited: its head, and when that is known the rest. */
  #wanted = REPLY_BYTES;

  /** Throws GarbledReply, and is of no use after that. */
  push(chunk: Uint8Array, deliver: (reply: Reply) => void): void {
    for (let at = 0; at < chunk.length;) {
      const taken = chunk.subarray(at, at + this.#wanted - this.#filled);
      this.#message.set(taken, this.#filled);
      this.#filled += taken.length;
      at += taken.length;
      if (this.#filled === REPLY_BYTES) this.#wanted = this.#lengthFromHead();
      if (this.#filled < this.#wanted) continue;
      this.#filled = 0;
      const message = this.#message.subarray(0, this.#wanted);
      this.#wanted = REPLY_BYTES;
      deliver(decodeReply(message));
    }
  }

  #lengthFromHead(): number {
    const view = viewOf(this.#message);
    const length = view.getUint32(0, true);
    if (view.getUint32(4, true) !== REPLY_MAGIC) throw new GarbledReply('a reply does not begin as one');
    if (length < REPLY_BYTES || length > LIMITS.messageBytes) throw new GarbledReply(`a reply of ${length} bytes`);
    if (length > this.#message.length) {
      const larger = new Uint8Array(length);
      larger.set(this.#message.subarray(0, REPLY_BYTES));
      this.#message = larger;
    }
    return length;
  }
}

/** The body of a reply to that program. Throws GarbledReply where it has another length. */
export function decodeResults({ steps, outputs }: CallProgram, body: Uint8Array): CallResults {
  const expected = steps.length * RESULT_BYTES + outputs.reduce((sum, { length }) => sum + length, 0);
  if (body.length !== expected) throw new GarbledReply(`results of ${body.length} bytes; the program has ${expected}`);
  const view = viewOf(body);
  let at = steps.length * RESULT_BYTES;
  return {
    results: steps.map((_step, index) => view.getBigInt64(index * RESULT_BYTES, true)),
    outputs: outputs.map(({ length }) => body.slice(at, (at += length))),
  };
}
