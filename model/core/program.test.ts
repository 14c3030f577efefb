import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { headerOf, parseProgram, printProgram, ProgramError, renameLabels } from './program.ts';
import { FULL_MACHINE, profileById } from './profile.ts';
import { Specification } from './specification.ts';

const specify = (profile = 'linux-7.3') =>
  new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
const SPECIFICATION = specify();

const VM = 'vm.create vm=vm0 dev=kvm type=0';

function errorOf(text: string): readonly [number, string] {
  try {
    parseProgram(SPECIFICATION, text);
  } catch (error) {
    if (error instanceof ProgramError) return [error.line, error.message];
  }
  throw new Error(`this was read without complaint: ${text}`);
}

describe('a program text', () => {
  it('may order arguments as it likes, and hold comments, blank lines and spaces', () => {
    const text = `# profile: linux-7.3\n\n  vm.create  type=0x0 dev=kvm vm=vm0   # a VM\n\t\nfd.close fd=vm0\r\n`;
    const { program, header } = parseProgram(SPECIFICATION, text);
    expect(header).toEqual({ profile: 'linux-7.3' });
    expect(printProgram(SPECIFICATION, program)).toBe(`${VM}\nfd.close fd=vm0\n`);
  });

  it('may be empty', () => {
    expect(parseProgram(SPECIFICATION, '').program).toEqual([]);
  });

  it('has a header up to its first command', () => {
    const text = '#title:  a b: c  \n# no header\n\n # rule: x/y\nfd.close fd=none\n# late: one\n';
    expect(headerOf(text)).toEqual({ title: 'a b: c', rule: 'x/y' });
  });

  it.each([
    ['vm.crate vm=vm0', 1, /profile linux-7.3 has no command 'vm.crate'; it has vm.create, /],
    [`${VM}\ngmem.link file=f vm=vm0 from=f flags=0`, 2, /profile linux-7.3 has no command 'gmem.link'/],
    [`${VM}\n# x\nfd.close`, 3, /^fd.close needs fd=<descriptor>$/],
    ['fd.close fd', 1, /^'fd' is not an argument: write name=value$/],
    ['fd.close =vm0', 1, /is not an argument/],
    ['fd.close fd=vm0 fd=vm0', 1, /^argument 'fd' is given twice$/],
    ['fd.close fd=vm0 to=vm1', 1, /^fd.close has no argument 'to'; it takes fd$/],
    ['fd.close fd=VM', 1, /^argument 'fd': 'VM' is not a label: write lower-case letters/],
    ['vm.create vm=vm0 dev=kvm type=1x', 1, /^argument 'type': '1x' is not an integer: write decimal/],
    ['vm.create vm=vm0 dev=kvm type=-1', 1, /^argument 'type': -1 does not fit: wanted 0 to 0xffffffffffffffff$/],
    [`${VM}\n\n${VM}`, 3, /^label 'vm0' was created on line 1: every label is used once$/],
    ['vm.create vm=kvm dev=kvm type=0', 1, /^label 'kvm' is taken before the program starts$/],
    ['vm.create vm=none dev=kvm type=0', 1, /^label 'none' is taken/],
  ])('%j is refused with its line and a remedy', (text, line, message) => {
    const [at, said] = errorOf(text);
    expect(at).toBe(line);
    expect(said).toMatch(message);
  });

  it('is read with the commands of the profile', () => {
    const text = `${VM}\ngmem.link file=f vm=vm0 from=none flags=0\n`;
    const linked = specify('gmem-link-rfc');
    expect(printProgram(linked, parseProgram(linked, text).program)).toBe(text);
  });
});

describe('renaming', () => {
  it('reaches references, new labels and addresses, and nothing else', () => {
    const line =
      'slot.set vm=vm0 api=v1 slot=0 flags=0 gpa=0 size=0x1000 hva=arena+0x1000 gmem=none offset=0\n' +
      'mem.map mapping=map0 fd=vm0 length=0x1000 offset=0 sharing=shared\n' +
      'slot.set vm=vm0 api=v1 slot=0 flags=0 gpa=0 size=0x1000 hva=0x1000 gmem=none offset=0\n';
    const renamed = parseProgram(SPECIFICATION, line).program.map((command) =>
      renameLabels(SPECIFICATION.transition(command.name), command, (label) => `${label}x`),
    );
    expect(printProgram(SPECIFICATION, renamed)).toBe(
      line.replaceAll('vm0', 'vm0x').replaceAll('arena', 'arenax').replace('map0', 'map0x').replaceAll('none', 'nonex'),
    );
  });
});
