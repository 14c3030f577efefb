/**
 * Hosts of guests with SEV, with one mistake each: bugs that really happened (CVE-2026-72286), and others of
 * their kind.
 */
import type { Errno } from '../../model/core/outcome.ts';
import { SevHost } from '../simulator/index.ts';
import type { GmemFile, Kvm, Vcpu } from '../simulator/objects.ts';
import type { Fault } from './fault.ts';

const LINUX = 'sev-linux-7.3';
const LINK = 'sev-gmem-link';

type Parameter<Method extends (...args: never) => unknown, At extends number> = Parameters<Method>[At];

const mirrors: readonly Fault[] = [
  {
    id: 'snp-context-copied',
    shortest: 4,
    profile: LINUX,
    fault: 'makes a mirror of an SNP guest, although that has state which is not copied (CVE-2026-72286)',
    machine: class extends SevHost {
      override mayCopy(kvm: Kvm, source: Kvm): boolean {
        if (this.sevGuest(kvm) || !this.sevGuest(source)) return false;
        return !this.isMirroringEncContext(source) && kvm.vcpus.size === 0;
      }
    },
  },
  {
    id: 'owner-gone-before-mirror',
    shortest: 5,
    profile: LINUX,
    fault: 'takes no reference to the VM that is mirrored, which is destroyed while mirrors remain',
    machine: class extends SevHost {
      override mirror(kvm: Kvm, owner: Kvm): void {
        super.mirror(kvm, owner);
        owner.usersCount--;
      }
      override mirrorDestroy(kvm: Kvm): void {
        this.leaveOwner(kvm);
      }
    },
  },
  {
    id: 'mirror-reference-not-moved',
    shortest: 7,
    profile: LINUX,
    fault: 'drops the reference to a source that has moved, and takes none to where its mirrors are now',
    machine: class extends SevHost {
      override moveMirrors(dst: Kvm, src: Kvm): void {
        super.moveMirrors(dst, src);
        dst.usersCount -= this.toKvmSevInfo(dst).mirrorVms?.length ?? 0;
      }
    },
  },
  {
    id: 'mirrors-left-with-source',
    shortest: 6,
    profile: LINUX,
    fault: 'moves a context and leaves the mirrors of it with the dead source',
    machine: class extends SevHost {
      override moveMirrors(dst: Kvm): void {
        this.toKvmSevInfo(dst).mirrorVms = [];
      }
    },
  },
  {
    id: 'mirror-lists-not-initialised',
    shortest: 6,
    profile: LINUX,
    fault: 'leaves the lists of a mirror uninitialised, which a move of the mirror then walks',
    machine: class extends SevHost {
      override initListHeads(): void {
        // Zeroes, as they were allocated.
      }
    },
  },
  {
    id: 'mirror-status-not-moved',
    shortest: 6,
    profile: LINUX,
    fault: 'takes for an owner what a mirror has moved to',
    machine: class extends SevHost {
      override moveMirrorStatus(): void {
        // The source stays a mirror, and the destination is none.
      }
    },
  },
  {
    id: 'mirror-stays-on-list',
    shortest: 7,
    profile: LINUX,
    fault:
      'leaves the address of a mirror on its owner’s list, where the next struct kvm at that address is taken for it',
    machine: class extends SevHost {
      override mirrorDestroy(kvm: Kvm, owner: number): void {
        const list = this.toKvmSevInfo(this.kvms.at(owner)).mirrorVms;
        super.mirrorDestroy(kvm, owner);
        if (list !== undefined) list.push(kvm.address);
      }
    },
  },
  {
    id: 'mirror-launches',
    shortest: 5,
    profile: LINUX,
    fault: 'lets a mirror go on with the launch of its owner',
    machine: class extends SevHost {
      override isCmdAllowedFromMirror(): boolean {
        return true;
      }
    },
  },
  {
    id: 'mirror-registers-region',
    shortest: 5,
    profile: LINUX,
    fault: 'registers regions for a mirror, which never lets go of them',
    machine: class extends SevHost {
      override refusesRegions(): boolean {
        return false;
      }
    },
  },
  {
    id: 'mirror-frees-asid',
    shortest: 5,
    profile: LINUX,
    fault: 'gives the ASID back when a mirror is destroyed',
    machine: class extends SevHost {
      override mirrorDestroy(kvm: Kvm, owner: number): void {
        this.sevAsidFree(this.toKvmSevInfo(kvm).asid);
        super.mirrorDestroy(kvm, owner);
      }
    },
  },
];

