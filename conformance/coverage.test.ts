import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { Coverage } from './coverage.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const rules = specification.rules();

describe('coverage', () => {
  it('misses every rule at first', () => {
    expect(new Coverage(specification).missing(specification)).toEqual(rules);
  });

  it('counts hits, and keeps the order of the rules that are missing', () => {
    const coverage = new Coverage(specification);
    const [first, second] = rules;
    coverage.hit(second?.id ?? '');
    coverage.hit(second?.id ?? '');
    expect([first, second].map((rule) => coverage.hits(rule?.id ?? ''))).toEqual([0, 2]);
    expect(coverage.missing(specification)).toEqual(rules.filter((rule) => rule !== second));
  });

  it('counts what the specification does not have, and lets it be missing nowhere', () => {
    const coverage = new Coverage(specification);
    coverage.hit('memory/private-is-secret');
    expect(coverage.hits('memory/private-is-secret')).toBe(1);
    expect(coverage.missing(specification)).toEqual(rules);
  });
});
