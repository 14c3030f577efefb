/** What memory costs depends on how fragmented it is, not on how much there is: counted, not timed. */
import { describe, expect, it } from '@jest/globals';
import type { Facts } from '../model/core/facts.ts';
import type { State } from '../model/core/state.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { expectationsOf } from '../conformance/check.ts';
import { parse, specify } from './support.ts';

const MIB = 1n << 20n;
const TIB = 1n << 40n;

/** Allocates, maps, converts and punches in eighths of a file of the given size. */
const textFor = (size: bigint): string => {
  const eighth = size / 8n;
  return `
    vm.create vm=vm0 dev=kvm type=1
    vcpu.create vcpu=vcpu0 vm=vm0 id=0
    gmem.create file=file0 vm=vm0 size=${size} flags=1 reserved=0
    slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=${size} hva=arena gmem=file0 offset=0
    gmem.fallocate fd=file0 mode=1 offset=0 length=${size}
    attributes.set vm=vm0 address=${eighth} size=${eighth} attributes=8 flags=0
    attributes.set vm=vm0 address=${5n * eighth} size=${3n * eighth} attributes=8 flags=0
    vcpu.prefault vcpu=vcpu0 gpa=0 size=${size} flags=0
    guest.store vcpu=vcpu0 gpa=${size - 8n} value=1
    gmem.fallocate fd=file0 mode=3 offset=${2n * eighth} length=${eighth}
    gmem.fallocate fd=file0 mode=3 offset=${6n * eighth} length=${eighth}
    mem.map mapping=map0 fd=file0 length=${size} offset=0 sharing=shared
    host.load mapping=map0 offset=${size - 4096n}
    memory.fail fd=file0 page=${size / 4096n - 2n}`;
};

/** How many ranges, spans and words there are in each entity. */
const sizesOf = ({ vms, inodes, mappings }: State) => ({
  vms: [...vms.values()].map((vm) => [vm.slots.size, vm.private.length, vm.stageTwo.length]),
  inodes: [...inodes.values()].map((each) => [each.resident.length, each.words.size, each.poisoned.length]),
  mappings: [...mappings.values()].map((each) => [each.touched.length, each.poisonEntries.length]),
});

/** Of long runs the simulator tells the first page only, so that this part does not grow without bound. */
const CAPPED = ['firstTouches'];

const countsOf = (facts: Facts | undefined): Record<string, number> =>
  Object.fromEntries(
    Object.entries(facts ?? {})
      .filter(([part]) => !CAPPED.includes(part))
      .map(([part, list]) => [part, (list as readonly unknown[]).length]),
  );

const specification = specify();
const programs = [MIB, TIB].map((size) => parse(specification, textFor(size)));

describe('a TiB costs what a MiB costs', () => {
  it('in the state of the specification, after every command', () => {
    const [small, large] = programs.map((program) =>
      expectationsOf(specification, program).map(({ rule, state }) => ({ rule, sizes: sizesOf(state) })),
    );
    expect(large).toEqual(small);
    expect(small?.every(({ rule }) => !rule.includes('beyond'))).toBe(true);
  });

  it.each([simulatorTarget(), referenceTarget()])('in the facts of the $name, after every command', async (target) => {
    const [small, large] = await Promise.all(
      programs.map(async (program) => {
        const observed = [...(await target.execute(program, specification.config.profile))];
        return observed.map(({ outcome, facts }) => ({ kind: outcome.kind, counts: countsOf(facts) }));
      }),
    );
    expect(small).toHaveLength(programs[0]?.length ?? 0);
    expect(small?.some(({ kind }) => kind === 'crash' || kind === 'errno')).toBe(false);
    expect(large).toEqual(small);
  });

  it('in what the simulator tells of first touches', async () => {
    const target = simulatorTarget();
    for (const program of programs)
      for (const { facts } of await target.execute(program, specification.config.profile))
        expect(facts?.firstTouches?.length).toBeLessThan(2000);
  });
});
