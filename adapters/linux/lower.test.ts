import { describe, expect, it, test } from '@jest/globals';
import fc from 'fast-check';
import { Generator } from '../../conformance/generate.ts';
import { SmallFastRandom } from '../../conformance/random.ts';
import { CATALOGUE, type Command } from '../../model/catalogue.ts';
import { PAGE_MASK, PAGE_SIZE, U16_MAX } from '../../model/core/abi.ts';
import { FULL_MACHINE, profileById, type Machine } from '../../model/core/profile.ts';
import { parseProgram } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { LIMITS, type CallProgram, type Layout, type Operand, type Step } from './calls.ts';
import { RING_AT } from './guest.ts';
import { lower, type LoweredProgram } from './lower.ts';
import { structBytes } from './lowering.ts';
import { EXIT, KVM, REGION, REGS, SREGS, SYS } from './uapi.ts';

/** What kernels are given, and what one with shadow paging offers. */
const NESTED: Machine = { ...FULL_MACHINE, memoryBytes: 64n << 20n };
const SHADOW: Machine = { ...NESTED, twoDimensionalPaging: false, memoryAttributes: false };
const specify = (machine: Machine) => new Specification({ profile: profileById('linux-7.3'), machine }, CATALOGUE);
const SPECIFICATION = specify(FULL_MACHINE);

const NAMES = new Map(Object.entries(SYS).map(([name, number]) => [number as number, name]));
const hex = (number: bigint): string => `0x${BigInt.asUintN(64, number).toString(16)}`;

/** As a step reads; results by the number of their step from the first of the program's on, negative where the kit's own. */
function print(step: Step | undefined, first: number): string {
  const operand = (each: Operand): string => {
    if (each.kind === 'value') return typeof each.names === 'string' ? each.names : hex(each.value);
    if (each.kind === 'result') return `r${each.step - first}${each.plus === 0n ? '' : `+${hex(each.plus)}`}`;
    return each.kind === 'address' ? '&' : '*';
  };
  switch (step?.kind) {
    case 'call':
      return `${NAMES.get(step.number) ?? step.number}(${step.args.map(operand).join(', ')})`;
    case 'put':
      return `put ${operand(step.operand)}`;
    case 'skip':
      return `skip ${step.count} if ${operand(step.operand)} ${step.when} ${hex(step.value)}`;
    case undefined:
      return 'nothing';
  }
}

const parse = (text: string) => parseProgram(SPECIFICATION, text).program;

/** The steps of the last command of a program, and what structures are filled for it. */
function lowered(text: string, machine = FULL_MACHINE) {
  const program = parse(text);
  const result = lower(program, machine);
  const [first = 0] = result.firstSteps;
  const from = result.firstSteps.at(-1) ?? 0;
  return { ...result, steps: result.calls.steps.slice(from, result.end).map((step) => print(step, first)) };
}

const VM = 'vm.create vm=vm0 dev=kvm type=1';
const VCPU = `${VM}\nvcpu.create vcpu=vcpu0 vm=vm0 id=3`;
const FILE = `${VM}\ngmem.create file=file0 vm=vm0 size=0x3000 flags=3 reserved=0`;
const MAPPED = `${FILE}\nmem.map mapping=map0 fd=file0 length=0x1800 offset=0x1000 sharing=shared`;

it('says in the log of the kernel where it is, if it is to', () => {
  const program = parse(`${VM}\ncap.check fd=kvm cap=234`);
  const { calls, firstSteps, end } = lower(program, FULL_MACHINE, { tellsPlaces: true });
  const told = calls.steps.flatMap((step, at) => {
    const [, text] = step.kind === 'call' && step.number === SYS.write ? step.args : [];
    if (text?.kind !== 'address') return [];
    const segment = calls.segments.find(({ offset }) => offset === text.offset);
    return [[at, new TextDecoder().decode(segment?.bytes)]];
  });
  expect(told).toEqual([
    [expect.any(Number), 'gmem: before the commands\0'],
    [firstSteps[0], 'gmem: command 0\0'],
    [firstSteps[1], 'gmem: command 1\0'],
    [end, 'gmem: after the commands\0'],
  ]);
});

