import { describe, expect, it } from '@jest/globals';
import _ from 'lodash';
import type { Observed, Target } from '../adapters/adapter.ts';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget, specificationTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { fails } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { printProgram } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { runCampaign, type CampaignOptions } from './campaign.ts';
import type { Campaign } from './findings.ts';
import type { KnownDivergence } from './divergences.ts';
import { SECRECY } from './secret.ts';
import { Progress } from './progress.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const OPTIONS: CampaignOptions = { seed: 3, runs: 150, maxCommands: 40, shrinkBudget: 50, searchBudget: 0 };

const mutant = (id: string): Target => {
  const found = mutantById(id);
  if (found === undefined) throw new Error(`there is no mutant ${id}`);
  return found.target;
};

/** What a campaign came to, but for the time. */
const resultOf = ({ coverage, unmodelled, ...rest }: Campaign): object => ({
  ..._.omit(rest, 'durationMs'),
  hits: coverage.counts(),
  unmodelled: Object.fromEntries(unmodelled),
});

const UNALIGNED = 'gmem.create/size-unaligned';
const lax = specificationTarget(
  'lax',
  CATALOGUE.map((each) => ({ ...each, guards: each.guards.filter(({ id }) => id !== UNALIGNED) })),
);
const KNOWN: KnownDivergence = {
  id: 'unaligned',
  rule: UNALIGNED,
  profiles: ['linux-7.3'],
  observed: 'ok',
  reason: 'it rounds up',
  source: 'here',
  witness: ['vm.create vm=vm0 dev=kvm type=0', 'gmem.create file=file0 vm=vm0 size=1 flags=0 reserved=0'],
};

/** A campaign, with the programs that it executed and all that it told of its progress. */
async function run(target: Target, options: Partial<CampaignOptions> = {}) {
  const executed: string[] = [];
  const told: Progress[] = [];
  const execute: Target['execute'] = (program, profile) => {
    const text = printProgram(specification, program);
    // The witnesses of known divergences are run every time.
    if (text.trim() !== KNOWN.witness.join('\n')) executed.push(text);
    return target.execute(program, profile);
  };
  const campaign = await runCampaign(
    specification,
    { ...target, execute },
    { ...OPTIONS, progressEveryMs: 0, onProgress: (progress) => void told.push(progress), ...options },
  );
  const ending = campaign.failure?.rule ?? campaign.verdict;
  return { result: resultOf(campaign), ending, programs: campaign.programs, executed, told };
}

/** As it comes back from a file. */
const saved = (progress: Progress): Progress => Progress.parse(JSON.parse(JSON.stringify(progress)));

const blind: Target = {
  ...referenceTarget(),
  capabilities: new Set(),
  execute: (program, profile) =>
    [...(referenceTarget().execute(program, profile) as Iterable<Observed>)].map(({ outcome }) => ({ outcome })),
};

/** Fails in whatever the environment could have made it fail in. */
const lazy: Target = {
  ...blind,
  *execute(program) {
    let state = specification.initial;
    for (const command of program) {
      const { mayAlso, outcome, state: next } = specification.step(state, command);
      const [excuse] = mayAlso;
      if (excuse === undefined) state = next;
      yield { outcome: excuse === undefined ? outcome : fails(excuse) };
    }
  },
};

/** The last command of a program fails or not, as the last secret has it: one with other secrets stands out. */
const telling: Target = {
  ...blind,
  execute: (program, profile) => {
    const outcomes = [...(blind.execute(program, profile) as Iterable<Observed>)];
    const secret = program.findLast(({ name }) => name === 'guest.store')?.args['value'];
    return typeof secret === 'bigint' && secret >> 56n === 0xa5n
      ? [...outcomes.slice(0, -1), { outcome: fails('EIO') }]
      : outcomes;
  },
};

/** Gone in some programs. */
const leaving: Target = {
  ...referenceTarget(),
  execute: (program, profile) => (program.length % 40 === 7 ? [] : referenceTarget().execute(program, profile)),
};

describe('a run that another process goes on with', () => {
  it.each<[string, Target, Partial<CampaignOptions>, string]>([
    ['conforms', simulatorTarget(), {}, 'conforms'],
    ['diverges', mutant('owner-not-compared'), { runs: 5000 }, 'slot.set/file-of-another-vm'],
    ['shows a secret', telling, { runs: 600 }, SECRECY.id],
    ['heeds a known divergence', lax, { divergences: [KNOWN] }, 'conforms'],
    ['loses its target now and then', leaving, {}, 'inconclusive'],
    ['is short of memory all the time', lazy, {}, 'inconclusive'],
  ])('comes to the same where it %s, and runs no program twice', async (_what, target, options, ending) => {
    const whole = await run(target, options);
    expect(whole.ending).toBe(ending);
    expect(whole.told.length).toBe(whole.programs + ('failure' in whole.result ? 0 : 1));
    const places = _.uniq([0, 1, 2, Math.floor(whole.told.length / 2), whole.told.length - 2, whole.told.length - 1]);
    for (const place of places) {
      const resume = saved(whole.told[place] as Progress);
      const rest = await run(target, { ...options, resume });
      expect(rest.result).toEqual(whole.result);
      expect(rest.executed).toEqual(whole.executed.slice(whole.executed.length - rest.executed.length));
    }
  });

  it('can do so because programs do not depend on what the target answers', async () => {
    /** Without the second runs of programs with other secrets. */
    const written = async (target: Target): Promise<readonly string[]> => {
      const { executed } = await run(target);
      const texts = executed.map((text) => text.replaceAll(/ value=\S+/g, ''));
      return texts.filter((text, index) => text !== texts[index - 1]);
    };
    const programs = await written(blind);
    expect(programs.length).toBeGreaterThan(100);
    expect(await written(lazy)).toEqual(programs);
  });
});
