/** What every machine of this realm is: guests by label, what happened to them, and what is seen of their kernels. */
import type { CpuFact, Facts, GuestFact, GuestPageFact, TaskFact } from '../../../model/core/facts.ts';
import type { EndingEvent, IsolationEvent, McGuest, McHow, TouchEvent } from '../../../model/core/machine-check.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Config, Feature } from '../../../model/core/profile.ts';
import type { Label } from '../../../model/core/state.ts';
import type { Access, Cpu, Touched } from './cpu.ts';
import { GuestKernel } from './guest-kernel.ts';
import { CPUS, type Platform } from './guest-mm.ts';
import type { PhysicalMemory } from './physical-memory.ts';

export interface Guest {
  readonly label: Label;
  kernel: GuestKernel;
  state: McGuest['state'];
  disturbed: boolean;
  reboots: number;
  replaced: number;
}

/** What nothing has happened to yet. */
export const UNDISTURBED = { state: 'running', disturbed: false, reboots: 0, replaced: 0 } as const;

export type CacheEvent = 'fill' | 'spoil' | 'evict';

/** In which kernel. */
export type Where = 'guest' | 'host';

export abstract class McMachine<G extends Guest = Guest> {
  readonly config: Config;
  /** So that a machine can have a kernel that is made wrong. */
  readonly Kernel: typeof GuestKernel;
  readonly guests = new Map<Label, G>();
  readonly touches: TouchEvent[] = [];
  readonly isolations: IsolationEvent[] = [];
  readonly endings: EndingEvent[] = [];

  constructor(config: Config, Kernel = GuestKernel) {
    this.config = config;
    this.Kernel = Kernel;
  }

  abstract create(label: Label, memory: McGuest['memory']): Outcome;
  abstract reboot(guest: G, replace: boolean): Outcome;
  abstract destroy(guest: G): Outcome;
  abstract deviceRead(guest: G, gfn: number, line: number): Outcome;
  abstract spoil(guest: G, gfn: number, line: number): Outcome;
  abstract scrub(guest: G, gfn: number): Outcome;
  abstract simulate(guest: G, gfn: number, where: Where): Outcome;
  abstract unpoison(guest: G, gfn: number, where: Where): Outcome;
  abstract facts(): Facts;
  protected abstract readonly memory: PhysicalMemory;
  /** The frame behind a guest frame, and whether speculation gets there. */
  protected abstract behind(guest: G, gfn: number): { readonly frame: number | undefined; readonly isTaken: boolean };
  protected abstract access(guest: G, cpu: Cpu, access: Access): Touched;

  has(feature: Feature): boolean {
    return this.config.profile.features.includes(feature);
  }

  forgetEvents(): void {
    this.touches.length = 0;
    this.isolations.length = 0;
    this.endings.length = 0;
  }

  /** A kernel that has booted with these frames, which may hold anything. */
  protected boot(guest: () => G, gfns: readonly number[]): GuestKernel {
    const platform: Platform = {
      access: (cpu, access) => this.access(guest(), cpu, access),
      panicked: (of) => {
        this.end(guest(), 'panicked', { by: 'panic', of: of?.gfn, how: of?.how });
      },
      ended: (event) => this.endings.push({ vm: guest().label, ...event }),
      isolated: (gfn, touched) => this.isolations.push({ vm: guest().label, gfn, touched }),
    };
    return new this.Kernel(platform, gfns, (feature) => this.has(feature));
  }

  /** The same frames, and a kernel that knows nothing of them. */
  protected restart(guest: G, gfns: readonly number[]): void {
    guest.kernel = this.boot(() => guest, gfns);
    guest.state = 'running';
    guest.reboots++;
  }

  end(guest: G, state: Exclude<McGuest['state'], 'running'>, why: Omit<EndingEvent, 'vm' | 'task'>): void {
    guest.state = state;
    this.endings.push({ vm: guest.label, ...why });
  }

  /** hw.cache: what happens to a line without anybody’s doing. */
  cache(guest: G, gfn: number, line: number, how: CacheEvent): Outcome {
    const { frame, isTaken } = this.behind(guest, gfn);
    if (frame === undefined) return fails('ENOENT');
    switch (how) {
      case 'fill':
        if (!isTaken && guest.kernel.oneToOne.shows(gfn) === 'present') this.memory.fetch(frame, line);
        return ok();
      case 'spoil':
        if (!this.memory.spoilCached(frame, line)) return fails('ENOENT');
        guest.disturbed = true;
        return ok();
      case 'evict':
        this.writeBack(guest, frame, gfn, line);
        return ok();
    }
  }

  /** Poison that comes to memory is reported as what the scrubber finds there. */
  protected writeBack(guest: G, frame: number, gfn: number, line: number): void {
    if (this.memory.writeBack(frame, line)) this.scrub(guest, gfn);
  }

  protected noteTouch(
    { label }: G,
    { gfn, line, by, how }: Pick<Access, 'gfn' | 'line' | 'how'> & { readonly by: TouchEvent['by'] },
    comesTo: TouchEvent['comesTo'],
  ): void {
    this.touches.push({ vm: label, gfn, line, by, how, comesTo });
  }

  protected noteDeviceTouch(guest: G, gfn: number, line: number, comesTo: TouchEvent['comesTo']): void {
    const how: McHow = 'load';
    this.noteTouch(guest, { gfn, line, by: 'device', how }, comesTo);
  }

  protected factsOfGuests(): Required<
    Pick<Facts, 'vms' | 'guests' | 'cpus' | 'tasks' | 'guestPages' | 'touches' | 'isolations' | 'endings'>
  > {
    const guests = [...this.guests.values()];
    const running = guests.filter(({ state }) => state === 'running');
    return {
      vms: guests.map(({ label }) => ({ vm: label })),
      guests: guests.map(({ label, state, disturbed, reboots, replaced }): GuestFact => ({
        vm: label,
        ...{ state, disturbed, reboots, replaced },
      })),
      cpus: running.flatMap(cpuFacts),
      tasks: running.flatMap(({ label, kernel }) =>
        kernel.tasks.map(({ id, alive }): TaskFact => ({ vm: label, task: id, alive })),
      ),
      guestPages: running.flatMap(pageFacts),
      touches: [...this.touches],
      isolations: [...this.isolations],
      endings: [...this.endings],
    };
  }
}

const cpuFacts = ({ label, kernel }: Guest): readonly CpuFact[] =>
  kernel.cpus.map((cpu) => {
    const [work] = kernel.worksOf(cpu);
    const step = work === undefined ? 'none' : work.recovered ? 'isolate' : 'recover';
    return { vm: label, cpu: cpu.id, stage: cpu.stage, work: step, checks: kernel.taskOf(cpu).mceCount };
  });

const pageFacts = ({ label, kernel }: Guest): readonly GuestPageFact[] =>
  [...kernel.pages.values()].map((page) => {
    const { pfn, hwpoison } = page;
    const having = (kind: 'present' | 'hwpoison'): readonly number[] =>
      CPUS.filter((id) => kernel.tasks[id]?.mm.ptes.get(pfn)?.kind === kind);
    return {
      ...{ vm: label, gfn: pfn, use: kernel.useOf(page), poisoned: hwpoison, oneToOne: kernel.oneToOne.shows(pfn) },
      ...{ shownTo: having('present'), poisonFor: having('hwpoison') },
    };
  });
