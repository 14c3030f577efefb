/**
 * Machine-check registers of a CPU, and how bad what they report is. Source: arch/x86/include/asm/mce.h,
 * arch/x86/kernel/cpu/mce/severity.c; Intel SDM volume 3B, chapter 16.
 */
import type { McSeverity } from '../../../model/core/machine-check.ts';

const bit = (n: bigint): bigint => 1n << n;

/** IA32_MCi_STATUS */
export const MCI = {
  VAL: bit(63n),
  OVER: bit(62n),
  UC: bit(61n),
  EN: bit(60n),
  MISCV: bit(59n),
  ADDRV: bit(58n),
  PCC: bit(57n),
  S: bit(56n),
  AR: bit(55n),
} as const;
/** IA32_MCG_STATUS */
export const MCG = { RIPV: bit(0n), EIPV: bit(1n), MCIP: bit(2n), LMCES: bit(3n) } as const;
/** The lower half of IA32_MCi_STATUS. */
const MCACOD = { MASK: 0xefffn, DATA: 0x134n, INSTR: 0x150n, SCRUB: 0xc0n, SCRUB_MASK: 0xeff0n } as const;

/** IA32_MCi_MISC of a whole page at a physical address; and the bit of the proposal: whoever reports it has unmapped it. */
export const MISC = { PAGE: (2n << 6n) | 12n, UNMAPPED: bit(63n) } as const;

export interface Bank {
  /** Whether IA32_MCi_CTL is all ones. */
  ctl: boolean;
  status: bigint;
  addr: bigint;
  misc: bigint;
}

/** What is written to a bank, and to IA32_MCG_STATUS. */
export interface Report {
  readonly status: bigint;
  readonly addr: bigint;
  readonly misc: bigint;
  readonly mcgStatus: bigint;
}

export class McaRegisters {
  /** Whether IA32_MCG_CTL is all ones. */
  mcgCtl = true;
  cr4Mce = true;
  mcgStatus = 0n;
  readonly banks: readonly Bank[] = [0, 1].map(() => ({ ctl: true, status: 0n, addr: 0n, misc: 0n }));

  write(bank: Bank, { status, addr, misc }: Report): void {
    bank.status = status;
    bank.addr = addr;
    bank.misc = misc;
  }
}

const REPORTED = MCI.VAL | MCI.EN | MCI.MISCV | MCI.ADDRV;
const UC_S = MCI.UC | MCI.S;
const UC_SAR = UC_S | MCI.AR;

const STATUS: Readonly<Record<McSeverity, bigint>> = {
  corrected: REPORTED,
  'no-action': REPORTED | MCI.UC,
  optional: REPORTED | UC_S | MCACOD.SCRUB,
  required: REPORTED | UC_SAR | MCACOD.DATA,
};

const MCG_STATUS: Readonly<Record<McSeverity, bigint>> = {
  corrected: 0n,
  'no-action': 0n,
  optional: MCG.MCIP | MCG.RIPV | MCG.LMCES,
  required: MCG.MCIP | MCG.RIPV | MCG.LMCES | MCG.EIPV,
};

/** A report of a memory error in a page. */
export const reportOf = (severity: McSeverity, pfn: number, misc = MISC.PAGE): Report => ({
  status: STATUS[severity],
  addr: BigInt(pfn) << 12n,
  misc,
  mcgStatus: MCG_STATUS[severity],
});

/** The same for an instruction fetch. */
export const ofFetch = (report: Report): Report => ({
  ...report,
  status: (report.status & ~MCACOD.MASK) | MCACOD.INSTR,
});

export type Context = 'user' | 'kernel' | 'kernel-recov';
export type Grade = 'NO' | 'UCNA' | 'KEEP' | 'SOME' | 'AO' | 'UC' | 'AR' | 'PANIC';

