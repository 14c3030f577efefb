/**
 * What a command can come to, as seen from outside. Outcomes are plain data: the specification predicts them,
 * targets observe them, reports print them.
 */

import type { Range } from './ranges.ts';

/** Error names that the specification uses; the numbers are the target's affair. */
export type Errno =
  | 'E2BIG'
  | 'EACCES'
  | 'EAGAIN'
  | 'EBADF'
  | 'EBUSY'
  | 'EEXIST'
  | 'EFAULT'
  | 'EFBIG'
  | 'EHWPOISON'
  | 'EINTR'
  | 'EINVAL'
  | 'EIO'
  | 'EMFILE'
  | 'ENODATA'
  | 'ENODEV'
  | 'ENOENT'
  | 'ENOMEM'
  | 'ENOSPC'
  | 'ENOSYS'
  | 'ENOTTY'
  | 'EOPNOTSUPP'
  | 'EOVERFLOW'
  | 'EPERM'
  | 'ESPIPE';

export type Outcome =
  /** The call succeeded. `value` is what it tells its caller, where that is part of the contract. */
  | { readonly kind: 'ok'; readonly value?: bigint }
  | { readonly kind: 'errno'; readonly errno: Errno }
  /** KVM_RUN returned with KVM_EXIT_MMIO: the VMM is asked to emulate the access. */
  | { readonly kind: 'mmio'; readonly gpa: bigint; readonly write: boolean }
  /** KVM_RUN returned −1 with KVM_EXIT_MEMORY_FAULT filled in. */
  | { readonly kind: 'memory-fault'; readonly errno: Errno; readonly gpa: bigint; readonly private: boolean }
  /** The access of a host thread raised a signal. */
  | { readonly kind: 'signal'; readonly signal: 'SIGBUS' | 'SIGSEGV' }
  /** The kernel touched an address that is not mapped, and ended the task. */
  | { readonly kind: 'oops' }
  /** Poison was consumed: a machine check ended the guest, or, in the kernel, the machine; or it was raised, and nobody has handled it. */
  | { readonly kind: 'machine-check'; readonly ends: 'guest' | 'machine' | 'nobody' }
  /** SIGBUS because of poison: to a task of a guest, or to the VMM. AR and AO are BUS_MCEERR_…; `none`: it tells no address. */
  | { readonly kind: 'sigbus'; readonly to: 'task' | 'vmm'; readonly code: 'AR' | 'AO' | 'none' }
  /** Poison was consumed, and the machine shut down. */
  | { readonly kind: 'shutdown' }
  /** The access was made, and the word tells nothing of what was stored. Its bits are not compared. */
  | { readonly kind: 'ciphertext' }
  /** KVM_RUN returned with KVM_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE. */
  | {
      readonly kind: 'hypercall';
      readonly gpa: bigint;
      readonly pages: bigint;
      readonly private: boolean;
      /** As the guest gave them, where it gave any. */
      readonly attributes?: bigint;
    }
  /**
   * An answer that is neither a success nor an error number: of the TDX module (`TDX_…`), to a guest's hypercall
   * (`TDVMCALL_STATUS_…`, with an address where one comes with it), or a VM exit without details (`KVM_EXIT_…`).
   */
  | { readonly kind: 'status'; readonly status: string; readonly gpa?: bigint }
  /** The guest frames that a host has recorded as shared, or that its record is incomplete. */
  | { readonly kind: 'ranges'; readonly ranges: readonly Range[]; readonly incomplete: boolean };

/** What a target saw: an outcome, or why there is none. Nothing is observed behind that. */
export type Observation =
  | Outcome
  /** The target itself broke while executing the command. */
  | { readonly kind: 'crash'; readonly message: string }
  /** The target cannot execute the command. */
  | { readonly kind: 'unsupported'; readonly message: string };

export const ok = (value?: bigint): Outcome => (value === undefined ? OK : { kind: 'ok', value });
const OK: Outcome = { kind: 'ok' };

