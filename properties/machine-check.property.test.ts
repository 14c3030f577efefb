/** Machine checks and poison: generation gets everywhere, designs keep what they claim, and what they concede is found. */
import { describe, expect, it } from '@jest/globals';
import type { Observed } from '../adapters/adapter.ts';
import { HAND_WRITTEN } from '../adapters/mutants/hand-written.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import type { McCpu, McGuest } from '../model/core/machine-check.ts';
import { INVARIANTS } from '../model/invariants/index.ts';
import type { State } from '../model/core/state.ts';
import { brokenAtEnd } from './designs.ts';
import { concededIn, observedOf } from './flaws.ts';
import { answerTo, FLAWS, QUESTIONS } from './machine-check-designs.ts';
import { settled } from './machine-check-progress.ts';
import { freshSeed, generated, MACHINE_CHECK, specify, unreached, verdictOf } from './support.ts';

/** What each design can be asked for: without a VMM nothing is taken, and nobody else is there. */
const CLAIMED = [
  'poison/answered-by-mce',
  'poison/isolate-untouched',
  'poison/isolated',
  'poison/uncached',
  'poison/contained',
  'poison/carried',
  'poison/others-go-on',
  'poison/bounded',
  'poison/never-remapped',
];

/** A CPU that does not take machine checks meets what was taken without end. */
const isDeaf = ({ isGloballyEnabled, isBankEnabled }: McCpu): boolean =>
  !isGloballyEnabled || isBankEnabled[1] !== true;

interface Bystanders {
  /** Tasks of the guest that are alive, and whose CPUs run and have no work. */
  readonly tasks: readonly number[];
  /** Other guests, as they are. */
  readonly others: ReadonlyMap<string, McGuest>;
}

const goesOn = ({ mc }: State, label: string): Bystanders => {
  const { alive, cpus } = mc.guests.get(label) ?? { alive: [], cpus: [] };
  const isIdle = (task: number): boolean => cpus[task]?.stage === 'runs' && cpus[task].work === undefined;
  return {
    tasks: alive.flatMap((isAlive, task) => (isAlive && isIdle(task) ? [task] : [])),
    others: new Map([...mc.guests].filter(([other]) => other !== label)),
  };
};

/** Whether they are all there; tasks go with their kernel. */
const isGoing = ({ tasks, others }: Bystanders, { mc }: State, label: string): boolean =>
  (mc.guests.get(label)?.state !== 'running' || tasks.every((task) => mc.guests.get(label)?.alive[task] === true)) &&
  [...others].every(([other, guest]) => mc.guests.get(other) === guest);

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

  it('whatever happened, all that is due is soon done, and whoever had nothing to do with it goes on', () => {
    const most = 40;
    const came = [...generated(specification, { programs: 150, maxCommands: 60 })].flatMap(({ trace }) => {
      const { state = specification.initial } = trace.at(-1) ?? {};
      const labels = [...state.mc.guests].filter(([, guest]) => guest.state === 'running' && !guest.cpus.some(isDeaf));
      return labels.map(([label]) => ({ label, before: state, ...settled(specification, state, label, most) }));
    });
    expect(came.filter(({ steps }) => steps > 1).length).toBeGreaterThan(20);
    expect(Math.max(...came.map(({ steps }) => steps))).toBeLessThan(most);
    const going = came.map(({ label, before, state }) => [goesOn(before, label), state, label] as const);
    expect(going.filter(([must, state, label]) => !isGoing(must, state, label))).toEqual([]);
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

describe('an answer to a touch that is none', () => {
  const touched = {
    profile: 'not-present-whole-page',
    program: `guest.create guest=guest0 memory=ordinary
page.simulate guest=guest0 gfn=0 where=host
kernel.touch guest=guest0 cpu=0 gfn=0 line=0 how=load value=0
vmm.answer guest=guest0 by=0
`,
  };
  const brokenBehind = (observed: readonly Observed[]): readonly string[] =>
    INVARIANTS.map(({ id }) => id).filter((id) => brokenAtEnd(id, observed) !== undefined);
  const outcomes = (observed: readonly Observed[]) => observed.map(({ outcome }) => outcome);
  const mutants = HAND_WRITTEN.filter(({ id }) => id.startsWith('touch-answered-by-'));

  it.each(mutants)('is told by one invariant alone, at once: $fault', ({ target: wrongTarget }) => {
    const right = observedOf(touched, simulatorTarget());
    const wrong = observedOf(touched, wrongTarget);
    expect(outcomes(wrong)).toEqual(outcomes(right));
    expect(brokenBehind(right)).toEqual([]);
    expect(brokenBehind(wrong)).toEqual(['poison/answered-by-mce']);
  });
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
