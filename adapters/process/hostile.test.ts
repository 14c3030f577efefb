/** Whatever the child does is a verdict, and the next program gets another process. */
import { afterEach, describe, expect, it, test } from '@jest/globals';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { checkProgram } from '../../conformance/check.ts';
import type { ProgramVerdict } from '../../conformance/verdict.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../../model/core/profile.ts';
import { parseProgram, type Program } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { UnavailableError } from '../adapter.ts';
import { ProcessTarget, type ProcessOptions } from './target.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const program = (...lines: readonly string[]): Program => parseProgram(specification, lines.join('\n')).program;

const CLOSE = 'fd.close fd=none';
const SHORT = program(CLOSE);
/** Some modes wait for the third command. */
const LONG = program(CLOSE, CLOSE, 'fd.dup as=fd0 fd=none', CLOSE);

const targets: ProcessTarget[] = [];
const folders: string[] = [];

async function open(mode: string, options: ProcessOptions = {}): Promise<ProcessTarget> {
  const folder = mkdtempSync(join(tmpdir(), 'gmem-process-'));
  folders.push(folder);
  const words = [process.execPath, join(__dirname, 'hostile-child.mjs'), mode, join(folder, 'again')];
  const target = await ProcessTarget.open(words.map((word) => `'${word}'`).join(' '), { graceMs: 200, ...options });
  targets.push(target);
  return target;
}

/** Time enough for a process that answers, also on a busy machine. */
const PATIENT = 20_000;
/** For one that does not answer. */
const IMPATIENT = 400;

const check = async (
  target: ProcessTarget,
  commands: Program = SHORT,
  timeLimitMs = PATIENT,
): Promise<ProgramVerdict> => checkProgram({ specification, target, timeLimitMs }, commands);

const CONFORMS = { kind: 'conforms' };

