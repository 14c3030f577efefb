/**
 * Programs of system calls: what the agent executes, and what a C reproducer prints. Plain data; nothing here knows
 * what the calls mean.
 *
 * A program has a data area: `dataBytes` zeroed bytes at a page-aligned address, filled from `segments` before it
 * starts. Steps run in order, and each has a result: what the system call returned, or minus the error number.
 */

/** Names that C has for the values of an argument or a field: one for each value, or one for each bit. */
export interface Names {
  readonly of: 'values' | 'bits';
  readonly names: Readonly<Record<string, bigint>>;
}

/** An argument of a call. */
export type Operand =
  /** A number, and how C writes it, where C has names for it. */
  | { readonly kind: 'value'; readonly value: bigint; readonly names?: string | Names }
  /** Address of a byte of the data area. */
  | { readonly kind: 'address'; readonly offset: number }
  /** Result of an earlier step, plus a constant; both wrap at 64 bits. */
  | { readonly kind: 'result'; readonly step: number; readonly plus: bigint }
  /** What the data area holds at `offset` when the step runs: `bytes` little-endian bytes, zero-extended. */
  | { readonly kind: 'load'; readonly offset: number; readonly bytes: 4 | 8 };

export type Step =
  /** Executes a system call; `number` is the x86-64 one. Up to six arguments, the rest are zero. */
  | { readonly kind: 'call'; readonly number: number; readonly args: readonly Operand[] }
  /** Writes an operand into the data area; its result is zero. */
  | { readonly kind: 'put'; readonly offset: number; readonly bytes: 4 | 8; readonly operand: Operand }
  /** Goes on `count` steps further where the operand is (not) `value`; skipped steps have the result zero. */
  | {
      readonly kind: 'skip';
      readonly count: number;
      readonly when: 'equal' | 'unequal';
      readonly operand: Operand;
      readonly value: bigint;
    };

/** How C lays out a structure: the offset and width of every field that is named here. */
export interface Layout {
  /** `struct kvm_create_guest_memfd`. */
  readonly name: string;
  readonly bytes: number;
  readonly fields: Readonly<Record<string, Field>>;
}

export interface Field {
  readonly offset: number;
  readonly bytes: 1 | 2 | 4 | 8;
  readonly names?: Names;
}

export interface Segment {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface CallProgram {
  readonly dataBytes: number;
  readonly segments: readonly Segment[];
  readonly steps: readonly Step[];
  /** Parts of the data area that are returned when the program has ended. */
  readonly outputs: readonly { readonly offset: number; readonly length: number }[];
}

export interface CallResults {
  /** One for each step: the value returned, or minus the error number. Shorter where the agent died on the way. */
  readonly results: readonly bigint[];
  /** One for each of the program's outputs; empty where the agent died on the way. */
  readonly outputs: readonly Uint8Array[];
}

/** The bounds that the agent enforces. */
export const LIMITS = {
  messageBytes: 8 << 20,
  dataBytes: 1 << 20,
  steps: 65_536,
} as const;
