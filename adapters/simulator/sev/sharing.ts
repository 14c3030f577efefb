/** One context for several VMs, and a context that moves. Source: arch/x86/kvm/svm/sev.c. */
import type { Errno } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import type { Kvm } from '../objects.ts';
import { Regions } from './regions.ts';
import { walked } from './svm.ts';

export abstract class Sharing extends Regions {
  /** sev_vm_copy_enc_context_from() */
  sevVmCopyEncContextFrom(kvm: Kvm, from: Label): Errno | undefined {
    return this.withSource(kvm, from, (source) => {
      if (!this.mayCopy(kvm, source)) return 'EINVAL';
      this.lock(this.sevMirrorLock);
      this.mirror(kvm, source);
      this.unlock(this.sevMirrorLock);
      this.copyContext(kvm, source);
      return undefined;
    });
  }

  /** sev_vm_move_enc_context_from() */
  sevVmMoveEncContextFrom(kvm: Kvm, from: Label): Errno | undefined {
    return this.withSource(kvm, from, (source) => {
      if (!this.mayMove(kvm, source)) return 'EINVAL';
      this.kvmLockAllVcpus(kvm);
      this.kvmLockAllVcpus(source);
      const isMoved = this.sevCheckSourceVcpus(kvm, source);
      if (isMoved) {
        this.sevMigrateFrom(kvm, source);
        this.toKvmSevInfo(source).vmDead = true;
      }
      this.kvmUnlockAllVcpus(source);
      this.kvmUnlockAllVcpus(kvm);
      return isMoved ? undefined : 'EINVAL';
    });
  }

  /** file_is_kvm(), and both VMs locked meanwhile. */
  private withSource(kvm: Kvm, from: Label, run: (source: Kvm) => Errno | undefined): Errno | undefined {
    const file = this.fget(from);
    if (file === undefined) return 'EBADF';
    const source = file.kind === 'vm' ? this.kvms.at(file.kvm) : undefined;
    let error = source === undefined ? 'EBADF' : this.sevLockTwoVms(kvm, source);
    if (error === undefined && source !== undefined) {
      error = run(source);
      this.sevUnlockTwoVms(kvm, source);
    }
    this.fput(file);
    return error;
  }

  /** sev_lock_two_vms() */
  sevLockTwoVms(dst: Kvm, src: Kvm): Errno | undefined {
    const [dstSev, srcSev] = [this.toKvmSevInfo(dst), this.toKvmSevInfo(src)];
    if (dst === src) return 'EINVAL';
    if (dstSev.migrationInProgress || srcSev.migrationInProgress) return 'EBUSY';
    dstSev.migrationInProgress = true;
    srcSev.migrationInProgress = true;
    this.lock(dst.lock);
    this.lock(src.lock);
    return undefined;
  }

  /** sev_unlock_two_vms() */
  sevUnlockTwoVms(dst: Kvm, src: Kvm): void {
    this.unlock(dst.lock);
    this.unlock(src.lock);
    this.toKvmSevInfo(dst).migrationInProgress = false;
    this.toKvmSevInfo(src).migrationInProgress = false;
  }

  /** A mirror is not mirrored, and has no vCPUs before. */
  mayCopy(kvm: Kvm, source: Kvm): boolean {
    if (this.sevGuest(kvm) || !this.isShareable(source)) return false;
    return !this.isMirroringEncContext(source) && kvm.vcpus.size === 0;
  }

  mayMove(kvm: Kvm, source: Kvm): boolean {
    return kvm.type === source.type && !this.sevGuest(kvm) && this.isShareable(source);
  }

  /** The state of an SNP guest is more than what is copied or moved. */
  isShareable(source: Kvm): boolean {
    return this.sevGuest(source) && !this.sevSnpGuest(source);
  }

  /** The middle of sev_vm_copy_enc_context_from(), under sev_mirror_lock: the mirror refers to its owner. */
  mirror(kvm: Kvm, owner: Kvm): void {
    this.kvmGetKvm(owner);
    walked(this.toKvmSevInfo(owner).mirrorVms).push(kvm.address);
    this.setOwner(kvm, owner);
  }

