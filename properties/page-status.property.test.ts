/** Guests that announce which pages they share: generation gets everywhere, and four records are one contract. */
import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { freshSeed, generated, PAGE_STATUS, specify, unreached, verdictOf } from './support.ts';

describe.each(PAGE_STATUS)('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule is reached', () => {
    expect(unreached(specification, specification.rules())).toEqual([]);
  });

  it('the invariants about records are looked at, and hold', async () => {
    const seed = freshSeed();
    const target = referenceTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 300, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    const held = campaign.invariants.filter(({ status }) => status === 'held').map(({ id }) => id);
    expect(held).toEqual(expect.arrayContaining(['shared/complete-or-flagged', 'shared/canonical']));
  });

  it('the simulator conforms, and what its records cost is bounded', async () => {
    const seed = freshSeed();
    const target = simulatorTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 100, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    expect(campaign.invariants.find(({ id }) => id === 'shared/bounded')?.status).toBe('held');
  });
});

describe('one contract', () => {
  /** Where the bitmap has bits for everything, and lists have room. */
  const [bitmap, list, tree] = ['bitmap', 'range-list', 'interval-tree'].map((id) => specify(`page-status-${id}`));
  if (bitmap === undefined || list === undefined || tree === undefined) throw new Error('three profiles are wanted');

  it('has no rule that tells a list from a tree', () => {
    expect(tree.rules()).toEqual(list.rules());
  });

  it('lets records differ in what they hold only where one of them is incomplete', () => {
    for (const { commands } of generated(list, { programs: 200 })) {
      let [ofList, ofBitmap] = [list.initial, bitmap.initial];
      for (const command of commands) {
        const [step, other] = [list.step(ofList, command), bitmap.step(ofBitmap, command)];
        if (step.unmodelled !== undefined || other.unmodelled !== undefined) break;
        // An image that one has room for and the other has not ends what they have in common.
        if (step.rule !== other.rule && command.name === 'status.load') break;
        [ofList, ofBitmap] = [step.state, other.state];
        for (const [label, { record, announced }] of ofList.status.guests) {
          const same = ofBitmap.status.guests.get(label);
          expect(same?.announced).toEqual(announced);
          const isKnown = !record.incomplete && same?.record.incomplete === false;
          expect(isKnown ? same.record : record).toEqual(record);
        }
      }
    }
  });
});
