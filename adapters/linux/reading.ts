/** Where in the results of a program the observation of a command is to be read: data, so that C can read it too. */
import type { Observation } from '../../model/core/outcome.ts';
import type { CallResults } from './calls.ts';
import { errnoName } from './errno.ts';
import type { FailureReading } from './frames.ts';
import { EXIT, MEMORY_EXIT_FLAG_PRIVATE, RUN } from './uapi.ts';

/** The number of a step or an output. */
type Index = number;

export interface GuestReading {
  readonly kind: 'guest';
  /** KVM_RUN. */
  readonly step: Index;
  /** The output that holds the head of struct kvm_run. */
  readonly exit: Index;
  /** Where code stores what it has, once it is past the access. */
  readonly doorbell: bigint;
  /** Whether the access was a load, so that what it loaded is told. */
  readonly loads: boolean;
}

export type Reading =
  /** An error number, or success; the result is told where it is part of the contract. */
  | {
      readonly kind: 'call';
      readonly step: Index;
      readonly tells: boolean;
      /** A step that must have gone well before, or its error is the answer. */
      readonly first?: Index;
    }
  /** An error number, or the value of an output, or what it leaves of `outOf`. */
  | { readonly kind: 'field'; readonly step: Index; readonly output: Index; readonly outOf?: bigint }
  | GuestReading
  | FailureReading
  /** A copy from or to host memory; where it failed, msync() tells in `mapped` whether anything is mapped there. */
  | { readonly kind: 'host'; readonly step: Index; readonly mapped: Index; readonly loaded: Index | undefined };

/** Source: include/linux/err.h. */
const MAX_ERRNO = 4095n;
const ENOMEM = 12n;

const isError = (result: bigint): boolean => result < 0n && result >= -MAX_ERRNO;

/** Where the agent died on the way, no output came back: then it is known that a command succeeded, and not with what. */
export function observe(reading: Reading, results: CallResults): Observation {
  if (reading.kind === 'call' && reading.first !== undefined && isError(results.results[reading.first] ?? 0n))
    return observe({ kind: 'call', step: reading.first, tells: false }, results);
  const result = results.results[reading.step] ?? 0n;
  const outcome = outcomeOf(result);
  switch (reading.kind) {
    case 'call':
      return reading.tells && outcome.kind === 'ok' ? ok(result) : outcome;
    case 'field':
      return outcome.kind === 'ok' ? ok(left(reading.outOf, wordOf(results, reading.output))) : outcome;
    case 'failure':
      return outcome.kind === 'ok' ? outcomeOf(BigInt.asIntN(64, wordOf(results, reading.result) ?? 0n)) : outcome;
    case 'guest':
      return observeExit(outcome, viewOf(results, reading.exit), reading);
    case 'host':
      if (outcome.kind === 'ok') return ok(wordOrNothing(results, reading.loaded));
      return outcome.errno === 'EFAULT'
        ? { kind: 'signal', signal: results.results[reading.mapped] === -ENOMEM ? 'SIGSEGV' : 'SIGBUS' }
        : outcome;
  }
}

const outcomeOf = (result: bigint): Extract<Observation, { readonly kind: 'errno' | 'ok' }> =>
  isError(result) ? { kind: 'errno', errno: errnoName(Number(-result)) } : { kind: 'ok' };

const ok = (value: bigint | undefined): Observation =>
  value === undefined ? { kind: 'ok' } : { kind: 'ok', value: BigInt.asUintN(64, value) };

const left = (outOf: bigint | undefined, value: bigint | undefined): bigint | undefined =>
  outOf === undefined || value === undefined ? value : outOf - value;

function viewOf({ outputs }: CallResults, output: Index): DataView | undefined {
  const bytes = outputs[output];
  return bytes && new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** An output of four or eight bytes. */
function wordOf(results: CallResults, output: Index): bigint | undefined {
  const view = viewOf(results, output);
  if (view === undefined) return undefined;
  return view.byteLength === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true);
}

const wordOrNothing = (results: CallResults, output: Index | undefined): bigint | undefined =>
  output === undefined ? undefined : wordOf(results, output);

/** What came of KVM_RUN that returned `result`, with the head of struct kvm_run as it was left. */
function observeExit(result: Observation, exit: DataView | undefined, { doorbell, loads }: GuestReading): Observation {
  if (exit === undefined) return result;
  const reason = BigInt(exit.getUint32(RUN.exitReason, true));
  if (result.kind === 'errno')
    return reason === EXIT.MEMORY_FAULT && (result.errno === 'EFAULT' || result.errno === 'EHWPOISON')
      ? {
          kind: 'memory-fault',
          errno: result.errno,
          gpa: exit.getBigUint64(RUN.faultGpa, true),
          private: (exit.getBigUint64(RUN.faultFlags, true) & MEMORY_EXIT_FLAG_PRIVATE) !== 0n,
        }
      : result;
  switch (reason) {
    case EXIT.MMIO: {
      const gpa = exit.getBigUint64(RUN.mmioPhysAddr, true);
      if (gpa === doorbell) return loads ? ok(exit.getBigUint64(RUN.mmioData, true)) : ok(undefined);
      return { kind: 'mmio', gpa, write: exit.getUint8(RUN.mmioIsWrite) !== 0 };
    }
    default:
      return {
        kind: 'crash',
        message: `KVM_RUN returned with exit reason ${nameOfExit(reason)}${detail(reason, exit)}`,
      };
  }
}

/** What the kernel says besides. */
function detail(reason: bigint, exit: DataView): string {
  if (reason === EXIT.FAIL_ENTRY) return `: hardware reason 0x${exit.getBigUint64(RUN.suberror, true).toString(16)}`;
  if (reason !== EXIT.INTERNAL_ERROR) return '';
  const words = Array.from({ length: 3 }, (_, index) => exit.getBigUint64(RUN.internalData + 8 * index, true));
  return `: suberror ${exit.getUint32(RUN.suberror, true)}, data ${words.map((word) => `0x${word.toString(16)}`).join(' ')}`;
}

const nameOfExit = (reason: bigint): string =>
  Object.entries(EXIT).find(([, number]) => number === reason)?.[0] ?? `${reason}`;
