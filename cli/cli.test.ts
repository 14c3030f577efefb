import { describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { encodeToken } from '../conformance/token.ts';
import type { Report } from '../report/json.ts';

const ROOT = join(__dirname, '..');

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function gmem(
  args: readonly string[],
  { input = '', env = {} }: { input?: string; env?: NodeJS.ProcessEnv } = {},
): Ran {
  return spawnSync(process.execPath, ['--import', 'tsx', 'cli/main.ts', ...args], {
    cwd: ROOT,
    encoding: 'utf8',
    input,
    env: { ...process.env, ...env },
  });
}

function inFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'gmem-cli-'));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const readReport = (file: string): Report => JSON.parse(readFileSync(file, 'utf8')) as Report;

const VM = 'vm.create vm=vm0 dev=kvm type=0\n';
const mutant = MUTANTS.find(({ origin, equivalent }) => origin === 'derived' && equivalent === undefined);
if (mutant === undefined) throw new Error('there is no mutant to test with');

describe('usage', () => {
  test('help teaches a subcommand: an example, and what the exit status means', () => {
    const { status, stdout } = gmem(['run', '--help']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}\$ gmem-conformance run/);
    expect(stdout).toMatch(/Exit status:[^]*4 {2}a defect of the kit itself/);
  });

  test.each([
    ['an option of the wrong kind', ['run', '--runs', 'many'], /--runs.*'many' is invalid. Write a whole number/],
    ['a target that does not exist', ['run', '--target', 'toaster'], /unknown target 'toaster'; known are simulator/],
    ['a damaged token', ['replay', 'gmc1.damaged'], /^error: the replay token is damaged: copy it whole/],
    [
      'a path that cannot be written',
      ['run', '--json', '/nonexistent/x'],
      /cannot write '\/nonexistent\/x': no such file/,
    ],
  ])('%s is refused in one line, before anything runs', (_what, args, message) => {
    const { status, stdout, stderr } = gmem(args);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^ +at /m);
    expect(stdout).toBe('');
  });

  test('a bad program names file and line', () => {
    inFolder((folder) => {
      const file = join(folder, 'bad.gmem');
      writeFileSync(file, `# profile: linux-7.3\n${VM}gmem.create file=file0 vm=vm0 size=0x1000\n`);
      const { status, stderr } = gmem(['replay', file]);
      expect(status).toBe(2);
      expect(stderr).toContain(`${file}:3: gmem.create needs flags=`);
    });
  });
});

describe('a run', () => {
  test('does the same again from the same seed, but for the time it takes', () => {
    inFolder((folder) => {
      const [one, other] = ['one.json', 'other.json'].map((name) => join(folder, name)) as [string, string];
      const common = ['run', '--target', 'reference', '--runs', '200', '--json'];
      const asked = gmem([...common, one, '--seed', '5']);
      const fromEnvironment = gmem([...common, other], { env: { GMEM_SEED: '5' } });
      expect([asked.status, fromEnvironment.status]).toEqual([0, 0]);
      expect(asked.stdout).toMatch(/^seed +5$/m);
      expect(asked.stderr).toBe('');
      expect({ ...readReport(other), durationMs: 0 }).toEqual({ ...readReport(one), durationMs: 0 });
      const schema = JSON.parse(readFileSync(join(ROOT, 'docs/report.schema.json'), 'utf8')) as object;
      expect(new Ajv2020().validate(schema, readReport(one))).toBe(true);
    });
  });

  test('shows a divergence, and the command that it names shows it again', () => {
    const { status, stdout } = gmem(['run', '--target', mutant.target.name, '--seed', '1']);
    expect(status).toBe(1);
    const [, command = ''] = /^replay +gmem-conformance (.*)$/m.exec(stdout) ?? [];
    const replayed = gmem(command.split(' '));
    expect(replayed.status).toBe(1);
    const parting = /^.*<-- here$/m;
    expect(parting.exec(replayed.stdout)?.[0].split(' #')[0]).toBe(parting.exec(stdout)?.[0].split(' #')[0]);
  });

  (process.platform === 'linux' ? test : test.skip)('loses no report to a full disk', () => {
    const { status, stdout, stderr } = gmem(['run', '--target', 'reference', '--runs', '5', '--json', '/dev/full']);
    expect(status).toBe(2);
    expect(stderr).toContain("cannot write '/dev/full': no space left");
    expect(stdout).toContain('"schema": "gmem-conformance-report/1"');
  });
});

describe('a replay', () => {
  test('reads standard input, heeds its header, and obeys options first', () => {
    const input = `# target: ${mutant.target.name}\n${VM}`;
    const { status, stdout } = gmem(['replay', '-', '--target', 'reference', '--profile', 'linux-6.18'], { input });
    expect(status).toBe(0);
    expect(stdout).toMatch(/^target +reference\nprofile +linux-6\.18$/m);
    expect(stdout).toMatch(/^vm\.create vm=vm0 dev=kvm type=0 +# vm\.create\/created +ok.* ok$/m);
  });

  test('says that the rules have changed since a token was made, and runs it', () => {
    const token = encodeToken({ program: VM, profile: 'linux-7.3', target: 'reference', modelHash: 'old' });
    const { status, stdout } = gmem(['replay', token]);
    expect(status).toBe(0);
    expect(stdout).toContain('recorded with model old: the rules have changed since');
  });
});

describe('shrinking', () => {
  test('writes a shorter program that fails too', () => {
    inFolder((folder) => {
      const [long, short] = ['long.gmem', 'short.gmem'].map((name) => join(folder, name)) as [string, string];
      const witness = gmem(['mutants', '--only', mutant.id, '--seed', '1', '--json', long]);
      expect(witness.status).toBe(0);
      const { mutants } = JSON.parse(readFileSync(long, 'utf8')) as { mutants: { witness: string[] }[] };
      const wanted = mutants[0]?.witness ?? [];
      const padding = Array.from({ length: 5 }, (_each, index) => `vm.create vm=extra${index} dev=kvm type=0`);
      const input = [`# target: ${mutant.target.name}`, ...padding, ...wanted].join('\n');
      const { status, stdout } = gmem(['shrink', '-', '--output', short], { input });
      expect(status).toBe(1);
      expect(stdout).toMatch(new RegExp(`^shrunk +from ${wanted.length + 5} to ${wanted.length} command`, 'm'));
      expect(readFileSync(short, 'utf8')).toMatch(/^# profile: .*\n# target: mutant:/);
    });
  });

  test('leaves a program alone that does not fail', () => {
    const { status, stdout } = gmem(['shrink', '-', '--target', 'reference'], { input: VM });
    expect(status).toBe(0);
    expect(stdout).toContain('conforms: there is nothing to shrink');
  });
});

test('rules --markdown prints docs/rules.md', () => {
  expect(gmem(['rules', '--markdown']).stdout).toBe(readFileSync(join(ROOT, 'docs/rules.md'), 'utf8'));
});
