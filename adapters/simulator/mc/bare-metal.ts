/** The same kernel with no host below: the hardware raises machine checks in it. Source: Intel SDM volume 3B, chapter 16. */
import type { BackingFact, Facts } from '../../../model/core/facts.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { consumes, flushes, Stopped, type Access, type Cpu, type Touched } from './cpu.ts';
import { GFNS } from './guest-mm.ts';
import { McMachine, UNDISTURBED, type Guest } from './machine.ts';
import { ofFetch, reportOf } from './mca.ts';
import { PhysicalMemory } from './physical-memory.ts';

export interface MetalGuest extends Guest {
  /** Its physical memory, in frames that no other machine has. */
  readonly firstFrame: number;
}

const MEMORY_BANK = 1;

export class BareMetal extends McMachine<MetalGuest> {
  protected override readonly memory = new PhysicalMemory();
  private nextFrame = 0;

  override create(label: Label): Outcome {
    const kernel = this.boot(() => guest, GFNS);
    const guest: MetalGuest = { label, kernel, firstFrame: this.nextFrame, ...UNDISTURBED };
    this.nextFrame += GFNS.length;
    this.guests.set(label, guest);
    return ok();
  }

  override reboot(guest: MetalGuest): Outcome {
    this.restart(guest, GFNS);
    return ok();
  }

  override destroy({ label }: MetalGuest): Outcome {
    this.guests.delete(label);
    return ok();
  }

  protected override access(guest: MetalGuest, cpu: Cpu, access: Access): Touched {
    const frame = guest.firstFrame + access.gfn;
    const word = this.memory.load(frame, access.line);
    if (word === 'poison' && consumes(access.how)) return this.raiseMachineCheck(guest, cpu, access);
    if (flushes(access.how)) this.writeBack(guest, frame, access.gfn, access.line);
    if (access.value !== undefined) this.memory.store(frame, access.line, access.value);
    return word === 'poison' ? 0n : word;
  }

  private raiseMachineCheck(guest: MetalGuest, cpu: Cpu, access: Access): Stopped {
    const report = reportOf('required', access.gfn);
    const bank = cpu.mca.banks[MEMORY_BANK];
    if (bank !== undefined) cpu.mca.write(bank, access.how === 'fetch' ? ofFetch(report) : report);
    cpu.mca.mcgStatus = report.mcgStatus;
    cpu.stage = 'machine-check';
    cpu.context = access.context;
    cpu.access = access;
    this.noteTouch(guest, access, 'machine-check');
    return new Stopped({ kind: 'machine-check', ends: 'nobody' });
  }

  protected override behind({ firstFrame }: MetalGuest, gfn: number): { frame: number; isTaken: boolean } {
    return { frame: firstFrame + gfn, isTaken: false };
  }

  /** DMA: what is poisoned comes to the device as such. */
  override deviceRead(guest: MetalGuest, gfn: number, line: number): Outcome {
    const word = this.memory.load(guest.firstFrame + gfn, line);
    if (word !== 'poison') return ok(word);
    this.noteDeviceTouch(guest, gfn, line, 'fault');
    return fails('EIO');
  }

  override spoil({ firstFrame }: MetalGuest, gfn: number, line: number): Outcome {
    this.memory.spoil(firstFrame + gfn, line);
    return ok();
  }

  override scrub({ firstFrame, kernel }: MetalGuest, gfn: number): Outcome {
    if (this.memory.hasBadLine(firstFrame + gfn)) kernel.mceLog({ grade: 'AO', pfn: gfn, unmapped: false });
    return ok();
  }

  override simulate({ kernel }: MetalGuest, gfn: number): Outcome {
    return kernel.hwpoisonInject(gfn);
  }

  override unpoison({ kernel }: MetalGuest, gfn: number): Outcome {
    return kernel.hwpoisonUnpoison(gfn);
  }

  override facts(): Facts {
    const pages = [...this.guests.values()].flatMap(({ firstFrame, kernel }) =>
      [...kernel.pages.values()].map((page) => ({ ...page, frame: firstFrame + page.pfn })),
    );
    const frames = pages.map(({ frame }) => frame);
    // There is no host, and so no free list of one.
    return {
      ...this.factsOfGuests(),
      backing: [...this.guests.values()].flatMap(({ label, firstFrame }) =>
        GFNS.map((gfn): BackingFact => ({ vm: label, gfn, frame: firstFrame + gfn, taken: false })),
      ),
      stageTwo: [],
      hostMaps: [],
      lines: this.memory.badLines(frames),
      cached: this.memory.cachedLines(frames),
      poisoned: pages.flatMap(({ hwpoison, frame }) => (hwpoison ? [frame] : [])),
      absent: [],
    };
  }
}
