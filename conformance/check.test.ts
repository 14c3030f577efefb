import { describe, expect, it } from '@jest/globals';
import type { Observed, Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { fails, ok } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { parseProgram } from '../model/core/program.ts';
import { Specification, type Step } from '../model/core/specification.ts';
import { checkProgram, newTally, printExpectation, type CheckedStep } from './check.ts';
import { Coverage } from './coverage.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const { program } = parseProgram(
  specification,
  'vm.create vm=vm0 dev=kvm type=0\nfile.stat fd=none field=size\nfd.close fd=vm0\n',
);

/** A target that answers what it is told to answer. */
const answering = (...observed: readonly Observed[]): Target => ({ ...referenceTarget(), execute: () => observed });
const right = [{ outcome: ok() }, { outcome: fails('EBADF') }, { outcome: ok() }] as const;

const check = (target: Target) => checkProgram({ specification, target }, program);

describe('checking a program', () => {
  it('conforms where every observation is what was expected', () => {
    expect(check(answering(...right))).toEqual({ kind: 'conforms', commands: 3 });
  });

  it('diverges at the first command that comes to something else', () => {
    const observed = [right[0], { outcome: ok(0n) }, right[2]];
    expect(check(answering(...observed))).toEqual({
      kind: 'diverges',
      at: 1,
      rule: 'file.stat/bad-descriptor',
      expected: 'EBADF',
      observed: 'ok 0x0',
    });
  });

  it('diverges where the target breaks', () => {
    const observed = [right[0], { outcome: { kind: 'crash', message: 'oops' } } as const];
    expect(check(answering(...observed))).toMatchObject({ kind: 'diverges', at: 1, observed: 'crash: oops' });
  });

  it('goes on from the same state after an error that may happen at any time', () => {
    const observed = [{ outcome: fails('EMFILE') }, right[1], { outcome: fails('EBADF') }];
    expect(check(answering(...observed))).toEqual({ kind: 'conforms', commands: 3 });
    const wrong = [{ outcome: fails('EMFILE') }, right[1], { outcome: ok() }];
    expect(check(answering(...wrong))).toMatchObject({ kind: 'diverges', at: 2, expected: 'EBADF', observed: 'ok' });
  });

  it('is inconclusive where the target is gone before the end', () => {
    expect(check(answering(...right.slice(0, 2)))).toEqual({
      kind: 'inconclusive',
      reason: 'the target was gone after 2 of 3 commands',
    });
    expect(check(answering())).toMatchObject({ kind: 'inconclusive' });
  });

  it('is inconclusive where the target says more than it was asked', () => {
    expect(check(answering(...right, { outcome: ok() }))).toEqual({
      kind: 'inconclusive',
      reason: 'the target observed more than it was asked to do',
    });
  });

  it('waits for a target that takes its time', async () => {
    const target: Target = { ...referenceTarget(), execute: async () => right };
    const verdict = check(target);
    expect(verdict).toBeInstanceOf(Promise);
    expect(await verdict).toEqual({ kind: 'conforms', commands: 3 });
  });

  it('lets go of a target as soon as it has diverged', () => {
    const asked: number[] = [];
    const target: Target = {
      ...referenceTarget(),
      *execute() {
        try {
          for (let at = 0; ; at++) {
            asked.push(at);
            yield { outcome: fails('EIO') };
          }
        } finally {
          asked.push(-1);
        }
      },
    };
    expect(check(target)).toMatchObject({ kind: 'diverges', at: 0 });
    expect(asked).toEqual([0, -1]);
  });

  it('takes a crash for what it is, whatever came before it', async () => {
    const crash = { outcome: { kind: 'crash', message: 'BUG' } } as const;
    const target: Target = {
      ...answering(),
      execute: async () => [{ outcome: fails('EIO') }, ...right.slice(1, -1), crash],
    };
    expect(await check(target)).toMatchObject({ kind: 'diverges', at: 2, observed: 'crash: BUG' });
  });

  it('stops where the specification is silent, and says so', () => {
    const silent = parseProgram(specification, 'fd.close fd=kvm\nmem.unmap mapping=gone\nfd.close fd=null').program;
    const target = answering({ outcome: ok() });
    expect(checkProgram({ specification, target }, silent)).toEqual({
      kind: 'conforms',
      commands: 1,
      unmodelled: {
        at: 1,
        rule: 'mem.unmap/not-mapped',
        reason: 'a mapping that is gone has no address of its own',
      },
    });
  });

  it('evaluates invariants on facts, counts them, and tells the one that is broken', async () => {
    const tally = newTally();
    const [observed] = [...(await referenceTarget().execute(program, specification.config.profile))];
    const facts = { ...(observed?.facts ?? fail()), outOfBounds: ['index 9 of 3'] };
    const target = answering({ ...right[0], facts }, ...right.slice(1));
    expect(checkProgram({ specification, target, tally }, program)).toMatchObject({
      kind: 'diverges',
      at: 0,
      rule: 'vm.create/created',
      invariant: 'memory/in-bounds',
      observed: 'index 9 of 3',
    });
    expect(tally.checks.get('memory/in-bounds')).toBe(1);
    expect(tally.checks.has('memory/fresh-is-zero')).toBe(false);
  });

  it('evaluates facts once where they stay the same object', () => {
    const tally = newTally();
    void checkProgram({ specification, target: referenceTarget(), tally }, program);
    // The refusal in the middle leaves them as they were.
    expect(tally.checks.get('gmem/never-rebinds')).toBe(2);
  });

  it('shows each step, and counts the rule that decided', () => {
    const steps: CheckedStep[] = [];
    const coverage = new Coverage(specification);
    const onStep = (step: CheckedStep): void => void steps.push(step);
    void checkProgram({ specification, target: answering(...right), coverage, onStep }, program);
    expect(steps.map(({ command, expected }) => [command.name, expected.rule])).toEqual([
      ['vm.create', 'vm.create/created'],
      ['file.stat', 'file.stat/bad-descriptor'],
      ['fd.close', 'fd.close/vm-destroyed'],
    ]);
    expect(coverage.hits('file.stat/bad-descriptor')).toBe(1);
  });
});