describe('a command', () => {
  test.each<[string, readonly string[]]>([
    [VM, ['ioctl(r-4, KVM_CREATE_VM, 0x1)']],
    [VCPU, ['ioctl(r0, KVM_CREATE_VCPU, 0x3)']],
    ['cap.check fd=kvm cap=234', ['ioctl(r-4, KVM_CHECK_EXTENSION, 0xea)']],
    ['cap.check fd=none cap=234', ['ioctl(-1, KVM_CHECK_EXTENSION, 0xea)']],
    [FILE, ['ioctl(r0, KVM_CREATE_GUEST_MEMFD, &)']],
    [
      `${FILE}\nslot.set vm=vm0 api=v2 slot=1 flags=4 gpa=0x5000 size=0x1000 hva=arena+0x2000 gmem=file0 offset=0x1000`,
      ['put r-1+0x2000', 'put r1', 'ioctl(r0, KVM_SET_USER_MEMORY_REGION2, &)'],
    ],
    [
      `${FILE}\nslot.set vm=vm0 api=v1 slot=1 flags=0 gpa=0x5000 size=0x1000 hva=0x7000 gmem=none offset=0`,
      ['put 0x7000', 'ioctl(r0, KVM_SET_USER_MEMORY_REGION, &)'],
    ],
    [
      `${VM}\nattributes.set vm=vm0 address=0x1000 size=0x2000 attributes=8 flags=0`,
      ['ioctl(r0, KVM_SET_MEMORY_ATTRIBUTES, &)'],
    ],
    [
      `${FILE}\ngmem.fallocate fd=file0 mode=3 offset=-4096 length=0x1000`,
      ['fallocate(r1, 0x3, 0xfffffffffffff000, 0x1000)'],
    ],
    [`${FILE}\nfile.io fd=file0 op=read offset=0`, ['read(r1, &, 0x8, 0x0)']],
    [`${FILE}\nfile.io fd=file0 op=write offset=0`, ['write(r1, &, 0x8, 0x0)']],
    [`${FILE}\nfile.io fd=file0 op=pread offset=-1`, ['pread64(r1, &, 0x8, 0xffffffffffffffff)']],
    [`${FILE}\nfile.io fd=file0 op=pwrite offset=8`, ['pwrite64(r1, &, 0x8, 0x8)']],
    [`${FILE}\nfile.truncate fd=file0 size=-1`, ['ftruncate(r1, 0xffffffffffffffff)']],
    [`${FILE}\nfile.stat fd=file0 field=blocks`, ['fstat(r1, &)']],
    [MAPPED, ['mmap(0x1004040000, 0x1800, PROT_READ | PROT_WRITE, MAP_SHARED, r1, 0x1000)']],
    [`${MAPPED}\nmem.unmap mapping=map0`, ['munmap(r2, 0x2000)']],
    [
      `${MAPPED}\nhost.load mapping=map0 offset=0x1008`,
      [
        'pwrite64(r-2, r2+0x1008, 0x8, 0x0)',
        'pread64(r-2, &, 0x8, 0x0)',
        'skip 1 if r3 equal 0x8',
        'msync(r2+0x1000, 0x1000, MS_ASYNC)',
      ],
    ],
    [
      `${MAPPED}\nhost.store mapping=map0 offset=8 value=7`,
      [
        'pwrite64(r-2, &, 0x8, 0x0)',
        'pread64(r-2, r2+0x8, 0x8, 0x0)',
        'skip 1 if r4 equal 0x8',
        'msync(r2, 0x1000, MS_ASYNC)',
      ],
    ],
    [
      'mem.secret mapping=map0 length=0x1800',
      ['memfd_secret(0x0)', 'ftruncate(r0, 0x1800)', 'mmap(0x1004040000, 0x1800, 0x3, 0x1, r0, 0x0)', 'close(r0)'],
    ],
    [
      'gup.read mapping=arena offset=8 via=process-vm',
      ['put &', 'put r-1+0x8', 'getpid()', 'process_vm_readv(r2, &, 0x1, &, 0x1, 0x0)'],
    ],
    [
      'gup.write mapping=arena offset=8 via=process-vm value=7',
      ['put &', 'put r-1+0x8', 'getpid()', 'process_vm_writev(r2, &, 0x1, &, 0x1, 0x0)'],
    ],
    [
      'gup.read mapping=arena offset=8 via=splice',
      [
        'pipe2(&, 0x80000)',
        'put r-1+0x8',
        'vmsplice(*, &, 0x1, 0x0)',
        'skip 1 if r2 unequal 0x8',
        'read(*, &, 0x8)',
        'close(*)',
        'close(*)',
      ],
    ],
    [
      'gup.read mapping=arena offset=8 via=mem',
      ['openat(0xffffffffffffff9c, &, 0x80002)', 'pread64(r0, &, 0x8, r-1+0x8)', 'close(r0)'],
    ],
    [
      'gup.write mapping=arena offset=8 via=mem value=7',
      ['openat(0xffffffffffffff9c, &, 0x80002)', 'pwrite64(r0, &, 0x8, r-1+0x8)', 'close(r0)'],
    ],
    [
      `${VCPU}\nguest.walk vcpu=vcpu0 cr3=0x1000 gva=0x10 access=read`,
      [
        'ioctl(r1, KVM_SET_CPUID2, &)',
        'ioctl(r1, KVM_SET_SREGS, &)',
        'ioctl(r1, KVM_TRANSLATE, &)',
        'ioctl(r1, KVM_SET_SREGS, &)',
      ],
    ],
    [
      `${VCPU}\nguest.clock vcpu=vcpu0 gpa=0x40 mapping=arena offset=0x40`,
      [
        'ioctl(r3, KVM_SET_MSRS, &)',
        'skip 12 if r7 unequal 0x1',
        'pwrite64(r-2, &, 0x20, 0x0)',
        'pread64(r-2, r-1+0x40, 0x20, 0x0)',
        'ioctl(r3, KVM_SET_MSRS, &)',
        'ioctl(r3, KVM_SET_REGS, &)',
        'ioctl(r3, KVM_RUN, 0x0)',
        'ioctl(r3, KVM_SET_MSRS, &)',
        'pwrite64(r-2, r-1+0x40, 0x20, 0x0)',
        'pread64(r-2, &, 0x20, 0x0)',
        'skip 1 if * equal 0x0',
        'put 0x1',
        'pwrite64(r-2, &, 0x20, 0x0)',
        'pread64(r-2, r-1+0x40, 0x20, 0x0)',
      ],
    ],
    [`${VCPU}\nvcpu.prefault vcpu=vcpu0 gpa=0 size=0x1000 flags=0`, ['ioctl(r1, KVM_PRE_FAULT_MEMORY, &)']],
    [`${FILE}\nfd.dup as=dup0 fd=file0`, ['dup(r1)']],
    [`${FILE}\nfd.close fd=file0`, ['close(r1)']],
  ])('%s', (text, steps) => {
    expect(lowered(text).steps).toEqual(steps);
  });

  const structs = (text: string, name: string) =>
    lowered(text).legend.variables.flatMap(({ layout, fields }) =>
      layout.name === name ? [Buffer.from(structBytes(layout, fields)).toString('hex')] : [],
    );
  const word = (number: bigint, bytes = 8): string => {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(number);
    return buffer.subarray(0, bytes).toString('hex');
  };
  const words = (...numbers: readonly bigint[]): string => numbers.map((number) => word(number)).join('');
  const zeroes = (bytes: number): string => '00'.repeat(bytes);

  test.each<[string, string, string]>([
    [
      `${VM}\ngmem.create file=file0 vm=vm0 size=0x3000 flags=0x8000000000000001 reserved=5`,
      'struct kvm_create_guest_memfd',
      words(0x3000n, 0x8000_0000_0000_0001n, 5n) + zeroes(40),
    ],
    [
      `${VM}\nslot.set vm=vm0 api=v2 slot=0x10002 flags=4 gpa=0x5000 size=0x1000 hva=0 gmem=none offset=0x2000`,
      'struct kvm_userspace_memory_region2',
      word(0x1_0002n, 4) + word(4n, 4) + words(0x5000n, 0x1000n, 0n, 0x2000n) + zeroes(120),
    ],
    [
      `${VM}\nslot.set vm=vm0 api=v1 slot=2 flags=3 gpa=0x5000 size=0x1000 hva=0 gmem=none offset=0`,
      'struct kvm_userspace_memory_region',
      word(2n, 4) + word(3n, 4) + words(0x5000n, 0x1000n, 0n),
    ],
    [
      `${VM}\nattributes.set vm=vm0 address=0x1000 size=0x2000 attributes=8 flags=1`,
      'struct kvm_memory_attributes',
      words(0x1000n, 0x2000n, 8n, 1n),
    ],
    [
      `${VCPU}\nvcpu.prefault vcpu=vcpu0 gpa=0x1000 size=0x2000 flags=1`,
      'struct kvm_pre_fault_memory',
      words(0x1000n, 0x2000n, 1n) + zeroes(40),
    ],
    [
      `${VCPU}\nguest.walk vcpu=vcpu0 cr3=0x1000 gva=0x10 access=read`,
      'struct kvm_translation',
      words(0x10n) + zeroes(16),
    ],
  ])('%s', (text, name, bytes) => {
    expect(structs(text, name)).toEqual([bytes]);
  });

  test.each(['gmem.link', 'fault.slab'])('%s is none that a kernel executes', (name) => {
    expect(CATALOGUE.some((each) => each.name === name)).toBe(true);
    expect(() => lower([{ name, args: {} }], FULL_MACHINE)).toThrow(`a kernel cannot execute ${name}`);
  });

  it('keeps its own slot far from where page tables may lead, also where a refused command speaks of all that is far', () => {
    const { guest } = lowered(
      `${VCPU}\nguest.walk vcpu=vcpu0 cr3=0 gva=0 access=read\nvcpu.prefault vcpu=none gpa=0x5000 size=0xfffffffffa000 flags=0`,
    );
    expect(guest?.gpa).toBeGreaterThan(1n << 50n);
  });
});

