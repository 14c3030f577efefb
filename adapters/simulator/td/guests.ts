/** Guests, and what the commands ask of a machine that runs them; three machines answer. */
import type { Facts } from '../../../model/core/facts.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { newLock, outcomeOf, type Lock } from '../kernel.ts';
import { GFNS, Gone, HostMm, type HostWrite, type Process, type Word } from './host-mm.ts';
import { LINES, type Width } from './memory-controller.ts';

export type World = 'private' | 'shared';
export type Via = 'user' | 'gup' | 'direct' | 'kcore' | 'dma';

export interface Vcpu {
  readonly mutex: Lock;
}

/** struct kvm, and the VMM that has its descriptor. */
export interface Guest {
  readonly label: Label;
  readonly process: Process;
  /** Attributes of the guest frames: whether they are private. */
  readonly private: boolean[];
  readonly kvmLock: Lock;
  readonly slotsLock: Lock;
  readonly mmuLock: Lock;
}

export const U64 = (1n << 64n) - 1n;
/** TDX_SHARED_BIT_PWL_4, as an address. */
export const SHARED_BIT = 1n << 47n;

/** Whether so many pages from a guest frame on are a range that does not wrap, and does not end with a shared address. */
export function isGuestRange(gfn: number, pages: bigint): boolean {
  const gpa = BigInt(gfn) << 12n;
  const end = (gpa + (pages << 12n)) & U64;
  return pages !== 0n && end > gpa && ((end - 1n) & SHARED_BIT) === 0n;
}

export const wordOutcome = (word: Exclude<Word, 'poison'>): Outcome =>
  word === 'ciphertext' ? { kind: 'ciphertext' } : ok(word);

export abstract class Guests<G extends Guest = Guest> extends HostMm {
  readonly guests = new Map<Label, G>();

  protected override powerOff(): void {
    super.powerOff();
    this.guests.clear();
  }

  /** The frame that backs a guest frame in the world that it is in. */
  protected abstract backing(guest: G, gfn: number): number;
  abstract facts(): Facts;

  /** A command may run within another one, at a hand-over point. */
  forgetEvents(): void {
    this.hostWrites.length = 0;
    this.consumptions.length = 0;
  }

  /** Ends what runs where the machine is gone, and starts it again with nothing in it. */
  surviving(run: () => Outcome): Outcome {
    try {
      return run();
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      this.powerOff();
      return error.outcome;
    }
  }

  protected newGuest(label: Label, process: Process): Guest {
    return {
      label,
      process,
      private: GFNS.map(() => false),
      kvmLock: newLock('kvm->lock'),
      slotsLock: newLock('slots_lock'),
      mmuLock: newLock('mmu_lock'),
    };
  }

  hostRead(guest: G, gfn: number, line: number, via: Via): Outcome {
    if (via === 'dma') return this.dmaRead(guest, gfn, line);
    if (via === 'user') return this.userLoad(guest, gfn, line);
    if (via === 'gup') return this.withPinned(guest, gfn, (frame) => wordOutcome(this.kernelLoad(frame, line)));
    const frame = this.backing(guest, gfn);
    return wordOutcome(via === 'kcore' ? this.readKcore(frame, line) : this.kernelLoad(frame, line));
  }

  private dmaRead({ process }: G, gfn: number, line: number): Outcome {
    const frame = process.iommu.get(gfn);
    if (frame === undefined) return fails('EIO');
    const word = this.deviceLoad(frame, line);
    return word === 'poison' || word === 'EIO' ? fails('EIO') : wordOutcome(word as Exclude<Word, 'poison'>);
  }

  private userLoad({ process }: G, gfn: number, line: number): Outcome {
    const loaded = this.withUserPage(process, gfn, (frame) => ({ frame, word: this.cpuLoad(frame, line) }));
    if (typeof loaded === 'string') return { kind: 'signal', signal: loaded };
    if (loaded.word !== 'poison') return wordOutcome(loaded.word);
    this.memoryFailure(loaded.frame);
    return { kind: 'signal', signal: 'SIGBUS' };
  }

  hostWrite(guest: G, gfn: number, line: number, via: HostWrite['via'], width: Width, value: bigint): Outcome {
    const store = (frame: number): Outcome => outcomeOf(this.hostStore(frame, line, value, width, via));
    if (via === 'user') {
      const stored = this.withUserPage(guest.process, gfn, store);
      return typeof stored === 'string' ? { kind: 'signal', signal: stored } : stored;
    }
    if (via === 'gup') return this.withPinned(guest, gfn, store);
    if (via !== 'dma') return store(this.backing(guest, gfn));
    const frame = guest.process.iommu.get(gfn);
    return frame === undefined ? fails('EIO') : store(frame);
  }

  /** A system call that reaches memory of the process by way of get_user_pages(). */
  private withPinned({ process }: G, gfn: number, use: (frame: number) => Outcome): Outcome {
    const frame = this.pinUserPages(process, gfn);
    if (typeof frame === 'string') return fails(frame);
    const outcome = use(frame);
    this.unpinUserPage(process, gfn);
    return outcome;
  }

  hostZero(guest: G, gfn: number): Outcome {
    const frame = this.backing(guest, gfn);
    for (const line of LINES) this.hostStore(frame, line, 0n, 'line', 'zero');
    return ok();
  }

  protected factsOfHost(): Facts & Required<Pick<Facts, 'vms' | 'private' | 'hostMaps'>> {
    const guests = [...this.guests.values()];
    return {
      vms: guests.map(({ label }) => ({ vm: label })),
      private: guests.flatMap((guest) =>
        GFNS.filter((gfn) => guest.private[gfn]).map((gfn) => ({ vm: guest.label, start: gfn, end: gfn + 1 })),
      ),
      hostMaps: guests.flatMap(({ label, process }) => [
        ...process.pages.flatMap(({ pte, frame }, gfn) =>
          pte === 'present' && frame !== undefined ? [{ vm: label, gfn, frame, by: 'user' as const }] : [],
        ),
        ...[...process.iommu].map(([gfn, frame]) => ({ vm: label, gfn, frame, by: 'dma' as const })),
      ]),
      poisoned: [...this.hwpoison].sort((a, b) => a - b),
      free: this.freeList.map((frame) => ({ frame, count: 1 })),
      hostWrites: [...this.hostWrites],
      consumptions: [...this.consumptions],
    };
  }
}
