/**
 * A host with VMMs: how guests come, restart, move and go, what devices read, and what happens to frames. Source:
 * mm/memory-failure.c, mm/hwpoison-inject.c, mm/memory_hotplug.c; "Re: [PATCH] x86/mm: Don't try to change poison pages to
 * uncacheable in a guest", May 2020, for what is right for a VMM.
 */
import type { BackingFact, Facts, HostMapFact, StageTwoFact } from '../../../model/core/facts.ts';
import type { McGuest } from '../../../model/core/machine-check.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Config } from '../../../model/core/profile.ts';
import type { Label } from '../../../model/core/state.ts';
import type { GuestKernel } from './guest-kernel.ts';
import { GFNS } from './guest-mm.ts';
import type { HostKernel, Vmm } from './host-kernel.ts';
import { McMachine, UNDISTURBED, type Guest, type Where } from './machine.ts';
import { LINES, runs, type PhysicalMemory } from './physical-memory.ts';

export interface VirtualGuest extends Guest {
  vmm: Vmm;
}

export abstract class Hosting extends McMachine<VirtualGuest> {
  readonly host: HostKernel;

  constructor(config: Config, Kernel: typeof GuestKernel, Host: typeof HostKernel) {
    super(config, Kernel);
    this.host = new Host();
  }

  protected override get memory(): PhysicalMemory {
    return this.host.memory;
  }

  protected override behind({ vmm }: VirtualGuest, gfn: number): { frame: number | undefined; isTaken: boolean } {
    return { frame: this.host.frameOf(vmm, gfn), isTaken: this.host.isTaken(vmm, gfn) };
  }

  override create(label: Label, memory: McGuest['memory']): Outcome {
    const vmm = this.host.newVmm(memory === 'gmem');
    for (const gfn of GFNS) this.host.populate(vmm, gfn);
    const kernel = this.boot(() => guest, GFNS);
    const guest: VirtualGuest = { label, kernel, vmm, ...UNDISTURBED };
    this.guests.set(label, guest);
    return ok();
  }

  /** The VMM resets vCPUs, of which no thread may be in KVM_RUN, and starts the guest's firmware again. */
  override reboot(guest: VirtualGuest, replace: boolean): Outcome {
    const { vmm, kernel } = guest;
    for (const thread of vmm.vcpus) this.host.taskWorkRun(thread);
    if (this.isKilled(guest)) return { kind: 'sigbus', to: 'vmm', code: 'none' };
    for (const thread of vmm.vcpus) thread.signal = undefined;
    vmm.told.length = 0;
    const gfns = [...kernel.pages.keys()];
    if (replace) this.replaceTaken(guest, gfns);
    this.restart(guest, gfns);
    return ok();
  }

  /** qemu_ram_remap() */
  replaceTaken(guest: VirtualGuest, gfns: readonly number[]): void {
    guest.replaced++;
    for (const gfn of gfns) {
      if (!this.host.isTaken(guest.vmm, gfn)) continue;
      this.host.unpopulate(guest.vmm, gfn);
      this.host.populate(guest.vmm, gfn);
    }
  }

  override destroy({ label, vmm }: VirtualGuest): Outcome {
    this.host.exit(vmm);
    this.guests.delete(label);
    return ok();
  }

  /** Precopy of memory that is mapped: the VMM reads every page by a system call. Where it was taken, the other end gets UFFDIO_POISON. */
  migrate(guest: VirtualGuest): Outcome {
    const { vmm, kernel } = guest;
    // In the order of addresses, whatever was plugged in last.
    const gfns = [...kernel.pages.keys()].toSorted((a, b) => a - b);
    for (const gfn of gfns) {
      const frame = this.host.frameOf(vmm, gfn);
      if (frame !== undefined && !LINES.every((line) => typeof this.copyFromUser(frame, line) === 'bigint'))
        return fails('EFAULT');
    }
    for (const gfn of gfns) this.moveToOtherHost(vmm, gfn);
    return ok();
  }

  private moveToOtherHost(vmm: Vmm, gfn: number): void {
    const frame = this.host.frameOf(vmm, gfn);
    this.host.unpopulate(vmm, gfn);
    if (frame === undefined) {
      this.receivePoison(vmm, gfn);
      return;
    }
    this.host.populate(vmm, gfn);
    const received = this.host.frameOf(vmm, gfn);
    for (const line of LINES) {
      const word = this.host.memory.load(frame, line);
      if (received !== undefined && word !== 'poison') this.host.memory.store(received, line, word);
    }
  }

  /** UFFDIO_POISON */
  receivePoison(vmm: Vmm, gfn: number): void {
    vmm.mm.ptes.set(gfn, { kind: 'marker' });
  }

  unplug({ vmm, kernel }: VirtualGuest, gfn: number): Outcome {
    if (!kernel.offline(gfn)) return fails('EBUSY');
    this.host.unpopulate(vmm, gfn);
    return ok();
  }

