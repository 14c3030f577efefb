import { describe, expect, it } from '@jest/globals';
import { fd, u64 } from './domain.ts';
import { fails, ok, type Observation } from './outcome.ts';
import { FULL_MACHINE, profileById } from './profile.ts';
import { Specification } from './specification.ts';
import { defineTransition } from './transition.ts';

/** Refuses 1 with EINVAL, then everything odd with EEXIST; diverts 2, says nothing about 4, accepts the rest. */
const toy = defineTransition({
  name: 'toy.do',
  summary: 'An example.',
  does: 'nothing',
  source: 'nowhere',
  args: { n: u64() },
  mayAlso: ['ENOMEM'],
  weight: 1,
  guards: [
    { id: 'toy.do/one', errno: 'EINVAL', when: 'n is 1', violated: ({ n }) => n === 1n },
    { id: 'toy.do/odd', errno: 'EEXIST', when: 'n is odd', violated: ({ n }) => n % 2n === 1n },
    {
      id: 'toy.do/two',
      result: 'SIGBUS',
      outcome: () => ({ kind: 'signal', signal: 'SIGBUS' }),
      when: 'n is 2',
      violated: ({ n }) => n === 2n,
    },
    { id: 'toy.do/four', unmodelled: 'nobody knows', when: 'n is 4', violated: ({ n }) => n === 4n },
    { id: 'toy.do/old', errno: 'EIO', when: 'n is 6', only: { before: '7.3' }, violated: ({ n }) => n === 6n },
    {
      id: 'toy.do/new',
      errno: 'EFAULT',
      when: 'n is 6',
      only: { since: '7.3' },
      source: 'somewhere',
      unreachable: () => 'it is an example',
      violated: ({ n }) => n === 6n,
    },
  ],
  accepts: [
    { id: 'toy.do/zero', when: 'n is 0', applies: ({ n }) => n === 0n, accept: (_args, state) => ({ state }) },
    {
      id: 'toy.do/more',
      when: 'n is more',
      accept: ({ n }, state) => ({ state: { ...state, vms: new Map() }, value: n }),
    },
  ],
  draw: () => undefined,
});
const linkOnly = { ...toy, name: 'toy.link', only: { feature: 'gmem-link' } } as const;
const fileToy = defineTransition({
  name: 'toy.file',
  summary: 'An example with a descriptor.',
  does: 'nothing',
  source: 'nowhere',
  args: { vm: fd('vm') },
  mayAlso: [],
  weight: 1,
  guards: [{ descriptor: 'vm', kind: 'vm' }],
  accepts: [],
  draw: () => undefined,
});

const specify = (profile = 'linux-7.3') =>
  new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, [toy, linkOnly, fileToy]);
const SPECIFICATION = specify();

const step = (n: bigint, specification = SPECIFICATION) =>
  specification.step(specification.initial, { name: 'toy.do', args: { n } });

describe('a step', () => {
  it.each([
    [1n, 'toy.do/one', fails('EINVAL')],
    [3n, 'toy.do/odd', fails('EEXIST')],
    [2n, 'toy.do/two', { kind: 'signal', signal: 'SIGBUS' }],
    [6n, 'toy.do/new', fails('EFAULT')],
  ])('of %d is decided by the first row that it violates, and changes nothing', (n, rule, outcome) => {
    const taken = step(n);
    expect(taken).toMatchObject({ rule, outcome, mayAlso: ['ENOMEM'] });
    expect(taken.state).toBe(SPECIFICATION.initial);
  });

  it('is decided by the first acceptance that applies where no row is violated', () => {
    expect(step(0n)).toMatchObject({ rule: 'toy.do/zero', outcome: ok() });
    expect(step(8n)).toMatchObject({ rule: 'toy.do/more', outcome: ok(8n) });
    expect(step(8n).state).not.toBe(SPECIFICATION.initial);
  });

  it('says where the specification takes no position', () => {
    expect(step(4n)).toMatchObject({ rule: 'toy.do/four', unmodelled: 'nobody knows' });
    expect(step(2n).unmodelled).toBeUndefined();
  });

  it('knows the rows and commands of its profile only', () => {
    expect(step(6n, specify('linux-7.2')).rule).toBe('toy.do/old');
    const command = { name: 'toy.link', args: { n: 0n } };
    expect(() => SPECIFICATION.step(SPECIFICATION.initial, command)).toThrow(
      "profile linux-7.3 has no command 'toy.link'",
    );
    const linked = specify('gmem-link-rfc');
    expect(linked.step(linked.initial, command).rule).toBe('toy.do/zero');
  });

  it('ends in a defect where a command refuses nothing and accepts nothing', () => {
    const state = {
      ...SPECIFICATION.initial,
      fds: new Map([['vm0', { kind: 'vm', id: 'vm0' } as const]]),
    };
    expect(() => SPECIFICATION.step(state, { name: 'toy.file', args: { vm: 'vm0' } })).toThrow(/defect: toy.file/);
  });

  it.each([
    ['none', 'toy.file/bad-descriptor'],
    ['kvm', 'toy.file/wrong-descriptor'],
  ])('checks the descriptor %s', (vm, rule) => {
    expect(SPECIFICATION.step(SPECIFICATION.initial, { name: 'toy.file', args: { vm } }).rule).toBe(rule);
  });
});

describe('following an observation', () => {
  const before = SPECIFICATION.initial;
  const taken = step(8n);
  const follow = (observed: Observation) =>
    SPECIFICATION.follow(before, { name: 'toy.do', args: { n: 8n } }, taken, observed);

  it('goes to the next state where it is what was expected', () => {
    expect(follow(ok(8n))).toBe(taken.state);
  });

  it('stays where an error is one that may happen at any time', () => {
    expect(follow(fails('ENOMEM'))).toBe(before);
    expect(follow({ kind: 'memory-fault', errno: 'ENOMEM', gpa: 0n, private: true })).toBe(before);
  });

  it.each([ok(), ok(7n), fails('EINVAL'), { kind: 'crash', message: 'ENOMEM' } as const])(
    'ends at %j, which is neither',
    (observed) => {
      expect(follow(observed)).toBeUndefined();
    },
  );
});

describe('the rules', () => {
  it('are rows and acceptances in order, each with where it comes from', () => {
    const rules = SPECIFICATION.rules().filter(({ command }) => command === 'toy.do');
    expect(rules.map(({ id, kind, result }) => [id, kind, result])).toEqual([
      ['toy.do/one', 'refusal', 'EINVAL'],
      ['toy.do/odd', 'refusal', 'EEXIST'],
      ['toy.do/two', 'diversion', 'SIGBUS'],
      ['toy.do/four', 'unmodelled', 'nobody knows'],
      ['toy.do/new', 'refusal', 'EFAULT'],
      ['toy.do/zero', 'acceptance', 'ok'],
      ['toy.do/more', 'acceptance', 'ok'],
    ]);
    expect(rules[4]).toMatchObject({
      source: 'somewhere',
      condition: 'since 7.3',
      unreachable: 'it is an example',
    });
    expect(rules[0]).toMatchObject({ source: 'nowhere', condition: '' });
  });
});
