/** What commands ask of machines whose guests say which of their pages are shared. */
import { fails, type Outcome } from '../../../model/core/outcome.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Label } from '../../../model/core/state.ts';
import { performOn } from '../host.ts';
import type { Guest, Policy } from './guest.ts';
import type { Pattern } from './hypercalls.ts';
import type { Damage } from './image.ts';
import { PscBuffer } from './psc.ts';
import type { Scribble, StatusMachine } from './vmm.ts';

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

/** The VMM does one thing at a time, and so does the guest: no command can be interrupted. */
export function performStatus(machine: StatusMachine, command: AnyCommand): Outcome {
  const global = GLOBAL[command.name];
  const args = command.args as unknown as { readonly guest: Label };
  return global === undefined ? performOn(machine, OF_GUEST, args.guest, command) : global(machine, args as never);
}
