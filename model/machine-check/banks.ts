/** Machine-check banks: what KVM writes to those of a vCPU, and what the guest's handler makes of them. */
import type { McBank, McContext, McCpu, McSeverity } from '../core/machine-check.ts';

/** What KVM_X86_SET_MCE comes to. */
export type Injection = 'ignored' | 'triple-fault' | 'logged' | 'raised';

const isUncorrected = (severity: McSeverity | undefined): boolean => severity !== undefined && severity !== 'corrected';
const raises = (severity: McSeverity): boolean => severity === 'optional' || severity === 'required';

/** The order of kvm_vcpu_ioctl_x86_set_mce(). */
export function injectionOf(cpu: McCpu, bank: number, severity: McSeverity): Injection {
  if (!raises(severity)) return 'logged';
  if (!cpu.isGloballyEnabled || cpu.isBankEnabled[bank] !== true) return 'ignored';
  return cpu.inProgress || !cpu.takesExceptions ? 'triple-fault' : 'raised';
}

type Report = Omit<McBank, 'isOverflown'>;

/** The CPU with the report in its bank. */
export function reported(cpu: McCpu, bank: number, report: Report): McCpu {
  const before = cpu.banks[bank];
  const fill = (now: McBank): Pick<McCpu, 'banks'> => ({
    banks: cpu.banks.map((each, at) => (at === bank ? now : each)),
  });
  if (report.severity === 'no-action')
    return { ...cpu, ...fill({ ...report, isOverflown: false }), inProgress: false, hasErrorIp: false };
  if (report.severity === 'corrected')
    return {
      ...cpu,
      ...fill(
        before !== undefined && isUncorrected(before.severity)
          ? { ...before, isOverflown: true }
          : { ...report, isOverflown: before !== undefined },
      ),
    };
  return {
    ...cpu,
    ...fill({ ...report, isOverflown: before !== undefined }),
    ...{ inProgress: true, hasErrorIp: report.severity === 'required' },
  };
}

export type Panic = 'not-in-progress' | 'lost-events' | 'in-kernel';
type Grade = Panic | 'keep' | 'optional' | 'required';

/** The order of mce_severity_intel(). */
function gradeOf(bank: McBank, cpu: McCpu, context: McContext): Grade {
  if (!cpu.inProgress) return 'not-in-progress';
  if (bank.severity === 'optional') return 'optional';
  if (bank.severity !== 'required') return 'keep';
  if (bank.isOverflown) return 'lost-events';
  if (!cpu.hasErrorIp) return 'keep';
  return context === 'kernel' ? 'in-kernel' : 'required';
}

export interface Scan {
  readonly panic: Panic | undefined;
  /** Reports that need no action at once, in order of banks. */
  readonly optional: readonly McBank[];
  /** The first report that requires one. */
  readonly required: McBank | undefined;
  readonly banks: McCpu['banks'];
}

/** What do_machine_check() finds; what it leaves in the banks is for those who poll them. */
export function scanned(cpu: McCpu, context: McContext): Scan {
  const graded = cpu.banks.flatMap((bank) =>
    bank === undefined ? [] : [{ bank, grade: gradeOf(bank, cpu, context) }],
  );
  const found = (wanted: Grade): readonly McBank[] =>
    graded.filter(({ grade }) => grade === wanted).map(({ bank }) => bank);
  const panics: readonly Panic[] = ['not-in-progress', 'lost-events', 'in-kernel'];
  return {
    panic: panics.find((each) => found(each).length > 0),
    optional: found('optional'),
    required: found('required')[0],
    banks: cpu.banks.map((bank) => (bank !== undefined && gradeOf(bank, cpu, context) === 'keep' ? bank : undefined)),
  };
}