afterEach(async () => {
  await Promise.all(targets.splice(0).map((target) => target.close()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

describe('a program that cannot be talked to is not available', () => {
  it.each([
    [
      '/nowhere/at/all',
      /^target 'process:\/nowhere\/at\/all' is not available: the implementation could not be started: .*ENOENT.*give the path/,
    ],
    ['no-such-program-anywhere', /could not be started: .*ENOENT/],
    ['/', /could not be started: .*EACCES/],
    ["'a\0b'", /is not available: .*null bytes/],
  ])('%s', async (commandLine, message) => {
    const opening = ProcessTarget.open(commandLine);
    await expect(opening).rejects.toThrow(UnavailableError);
    await expect(opening).rejects.toThrow(message);
  });

  it.each([
    ['exits at once', /the implementation exited with 3; on standard error it said: cannot open \/dev\/kvm$/],
    ['says hello in prose', /broke the protocol: line 1: not JSON: .*: hello!$/],
    [
      'speaks another protocol',
      /line 1: protocol: wanted 1, the version of the protocol that the kit speaks: \{"type"/,
    ],
    ['has an unknown command', /line 1: commands\[1\]: .*"vm\.create"/],
    ['has an impossible machine', /line 1: machine\.guestPhysicalBits: Too big/],
  ])('one that %s', async (mode, message) => {
    const opening = open(mode);
    await expect(opening).rejects.toThrow(UnavailableError);
    await expect(opening).rejects.toThrow(message);
  });

  it.each([
    ['says nothing', IMPATIENT, /did not answer hello within 0\.4 s$/],
    // It must have been started and have spoken until then, on a busy machine too.
    [
      'says half of hello',
      3000,
      /did not answer hello within 3 s: it has written 15 bytes, and no newline behind them$/,
    ],
  ])('one that %s', async (mode, helloMs, message) => {
    await expect(open(mode, { helloMs })).rejects.toThrow(message);
  });
});

describe('a program that dies again at the same command diverges there', () => {
  it.each([
    ['exits at fd.dup', 2, 'the implementation exited with 7'],
    ['is killed at fd.dup', 2, 'the implementation was killed by SIGSEGV'],
    ['closes its output', 0, 'the implementation closed its standard output'],
    ['closes its input', 1, 'the implementation closed its standard input'],
    ['exits behind its answer', 1, 'the implementation exited with 0'],
    ['says half a line', 0, 'the implementation exited with 0'],
  ])('one that %s', async (mode, at, message) => {
    const target = await open(mode);
    const programs = mode === 'closes its input' || mode === 'exits behind its answer' ? [SHORT, LONG] : [LONG];
    const verdicts = [];
    for (const each of programs) verdicts.push(await check(target, each));
    expect(verdicts.at(-1)).toMatchObject({ kind: 'diverges', at, observed: `crash: ${message}` });
  });
});

describe('a program that breaks the protocol diverges', () => {
  it.each([
    ['says what is no JSON', /^line 2: not JSON: .*: \{'type': 'observations'\}$/],
    ['says an empty line', /^line 2: not JSON: .*: $/],
    ['says what is no UTF-8', /^line 2: not UTF-8: "\ufffd\ufffd\?"$/],
    ['says an unknown message', /^line 2: type: wanted "observations", and it is "bye": .*\\u001b\[31m/],
    ['answers for another run', /^line 2: id: wanted 1, that of the run, and it is 2: /],
    ['observes too much', /^line 2: observations: 2, for 1 command: /],
    ['observes too little', /^line 2: observations: 0, for 1 command: /],
    ['has a million facts', /^line 2: observations\[0\]\.facts\.vms: more than 10000 entries: .{161}$/],
    ['writes without end', /^line 2: more than the 4194304 bytes of a line$/],
  ])('one that %s', async (mode, message) => {
    const target = await open(mode);
    const verdict = await check(target);
    expect(verdict).toMatchObject({ kind: 'diverges', at: 0 });
    const [, told = ''] =
      /^crash: the implementation broke the protocol: ([^]*)$/.exec(
        verdict.kind === 'diverges' ? verdict.observed : '',
      ) ?? [];
    expect(told).toMatch(message);
  });

  it.each(['answers twice', 'answers before it is asked', 'floods with lines'])('one that %s', async (mode) => {
    const target = await open(mode);
    const verdicts = [await check(target, LONG), await check(target, LONG)];
    const broken = expect.stringMatching(/^crash: the implementation broke the protocol: line \d+: /) as unknown;
    expect(verdicts).toContainEqual(expect.objectContaining({ kind: 'diverges', observed: broken }));
  });

  it('though it does so once and not again', async () => {
    const target = await open('breaks the protocol once');
    expect(await check(target, LONG)).toMatchObject({ kind: 'diverges', at: 0 });
    expect(await check(target, LONG)).toMatchObject(CONFORMS);
  });
});

describe('nothing is known of a program that', () => {
  it('exits once and not again; and the run goes on', async () => {
    const target = await open('exits once');
    const reason = 'the implementation exited with 7; given the same program once more, it did not';
    expect(await check(target, LONG)).toEqual({ kind: 'inconclusive', reason });
    expect(await check(target, LONG)).toMatchObject(CONFORMS);
  });

  it('hangs; a late answer is nobody’s, and the next process does better', async () => {
    const target = await open('hangs once');
    const reason = 'the target hung: no answer within 0.3 s';
    expect(await check(target, SHORT, 300)).toEqual({ kind: 'inconclusive', reason });
    expect(await check(target, LONG)).toMatchObject(CONFORMS);
  });

  it.each([
    ['hangs', /no answer within 0\.4 s$/],
    [
      'says nothing behind its answer',
      /no answer within 0\.4 s: it has written \d+ bytes, and no newline behind them$/,
    ],
  ])('%s', async (mode, reason) => {
    const verdict = await check(await open(mode), SHORT, IMPATIENT);
    expect(verdict).toEqual({ kind: 'inconclusive', reason: expect.stringMatching(reason) });
  });

  it('is another one when it is started again', async () => {
    const verdict = await check(await open('is another when it is started again'));
    expect(verdict).toEqual({
      kind: 'inconclusive',
      reason: 'started again, the implementation answers another hello',
    });
  });

  it('does not support a command, and it is no reason to give up', async () => {
    const verdict = await check(await open('does not support it'));
    const reason = 'the target cannot execute fd.close: not yet';
    expect(verdict).toEqual({ kind: 'inconclusive', reason, isUnsupported: true });
  });
});

test('a crash that the program reports itself is one, and harms no terminal', async () => {
  const verdict = await check(await open('reports a crash'));
  expect(verdict).toMatchObject({ kind: 'diverges', at: 0, observed: 'crash: slot 3 is listed ?[31mtwice' });
});

test('what it complains of is shown and kept, harmless and not without end', async () => {
  let shown = '';
  const target = await open('complains without end', { onStderr: (text) => (shown += text) });
  expect(await check(target)).toMatchObject(CONFORMS);
  expect(shown).toContain('so much?[2J');
  expect(shown).toMatch(/is not shown\)\n$/);
  expect(shown.length).toBeLessThan(1_300_000);
  await target.close();
  expect(target.log()).toMatch(/^[^\p{Cc}]*\n[^]*the end\n$/u);
  expect(target.log()).toHaveLength(4096);
});

describe('a process that is sent away', () => {
  /** Dead processes stay in the table until their parent has looked at them. */
  const isAlive = (pid: string): boolean => {
    const stat = `/proc/${pid}/stat`;
    return existsSync(stat) && !/\) [ZX]/.test(readFileSync(stat, 'utf8'));
  };

  it('goes, with those that it has started, also where it ignores SIGTERM', async () => {
    const interruption = new AbortController();
    let pids = '';
    const target = await open('hangs with a child, and ignores SIGTERM', {
      onStderr: (text) => {
        pids += text;
        if (/^\d+\n\d+\n$/.test(pids)) interruption.abort();
      },
    });
    const checking = { specification, target, timeLimitMs: PATIENT, signal: interruption.signal };
    expect(await checkProgram(checking, SHORT)).toEqual({ kind: 'inconclusive', reason: 'interrupted' });
    await target.close();
    while (pids.trim().split('\n').some(isAlive)) await setTimeout(10);
    expect(target.log()).toBe(pids);
  });

  it('goes when its input has ended, or else is made to', async () => {
    const target = await open('lives on');
    expect(await check(target)).toMatchObject(CONFORMS);
    await target.close();
  });
});
