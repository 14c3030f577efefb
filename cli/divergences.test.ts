import { describe, expect, it, jest } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { lstatSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { referenceTarget } from '../adapters/reference/reference.ts';
import type { KnownDivergence } from '../conformance/divergences.ts';
import { bundledCommandLine, inFolder, runCommandLine, type Ran } from '../properties/command-line.ts';
import type { Report } from '../report/json.ts';
import { loadDivergences, updateDivergences } from './divergences.ts';

jest.setTimeout(60_000);

const ROOT = join(__dirname, '..');
const CLI = bundledCommandLine();
const schemaOf = (name: string): object => JSON.parse(readFileSync(join(ROOT, 'docs', name), 'utf8')) as object;
const MUTANT = 'mutant:owner-not-compared';

const gmem = (...args: readonly string[]): Promise<Ran> => runCommandLine(CLI, args);
const run = (...args: readonly string[]): Promise<Ran> => gmem('run', '--seed', '1', '--runs', '600', ...args);

describe('--update-divergences', () => {
  it('writes a file with which the next run conforms, and another target does not', async () => {
    await inFolder(async (folder) => {
      const [file, json] = [join(folder, 'known.json'), join(folder, 'report.json')];
      const first = await run('--target', MUTANT, '--divergences', file, '--update-divergences');
      expect(first.status).toBe(1);
      expect(first.stdout).toMatch(/^new:\n {2}slot-set-file-of-another-vm +was not known: explain it$/m);
      expect(first.stdout).toContain(`${file}: added slot-set-file-of-another-vm`);
      expect(readdirSync(folder)).toEqual(['known.json']);
      const written = readFileSync(file, 'utf8');
      const validate = new Ajv2020({ strict: false }).compile(schemaOf('divergences.schema.json'));
      expect(validate(JSON.parse(written))).toBe(true);

      const [entry] = JSON.parse(written) as readonly [KnownDivergence];
      const witness = join(folder, 'witness.gmem');
      writeFileSync(witness, entry.witness.join('\n'));
      const replayed = await gmem('replay', witness, '--target', MUTANT, '--divergences', file);
      expect(replayed.status).toBe(1);
      expect(replayed.stdout).toMatch(/^observed .*\nknown {7}slot-set-file-of-another-vm: /m);

      const [again, other] = await Promise.all([
        run('--target', MUTANT, '--divergences', file, '--update-divergences', '--json', json),
        run('--target', 'reference', '--divergences', file),
      ]);
      expect(again.status).toBe(0);
      expect(again.stdout).toMatch(/^known {7}\d divergences?, met by \d+ programs?$/m);
      expect(again.stdout).toMatch(/^warning {5}nobody has explained slot-set-file-of-another-vm/m);
      expect(again.stdout).toContain(`${file} is as it should be`);
      expect(readFileSync(file, 'utf8')).toBe(written);
      const report = JSON.parse(readFileSync(json, 'utf8')) as Report;
      expect(new Ajv2020().validate(schemaOf('report.schema.json'), report)).toBe(true);
      expect(report.knownDivergences).toContainEqual(
        expect.objectContaining({ id: 'slot-set-file-of-another-vm', status: 'reproduced' }),
      );

      expect(other.status).toBe(1);
      expect(other.stdout).toMatch(/^verdict {5}diverges$/m);
      expect(other.stdout).toMatch(/^stale:\n {2}slot-set-file-of-another-vm +no longer reproduces: remove it/m);
      expect(other.stdout).toContain('checked     600 programs');
    });
  });

  it('needs a file to write', async () => {
    const { status, stdout, stderr } = await run('--update-divergences');
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^error: target 'simulator' belongs to no family with known divergences: name a file/);
  });
});

const WRONG_FILE = '[{ "id": "x" }]';

describe('a file of known divergences', () => {
  it('that cannot be used is refused before anything runs, and the message names entry and remedy', async () => {
    await inFolder(async (folder) => {
      const file = join(folder, 'known.json');
      writeFileSync(file, WRONG_FILE);
      const { status, stdout, stderr } = await run('--divergences', file);
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(
        /^error: .*known\.json: entry 1 \(x\): profiles: list the profiles whose rules are broken/,
      );
    });
  });

  const target = { ...referenceTarget(), family: 'linux' };
  const ENTRY: KnownDivergence = {
    id: 'one',
    rule: 'vm.create/created',
    profiles: ['linux-7.3'],
    observed: 'ENOMEM',
    reason: 'because',
    source: 'here',
    witness: ['vm.create vm=vm0 dev=kvm type=0'],
  };

  it('is that of the family, another one, or none', async () => {
    expect(loadDivergences(target, {})?.entries.map(({ id }) => id)).toContain('gmem-offset-overflow');
    expect(loadDivergences(target, { divergences: false })).toBeUndefined();
    expect(loadDivergences(referenceTarget(), {})).toBeUndefined();
    await inFolder((folder) => {
      const divergences = join(folder, 'known.json');
      expect(() => loadDivergences(target, { divergences })).toThrow(
        /cannot read .*: no such file or directory; name a file .* or none with --no-divergences$/,
      );
      expect(loadDivergences(target, { divergences, updateDivergences: true })?.entries).toEqual([]);
      writeFileSync(divergences, JSON.stringify([ENTRY]));
      expect(loadDivergences(target, { divergences })?.entries).toEqual([ENTRY]);
    });
  });

  it('must be in a folder that can be written to, where it is to be updated', () => {
    const options = { divergences: '/nonexistent/known.json', updateDivergences: true };
    expect(() => loadDivergences(target, options)).toThrow(/cannot write '\/nonexistent.*no such file.*; name another/);
    expect(() => loadDivergences(target, { divergences: false, updateDivergences: true })).toThrow(/give one of them/);
  });

  it('is corrected: what is stale goes, what has changed is written anew, what is new comes', async () => {
    await inFolder((folder) => {
      const [real, link] = [join(folder, 'real.json'), join(folder, 'link.json')];
      writeFileSync(real, '[]');
      symlinkSync(real, link);
      const file = { name: 'link.json', path: link, entries: [] };
      const entry = (id: string): KnownDivergence => ({ ...ENTRY, id });
      const said = updateDivergences(file, [
        { entry: entry('kept'), status: 'reproduced', programs: 3 },
        { entry: entry('elsewhere'), status: 'not-applicable', programs: 0 },
        { entry: entry('gone'), status: 'stale', programs: 0 },
        { entry: entry('other'), status: 'changed', programs: 0, now: { ...entry('other'), observed: 'EIO' } },
        { entry: entry('unseen'), status: 'inconclusive', programs: 0 },
        { entry: entry('fresh'), status: 'new', programs: 1 },
      ]);
      expect(said).toBe('link.json: removed gone, corrected other, added fresh');
      const { entries } = loadDivergences(target, { divergences: real }) ?? file;
      expect(entries.map(({ id, observed }) => `${id} ${observed}`)).toEqual([
        'kept ENOMEM',
        'elsewhere ENOMEM',
        'other EIO',
        'unseen ENOMEM',
        'fresh ENOMEM',
      ]);
      expect(lstatSync(link).isSymbolicLink()).toBe(true);
      expect(readdirSync(folder).sort()).toEqual(['link.json', 'real.json']);
    });
  });
});
