/** Recorded logs: what is read of them, in every form and however it is cut, and what is said of it. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import type { LogEntry } from '../adapters/adapter.ts';
import { entriesOf } from '../adapters/logs.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import type { Observed } from '../adapters/adapter.ts';
import { TraceChecker, type TraceResult } from '../conformance/trace.ts';
import type { Observation } from '../model/core/outcome.ts';
import { printCommand } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import { PLAIN } from '../report/colors.ts';
import { printTrace } from '../report/trace.ts';
import { FIXED_SEED, generated, specify } from './support.ts';

const PROFILE = 'page-status-range-list';
const CALL = '[   56.146336] page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 0';
const MAIL = readFileSync(new URL('../docs/examples/boot-of-an-sev-guest.txt', import.meta.url), 'utf8');

async function* cut(text: string, places: readonly number[]): AsyncIterable<string> {
  let from = 0;
  for (const place of places.toSorted((a, b) => a - b)) {
    yield text.slice(from, place);
    from = place;
    await Promise.resolve();
  }
  yield text.slice(from);
}

async function entries(text: string, options: { places?: readonly number[]; specification?: Specification } = {}) {
  const { places = [], specification = specify(PROFILE) } = options;
  const all: LogEntry[] = [];
  for await (const some of entriesOf(cut(text, places), { specification, bound: 8n })) all.push(...some);
  return all;
}

async function checked(text: string, profile = PROFILE): Promise<TraceResult> {
  const specification = specify(profile);
  const checker = new TraceChecker(specification);
  for (const entry of await entries(text, { specification })) checker.take(entry);
  return checker.result();
}

const told = (all: readonly LogEntry[]) => all.filter(({ line }) => line > 0);
const announced = (gpa: bigint, pages: bigint, attributes: bigint) => ({
  name: 'status.announce',
  args: { guest: 'guest', gpa, pages, attributes },
});

describe('a log of a kernel', () => {
  it.each([
    ['as it is', CALL],
    ['quoted', `> > > > ${CALL}`],
    ['folded', CALL.replace('npages  =', 'npages  =\n')],
    ['folded where it is quoted', `>> ${CALL.replace(', npages', ',\n>> npages')}`],
    ['in quoted-printable', CALL.replaceAll('=', '=3D').replace('npages  =3D', 'npages  =\n=3D')],
    ['with a carriage return', `${CALL}\r`],
    ['behind what a log daemon writes', `Nov 21 10:00:00 host kernel: ${CALL}`],
  ])('is read %s', async (_how, text) => {
    expect(told(await entries(`${text}\n`))).toEqual([
      { line: 1, kind: 'command', command: announced(0x1f018000n, 1n, 0n), seconds: 56.146336 },
    ]);
  });

  it.each([
    ['enc = 2', CALL.replace('enc = 0', 'enc = 2')],
    ['a gpa that is none', CALL.replace('1f018000', 'x')],
    ['an end that is cut off', CALL.slice(0, 60)],
    ['a call in the middle of another', `${CALL.slice(0, 60)}\n${CALL}`],
    ['too many pages', CALL.replace('= 1,', `= ${'9'.repeat(20)},`)],
    ['a line without end', `${CALL}${'x'.repeat(300_000)}`],
  ])('is told to be malformed by its line where it has %s', async (_what, text) => {
    expect(told(await entries(`nothing\n${text}\n`))[0]).toMatchObject({ line: 2, kind: 'malformed' });
  });

  it.each(['....', '> > <snip>', '[...]'])('has a gap at %s', async (text) => {
    expect(await entries(`${text}\n`)).toEqual([{ line: 1, kind: 'gap' }]);
  });

  it('is read alike however its text is cut', async () => {
    const text = `${MAIL}\n${CALL}`;
    const whole = await entries(text);
    const places = fc.array(fc.nat(text.length), { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(places, async (each) => {
        expect(await entries(text, { places: each })).toEqual(whole);
      }),
      { seed: FIXED_SEED, numRuns: 50 },
    );
  });

  it('as in the mail of 2020 shares what it shows', async () => {
    const { commands, gaps, malformed, disagreements, shared } = await checked(MAIL);
    expect({ commands, gaps, malformed: malformed.count, disagreements: disagreements.count }).toEqual({
      commands: 26,
      gaps: 8,
      malformed: 0,
      disagreements: 0,
    });
    expect(shared).toMatchObject({ announcements: 26, redundant: 3, ofOnePage: 23 });
  });

  it('is shown in the documentation as it is printed', async () => {
    const page = readFileSync(new URL('../docs/check-trace.md', import.meta.url), 'utf8');
    expect(page).toContain(printTrace('docs/examples/boot-of-an-sev-guest.txt', await checked(MAIL), PLAIN));
  });

  it('marks the record where it needs more than the host may keep', async () => {
    const calls = Array.from({ length: 9 }, (_, at) => CALL.replace('1f018000', `${2 * at}000`));
    expect((await checked(calls.slice(0, 8).join('\n'))).shared?.record.ranges).toHaveLength(8);
    expect((await checked(calls.join('\n'))).shared?.record).toEqual({ ranges: [], incomplete: true });
  });
});

const event = (name: string, rest: string): string => ` CPU 0/KVM-1234  [001] d..1.  100.000001: ${name}: ${rest}\n`;
const hypercall = (gpa: string, pages: string, nr = '0xc'): string =>
  event('kvm_hypercall', `nr ${nr} a0 ${gpa} a1 ${pages} a2 0x10 a3 0x0`);
const EXIT = event('kvm_userspace_exit', 'reason KVM_EXIT_HYPERCALL (3)');
const ENTRY = event('kvm_entry', 'vcpu 0, rip 0x1000');

describe('a trace of KVM', () => {
  it('agrees where KVM passes on what is well-formed, and refuses what is not', async () => {
    const {
      commands,
      checked: known,
      disagreements,
    } = await checked(
      `${hypercall('0x1000', '0x1')}${EXIT}${ENTRY}${hypercall('0x1001', '0x1')}${ENTRY}${hypercall('0x1', '0x2', '0x5')}${ENTRY}`,
    );
    expect({ commands, known, disagreements: disagreements.count }).toEqual({
      commands: 2,
      known: 2,
      disagreements: 0,
    });
  });

  it('disagrees where a call gets to user space although it is ill-formed', async () => {
    const { disagreements } = await checked(`${hypercall('0x1001', '0x1')}${EXIT}`);
    expect(disagreements.shown).toEqual([expect.objectContaining({ observed: 'the call got to user space' })]);
  });

  it('cannot tell whether a call had to be refused that is well-formed, and takes it for none', async () => {
    const shared = (gpa: string): string => hypercall(gpa, '0x1').replace('a2 0x10', 'a2 0x0');
    const result = await checked(`${shared('0x1000')}${EXIT}${ENTRY}${shared('0x2000')}${ENTRY}`);
    expect(result).toMatchObject({ commands: 2, checked: 1, disagreements: { count: 0 }, undecided: { count: 1 } });
    expect(result.shared?.record.ranges).toEqual([{ start: 1, end: 2 }]);
    const text = printTrace('trace.txt', result, PLAIN);
    expect(text).toMatch(/^verdict +conforms$/m);
    expect(text).toMatch(/^read +2 commands, 1 with what came of them; 1 of which nobody can tell$/m);
    expect(text).toMatch(/^line 4: status\.announce .* gpa=0x2000 .*\ncannot tell +.*KVM refuses it from ring 3/m);
  });

  const LOST = 'CPU:1 [LOST 12 EVENTS]\n';

  it('says nothing of a call whose end may be among what was lost', async () => {
    const text = `${hypercall('0x1000', '0x1')}${EXIT}${ENTRY}${hypercall('0x2000', '0x1')}${LOST}${ENTRY}`;
    const { commands, checked: known, disagreements, gaps } = await checked(text);
    expect([commands, known, disagreements.count, gaps]).toEqual([2, 1, 0, 1]);
  });

  it('tells that events were lost also where no call was pending', async () => {
    expect((await checked(`${hypercall('0x1000', '0x1')}${EXIT}${ENTRY}${LOST}`)).gaps).toBe(1);
  });

  it('says nothing of what came of a call where no event tells', async () => {
    expect(await checked(hypercall('0x1000', '0x1'))).toMatchObject({ commands: 1, checked: 0 });
  });
});

/** What somebody who records writes. */
const recorded = (
  specification: Specification,
  program: readonly { name: string; args: never }[],
  seen: readonly Observed[],
) =>
  seen.map(({ outcome }, at) =>
    JSON.stringify({ command: printCommand(specification, program[at] as never), outcome: encoded(outcome) }),
  );

