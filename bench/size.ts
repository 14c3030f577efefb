/** Guests of 1 GiB and of 1 TiB against one of 1 MiB that is just as fragmented. */
import { SimulatorMachine, simulatorTarget } from '../adapters/simulator/index.ts';
import { checkProgram } from '../conformance/check.ts';
import { FULL_MACHINE } from '../model/core/profile.ts';
import { parseProgram, type Program } from '../model/core/program.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { cpuRatio, takeTurns, type Contestant, type Measured } from './measure.ts';
import { count, printTable, ratio, say } from './print.ts';
import { execute, specify } from './subjects.ts';

const SIZES = { '1 MiB': 1n << 20n, '1 GiB': 1n << 30n, '1 TiB': 1n << 40n } as const;
/** Each memory falls into so many pieces: of four pages in the smallest, of sixteen GiB in the largest. */
const PIECES = 64n;

const target = simulatorTarget();
const specification = specify(FULL_MACHINE);

const everySecond = (line: (offset: bigint) => string, size: bigint, first = 0n): readonly string[] =>
  Array.from({ length: Number(PIECES / 2n) }, (_piece, index) => line((size / PIECES) * (2n * BigInt(index) + first)));

/** Private memory: allocated as a whole, converted, touched and punched in pieces. */
const privateMemory = (size: bigint): readonly string[] => [
  'vm.create vm=vm0 dev=kvm type=1',
  'vcpu.create vcpu=vcpu0 vm=vm0 id=0',
  `gmem.create file=file0 vm=vm0 size=${size} flags=0 reserved=0`,
  `slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=${size} hva=arena gmem=file0 offset=0`,
  `gmem.fallocate fd=file0 mode=1 offset=0 length=${size}`,
  ...everySecond((at) => `attributes.set vm=vm0 address=${at} size=${size / PIECES} attributes=8 flags=0`, size),
  ...everySecond((at) => `vcpu.prefault vcpu=vcpu0 gpa=${at} size=${size / PIECES} flags=0`, size),
  ...everySecond((at) => `guest.store vcpu=vcpu0 gpa=${at} value=1`, size),
  ...everySecond((at) => `gmem.fallocate fd=file0 mode=3 offset=${at} length=${size / PIECES / 2n}`, size),
  ...everySecond((at) => `guest.load vcpu=vcpu0 gpa=${at}`, size),
  ...everySecond((at) => `gmem.fallocate fd=file0 mode=3 offset=${at} length=${size / PIECES}`, size, 1n),
  ...everySecond((at) => `attributes.set vm=vm0 address=${at} size=${size / PIECES} attributes=0 flags=0`, size),
];

/** Shared memory: the host maps it, and both sides use it. */
const sharedMemory = (size: bigint): readonly string[] => [
  'vm.create vm=vm1 dev=kvm type=0',
  'vcpu.create vcpu=vcpu1 vm=vm1 id=0',
  `gmem.create file=file1 vm=vm1 size=${size} flags=3 reserved=0`,
  `mem.map mapping=map1 fd=file1 length=${size} offset=0 sharing=shared`,
  `slot.set vm=vm1 api=v2 slot=0 flags=4 gpa=0 size=${size} hva=map1 gmem=file1 offset=0`,
  ...everySecond((at) => `host.store mapping=map1 offset=${at} value=1`, size),
  ...everySecond((at) => `guest.load vcpu=vcpu1 gpa=${at}`, size),
  `gmem.fallocate fd=file1 mode=1 offset=0 length=${size}`,
  `vcpu.prefault vcpu=vcpu1 gpa=0 size=${size} flags=0`,
  ...everySecond((at) => `gmem.fallocate fd=file1 mode=3 offset=${at} length=${size / PIECES}`, size),
  ...everySecond((at) => `host.load mapping=map1 offset=${at}`, size, 1n),
  ...everySecond((at) => `memory.fail fd=file1 page=${at / 4096n + 1n}`, size, 1n),
];

const programFor = (size: bigint): Program =>
  parseProgram(specification, [...privateMemory(size), ...sharedMemory(size)].join('\n')).program;

function rulesOf(program: Program): readonly string[] {
  let state = specification.initial;
  return program.map((command) => {
    const step = specification.step(state, command);
    if (step.outcome.kind !== 'ok' || step.unmodelled !== undefined)
      throw new Error(`the program must succeed, and ${step.rule} does not`);
    ({ state } = step);
    return step.rule;
  });
}

interface Way {
  readonly name: string;
  /** How often in a round. */
  readonly times: number;
  readonly once: (program: Program) => unknown;
}

const ways: readonly Way[] = [
  { name: 'specification: step', times: 60, once: rulesOf },
  {
    name: 'simulator: run',
    times: 60,
    once: (program) => {
      const machine = new SimulatorMachine(specification.config);
      for (const command of program) machine.run(command);
    },
  },
  {
    name: 'simulator: run, tell facts',
    times: 10,
    once: (program) => execute(target, specification, program),
  },
  {
    name: 'all, checked',
    times: 2,
    once: async (program) => {
      const { kind } = await checkProgram({ specification, target }, program);
      if (kind !== 'conforms') throw new Error('the simulator does not conform');
    },
  },
];

const contestant = ({ once, times }: Way, name: string, program: Program): Contestant => ({
  name,
  run: async () => {
    for (let time = 0; time < times; time++) await once(program);
    return times * program.length;
  },
});

async function size({ quick }: BenchOptions): Promise<unknown> {
  const programs = Object.entries(SIZES).map(([name, bytes]) => ({ name, program: programFor(bytes) }));
  if (new Set(programs.map(({ program }) => rulesOf(program).join())).size > 1)
    throw new Error('the programs do not do the same');
  const results = [];
  for (const way of ways) {
    const measured = await takeTurns(
      programs.map(({ name, program }) => contestant(way, name, program)),
      quick ? { warmUps: 1, rounds: 3 } : { warmUps: 3, rounds: 7 },
    );
    const smallest = measured[0] as Measured;
    const each = measured.map((one) => ({ size: one.name, cpuNs: one.cpu, ratio: cpuRatio(one, smallest) }));
    results.push({ name: way.name, sizes: each });
  }
  const [small, ...others] = Object.keys(SIZES) as [string, ...string[]];
  say(
    printTable(
      ['ns of CPU for each command', ...Object.keys(SIZES), ...others.map((other) => `${other} / ${small}`)],
      results.map(({ name, sizes }) => [
        name,
        ...sizes.map(({ cpuNs }) => count(cpuNs)),
        ...sizes.slice(1).map((each) => ratio(each.ratio)),
      ]),
    ),
  );
  return { pieces: Number(PIECES), results };
}

export const SIZE: Bench = {
  name: 'size',
  question: 'Does a command cost more on much memory in 4 KiB pages than on little that is just as fragmented?',
  run: size,
};
