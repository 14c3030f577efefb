/** Memory failures on request: asked of the first process of a guest, by way of two pipes. Follows agent/frames.h. */
import { address, value, type Lowering } from './lowering.ts';
import type { Operand } from './calls.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDWR, STAT } from './uapi.ts';

export const ASK = '/frames-ask';
export const ANSWER = '/frames-answer';

/** struct frames_ask: the page, and then what a struct stat begins with, st_dev and st_ino. */
const ASK_BYTES = 24;
const PAGE_BYTES = 8;
/** struct frames_answer. */
const ANSWER_BYTES = 16;
const FRAME = 8;

/** Where in the results of a program it is to be read what became of a request. */
export interface FailureReading {
  readonly kind: 'failure';
  /** The step that read the answer. */
  readonly step: number;
  /** Outputs: zero or minus an error number; the frame, or zero. */
  readonly result: number;
  readonly frame: number;
}

/** The pipes are opened when they are first wanted. */
export class MemoryFailures {
  readonly #lowering: Lowering;
  #pipes: { readonly ask: Operand; readonly answer: Operand } | undefined;

  constructor(lowering: Lowering) {
    this.#lowering = lowering;
  }

  #open(path: string): Operand {
    const lowering = this.#lowering;
    const folder = value(BigInt.asUintN(64, AT_FDCWD));
    return lowering.result(lowering.call('openat', folder, lowering.text(path), value(O_RDWR | O_CLOEXEC)));
  }

  /** The frame of that page fails. A descriptor that is none leaves zeroes, which name no file. */
  fail(descriptor: Operand, page: bigint): FailureReading {
    const lowering = this.#lowering;
    this.#pipes ??= { ask: this.#open(ASK), answer: this.#open(ANSWER) };
    const { ask: asks, answer: answers } = this.#pipes;
    const ask = lowering.reserve(PAGE_BYTES + STAT.bytes);
    const bytes = new Uint8Array(PAGE_BYTES);
    new DataView(bytes.buffer).setBigUint64(0, page, true);
    lowering.fill(ask, bytes);
    const answer = lowering.reserve(ANSWER_BYTES);
    lowering.call('fstat', descriptor, address(ask + PAGE_BYTES));
    lowering.call('write', asks, address(ask), value(BigInt(ASK_BYTES)));
    return {
      kind: 'failure',
      step: lowering.call('read', answers, address(answer), value(BigInt(ANSWER_BYTES))),
      result: lowering.output(answer, 8),
      frame: lowering.output(answer + FRAME, 8),
    };
  }
}
