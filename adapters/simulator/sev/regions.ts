/** Memory that the VMM has registered as the guest's. Source: arch/x86/kvm/svm/sev.c. */
import type { Errno } from '../../../model/core/outcome.ts';
import type { Kvm } from '../objects.ts';
import type { EncRegion } from './objects.ts';
import { Snp } from './snp.ts';
import { walked } from './svm.ts';

export abstract class Regions extends Snp {
  /** sev_mem_enc_register_region() */
  sevMemEncRegisterRegion(kvm: Kvm, uaddr: bigint, size: bigint): Errno | undefined {
    this.lock(kvm.lock);
    const error = this.registerRegion(kvm, uaddr, size);
    this.unlock(kvm.lock);
    return error;
  }

  protected registerRegion(kvm: Kvm, uaddr: bigint, size: bigint): Errno | undefined {
    if (!this.sevGuest(kvm)) return 'ENOTTY';
    if (this.refusesRegions(kvm)) return 'EINVAL';
    const frames = this.sevPinMemory(kvm, uaddr, size);
    if (typeof frames === 'string') return frames;
    walked(this.toKvmSevInfo(kvm).regionsList).push({ uaddr, size, frames });
    return undefined;
  }

  /** Whoever mirrors a context is not responsible for it. */
  refusesRegions(kvm: Kvm): boolean {
    return this.isMirroringEncContext(kvm);
  }

  /** sev_mem_enc_unregister_region(), which looks for a mirror before it takes the lock. */
  sevMemEncUnregisterRegion(kvm: Kvm, uaddr: bigint, size: bigint): Errno | undefined {
    if (this.refusesRegions(kvm)) return 'EINVAL';
    this.lock(kvm.lock);
    const error = this.unregisterRegion(kvm, uaddr, size);
    this.unlock(kvm.lock);
    return error;
  }

  private unregisterRegion(kvm: Kvm, uaddr: bigint, size: bigint): Errno | undefined {
    if (!this.sevGuest(kvm)) return 'ENOTTY';
    const region = this.findEncRegion(kvm, uaddr, size);
    if (region === undefined) return 'EINVAL';
    this.sevWritebackCaches(kvm);
    this.unregisterEncRegionLocked(kvm, region);
    return undefined;
  }

  /** find_enc_region() */
  findEncRegion(kvm: Kvm, uaddr: bigint, size: bigint): EncRegion | undefined {
    return walked(this.toKvmSevInfo(kvm).regionsList).find((each) => each.uaddr === uaddr && each.size === size);
  }

  /** __unregister_enc_region_locked() */
  unregisterEncRegionLocked(kvm: Kvm, region: EncRegion): void {
    this.sevUnpinMemory(kvm, region.frames);
    const list = walked(this.toKvmSevInfo(kvm).regionsList);
    list.splice(list.indexOf(region), 1);
  }
}
