import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { callPrograms } from '../../properties/call-programs.ts';
import { LIMITS, type CallProgram, type Operand, type Step } from './calls.ts';
import { decodeResults, encodeRequest, GarbledReply, ReplyReader, type Reply } from './wire.ts';

/** A request read the way agent/protocol.h has it. */
function readRequest(message: Uint8Array) {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let at = 0;
  const u8 = () => view.getUint8(at++);
  const u16 = () => view.getUint16((at += 2) - 2, true);
  const u32 = () => view.getUint32((at += 4) - 4, true);
  const u64 = () => view.getBigUint64((at += 8) - 8, true);
  const many = <T>(count: number, read: () => T): T[] => Array.from({ length: count }, read);

  const head = { length: u32(), magic: u32(), id: u32(), version: u16(), flags: u16(), threads: u32() };
  const [dataBytes, segments, outputs, steps, operands] = [u32(), u32(), u32(), u32(), u32()];
  const range = () => ({ offset: u32(), length: u32() });
  return {
    head,
    dataBytes,
    segments: many(segments, range),
    outputs: many(outputs, range),
    steps: many(steps, () => [u8(), u8(), u8(), u8(), u32(), u64()]),
    operands: many(operands, () => [u8(), u8(), u16(), u32(), u64()]),
    bytes: [...message.subarray(at)],
  };
}

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

function stepFields(step: Step): readonly (number | bigint)[] {
  if (step.kind === 'call') return [0, 0, step.args.length, 0, step.number, 0n];
  if (step.kind === 'put') return [1, step.bytes, 1, 0, step.offset, 0n];
  return [step.when === 'equal' ? 2 : 3, 0, 1, 0, step.count, u64(step.value)];
}

function operandFields(operand: Operand): readonly (number | bigint)[] {
  if (operand.kind === 'value') return [0, 0, 0, 0, u64(operand.value)];
  if (operand.kind === 'address') return [1, 0, 0, 0, BigInt(operand.offset)];
  if (operand.kind === 'result') return [2, 0, 0, operand.step, u64(operand.plus)];
  return [3, operand.bytes, 0, 0, BigInt(operand.offset)];
}

const EMPTY: CallProgram = { dataBytes: 0, segments: [], steps: [], outputs: [] };

/** A reply written the way agent/protocol.h has it. */
function writeReply(id: number, status: number, body: Uint8Array): Uint8Array {
  const message = new Uint8Array(16 + body.length);
  const view = new DataView(message.buffer);
  [message.length, 0x70726d67, id, status].forEach((word, index) => view.setUint32(index * 4, word, true));
  message.set(body, 16);
  return message;
}

function progressBody(step: number, result: bigint): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, step, true);
  view.setBigInt64(8, result, true);
  return new Uint8Array(view.buffer);
}

/** What the reader makes of a stream that arrives in pieces. */
function read(stream: Uint8Array, pieces: readonly number[] = []): Reply[] {
  const replies: Reply[] = [];
  const reader = new ReplyReader();
  const deliver = (reply: Reply) =>
    replies.push(reply.status === 'done' ? { ...reply, body: reply.body.slice() } : reply);
  let at = 0;
  for (const piece of [...pieces, stream.length]) reader.push(stream.subarray(at, (at += piece)), deliver);
  return replies;
}

