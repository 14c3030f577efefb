/** What the documents show must work, exist, and be what they say it is. */
import { describe, expect, test } from '@jest/globals';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { specificationTarget } from '../adapters/reference/reference.ts';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { fileSeek } from '../docs/examples/file-seek.ts';
import { Toy, toySpecification, toyTarget } from '../docs/examples/toy-target.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, FULL_MACHINE, profileById, PROFILES } from '../model/core/profile.ts';
import { parseProgram, printCommand } from '../model/core/program.ts';
import { Specification, type AnyTransition } from '../model/core/specification.ts';
import { ALL_INVARIANTS } from '../conformance/invariants.ts';

const ROOT = join(__dirname, '..');
const CONFIG = { profile: profileById(DEFAULT_PROFILE), machine: FULL_MACHINE };
const BUDGET = { seed: 1, runs: 1200, maxCommands: 30 };

describe('docs/examples/file-seek.ts', () => {
  const withSeek = [...CATALOGUE, fileSeek as unknown as AnyTransition];
  const specification = new Specification(CONFIG, withSeek);

  test('the rows decide in their order', () => {
    const text = `
      vm.create vm=vm0 dev=kvm type=0
      gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0
      file.seek fd=none offset=0 whence=9
      file.seek fd=file0 offset=0 whence=9
      file.seek fd=file0 offset=0 whence=0`;
    let state = specification.initial;
    const rules = parseProgram(specification, text).program.map((command) => {
      const step = specification.step(state, command);
      state = step.state;
      return step.rule;
    });
    expect(rules.slice(2)).toEqual(['file.seek/bad-descriptor', 'file.seek/unknown-whence', 'file.seek/not-seekable']);
  });

  test('programs reach every row, and tell a target without one', async () => {
    const right = await runCampaign(specification, specificationTarget('with-seek', withSeek), BUDGET);
    expect(right.verdict).toBe('conforms');
    expect(right.coverage.missing(specification).filter(({ command }) => command === 'file.seek')).toEqual([]);
    const guards = fileSeek.guards.filter(({ id }) => id !== 'file.seek/unknown-whence');
    const dropped = [...CATALOGUE, { ...fileSeek, guards } as unknown as AnyTransition];
    const wrong = await runCampaign(specification, specificationTarget('without-row', dropped), BUDGET);
    expect(wrong.failure?.rule).toBe('file.seek/unknown-whence');
    expect(wrong.failure?.program).toHaveLength(3);
  });
});

describe('docs/examples/toy-target.ts', () => {
  const specification = toySpecification(DEFAULT_PROFILE);

  test('conforms, and every rule of its commands is exercised, but for the one that takes a vCPU', async () => {
    const { verdict, coverage, invariants } = await runCampaign(specification, toyTarget(), BUDGET);
    expect(verdict).toBe('conforms');
    expect(coverage.missing(specification).map(({ id }) => id)).toEqual(['vm.create/foreign-ioctl']);
    expect(invariants.filter(({ status }) => status === 'held')).toEqual([]);
  });

  test('diverges where it forgets to look at the sign of the size', async () => {
    class Careless extends Toy {
      override isBadSize(size: bigint): boolean {
        return size === 0n || size % 4096n !== 0n;
      }
    }
    const { failure } = await runCampaign(
      specification,
      toyTarget(() => new Careless()),
      BUDGET,
    );
    expect(failure?.program.map((command) => printCommand(specification, command))).toEqual([
      'vm.create vm=vm0 dev=kvm type=0',
      'gmem.create file=file0 vm=vm0 size=0x8000000000000000 flags=0 reserved=0',
    ]);
    expect(failure).toMatchObject({ rule: 'gmem.create/size-not-positive', observed: 'ok' });
  });
});

const GENERATED = 'docs/rules.md';
const DOCUMENTS = ['.', 'docs', 'docs/adr']
  .flatMap((folder) => readdirSync(join(ROOT, folder)).map((name) => join(folder, name)))
  .filter((path) => path.endsWith('.md') && path !== GENERATED);
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const found = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map(([, first = '']) => first);

describe.each(DOCUMENTS)('%s', (path) => {
  const text = read(path);

  test('links to what exists', () => {
    const links = found(text, /\]\(([^)#:]+)(?:#[^)]*)?\)/g);
    expect(links.filter((link) => !existsSync(join(ROOT, dirname(path), link)))).toEqual([]);
  });

  test('names rules, invariants and mutants that exist', () => {
    const rules = PROFILES.flatMap((profile) => new Specification({ ...CONFIG, profile }, CATALOGUE).rules());
    const known = new Set([
      ...[...rules, ...ALL_INVARIANTS].map(({ id }) => id),
      ...fileSeek.guards.map(({ id }) => id),
      ...MUTANTS.map(({ id }) => id),
    ]);
    const ids = [
      ...found(text, /`([a-z]+\.[a-z]+\/[a-z-]+)`/g),
      ...found(text, /`((?:gmem|memory|poison|attributes|errors)\/[a-z-]+)`/g),
      ...found(text, /mutant:([a-z][a-z0-9:./-]+)/g),
    ];
    expect(ids.filter((id) => !known.has(id))).toEqual([]);
  });

  test('shows source files as they are', () => {
    // A fenced block with the name of a file above it is that file, or a part of it.
    const shown = [...text.matchAll(/`([a-z/-]+\.ts)`[^\n]*\n\n```ts\n([^]*?)```/g)];
    for (const [, file = '', block = ''] of shown) expect(read(file)).toContain(block);
  });
});

test('README.md names every profile, and counts the mutants', () => {
  const named = found(read('README.md'), /^\| `([a-z0-9.-]+)`/gm);
  expect(named).toEqual(PROFILES.map(({ id }) => id));
  expect(read('README.md')).toContain(`${MUTANTS.length} wrong implementations`);
  expect(read('README.md')).toContain(` of ${MUTANTS.length} mutants\n`);
});
