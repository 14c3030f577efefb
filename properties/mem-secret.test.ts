import { describe, expect, it } from '@jest/globals';
import { expectationsOf } from '../conformance/check.ts';
import { parse, specify } from './support.ts';

const silentRules = (program: string): readonly (string | undefined)[] => {
  const specification = specify('linux-7.3');
  return expectationsOf(specification, parse(specification, program)).map(({ unmodelled, rule }) =>
    unmodelled === undefined ? undefined : rule,
  );
};

describe('mem.secret', () => {
  it.each([
    ['linux-6.18', ['ENOMEM', 'EAGAIN']],
    ['linux-7.2', ['ENOMEM', 'EAGAIN']],
    ['linux-7.3', ['ENOMEM']],
  ])('%s counts as locked what is mapped, or what is touched', (profile, mayAlso) => {
    const specification = specify(profile);
    const program = parse(specification, 'mem.secret mapping=map0 length=0x1000\n');
    expect(expectationsOf(specification, program)).toMatchObject([{ mayAlso }]);
  });

  it('is silent of a ninth page, in however many mappings', () => {
    const five = 'mem.secret mapping=map0 length=0x5000\n';
    expect(silentRules(`${five}mem.secret mapping=map1 length=0x3000\n`)).toEqual([undefined, undefined]);
    expect(silentRules(`${five}mem.secret mapping=map1 length=0x3001\n`)).toEqual([undefined, 'mem.secret/length']);
    expect(silentRules('mem.secret mapping=map0 length=0x8001\n')).toEqual(['mem.secret/length']);
  });

  it('counts no mapping that is gone', () => {
    const program = `mem.secret mapping=map0 length=0x5000
mem.unmap mapping=map0
mem.secret mapping=map1 length=0x8000
`;
    expect(silentRules(program)).toEqual([undefined, undefined, undefined]);
  });
});
