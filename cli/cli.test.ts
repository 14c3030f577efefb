import { describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { encodeToken } from '../conformance/token.ts';
import {
  bundledCommandLine,
  inFolder,
  runCommandLine,
  type Ran,
  type Surroundings,
} from '../properties/command-line.ts';
import type { Report } from '../report/json.ts';

const ROOT = join(__dirname, '..');
const CLI = bundledCommandLine();

const gmem = (args: readonly string[], surroundings?: Surroundings): Promise<Ran> =>
  runCommandLine(CLI, args, surroundings);

const readReport = (file: string): Report => JSON.parse(readFileSync(file, 'utf8')) as Report;

const withoutTime = (report: Report): Report => ({
  ...report,
  runs: report.runs.map((run) => ({ ...run, durationMs: 0 })),
});

const VM = 'vm.create vm=vm0 dev=kvm type=0\n';
const mutant = MUTANTS.find(({ origin, equivalent }) => origin === 'derived' && equivalent === undefined);
if (mutant === undefined) throw new Error('there is no mutant to test with');

describe('usage', () => {
  test.concurrent('help teaches a subcommand: an example, and what the exit status means', async () => {
    const { status, stdout } = await gmem(['run', '--help']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}\$ gmem-conformance run/);
    expect(stdout).toMatch(/Exit status:[^]*4 {2}a defect of the kit itself/);
  });

  test.concurrent.each([
    ['an option of the wrong kind', ['run', '--runs', 'many'], /--runs.*'many' is invalid. Write a whole number/],
    ['a target that does not exist', ['run', '--target', 'toaster'], /unknown target 'toaster'; known are simulator/],
    ['a damaged token', ['replay', 'gmc1.damaged'], /^error: the replay token is damaged: copy it whole/],
    [
      'a path that cannot be written',
      ['run', '--json', '/nonexistent/x'],
      /cannot write '\/nonexistent\/x': no such file/,
    ],
    ['a file without a name', ['run', '--json', ''], /^error: the name of a file to write is empty: give one/],
    ['a checkpoint without a name', ['run', '--resume', ''], /^error: the name of a file to write is empty: give one/],
    [
      'a mutant of another machine',
      ['run', '--profile', 'linux-7.3', '--target', 'mutant:td-page-not-reset'],
      /^error: mutant:td-page-not-reset is another machine than linux-7\.3 is about: it fits tdx-/,
    ],
    ['standard output for two results', ['run', '--junit', '-', '--ktap', '-'], /standard output takes one result/],
  ])('%s is refused in one line, before anything runs', async (_what, args, message) => {
    const { status, stdout, stderr } = await gmem(args);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^ +at /m);
    expect(stdout).toBe('');
  });

  test.concurrent('a target that cannot be tested from here is refused with its reason', async () => {
    const refused = await gmem(['run', '--target', 'process:./mine']);
    expect(refused).toMatchObject({ status: 3, stdout: '' });
    expect(refused.stderr).toMatch(
      /^error: target 'process:\.\/mine' is not available: the implementation could not be started: .*; give the path/,
    );
  });

  test.concurrent('targets are listed with what they are', async () => {
    const { status, stdout } = await gmem(['targets']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^simulator {2}.*\n(.*\n)*process:CMD {2}a program in any language/);
  });

  test.concurrent.each([
    ['a header', `# target: process:touch 'it was' here\n${VM}`],
    [
      'a token',
      encodeToken({ program: VM, profile: 'linux-7.3', target: "process:touch 'it was' here", modelHash: '' }),
    ],
  ])('a command in %s is not executed, unless the caller says so', async (_where, input) => {
    const { status, stderr } = await gmem(['replay', '-'], { input });
    expect(status).toBe(2);
    expect(stderr).toMatch(/names a command as its target: if you trust that, say --target 'process:touch '\\''it was/);
  });

  test.concurrent('a bad program names file and line', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'bad.gmem');
      writeFileSync(file, `# profile: linux-7.3\n${VM}gmem.create file=file0 vm=vm0 size=0x1000\n`);
      const { status, stderr } = await gmem(['replay', file]);
      expect(status).toBe(2);
      expect(stderr).toContain(`${file}:3: gmem.create needs flags=`);
    });
  });
});

