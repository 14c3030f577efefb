import { afterAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Generator } from '../../conformance/generate.ts';
import { SmallFastRandom } from '../../conformance/random.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { FULL_MACHINE, profileById, type Machine } from '../../model/core/profile.ts';
import { headerOf, parseProgram, type Program } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { NEWER_STRUCTS } from './c-library.ts';
import { printC } from './c-source.ts';
import { call, commented, identifier, quoted, withNames } from './c-text.ts';
import { compilerCommand, compilerVersion } from './compile.ts';
import { NotExecutable } from './lower.ts';
import { reproduce } from './reproducer.ts';
import { CREATE_GUEST_MEMFD, FALLOC_MODES, MEMORY_ATTRIBUTES, PRE_FAULT_MEMORY, REGION2, VM_TYPES } from './uapi.ts';

const SCENARIOS = join(__dirname, '../../scenarios');
const FLAGS = ['-Wall', '-Wextra', '-Werror', '-std=gnu11', '-fsyntax-only'];
const SHADOW: Machine = { ...FULL_MACHINE, twoDimensionalPaging: false, addressSpaces: 1, memoryAttributes: false };

const specify = (profile: string, machine = FULL_MACHINE): Specification =>
  new Specification({ profile: profileById(profile), machine }, CATALOGUE);

const print = (specification: Specification, program: Program, about: readonly string[] = ['A program.']): string =>
  printC({ ...reproduce(specification, program), about });

const printText = (text: string, profile = 'linux-6.18'): string => {
  const specification = specify(profile);
  return print(specification, parseProgram(specification, text).program);
};

function isThere(): boolean {
  try {
    return compilerVersion() !== '';
  } catch {
    return false;
  }
}
const HAS_COMPILER = isThere();