/** What a target comes to that answers the last command of a program so, and all before as it should. */
function checkLast(lines: readonly string[], last: Observed['outcome'], capabilities: Target['capabilities']) {
  const { program: commands } = parseProgram(specification, lines.join('\n'));
  const before = [...(referenceTarget().execute(commands, specification.config.profile) as Iterable<Observed>)];
  const observed = [...before.slice(0, -1).map(({ outcome }) => ({ outcome })), { outcome: last }];
  return checkProgram({ specification, target: { ...answering(...observed), capabilities } }, commands);
}

const BLACK: Target['capabilities'] = new Set();
const INJECTING: Target['capabilities'] = new Set(['fault-injection']);

const MEMORY = [
  'vm.create vm=vm0 dev=kvm type=1',
  'gmem.create file=file0 vm=vm0 size=0x4000 flags=1 reserved=0',
  'slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x4000 hva=arena gmem=file0 offset=0',
  'vcpu.create vcpu=vcpu0 vm=vm0 id=0',
];
const ENOMEM = fails('ENOMEM');
const EINTR = fails('EINTR');

describe('an error of the environment', () => {
  const make = (attributes: number) => `attributes.set vm=vm0 address=0 size=0x1000 attributes=${attributes} flags=0`;
  const allocate = 'gmem.fallocate fd=file0 mode=1 offset=0 length=0x4000';

  it.each([
    ['is allowed where memory is allocated', [make(8)], ENOMEM],
    ['is allowed where the call can be interrupted', ['vcpu.prefault vcpu=vcpu0 gpa=0 size=0x4000 flags=0'], EINTR],
    [
      'is allowed where a file is created',
      ['gmem.create file=f vm=vm0 size=0x1000 flags=0 reserved=0'],
      fails('EMFILE'),
    ],
  ])('%s', (_name, lines, outcome) => {
    expect(checkLast([...MEMORY, ...lines], outcome, BLACK)).toEqual({ kind: 'conforms', commands: 5 });
  });

  it.each([
    ['punching cannot fail', [allocate, 'gmem.fallocate fd=file0 mode=3 offset=0 length=0x1000'], ENOMEM],
    ['punching cannot be interrupted', [allocate, 'gmem.fallocate fd=file0 mode=3 offset=0 length=0x1000'], EINTR],
    ['clearing attributes takes no memory', [make(8), make(0)], ENOMEM],
    ['attributes that are there already take none', [make(8), make(8)], ENOMEM],
    ['nobody deletes a slot meanwhile', ['vcpu.prefault vcpu=vcpu0 gpa=0 size=0x1000 flags=0'], fails('EAGAIN')],
  ])('is a divergence where %s', (_name, lines, outcome) => {
    expect(checkLast([...MEMORY, ...lines], outcome, BLACK)).toMatchObject({ kind: 'diverges', at: 3 + lines.length });
  });

  it('is a divergence where it leaves the facts changed, although success would have changed them too', () => {
    const lines = [...MEMORY, 'fault.slab skip=0', make(8)];
    const { program: commands } = parseProgram(specification, lines.join('\n'));
    const [before, after] = [{ private: [] }, { private: [{ vm: 'vm0', start: 0, end: 1 }] }];
    const observed = commands.map((_command, index): Observed =>
      index === 5 ? { outcome: ENOMEM, facts: after } : { outcome: ok(), facts: before },
    );
    const target = { ...answering(...observed), capabilities: INJECTING };
    expect(checkProgram({ specification, target }, commands)).toMatchObject({
      kind: 'diverges',
      at: 5,
      invariant: 'errors/no-effect',
    });
  });

  it('ends checking where it leaves a command half done', () => {
    const later = 'memory.fail fd=file0 page=0';
    const { program: commands } = parseProgram(specification, [...MEMORY, allocate, later].join('\n'));
    const observed = [...MEMORY.map(() => ({ outcome: ok() })), { outcome: ENOMEM }, { outcome: ok() }];
    const target = { ...answering(...observed), capabilities: BLACK };
    expect(checkProgram({ specification, target }, commands)).toMatchObject({
      kind: 'conforms',
      commands: 5,
      unmodelled: { at: 4, rule: 'gmem.fallocate/allocate', reason: expect.stringContaining('half-way') },
    });
  });

  it.each([
    [0x1000n, 'conforms'],
    [0x3000n, 'conforms'],
    [0n, 'diverges'],
    [0x800n, 'diverges'],
    [0x5000n, 'diverges'],
  ])('may let a pre-fault of 0x4000 bytes succeed with %s', (value, kind) => {
    const lines = [...MEMORY, 'vcpu.prefault vcpu=vcpu0 gpa=0 size=0x4000 flags=0'];
    expect(checkLast(lines, ok(value), BLACK)).toMatchObject({ kind });
  });
});

