/** System calls on files and mappings. Source: fs/open.c, fs/read_write.c, fs/stat.c, mm/mmap.c. */
import {
  FALLOC,
  GMEM_FILE_MODE,
  GMEM_FLAG,
  I64_MAX,
  isPageAligned,
  PAGE_MASK,
  PAGE_SHIFT,
  toPages,
  WORD_BYTES,
  wrap64,
} from '../../model/core/abi.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import type { Label } from '../../model/core/state.ts';
import { Vms } from './vms.ts';
import type { AnonymousFile, File, Vcpu } from './objects.ts';

/** FALLOC_FL_MODE_MASK: at most one of these may be set. */
const FALLOC_MODES: ReadonlySet<bigint> = new Set([
  0n,
  FALLOC.PUNCH_HOLE,
  FALLOC.COLLAPSE_RANGE,
  FALLOC.ZERO_RANGE,
  FALLOC.INSERT_RANGE,
  FALLOC.UNSHARE_RANGE,
  FALLOC.WRITE_ZEROES,
]);
/** Modes that FALLOC_FL_KEEP_SIZE makes no sense with. */
const FALLOC_RESIZING = FALLOC.COLLAPSE_RANGE | FALLOC.INSERT_RANGE | FALLOC.WRITE_ZEROES;

/** struct pvclock_vcpu_time_info, of which the version is what is looked at. */
const TIME_BYTES = 32n;
const TIME = 2n;

const SIGSEGV: Outcome = { kind: 'signal', signal: 'SIGSEGV' };
const SIGBUS: Outcome = { kind: 'signal', signal: 'SIGBUS' };

export type FileOperation = 'read' | 'write' | 'pread' | 'pwrite';
export type StatField = 'size' | 'mode' | 'blocks';
export type PinnedBy = 'process-vm' | 'splice' | 'mem';
export type Sharing = 'shared' | 'private' | 'validate';

export abstract class Syscalls extends Vms {
  /** fs/open.c: vfs_fallocate() */
  vfsFallocate(file: File, mode: bigint, offset: bigint, length: bigint): Errno | undefined {
    if (offset < 0n || length <= 0n) return 'EINVAL';
    const kind = mode & ~FALLOC.KEEP_SIZE;
    if (!FALLOC_MODES.has(kind)) return 'EOPNOTSUPP';
    const keepSize = (mode & FALLOC.KEEP_SIZE) !== 0n;
    if (kind === FALLOC.PUNCH_HOLE && !keepSize) return 'EOPNOTSUPP';
    if ((kind & FALLOC_RESIZING) !== 0n && keepSize) return 'EOPNOTSUPP';
    if (file.kind !== 'gmem') return 'ENODEV';
    if (offset + length > I64_MAX) return 'EFBIG';

    // kvm_gmem_fallocate()
    if (!keepSize || (kind !== 0n && kind !== FALLOC.PUNCH_HOLE)) return 'EOPNOTSUPP';
    if (!isPageAligned(offset) || !isPageAligned(length)) return 'EINVAL';
    const start = toPages(offset);
    const end = toPages(offset + length);
    if (kind === 0n) return this.kvmGmemAllocate(file.inode, start, end);
    this.kvmGmemPunchHole(file.inode, start, end);
    return undefined;
  }

  /** fs/read_write.c: ksys_read(), ksys_pread64() and their like, of 8 bytes. */
  fileIo(fd: Label, operation: FileOperation, offset: bigint): Outcome {
    const positioned = operation === 'pread' || operation === 'pwrite';
    if (positioned && offset < 0n) return fails('EINVAL');
    const file = this.fget(fd);
    if (file === undefined) return fails('EBADF');
    const outcome = this.vfsIo(file, operation, positioned);
    this.fput(file);
    return outcome;
  }

  private vfsIo(file: File, operation: FileOperation, positioned: boolean): Outcome {
    if (file.kind === 'other') return ok(operation === 'write' || operation === 'pwrite' ? WORD_BYTES : 0n);
    // Files without an inode of a real file system are not opened through do_dentry_open(), which sets FMODE_PREAD.
    return fails(positioned && file.kind !== 'device' ? 'ESPIPE' : 'EINVAL');
  }

  /** fs/open.c: do_sys_ftruncate(). Of a gmem file, kvm_gmem_setattr() refuses every change. */
  ftruncate(fd: Label, length: bigint): Errno {
    if (length < 0n) return 'EINVAL';
    const file = this.fget(fd);
    if (file === undefined) return 'EBADF';
    this.fput(file);
    return 'EINVAL';
  }

  /** fs/stat.c: generic_fillattr() */
  fstat(file: File, field: StatField): bigint {
    if (file.kind !== 'gmem' || field === 'blocks') return 0n;
    return field === 'mode' ? GMEM_FILE_MODE : BigInt(file.inode.pages) << PAGE_SHIFT;
  }

