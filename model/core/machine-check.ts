/** State of the realm `mc`: hardware, host and guests that pass poison on. docs/adr/0011-machine-check.md has the words. */
import type { Label } from './label.ts';

/** A line of memory, told by its first word. */
export interface McLine {
  /** What a load gives where nothing is bad. */
  readonly value: bigint;
  /** In memory. */
  readonly isBad: boolean;
  /** What a cache has in its place: the same as memory, something that was stored since, or what has gone bad there. */
  readonly cached: McCached | undefined;
}

export type McCached = 'clean' | 'dirty' | 'poisoned';

/** A physical page. */
export interface McFrame {
  /** Its number, never used twice. */
  readonly frame: number;
  readonly lines: readonly McLine[];
}

export type McUse = 'free' | 'anon' | 'clean' | 'dirty' | 'kernel' | 'table';

/** What the 1:1 map of a kernel has for a page. */
export type McOneToOne = 'present' | 'uncacheable' | 'absent';

/** A guest frame. */
export interface McPage {
  readonly backing: McFrame | undefined;
  /** The host took the frame away, and whatever the guest does with it comes to the VMM. */
  readonly isTaken: boolean;
  /** The frame that was taken out from behind it, as long as the host process has an entry that tells of it. */
  readonly detached: number | undefined;
  readonly use: McUse;
  /** Tasks that have it, and what their page tables show. */
  readonly entries: ReadonlyMap<string, 'present' | 'poison'>;
  /** Known to be poisoned by the kernel that uses it. */
  readonly isPoisoned: boolean;
  readonly oneToOne: McOneToOne;
  /** It was freed while it was poisoned, so that no free list has it, whatever becomes of the poison. */
  readonly isLost: boolean;
}

export type McSeverity = 'corrected' | 'no-action' | 'optional' | 'required';

/** What a bank of machine-check registers reports. */
export interface McBank {
  readonly severity: McSeverity;
  readonly gfn: string;
  /** Reports before this one were lost. */
  readonly isOverflown: boolean;
  /** The VMM says that it has unmapped the page. */
  readonly saysUnmapped: boolean;
}

/** What the CPU was doing: in user mode, or in the kernel, with a fixup for machine checks or without. */
export type McContext = 'user' | 'kernel' | 'copyin' | 'copy';

export type McHow = 'load' | 'store' | 'fetch' | 'flush' | 'walk' | 'copyin' | 'copy' | 'zero' | 'isolate';

/** The touch that a CPU is out of the guest for, or in its handler. */
export interface McTouch {
  readonly gfn: string;
  readonly context: McContext;
  /** Undefined where somebody made the machine check up. */
  readonly how?: McHow | undefined;
}

/** What is left to do about a page. */
export interface McWork {
  readonly gfn: string;
  readonly step: 'recover' | 'isolate';
  /** kill_me_maybe(): action is required of the task; kill_me_never(): the kernel copied on behalf of it, or nobody consumed. */
  readonly kills: 'maybe' | 'never';
  /** Machine checks since the work was begun. */
  readonly checks: number;
  readonly saysUnmapped: boolean;
}

export type McStage = 'runs' | 'host-work' | 'vmm' | 'machine-check';

export interface McCpu {
  readonly stage: McStage;
  /** Undefined while it runs. */
  readonly touch: McTouch | undefined;
  readonly banks: readonly (McBank | undefined)[];
  /** IA32_MCG_CTL, and IA32_MCi_CTL of each bank, are all ones. */
  readonly isGloballyEnabled: boolean;
  readonly isBankEnabled: readonly boolean[];
  /** CR4.MCE */
  readonly takesExceptions: boolean;
  /** MCG_STATUS */
  readonly inProgress: boolean;
  readonly hasErrorIp: boolean;
  readonly work: McWork | undefined;
}

export interface McGuest {
  readonly memory: 'ordinary' | 'gmem';
  readonly state: 'running' | 'panicked' | 'triple-fault' | 'killed';
  /** By guest frame; undefined where it is unplugged. */
  readonly pages: readonly (McPage | undefined)[];
  readonly cpus: readonly McCpu[];
  readonly alive: readonly boolean[];
  readonly worker: readonly McWork[];
  /** Guest frames of the early signals that the main thread of the VMM has not answered. */
  readonly told: readonly string[];
  readonly isDisturbed: boolean;
  /** How often it was rebooted; and how often with what the host took being replaced. */
  readonly reboots: number;
  readonly replaced: number;
  /** Its kernel had a memory failure of the hardware since it booted. */
  readonly hadFailure: boolean;
}

/** A touch of a page that is taken; on bare metal, of a bad line that is consumed. */
export interface TouchEvent {
  readonly vm: Label;
  readonly gfn: number;
  readonly line: number;
  readonly by: 'task' | 'kernel' | 'device';
  readonly how: McHow;
  readonly comesTo: 'machine-check' | 'value' | 'fault' | 'skipped';
}

/** A page was isolated, or that was tried. */
export interface IsolationEvent {
  readonly vm: Label;
  readonly gfn: number;
  /** Lines of it that were touched. */
  readonly touched: number;
}

/** A task of a guest came to its end, or, where `task` is undefined, the guest. */
export interface EndingEvent {
  readonly vm: Label;
  readonly task?: number | undefined;
  readonly by: 'signal' | 'oops' | 'panic' | 'triple-fault' | 'vmm';
  /** The guest frame that was consumed. */
  readonly of?: number | undefined;
  readonly how?: McHow | undefined;
}

export interface McMachine {
  readonly guests: ReadonlyMap<Label, McGuest>;
  /** Frames that the host knows to be poisoned, and those that its direct map does not show. */
  readonly poisonedFrames: readonly number[];
  readonly absentFrames: readonly number[];
  /** The host had a memory failure of the hardware since it booted. */
  readonly hadFailure: boolean;
  /** Frames below this number have been used. */
  readonly nextFrame: number;
  /** What happened in the last command that changed anything. */
  readonly touches: readonly TouchEvent[];
  readonly isolations: readonly IsolationEvent[];
  readonly endings: readonly EndingEvent[];
}

/** A host that was just started. */
export const FRESH_MC_MACHINE: McMachine = {
  guests: new Map(),
  poisonedFrames: [],
  absentFrames: [],
  hadFailure: false,
  nextFrame: 0,
  touches: [],
  isolations: [],
  endings: [],
};
