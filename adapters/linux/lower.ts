/** A whole program of the model as one program of system calls, and the way back. */
import { KVM_MEM_MAX_NR_PAGES, KVM_USER_MEM_SLOTS, PAGE_MASK, PAGE_SIZE, U16_MAX } from '../../model/core/abi.ts';
import type { Command } from '../../model/catalogue.ts';
import type { Observation } from '../../model/core/outcome.ts';
import type { Machine } from '../../model/core/machine.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { ARENA, ARENA_PAGES, DEVICE, OTHER, type Label } from '../../model/core/state.ts';
import type { CallProgram, CallResults } from './calls.ts';
import { ABSENT, COMMANDS, unmapRun, type Context, type Executable } from './commands.ts';
import { MemoryFailures } from './frames.ts';
import { Guest, type GuestPlan, type Hideout } from './guest.ts';
import { Looking, type Look } from './looks.ts';
import { Lowering, value, type Legend } from './lowering.ts';
import { printPlace, type Place } from './places.ts';
import { observe, type Reading } from './reading.ts';
import { AT_FDCWD, MAP, O_CLOEXEC, O_RDWR, PROT_READ_WRITE } from './uapi.ts';

export interface LoweredProgram {
  readonly calls: CallProgram;
  /** For each command, the first step that belongs to it. */
  readonly firstSteps: readonly number[];
  /** The first step after the last command: from there on the program tidies up. */
  readonly end: number;
  readonly readings: readonly Reading[];
  /** What is looked at behind each command; empty where nothing is to be. */
  readonly looks: readonly Look[];
  readonly legend: Legend;
  /** What vCPUs are given, where the program makes use of them. */
  readonly guest: GuestPlan | undefined;
}

/** A command that takes more than system calls. */
export class NotExecutable extends RangeError {
  override readonly name = 'NotExecutable';
  /** Where in the program it stands. */
  readonly at: number;
  constructor(at: number, command: string, reason = 'it is unknown') {
    super(`a kernel cannot execute ${command}: ${reason}`);
    this.at = at;
  }
}

/** What each command came to: as many as the agent got through. */
export function observations({ firstSteps, end, readings }: LoweredProgram, results: CallResults): Observation[] {
  const done = readings.filter((_, index) => (firstSteps[index + 1] ?? end) <= results.results.length);
  return done.map((each) => observe(each, results));
}

export interface LowerOptions {
  /** The program says in the kernel's log where it is. */
  readonly tellsPlaces?: boolean | undefined;
  /** The program looks at what the kernel shows, behind every command. */
  readonly looking?: boolean | undefined;
  /** Memory fails when the program asks for it: its kernel is one in QEMU, with agent/frames.c at work. */
  readonly failsMemory?: boolean | undefined;
}

export function lower(
  program: readonly AnyCommand[],
  machine: Machine,
  { tellsPlaces = false, looking = false, failsMemory = false }: LowerOptions = {},
): LoweredProgram {
  const commands = program as readonly Command[];
  const lowering = new Lowering();
  const context = prepare(lowering, commands, machine);
  const eyes = looking ? new Looking(lowering, context.file) : undefined;
  const tell = tellsPlaces ? openLog(lowering) : () => undefined;
  tell('before');
  const firstSteps: number[] = [];
  const looks: Look[] = [];
  const readings = commands.map((command, index) => {
    const { name, args } = command;
    firstSteps.push(lowering.steps.length);
    tell(index);
    const lowerIt = COMMANDS[name as Executable] as ((args: object, context: Context) => Reading) | undefined;
    if (lowerIt === undefined) throw new NotExecutable(index, name, ABSENT[name as keyof typeof ABSENT]);
    if (name === 'memory.fail' && !failsMemory) throw new NotExecutable(index, name, ONLY_IN_QEMU);
    const reading = lowerIt(args, context);
    if (eyes !== undefined) looks.push(eyes.after(command, reading));
    return reading;
  });
  const end = lowering.steps.length;
  tell('after');
  for (const run of context.runs.values()) unmapRun(lowering, run);
  lowering.cleanUp(lowering.result(0));
  return {
    calls: lowering.program(),
    firstSteps,
    end,
    readings,
    looks,
    legend: lowering.legend(),
    guest: context.guest?.plan(),
  };
}

const ONLY_IN_QEMU = 'memory failures are injected only into kernels in QEMU';

/** The file through which bytes are copied. */
const SCRATCH = 'scratch';

/** What is there before a program starts: the device, a file that is not KVM's, the arena. */
function prepare(lowering: Lowering, commands: readonly Command[], machine: Machine): Context {
  lowering.opened(DEVICE, open(lowering, '/dev/kvm'));
  lowering.opened(OTHER, open(lowering, '/dev/null'));
  const file = lowering.called(SCRATCH, lowering.call('memfd_create', lowering.text(SCRATCH), value(0n)));
  mapArena(lowering);
  const { accesses, vms, vcpus } = whoTouches(commands);
  // With shadow paging a VM that never had a slot may have no page tables: not a question that programs ask.
  const furnishes = (vm: Label): boolean => vms.has(vm) || !machine.twoDimensionalPaging;
  const pages = [...new Set(accesses.map((gpa) => gpa & ~PAGE_MASK))];
  const guest =
    vcpus.size === 0 && !walks(commands) && machine.twoDimensionalPaging
      ? undefined
      : new Guest(lowering, hide(commands, machine, Guest.room(pages.length)), pages, machine.vcpuPhysicalBits);
  return { lowering, file, guest, failures: new MemoryFailures(lowering), furnishes, active: vcpus, runs: new Map() };
}

