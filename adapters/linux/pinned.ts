/** System calls that reach memory of the process by way of get_user_pages(): each moves one word. */
import type { Operand } from './calls.ts';
import { address, load, value, type Lowering } from './lowering.ts';
import { AT_FDCWD, IOVEC, O_CLOEXEC, O_RDWR, WORD } from './uapi.ts';

export type Via = 'process-vm' | 'splice' | 'mem';

/** In C a function of its own for each, named after what it reads or writes by. */
const BLOCKS = {
  'process-vm': ['read_by_process_vm', 'write_by_process_vm'],
  splice: ['read_by_splice', undefined],
  mem: ['read_by_mem', 'write_by_mem'],
} as const;

const WORD_BYTES = value(BigInt(WORD.bytes));
const ONE = value(1n);
const NO_FLAGS = value(0n);

/** Answers the step whose result is how much was moved. `word` is a place in the data area. */
export function pinned(lowering: Lowering, via: Via, target: Operand, word: number, stored?: bigint): number {
  const [reads, writes] = BLOCKS[via];
  if (stored === undefined) {
    let step = 0;
    lowering.block(reads, [target], () => (step = WAYS[via](lowering, target, word, 'read')));
    return step;
  }
  if (writes === undefined) throw new Error(`nothing is written via ${via}`);
  let step = 0;
  lowering.block(writes, [target, value(stored)], () => {
    lowering.fill(word, wordBytes(stored));
    return (step = WAYS[via](lowering, target, word, 'write'));
  });
  return step;
}

type Way = (lowering: Lowering, target: Operand, word: number, direction: 'read' | 'write') => number;

const WAYS: Readonly<Record<Via, Way>> = { 'process-vm': byProcessVm, splice: bySplice, mem: byMem };

function byProcessVm(lowering: Lowering, target: Operand, word: number, direction: 'read' | 'write'): number {
  const local = vector(lowering, address(word));
  const remote = vector(lowering, target);
  const self = lowering.result(lowering.call('getpid'));
  const name = direction === 'read' ? 'process_vm_readv' : 'process_vm_writev';
  return lowering.call(name, self, local, ONE, remote, ONE, NO_FLAGS);
}

/** The page goes into a pipe, and the word is read from that. */
function bySplice(lowering: Lowering, target: Operand, word: number): number {
  const ends = lowering.reserve(2 * FD_BYTES);
  const [out, into] = [load(ends, FD_BYTES), load(ends + FD_BYTES, FD_BYTES)];
  lowering.call('pipe2', address(ends), value(O_CLOEXEC));
  const step = lowering.call('vmsplice', into, vector(lowering, target), ONE, NO_FLAGS);
  lowering.skip('unequal', lowering.result(step), BigInt(WORD.bytes), () =>
    lowering.call('read', out, address(word), WORD_BYTES),
  );
  for (const end of [out, into]) lowering.call('close', end);
  return step;
}

const FD_BYTES = 4;

function byMem(lowering: Lowering, target: Operand, word: number, direction: 'read' | 'write'): number {
  const folder = value(BigInt.asUintN(64, AT_FDCWD));
  const file = lowering.result(
    lowering.call('openat', folder, lowering.text('/proc/self/mem'), value(O_RDWR | O_CLOEXEC)),
  );
  const name = direction === 'read' ? 'pread64' : 'pwrite64';
  const step = lowering.call(name, file, address(word), WORD_BYTES, target);
  lowering.call('close', file);
  return step;
}

function vector(lowering: Lowering, base: Operand): Operand {
  const struct = lowering.struct(IOVEC, { iov_len: BigInt(WORD.bytes) });
  lowering.put(struct, IOVEC, 'iov_base', base);
  return address(struct);
}

function wordBytes(word: bigint): Uint8Array {
  const bytes = new Uint8Array(WORD.bytes);
  new DataView(bytes.buffer).setBigUint64(0, word, true);
  return bytes;
}