describe('a run', () => {
  test.concurrent('does the same again from the same seed, but for the time it takes', async () => {
    await inFolder(async (folder) => {
      const [one, other] = ['one.json', 'other.json'].map((name) => join(folder, name)) as [string, string];
      const common = ['run', '--target', 'reference', '--runs', '200', '--json'];
      const [asked, fromEnvironment] = await Promise.all([
        gmem([...common, one, '--seed', '5']),
        gmem([...common, other], { env: { GMEM_SEED: '5' } }),
      ]);
      expect([asked.status, fromEnvironment.status]).toEqual([0, 0]);
      expect(asked.stdout).toMatch(/^seed +5$/m);
      expect(asked.stderr).toBe('');
      expect(withoutTime(readReport(other))).toEqual(withoutTime(readReport(one)));
      const schema = JSON.parse(readFileSync(join(ROOT, 'docs/report.schema.json'), 'utf8')) as object;
      expect(new Ajv2020().validate(schema, readReport(one))).toBe(true);
    });
  });

  test.concurrent('shows a divergence, and the command that it names shows it again', async () => {
    const { status, stdout } = await gmem(['run', '--target', mutant.target.name, '--seed', '1']);
    expect(status).toBe(1);
    const [, command = ''] = /^replay +gmem-conformance (.*)$/m.exec(stdout) ?? [];
    const replayed = await gmem(command.split(' '));
    expect(replayed.status).toBe(1);
    const parting = /^.*<-- here$/m;
    expect(parting.exec(replayed.stdout)?.[0].split(' #')[0]).toBe(parting.exec(stdout)?.[0].split(' #')[0]);
  });

  test.concurrent.each(['SIGINT', 'SIGTERM'] as const)(
    'that is ended by %s reports what it did until then',
    async (signal) => {
      await inFolder(async (folder) => {
        const file = join(folder, 'report.json');
        const kept = join(folder, 'kept.json');
        const asked = ['run', '--target', 'reference', '--runs', '1000000000', '--seed', '1'];
        const args = [...asked, '--json', file, '--resume', kept];
        const child = spawn(process.execPath, [CLI, ...args], { cwd: ROOT });
        const closed = once(child, 'close');
        // What is tested is printed when the run begins.
        await once(child.stdout, 'data');
        child.stdout.resume();
        await setTimeout(300);
        child.kill(signal);
        const [status] = (await closed) as [number | null];
        expect(status).toBe(3);
        const report = readReport(file);
        expect(report).toMatchObject({
          verdict: 'inconclusive',
          runs: [{ reason: 'interrupted', stopped: 'interrupted' }],
        });
        const { progress } = JSON.parse(readFileSync(kept, 'utf8')) as { progress: { programs: number } };
        expect(progress.programs).toBe(report.runs[0]?.programs);
        const schema = JSON.parse(readFileSync(join(ROOT, 'docs/report.schema.json'), 'utf8')) as object;
        expect(new Ajv2020().validate(schema, report)).toBe(true);
      });
    },
  );

  test.concurrent('writes each format to a file, and one to standard output with nothing beside it', async () => {
    await inFolder(async (folder) => {
      const files = { junit: /^<\?xml /, ktap: /^KTAP version 1\n/, markdown: /^# gmem-conformance: conforms\n/ };
      const options = Object.keys(files).flatMap((name) => [`--${name}`, join(folder, name)]);
      const common = ['run', '--target', 'reference', '--runs', '5', '--seed', '1'];
      const { status, stdout, stderr } = await gmem([...common, ...options, '--github', '-']);
      expect(status).toBe(0);
      for (const [name, start] of Object.entries(files))
        expect(readFileSync(join(folder, name), 'utf8')).toMatch(start);
      expect(stdout).toMatch(/^::notice title=gmem-conformance%3A conforms::verdict .*\n$/);
      expect(stderr).toMatch(/^target +reference$/m);
      expect(stderr).toMatch(/^verdict +conforms$/m);
    });
  });

  test.concurrent('that is killed, whenever that is, goes on from there and comes to the same', async () => {
    await inFolder(async (folder) => {
      const [one, other, kept] = ['one.json', 'other.json', 'kept.json'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ];
      const asked = ['run', '--target', 'reference', '--runs', '1200'];
      const whole = gmem([...asked, '--seed', '5', '--json', one]);
      for (const delayMs of [0, 170]) {
        const args = [...asked, '--seed', '5', '--resume', kept];
        const content = (): string => (existsSync(kept) ? readFileSync(kept, 'utf8') : '');
        const before = content();
        const child = spawn(process.execPath, [CLI, ...args], { cwd: ROOT });
        const closed = once(child, 'close');
        await once(child.stdout, 'data');
        child.stdout.resume();
        while (content() === before) await setTimeout(10);
        await setTimeout(delayMs);
        child.kill('SIGKILL');
        await closed;
      }
      const { status, stdout } = await gmem([...asked, '--resume', kept, '--json', other], { env: { GMEM_SEED: '7' } });
      expect(status).toBe(0);
      expect(stdout).toMatch(/^seed +5\nresumed +behind \d+ programs? that an earlier process has run$/m);
      expect((await whole).status).toBe(0);
      expect(withoutTime(readReport(other))).toEqual(withoutTime(readReport(one)));
      const changed = await gmem([...asked, '--seed', '6', '--resume', kept]);
      expect(changed).toMatchObject({ status: 2, stdout: '' });
      expect(changed.stderr).toContain(`'${kept}' is of another run: seed was 5, and is 6; give the same options`);
    });
  });

  test.concurrent.each([
    [['--resume', 'README.md'], "cannot resume from 'README.md': it is not JSON; name a file that"],
    [['--resume', 'package.json'], "cannot resume from 'package.json': schema: Invalid input"],
    [['--resume', '/nowhere/at/all'], "cannot write '/nowhere/at/all': no such file or directory; name another file"],
    [
      ['--resume', 'x.json', '--update-divergences', '--divergences', 'divergences/linux.json'],
      '--resume keeps no entries that --update-divergences makes',
    ],
  ])('does not go on with %j', async (args, message) => {
    const { status, stdout, stderr } = await gmem(['run', '--target', 'reference', ...args]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
  });

  test.concurrent('loses no report to a full disk, and writes what can be written', async () => {
    // Linux alone has a file that is always full.
    if (!existsSync('/dev/full')) return;
    await inFolder(async (folder) => {
      const junit = join(folder, 'report.xml');
      const { status, stdout, stderr } = await gmem([
        ...['run', '--target', mutant.target.name, '--seed', '1', '--save', '/dev/full'],
        ...['--json', '/dev/full', '--junit', junit, '--ktap', '/dev/full'],
      ]);
      expect(status).toBe(2);
      expect(
        stderr.match(/^error: cannot write '\/dev\/full': no space left; what belongs there stands/gm),
      ).toHaveLength(3);
      expect(stdout).toContain('"schema": "gmem-conformance-report/2"');
      expect(stdout).toMatch(/^KTAP version 1$/m);
      expect(stdout).toMatch(/^diverges at command [^]*^# title: [^]*^not saved +the program stands above$/m);
      expect(readFileSync(junit, 'utf8')).toContain('</testsuites>');
    });
  });

  test.concurrent('goes on to its files and its status when its reader has seen enough', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'report.json');
      const args = ['run', '--target', mutant.target.name, '--seed', '1', '--json', file];
      const child = spawn(process.execPath, [CLI, ...args], { cwd: ROOT });
      child.stdout.destroy();
      child.stderr.destroy();
      const [status] = (await once(child, 'exit')) as [number | null];
      expect(status).toBe(1);
      expect(readReport(file).verdict).toBe('diverges');
    });
  });

  test.concurrent('that cannot say what it found has not found anything', async () => {
    if (!existsSync('/dev/full')) return;
    const full = openSync('/dev/full', 'w');
    const args = ['run', '--target', 'reference', '--runs', '5'];
    const child = spawn(process.execPath, [CLI, ...args], { cwd: ROOT, stdio: ['ignore', full, 'pipe'] });
    const [ended, stderr] = await Promise.all([once(child, 'exit'), text(child.stderr as Readable)]);
    const [status] = ended as [number | null];
    closeSync(full);
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: 'error: cannot write to standard output: no space left\n',
    });
  });
});

