import { describe, expect, it } from '@jest/globals';
import { CATALOGUE, systemOf } from './catalogue.ts';
import { FULL_MACHINE, PROFILES } from './core/profile.ts';
import { Specification } from './core/specification.ts';

describe.each(PROFILES)('the catalogue in $id', (profile) => {
  const specification = new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE);
  const rules = specification.rules();

  it('names each rule once, after its command', () => {
    expect(new Set(rules.map(({ id }) => id)).size).toBe(rules.length);
    for (const { id, command } of rules) expect(id).toMatch(new RegExp(`^${command}/[a-z0-9-]+$`));
  });

  it('says of each rule when it holds and where it comes from', () => {
    for (const { when, source } of rules) {
      expect(when).not.toBe('');
      expect(source).toMatch(/: \S|, /);
    }
  });

  it('ends the acceptances of each command with one that always applies', () => {
    for (const { accepts } of specification.transitions.values())
      expect(accepts.findIndex((each) => each.applies === undefined)).toBe(accepts.length - 1);
  });
});

describe('the catalogue', () => {
  it('knows the system of each command, and none of what a caller adds', () => {
    expect(CATALOGUE.filter(({ name }) => systemOf(name) === 'other')).toEqual([]);
    expect(systemOf('slot.set')).toBe('guest_memfd');
    expect(systemOf('file.seek')).toBe('other');
  });

  it('has each command once', () => {
    expect(new Set(CATALOGUE.map(({ name }) => name)).size).toBe(CATALOGUE.length);
  });

  it('has no rule that holds in no profile', () => {
    const held = new Set(
      PROFILES.flatMap((profile) => new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE).rules()).map(
        ({ id }) => id,
      ),
    );
    const all = CATALOGUE.flatMap(({ guards, accepts }) => [...guards, ...accepts]).map(({ id }) => id);
    expect(all.filter((id) => !held.has(id))).toEqual([]);
  });
});
