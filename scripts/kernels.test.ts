import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-scripts-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Runs a script where the commands given, shell scripts, stand before those of the system. */
function run(script: string, args: readonly string[], commands: Readonly<Record<string, string>> = {}) {
  for (const [name, body] of Object.entries(commands))
    writeFileSync(join(folder, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  const { PATH = '', ...rest } = process.env;
  const env = { ...rest, PATH: `${folder}:${PATH}`, XDG_CACHE_HOME: join(folder, 'cache'), GMEM_DEBIAN_MIRROR: '' };
  const { status, stdout, stderr } = spawnSync(join('scripts', script), args, {
    encoding: 'utf8',
    env,
    timeout: 10_000,
  });
  return { status, stdout, stderr: stderr.trim() };
}

/** A suite with these packages; whatever is downloaded fails. */
const suite = (...packages: readonly string[]) => ({
  'apt-get': 'case "$*" in *indextargets*) echo "Debian http://mirror/debian" ;; *download*) exit 100 ;; esac',
  'apt-cache': `case "$*" in *pkgnames*) printf '%s\\n' ${packages.join(' ')} ;; *show*) echo "Version: 1" ;; esac`,
  'dpkg-deb': 'exit 1',
  gcc: 'echo gcc 1',
});

const IMAGES = suite('linux-image-7.2.9+deb13-amd64', 'linux-image-7.2.9+deb13-amd64-dbg')['apt-cache'];
const hasKeys = existsSync('/usr/share/keyrings/debian-archive-keyring.gpg');
const describeDebian = hasKeys ? describe : describe.skip;

describe.each(['debian-kernel', 'build-kernel'])('%s', (script) => {
  it('explains itself', () => {
    const { status, stdout } = run(script, ['--help']);
    expect({ status, start: stdout.split(' [')[0] }).toEqual({ status: 0, start: `Usage: scripts/${script}` });
  });

  it.each([
    [['--sweet', 'sid'], 'unknown option --sweet; see --help'],
    [['--suite'], '--suite needs a value'],
  ])('refuses %j', (args, message) => {
    expect(run(script, args)).toEqual({ status: 1, stdout: '', stderr: `${script}: ${message}` });
  });

  it('says when this machine knows no mirror', () => {
    const { status, stderr } = run(script, [], { 'apt-get': '', 'dpkg-deb': '' });
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("no Debian mirror in this machine's apt lists: set GMEM_DEBIAN_MIRROR"),
    });
  });
});

describeDebian.each(['debian-kernel', 'build-kernel'])('%s', (script) => {
  it('says what the mirror answered, and leaves nothing half done', () => {
    const { status, stderr } = run(script, [], {
      'apt-get':
        'case "$*" in *indextargets*) echo "Debian http://mirror/debian" ;; *) echo "E: 404"; exit 100 ;; esac',
      'dpkg-deb': '',
    });
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: `${script}: cannot read suite trixie-backports of http://mirror/debian:\nE: 404`,
    });
    expect(readdirSync(join(folder, 'cache/gmem-conformance'))).toEqual(['apt']);
  });
});

describe('debian-kernel', () => {
  it('refuses a flavour that has no KVM', () => {
    expect(run('debian-kernel', ['--flavour', 'rt-amd64']).stderr).toContain('there are amd64 and cloud-amd64');
  });
});

describeDebian('debian-kernel', () => {
  it('lists each release once, the oldest first, signed or not', () => {
    const commands = suite(
      ...['linux-image-7.10.1+deb13-amd64', 'linux-image-7.10.1+deb13-cloud-amd64', 'linux-image-7.9.1+deb13-rt-amd64'],
      ...[
        'linux-image-7.9.2+deb13-amd64',
        'linux-image-7.9.2+deb13-amd64-dbg',
        'linux-image-7.9.2+deb13-amd64-unsigned',
      ],
      ...['linux-binary-unsigned-7.11.0+deb13-amd64', 'linux-image-6.12.9-1-amd64', 'linux-image-amd64'],
    );
    expect(run('debian-kernel', ['--list'], commands).stdout.trim().split('\n')).toEqual([
      '6.12.9-1-amd64',
      '7.9.2+deb13-amd64',
      '7.10.1+deb13-amd64',
      '7.11.0+deb13-amd64',
    ]);
    expect(run('debian-kernel', ['--list', '--flavour', 'cloud-amd64'], commands).stdout).toBe(
      '7.10.1+deb13-cloud-amd64\n',
    );
  });

  it('says which releases there are, where there is none as wanted', () => {
    const { stderr } = run('debian-kernel', ['--version', '6.1'], { ...suite(), 'apt-cache': IMAGES });
    expect(stderr).toBe(
      'debian-kernel: no release 6.1… of flavour amd64 in trixie-backports; it has: 7.2.9+deb13-amd64',
    );
  });

  it('leaves nothing half done when a download fails', () => {
    const { status, stderr } = run('debian-kernel', [], { ...suite(), 'apt-cache': IMAGES });
    expect(status).toBe(1);
    expect(stderr).toContain('cannot download linux-');
    expect(readdirSync(join(folder, 'cache/gmem-conformance/kernels'))).toEqual([]);
  });
});

describeDebian('build-kernel', () => {
  it('says which sources there are, where there are none as wanted', () => {
    const commands = suite('linux-source-7.2', 'linux-source');
    const absent = { 'apt-cache': 'case "$*" in *pkgnames*) echo linux-source-7.2 ;; *) exit 100 ;; esac' };
    expect(run('build-kernel', ['--source', '6.1'], { ...commands, ...absent }).stderr).toBe(
      'build-kernel: no linux-source-6.1 in trixie-backports; it has: 7.2',
    );
  });
});