test.concurrent('a run with a time ends in time, and conforms', async () => {
  const { status, stdout } = await gmem(['run', '--target', 'reference', '--time', '1s', '--seed', '1']);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^verdict +conforms\nchecked +\d+ programs, \d+ commands, until the time was over$/m);
});

describe('a run in shards', () => {
  const reference = ['run', '--target', 'reference', '--seed', '5', '--runs', '300'];
  const shardRun = (shard: string, file: string): Promise<Ran> =>
    gmem([...reference, '--shard', shard, '--json', file]);

  test.concurrent('is put together from their reports, whatever is missing named', async () => {
    await inFolder(async (folder) => {
      const [one, two, all] = ['1.json', '2.json', 'all.json'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ];
      const [first] = await Promise.all([shardRun('1/3', one), shardRun('2/3', two)]);
      expect(first.status).toBe(0);
      const [, repeat = ''] = /^shard +1\/3, by itself:\n +gmem-conformance (.*)$/m.exec(first.stdout) ?? [];
      const merged = await gmem(['report', 'merge', two, one, '--json', all]);
      expect(merged.status).toBe(0);
      expect(merged.stdout).toMatch(
        /^target +reference$[^]*^runs +2\nmissing:\n {2}seed 5, shard 3\/3\nverdict +conforms$/m,
      );
      expect(merged.stdout).toMatch(/^checked +200 programs/m);
      expect(readReport(all).runs.map(({ shard }) => shard)).toEqual([
        { index: 1, count: 3 },
        { index: 2, count: 3 },
      ]);
      const again = await gmem([...repeat.split(' '), '--json', all]);
      expect(again.status).toBe(0);
      expect(withoutTime(readReport(all))).toEqual(withoutTime(readReport(one)));
    });
  });

  test.concurrent('keeps the verdict of a failing one, and what it found', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'report.json');
      const run = await gmem(['run', '--target', mutant.target.name, '--seed', '1', '--shard', '2/2', '--json', file]);
      expect(run.status).toBe(1);
      const { status, stdout } = await gmem(['report', 'merge', file]);
      expect(status).toBe(1);
      const replay = /^replay .*$/m;
      expect(replay.exec(stdout)?.[0]).toBe(replay.exec(run.stdout)?.[0]);
      // What stands in a file must not steer the terminal.
      writeFileSync(file, readFileSync(file, 'utf8').replaceAll('"target": "', '"target": "\\u001b[2J'));
      const tamed = await gmem(['report', 'merge', file]);
      expect(tamed.stdout).toMatch(/^target +\\u\{1b\}\[2Jmutant/);
    });
  });

  test.concurrent.each([
    [['run', '--shard', '5/4'], "argument '5/4' is invalid. Write i/n, with i from 1 to n"],
    [['run', '--shard', '1/4', '--runs', '3'], '--runs 3 leaves shards of 4 without a program'],
    [['run', '--time', '10'], "argument '10' is invalid. Write a whole number of seconds, minutes or hours"],
    [['report', 'merge', '/nowhere.json'], "cannot read '/nowhere.json': no such file or directory; give what"],
    [['report', 'merge', 'package.json'], 'package.json: schema: Invalid input: expected '],
  ])('is refused for %j', async (args, message) => {
    const { status, stdout, stderr } = await gmem(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
  });
});

