/**
 * Wrong ways to lower a program, with which the kit grades itself on a real kernel: each takes what was lowered and makes
 * one thing of it wrong, as a mistake in the code would for every program.
 */
import { PAGE_SIZE } from '../../model/core/abi.ts';
import type { Machine } from '../../model/core/machine.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import type { CallProgram, Layout, Operand, Segment, Step } from './calls.ts';
import { lower, type LoweredProgram } from './lower.ts';
import { address, plus, structBytes, value } from './lowering.ts';
import type { Reading } from './reading.ts';
import {
  CACHESTAT_RANGE,
  CREATE_GUEST_MEMFD,
  KVM,
  MEMORY_ATTRIBUTES,
  PRE_FAULT_MEMORY,
  REGION2,
  REGS,
  SYS,
  type KvmIoctl,
} from './uapi.ts';

export interface LoweringMutant {
  /** Named after what is wrong. */
  readonly id: string;
  /** What is wrong, as a sentence. */
  readonly fault: string;
  /** Why it cannot be noticed on such a machine, or undefined where it can. */
  readonly hidden?: (machine: Machine) => string | undefined;
  /** Whether results are as they should be, and only what the agent is left with tells. */
  readonly leaks?: true;
  readonly spoil: Spoil;
}

type Spoil = (lowered: LoweredProgram, program: readonly AnyCommand[]) => LoweredProgram;

/** In place of `lower`, for KernelTarget.open(). */
export const lowerWrongly =
  ({ spoil }: LoweringMutant): typeof lower =>
  (program, machine, options) =>
    spoil(lower(program, machine, options), program);

type CallStep = Extract<Step, { readonly kind: 'call' }>;
type CommandName = AnyCommand['name'];

/** A step that does nothing, and has the result that success has. */
const NOTHING: Step = { kind: 'skip', count: 0, when: 'equal', operand: value(0n), value: 0n };

const withCalls = (lowered: LoweredProgram, calls: Partial<CallProgram>): LoweredProgram => ({
  ...lowered,
  calls: { ...lowered.calls, ...calls },
});

/** Where a step belongs: to a command of that name, or to none, where it is before the first or past the last. */
interface Place {
  readonly command: CommandName | undefined;
  /** Behind which command it only looks. */
  readonly behind: CommandName | undefined;
  readonly steps: readonly Step[];
  readonly at: number;
}

const steps =
  (edit: (step: Step, place: Place) => Step): Spoil =>
  (lowered, program) => {
    const { firstSteps, end, calls } = lowered;
    const placeOf = (at: number): Pick<Place, 'command' | 'behind'> => {
      const index = at >= end ? -1 : firstSteps.findLastIndex((first) => first <= at);
      const name = program[index]?.name;
      const [first, past] = lowered.looks[index]?.steps ?? [end, end];
      return first <= at && at < past ? { command: undefined, behind: name } : { command: name, behind: undefined };
    };
    return withCalls(lowered, {
      steps: calls.steps.map((step, at) => edit(step, { ...placeOf(at), steps: calls.steps, at })),
    });
  };

const callsOf = (number: number, commands: readonly CommandName[], edit: (call: CallStep, place: Place) => Step) =>
  steps((step, place) =>
    step.kind === 'call' && step.number === number && commands.includes(place.command ?? 'none')
      ? edit(step, place)
      : step,
  );

const looksOf = (number: number, edit: (call: CallStep, place: Place) => Step) =>
  steps((step, place) =>
    step.kind === 'call' && step.number === number && place.behind !== undefined ? edit(step, place) : step,
  );

const withArg = (call: CallStep, index: number, edit: (operand: Operand) => Operand): CallStep => ({
  ...call,
  args: call.args.map((arg, at) => (at === index ? edit(arg) : arg)),
});

const requests =
  (request: KvmIoctl) =>
  (step: Step | undefined): step is CallStep =>
    step?.kind === 'call' && step.number === SYS.ioctl && valueOf(step.args[1]) === KVM[request];

const valueOf = (operand: Operand | undefined): bigint | undefined =>
  operand?.kind === 'value' ? operand.value : undefined;

