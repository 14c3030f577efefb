import { describe, expect, it } from '@jest/globals';
import { DEFAULT_PROFILE, holdsIn, printCondition, profileById, PROFILES, type Condition } from './profile.ts';

/** Each condition, and the profiles in which it holds. */
const CONDITIONS: readonly (readonly [string, Condition | undefined, RegExp])[] = [
  ['', undefined, /./],
  ['since 7.2', { since: '7.2' }, /^(?!linux-6)/],
  ['since 7.2.12', { since: '7.2.12' }, /^(?!linux-6)/],
  ['since 7.2.13', { since: '7.2.13' }, /^(?!linux-6|linux-7.2)/],
  ['since 7.3', { since: '7.3' }, /^(?!linux-6|linux-7.2)/],
  ['since 7.10', { since: '7.10' }, /^never$/],
  ['before 7.2', { before: '7.2' }, /^linux-6.18$/],
  ['before 7.3.4', { before: '7.3.4' }, /^linux-(6.18|7.2)$/],
  ['since 7.2, before 7.3.4', { since: '7.2', before: '7.3.4' }, /^linux-7.2$/],
  ['with gmem-link', { feature: 'gmem-link' }, /^(gmem-link-rfc|sev-gmem-link)$/],
  ['before 7.3, with gmem-link', { before: '7.3', feature: 'gmem-link' }, /^never$/],
  ['with direct-map', { feature: 'direct-map' }, /^direct-map-/],
  ['with direct-map-on-entry', { feature: 'direct-map-on-entry' }, /^direct-map-(rfc-v1|rfc-v2|v13)$/],
  ['with direct-map-host-address', { feature: 'direct-map-host-address' }, /^direct-map-v1[23]$/],
  ['about td', { realm: 'td' }, /^(tdx-|share-|sev-c-bit|s390-)/],
  ['about mc', { realm: 'mc' }, /^(set-uc-|guest-check|vmm-signals-|not-present-|bare-metal)/],
  [
    'about td or mc',
    { realm: ['td', 'mc'] },
    /^(tdx-|share-|sev-c-bit|s390-|set-uc-|guest-check|vmm-signals-|not-present-|bare-metal)/,
  ],
  ['with tdx', { feature: 'tdx' }, /^(tdx-|share-)/],
  ['with direct-map-one-cache', { feature: 'direct-map-one-cache' }, /^direct-map-rfc-v1$/],
];

describe('a condition', () => {
  it.each(CONDITIONS)('%j holds where it should', (text, condition, expected) => {
    for (const profile of PROFILES)
      expect([profile.id, holdsIn(profile, condition)]).toEqual([profile.id, expected.test(profile.id)]);
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
