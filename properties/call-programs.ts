/** Programs of system calls by chance, all of which an agent must take. */
import fc from 'fast-check';
import type { CallProgram, Operand, Step } from '../adapters/linux/calls.ts';

const word = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(0n, 1n, -1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n)),
);

const drawnOperand = fc.record({
  kind: fc.constantFrom('value', 'address', 'result', 'load'),
  word,
  place: fc.nat(),
  bytes: fc.constantFrom(4 as const, 8 as const),
});

const drawnStep = fc.record({
  kind: fc.constantFrom('call', 'put', 'skip'),
  operands: fc.array(drawnOperand, { minLength: 1, maxLength: 6 }),
  place: fc.nat(),
  bytes: fc.constantFrom(4 as const, 8 as const),
  when: fc.constantFrom('equal' as const, 'unequal' as const),
  word,
});

type DrawnOperand = typeof drawnOperand extends fc.Arbitrary<infer T> ? T : never;
type DrawnStep = typeof drawnStep extends fc.Arbitrary<infer T> ? T : never;

/** Where in the data area so many bytes have room. */
const offsetOf = (place: number, bytes: number, dataBytes: number): number => place % (dataBytes - bytes + 1);

function operandFrom({ kind, word: value, place, bytes }: DrawnOperand, step: number, dataBytes: number): Operand {
  if (kind === 'address' && dataBytes > 0) return { kind, offset: offsetOf(place, 1, dataBytes) };
  if (kind === 'result' && step > 0) return { kind, step: place % step, plus: value };
  if (kind === 'load' && dataBytes >= bytes) return { kind, offset: offsetOf(place, bytes, dataBytes), bytes };
  return { kind: 'value', value };
}

function stepFrom(drawn: DrawnStep, index: number, steps: number, dataBytes: number, numbers: readonly number[]): Step {
  const { kind, place, bytes, when, word: value } = drawn;
  const args = drawn.operands.map((each) => operandFrom(each, index, dataBytes));
  const [operand = { kind: 'value', value }] = args;
  if (kind === 'put' && dataBytes >= bytes) return { kind, offset: offsetOf(place, bytes, dataBytes), bytes, operand };
  if (kind === 'skip')
    return { kind, count: place % (steps - index), when, operand, value: place % 2 === 0 ? 0n : value };
  return { kind: 'call', number: numbers[place % numbers.length] ?? 0, args };
}

/** Programs that make no calls but those with the given numbers. */
export const callPrograms = (numbers: readonly number[]): fc.Arbitrary<CallProgram> =>
  fc
    .record({
      dataBytes: fc.constantFrom(0, 1, 4, 8, 9, 64, 5000),
      steps: fc.array(drawnStep, { maxLength: 20 }),
      segments: fc.array(fc.record({ place: fc.nat(), bytes: fc.uint8Array({ maxLength: 40 }) }), { maxLength: 4 }),
      outputs: fc.array(fc.record({ place: fc.nat(), length: fc.nat(100) }), { maxLength: 4 }),
    })
    .map(({ dataBytes, steps, segments, outputs }) => ({
      dataBytes,
      steps: steps.map((drawn, index) => stepFrom(drawn, index, steps.length, dataBytes, numbers)),
      segments: segments
        .map(({ place, bytes }) => ({ place, bytes: bytes.subarray(0, dataBytes) }))
        .map(({ place, bytes }) => ({ offset: offsetOf(place, bytes.length, dataBytes), bytes })),
      outputs: outputs
        .map(({ place, length }) => ({ place, length: Math.min(length, dataBytes) }))
        .map(({ place, length }) => ({ offset: offsetOf(place, length, dataBytes), length })),
    }));