const encoded = (outcome: Observation): object =>
  JSON.parse(
    JSON.stringify(outcome, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value)),
  ) as object;

describe('commands as JSON Lines', () => {
  it.each(['linux-7.3', PROFILE])('of %s agree where an implementation that is right was recorded', async (profile) => {
    const specification = specify(profile);
    for (const { commands, trace } of generated(specification, { programs: 20, maxCommands: 30 })) {
      const silent = trace.findIndex(({ unmodelled }) => unmodelled !== undefined);
      const program = silent < 0 ? commands : commands.slice(0, silent);
      const seen = [...(referenceTarget().execute(program, specification.config.profile) as Iterable<Observed>)];
      const result = await checked(recorded(specification, program as never, seen).join('\n'), profile);
      expect(result.disagreements.shown.map(({ command }) => command)).toEqual([]);
      expect(result.malformed.shown).toEqual([]);
      expect(result.commands).toBe(program.length);
    }
  });

  const CREATE = '{"command":"vm.create vm=vm0 dev=kvm type=0","outcome":{"kind":"errno","errno":"EPERM"}}';

  it('disagree at the line that is not allowed, with what would have been, and go on', async () => {
    const result = await checked(
      `${CREATE}\n{"command":"vcpu.create vcpu=vcpu0 vm=vm0 id=0","outcome":{"kind":"ok"}}\n`,
      'linux-7.3',
    );
    expect(result).toMatchObject({ commands: 2, checked: 2, disagreements: { count: 1 } });
    const text = printTrace('recorded.jsonl', result, PLAIN);
    expect(text).toMatch(/^line 1: vm\.create vm=vm0 dev=kvm type=0\nrule +vm\.create\/created\nallowed +ok/m);
    expect(text).toMatch(/^observed +EPERM$/m);
  });

  it('are held against the invariants where they tell facts', async () => {
    const facts = '"facts":{"vms":[],"files":[{"file":"file0","vm":"vm0","inode":"file0"}]}';
    const text = `{"command":"vm.create vm=vm0 dev=kvm type=0","outcome":{"kind":"ok"},${facts}}`;
    expect((await checked(text, 'linux-7.3')).disagreements.shown).toEqual([
      expect.objectContaining({ invariant: 'gmem/file-pins-vm', observed: 'file0 outlives vm0' }),
    ]);
  });

  it.each([
    ['{', /^not JSON/],
    ['{"command":7}', /^command: write/],
    ['{"command":"vm.make"}', /^profile linux-7\.3 has no command 'vm\.make'/],
    ['{"command":"vm.create vm=vm0 dev=kvm type=0","outcome":{"kind":"fine"}}', /^outcome\.kind/],
    ['{"command":"vm.create vm=vm0 dev=kvm type=0","facts":{}}', /^facts: there without an outcome/],
  ])('that cannot be read are told: %s', async (text, why) => {
    const { malformed } = await checked(text, 'linux-7.3');
    expect(malformed).toMatchObject({ count: 1, shown: [{ line: 1, why: expect.stringMatching(why) }] });
  });
});

it('keeps no more than it shows, and counts all', async () => {
  const { malformed } = await checked(Array.from({ length: 30 }, () => CALL.replace('enc = 0', 'enc = 3')).join('\n'));
  expect(malformed).toMatchObject({ count: 30 });
  expect(malformed.shown).toHaveLength(20);
});
