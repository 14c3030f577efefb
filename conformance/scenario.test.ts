import { describe, expect, it } from '@jest/globals';
import { mutantById } from '../adapters/mutants/index.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById, type Machine } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import type { Target } from '../adapters/adapter.ts';
import { misfit, onOneLine, parseScenario, runScenario } from './scenario.ts';

const HEADER = '# title: a\n# source: b\n# profile: linux-7.3\n# rule: fd.close/bad-descriptor\n';
const CLOSE = 'fd.close fd=none\n';

const specify = (profile = 'linux-7.3', machine: Machine = FULL_MACHINE, catalogue = CATALOGUE): Specification =>
  new Specification({ profile: profileById(profile), machine }, catalogue);

describe('a scenario', () => {
  it('that is whole is taken', () => {
    const { name, header, program } = parseScenario(
      `${HEADER}# requires: facts, memory-attributes\n${CLOSE}`,
      'some/where/closed.gmem',
    );
    expect(name).toBe('closed');
    expect(header).toEqual({
      title: 'a',
      source: 'b',
      profile: 'linux-7.3',
      rule: 'fd.close/bad-descriptor',
      requires: ['facts', 'memory-attributes'],
    });
    expect(program).toHaveLength(1);
  });

  it.each([
    [HEADER.replace('title', 'titel'), "x.gmem:1: there is no field 'titel' in a header; there are title, source"],
    [HEADER.replace('# source: b\n', ''), 'x.gmem: the header has no source: say where that can be read'],
    [HEADER.replace('profile: linux-7.3', 'profile:'), 'x.gmem:3: profile: write the profile whose rules hold: linux-'],
    [HEADER.replace('linux-7.3', 'linux-1.0'), 'x.gmem:3: profile: write the profile whose rules hold: linux-'],
    [HEADER.replace('rule: fd.close/bad-descriptor', 'seed: 1'), 'x.gmem: the header has no rule: write the rule that'],
    [HEADER.replace('bad-descriptor', 'worse'), "x.gmem:4: rule: linux-7.3 has no rule 'fd.close/worse'"],
    [`${HEADER}# invariant: gmem/x\n`, 'x.gmem:5: invariant: there is none of that name; there are gmem/'],
    [`${HEADER}# requires: facts, luck\n`, 'x.gmem:5: requires: list what it takes of facts, memory-failure'],
    [`${HEADER}# requires: \n`, 'x.gmem:5: requires: list what it takes of facts'],
    [`${HEADER}# title: again\n`, 'x.gmem:5: title stands on line 1 already'],
    [`${HEADER}# seed: one\n`, 'x.gmem:5: seed: write a whole number'],
    [`${HEADER}# model: one\n`, 'x.gmem:5: model: write the hash'],
    [`${HEADER}# expected: EINVAL\n`, 'x.gmem: the header has no observed: what was expected'],
    [`${HEADER}# observed: ok\n`, 'x.gmem: the header has no expected: what was observed'],
  ])('%j is refused, and the message names file, line and field', (header, message) => {
    expect(() => parseScenario(`${header}${CLOSE}`, 'x.gmem')).toThrow(message);
  });

  it.each([
    ['', 'x.gmem: there is no command in it'],
    ['fd.open\n', "x.gmem:5: profile linux-7.3 has no command 'fd.open'"],
  ])('with the program %j is refused', (program, message) => {
    expect(() => parseScenario(`${HEADER}${program}`, 'x.gmem')).toThrow(message);
  });

  it('does not steer a terminal through what is quoted of it', () => {
    const text = HEADER.replace('bad-descriptor', '\u001b[2J');
    expect(() => parseScenario(`${text}${CLOSE}`, 'x.gmem')).toThrow(/^[^\p{Cc}]*$/u);
  });
});

