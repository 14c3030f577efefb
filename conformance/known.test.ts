import { describe, expect, it } from '@jest/globals';
import type { Observed, Target } from '../adapters/adapter.ts';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget, specificationTarget } from '../adapters/reference/reference.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { fails } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { Specification, type AnyTransition } from '../model/core/specification.ts';
import { runCampaign, type CampaignOptions } from './campaign.ts';
import type { Campaign } from './findings.ts';
import { parseDivergences, printDivergences, type KnownDivergence } from './divergences.ts';
import { revised } from './known.ts';
import { SECRECY } from './secret.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const OPTIONS = { seed: 1, runs: 2000, maxCommands: 60, shrinkBudget: 2000, searchBudget: 2000 };

const run = (target: Target, options: Partial<CampaignOptions> = {}): Promise<Campaign> =>
  runCampaign(specification, target, { ...OPTIONS, ...options });

/** The specification with one row that says something else. */
const withRow = (id: string, change: (row: AnyTransition['guards'][number]) => AnyTransition['guards']): Target =>
  specificationTarget(
    `without-${id}`,
    CATALOGUE.map((each) => ({ ...each, guards: each.guards.flatMap((row) => (row.id === id ? change(row) : [row])) })),
  );
const without = (...ids: readonly string[]): Target =>
  specificationTarget(
    'without',
    CATALOGUE.map((each) => ({ ...each, guards: each.guards.filter(({ id }) => !ids.includes(id)) })),
  );

const UNALIGNED = 'gmem.create/size-unaligned';
const FLAGS = 'gmem.create/unsupported-flag';
const VM = 'vm.create vm=vm0 dev=kvm type=0';
const ENTRY: KnownDivergence = {
  id: 'unaligned',
  rule: UNALIGNED,
  profiles: ['linux-7.3'],
  observed: 'ok',
  reason: 'it rounds up',
  source: 'here',
  witness: [VM, 'gmem.create file=file0 vm=vm0 size=1 flags=0 reserved=0'],
};
const lax = without(UNALIGNED);

describe('a run with known divergences', () => {
  it('conforms where they are all that is wrong, and counts the programs', async () => {
    const { verdict, programs, known, failure } = await run(lax, { divergences: [ENTRY] });
    expect([verdict, programs, failure]).toEqual(['conforms', OPTIONS.runs, undefined]);
    expect(known).toEqual([{ entry: ENTRY, status: 'reproduced', programs: expect.any(Number) }]);
    expect(known[0]?.programs).toBeGreaterThan(10);
  });

  it('diverges where there is no entry', async () => {
    const { verdict, failure, known } = await run(lax);
    expect([verdict, failure?.rule, known]).toEqual(['diverges', UNALIGNED, []]);
  });

  it('diverges on everything else, and does not shrink into what is known', async () => {
    const both = without(UNALIGNED, 'slot.set/beyond-file');
    const { verdict, failure, known } = await run(both, { divergences: [ENTRY], searchBudget: 50_000 });
    expect([verdict, failure?.rule]).toEqual(['diverges', 'slot.set/beyond-file']);
    expect(failure?.first).toBeUndefined();
    expect(known).toMatchObject([{ status: 'reproduced' }]);
    // The known one takes two commands.
    expect(failure?.program.length).toBe(3);
  });

  it('lets an entry mask nothing outside of its ranges', async () => {
    const narrow = { ...ENTRY, where: { size: { to: '1' } } };
    const { verdict, failure } = await run(lax, { divergences: [narrow] });
    expect([verdict, failure?.rule]).toEqual(['diverges', UNALIGNED]);
    expect(failure?.program.at(-1)?.args['size']).not.toBe(1n);
  });

  it('lists entries that are about other targets, and heeds them in nothing', async () => {
    const { verdict, known } = await run(lax, { divergences: [{ ...ENTRY, before: '7.2' }] });
    expect(verdict).toBe('diverges');
    expect(known).toMatchObject([
      { status: 'not-applicable', programs: 0, note: expect.stringMatching(/which kernel/) },
    ]);
    const old = { ...lax, kernel: { release: '7.1.3' } };
    expect((await run(old, { divergences: [{ ...ENTRY, before: '7.2' }] })).verdict).toBe('conforms');
    expect((await run(referenceTarget(), { divergences: [{ ...ENTRY, since: '6.8' }] })).verdict).toBe('conforms');
  });

  it('knows broken invariants too, and says that they are broken', async () => {
    const target = mutantById('huge-page-index-beyond-slot')?.target ?? referenceTarget();
    const options = { runs: 1500, maxCommands: 60, collect: true };
    const first = await run(target, options);
    const divergences = revised(first.known);
    expect(divergences.map(({ invariant }) => invariant)).toContain('memory/in-bounds');
    expect(parseDivergences(printDivergences(divergences), 'x')).toEqual(divergences);
    const again = await run(target, { ...options, collect: false, divergences });
    expect([again.verdict, again.programs]).toEqual(['conforms', 1500]);
    expect(again.invariants.find(({ id }) => id === 'memory/in-bounds')?.status).toBe('broken');
  });

  it('knows a secret that shows', async () => {
    const reference = referenceTarget();
    /** The last command of a program fails or not, as the last secret has it. */
    const telling: Target = {
      ...reference,
      capabilities: new Set(),
      execute: (program, profile) => {
        const secret = program.findLast(({ name }) => name === 'guest.store')?.args['value'];
        const outcomes = [...(reference.execute(program, profile) as Iterable<Observed>)].map(({ outcome }) => ({
          outcome,
        }));
        return secret !== undefined && secret !== 1n
          ? [...outcomes.slice(0, -1), { outcome: fails('EINVAL') }]
          : outcomes;
      },
    };
    const { rule: _rule, ...rest } = ENTRY;
    const entry = {
      ...rest,
      invariant: SECRECY.id,
      observed: 'the host saw ok with one secret and EINVAL with another',
      witness: [
        'vm.create vm=vm0 dev=kvm type=1',
        'gmem.create file=file0 vm=vm0 size=0x4000 flags=0 reserved=0',
        'slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x4000 hva=arena gmem=file0 offset=0',
        'attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0',
        'vcpu.create vcpu=vcpu0 vm=vm0 id=0',
        'guest.store vcpu=vcpu0 gpa=0 value=1',
        'vm.create vm=vm1 dev=kvm type=0',
      ],
    };
    const { known } = await run(telling, { divergences: [entry], runs: 1 });
    expect(known).toMatchObject([{ status: 'reproduced' }]);
  });
});