describe('a memory failure', () => {
  const program = parse(`${FILE}\nmemory.fail fd=file0 page=2\nmemory.fail fd=file0 page=1`);

  it('is asked for where the kernel is one that it may be done to', () => {
    expect(() => lower(program, FULL_MACHINE)).toThrow(
      'a kernel cannot execute memory.fail: memory failures are injected only into kernels in QEMU',
    );
    const { calls, firstSteps, end } = lower(program, FULL_MACHINE, { failsMemory: true });
    const [first = 0, , failing, again] = firstSteps;
    expect(calls.steps.slice(failing, end).map((step) => print(step, first))).toEqual([
      ...['openat(0xffffffffffffff9c, &, 0x80002)', 'openat(0xffffffffffffff9c, &, 0x80002)'],
      ...['fstat(r1, &)', 'write(r2, &, 0x18)', 'read(r3, &, 0x10)'],
      ...['fstat(r1, &)', 'write(r2, &, 0x18)', 'read(r3, &, 0x10)'],
    ]);
    expect(again).toBe((failing ?? 0) + 5);
  });

  it('says which page, in front of what fstat() says of the file', () => {
    const { calls } = lower(program, FULL_MACHINE, { failsMemory: true });
    const asked = calls.steps.flatMap((step, at) => {
      const [, from] = step.kind === 'call' && step.number === SYS.write ? step.args : [];
      const [, stat] = (calls.steps[at - 1] as Extract<Step, { kind: 'call' }> | undefined)?.args ?? [];
      if (from?.kind !== 'address' || stat?.kind !== 'address') return [];
      const bytes = calls.segments.find(({ offset }) => offset === from.offset)?.bytes;
      return [[bytes && Buffer.from(bytes).readBigUInt64LE(), stat.offset - from.offset]];
    });
    expect(asked).toEqual([
      [2n, 8],
      [1n, 8],
    ]);
  });
});