it('allows no pre-fault to fall short where allocations fail only when they are told to', () => {
  const lines = [...MEMORY, 'vcpu.prefault vcpu=vcpu0 gpa=0 size=0x4000 flags=0'];
  expect(checkLast(lines, ok(0x1000n), INJECTING)).toMatchObject({ kind: 'diverges', at: 4 });
});

describe('ENOMEM of a target that fails allocations when it is told to', () => {
  const make = 'attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0';
  const lines = [...MEMORY, 'fault.slab skip=0', make, make];
  const { program: commands } = parseProgram(specification, lines.join('\n'));
  const run = (...last: readonly Observed['outcome'][]) => {
    const observed = [...MEMORY, ''].map((): Observed => ({ outcome: ok() }));
    const target = answering(...observed, ...last.map((outcome) => ({ outcome })));
    return checkProgram({ specification, target: { ...target, capabilities: INJECTING } }, commands);
  };

  it('is a divergence where no failure is due', () => {
    expect(checkLast([...MEMORY, make], ENOMEM, INJECTING)).toMatchObject({ kind: 'diverges', at: 4, expected: 'ok' });
  });

  it('is allowed once for each failure', () => {
    expect(run(ENOMEM, ok())).toEqual({ kind: 'conforms', commands: 7 });
    expect(run(ok(), ok())).toEqual({ kind: 'conforms', commands: 7 });
    expect(run(ENOMEM, ENOMEM)).toMatchObject({ kind: 'diverges', at: 6, expected: 'ok', observed: 'ENOMEM' });
  });
});

const fail = (): never => {
  throw new Error('the reference reports facts');
};

describe('an expectation', () => {
  const step: Step = { rule: 'x/y', outcome: ok(), mayAlso: ['ENOMEM', 'EINTR'], state: specification.initial };

  it.each([
    [step, 'ok (or ENOMEM, EINTR)'],
    [{ ...step, outcome: fails('ENOMEM') }, 'ENOMEM (or EINTR)'],
    [{ ...step, mayAlso: [] }, 'ok'],
    [{ ...step, unmodelled: 'nobody knows' }, 'unmodelled: nobody knows'],
  ])('is put into words: %#', (given, text) => {
    expect(printExpectation(given)).toBe(text);
  });
});