  protected setOwner(kvm: Kvm, owner: Kvm): void {
    Object.assign(this.toKvmSevInfo(kvm), { encContextOwner: owner.address, ownerBirth: owner.label });
  }

  /** The end of sev_vm_copy_enc_context_from() */
  copyContext(kvm: Kvm, source: Kvm): void {
    const { asid, fd, esActive, handle } = this.toKvmSevInfo(source);
    Object.assign(this.toKvmSevInfo(kvm), { active: true, asid, fd, esActive, handle, needInit: false });
    this.initListHeads(kvm);
  }

  initListHeads(kvm: Kvm): void {
    Object.assign(this.toKvmSevInfo(kvm), { regionsList: [], mirrorVms: [] });
  }

  /** sev_check_source_vcpus() */
  sevCheckSourceVcpus(dst: Kvm, src: Kvm): boolean {
    if (!this.sevEsGuest(src)) return true;
    const vcpus = [...src.vcpus.values()];
    return vcpus.length === dst.vcpus.size && vcpus.every((vcpu) => this.toSvm(vcpu).guestStateProtected);
  }

  /** sev_migrate_from(). The descriptor of /dev/sev and `need_init` are not among what moves. */
  sevMigrateFrom(dst: Kvm, src: Kvm): void {
    // Once it is no SEV guest any more, nobody does so when its memory is taken.
    this.sevWritebackCaches(src);
    const [to, from] = [this.toKvmSevInfo(dst), this.toKvmSevInfo(src)];
    const { asid, handle, pagesLocked, esActive, vmsaFeatures } = from;
    Object.assign(to, { active: true, asid, handle, pagesLocked, esActive, vmsaFeatures });
    Object.assign(from, { active: false, asid: 0, handle: 0, pagesLocked: 0, esActive: false });
    to.regionsList = walked(from.regionsList).splice(0);
    this.lock(this.sevMirrorLock);
    this.moveMirrors(dst, src);
    if (this.isMirroringEncContext(src)) this.moveMirrorStatus(dst, src);
    this.unlock(this.sevMirrorLock);
    if (esActive) this.moveVcpus(dst, src);
  }

  /** Each mirror's reference to the source becomes one to the destination. */
  moveMirrors(dst: Kvm, src: Kvm): void {
    const mirrors = walked(this.toKvmSevInfo(src).mirrorVms).splice(0);
    this.toKvmSevInfo(dst).mirrorVms = mirrors;
    for (const address of mirrors) {
      this.kvmGetKvm(dst);
      this.kvmPutKvm(src);
      this.setOwner(this.kvms.at(address), dst);
    }
  }

  /** The reference to the owner goes with it. */
  moveMirrorStatus(dst: Kvm, src: Kvm): void {
    const [to, from] = [this.toKvmSevInfo(dst), this.toKvmSevInfo(src)];
    const { encContextOwner, ownerBirth } = from;
    Object.assign(to, { encContextOwner, ownerBirth });
    this.leaveOwner(src);
    if (encContextOwner !== undefined)
      walked(this.toKvmSevInfo(this.kvms.at(encContextOwner)).mirrorVms).push(dst.address);
  }

  /** list_del() of mirror_entry */
  protected leaveOwner(mirror: Kvm): void {
    const sev = this.toKvmSevInfo(mirror);
    if (sev.encContextOwner === undefined) return;
    const list = walked(this.toKvmSevInfo(this.kvms.at(sev.encContextOwner)).mirrorVms);
    list.splice(list.indexOf(mirror.address), 1);
    sev.encContextOwner = undefined;
    sev.ownerBirth = undefined;
  }

  /** VMSA and GHCB of SEV-ES, by index. */
  private moveVcpus(dst: Kvm, src: Kvm): void {
    const sources = [...src.vcpus.values()];
    [...dst.vcpus.values()].forEach((vcpu, index) => {
      const source = sources[index];
      if (source === undefined) return;
      const { hasVmsa } = this.toSvm(source);
      Object.assign(this.toSvm(vcpu), { hasVmsa, guestStateProtected: true });
      Object.assign(this.toSvm(source), { hasVmsa: false, guestStateProtected: false });
    });
  }
}