describe('labels', () => {
  it('mean nothing once they are closed', () => {
    expect(lowered(`${FILE}\nfd.close fd=file0\nfd.close fd=file0`).steps).toEqual(['close(-1)']);
    expect(lowered(`${VM}\nfd.close fd=vm0\nvcpu.create vcpu=vcpu0 vm=vm0 id=0`).steps).toEqual([
      'ioctl(-1, KVM_CREATE_VCPU, 0x0)',
    ]);
  });

  it('of duplicates are closed one by one', () => {
    const both = `${FILE}\nfd.dup as=dup0 fd=file0\nfd.close fd=file0`;
    expect(lowered(both).steps).toEqual(['close(r1)']);
    expect(lowered(`${both}\nfd.close fd=dup0`).steps).toEqual(['close(r2)']);
  });

  it('of mappings mean the place, also when nothing is there any more', () => {
    expect(lowered(`${MAPPED}\nmem.unmap mapping=map0\nmem.unmap mapping=map0`).steps).toEqual(['munmap(r2, 0x2000)']);
    expect(lowered('mem.unmap mapping=map9').steps).toEqual(['munmap(0x1000, 0x0)']);
  });
});

describe('the struct kvm_run of a vCPU', () => {
  const RUNS = `${VCPU}\nguest.load vcpu=vcpu0 gpa=0`;
  const unmappings = (text: string): readonly number[] => {
    const { calls } = lowered(text);
    const run = calls.steps.findIndex((step) => step.kind === 'call' && print(step, 0).startsWith('mmap(NULL'));
    expect(run).toBeGreaterThan(0);
    return calls.steps.flatMap((step, at) => (print(step, 0) === `munmap(r${run}, 0x1000)` ? [at] : []));
  };

  it('is unmapped before the last descriptor is closed, and only once', () => {
    const { steps, firstSteps } = lowered(`${RUNS}\nfd.close fd=vcpu0`);
    expect(steps).toEqual([
      expect.stringMatching(/^munmap\(r\d+, 0x1000\)$/),
      expect.stringMatching(/^close\(r\d+\)$/),
    ]);
    expect(unmappings(`${RUNS}\nfd.close fd=vcpu0`)).toEqual([firstSteps.at(-1)]);
  });

  it('stays while a duplicate is open', () => {
    const both = `${RUNS}\nfd.dup as=dup0 fd=vcpu0\nfd.close fd=vcpu0`;
    expect(lowered(both).steps).toEqual([expect.stringMatching(/^close/)]);
    expect(lowered(`${both}\nfd.close fd=dup0`).steps).toHaveLength(2);
  });

  it('is unmapped in the end where the vCPU stays open', () => {
    const { end } = lowered(RUNS);
    expect(unmappings(RUNS)).toEqual([end]);
  });
});