const errnoCache = new Map<Errno, Outcome>();
/** The outcome of a call that fails with `errno`. */
export function fails(errno: Errno): Outcome {
  let outcome = errnoCache.get(errno);
  if (outcome === undefined) errnoCache.set(errno, (outcome = { kind: 'errno', errno }));
  return outcome;
}

export function sameOutcome(a: Observation, b: Observation): boolean {
  if (a === b) return true;
  switch (a.kind) {
    case 'ok':
      return b.kind === 'ok' && a.value === b.value;
    case 'errno':
      return b.kind === 'errno' && a.errno === b.errno;
    case 'mmio':
      return b.kind === 'mmio' && a.gpa === b.gpa && a.write === b.write;
    case 'memory-fault':
      return b.kind === 'memory-fault' && a.errno === b.errno && a.gpa === b.gpa && a.private === b.private;
    case 'signal':
      return b.kind === 'signal' && a.signal === b.signal;
    case 'machine-check':
      return b.kind === 'machine-check' && a.ends === b.ends;
    case 'sigbus':
      return b.kind === 'sigbus' && a.to === b.to && a.code === b.code;
    case 'hypercall':
      return (
        b.kind === 'hypercall' &&
        a.gpa === b.gpa &&
        a.pages === b.pages &&
        a.private === b.private &&
        a.attributes === b.attributes
      );
    case 'status':
      return b.kind === 'status' && a.status === b.status && a.gpa === b.gpa;
    case 'ranges':
      return b.kind === 'ranges' && a.incomplete === b.incomplete && sameRanges(a.ranges, b.ranges);
    case 'oops':
    case 'shutdown':
    case 'ciphertext':
      return b.kind === a.kind;
    case 'crash':
    case 'unsupported':
      return false;
  }
}

const sameRanges = (a: readonly Range[], b: readonly Range[]): boolean =>
  a.length === b.length && a.every(({ start, end }, at) => start === b[at]?.start && end === b[at].end);

const hex = (value: bigint): string => (value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`);

const printRange = ({ start, end }: Range): string => `0x${start.toString(16)}-0x${end.toString(16)}`;

/** One short line, for example `EINVAL`, `ok 0x4000`, `MEMORY_FAULT EFAULT gpa=0x1000 private`. */
export function printOutcome(outcome: Observation): string {
  switch (outcome.kind) {
    case 'ok':
      return outcome.value === undefined ? 'ok' : `ok ${hex(outcome.value)}`;
    case 'errno':
      return outcome.errno;
    case 'mmio':
      return `MMIO ${outcome.write ? 'write' : 'read'} gpa=${hex(outcome.gpa)}`;
    case 'memory-fault':
      return `MEMORY_FAULT ${outcome.errno} gpa=${hex(outcome.gpa)} ${outcome.private ? 'private' : 'shared'}`;
    case 'signal':
      return outcome.signal;
    case 'machine-check':
      return outcome.ends === 'nobody' ? 'machine check' : `machine check, ends the ${outcome.ends}`;
    case 'sigbus':
      return `SIGBUS${outcome.code === 'none' ? '' : ` BUS_MCEERR_${outcome.code}`} to the ${outcome.to === 'vmm' ? 'VMM' : 'task'}`;
    case 'hypercall':
      return `HYPERCALL gpa=${hex(outcome.gpa)} pages=${hex(outcome.pages)} ${outcome.private ? 'private' : 'shared'}${outcome.attributes === undefined ? '' : ` attributes=${hex(outcome.attributes)}`}`;
    case 'status':
      return outcome.gpa === undefined ? outcome.status : `${outcome.status} gpa=${hex(outcome.gpa)}`;
    case 'ranges':
      return [outcome.incomplete ? 'incomplete ranges' : 'ranges', ...outcome.ranges.map(printRange)].join(' ');
    case 'oops':
    case 'shutdown':
    case 'ciphertext':
      return outcome.kind;
    case 'crash':
    case 'unsupported':
      return `${outcome.kind}: ${outcome.message}`;
  }
}
