/** What commands ask of machines whose memory goes bad, and what the harness refuses before a machine is asked. */
import type { McGuest, McHow, McSeverity, McUse } from '../../../model/core/machine-check.ts';
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { Config } from '../../../model/core/profile.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Label } from '../../../model/core/state.ts';
import { performOn } from '../host.ts';
import { BareMetal, type MetalGuest } from './bare-metal.ts';
import { Stopped, toldOf, type Cpu, type Touched } from './cpu.ts';
import type { Work } from './guest-kernel.ts';
import type { Owner } from './guest-mm.ts';
import type { CacheEvent, Guest, McMachine as Machine, Where } from './machine.ts';
import type { VirtualGuest } from './hosting.ts';
import { VirtualMachine } from './virtual.ts';

export type McMachine = VirtualMachine | BareMetal;

type YesNo = 'yes' | 'no';

interface Args {
  readonly guest: Label;
  readonly gfn: string;
  readonly line: string;
  readonly cpu: string;
  readonly task: string;
  readonly by: string;
  readonly where: Where;
  readonly how: McHow;
  readonly value: bigint;
}

type Handler<M, G> = (machine: M, guest: G, args: never) => Outcome;
type Handlers<M, G> = Readonly<Record<string, Handler<M, G>>>;

/** What happens to frames, whatever became of the guest. */
const OF_HARDWARE: ReadonlySet<string> = new Set(['hw.poison', 'hw.scrub']);
const ABOUT_FRAMES: ReadonlySet<string> = new Set([...OF_HARDWARE, 'page.simulate', 'page.unpoison']);

const cpuOf = ({ kernel }: Guest, id: string): Cpu => kernel.cpus[Number(id)] as Cpu;
const isPlugged = ({ kernel }: Guest, gfn: string): boolean => kernel.pages.has(Number(gfn));
const isAlive = ({ kernel }: Guest, task: string): boolean => kernel.tasks[Number(task)]?.alive === true;
const isRunning = ({ stage }: Cpu): boolean => stage === 'runs';

/** The first of these that is a refusal. */
const refusal = (...refusals: readonly (Errno | false)[]): Errno | undefined =>
  refusals.find((each): each is Errno => each !== false);

const unplugged = (guest: Guest, { gfn }: Pick<Args, 'gfn'>): Errno | false => !isPlugged(guest, gfn) && 'EFAULT';
const stopped = (guest: Guest, id: string): Errno | false => !isRunning(cpuOf(guest, id)) && 'EBUSY';
const stoppedAny = ({ kernel }: Guest): Errno | false => !kernel.cpus.every(isRunning) && 'EBUSY';

const when = (refused: Errno | undefined, otherwise: () => Outcome): Outcome =>
  refused === undefined ? otherwise() : fails(refused);

const outcomeOf = (touched: Touched, told: bigint | undefined): Outcome =>
  touched instanceof Stopped ? touched.outcome : ok(told);

function taskTouch(guest: Guest, args: Args): Outcome {
  const { task, gfn, line, how, value } = args;
  const { kernel } = guest;
  const cpu = cpuOf(guest, task);
  const [work] = kernel.worksOf(cpu);
  const goesOn = work === undefined || (how === 'copyin' && work.func === 'kill_me_never' && !work.recovered);
  return when(
    refusal(unplugged(guest, args), !isAlive(guest, task) && 'ENOENT', stopped(guest, task), !goesOn && 'EBUSY'),
    () => told(kernel.userTouch(cpu, Number(gfn), Number(line), how, value), how),
  );
}

const told = (touched: Touched, how: McHow): Outcome =>
  outcomeOf(touched, touched instanceof Stopped ? undefined : toldOf(how, touched));

function kernelTouch(guest: Guest, args: Args): Outcome {
  const { cpu, gfn, line, how, value } = args;
  return when(refusal(unplugged(guest, args), stopped(guest, cpu)), () =>
    told(
      guest.kernel.throughOneToOne(
        ...[cpuOf(guest, cpu), Number(gfn), Number(line), how, how === 'store' ? value : undefined],
      ),
      how,
    ),
  );
}