describe('a request', () => {
  test('holds the program, field by field', () => {
    const id = fc.nat(2 ** 32 - 1);
    fc.assert(
      fc.property(callPrograms([0, 39, 2 ** 32 - 1]), id, fc.boolean(), (program, given, stream) => {
        const message = encodeRequest(program, given, stream);
        const operands = program.steps.flatMap((step) => (step.kind === 'call' ? step.args : [step.operand]));
        expect(readRequest(message)).toEqual({
          head: { length: message.length, magic: 0x71726d67, id: given, version: 1, flags: stream ? 1 : 0, threads: 1 },
          dataBytes: program.dataBytes,
          segments: program.segments.map(({ offset, bytes }) => ({ offset, length: bytes.length })),
          outputs: program.outputs,
          steps: program.steps.map(stepFields),
          operands: operands.map(operandFields),
          bytes: program.segments.flatMap(({ bytes }) => [...bytes]),
        });
      }),
    );
  });

  test('is not written where a number would become another one', () => {
    const call = (number: number): CallProgram => ({ ...EMPTY, steps: [{ kind: 'call', number, args: [] }] });
    expect(() => encodeRequest(call(2 ** 32), 1)).toThrow(RangeError);
    expect(() => encodeRequest(call(-1), 1)).toThrow(RangeError);
    expect(() => encodeRequest(call(0.5), 1)).toThrow(RangeError);
  });

  test('is not written where it would be too long', () => {
    const bytes = new Uint8Array(LIMITS.messageBytes - 48);
    expect(encodeRequest({ ...EMPTY, segments: [{ offset: 0, bytes }] }, 1)).toHaveLength(LIMITS.messageBytes);
    const segments = [{ offset: 0, bytes: new Uint8Array(bytes.length + 1) }];
    expect(() => encodeRequest({ ...EMPTY, segments }, 1)).toThrow('the limit is 8388608');
  });
});

const reply = fc.oneof(
  fc.record({ status: fc.constant('done' as const), id: fc.nat(), body: fc.uint8Array({ maxLength: 6000 }) }),
  fc.record({ status: fc.constant('refused' as const), id: fc.nat(), reason: fc.string({ maxLength: 200 }) }),
  fc.record({
    status: fc.constant('progress' as const),
    id: fc.nat(),
    step: fc.nat(),
    result: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  }),
);

function write(each: Reply): Uint8Array {
  if (each.status === 'done') return writeReply(each.id, 0, each.body);
  if (each.status === 'refused') return writeReply(each.id, 1, Buffer.from(each.reason));
  return writeReply(each.id, 2, progressBody(each.step, each.result));
}

describe('replies', () => {
  test('are the same however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 6 }), fc.array(fc.nat(5000)), (replies, pieces) => {
        expect(read(Buffer.concat(replies.map(write)), pieces)).toEqual(replies);
      }),
    );
  });

  test('give results and outputs', () => {
    fc.assert(
      fc.property(callPrograms([0]), fc.infiniteStream(fc.nat(255)), (program, chance) => {
        const length = program.steps.length * 8 + program.outputs.reduce((sum, each) => sum + each.length, 0);
        const body = Uint8Array.from(chance.take(length));
        const { results, outputs } = decodeResults(program, body);
        expect(outputs.map((each) => each.length)).toEqual(program.outputs.map((each) => each.length));
        expect([
          ...new Uint8Array(BigInt64Array.from(results).buffer),
          ...outputs.flatMap((each) => [...each]),
        ]).toEqual([...body]);
        expect(() => decodeResults(program, new Uint8Array(length + 1))).toThrow(GarbledReply);
      }),
    );
  });

  test('that are none are told as such, whatever they are', () => {
    const head = fc.tuple(
      fc.constantFrom(0, 15, 16, 32, 2 ** 23, 2 ** 23 + 1, 2 ** 32 - 1),
      fc.nat(4),
      fc.uint8Array(),
    );
    const forged = head.map(([length, status, body]) => {
      const message = writeReply(1, status, body);
      new DataView(message.buffer).setUint32(0, length, true);
      return message;
    });
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.uint8Array(), forged)), (pieces) => {
        try {
          read(Buffer.concat(pieces));
        } catch (error) {
          if (!(error instanceof GarbledReply)) throw error;
        }
      }),
    );
  });

  test.each([
    ['that begins otherwise', new Uint8Array(16), 'does not begin as one'],
    ['of a status that is unknown', writeReply(1, 3, new Uint8Array()), 'unknown status 3'],
    ['of refusal that goes on and on', writeReply(1, 1, new Uint8Array(1025)), 'a reason of 1025 bytes'],
    ['of progress that is too short', writeReply(1, 2, new Uint8Array(15)), 'progress of 15 bytes'],
  ])('a reply %s', (_what, message, why) => {
    expect(() => read(message)).toThrow(new RegExp(why));
  });

  test('longer than the limit are not waited for', () => {
    const message = writeReply(1, 0, new Uint8Array());
    new DataView(message.buffer).setUint32(0, LIMITS.messageBytes + 1, true);
    expect(() => read(message)).toThrow('a reply of 8388609 bytes');
  });
});
