/** A report with something of everything that a report can hold: two runs that were merged, and every status. */
import type { FailureReport, InvariantReport, KnownReport, Report, RuleReport } from '../report/json.ts';

const rule = (id: string, hits: number, more: Partial<RuleReport> = {}): RuleReport => ({
  id,
  system: 'guest_memfd',
  command: id.slice(0, id.indexOf('/')),
  kind: 'acceptance',
  when: `\`it\` is about | ${id}`,
  result: 'ok',
  source: 'virt/kvm/guest_memfd.c: kvm_gmem_bind()',
  hits,
  ...more,
});

const invariant = (
  id: string,
  status: InvariantReport['status'],
  checks: number,
  more: Partial<InvariantReport> = {},
): InvariantReport => ({
  id,
  sentence: `The sentence of ${id}.`,
  source: 'virt/kvm/kvm_main.c',
  status,
  checks,
  ...more,
});

const known = (id: string, status: KnownReport['status'], more: Partial<KnownReport> = {}): KnownReport => ({
  id,
  status,
  programs: 0,
  observed: 'ok',
  reason: `the reason of ${id}`,
  source: 'a mail',
  ...more,
});

const failure = (id: string, more: Partial<FailureReport> = {}): FailureReport => ({
  steps: [
    { command: 'vm.create vm=vm0', ran: { rule: 'vm.create/created', expected: 'ok', observed: 'ok', state: {} } },
    { command: 'slot.set vm=vm0', ran: { rule: id, expected: 'EINVAL', observed: 'ok', state: {}, facts: {} } },
    { command: 'fd.close fd=vm0' },
  ],
  at: 1,
  rule: id,
  expected: 'EINVAL',
  observed: `ok in place of ${id}`,
  token: 'gmc1.token',
  originalLength: 20,
  shrinkRuns: 300,
  reproduced: true,
  ...more,
});

export const SAMPLE: Report = {
  schema: 'gmem-conformance-report/2',
  version: '1.2.3',
  modelHash: '0123456789ab',
  target: 'process:./mine --fast',
  about: 'a program that somebody wrote',
  kernel: { release: '7.3.4', backEnd: 'kvm_amd' },
  profile: 'linux-7.3',
  verdict: 'diverges',
  runs: [
    { seed: 1, verdict: 'diverges', programs: 100, commands: 2000, durationMs: 1500 },
    { seed: 2, verdict: 'inconclusive', reason: 'the target was gone', programs: 1, commands: 3, durationMs: 7 },
  ],
  rules: [
    rule('vm.create/created', 40),
    rule('slot.set/unaligned', 3, { kind: 'refusal', result: 'EINVAL' }),
    rule('slot.set/never', 0),
    rule('slot.set/nowhere', 0, { outOfReach: 'the machine has no such thing' }),
    rule('guest.load/never', 0),
    rule('memory.fail/poisoned', 0, { outOfReach: 'the target lacks memory-failure' }),
    rule('gpc.read/read', 1, { system: 'direct map' }),
  ],
  invariants: [
    invariant('gmem/held', 'held', 70, { unseen: ['frames'] }),
    invariant('gmem/broken', 'broken', 60),
    invariant('gmem/known', 'broken', 50),
    invariant('gmem/unseen', 'not-observable', 0),
    invariant('gmem/unmet', 'not-evaluated', 0),
  ],
  unmodelled: [{ rule: 'slot.set/silent', programs: 4 }],
  knownDivergences: [
    known('reproduced', 'reproduced', { invariant: 'gmem/known', programs: 5 }),
    known('gone', 'stale', { rule: 'vm.create/created', note: 'no longer reproduces' }),
    known('other', 'changed', { reason: 'unexplained: why', note: 'observed x instead' }),
    known('found', 'new'),
    known('far', 'not-applicable', { note: 'it is about another kernel' }),
    known('stuck', 'inconclusive', { note: 'memory was short' }),
  ],
  skipped: [{ capability: 'memory-failure', reason: 'nobody can break memory here' }],
  failures: [
    failure('slot.set/unaligned', { first: { rule: 'vm.create/created', invariant: 'gmem/held' }, reproduced: false }),
    failure('vm.create/created', { invariant: 'gmem/broken', twin: ['vm.create vm=vm1', 'other', 'fd.close fd=vm0'] }),
  ],
};
