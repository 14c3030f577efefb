/** The launch of an SNP guest, as far as its key and its save areas go. Source: arch/x86/kvm/svm/sev.c. */
import type { Errno } from '../../../model/core/outcome.ts';
import type { Kvm } from '../objects.ts';
import { Launch } from './launch.ts';
import type { SevFd, SevInfo } from './objects.ts';

/** snp_supported_policy_bits, and SNP_POLICY_MASK_RSVD_MBO */
const POLICY_BITS = (1n << 25n) - 1n;
const POLICY_MUST_BE_ONE = 1n << 17n;

export abstract class Snp extends Launch {
  /** snp_launch_start() */
  snpLaunchStart(kvm: Kvm, fd: SevFd, flags: bigint, policy: bigint): Errno | undefined {
    const sev = this.toKvmSevInfo(kvm);
    if (!this.sevSnpGuest(kvm)) return 'ENOTTY';
    if (sev.snpContext !== undefined || flags !== 0n) return 'EINVAL';
    if ((policy & ~POLICY_BITS) !== 0n || (policy & POLICY_MUST_BE_ONE) === 0n) return 'EINVAL';
    const context = this.sevIssueCmd({ fd }, () => this.firmware.snpGctxCreate());
    // snp_context_create() does not say why there is none.
    if (typeof context === 'string') return 'ENOTTY';
    sev.snpContext = context;
    const error = this.snpLaunch(sev, fd, context);
    if (error !== undefined) this.snpDecommissionContext(sev);
    return error;
  }

  /** The end of snp_launch_start(), snp_bind_asid() */
  private snpLaunch(sev: SevInfo, fd: SevFd, context: number): Errno | undefined {
    const error = this.sevIssueCmd({ fd }, () => this.firmware.snpLaunchStart(context));
    if (error !== undefined) return error;
    sev.fd = fd;
    return this.sevIssueCmd(sev, () => this.firmware.activate(context, sev.asid));
  }

  /** snp_launch_finish(), with a descriptor of /dev/sev */
  snpLaunchFinish(kvm: Kvm, flags: bigint): Errno | undefined {
    if (!this.sevSnpGuest(kvm)) return 'ENOTTY';
    const sev = this.toKvmSevInfo(kvm);
    const { snpContext } = sev;
    if (snpContext === undefined || flags !== 0n) return 'EINVAL';
    return (
      this.snpLaunchUpdateVmsa(kvm, snpContext) ??
      this.sevIssueCmd(sev, () => this.firmware.snpLaunchFinish(snpContext))
    );
  }

  /** snp_launch_update_vmsa() */
  snpLaunchUpdateVmsa(kvm: Kvm, context: number): Errno | undefined {
    this.kvmLockAllVcpus(kvm);
    const error = this.encryptVmsas(kvm, context);
    this.kvmUnlockAllVcpus(kvm);
    return error;
  }

  protected encryptVmsas(kvm: Kvm, context: number): Errno | undefined {
    for (const vcpu of kvm.vcpus.values()) {
      const error = this.encryptVmsa(kvm, vcpu, '/dev/sev', context);
      if (error !== undefined) return error;
    }
    return undefined;
  }

  /** snp_decommission_context() */
  snpDecommissionContext(sev: SevInfo): Errno | undefined {
    if (sev.snpContext === undefined) return undefined;
    const error = this.firmware.decommission(sev.snpContext);
    if (error === undefined) sev.snpContext = undefined;
    return error;
  }
}