describe('a program in another process', () => {
  const hostile = (mode: string): string => `process:node adapters/process/hostile-child.mjs '${mode}'`;

  test.concurrent('that cannot do what it is asked shows nothing', async () => {
    const { status, stdout } = await gmem([
      'run',
      '--runs',
      '5',
      '--seed',
      '1',
      '--target',
      hostile('does not support it'),
    ]);
    expect(status).toBe(3);
    expect(stdout).toMatch(/^verdict +inconclusive: 5 of 5 programs: the target cannot execute .*: not yet$/m);
  });

  test.concurrent('is shown with what it complained of, and its complaints pass by', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'report.json');
      const args = ['run', '--runs', '5', '--target', hostile('complains and dies'), '--json', file];
      const { status, stdout, stderr } = await gmem(args);
      expect(status).toBe(1);
      expect(stdout).toMatch(/^observed +crash: the implementation exited with 1$/m);
      expect(stdout).toMatch(
        /^Beside its answers the target wrote, last of all:\n( .*\n)* {2}this is \?\[31mtoo much$/m,
      );
      expect(stderr).toContain('this is ?[31mtoo much\n');
      expect(readReport(file).failures).toEqual([
        expect.objectContaining({ log: expect.stringContaining('too much'), reproduced: true }) as unknown,
      ]);
    });
  });
});

