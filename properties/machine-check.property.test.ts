/** Machine checks and poison: generation gets everywhere, designs keep what they claim, and what they concede is found. */
import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { profileById } from '../model/core/profile.ts';
import { brokenAtEnd } from './designs.ts';
import { observedOf } from './flaws.ts';
import { answerTo, FLAWS, QUESTIONS } from './machine-check-designs.ts';
import { freshSeed, MACHINE_CHECK, specify, unreached, verdictOf } from './support.ts';

const concededIn = (profile: string): readonly string[] =>
  (profileById(profile).concedes ?? []).map(({ invariant }) => invariant);

/** What each design can be asked for: without a VMM nothing is taken, and nobody else is there. */
const CLAIMED = [
  'poison/answered-by-mce',
  'poison/isolate-untouched',
  'poison/isolated',
  'poison/contained',
  'poison/carried',
  'poison/others-go-on',
  'poison/bounded',
  'poison/never-remapped',
];

describe.each(MACHINE_CHECK)('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule is reached that can be, and that no profile before it has', () => {
    const before = MACHINE_CHECK.slice(0, MACHINE_CHECK.indexOf(profile)).flatMap((id) => specify(id).rules());
    const known = new Set(before.map(({ id }) => id));
    const own = specification.rules().filter(({ id, unreachable }) => unreachable === undefined && !known.has(id));
    expect(unreached(specification, own)).toEqual([]);
  });

  it('every invariant that is not conceded is looked at, and holds', async () => {
    const seed = freshSeed();
    const target = referenceTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 100, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    const held = campaign.invariants.filter(({ status }) => status === 'held').map(({ id }) => id);
    const conceded = concededIn(profile);
    expect(held).toEqual(expect.arrayContaining(CLAIMED.filter((id) => !conceded.includes(id))));
  });

  it('the simulator conforms', async () => {
    const seed = freshSeed();
    const target = simulatorTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 100, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
  });
});

describe('what is conceded', () => {
  it('has a program each', () => {
    expect(FLAWS.map(({ profile, invariant }) => `${profile} ${invariant}`).toSorted()).toEqual(
      MACHINE_CHECK.flatMap((profile) => concededIn(profile).map((invariant) => `${profile} ${invariant}`)).toSorted(),
    );
  });

  it.each(FLAWS.map((flaw) => [flaw.profile, flaw.invariant, flaw] as const))(
    '%s: %s, which the last command of its program breaks',
    (_profile, invariant, flaw) => {
      expect(brokenAtEnd(invariant, observedOf(flaw))).toBeDefined();
      expect(brokenAtEnd(invariant, observedOf(flaw).slice(0, -1))).toBeUndefined();
    },
  );
});

describe('a page that the VMM has unmapped', () => {
  const answer = (what: RegExp, profile: string) => {
    const question = QUESTIONS.find((each) => what.test(each.what));
    if (question === undefined) throw new Error(`nothing is asked about ${String(what)}`);
    return answerTo(question, profile);
  };

  it.each([
    ['set-uc-in-guest', { outcome: { kind: 'sigbus', to: 'vmm', code: 'AR' }, guest: 'panicked' }],
    ['guest-check', { outcome: { kind: 'ok' }, guest: 'running' }],
    ['vmm-signals-unmap', { outcome: { kind: 'ok' }, guest: 'running' }],
    ['not-present-whole-page', { outcome: { kind: 'ok' }, guest: 'running' }],
    ['bare-metal', { outcome: { kind: 'ok' }, guest: 'running' }],
  ])('is isolated in %s, and the guest goes on or ends by it', (profile, expected) => {
    expect(answer(/^the kernel isolates/, profile)).toEqual(expected);
  });

  it.each([
    ['guest-check', 'panicked'],
    ['not-present-whole-page', 'running'],
  ])('is loaded from by the kernel of %s, which is %s then', (profile, guest) => {
    expect(answer(/bad line later$/, profile).guest).toBe(guest);
  });
});