function pageAlloc(
  guest: Guest,
  args: Args & { readonly use: Exclude<McUse, 'free'>; readonly owner: Owner },
): Outcome {
  const { cpu, gfn, use, owner } = args;
  const { kernel } = guest;
  const isKilled = use !== 'kernel' && kernel.ownersOf(owner).some(({ alive }) => !alive);
  return when(refusal(unplugged(guest, args), isKilled && 'ENOENT', stopped(guest, cpu)), () =>
    kernel.alloc(cpuOf(guest, cpu), Number(gfn), use, owner),
  );
}

/** A step of a CPU's work, or of the worker's, which runs on CPU 0. */
function step(
  guest: Guest,
  { by }: Args,
  recovered: boolean,
  take: (cpu: Cpu, works: Work[], work: Work) => Outcome,
): Outcome {
  const { kernel } = guest;
  const cpu = cpuOf(guest, by === 'worker' ? '0' : by);
  const works = by === 'worker' ? kernel.worker : kernel.worksOf(cpu);
  const work = kernel.workAt(works, recovered);
  return when(refusal(!isRunning(cpu) && 'EBUSY'), () =>
    work === undefined ? fails('ENOENT') : take(cpu, works, work),
  );
}

function disturbing(guest: Guest, run: () => Outcome): Outcome {
  guest.disturbed = true;
  return run();
}

/** What every machine does. */
const COMMON: Handlers<Machine, Guest> = {
  'guest.reboot': (machine, guest, { replace }: Args & { replace: YesNo }) => machine.reboot(guest, replace === 'yes'),
  'guest.destroy': (machine, guest) => machine.destroy(guest),
  'page.alloc': (_machine, guest, args: Args & { use: Exclude<McUse, 'free'>; owner: Owner }) => pageAlloc(guest, args),
  'page.free': (_machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args)), () => guest.kernel.release(Number(args.gfn))),
  'task.start': (_machine, guest, { task }: Args) => {
    const busy = guest.kernel.worksOf(cpuOf(guest, task)).length > 0;
    return when(refusal(isAlive(guest, task) && 'EEXIST', stopped(guest, task), busy && 'EBUSY'), () => {
      guest.kernel.fork(Number(task));
      return ok();
    });
  },
  'task.touch': (_machine, guest, args: Args) => taskTouch(guest, args),
  'kernel.touch': (_machine, guest, args: Args) => kernelTouch(guest, args),
  'device.read': (machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args)), () => machine.deviceRead(guest, Number(args.gfn), Number(args.line))),
  'hw.poison': (machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args)), () =>
      disturbing(guest, () => machine.spoil(guest, Number(args.gfn), Number(args.line))),
    ),
  'hw.cache': (machine, guest, args: Omit<Args, 'how'> & { how: CacheEvent }) =>
    when(refusal(unplugged(guest, args)), () => machine.cache(guest, Number(args.gfn), Number(args.line), args.how)),
  'hw.scrub': (machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args)), () => machine.scrub(guest, Number(args.gfn))),
  'kernel.handle': (_machine, guest, { cpu }: Args) =>
    cpuOf(guest, cpu).stage === 'machine-check' ? guest.kernel.doMachineCheck(cpuOf(guest, cpu)) : fails('ENOENT'),
  'kernel.recover': (_machine, guest, args: Args) =>
    step(guest, args, false, (...work) => guest.kernel.recover(...work)),
  'kernel.isolate': (_machine, guest, args: Args) =>
    step(guest, args, true, (...work) => guest.kernel.isolate(...work)),
  'page.simulate': (machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args)), () =>
      disturbing(guest, () => machine.simulate(guest, Number(args.gfn), args.where)),
    ),
  'page.unpoison': (machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args)), () => machine.unpoison(guest, Number(args.gfn), args.where)),
};

type Register = 'mcg-ctl' | 'bank0-ctl' | 'bank1-ctl' | 'cr4-mce';

function mceControl(cpu: Cpu, register: Register, value: boolean): Outcome {
  const { mca } = cpu;
  if (register === 'mcg-ctl') mca.mcgCtl = value;
  else if (register === 'cr4-mce') mca.cr4Mce = value;
  else {
    const bank = mca.banks[register === 'bank0-ctl' ? 0 : 1];
    if (bank !== undefined) bank.ctl = value;
  }
  return ok();
}

