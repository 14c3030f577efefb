/** What KVM does with a machine check that the VMM makes up. Source: arch/x86/kvm/x86.c. */
import { MCG, MCI, type Bank, type McaRegisters, type Report } from './mca.ts';

/** What came of KVM_X86_SET_MCE. */
export type SetMce = 'exception' | 'recorded' | 'ignored' | 'triple-fault' | 'EINVAL';

const isUcna = ({ status, mcgStatus }: Report): boolean =>
  mcgStatus === 0n && (status & (MCI.PCC | MCI.S | MCI.AR)) === 0n && (status & MCI.UC) !== 0n;

export class KvmMce {
  /** kvm_vcpu_ioctl_x86_set_mce() */
  setMce(mca: McaRegisters, number: number, report: Report): SetMce {
    const bank = mca.banks[number];
    if (bank === undefined || (report.status & MCI.VAL) === 0n) return 'EINVAL';
    if (isUcna(report)) {
      mca.write(bank, report);
      mca.mcgStatus = report.mcgStatus;
      return 'recorded';
    }
    const overflown = (bank.status & MCI.VAL) === 0n ? 0n : MCI.OVER;
    if ((report.status & MCI.UC) !== 0n) {
      if (!this.isEnabled(mca, bank)) return 'ignored';
      if (this.isMcip(mca) || !mca.cr4Mce) return 'triple-fault';
      mca.write(bank, { ...report, status: report.status | overflown });
      mca.mcgStatus = report.mcgStatus;
      return 'exception';
    }
    if ((bank.status & MCI.UC) === 0n || overflown === 0n) {
      mca.write(bank, { ...report, status: report.status | overflown });
    } else bank.status |= MCI.OVER;
    return 'recorded';
  }

  /** Whether IA32_MCG_CTL and IA32_MCi_CTL let uncorrected errors be reported. */
  isEnabled({ mcgCtl }: McaRegisters, { ctl }: Bank): boolean {
    return mcgCtl && ctl;
  }

  isMcip({ mcgStatus }: McaRegisters): boolean {
    return (mcgStatus & MCG.MCIP) !== 0n;
  }
}
