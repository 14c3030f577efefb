/** Programs that are generated for a machine ask it for no more memory than it has, counted as the kernel allocates it. */
import { describe, expect, it } from '@jest/globals';
import type { Range } from '../model/core/ranges.ts';
import type { State } from '../model/core/state.ts';
import { FULL_MACHINE } from '../model/core/profile.ts';
import { printProgram } from '../model/core/program.ts';
import { expectationsOf } from '../conformance/check.ts';
import { freshSeed, generated, GUEST_MEMORY, parse, specify } from './support.ts';

const MIB = 1 << 20;
const PAGE = 4096;
const POINTER = 8;
/** struct xa_node has 64 slots, and slab fits seven nodes into a page. */
const XARRAY = PAGE / 7 / 64;
/** Page table and, with shadow paging, struct kvm_mmu_page with its translations. */
const TABLE = 2 * PAGE;
const TABLE_ENTRIES = 512;

const pagesIn = (ranges: readonly Range[]): number => ranges.reduce((sum, { start, end }) => sum + end - start, 0);

/** Tables that map so many pages in that many pieces, and xarray nodes likewise: four levels each. */
const tables = (ranges: readonly Range[]): number =>
  ranges.reduce((sum, { start, end }) => sum + TABLE * (5 + (end - start) / (TABLE_ENTRIES - 1)), 0);
const xarray = (ranges: readonly Range[]): number =>
  ranges.reduce((sum, { start, end }) => sum + PAGE + XARRAY * (1 + 1 / 63) * (end - start), 0);

/** rmap and lpage_info of three page sizes, write tracking, and a dirty log that is written and one that is read. */
const slotBytes = (pages: number): number =>
  pages * (POINTER + 2 + 2 / 8) + (2 + pages / 512) * (POINTER + 4) + (2 + pages / 512 / 512) * (POINTER + 4);

function bytesOf({ inodes, vms, mappings }: State): number {
  let sum = 0;
  for (const { resident } of inodes.values()) sum += PAGE * pagesIn(resident) + xarray(resident);
  for (const { touched } of mappings.values()) sum += tables(touched);
  for (const vm of vms.values()) {
    sum += xarray(vm.private) + tables(vm.stageTwo);
    for (const { pages } of vm.slots.values()) sum += slotBytes(pages);
  }
  return sum;
}

describe.each(GUEST_MEMORY)('programs in %s', (profile) => {
  it.each([64, 64 << 10])('fit into a machine with %s MiB', (mebibytes) => {
    const specification = specify(profile, { ...FULL_MACHINE, memoryBytes: BigInt(mebibytes * MIB) });
    const seed = freshSeed();
    let most = 0;
    for (const { commands, trace } of generated(specification, { seed, programs: 800, maxCommands: 80 })) {
      for (const { state, unmodelled } of trace) {
        if (unmodelled !== undefined) break;
        most = Math.max(most, bytesOf(state));
        if (most > mebibytes * MIB) throw new Error(`GMEM_SEED=${seed}\n${printProgram(specification, commands)}`);
      }
    }
    // They come near enough to show that the limit is what keeps them.
    expect(most).toBeGreaterThan((mebibytes * MIB) / 8);
  });
});

describe('a machine with 64 MiB', () => {
  const specification = specify('linux-7.3', { ...FULL_MACHINE, memoryBytes: BigInt(64 * MIB) });
  const start = `
    vm.create vm=vm0 dev=kvm type=1
    vcpu.create vcpu=vcpu0 vm=vm0 id=0
    gmem.create file=file0 vm=vm0 size=0x4000000 flags=1 reserved=0
    slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x2000000 hva=arena gmem=file0 offset=0
    gmem.fallocate fd=file0 mode=1 offset=0 length=0x1000000
    `;
  const last = (line: string): string | undefined =>
    expectationsOf(specification, parse(specification, start + line)).at(-1)?.rule;

  it.each([
    ['gmem.fallocate fd=file0 mode=1 offset=0 length=0x1800000', 'gmem.fallocate/allocate'],
    ['gmem.fallocate fd=file0 mode=1 offset=0x1000000 length=0x1000000', 'gmem.fallocate/more-than-memory'],
    ['gmem.fallocate fd=file0 mode=3 offset=0 length=0x4000000', 'gmem.fallocate/punch'],
    ['vcpu.prefault vcpu=vcpu0 gpa=0 size=0x1800000 flags=0', 'vcpu.prefault/all'],
    ['vcpu.prefault vcpu=vcpu0 gpa=0 size=0x2000000 flags=0', 'vcpu.prefault/more-than-memory'],
    ['attributes.set vm=vm0 address=0 size=0x100000000 attributes=8 flags=0', 'attributes.set/changed'],
    ['attributes.set vm=vm0 address=0 size=0x200000000 attributes=8 flags=0', 'attributes.set/more-than-memory'],
    ['attributes.set vm=vm0 address=0 size=0x8000000000000000 attributes=0 flags=0', 'attributes.set/already-so'],
    [
      'slot.set vm=vm0 api=v2 slot=1 flags=0 gpa=0x10000000 size=0x100000000 hva=0 gmem=none offset=0',
      'slot.set/create',
    ],
    [
      'slot.set vm=vm0 api=v2 slot=1 flags=0 gpa=0x10000000 size=0x200000000 hva=0 gmem=none offset=0',
      'slot.set/more-than-memory',
    ],
    ['guest.load vcpu=vcpu0 gpa=0x1fff000', 'guest.load/guest-memory'],
  ])('%s', (line, rule) => {
    expect(last(line)).toBe(rule);
  });
});