const moves: readonly Fault[] = [
  {
    id: 'source-lives-on',
    shortest: 5,
    profile: LINUX,
    fault: 'does not end a VM whose context has moved away',
    machine: class extends SevHost {
      override sevVmMoveEncContextFrom(kvm: Kvm, from: string): Errno | undefined {
        const error = super.sevVmMoveEncContextFrom(kvm, from);
        for (const each of this.vmList) this.toKvmSevInfo(each).vmDead = false;
        return error;
      }
    },
  },
  {
    id: 'regions-left-with-source',
    shortest: 6,
    profile: LINUX,
    fault: 'moves a context and not the regions that were registered for it',
    machine: class extends SevHost {
      override sevMigrateFrom(dst: Kvm, src: Kvm): void {
        super.sevMigrateFrom(dst, src);
        const [to, from] = [this.toKvmSevInfo(dst), this.toKvmSevInfo(src)];
        from.regionsList = to.regionsList;
        to.regionsList = [];
      }
    },
  },
  {
    id: 'move-with-vcpu-missing',
    shortest: 5,
    profile: LINUX,
    fault: 'moves SEV-ES to a VM with another number of vCPUs, and loses the state of those that have no counterpart',
    machine: class extends SevHost {
      override sevCheckSourceVcpus(_dst: Kvm, src: Kvm): boolean {
        return [...src.vcpus.values()].every((vcpu) => this.toSvm(vcpu).guestStateProtected);
      }
    },
  },
];

const asids: readonly Fault[] = [
  {
    id: 'asid-not-flushed',
    shortest: 8,
    profile: LINUX,
    fault: 'gives an ASID to the next guest without a flush',
    machine: class extends SevHost {
      override sevFlushAsids(): undefined {
        return undefined;
      }
    },
  },
  {
    id: 'caches-not-written-back',
    shortest: 11,
    profile: LINUX,
    fault: 'flushes the data fabric and leaves lines of the last guest in caches',
    machine: class extends SevHost {
      override wbinvdOnAllCpus(): void {
        // The caches keep what they have.
      }
    },
  },
  {
    id: 'fabric-not-flushed',
    shortest: 11,
    profile: LINUX,
    fault: 'writes caches back and leaves lines of the last guest on their way to memory',
    machine: class extends SevHost {
      override sevGuestDfFlush(): Errno | undefined {
        return this.firmware.dfFlush();
      }
    },
  },
  {
    id: 'asid-of-wrong-range',
    shortest: 6,
    profile: LINUX,
    fault: 'gives SEV-ES guests ASIDs of the range that is plain SEV’s',
    machine: class extends SevHost {
      override asidRange(): ReturnType<SevHost['asidRange']> {
        return super.asidRange(false);
      }
    },
  },
  {
    id: 'asid-not-taken',
    shortest: 2,
    profile: LINUX,
    fault: 'gives an ASID away and forgets to mark it',
    machine: class extends SevHost {
      override sevAllocAsid(range: Parameter<SevHost['sevAllocAsid'], 0>): number | undefined {
        const asid = super.sevAllocAsid(range);
        if (asid !== undefined) this.asidBitmap.delete(asid);
        return asid;
      }
    },
  },
  {
    id: 'leaked-asid-given-back',
    shortest: 9,
    profile: LINUX,
    fault: 'gives an ASID back although its SNP context could not be let go',
    machine: class extends SevHost {
      override ownerDestroy(kvm: Kvm): void {
        super.ownerDestroy(kvm);
        this.sevAsidFree(this.toKvmSevInfo(kvm).asid);
      }
    },
  },
  {
    id: 'asid-not-given-back',
    shortest: 7,
    profile: LINUX,
    fault: 'forgets to give the ASID back when its owner is destroyed',
    machine: class extends SevHost {
      override sevAsidFree(): void {
        // The bit stays where it is.
      }
    },
  },
  {
    id: 'failed-init-stays-active',
    shortest: 6,
    profile: LINUX,
    fault: 'leaves a VM active that did not get an ASID',
    machine: class extends SevHost {
      override sevGuestInitAs(...args: Parameters<SevHost['sevGuestInitAs']>): Errno | undefined {
        const error = super.sevGuestInitAs(...args);
        if (error === 'EBUSY') this.toKvmSevInfo(args[0]).active = true;
        return error;
      }
    },
  },
];

