/** Guests without a TDX module: the steps of a launch, which SEV and s390 have in common. Source: svm/sev.c, s390/kvm/pv.c. */
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { newLock } from '../kernel.ts';
import { Guests, isGuestRange, type Guest, type Vcpu, type World } from './guests.ts';
import { GFNS, Gone } from './host-mm.ts';
import type { Width } from './memory-controller.ts';

export interface LaunchedGuest extends Guest {
  state: 'uninitialized' | 'initialized' | 'runnable';
  /** ASID; 0 where keys have no numbers. */
  key: number | undefined;
  readonly vcpus: Map<string, Vcpu>;
}

export abstract class Launches extends Guests<LaunchedGuest> {
  /** Takes a key. */
  protected abstract start(guest: LaunchedGuest): Errno | undefined;
  /** Encrypts a page in its place, or copies one in and decrypts it. */
  protected abstract launchUpdate(guest: LaunchedGuest, gfn: number, value: bigint): Errno | undefined;
  protected abstract changeWorld(guest: LaunchedGuest, gfn: number, isPrivate: boolean): Outcome;
  protected abstract decommission(guest: LaunchedGuest): void;
  abstract runLoad(guest: LaunchedGuest, gfn: number, line: number, world: World): Outcome;
  abstract runStore(
    guest: LaunchedGuest,
    gfn: number,
    line: number,
    world: World,
    width: Width,
    value: bigint,
  ): Outcome;

  protected override backing(guest: LaunchedGuest, gfn: number): number {
    return this.doSwapPage(this.pageAt(guest.process, gfn));
  }

  kvmCreateVm(label: Label): Outcome {
    this.guests.set(label, {
      ...this.newGuest(label, this.newProcess(label, 'present')),
      state: 'uninitialized',
      key: undefined,
      vcpus: new Map(),
    });
    return ok();
  }

  guestInit(guest: LaunchedGuest): Errno | undefined {
    if (guest.state !== 'uninitialized') return 'EINVAL';
    const error = this.start(guest);
    if (error !== undefined) return error;
    guest.state = 'initialized';
    for (const gfn of GFNS) guest.private[gfn] = true;
    return undefined;
  }

  kvmVmIoctlCreateVcpu(guest: LaunchedGuest, id: string): Errno | undefined {
    if (guest.vcpus.has(id)) return 'EEXIST';
    guest.vcpus.set(id, { mutex: newLock('vcpu->mutex') });
    return undefined;
  }

  addPages(guest: LaunchedGuest, gfn: number, pages: bigint, value: bigint): Errno | undefined {
    if (guest.state !== 'initialized' || !isGuestRange(gfn, pages)) return 'EINVAL';
    for (let at = gfn; BigInt(at) < BigInt(gfn) + pages; at++) {
      if (!GFNS.includes(at) || guest.private[at] !== true) return 'EINVAL';
      const error = this.launchUpdate(guest, at, value);
      if (error !== undefined) return error;
    }
    return undefined;
  }

  launchFinish(guest: LaunchedGuest): Errno | undefined {
    if (guest.state !== 'initialized') return 'EINVAL';
    guest.state = 'runnable';
    return undefined;
  }

  convert(guest: LaunchedGuest, gfn: number, isPrivate: boolean): Outcome {
    if (guest.private[gfn] === isPrivate) return ok();
    this.lock(guest.slotsLock);
    const outcome = this.changeWorld(guest, gfn, isPrivate);
    if (outcome.kind === 'ok') guest.private[gfn] = isPrivate;
    this.unlock(guest.slotsLock);
    return outcome;
  }

  kvmRun(guest: LaunchedGuest, id: string, run: () => Outcome): Outcome {
    const vcpu = guest.vcpus.get(id);
    if (vcpu === undefined) return fails('EBADF');
    this.lock(vcpu.mutex);
    const outcome = guest.state === 'runnable' ? run() : fails('EINVAL');
    this.unlock(vcpu.mutex);
    return outcome;
  }

  kvmDestroyVm(guest: LaunchedGuest): Outcome {
    guest.process.iommu.clear();
    this.decommission(guest);
    this.guests.delete(guest.label);
    this.exitMm(guest.process);
    return ok();
  }

  kexec(): Outcome {
    throw new Gone(ok());
  }
}