describe('a replay', () => {
  test.concurrent('reads standard input, heeds its header, and obeys options first', async () => {
    const input = `# target: ${mutant.target.name}\n${VM}`;
    const { status, stdout } = await gmem(['replay', '-', '--target', 'reference', '--profile', 'linux-6.18'], {
      input,
    });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^target +reference\nprofile +linux-6\.18$/m);
    expect(stdout).toMatch(/^vm\.create vm=vm0 dev=kvm type=0 +# vm\.create\/created +ok.* ok$/m);
  });

  test.concurrent('says that the specification has changed since a token was made, and runs it', async () => {
    const token = encodeToken({ program: VM, profile: 'linux-7.3', target: 'reference', modelHash: 'old' });
    const { status, stdout } = await gmem(['replay', token]);
    expect(status).toBe(0);
    expect(stdout).toContain('recorded with model old: the specification has changed since');
  });
});

describe('shrinking', () => {
  test.concurrent('writes a shorter program that fails too', async () => {
    await inFolder(async (folder) => {
      const [long, short] = ['long.gmem', 'short.gmem'].map((name) => join(folder, name)) as [string, string];
      const witness = await gmem(['mutants', '--only', mutant.id, '--seed', '1', '--json', long]);
      expect(witness.status).toBe(0);
      const { mutants } = JSON.parse(readFileSync(long, 'utf8')) as { mutants: { witness: string[] }[] };
      const wanted = mutants[0]?.witness ?? [];
      const padding = Array.from({ length: 5 }, (_each, index) => `vm.create vm=extra${index} dev=kvm type=0`);
      const input = [`# target: ${mutant.target.name}`, ...padding, ...wanted].join('\n');
      const { status, stdout } = await gmem(['shrink', '-', '--output', short], { input });
      expect(status).toBe(1);
      expect(stdout).toMatch(new RegExp(`^shrunk +from ${wanted.length + 5} to ${wanted.length} command`, 'm'));
      expect(readFileSync(short, 'utf8')).toMatch(/^# profile: .*\n# rule: .*\n# target: mutant:/m);
    });
  });

  test.concurrent('writes nothing but the program to standard output, where that is asked for', async () => {
    const { status, stdout, stderr } = await gmem(['shrink', '-', '--target', mutant.target.name, '--output', '-'], {
      input: VM,
    });
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(stderr).toContain('conforms: there is nothing to shrink');
  });

  test.concurrent('leaves a program alone that does not fail', async () => {
    const { status, stdout } = await gmem(['shrink', '-', '--target', 'reference'], { input: VM });
    expect(status).toBe(0);
    expect(stdout).toContain('conforms: there is nothing to shrink');
  });
});

describe('scenarios', () => {
  test.concurrent('are listed with what they show and take', async () => {
    const { status, stdout } = await gmem(['scenario', '--list', 'prefault-*']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^scenario +shows +profile +requires\nprefault-follows-attribute +A pre-fault/);
    expect(stdout).toMatch(/two-dimensional-paging/);
    expect(stdout).not.toContain('bound-twice');
  });

  test.concurrent('run by name, a line each, and come to a report that the schema describes', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'report.json');
      const junit = join(folder, 'report.xml');
      const formats = ['--json', file, '--junit', junit];
      const { status, stdout } = await gmem(['scenario', 'bound-twice-*', 'zeroed-once', ...formats]);
      expect(status).toBe(0);
      expect(readFileSync(junit, 'utf8')).toContain('<testsuite name="scenarios" tests="3" failures="0" errors="0"');
      expect(stdout).toMatch(/^conforms {6}bound-twice-eexist +A file page .*\nconforms {6}bound-twice-einval /m);
      expect(stdout).toMatch(/^verdict {5}conforms\nscenarios {3}conforms 3$/m);
      const schema = JSON.parse(readFileSync(join(ROOT, 'docs/scenarios.schema.json'), 'utf8')) as object;
      const report = JSON.parse(readFileSync(file, 'utf8')) as { scenarios: object[] };
      expect(new Ajv2020().validate(schema, report)).toBe(true);
      expect(report.scenarios).toHaveLength(3);
    });
  });

  test.concurrent('that are named twice run once, and two of one name are refused', async () => {
    await inFolder(async (folder) => {
      const same = ['zeroed-once', 'scenarios/zeroed-once.gmem', 'scenarios/../scenarios/zeroed-once.gmem'];
      const other = join(folder, 'zeroed-once.gmem');
      writeFileSync(other, readFileSync(join(ROOT, 'scenarios/zeroed-once.gmem')));
      const [once, refused] = await Promise.all([
        gmem(['scenario', ...same]),
        gmem(['scenario', 'zeroed-once', other]),
      ]);
      expect(once.stdout).toMatch(/^scenarios {3}conforms 1$/m);
      expect(refused).toMatchObject({ status: 2, stdout: '' });
      expect(refused.stderr).toMatch(
        /zeroed-once\.gmem' has the name of '.*zeroed-once\.gmem', and results go by names/,
      );
    });
  });

  test.concurrent('are skipped with the reason where the rules are others, and nothing then conforms', async () => {
    const { status, stdout } = await gmem(['scenario', 'link-same-vm', '--profile', 'linux-7.3']);
    expect(status).toBe(3);
    expect(stdout).toMatch(/^skipped +link-same-vm +gmem\.link is not among the commands of linux-7\.3/m);
    expect(stdout).toMatch(/^verdict {5}inconclusive$/m);
  });

  test.concurrent('are written by a run that fails, and taken by the other commands', async () => {
    await inFolder(async (folder) => {
      const { status, stdout } = await gmem(['run', '--target', mutant.target.name, '--seed', '1', '--save', folder]);
      expect(status).toBe(1);
      const [file = ''] = /(?<=^saved +)\S+\.gmem(?=,)/m.exec(stdout) ?? [];
      expect(readFileSync(file, 'utf8')).toMatch(
        /^# title: .*\n# source: .*\n# profile: .*\n# rule: .*\n(# invariant: .*\n)?# target: mutant:.*\n# seed: 1\n# model: .*\n# expected: .*\n# observed: .*\n[a-z]+\.[a-z]+ /,
      );
      const [wrong, right, replayed, shrunk] = await Promise.all([
        gmem(['scenario', file, '--target', mutant.target.name]),
        gmem(['scenario', file]),
        gmem(['replay', file, '--save', join(folder, 'again.gmem')]),
        gmem(['shrink', file]),
      ]);
      expect([wrong.status, right.status, replayed.status, shrunk.status]).toEqual([1, 0, 1, 1]);
      expect(wrong.stdout).toMatch(/^diverges .*; as the file says$/m);
      expect(wrong.stdout).toMatch(/<-- here[^]*\nrule [^]*\nreplay +gmem-conformance replay gmc1\./);
      expect(wrong.stdout).not.toMatch(/^shrunk/m);
      expect(right.stdout).toMatch(/^conforms .*what the file says was observed does not happen$/m);
      expect(readFileSync(join(folder, 'again.gmem'), 'utf8')).toBe(
        readFileSync(file, 'utf8').replace('# seed: 1\n', ''),
      );
    });
  });

  test.concurrent.each([
    [['bond-twice'], "there is no scenario 'bond-twice'; like it are bound-twice-eexist, bound-twice-einval, "],
    [['/nowhere/at-all.gmem'], "cannot read '/nowhere/at-all.gmem': no such file"],
    [['zeroed-once', '--json', '/nowhere/at/all'], "cannot write '/nowhere/at/all': no such file"],
  ])('%j is refused', async (args, message) => {
    const { status, stdout, stderr } = await gmem(['scenario', ...args]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
  });

  test.concurrent('with a header that is not right are refused with file, line and field', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'bad.gmem');
      writeFileSync(file, `# title: a\n# source: b\n# profile: linux-0\n# rule: vm.create/created\n${VM}`);
      const { status, stderr } = await gmem(['scenario', file]);
      expect(status).toBe(2);
      expect(stderr).toContain(`error: ${file}:3: profile: write the profile whose rules hold: `);
    });
  });
});