const segments =
  (edit: (segment: Segment) => Uint8Array): Spoil =>
  (lowered) =>
    withCalls(lowered, { segments: lowered.calls.segments.map((each) => ({ ...each, bytes: edit(each) })) });

type Fields = Record<string, bigint>;

/** Changes fields of every structure of that kind, which has no fields but those that the layout names. */
const structs =
  (layout: Layout, edit: (fields: Fields) => Fields): Spoil =>
  (lowered, program) => {
    const places = placesOf(layout, lowered);
    return segments(({ offset, bytes }) =>
      places.has(offset) ? structBytes(layout, edit(fieldsOf(layout, bytes))) : bytes,
    )(lowered, program);
  };

/** Where in the data area structures of that kind lie. */
const placesOf = (layout: Layout, { legend }: LoweredProgram): ReadonlySet<number> =>
  new Set(legend.variables.flatMap((each) => (each.layout === layout ? [each.offset] : [])));

function fieldsOf({ fields }: Layout, bytes: Uint8Array): Fields {
  const word = (offset: number, width: number): bigint =>
    bytes.subarray(offset, offset + width).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  return Object.fromEntries(Object.entries(fields).map(([name, place]) => [name, word(place.offset, place.bytes)]));
}

const more = (layout: Layout, field: string, amount: bigint): Spoil =>
  structs(layout, (fields) => ({ ...fields, [field]: (fields[field] ?? 0n) + amount }));

const puts = (layout: Layout, field: string, edit: (operand: Operand, place: Place) => Operand): Spoil => {
  const target = layout.fields[field]?.offset ?? 0;
  return (lowered, program) => {
    const structAt = placesOf(layout, lowered);
    return steps((step, place) =>
      step.kind === 'put' && structAt.has(step.offset - target)
        ? { ...step, operand: edit(step.operand, place) }
        : step,
    )(lowered, program);
  };
};

/** The descriptor of a guest memory file that was created before, and is not this one. */
function anotherFile(operand: Operand, { steps: all, at }: Place): Operand {
  const other = all.findIndex(
    (step, index) =>
      index < at && requests('CREATE_GUEST_MEMFD')(step) && !(operand.kind === 'result' && operand.step === index),
  );
  return other < 0 ? operand : { kind: 'result', step: other, plus: 0n };
}

/** dup() gives no new descriptor: what it should have named is the old one. */
const dups =
  (instead: (call: CallStep) => Step): Spoil =>
  (lowered, program) => {
    const olds = new Map<number, Operand>();
    const original = (operand: Operand): Operand =>
      (operand.kind === 'result' ? olds.get(operand.step) : undefined) ?? operand;
    return steps((step, { command, at }) => {
      if (step.kind !== 'call') return { ...step, operand: original(step.operand) };
      const call = { ...step, args: step.args.map(original) };
      if (command !== 'fd.dup') return call;
      olds.set(at, call.args[0] ?? value(0n));
      return instead(call);
    })(lowered, program);
  };

/** Only what those readings refer to. */
const readings =
  (command: CommandName, edit: (reading: Reading) => Reading): Spoil =>
  (lowered, program) => ({
    ...lowered,
    readings: lowered.readings.map((reading, at) => (program[at]?.name === command ? edit(reading) : reading)),
  });

/** Of the tables' entries, the one that shows the first page: the second of its page. */
const FIRST_PAGE_ENTRY = 8n;
const isEntryOfFirstPage = ({ offset, bytes }: Segment): boolean =>
  bytes.length === 8 && BigInt(offset) % PAGE_SIZE === FIRST_PAGE_ENTRY && (bytes[0] ?? 0) === 0x67;

/** The mappings of struct kvm_run alone have no place of their own. */
const mapsRun = (step: Step | undefined): boolean =>
  step?.kind === 'call' &&
  step.number === SYS.mmap &&
  valueOf(step.args[0]) === 0n &&
  valueOf(step.args[1]) === PAGE_SIZE;

const ACCESSES = ['guest.load', 'guest.store'];
/** `mov %rax, (%rbx)`. */
const STORE_BYTES = 3n;