function vmmAnswer(machine: VirtualMachine, guest: VirtualGuest, { by }: Args): Outcome {
  const cpu = cpuOf(guest, by === 'main' ? '0' : by);
  if (by !== 'main') return cpu.stage === 'vmm' ? machine.answerTouch(guest, cpu) : fails('ENOENT');
  if (!isRunning(cpu) && cpu.stage !== 'machine-check') return fails('EBUSY');
  const gfn = guest.vmm.told.shift();
  if (gfn === undefined) return fails('ENOENT');
  // As QEMU does: a machine check that needs no action is dropped while another one is being handled.
  return cpu.stage === 'machine-check' ? ok() : machine.answerEarly(guest, cpu, gfn);
}

/** Whether anybody still has something to do about the frame. */
const isSpokenOf = ({ kernel, vmm }: VirtualGuest, gfn: number): boolean =>
  vmm.told.includes(gfn) || [kernel.worker, ...kernel.works].some((works) => works.some(({ pfn }) => pfn === gfn));

const VIRTUAL: Handlers<VirtualMachine, VirtualGuest> = {
  ...(COMMON as Handlers<VirtualMachine, VirtualGuest>),
  'guest.migrate': (machine, guest) =>
    when(refusal(guest.vmm.gmem !== undefined && 'EOPNOTSUPP', stoppedAny(guest)), () => machine.migrate(guest)),
  'guest.unplug': (machine, guest, args: Args) =>
    when(refusal(unplugged(guest, args), stoppedAny(guest), isSpokenOf(guest, Number(args.gfn)) && 'EBUSY'), () =>
      machine.unplug(guest, Number(args.gfn)),
    ),
  'guest.plug': (machine, guest, { gfn }: Args) =>
    isPlugged(guest, gfn) ? fails('EEXIST') : machine.plug(guest, Number(gfn)),
  'host.recover': (machine, guest, { cpu }: Args) =>
    cpuOf(guest, cpu).stage === 'host-work' ? machine.hostRecover(guest, cpuOf(guest, cpu)) : fails('ENOENT'),
  'vmm.answer': vmmAnswer,
  'mce.set': (machine, guest, args: Args & { bank: string; severity: McSeverity; valid: YesNo }) => {
    const { cpu, bank, severity, gfn, valid } = args;
    const { stage } = cpuOf(guest, cpu);
    const isOut = stage !== 'runs' && stage !== 'machine-check';
    return when(refusal(unplugged(guest, args), isOut && 'EBUSY'), () =>
      disturbing(guest, () =>
        machine.makeUpMce(guest, cpuOf(guest, cpu), Number(bank), {
          severity,
          gfn: Number(gfn),
          valid: valid === 'yes',
        }),
      ),
    );
  },
  'mce.control': (
    _machine,
    guest,
    { cpu, register, value }: Omit<Args, 'value'> & { register: Register; value: string },
  ) => disturbing(guest, () => mceControl(cpuOf(guest, cpu), register, value === 'on')),
};

/** Commands are the steps: there are no points at which another one could run. */
export function performMc(machine: McMachine, command: AnyCommand): Outcome {
  const args = command.args as unknown as Args & { readonly memory: McGuest['memory'] };
  if (command.name === 'guest.create') return machine.create(args.guest, args.memory);
  const guest = machine.guests.get(args.guest);
  const isOfHost = machine.has('virtual') && (OF_HARDWARE.has(command.name) || args.where === 'host');
  if (guest !== undefined && !isAnswered(guest, command.name, isOfHost)) return fails('EIO');
  return machine instanceof VirtualMachine
    ? performOn(machine, VIRTUAL, args.guest, command)
    : performOn(machine, COMMON as Handlers<BareMetal, MetalGuest>, args.guest, command);
}

/** Whether somebody is left to do it: the host, where what the guest runs on is one. */
function isAnswered({ state }: Guest, name: string, isOfHost: boolean): boolean {
  if (state === 'running' || name === 'guest.destroy') return true;
  return state !== 'killed' && (name === 'guest.reboot' || (isOfHost && ABOUT_FRAMES.has(name)));
}

/** The machine whose rules are those of the profile. */
export const newMcMachine = (config: Config): McMachine =>
  config.profile.features.includes('virtual') ? new VirtualMachine(config) : new BareMetal(config);