  /** arch/x86/kernel/sys_x86_64.c: mmap(), mm/mmap.c: ksys_mmap_pgoff() */
  mmap(label: Label, fd: Label, length: bigint, offset: bigint, sharing: Sharing): Errno | undefined {
    if (!isPageAligned(offset)) return 'EINVAL';
    const file = this.fget(fd);
    if (file === undefined) return 'EBADF';
    this.lock(this.mmapLock);
    const error = this.doMmap(label, file, length, offset, sharing);
    this.unlock(this.mmapLock);
    this.fput(file);
    return error;
  }

  /** mm/mmap.c: do_mmap() */
  doMmap(label: Label, file: File, size: bigint, offset: bigint, sharing: Sharing): Errno | undefined {
    if (size === 0n) return 'EINVAL';
    const length = wrap64((size + PAGE_MASK) & ~PAGE_MASK);
    if (length === 0n) return 'ENOMEM';
    if (length > this.config.machine.userTop) return 'ENOMEM';
    if (file.kind !== 'gmem') return 'ENODEV';
    // file_mmap_ok()
    if (offset >> PAGE_SHIFT > (I64_MAX - length) >> PAGE_SHIFT) return 'EOVERFLOW';
    // kvm_gmem_mmap()
    if ((file.inode.flags & GMEM_FLAG.MMAP) === 0n) return 'ENODEV';
    if (sharing === 'private') return 'EINVAL';
    return this.mmapRegion(label, file, toPages(offset), toPages(length)) === undefined ? 'ENOMEM' : undefined;
  }

  /** memfd_secret(), ftruncate(), mmap(), close(). */
  mapSecret(label: Label, length: bigint): Errno | undefined {
    if (!this.config.machine.secretMemory) return 'ENOSYS';
    const pages = toPages((length + PAGE_MASK) & ~PAGE_MASK);
    this.lock(this.mmapLock);
    const inode = this.newInode(label, pages, 0n);
    const file = this.files.allocate<AnonymousFile>((address) => ({ address, kind: 'secret', label, count: 1, inode }));
    const vma = this.mmapRegion(label, file, 0, pages);
    this.unlock(this.mmapLock);
    this.fput(file);
    return vma === undefined ? 'ENOMEM' : undefined;
  }

  /** munmap(). Of what is not mapped, there is nothing to unmap. */
  munmapLabel(label: Label): void {
    this.lock(this.mmapLock);
    const vma = this.vmas.get(label);
    if (vma !== undefined) this.munmap(vma);
    this.unlock(this.mmapLock);
  }

  /** A load, or with a value a store, of the word at a byte offset into a mapping, by a thread of the process. */
  accessUser(label: Label, offset: bigint, value: bigint | undefined): Outcome {
    return this.withMappings(() => {
      const vma = this.vmas.get(label);
      const page = toPages(offset);
      if (vma === undefined || page >= vma.pages) return SIGSEGV;
      let folio = this.handleMmFault(vma, page, 1);
      // pagefault_out_of_memory(): the thread goes back to user space, and faults again.
      if (folio === 'VM_FAULT_OOM') folio = this.handleMmFault(vma, page, 1);
      return typeof folio === 'string' ? SIGBUS : this.accessFrame(folio.frame, offset, value);
    });
  }

  /** process_vm_rw(), vmsplice_to_pipe() and a read of the pipe, mem_rw(): by way of get_user_pages(). */
  accessPinned(label: Label, offset: bigint, by: PinnedBy, value: bigint | undefined): Outcome {
    if (by === 'process-vm' && !this.config.machine.processVm) return fails('ENOSYS');
    const vma = this.vmas.get(label);
    const page = toPages(offset);
    const folio = vma === undefined || page >= vma.pages ? undefined : this.getUserPages(vma.start + page, 1);
    // __access_remote_vm() tells how much it has copied, and not what kept it from more.
    if (folio === undefined || typeof folio === 'string') return fails(by === 'mem' ? 'EIO' : 'EFAULT');
    // Who has the page already is not kept from it when it fails: memory_failure() takes it from page tables.
    const outcome = this.copyWord(folio.frame, offset, value);
    this.folioPut(folio);
    return outcome;
  }

  /** A vCPU runs with its clock at the address: kvm_write_system_time(), kvm_setup_guest_pvclock(). Whether the host sees it. */
  guestClock(vcpu: Vcpu, gpa: bigint, label: Label, offset: bigint): Outcome {
    this.clearTime(label, offset);
    const pvTime = this.kvmGpcInit(this.kvms.at(vcpu.kvm), '');
    this.kvmGpcActivate(pvTime, gpa, TIME_BYTES);
    if (pvTime.active) this.accessCache(pvTime, TIME);
    this.kvmGpcDeactivate(pvTime);
    const seen = this.accessUser(label, offset, undefined);
    this.clearTime(label, offset);
    return ok(seen.kind === 'ok' && seen.value !== 0n ? 1n : 0n);
  }

  private clearTime(label: Label, offset: bigint): void {
    for (let at = offset; at < offset + TIME_BYTES; at += WORD_BYTES) this.accessUser(label, at, 0n);
  }
}