test('an access sets the registers, runs, looks, and lets what is to be emulated be completed', () => {
  const { steps, readings } = lowered(`${VCPU}\nguest.store vcpu=vcpu0 gpa=0x1008 value=5`);
  expect(steps.map((step) => step.replace(/r\d+/g, 'r'))).toEqual([
    'ioctl(r, KVM_SET_REGS, &)',
    'ioctl(r, KVM_RUN, 0x0)',
    'pwrite64(r-2, r, 0x40, 0x0)',
    'pread64(r-2, &, 0x40, 0x0)',
    `skip 2 if * unequal ${hex(EXIT.MMIO)}`,
    expect.stringMatching(/^skip 1 if \* equal 0x/),
    'ioctl(r, KVM_RUN, 0x0)',
  ]);
  expect(readings.at(-1)).toMatchObject({ kind: 'guest', loads: false });
});

type Check = (lowered: LoweredProgram, commands: readonly Command[], machine: Machine) => void;

/** On programs for machines of both kinds. */
const forAll = (check: Check) =>
  fc.assert(
    fc.property(fc.nat(), fc.boolean(), (seed, nested) => {
      const machine = nested ? NESTED : SHADOW;
      const generator = new Generator(specify(machine), { maxCommands: 60, capabilities: new Set() });
      const { commands } = generator.generate(new SmallFastRandom(seed, 1, 2, 3));
      check(lower(commands, machine), commands as readonly Command[], machine);
    }),
    { numRuns: 150 },
  );