/** enum severity_level, in order. */
const GRADES: readonly Grade[] = ['NO', 'UCNA', 'KEEP', 'SOME', 'AO', 'UC', 'AR', 'PANIC'];
export const isWorse = (grade: Grade, than: Grade): boolean => GRADES.indexOf(grade) > GRADES.indexOf(than);

interface Row {
  readonly grade: Grade;
  /** Bits of the bank's status, and what they are to be. */
  readonly status?: readonly [mask: bigint, result: bigint];
  readonly mcg?: readonly [mask: bigint, result: bigint];
  readonly context?: Context;
}

const set = (mask: bigint): readonly [bigint, bigint] => [mask, mask];
const clear = (mask: bigint): readonly [bigint, bigint] => [mask, 0n];
const ACTION = MCI.OVER | UC_SAR;
const LOCATED = ACTION | MCI.ADDRV | MCI.MISCV;
const SAR_AT = UC_SAR | MCI.ADDRV | MCI.MISCV;

/** severities[], for exceptions of a CPU with MCG_SER_P. */
const SEVERITIES: readonly Row[] = [
  { grade: 'NO', status: clear(MCI.VAL) },
  { grade: 'NO', status: clear(MCI.EN) },
  { grade: 'PANIC', status: set(MCI.PCC) },
  { grade: 'PANIC', mcg: clear(MCG.MCIP) },
  { grade: 'PANIC', mcg: clear(MCG.RIPV | MCG.EIPV) },
  { grade: 'PANIC', context: 'kernel', mcg: clear(MCG.RIPV) },
  { grade: 'PANIC', context: 'kernel-recov', mcg: clear(MCG.RIPV) },
  { grade: 'AO', status: [MCI.UC | MCI.AR | MCACOD.SCRUB_MASK, MCI.UC | MCACOD.SCRUB] },
  { grade: 'UCNA', status: [UC_SAR, MCI.UC] },
  { grade: 'PANIC', status: [ACTION, MCI.UC | MCI.AR] },
  { grade: 'KEEP', status: clear(MCI.S) },
  { grade: 'PANIC', status: set(ACTION) },
  { grade: 'KEEP', status: [LOCATED, SAR_AT], mcg: [MCG.RIPV | MCG.EIPV, MCG.RIPV] },
  { grade: 'AR', status: [LOCATED | MCACOD.MASK, SAR_AT | MCACOD.DATA], context: 'kernel-recov' },
  { grade: 'AR', status: [LOCATED | MCACOD.MASK, SAR_AT | MCACOD.DATA], context: 'user' },
  { grade: 'AR', status: [LOCATED | MCACOD.MASK, SAR_AT | MCACOD.INSTR], context: 'user' },
  { grade: 'PANIC', status: [LOCATED | MCACOD.MASK, SAR_AT | MCACOD.DATA], context: 'kernel' },
  { grade: 'PANIC', status: [LOCATED | MCACOD.MASK, SAR_AT | MCACOD.INSTR], context: 'kernel' },
  { grade: 'PANIC', status: [ACTION, UC_SAR] },
  { grade: 'SOME', status: [ACTION, UC_S] },
  { grade: 'SOME', status: [ACTION, MCI.OVER | UC_S] },
  { grade: 'PANIC', status: set(MCI.OVER | MCI.UC) },
  { grade: 'PANIC', status: set(MCI.UC), context: 'kernel' },
  { grade: 'UC', status: set(MCI.UC) },
  { grade: 'SOME' },
];

const holds = (value: bigint, [mask, result]: readonly [bigint, bigint] = [0n, 0n]): boolean =>
  (value & mask) === result;

/** mce_severity_intel(): the first row that matches. */
export function mceSeverity(status: bigint, mcgStatus: bigint, context: Context): Grade {
  const row = SEVERITIES.find(
    (each) =>
      holds(status, each.status) &&
      holds(mcgStatus, each.mcg) &&
      (each.context === undefined || each.context === context),
  );
  return row?.grade ?? 'SOME';
}