const folder = mkdtempSync(join(tmpdir(), 'gmem-c-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What the compiler complains about, which is called once for all. */
function complaints(texts: readonly string[]): string {
  const files = texts.map((text, index) => {
    const file = join(folder, `${index}.c`);
    writeFileSync(file, text);
    return file;
  });
  const [command, ...args] = compilerCommand();
  const { stderr, error } = spawnSync(command, [...args, ...FLAGS, ...files], { encoding: 'utf8' });
  return error?.message ?? stderr;
}

function generated(count: number, specification: Specification): readonly Program[] {
  const generator = new Generator(specification, { maxCommands: 25, capabilities: new Set() });
  const random = new SmallFastRandom(1, 2, 3, 1);
  const programs: Program[] = [];
  while (programs.length < count) {
    const { commands } = generator.generate(random);
    if (commands.every(({ name }) => name !== 'gmem.link')) programs.push(commands);
  }
  return programs;
}

function printed(specification: Specification, program: Program): readonly string[] {
  try {
    const text = print(specification, program);
    return text.includes('#define STEPS 0\n') ? [] : [text];
  } catch (error) {
    if (error instanceof NotExecutable) return [];
    throw error;
  }
}

const TEXTS = [
  ...readdirSync(SCENARIOS)
    .filter((name) => name.endsWith('.gmem'))
    .flatMap((name) => {
      const text = readFileSync(join(SCENARIOS, name), 'utf8');
      const specification = specify(headerOf(text)['profile'] ?? '');
      return printed(specification, parseProgram(specification, text).program);
    }),
  ...[specify('linux-7.3'), specify('linux-6.18', SHADOW)].flatMap((specification) =>
    generated(100, specification).flatMap((program) => printed(specification, program)),
  ),
];

(HAS_COMPILER ? describe : describe.skip)(
  `a program in C${HAS_COMPILER ? '' : ', skipped: there is no C compiler'}`,
  () => {
    it('compiles without a warning, whether it is a scenario or came by chance', () => {
      expect(TEXTS.length).toBeGreaterThan(220);
      expect(complaints(TEXTS)).toBe('');
    });

    it('compiles with labels and comments that look like C', () => {
      const specification = specify('linux-6.18');
      const labels = ['main', 'read', 'linux', 'seen', 'scratch', 'word', 'dup2'];
      const lines = labels.map((label) => `fd.dup as=${label} fd=kvm`);
      const { program } = parseProgram(specification, lines.join('\n'));
      const about = ['*/ int x; /*', '/*/', 'virt/kvm/*.c', 'what??/', 'back\\', '\u001b[31m', '%s "quoted"', '→'];
      expect(complaints([print(specification, program, about)])).toBe('');
    });

    it('declares what older headers lack as it was lowered', () => {
      const layouts = [REGION2, CREATE_GUEST_MEMFD, MEMORY_ATTRIBUTES, PRE_FAULT_MEMORY];
      const checks = layouts.flatMap(({ name, bytes, fields }) => [
        `_Static_assert(sizeof(${name}) == ${bytes}, "size");`,
        ...Object.entries(fields).map(
          ([field, { offset }]) => `_Static_assert(__builtin_offsetof(${name}, ${field}) == ${offset}, "offset");`,
        ),
      ]);
      const types = '#include <linux/types.h>';
      expect(complaints([[types, ...Object.values(NEWER_STRUCTS), ...checks].join('\n')])).toBe('');
    });
  },
);

describe('the text of a program in C', () => {
  it('keeps to the columns, but for what cannot be broken', () => {
    const long = TEXTS.flatMap((text) => text.split('\n')).filter(
      (line) => line.replaceAll('\t', ' '.repeat(8)).length > 110,
    );
    expect(long).toEqual([]);
  });

  it('says what it does in the words of the header files', () => {
    const text = printText(`
      vm.create vm=vm0 dev=kvm type=0
      gmem.create file=file0 vm=vm0 size=0x4000 flags=1 reserved=0
      slot.set vm=vm0 api=v2 slot=3 flags=4 gpa=0x8000 size=0x4000 hva=arena gmem=file0 offset=0
      gmem.fallocate fd=file0 mode=3 offset=0x1000 length=-1`);
    expect(text).toContain(`	step("slot.set vm=vm0 api=v2 slot=3 flags=4 gpa=0x8000 size=0x4000 hva=arena gmem=file0 "
	     "offset=0");
	region = (struct kvm_userspace_memory_region2){
		.slot = 3,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = 0x8000,
		.memory_size = 0x4000,
		.userspace_addr = arena,
		.guest_memfd = file0,
	};
	ret = sys(ioctl(vm0, KVM_SET_USER_MEMORY_REGION2, &region));
	expect(outcome(ret), "ok", "ENOMEM", "slot.set/create-gmem");`);
    expect(text).toContain('FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0x1000, -1));');
  });

  it('has no function and no declaration that it does not need', () => {
    const text = printText('vm.create vm=vm0 dev=kvm type=0');
    for (const word of ['host_load', 'prepare_vcpu', 'kvm_create_guest_memfd', 'mmap(', 'memfd_create', '/dev/null'])
      expect(text).not.toContain(word);
  });

  it('ends where the specification falls silent', () => {
    const text = printText('fd.dup as=a fd=kvm\nmemory.fail fd=none page=0\nfd.close fd=a');
    expect(text).toContain('#define STEPS 1');
  });

  it('gives labels names that C has not taken', () => {
    const text = printText('vm.create vm=int dev=kvm type=0\nfd.dup as=a-b fd=int\nfd.dup as=a_b fd=int');
    expect(text).toContain('\tlong kvm, int_, a_b_, a_b__;');
  });

  it.each([
    [
      'gmem.create file=f vm=vm0 size=0x1000 flags=0 reserved=0\nmemory.fail fd=f page=0',
      'memory failures are injected only into kernels in QEMU',
    ],
    ['fault.slab skip=0', 'failing allocations are not injected into kernels yet'],
  ])('is refused for %j', (lines, reason) => {
    expect(() => printText(`vm.create vm=vm0 dev=kvm type=0\n${lines}`)).toThrow(reason);
  });
});

describe('what a program takes of a machine', () => {
  const requirements = (text: string, machine = FULL_MACHINE): readonly string[] => {
    const specification = specify('linux-6.18', machine);
    return reproduce(specification, parseProgram(specification, text).program).requirements.map(
      ({ capability, mask, value }) => `${capability} & ${mask} = ${value}`,
    );
  };

  it('is what it would be expected to do otherwise on another', () => {
    expect(requirements('fd.close fd=none')).toEqual([]);
    expect(requirements('vm.create vm=vm0 dev=kvm type=1')).toEqual(['KVM_CAP_VM_TYPES & 2 = 2']);
    expect(requirements('vm.create vm=vm0 dev=kvm type=3')).toEqual(['KVM_CAP_VM_TYPES & 8 = 0']);
    const set = 'vm.create vm=vm0 dev=kvm type=0\nattributes.set vm=vm0 address=0 size=0 attributes=0 flags=0';
    expect(requirements(set, SHADOW)).toContain('KVM_CAP_MEMORY_ATTRIBUTES & 8 = 0');
  });
});

describe('text', () => {
  it.each([
    ['*/', '* /'],
    ['/*/', '/ * /'],
    ['/**/', '/ ** /'],
    ['a\u0000b\nc', 'a?b?c'],
    ['??/', '? ?/'],
  ])('%j is commented as %j', (text, comment) => expect(commented(text)).toBe(comment));

  it.each([
    ['a "b" \\', '"a \\"b\\" \\\\"'],
    ['\u0001\n', '"\\001\\n"'],
    ['what??/', '"what\\??/"'],
  ])('%j is quoted as %s', (text, literal) => expect(quoted(text)).toBe(literal));

  it('names the bits of a number, and leaves the rest', () => {
    expect(withNames(3n, FALLOC_MODES)).toBe('FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE');
    expect(withNames(0x102n, FALLOC_MODES)).toBe('FALLOC_FL_PUNCH_HOLE | 0x100');
    expect(withNames(0n, FALLOC_MODES)).toBe('0');
    expect(withNames(1n, VM_TYPES)).toBe('KVM_X86_SW_PROTECTED_VM');
    expect(withNames(77n, VM_TYPES)).toBe('0x4d');
  });

  it('aligns what does not fit on a line with the parenthesis', () => {
    const part = 'x'.repeat(40);
    expect(call('f', [part, part, part])).toBe(`\tf(${part}, ${part},\n\t  ${part});`);
  });

  it('makes identifiers of labels', () => {
    expect(identifier('vm0', new Set())).toBe('vm0');
    expect(identifier('vm0', new Set(['vm0']))).toBe('vm0_');
    expect(identifier('while', new Set())).toBe('while_');
  });
});