  plug({ vmm, kernel }: VirtualGuest, gfn: number): Outcome {
    this.host.populate(vmm, gfn);
    kernel.online(gfn);
    return ok();
  }

  /** A SIGBUS without an address ends the VMM. */
  protected isKilled(guest: VirtualGuest): boolean {
    if (!guest.vmm.vcpus.some(({ signal }) => signal?.code === 'none')) return false;
    const of = guest.kernel.cpus.find(({ id }) => guest.vmm.vcpus[id]?.signal?.code === 'none')?.access;
    this.host.exit(guest.vmm);
    this.end(guest, 'killed', { by: 'vmm', of: of?.gfn, how: of?.how });
    return true;
  }

  override deviceRead(guest: VirtualGuest, gfn: number, line: number): Outcome {
    const isTaken = this.host.isTaken(guest.vmm, gfn);
    if (isTaken) this.noteDeviceTouch(guest, gfn, line, 'fault');
    const frame = guest.vmm.gmem === undefined ? this.host.frameOf(guest.vmm, gfn) : undefined;
    if (frame === undefined) return fails('EFAULT');
    const word = this.copyFromUser(frame, line);
    return word === 'EFAULT' ? fails('EFAULT') : ok(word);
  }

  /** copy_from_user() by a system call of the VMM, with a fixup for machine checks; kill_me_never() is done at its end. */
  private copyFromUser(frame: number, line: number): bigint | 'EFAULT' {
    const word = this.host.memory.load(frame, line);
    if (word !== 'poison') return word;
    this.host.reportPoison(frame);
    return 'EFAULT';
  }

  override spoil({ vmm }: VirtualGuest, gfn: number, line: number): Outcome {
    const frame = this.host.frameOf(vmm, gfn);
    if (frame === undefined) return fails('ENOENT');
    this.host.memory.spoil(frame, line);
    return ok();
  }

  override scrub({ vmm }: VirtualGuest, gfn: number): Outcome {
    const frame = this.host.frameOf(vmm, gfn);
    if (frame === undefined) return fails('ENOENT');
    if (this.host.memory.hasBadLine(frame)) this.host.reportPoison(frame);
    return ok();
  }

  override simulate(guest: VirtualGuest, gfn: number, where: Where): Outcome {
    if (where === 'guest') return guest.kernel.hwpoisonInject(gfn);
    const frame = this.host.lastFrameOf(guest.vmm, gfn);
    if (frame === undefined || (this.host.frameOf(guest.vmm, gfn) === undefined && !this.host.page(frame).hwpoison))
      return fails('ENOENT');
    const failed = this.host.memoryFailure(frame, { simulated: true });
    return failed === undefined ? ok() : fails(failed);
  }

  override unpoison(guest: VirtualGuest, gfn: number, where: Where): Outcome {
    if (where === 'guest') return guest.kernel.hwpoisonUnpoison(gfn);
    const frame = this.host.lastFrameOf(guest.vmm, gfn);
    if (frame === undefined) return fails(this.host.hwMemoryFailure ? 'EOPNOTSUPP' : 'EBUSY');
    const failed = this.host.unpoisonMemory(frame);
    return failed === undefined ? ok() : fails(failed);
  }

  override facts(): Facts {
    const guests = [...this.guests.values()];
    const backing = guests.flatMap((guest) => this.backing(guest));
    const frames = backing.flatMap(({ frame }) => frame ?? []);
    return {
      ...this.factsOfGuests(),
      backing,
      stageTwo: guests.flatMap(({ label, vmm: { ept, gmem } }) =>
        [...ept].map(([gfn, frame]): StageTwoFact => ({
          vm: label,
          gfn,
          frame,
          count: 1,
          private: gmem !== undefined,
        })),
      ),
      hostMaps: guests.flatMap(({ label, vmm: { mm } }) =>
        [...mm.ptes].flatMap(([gfn, pte]): readonly HostMapFact[] =>
          pte.kind === 'present' ? [{ vm: label, gfn, frame: pte.pfn, by: 'user' }] : [],
        ),
      ),
      // A line of a free frame, of which the host does not know, is nobody's.
      lines: this.memory.badLines(frames),
      cached: this.memory.cachedLines(frames),
      poisoned: this.host.poisonedFrames,
      absent: runs(this.host.absentFrames),
      free: runs(this.host.freeFrames),
    };
  }

  private backing({ label, state, kernel, vmm }: VirtualGuest): readonly BackingFact[] {
    if (state === 'killed') return [];
    return [...kernel.pages.keys()].map((gfn) => ({
      ...{ vm: label, gfn, frame: this.host.frameOf(vmm, gfn), taken: this.host.isTaken(vmm, gfn) },
    }));
  }
}