describe('an entry', () => {
  it('is stale where its witness does not diverge, which the run says at its end', async () => {
    const { verdict, programs, known, failure } = await run(referenceTarget(), { divergences: [ENTRY], runs: 50 });
    expect([verdict, programs, failure]).toEqual(['diverges', 50, undefined]);
    const note = expect.stringMatching(/no longer reproduces: remove it, or narrow since and before/);
    expect(known).toEqual([{ entry: ENTRY, status: 'stale', programs: 0, note }]);
    expect(revised(known)).toEqual([]);
  });

  it('is stale where its witness leaves what is specified', async () => {
    const witness = [...ENTRY.witness.slice(0, 1), 'mem.unmap mapping=gone'];
    const { known } = await run(lax, { divergences: [{ ...ENTRY, witness }], runs: 1 });
    expect(known).toMatchObject([{ status: 'stale' }]);
  });

  it('is changed where something else is observed, and excuses that for the rest of the run', async () => {
    const strange = withRow(UNALIGNED, (row) => [{ ...row, errno: 'EFBIG' }]);
    const { verdict, programs, known, failure } = await run(strange, { divergences: [ENTRY] });
    expect([verdict, programs, failure]).toEqual(['diverges', OPTIONS.runs, undefined]);
    const note = expect.stringMatching(/^observed EFBIG instead of ok: correct the entry/);
    const reason = 'unexplained: observed EFBIG instead of ok; before that: it rounds up';
    expect(known).toMatchObject([{ status: 'changed', note, now: { ...ENTRY, observed: 'EFBIG', reason } }]);
    expect(known[0]?.programs).toBeGreaterThan(10);
    const again = await run(strange, { divergences: revised(known) });
    expect(again.verdict).toBe('conforms');
  });

  it('is changed where the witness breaks another rule, which is then an ordinary failure', async () => {
    const other = withRow('vm.create/unsupported-type', (row) => [{ ...row, violated: (args) => args['type'] === 0n }]);
    const { verdict, known, failure } = await run(other, { divergences: [ENTRY] });
    expect([verdict, failure?.program.length]).toEqual(['diverges', 1]);
    expect(known).toMatchObject([
      { status: 'changed', note: expect.stringMatching(/^the witness breaks vm.create\/created at command 1 of 2/) },
    ]);
    const { rule, witness } = revised(known)[0] ?? ENTRY;
    expect([rule, witness]).toEqual(['vm.create/created', [VM]]);
  });

  it('must diverge at the last command of its witness', async () => {
    const witness = [...ENTRY.witness, 'vm.create vm=vm1 dev=kvm type=0'];
    const { known } = await run(lax, { divergences: [{ ...ENTRY, witness }], runs: 1 });
    expect(known).toMatchObject([{ status: 'changed', now: { witness: ENTRY.witness } }]);
  });

  it('is not judged by a target that does not answer', async () => {
    const mute: Target = {
      ...lax,
      execute: (program, profile) => (program.length === 2 ? [] : lax.execute(program, profile)),
    };
    const { verdict, reason, known } = await run(mute, { divergences: [ENTRY], runs: 1 });
    expect([verdict, known[0]?.status]).toEqual(['inconclusive', 'inconclusive']);
    expect(reason).toMatch(/gone after 0 of/);
  });

  it('is not stale because memory was short', async () => {
    const short: Target = {
      ...referenceTarget(),
      capabilities: new Set(),
      execute: (program) => program.map(() => ({ outcome: fails('ENOMEM') })),
    };
    const { known } = await run(short, { divergences: [ENTRY], runs: 1 });
    expect(known).toMatchObject([{ status: 'inconclusive', note: expect.stringMatching(/error of the environment/) }]);
  });

  it('may diverge now and then', async () => {
    let times = 0;
    const flaky: Target = {
      ...lax,
      execute: (program, profile) => (++times < 3 ? referenceTarget() : lax).execute(program, profile),
    };
    const { verdict } = await run(flaky, { divergences: [ENTRY], runs: 100 });
    expect(verdict).toBe('conforms');
  });
});