/** Answers the step that opens the file for reading and writing. */
function open(lowering: Lowering, path: string): number {
  const flags = value(O_RDWR | O_CLOEXEC, 'O_RDWR | O_CLOEXEC');
  const folder = value(BigInt.asUintN(64, AT_FDCWD), 'AT_FDCWD');
  return lowering.call('openat', folder, lowering.text(path), flags);
}

function openLog(lowering: Lowering): (place: Place) => void {
  const log = lowering.result(open(lowering, '/dev/kmsg'));
  return (place) => {
    const line = printPlace(place);
    lowering.call('write', log, lowering.text(line), value(BigInt(line.length)));
  };
}

function mapArena(lowering: Lowering): void {
  const bytes = BigInt(ARENA_PAGES) * PAGE_SIZE;
  const place = lowering.placeFor(bytes);
  const step = lowering.call(
    'mmap',
    value(place),
    value(bytes),
    value(PROT_READ_WRITE, 'PROT_READ | PROT_WRITE'),
    value(MAP.PRIVATE | MAP.ANONYMOUS | MAP.POPULATE, 'MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE'),
    value(0xffff_ffff_ffff_ffffn, '-1'),
    value(0n),
  );
  lowering.mapped(ARENA, step, place, bytes);
}

/** Whether KVM reads page tables that the program has written: where they lead is not known beforehand. */
const walks = (commands: readonly Command[]): boolean => commands.some(({ name }) => name === 'guest.walk');

interface Touching {
  /** Guest addresses of every access. */
  readonly accesses: readonly bigint[];
  /** vCPUs that run, and the VMs of those, by the labels that first named them. */
  readonly vcpus: ReadonlySet<Label>;
  readonly vms: ReadonlySet<Label>;
}

function whoTouches(commands: readonly Command[]): Touching {
  const objects = new Map<Label, Label>();
  const objectOf = (label: Label): Label => objects.get(label) ?? label;
  const vmOf = new Map<Label, Label>();
  const accesses: bigint[] = [];
  const vcpus = new Set<Label>();
  for (const { name, args } of commands) {
    if (name === 'fd.dup') objects.set(args.as, objectOf(args.fd));
    if (name === 'vcpu.create') vmOf.set(args.vcpu, objectOf(args.vm));
    if (name !== 'guest.load' && name !== 'guest.store' && name !== 'guest.clock') continue;
    if (name !== 'guest.clock') accesses.push(args.gpa);
    vcpus.add(objectOf(args.vcpu));
  }
  return { accesses, vcpus, vms: new Set([...vcpus].map((vcpu) => vmOf.get(vcpu) ?? '')) };
}

/**
 * Longer ranges are never accepted: slots have so many pages at most, and attributes of more frames take more memory
 * than programs have.
 */
const LONGEST = KVM_MEM_MAX_NR_PAGES * PAGE_SIZE;
/** Nor are those of more bytes than so many times that memory. Source: model/gmem/memory-budget.ts. */
const STRETCH = 512n;

/**
 * A slot number and a place in guest physical memory that the program does not speak of. Where it speaks of all memory,
 * it is a place that only refused commands speak of, and the kit's slot steps aside for them.
 */
function hide(commands: readonly Command[], machine: Machine, bytes: number): Hideout {
  const slots = new Set(commands.flatMap(({ name, args }) => (name === 'slot.set' ? [args.slot & U16_MAX] : [])));
  const taken = commands.map(rangeOf).filter(([start, end]) => end > start);
  const top = 1n << BigInt(machine.vcpuPhysicalBits);
  const size = BigInt(bytes);
  const longest = LONGEST < STRETCH * machine.memoryBytes ? LONGEST : STRETCH * machine.memoryBytes;
  const acceptable = taken.filter(([start, end]) => end - start <= longest);
  // Far up, where no table leads by chance.
  const gpa = (walks(commands) ? undefined : highestGap(taken, top, size)) ?? highestGap(acceptable, top, size);
  if (gpa === undefined) throw new RangeError('the program leaves no guest memory for the code of its vCPUs');
  let slot = KVM_USER_MEM_SLOTS - 1n;
  while (slots.has(slot)) slot--;
  return { slot, gpa };
}

/** Guest addresses from the first up to the second. */
type Range = readonly [bigint, bigint];

/** What a command speaks of; nothing, for most. */
function rangeOf({ name, args }: Command): Range {
  switch (name) {
    case 'slot.set':
    case 'vcpu.prefault':
      return [args.gpa, args.gpa + args.size];
    case 'attributes.set':
      return [args.address, args.address + args.size];
    case 'guest.load':
    case 'guest.store':
    case 'guest.clock':
      return pageAt(args.gpa);
    case 'guest.walk':
      return pageAt(args.cr3);
    default:
      return [0n, 0n];
  }
}

const pageAt = (gpa: bigint): Range => [gpa & ~PAGE_MASK, (gpa & ~PAGE_MASK) + PAGE_SIZE];

/** The highest page below `top` from which on so many bytes are free. */
function highestGap(taken: readonly Range[], top: bigint, size: bigint): bigint | undefined {
  let end = top;
  for (const [from, to] of taken.toSorted(([, a], [, b]) => (a < b ? 1 : a > b ? -1 : 0)))
    if (to > end - size && from < end) end = from & ~PAGE_MASK;
  return end < size ? undefined : end - size;
}
