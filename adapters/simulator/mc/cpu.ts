/** A CPU of a guest, or of a machine without one, and what comes of its touches of memory. */
import type { McContext, McHow, McStage } from '../../../model/core/machine-check.ts';
import type { Outcome } from '../../../model/core/outcome.ts';
import { McaRegisters } from './mca.ts';

/** One touch of a line. `value` is what is stored. */
export interface Access {
  readonly gfn: number;
  readonly line: number;
  readonly by: 'task' | 'kernel';
  readonly how: McHow;
  /** What the CPU is doing: in user mode, or in the kernel, with an entry in its table of fixups or without. */
  readonly context: McContext;
  readonly value?: bigint;
}

/** The instruction was not completed. */
export class Stopped {
  readonly outcome: Outcome;
  constructor(outcome: Outcome) {
    this.outcome = outcome;
  }
}

export type Touched = bigint | Stopped;

export class Cpu {
  readonly id: number;
  readonly mca = new McaRegisters();
  stage: McStage = 'runs';
  /** The access that it is out of the guest for, or in its handler; undefined where somebody made the machine check up. */
  access: Access | undefined;
  /** Where the handler of machine checks comes from. */
  context: McContext = 'kernel';

  constructor(id: number) {
    this.id = id;
  }
}

/** Stores and flushes of a bad line raise nothing. */
export const consumes = (how: McHow): boolean => !['store', 'zero', 'flush', 'isolate'].includes(how);

/** What takes a line out of caches. */
export const flushes = (how: McHow): boolean => how === 'flush' || how === 'isolate';

const LOADS: readonly McHow[] = ['load', 'copyin', 'copy'];
/** What the command tells: the word, where it loads one. */
export const toldOf = (how: McHow, word: bigint): bigint | undefined => (LOADS.includes(how) ? word : undefined);
