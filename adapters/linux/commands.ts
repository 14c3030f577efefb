/**
 * Every command of the model as system calls, and where in their results the observation is to be read. Nothing is
 * decided here: what a call returns is what is told.
 */
import { PAGE_MASK, PAGE_SIZE } from '../../model/core/abi.ts';
import type { Address, Label } from '../../model/core/state.ts';
import { SYSTEMS, type Command } from '../../model/catalogue.ts';
import type { Operand } from './calls.ts';
import type { MemoryFailures } from './frames.ts';
import { copy, type Guest } from './guest.ts';
import { address, plus, value, type Lowering } from './lowering.ts';
import { pinned } from './pinned.ts';
import type { Reading } from './reading.ts';
import {
  CAPS,
  CREATE_GUEST_MEMFD,
  FALLOC_MODES,
  MAP,
  MEMORY_ATTRIBUTES,
  MS_ASYNC,
  PRE_FAULT_MEMORY,
  PROT_READ_WRITE,
  REGION,
  REGION2,
  STAT,
  VM_TYPES,
  WORD,
} from './uapi.ts';

/** What the lowering of a command may use. */
export interface Context {
  readonly lowering: Lowering;
  /** A file of the kit's own, through which bytes are copied. */
  readonly file: Operand;
  /** How vCPUs touch memory, where the program makes them do so. */
  readonly guest: Guest | undefined;
  readonly failures: MemoryFailures;
  /** Whether a VM is given the slot that holds code and tables of its vCPUs. */
  readonly furnishes: (vm: Label) => boolean;
  /** vCPUs that touch memory. */
  readonly active: ReadonlySet<Label>;
  /** Where the struct kvm_run of each of them is mapped, while its descriptor is open. */
  readonly runs: Map<Label, Operand>;
}

type ArgsOf<N extends Command['name']> = Extract<Command, { readonly name: N }>['args'];

type System = keyof typeof SYSTEMS;

/** Every command of a system, with why none is executed. */
const allOf = <S extends System>(system: S, why: string) =>
  Object.fromEntries(SYSTEMS[system].map(({ name }) => [name, why])) as Record<
    (typeof SYSTEMS)[S][number]['name'],
    string
  >;

/** Commands that no released kernel has, or that take more than system calls; and why. */
export const ABSENT = {
  'gmem.link': 'no released kernel has KVM_LINK_GUEST_MEMFD',
  'fault.slab': 'failing allocations are not injected into kernels yet',
  ...allOf('direct map', 'no released kernel takes guest memory out of the direct map'),
  ...allOf('TD-private memory', 'TDX, SEV and s390 hosts are not driven yet'),
  ...allOf('keys of SEV', 'SEV hosts are not driven yet; docs/sev-on-real-kernels.md has what is asked of others'),
  ...allOf(
    'the hypercall instruction',
    'a kernel has one processor; docs/sev-on-real-kernels.md has what is asked of it',
  ),
  ...allOf('page-encryption status', 'no released kernel records what guests share'),
  ...allOf('machine checks', 'machine checks are not raised in kernels yet'),
} as const satisfies Partial<Record<Command['name'], string>>;
export type Executable = Exclude<Command['name'], keyof typeof ABSENT>;
type Lower<N extends Executable> = (args: ArgsOf<N>, context: Context) => Reading;

const returned = (step: number, tells = false): Reading => ({ kind: 'call', step, tells });

/** A descriptor that a step opened, under a new label. */
function opens(lowering: Lowering, label: Label, step: number, object = label): Reading {
  lowering.opened(label, step, object);
  return returned(step);
}

function hostAddress(lowering: Lowering, { base, offset }: Address): Operand {
  const start = base === '' ? undefined : lowering.mappingStart(base);
  return plus(start ?? value(0n), offset);
}

function touchGuest(
  vcpu: Label,
  gpa: bigint,
  stored: bigint | undefined,
  { lowering, guest, runs, file }: Context,
): Reading {
  const descriptor = lowering.descriptor(vcpu);
  const run = runs.get(lowering.object(vcpu) ?? vcpu);
  if (guest === undefined || run === undefined) return returned(lowering.ioctl(descriptor, 'RUN', value(0n, 'NULL')));
  return { kind: 'guest', ...guest.access(descriptor, run, file, gpa, stored) };
}

/** Touches host memory through the kernel, which reports a fault as EFAULT; msync() then tells whether anything is mapped. */
function touchHost(mapping: Label, offset: bigint, stored: bigint | undefined, { lowering, file }: Context): Reading {
  const target = hostAddress(lowering, { base: mapping, offset });
  const word = lowering.reserve(WORD.bytes);
  if (stored !== undefined) {
    const bytes = new Uint8Array(WORD.bytes);
    new DataView(bytes.buffer).setBigUint64(0, stored, true);
    lowering.fill(word, bytes);
  }
  const [name, args, from, to] =
    stored === undefined
      ? (['host_load', [target], target, address(word)] as const)
      : (['host_store', [target, value(stored)], address(word), target] as const);
  let step = 0;
  lowering.block(name, args, () => {
    const steps = copy(lowering, file, from, to, WORD.bytes);
    step = stored === undefined ? steps.out : steps.into;
    lowering.skip('equal', lowering.result(step), BigInt(WORD.bytes), () => {
      lowering.call('msync', pageOf(target), value(PAGE_SIZE), value(MS_ASYNC, 'MS_ASYNC'));
    });
    return step;
  });
  const mapped = lowering.steps.length - 1;
  return { kind: 'host', step, mapped, loaded: stored === undefined ? lowering.output(word, WORD.bytes) : undefined };
}

