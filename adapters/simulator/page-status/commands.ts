/** What commands ask of machines whose guests say which of their pages are shared. */
import type { Facts, RecordFact } from '../../../model/core/facts.ts';
import { fails, type Outcome } from '../../../model/core/outcome.ts';
import type { Config } from '../../../model/core/profile.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Label } from '../../../model/core/state.ts';
import { sharedBy, type Guest, type Policy } from './guest.ts';
import type { Pattern } from './hypercalls.ts';
import type { Damage } from './image.ts';
import { PscBuffer } from './psc.ts';
import { StatusMachine, type Scribble } from './vmm.ts';

interface PscArgs {
  readonly cur: bigint;
  readonly end: bigint;
  readonly e0: bigint;
  readonly e1: bigint;
  readonly e2: bigint;
  readonly race: 'yes' | 'no';
}

type Handler = (machine: StatusMachine, guest: Guest, args: never) => Outcome;

const OF_GUEST: Readonly<Record<string, Handler>> = {
  'status.enable': (machine, guest, { on }: { on: 'yes' | 'no' }) => machine.enable(guest, on === 'yes'),
  'status.announce': (machine, guest, { gpa, pages, attributes }: { gpa: bigint; pages: bigint; attributes: bigint }) =>
    machine.announce(guest, gpa, pages, attributes),
  'status.flood': (machine, guest, { pattern, count }: { pattern: Pattern; count: string }) =>
    machine.flood(guest, pattern, Number(count)),
  'status.psc': (machine, guest, { cur, end, e0, e1, e2, race }: PscArgs) => {
    const header = { current: Number(cur), end: Number(end) };
    return machine.psc(guest, new PscBuffer(header, [e0, e1, e2], race === 'yes', machine.onOutside));
  },
  'status.page': (machine, guest, { gpa }: { gpa: bigint }) => machine.page(guest, gpa),
  'status.list': (machine, guest, { size }: { size: bigint }) => machine.list(guest, Number(size)),
  'status.save': (machine, guest, { image }: { image: Label }) => machine.save(guest, image),
  'status.load': (machine, guest, { image }: { image: Label }) =>
    machine.hasImage(image) ? machine.load(guest, image) : fails('EBADF'),
  'status.plug': (machine, guest, { gib }: { gib: string }) => machine.plug(guest, BigInt(gib)),
  'status.reset': (machine, guest, { by }: { by: 'reboot' | 'kexec' }) =>
    by === 'reboot' ? machine.reboot(guest) : machine.kexec(guest),
  'status.tick': (machine, guest) => machine.tick(guest),
  'status.donate': (machine, guest, { gpa, entries }: { gpa: bigint; entries: bigint }) =>
    machine.donate(guest, gpa, entries),
  'status.scribble': (machine, guest, { how }: { how: Scribble }) => machine.scribble(guest, how),
  'status.destroy': (machine, guest) => machine.destroy(guest),
};

interface CreateArgs {
  readonly guest: Label;
  readonly gib: string;
  readonly bound: bigint;
  readonly policy: Policy;
}

/** Commands that name no guest that is there. */
const GLOBAL: Readonly<Record<string, (machine: StatusMachine, args: never) => Outcome>> = {
  'status.create': (machine, { guest, gib, bound, policy }: CreateArgs) =>
    machine.create(guest, BigInt(gib), bound, policy),
  'status.damage': (machine, { image, how }: { image: Label; how: Damage }) =>
    machine.hasImage(image) ? machine.damage(image, how) : fails('EBADF'),
};

/**
 * A machine that executes commands. The VMM does one thing at a time, and so does the guest: no command can be
 * interrupted.
 */
export class StatusHost {
  onHandOver: undefined;
  private readonly machine: StatusMachine;

  constructor(machine: StatusMachine) {
    this.machine = machine;
  }

  run(command: AnyCommand): Outcome {
    this.forgetEvents();
    return this.execute(command);
  }

  forgetEvents(): void {
    this.machine.outOfBounds.length = 0;
    for (const { work } of this.machine.guests.values()) work.calls = work.steps = 0;
  }

  execute({ name, args }: AnyCommand): Outcome {
    const global = GLOBAL[name];
    if (global !== undefined) return global(this.machine, args as never);
    const handler = OF_GUEST[name];
    if (handler === undefined) throw new Error(`the simulator has no command '${name}' in this profile`);
    const guest = this.machine.guests.get((args as unknown as { readonly guest: Label }).guest);
    // Nothing is specified of a guest that is not there.
    return guest === undefined ? fails('EBADF') : handler(this.machine, guest, args as never);
  }

  facts(): Facts {
    const guests = [...this.machine.guests.values()];
    return {
      announced: guests.map((guest) => ({ guest: guest.label, ranges: sharedBy(guest) })),
      records: guests.map((guest): RecordFact => ({ guest: guest.label, ...this.machine.toldOf(guest) })),
      statusWork: guests.map(({ label, record: { units, bytes }, work }) => ({ guest: label, units, bytes, ...work })),
      outOfBounds: [...this.machine.outOfBounds],
    };
  }
}

export const newStatusHost = (config: Config): StatusHost => new StatusHost(new StatusMachine(config));
