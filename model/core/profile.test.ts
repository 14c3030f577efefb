import { describe, expect, it } from '@jest/globals';
import { DEFAULT_PROFILE, holdsIn, printCondition, profileById, PROFILES, type Condition } from './profile.ts';

/** In which profiles each condition holds, in the order of PROFILES. */
const CONDITIONS: readonly (readonly [string, Condition | undefined, readonly boolean[]])[] = [
  ['', undefined, [true, true, true, true]],
  ['since 7.2', { since: '7.2' }, [false, true, true, true]],
  ['since 7.2.12', { since: '7.2.12' }, [false, true, true, true]],
  ['since 7.2.13', { since: '7.2.13' }, [false, false, true, true]],
  ['since 7.3', { since: '7.3' }, [false, false, true, true]],
  ['since 7.10', { since: '7.10' }, [false, false, false, false]],
  ['before 7.2', { before: '7.2' }, [true, false, false, false]],
  ['before 7.3.4', { before: '7.3.4' }, [true, true, false, false]],
  ['since 7.2, before 7.3.4', { since: '7.2', before: '7.3.4' }, [false, true, false, false]],
  ['with gmem-link', { feature: 'gmem-link' }, [false, false, false, true]],
  ['before 7.3, with gmem-link', { before: '7.3', feature: 'gmem-link' }, [false, false, false, false]],
];

describe('a condition', () => {
  it.each(CONDITIONS)('%j holds where it should', (text, condition, expected) => {
    expect(PROFILES.map((profile) => holdsIn(profile, condition))).toEqual(expected);
    expect(printCondition(condition)).toBe(text);
  });
});

describe('profiles', () => {
  it('are found by their id', () => {
    expect(PROFILES.map(({ id }) => profileById(id))).toEqual(PROFILES);
    expect(profileById(DEFAULT_PROFILE).id).toBe(DEFAULT_PROFILE);
  });

  it('that are unknown are answered with those that are known', () => {
    expect(() => profileById('linux-1.0')).toThrow(/unknown profile 'linux-1.0'; known are linux-6.18, .*linux-7.3/);
  });
});
