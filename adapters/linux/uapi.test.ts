import { afterAll, beforeAll, describe, expect, it, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as abi from '../../model/core/abi.ts';
import type { Layout } from './calls.ts';
import * as uapi from './uapi.ts';

/** Numbers of include/uapi/linux/kvm.h of Linux 6.18 and 7.3, which the headers of a system may be too old for. */
test.each([
  ['KVM_CREATE_VM', uapi.KVM.CREATE_VM, 0xae01n],
  ['KVM_CHECK_EXTENSION', uapi.KVM.CHECK_EXTENSION, 0xae03n],
  ['KVM_CREATE_VCPU', uapi.KVM.CREATE_VCPU, 0xae41n],
  ['KVM_RUN', uapi.KVM.RUN, 0xae80n],
  ['KVM_SET_USER_MEMORY_REGION', uapi.KVM.SET_USER_MEMORY_REGION, 0x4020_ae46n],
  ['KVM_SET_USER_MEMORY_REGION2', uapi.KVM.SET_USER_MEMORY_REGION2, 0x40a0_ae49n],
  ['KVM_SET_MEMORY_ATTRIBUTES', uapi.KVM.SET_MEMORY_ATTRIBUTES, 0x4020_aed2n],
  ['KVM_CREATE_GUEST_MEMFD', uapi.KVM.CREATE_GUEST_MEMFD, 0xc040_aed4n],
  ['KVM_PRE_FAULT_MEMORY', uapi.KVM.PRE_FAULT_MEMORY, 0xc040_aed5n],
])('%s', (_name, ours, theirs) => {
  expect(ours).toBe(theirs);
});

test.each([
  ['struct kvm_userspace_memory_region2: guest_memfd_offset', uapi.REGION2, 'guest_memfd_offset', 32, 8],
  ['struct kvm_userspace_memory_region2: guest_memfd', uapi.REGION2, 'guest_memfd', 40, 4],
  ['struct kvm_create_guest_memfd: flags', uapi.CREATE_GUEST_MEMFD, 'flags', 8, 8],
  ['struct kvm_memory_attributes: attributes', uapi.MEMORY_ATTRIBUTES, 'attributes', 16, 8],
  ['struct kvm_pre_fault_memory: flags', uapi.PRE_FAULT_MEMORY, 'flags', 16, 8],
])('%s', (_name, layout, field, offset, bytes) => {
  expect(layout.fields[field]).toMatchObject({ offset, bytes });
});

/** What C has for a name, where the headers of this system know it; `when` is a macro that came with it. */
interface Constant {
  readonly name: string;
  readonly c: string;
  readonly ours: bigint;
  readonly when?: string;
}

const macro = (name: string, ours: bigint): Constant => ({ name, c: name, ours, when: name });
const macros = (prefix: string, numbers: Readonly<Record<string, bigint | number>>): readonly Constant[] =>
  Object.entries(numbers).map(([name, number]) => macro(`${prefix}${name}`, BigInt(number)));

const fieldsOf = ({ name, bytes, fields }: Layout, when?: string): readonly Constant[] =>
  [
    { name: `sizeof ${name}`, c: `sizeof(${name})`, ours: BigInt(bytes) },
    ...Object.entries(fields).flatMap(([field, place]) => [
      { name: `${name}: ${field}`, c: `offsetof(${name}, ${field})`, ours: BigInt(place.offset) },
      // An array of words is one field of ours, which names its first.
      ...(field === 'reserved' || field === 'args'
        ? []
        : [
            {
              name: `${name}: width of ${field}`,
              c: `sizeof(((${name} *)0)->${field})`,
              ours: BigInt(place.bytes),
            },
          ]),
    ]),
  ].map((constant) => (when === undefined ? constant : { ...constant, when }));

const { SREGS_SEGMENTS, SREGS_TABLES, RUN, STAT, UTSNAME } = uapi;
const offset = (struct: string, field: string, ours: number, when?: string): Constant => {
  const constant = { name: `${struct}: ${field}`, c: `offsetof(${struct}, ${field})`, ours: BigInt(ours) };
  return when === undefined ? constant : { ...constant, when };
};

const CONSTANTS: readonly Constant[] = [
  ...macros('SYS_', uapi.SYS),
  ...macros('KVM_', uapi.KVM),
  ...macros('KVM_EXIT_', uapi.EXIT),
  ...macros('MAP_', uapi.MAP),
  ...macros('KVM_CAP_', abi.CAP),
  ...macros('KVM_CAP_', uapi.ENABLED_CAP),
  macro('AT_FDCWD', uapi.AT_FDCWD),
  macro('O_RDWR', uapi.O_RDWR),
  macro('O_CLOEXEC', uapi.O_CLOEXEC),
  macro('MS_ASYNC', uapi.MS_ASYNC),
  macro('KVM_MEMORY_EXIT_FLAG_PRIVATE', uapi.MEMORY_EXIT_FLAG_PRIVATE),
  ...fieldsOf(uapi.REGION),
  ...fieldsOf(uapi.REGION2, 'KVM_SET_USER_MEMORY_REGION2'),
  ...fieldsOf(uapi.CREATE_GUEST_MEMFD, 'KVM_CREATE_GUEST_MEMFD'),
  ...fieldsOf(uapi.MEMORY_ATTRIBUTES, 'KVM_SET_MEMORY_ATTRIBUTES'),
  ...fieldsOf(uapi.PRE_FAULT_MEMORY, 'KVM_PRE_FAULT_MEMORY'),
  ...fieldsOf(uapi.REGS),
  ...fieldsOf(uapi.SREGS),
  ...fieldsOf(uapi.SEGMENT),
  ...fieldsOf(uapi.CPUID_ENTRY),
  ...fieldsOf(uapi.DTABLE),
  ...fieldsOf(uapi.ENABLE_CAP),
  { name: 'sizeof struct kvm_cpuid2', c: 'sizeof(struct kvm_cpuid2)', ours: BigInt(uapi.CPUID_HEADER_BYTES) },
  ...Object.entries({ ...SREGS_SEGMENTS, ...SREGS_TABLES }).map(([name, ours]) =>
    offset('struct kvm_sregs', name, ours),
  ),
  offset('struct kvm_run', 'exit_reason', RUN.exitReason),
  offset('struct kvm_run', 'mmio.phys_addr', RUN.mmioPhysAddr),
  offset('struct kvm_run', 'mmio.data', RUN.mmioData),
  offset('struct kvm_run', 'mmio.is_write', RUN.mmioIsWrite),
  offset('struct kvm_run', 'memory_fault.flags', RUN.faultFlags, 'KVM_EXIT_MEMORY_FAULT'),
  offset('struct kvm_run', 'memory_fault.gpa', RUN.faultGpa, 'KVM_EXIT_MEMORY_FAULT'),
  offset('struct kvm_run', 'hypercall.nr', RUN.hypercallNr),
  offset('struct kvm_run', 'hypercall.args', RUN.hypercallArgs),
  offset('struct kvm_run', 'hypercall.ret', RUN.hypercallRet),
  offset('struct kvm_run', 'internal.suberror', RUN.suberror),
  offset('struct kvm_run', 'internal.data', RUN.internalData),
  { name: 'sizeof struct stat', c: 'sizeof(struct stat)', ours: BigInt(STAT.bytes) },
  offset('struct stat', 'st_mode', STAT.fields.st_mode.offset),
  offset('struct stat', 'st_size', STAT.fields.st_size.offset),
  offset('struct stat', 'st_blocks', STAT.fields.st_blocks.offset),
  { name: 'sizeof struct utsname', c: 'sizeof(struct utsname)', ours: BigInt(UTSNAME.bytes) },
  offset('struct utsname', 'release', UTSNAME.release),
];

const SOURCE = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/mman.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
int main(void)
{
${CONSTANTS.map(({ c, when }, index) => {
  const line = `\tprintf("${index} %lld\\n", (long long)(${c}));`;
  return when === undefined ? line : `#ifdef ${when}\n${line}\n#endif`;
}).join('\n')}
	return 0;
}
`;

const folder = mkdtempSync(join(tmpdir(), 'gmem-uapi-'));
const program = join(folder, 'uapi');
const { CC: compiler = 'cc' } = process.env;
const build = spawnSync(compiler, ['-x', 'c', '-o', program, '-'], { input: SOURCE, encoding: 'utf8' });
const noCompiler = build.error !== undefined || /linux\/kvm.h: No such file/.test(build.stderr);
if (noCompiler) rmSync(folder, { recursive: true });
const suite = noCompiler ? describe.skip : describe;

suite(`numbers and structures that C knows${noCompiler ? ' (skipped: no cc, or no kernel headers)' : ''}`, () => {
  let theirs: ReadonlyMap<number, bigint>;
  beforeAll(() => {
    const { stdout } = spawnSync(program, { encoding: 'utf8' });
    theirs = new Map(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.split(' '))
        .map(([index, number]) => [Number(index), BigInt(number ?? '')]),
    );
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('are ours', () => {
    expect(build.stderr).toBe('');
    const different = CONSTANTS.flatMap(({ name, ours }, index) => {
      const their = theirs.get(index);
      return their === undefined || their === ours ? [] : [`${name}: ours ${ours}, theirs ${their}`];
    });
    expect(different).toEqual([]);
    // Old headers lack some, and none lacks many.
    expect(theirs.size).toBeGreaterThan(CONSTANTS.length - 60);
  });
});