/** The page that an address lies in: mappings begin at pages, so the constant decides. */
function pageOf(operand: Operand): Operand {
  if (operand.kind === 'result') return { ...operand, plus: operand.plus & ~PAGE_MASK };
  return operand.kind === 'value' ? value(operand.value & ~PAGE_MASK) : operand;
}

/** Mapped from a file that nothing else keeps open. */
function mapSecret(mapping: Label, length: bigint, lowering: Lowering): Reading {
  const place = lowering.placeFor(length);
  let [first, step] = [0, 0];
  lowering.block('map_secret', [value(place), value(length)], () => {
    first = lowering.call('memfd_secret', value(0n));
    const file = lowering.result(first);
    lowering.call('ftruncate', file, value(length));
    step = lowering.call(
      'mmap',
      value(place),
      value(length),
      value(PROT_READ_WRITE),
      value(MAP.SHARED),
      file,
      value(0n),
    );
    lowering.call('close', file);
    return step;
  });
  lowering.mapped(mapping, step, place, length);
  return { kind: 'call', step, tells: false, first };
}

const SHARING = {
  shared: value(MAP.SHARED, 'MAP_SHARED'),
  validate: value(MAP.SHARED_VALIDATE, 'MAP_SHARED_VALIDATE'),
  private: value(MAP.PRIVATE, 'MAP_PRIVATE'),
} as const;