describe('a target', () => {
  const target: Pick<Target, 'capabilities' | 'missing'> = { capabilities: new Set() };
  const why = (header: string, program: string, specification = specify(), subject = target): string | undefined =>
    misfit(parseScenario(`${header}${program}`, 'x.gmem'), { specification, target: subject });

  it('is skipped with the reason where it lacks what the scenario takes', () => {
    const fail = 'vm.create vm=v dev=kvm type=0\nfault.slab skip=0\nfd.close fd=none\n';
    expect(why(HEADER, CLOSE)).toBeUndefined();
    expect(why(`${HEADER}# requires: facts\n`, CLOSE)).toMatch(/^it takes facts: the target does not say that it/);
    expect(why(HEADER, fail, specify(), { ...target, missing: { 'fault-injection': 'not yet' } })).toBe(
      'it takes fault-injection: not yet',
    );
    const bare = specify('linux-7.3', { ...FULL_MACHINE, memoryAttributes: false });
    expect(why(`${HEADER}# requires: memory-attributes\n`, CLOSE, bare)).toBe(
      'it takes memory-attributes: the machine has no memory attributes',
    );
    const few = specify(
      'linux-7.3',
      FULL_MACHINE,
      CATALOGUE.filter(({ name }) => name !== 'fd.close'),
    );
    expect(why(HEADER, CLOSE, few)).toBe('fd.close is not among the commands of linux-7.3 on this target');
  });

  it('is skipped where the rule does not show, or the specification is silent', () => {
    const two = '# title: a\n# source: b\n# profile: linux-7.2\n# rule: slot.set/file-range-bound\n';
    const bind = (slot: number, size: number): string =>
      `slot.set vm=v api=v2 slot=${slot} flags=4 gpa=0x${slot}0000 size=${size} hva=0 gmem=f offset=0\n`;
    const program = `vm.create vm=v dev=kvm type=0\ngmem.create file=f vm=v size=4096 flags=0 reserved=0\n${bind(0, 4096)}`;
    expect(why(two, `${program}${bind(1, 4096)}`, specify('linux-7.2'))).toBeUndefined();
    expect(why(two, program, specify('linux-7.2'))).toMatch(/no command comes to slot.set\/file-range-bound$/);
    expect(why(HEADER, `mem.unmap mapping=gone\n${CLOSE}`)).toMatch(/takes no position: mem.unmap\//);
  });
});

describe('running a scenario', () => {
  const SIZE = '# title: a\n# source: b\n# profile: linux-7.3\n# rule: gmem.create/size-not-positive\n';
  const PROGRAM = 'vm.create vm=vm0 dev=kvm type=0\ngmem.create file=f vm=vm0 size=0 flags=0 reserved=0\n';
  const run = (header: string, target: Target) => {
    const scenario = parseScenario(`${header}${PROGRAM}`, 'x.gmem');
    return runScenario(scenario, { specification: specify(), target });
  };
  const wrong = mutantById('drop:gmem.create/size-not-positive')?.target ?? simulatorTarget();
  const told = (observed: string): string => `${SIZE}# expected: EINVAL\n# observed: ${observed}\n`;

  it('gives a verdict', async () => {
    expect(await run(SIZE, simulatorTarget())).toMatchObject({ verdict: { kind: 'conforms' } });
    expect(await run(SIZE, wrong)).toMatchObject({ verdict: { kind: 'diverges', observed: 'ok' } });
  });

  it('says whether what the file tells is what happens', async () => {
    expect((await run(SIZE, wrong)).note).toBeUndefined();
    expect((await run(told('ok'), wrong)).note).toBe('as the file says');
    expect((await run(told('ENOMEM'), wrong)).note).toBe('the file says ENOMEM');
    expect((await run(told('ok'), simulatorTarget())).note).toBe('what the file says was observed does not happen');
  });

  it('says nothing where the environment kept the program from its rule', async () => {
    const full: Target = {
      ...simulatorTarget(),
      capabilities: new Set(),
      execute: (program) => program.map(() => ({ outcome: { kind: 'errno', errno: 'EMFILE' } })),
    };
    expect((await run(SIZE, full)).verdict).toEqual({
      kind: 'inconclusive',
      reason: 'the environment kept the program from gmem.create/size-not-positive',
    });
  });

  it('keeps to one line what a header is to hold', () => {
    expect(onOneLine(' a\n\tb\u001b[2J ')).toBe('a b [2J');
  });
});