/** The data area as it is when the program starts. */
function areaOf({ dataBytes, segments }: CallProgram): DataView {
  const area = new Uint8Array(dataBytes);
  for (const { offset, bytes } of segments) area.set(bytes, offset);
  return new DataView(area.buffer);
}

const field = (area: DataView, at: number, { fields }: Layout, name: string): bigint =>
  area.getBigUint64(at + (fields[name]?.offset ?? 0), true);

const structsOf = ({ legend }: LoweredProgram, wanted: Layout): readonly number[] =>
  legend.variables.flatMap(({ offset, layout }) => (layout === wanted ? [offset] : []));

const isIoctl = (step: Step | undefined, request: bigint): boolean =>
  step?.kind === 'call' &&
  step.number === SYS.ioctl &&
  step.args[1]?.kind === 'value' &&
  step.args[1].value === request;

/** The slot that is the kit's own: its host address is one of the data area. */
function hideoutOf(lowered: LoweredProgram): { slot: bigint; gpa: bigint; bytes: bigint; offset: number } | undefined {
  const { calls } = lowered;
  const area = areaOf(calls);
  for (const at of structsOf(lowered, REGION)) {
    const put = calls.steps.find((step) => step.kind === 'put' && step.offset === at + 24);
    if (put?.kind !== 'put' || put.operand.kind !== 'address') continue;
    const slot = BigInt(area.getUint32(at, true));
    const [gpa, bytes] = [field(area, at, REGION, 'guest_phys_addr'), field(area, at, REGION, 'memory_size')];
    return { slot, gpa, bytes, offset: put.operand.offset };
  }
  return undefined;
}

describe('any program', () => {
  it('is within the limits, and refers to earlier steps only', () => {
    forAll(({ calls, firstSteps, end, readings }, commands) => {
      expect(calls.dataBytes).toBeLessThanOrEqual(LIMITS.dataBytes);
      expect([firstSteps.length, readings.length]).toEqual([commands.length, commands.length]);
      expect(end).toBeLessThanOrEqual(calls.steps.length);
      const operands = calls.steps.flatMap((step, at) =>
        (step.kind === 'call' ? step.args : [step.operand]).map((operand) => ({ operand, at })),
      );
      expect(operands.filter(({ operand, at }) => operand.kind === 'result' && operand.step >= at)).toEqual([]);
    });
  });

  it('ends with everything unmapped and closed', () => {
    forAll(({ calls, end }) => {
      const lines = calls.steps.slice(end).map((step) => print(step, 0));
      expect(lines.at(-1)).toBe('close_range(r0, ~0U, 0x0)');
      const unmapped = calls.steps.map((step) => print(step, 0)).filter((line) => line.startsWith('munmap('));
      const mapped = calls.steps.flatMap((step, at) => (print(step, 0).startsWith('mmap(') ? [`munmap(r${at},`] : []));
      expect(mapped.filter((start) => !unmapped.some((line) => line.startsWith(start)))).toEqual([]);
    });
  });

  it('does not speak of the place where the tables are', () => {
    let hidden = 0;
    forAll((result, commands, machine) => {
      const hideout = hideoutOf(result);
      if (hideout === undefined) return;
      hidden++;
      const { gpa, bytes, slot } = hideout;
      // The doorbell lies behind.
      const end = gpa + bytes + PAGE_SIZE;
      expect(end).toBeLessThanOrEqual(1n << BigInt(machine.guestPhysicalBits));
      // What no kernel has memory for may lie anywhere; the slot steps aside for it.
      const longest = machine.memoryBytes * 512n;
      const meets = commands.filter(({ name, args }) => {
        if (name === 'slot.set' && (args.slot & U16_MAX) === slot) return true;
        if (name === 'guest.load' || name === 'guest.store')
          return args.gpa + 8n > gpa && (args.gpa & ~PAGE_MASK) < end;
        if (name === 'slot.set' || name === 'vcpu.prefault')
          return args.size > 0n && args.size <= longest && args.gpa + args.size > gpa && args.gpa < end;
        if (name === 'attributes.set')
          return args.size > 0n && args.size <= longest && args.address + args.size > gpa && args.address < end;
        return false;
      });
      expect(meets).toEqual([]);
    });
    expect(hidden).toBeGreaterThan(50);
  });

  it('has tables in which a processor finds the code and every page that is touched, and nothing else', () => {
    let walked = 0;
    forAll((result, commands) => {
      const hideout = hideoutOf(result);
      if (hideout === undefined) return;
      walked++;
      const area = areaOf(result.calls);
      const shown = pagesShown(area, hideout, sregsOf(result, area));
      const touched = commands.flatMap(({ name, args }) =>
        name === 'guest.load' || name === 'guest.store' ? [args.gpa] : [],
      );
      const doorbell = hideout.gpa + hideout.bytes;
      const code = shown.get(0n) ?? -1n;
      expect(code - hideout.gpa).toBe(3n * PAGE_SIZE);
      expect(new Set(shown.values())).toEqual(new Set([code, doorbell, ...touched.map((gpa) => gpa & ~PAGE_MASK)]));
      const registers = registersOf(result, area);
      // In the program's order: where the code begins, which word it touches, where it rings.
      const translate = (virtual: bigint): bigint => (shown.get(virtual & ~PAGE_MASK) ?? -1n) + (virtual & PAGE_MASK);
      const accesses = registers.filter(({ rip }) => rip !== BigInt(RING_AT));
      expect(accesses.map(({ rbx }) => translate(rbx))).toEqual(reached(result, commands));
      for (const { rdx } of registers) expect(translate(rdx)).toBe(doorbell);
      const bytesAt = (at: bigint) => Buffer.from(area.buffer, hideout.offset + Number(code - hideout.gpa + at), 8);
      for (const { rip } of registers)
        expect(['488b03488902', '488903488902', '4889020f0b48']).toContain(bytesAt(rip).toString('hex', 0, 6));
    });
    expect(walked).toBeGreaterThan(50);
  });
});