export const COMMANDS: { readonly [N in Executable]: Lower<N> } = {
  'vm.create': ({ vm, dev, type }, { lowering, guest, furnishes }) => {
    const step = lowering.ioctl(lowering.descriptor(dev), 'CREATE_VM', value(type, VM_TYPES));
    const reading = opens(lowering, vm, step);
    if (furnishes(vm)) guest?.furnish(lowering.descriptor(vm));
    return reading;
  },

  'vcpu.create': ({ vcpu, vm, id }, { lowering, guest, active, runs }) => {
    const step = lowering.ioctl(lowering.descriptor(vm), 'CREATE_VCPU', value(id));
    const reading = opens(lowering, vcpu, step);
    if (guest !== undefined && active.has(vcpu)) runs.set(vcpu, guest.prepare(vcpu));
    return reading;
  },

  'cap.check': ({ fd, cap }, { lowering }) =>
    returned(lowering.ioctl(lowering.descriptor(fd), 'CHECK_EXTENSION', value(cap, CAPS)), true),

  'gmem.create': ({ file, vm, size, flags, reserved }, { lowering }) => {
    const struct = lowering.struct(CREATE_GUEST_MEMFD, { size, flags, reserved });
    return opens(lowering, file, lowering.ioctl(lowering.descriptor(vm), 'CREATE_GUEST_MEMFD', address(struct)));
  },

  'slot.set': ({ vm, api, slot, flags, gpa, size, hva, gmem, offset }, { lowering, guest, furnishes }) => {
    const region = { slot, flags, guest_phys_addr: gpa, memory_size: size };
    const layout = api === 'v1' ? REGION : REGION2;
    const struct = lowering.struct(layout, api === 'v1' ? region : { ...region, guest_memfd_offset: offset });
    lowering.put(struct, layout, 'userspace_addr', hostAddress(lowering, hva));
    if (api === 'v2') lowering.put(struct, layout, 'guest_memfd', lowering.descriptor(gmem));
    const request = api === 'v1' ? 'SET_USER_MEMORY_REGION' : 'SET_USER_MEMORY_REGION2';
    const descriptor = lowering.descriptor(vm);
    const inTheWay = furnishes(lowering.object(vm) ?? vm) && guest?.collides(gpa, size) === true;
    if (inTheWay) guest.withdraw(descriptor);
    const step = lowering.ioctl(descriptor, request, address(struct));
    if (inTheWay) guest.furnish(descriptor);
    return returned(step);
  },

  'attributes.set': ({ vm, address: start, size, attributes, flags }, { lowering }) => {
    const struct = lowering.struct(MEMORY_ATTRIBUTES, { address: start, size, attributes, flags });
    return returned(lowering.ioctl(lowering.descriptor(vm), 'SET_MEMORY_ATTRIBUTES', address(struct)));
  },

  'gmem.fallocate': ({ fd, mode, offset, length }, { lowering }) =>
    returned(
      lowering.call(
        'fallocate',
        lowering.descriptor(fd),
        value(unsigned(mode), FALLOC_MODES),
        value(unsigned(offset)),
        value(unsigned(length)),
      ),
    ),

  'memory.fail': ({ fd, page }, { lowering, failures }) => failures.fail(lowering.descriptor(fd), page),

  'file.io': ({ fd, op, offset }, { lowering }) => {
    const name = ({ read: 'read', write: 'write', pread: 'pread64', pwrite: 'pwrite64' } as const)[op];
    const buffer = address(lowering.room(WORD));
    const bytes = value(BigInt(WORD.bytes));
    return returned(lowering.call(name, lowering.descriptor(fd), buffer, bytes, value(unsigned(offset))), true);
  },

  'file.truncate': ({ fd, size }, { lowering }) =>
    returned(lowering.call('ftruncate', lowering.descriptor(fd), value(unsigned(size)))),

  'file.stat': ({ fd, field }, { lowering }) => {
    const buffer = lowering.room(STAT);
    const step = lowering.call('fstat', lowering.descriptor(fd), address(buffer));
    const { offset, bytes } = STAT.fields[`st_${field}`];
    return { kind: 'field', step, output: lowering.output(buffer + offset, bytes) };
  },

  'mem.map': ({ mapping, fd, length, offset, sharing }, { lowering }) => {
    const place = lowering.placeFor(length);
    const step = lowering.call(
      'mmap',
      value(place),
      value(length),
      value(PROT_READ_WRITE, 'PROT_READ | PROT_WRITE'),
      SHARING[sharing],
      lowering.descriptor(fd),
      value(offset),
    );
    lowering.mapped(mapping, step, place, length);
    return returned(step);
  },

  'mem.unmap': ({ mapping }, { lowering }) => returned(lowering.unmap(mapping)),

  'host.load': ({ mapping, offset }, context) => touchHost(mapping, offset, undefined, context),
  'host.store': ({ mapping, offset, value: word }, context) => touchHost(mapping, offset, word, context),
  'mem.secret': ({ mapping, length }, { lowering }) => mapSecret(mapping, length, lowering),
  'gup.read': ({ mapping, offset, via }, { lowering }) => {
    const word = lowering.room(WORD);
    const step = pinned(lowering, via, hostAddress(lowering, { base: mapping, offset }), word);
    return { kind: 'field', step, output: lowering.output(word, WORD.bytes) };
  },
  'gup.write': ({ mapping, offset, via, value: word }, { lowering }) =>
    returned(pinned(lowering, via, hostAddress(lowering, { base: mapping, offset }), lowering.room(WORD), word)),

  'guest.load': ({ vcpu, gpa }, context) => touchGuest(vcpu, gpa, undefined, context),
  'guest.store': ({ vcpu, gpa, value: word }, context) => touchGuest(vcpu, gpa, word, context),

  'guest.clock': ({ vcpu, gpa, mapping, offset }, { lowering, guest, runs, file }) => {
    const descriptor = lowering.descriptor(vcpu);
    const run = runs.get(lowering.object(vcpu) ?? vcpu);
    if (guest === undefined || run === undefined)
      return returned(lowering.ioctl(descriptor, 'SET_MSRS', value(0n, 'NULL')));
    const host = hostAddress(lowering, { base: mapping, offset });
    return { kind: 'field', ...guest.clock(descriptor, run, file, gpa, host) };
  },

  'guest.walk': ({ vcpu, cr3, gva }, { lowering, guest }) => {
    if (guest === undefined) throw new Error('nobody has prepared a vCPU for the walk');
    return { kind: 'field', ...guest.walk(lowering.descriptor(vcpu), cr3, gva) };
  },

  'vcpu.prefault': ({ vcpu, gpa, size, flags }, { lowering }) => {
    const struct = lowering.struct(PRE_FAULT_MEMORY, { gpa, size, flags });
    const step = lowering.ioctl(lowering.descriptor(vcpu), 'PRE_FAULT_MEMORY', address(struct));
    // The kernel writes back how much is left to do.
    const { offset, bytes } = PRE_FAULT_MEMORY.fields['size'] ?? { offset: 0, bytes: 8 };
    return { kind: 'field', step, output: lowering.output(struct + offset, bytes), outOf: size };
  },

  'fd.dup': ({ as, fd }, { lowering }) =>
    opens(lowering, as, lowering.call('dup', lowering.descriptor(fd)), lowering.object(fd) ?? as),

  'fd.close': ({ fd }, { lowering, runs }) => {
    const object = lowering.object(fd) ?? fd;
    const descriptor = lowering.descriptor(fd);
    lowering.closed(fd);
    if (!lowering.isOpen(object)) {
      const run = runs.get(object);
      if (run !== undefined) unmapRun(lowering, run);
      runs.delete(object);
    }
    return returned(lowering.call('close', descriptor));
  },
};

/** To be done before the last descriptor of a vCPU is closed: the mapping of its struct kvm_run keeps it open. */
export function unmapRun(lowering: Lowering, run: Operand): void {
  lowering.call('munmap', run, value(PAGE_SIZE));
}

/** A signed argument as the register holds it. */
const unsigned = (number: bigint): bigint => BigInt.asUintN(64, number);