const withoutAttributes = ({ memoryAttributes }: Machine) =>
  memoryAttributes ? undefined : 'the machine has no memory attributes: the ioctl fails whatever it is given';

export const LOWERING_MUTANTS: readonly LoweringMutant[] = [
  {
    id: 'vm-type-dropped',
    fault: 'Every VM is created with type 0.',
    spoil: callsOf(SYS.ioctl, ['vm.create'], (call) =>
      requests('CREATE_VM')(call) ? withArg(call, 2, () => value(0n)) : call,
    ),
  },
  {
    id: 'file-flags-dropped',
    fault: 'KVM_CREATE_GUEST_MEMFD is called without flags.',
    spoil: structs(CREATE_GUEST_MEMFD, (fields) => ({ ...fields, flags: 0n })),
  },
  {
    id: 'file-a-page-larger',
    fault: 'Files are created a page larger.',
    spoil: more(CREATE_GUEST_MEMFD, 'size', PAGE_SIZE),
  },
  {
    id: 'slot-flags-dropped',
    fault: 'KVM_SET_USER_MEMORY_REGION2 is called without flags.',
    spoil: structs(REGION2, (fields) => ({ ...fields, flags: 0n })),
  },
  {
    id: 'slot-offset-off',
    fault: 'guest_memfd_offset is a page further on.',
    spoil: more(REGION2, 'guest_memfd_offset', PAGE_SIZE),
  },
  {
    id: 'slot-size-off',
    fault: 'memory_size is a page more.',
    spoil: more(REGION2, 'memory_size', PAGE_SIZE),
  },
  {
    id: 'slot-address-off',
    fault: 'guest_phys_addr is a page further on.',
    spoil: more(REGION2, 'guest_phys_addr', PAGE_SIZE),
  },
  {
    id: 'slot-host-address-off',
    fault: 'userspace_addr is a page further on.',
    spoil: puts(REGION2, 'userspace_addr', (operand) => plus(operand, PAGE_SIZE)),
  },
  {
    id: 'slot-of-another-file',
    fault: 'guest_memfd is the descriptor of the first other file.',
    spoil: puts(REGION2, 'guest_memfd', anotherFile),
  },
  {
    id: 'slot-by-the-old-ioctl',
    fault: 'KVM_SET_USER_MEMORY_REGION is given a struct kvm_userspace_memory_region2.',
    spoil: callsOf(SYS.ioctl, ['slot.set'], (call) =>
      requests('SET_USER_MEMORY_REGION2')(call)
        ? withArg(call, 1, () => value(KVM.SET_USER_MEMORY_REGION, 'KVM_SET_USER_MEMORY_REGION'))
        : call,
    ),
  },
  {
    id: 'slot-result-ignored',
    fault: 'The result of the step before is taken for that of KVM_SET_USER_MEMORY_REGION2.',
    spoil: readings('slot.set', (reading) => ({ ...reading, step: reading.step - 1 })),
  },
  {
    id: 'attributes-in-the-wrong-struct',
    fault: 'Attributes are written as a struct kvm_pre_fault_memory: flags where attributes belong.',
    hidden: withoutAttributes,
    spoil: structs(MEMORY_ATTRIBUTES, ({ address = 0n, size = 0n, flags = 0n }) => ({
      address,
      size,
      attributes: flags,
    })),
  },
  {
    id: 'prefault-a-page-more',
    fault: 'KVM_PRE_FAULT_MEMORY is asked for a page more.',
    spoil: more(PRE_FAULT_MEMORY, 'size', PAGE_SIZE),
  },
  {
    id: 'fallocate-offset-dropped',
    fault: 'fallocate() always begins at zero.',
    spoil: callsOf(SYS.fallocate, ['gmem.fallocate'], (call) => withArg(call, 2, () => value(0n))),
  },
  {
    id: 'stat-next-field',
    fault: 'fstat() is read eight bytes further on.',
    spoil: (lowered, program) => {
      const read = new Set(
        lowered.readings.flatMap((reading, at) =>
          program[at]?.name === 'file.stat' && reading.kind === 'field' ? [reading.output] : [],
        ),
      );
      const outputs = lowered.calls.outputs.map((output, index) =>
        read.has(index) ? { ...output, offset: output.offset + 8 } : output,
      );
      return withCalls(lowered, { outputs });
    },
  },
  {
    id: 'map-offset-dropped',
    fault: 'mmap() always maps the beginning of a file.',
    spoil: callsOf(SYS.mmap, ['mem.map'], (call) => withArg(call, 5, () => value(0n))),
  },
  {
    id: 'unmap-first-page-only',
    fault: 'munmap() is given one page of each mapping.',
    spoil: callsOf(SYS.munmap, ['mem.unmap'], (call) => withArg(call, 1, () => value(PAGE_SIZE))),
  },
  {
    id: 'host-store-next-word',
    fault: 'The host stores to the word behind the one that is meant.',
    spoil: callsOf(SYS.pread64, ['host.store'], (call) => withArg(call, 1, (operand) => plus(operand, 8n))),
  },
  {
    id: 'guest-load-other-word',
    fault: 'The guest loads the neighbouring word.',
    spoil: structs(REGS, ({ rbx = 0n, ...fields }) => ({ ...fields, rbx: fields['rip'] === 0n ? rbx ^ 8n : rbx })),
  },
  {
    id: 'guest-store-dropped',
    fault: 'The guest rings the doorbell without having stored.',
    spoil: structs(REGS, ({ rip = 0n, ...fields }) => ({ ...fields, rip: rip === 0n ? rip : rip + STORE_BYTES })),
  },
  {
    id: 'mmio-not-completed',
    fault: 'An access that was left to be emulated is not completed, and spoils the next one.',
    spoil: callsOf(SYS.ioctl, ACCESSES, (call, { steps: all, at }) =>
      requests('RUN')(call) && all[at - 1]?.kind === 'skip' ? NOTHING : call,
    ),
  },
  {
    id: 'table-entry-off',
    fault: 'The entry for the first page that a program touches shows the page behind it.',
    spoil: segments((segment) => {
      if (!isEntryOfFirstPage(segment)) return segment.bytes;
      const bytes = segment.bytes.slice();
      const view = new DataView(bytes.buffer);
      view.setBigUint64(0, view.getBigUint64(0, true) + PAGE_SIZE, true);
      return bytes;
    }),
  },
  {
    id: 'close-missing',
    fault: 'Descriptors are not closed.',
    spoil: callsOf(SYS.close, ['fd.close'], () => NOTHING),
  },
  {
    id: 'dup-is-the-same',
    fault: 'A duplicate is the descriptor itself.',
    spoil: dups(() => NOTHING),
  },
  {
    id: 'dup-closes',
    fault: 'close() is called in place of dup().',
    spoil: dups((call) => ({ ...call, number: SYS.close })),
  },
  {
    id: 'cache-of-the-next-page',
    fault: 'Looking asks whether the page behind is in the page cache.',
    spoil: more(CACHESTAT_RANGE, 'off', PAGE_SIZE),
  },
  {
    id: 'content-of-another-page',
    fault: 'Looking takes the beginning of the data area for the page that was loaded from.',
    spoil: looksOf(SYS.pwrite64, (call) => withArg(call, 1, () => address(0))),
  },
  {
    id: 'cache-forgotten-by-truncate',
    fault: 'Looking finds nothing in the page cache behind ftruncate().',
    spoil: looksOf(SYS.cachestat, (call, { behind }) => (behind === 'file.truncate' ? NOTHING : call)),
  },
  {
    id: 'run-left-mapped',
    fault: 'The struct kvm_run of a vCPU stays mapped, and the vCPU alive with it.',
    leaks: true,
    spoil: steps((step, { steps: all }) => {
      if (step.kind !== 'call' || step.number !== SYS.munmap) return step;
      const [start] = step.args;
      return start?.kind === 'result' && mapsRun(all[start.step]) ? NOTHING : step;
    }),
  },
  {
    id: 'not-tidied-up',
    fault: 'What a program leaves open stays open.',
    leaks: true,
    spoil: steps((step, { command }) =>
      step.kind === 'call' && command === undefined && step.number === SYS.close_range ? NOTHING : step,
    ),
  },
];