const sregsOf = (lowered: LoweredProgram, area: DataView): bigint =>
  field(area, structsOf(lowered, SREGS)[0] ?? 0, SREGS, 'cr3');

/** Every virtual page that four levels of tables show, as a processor walks them. */
function pagesShown(
  area: DataView,
  { gpa, bytes, offset }: { gpa: bigint; bytes: bigint; offset: number },
  cr3: bigint,
): ReadonlyMap<bigint, bigint> {
  const shown = new Map<bigint, bigint>();
  const walk = (table: bigint, level: number, base: bigint): void => {
    expect(table >= gpa && table < gpa + bytes && (table & PAGE_MASK) === 0n).toBe(true);
    for (let index = 0n; index < 512n; index++) {
      const entry = area.getBigUint64(offset + Number(table - gpa + index * 8n), true);
      if (entry === 0n) continue;
      // Present, writable, user, accessed, dirty; no large page, nothing reserved.
      expect(entry & PAGE_MASK).toBe(0x67n);
      const virtual = base + (index << BigInt(12 + 9 * level));
      const target = entry & ~PAGE_MASK;
      if (level === 0) shown.set(virtual, target);
      else walk(target, level - 1, virtual);
    }
  };
  // Without a vCPU that touches memory nobody tells where the tables are: they begin the slot.
  walk(cr3 === 0n ? gpa : cr3, 3, 0n);
  return shown;
}

/** What each KVM_SET_REGS sets, in order. */
const registersOf = ({ calls }: LoweredProgram, area: DataView) =>
  calls.steps.flatMap((step) => {
    if (!isIoctl(step, KVM.SET_REGS) || step.kind !== 'call' || step.args[2]?.kind !== 'address') return [];
    const at = step.args[2].offset;
    const register = (name: string): bigint => field(area, at, REGS, name);
    return [{ rbx: register('rbx'), rdx: register('rdx'), rip: register('rip') }];
  });

/** The guest addresses of the accesses for which registers are set. */
const reached = ({ calls, firstSteps }: LoweredProgram, commands: readonly Command[]): readonly bigint[] =>
  commands.flatMap(({ name, args }, index) =>
    (name === 'guest.load' || name === 'guest.store') && isIoctl(calls.steps[firstSteps[index] ?? 0], KVM.SET_REGS)
      ? [args.gpa]
      : [],
  );