test.concurrent('rules --markdown prints docs/rules.md', async () => {
  expect((await gmem(['rules', '--markdown'])).stdout).toBe(readFileSync(join(ROOT, 'docs/rules.md'), 'utf8'));
});

describe('a program in C', () => {
  const CLOSE = `${VM}fd.close fd=vm0\n`;

  test.concurrent('goes to standard output alone, with what it shows and how to see that again', async () => {
    const { status, stdout, stderr } = await gmem(['replay', '-', '--c', '-'], {
      input: `# title: It ends.\n${CLOSE}`,
    });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^\/\/ SPDX-License-Identifier: Apache-2.0\n\/\*\n \* It ends\.\n/);
    expect(stdout).toContain('Step 2 shows rule fd.close/');
    expect(stdout).toMatch(/^ \*\tgmem-conformance replay gmc1\.\S+$/m);
    expect(stderr).toContain('conforms');
  });

  test.concurrent('goes to a file', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'reproducer.c');
      const { status, stdout } = await gmem(['replay', '-', '--c', file], { input: CLOSE });
      expect(status).toBe(0);
      expect(stdout).toContain('conforms');
      expect(readFileSync(file, 'utf8')).toContain('int main(void)');
    });
  });

  test.concurrent.each([
    [['--c', '/nowhere/at/all.c'], VM, "cannot write '/nowhere/at/all.c': no such file or directory"],
    [['--c', '-'], `\n${VM}fault.slab skip=0\n`, 'standard input:3: no C for it: a kernel cannot execute fault.slab: '],
    [['--c', '-'], 'memory.fail fd=none page=0\n', 'the specification takes no position on the first command'],
  ])('is refused with %j for %j', async (args, input, message) => {
    const { status, stdout, stderr } = await gmem(['replay', '-', ...args], { input });
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
  });
});