describe('an interruption while witnesses are run', () => {
  it('is waited for by no witness, and leaves the others out', async () => {
    const interruption = new AbortController();
    let calls = 0;
    const silent: Target = {
      ...lax,
      execute: () => {
        calls++;
        setImmediate(() => interruption.abort());
        return new Promise(() => undefined);
      },
    };
    const divergences = [ENTRY, { ...ENTRY, id: 'again' }];
    const { verdict, reason, stopped, known } = await run(silent, { divergences, signal: interruption.signal });
    expect([verdict, reason, stopped, calls]).toEqual(['inconclusive', 'interrupted', 'interrupted', 1]);
    expect(known.map(({ status, note }) => [status, note])).toEqual([
      ['inconclusive', 'interrupted'],
      ['inconclusive', 'interrupted'],
    ]);
  });
});

it('a stale entry fails a run that says nothing else', async () => {
  let calls = 0;
  // The witness is tried three times, and then the target is gone.
  const gone: Target = {
    ...referenceTarget(),
    execute: (program, profile) => (++calls > 3 ? [] : referenceTarget().execute(program, profile)),
  };
  const { verdict, known } = await run(gone, { divergences: [ENTRY] });
  expect([verdict, known[0]?.status]).toEqual(['diverges', 'stale']);
});

describe('a run that collects', () => {
  it('goes on behind each divergence, and makes entries with which the next run conforms', async () => {
    const wrong = {
      ...without(UNALIGNED, FLAGS, 'slot.set/beyond-file'),
      kernel: { release: '6.18.44-x', backEnd: 'kvm_amd' },
    };
    const first = await run(wrong, { collect: true });
    expect([first.verdict, first.programs, first.failure]).toEqual(['diverges', OPTIONS.runs, undefined]);
    const entries = revised(first.known);
    const rules = [FLAGS, UNALIGNED, 'slot.set/beyond-file'];
    expect(entries.map(({ rule }) => rule)).toEqual(expect.arrayContaining(rules));
    expect(first.known.every(({ status, programs }) => status === 'new' && programs > 0)).toBe(true);
    for (const entry of entries)
      expect(entry).toMatchObject({
        since: '6.18',
        before: '6.19',
        backEnd: 'kvm_amd',
        reason: expect.stringMatching(/^unexplained: expected /),
      });
    expect(parseDivergences(printDivergences(entries), 'x')).toEqual(entries);
    const again = await run(wrong, { collect: true, divergences: entries });
    expect([again.verdict, again.known.every(({ status }) => status === 'reproduced')]).toEqual(['conforms', true]);
  });

  it('names entries apart', async () => {
    const { known } = await run(lax, {
      collect: true,
      divergences: [{ ...ENTRY, id: 'gmem-create-size-unaligned', before: '6.0' }],
    });
    expect(known.map(({ entry: { id }, status }) => [id, status])).toEqual([
      ['gmem-create-size-unaligned', 'not-applicable'],
      ['gmem-create-size-unaligned-2', 'new'],
    ]);
  });

  it('stops at a failure that does not come again', async () => {
    let times = 0;
    const once: Target = {
      ...referenceTarget(),
      execute: (program, profile) =>
        program.length > 0 && ++times === 1
          ? [{ outcome: { kind: 'crash', message: 'once' } }]
          : referenceTarget().execute(program, profile),
    };
    const { verdict, failure, known } = await run(once, { collect: true, seed: 2, runs: 20, shrinkBudget: 20 });
    expect([verdict, failure?.observed, known]).toEqual(['diverges', 'crash: once', []]);
  });
});