const memory: readonly Fault[] = [
  {
    id: 'reclaimed-not-written-back',
    shortest: 6,
    profile: LINUX,
    fault: 'leaves lines in caches that a guest has written to memory which is taken from it (CVE-2022-0171)',
    machine: class extends SevHost {
      override kvmArchGuestMemoryReclaimed(): void {
        // Who gets the memory next will find in it one day what the lines hold.
      }
    },
  },
  {
    id: 'moved-not-written-back',
    shortest: 8,
    profile: LINUX,
    fault: 'leaves lines in caches of processors that ran a source, of which nobody thinks once it has moved',
    machine: class extends SevHost {
      override sevMigrateFrom(dst: Kvm, src: Kvm): void {
        this.toKvmSevInfo(src).haveRunCpus = false;
        super.sevMigrateFrom(dst, src);
      }
    },
  },
  {
    id: 'huge-region-registered',
    shortest: 3,
    profile: LINUX,
    fault: 'counts the pages of a region in 32 bits, and registers none of 2^60 bytes',
    machine: class extends SevHost {
      override sevPinMemory(...args: Parameters<SevHost['sevPinMemory']>): ReturnType<SevHost['sevPinMemory']> {
        const [, , length] = args;
        return length !== 0n && (length & 0xfff_ffff_ffffn) === 0n ? [] : super.sevPinMemory(...args);
      }
    },
  },
  {
    id: 'end-without-yielding',
    shortest: 5,
    profile: LINUX,
    fault:
      'gives all regions of a VM back at a stretch, so that the host stands still while there are many (CVE-2020-36311)',
    machine: class extends SevHost {
      override condResched(): void {
        // Nobody else runs.
      }
    },
  },
  {
    id: 'pages-stay-pinned',
    shortest: 3,
    profile: LINUX,
    fault: 'forgets to unpin pages',
    machine: class extends SevHost {
      override sevUnpinMemory(): void {
        // The pages stay where they are, for ever.
      }
    },
  },
  {
    id: 'save-area-not-filled',
    shortest: 6,
    profile: LINUX,
    fault: 'encrypts a save area as it was created, without the registers that the VMM has set',
    machine: class extends SevHost {
      override sevEsSyncVmsa(vcpu: Vcpu): boolean {
        const svm = this.toSvm(vcpu);
        const { vmsa } = svm;
        const isFilled = super.sevEsSyncVmsa(vcpu);
        svm.vmsa = vmsa;
        return isFilled;
      }
    },
  },
  {
    id: 'save-area-encrypted-twice',
    shortest: 6,
    profile: LINUX,
    fault: 'encrypts the save area of a vCPU that is encrypted already',
    machine: class extends SevHost {
      override sevEsSyncVmsa(vcpu: Vcpu): boolean {
        super.sevEsSyncVmsa(vcpu);
        return true;
      }
    },
  },
];

const files: readonly Fault[] = [
  {
    id: 'file-outlives-vm',
    shortest: 3,
    profile: LINK,
    fault:
      'creates files without a reference to their struct kvm, whose memory may be another’s when they are linked or bound',
    machine: class extends SevHost {
      override kvmGmemNewFile(...args: Parameters<SevHost['kvmGmemNewFile']>): ReturnType<SevHost['kvmGmemNewFile']> {
        const file = super.kvmGmemNewFile(...args);
        args[0].usersCount--;
        return file;
      }
      override kvmGmemRelease(file: GmemFile): void {
        this.kvms.at(file.kvm).usersCount++;
        super.kvmGmemRelease(file);
      }
    },
  },
];

/** Those that show only where two commands run at the same time. */
export const SEV_RACE_FAULTS: readonly Fault[] = [
  {
    id: 'region-registered-unlocked',
    shortest: 6,
    profile: LINUX,
    fault:
      'registers a region without the lock that a move takes, so that the region stays with a source that has moved',
    machine: class extends SevHost {
      override sevMemEncRegisterRegion(...args: Parameters<SevHost['sevMemEncRegisterRegion']>): Errno | undefined {
        return this.registerRegion(...args);
      }
    },
  },
  {
    id: 'copy-without-locks',
    shortest: 6,
    profile: LINUX,
    fault: 'makes a mirror without the locks that a move takes, of a VM that may have moved since it was looked at',
    machine: class extends SevHost {
      private copies: Kvm | undefined;

      override sevVmCopyEncContextFrom(kvm: Kvm, from: string): Errno | undefined {
        this.copies = kvm;
        const error = super.sevVmCopyEncContextFrom(kvm, from);
        this.copies = undefined;
        return error;
      }
      override sevLockTwoVms(dst: Kvm, src: Kvm): Errno | undefined {
        if (dst !== this.copies) return super.sevLockTwoVms(dst, src);
        return dst === src ? 'EINVAL' : undefined;
      }
      override sevUnlockTwoVms(dst: Kvm, src: Kvm): void {
        if (dst !== this.copies) super.sevUnlockTwoVms(dst, src);
      }
    },
  },
  {
    id: 'vcpus-unlocked-at-finish',
    shortest: 6,
    profile: LINUX,
    fault:
      'encrypts the save areas of an SNP guest without the locks of its vCPUs, which may change meanwhile (CVE-2026-31591)',
    machine: class extends SevHost {
      override snpLaunchUpdateVmsa(...args: Parameters<SevHost['snpLaunchUpdateVmsa']>): Errno | undefined {
        return this.encryptVmsas(...args);
      }
    },
  },
];

export const SEV_FAULTS: readonly Fault[] = [...mirrors, ...moves, ...asids, ...memory, ...files];
