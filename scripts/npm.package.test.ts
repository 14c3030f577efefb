/** What `npm pack` makes, installed in an empty project, from where it is used in every way that is documented. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const ROOT = join(__dirname, '..');

/** Tools of whoever uses the package; they are no part of it, so the ones that are here will do. */
const TOOLS = ['@jest/globals', '@swc/core', '@swc/jest', '@types/node', 'jest', 'typescript'];

let folder: string;
let packed: readonly string[];

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], cwd = folder, env: NodeJS.ProcessEnv = {}): Ran {
  const { NODE_OPTIONS: _ignored, GMEM_SEED: _seed, ...rest } = process.env;
  return spawnSync(command, args, { cwd, encoding: 'utf8', env: { ...rest, ...env }, maxBuffer: 64 << 20 });
}

function succeed(ran: Ran): string {
  if (ran.status !== 0) throw new Error(`exit status ${String(ran.status)}\n${ran.stdout}\n${ran.stderr}`);
  return ran.stdout;
}

function write(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-package-'));
  const packing = succeed(run('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', folder], ROOT));
  // What `prepack` prints stands before it.
  const [{ filename, files }] = JSON.parse(packing.slice(packing.indexOf('[\n'))) as [
    { filename: string; files: { path: string }[] },
  ];
  packed = files.map(({ path }) => path);
  write({ 'package.json': '{ "private": true }' });
  succeed(run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error', `./${filename}`]));
  for (const tool of TOOLS) {
    const link = join(folder, 'node_modules', tool);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', tool), link);
  }
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the package', () => {
  it('has what it needs, and no tests', () => {
    expect(packed.filter((path) => /test|^node_modules|\.ts$/.test(path) && !path.endsWith('.d.ts'))).toEqual([]);
    expect(packed).toEqual(
      expect.arrayContaining([
        'agent/main.c',
        'divergences/linux.json',
        'docs/report.schema.json',
        'scenarios/zeroed-once.gmem',
        'scripts/build-kernel',
        'README.md',
        'LICENSE',
      ]),
    );
  });
});

describe('the command line', () => {
  const gmem = (...args: readonly string[]): Ran => run('node_modules/.bin/gmem-conformance', args);

  it('runs programs', () => {
    const args = ['--no-install', 'gmem-conformance', 'run', '--runs', '50', '--seed', '1'];
    expect(succeed(run('npx', args))).toMatch(/^verdict +conforms$/m);
  });

  it('lists rules and scenarios, and runs them', () => {
    expect(succeed(gmem('rules'))).toContain('slot.set/beyond-file');
    expect(succeed(gmem('scenario', '--list'))).toMatch(/^zeroed-once /m);
    expect(succeed(gmem('scenario', 'zeroed-once'))).toMatch(/^conforms +zeroed-once /m);
  });

  it('knows what targets are here, and their known divergences', () => {
    expect(succeed(gmem('targets'))).toMatch(/^kvm /m);
  });
});

/** The example of the documents, as somebody else would write it. */
const toy = (): string =>
  readFileSync(join(ROOT, 'docs/examples/toy-target.ts'), 'utf8').replace(/'\.\.\/\.\.\/[^']*'/g, "'gmem-conformance'");

const CONSUMER = `
import { runCampaign, reportOf, printReport, simulatorTarget, specificationFor, PLAIN, VERSION } from 'gmem-conformance';
import { DEVICE, FULL_MACHINE, type Facts, type Observed, type Target } from 'gmem-conformance/adapter';
import { judge, type ProgramVerdict } from 'gmem-conformance/conformance';
import { parseProgram, type Command, type Step } from 'gmem-conformance/model';

export const facts: Facts = { files: [] };
export const observed: Observed = { outcome: { kind: 'errno', errno: 'EINVAL' }, facts };
export const mine: Target = { name: DEVICE, capabilities: new Set(['facts']), machine: FULL_MACHINE, execute: () => [observed] };
export const command: Command = { name: 'fd.close', args: { fd: 'none' } };
// @ts-expect-error: the arguments of a command are typed
export const wrong: Command = { name: 'fd.close', args: { fd: 1 } };
export const rule = (step: Step): string => step.rule;

export async function main(): Promise<void> {
  const target = simulatorTarget();
  const specification = specificationFor(target);
  const campaign = await runCampaign(specification, target, { seed: 1, runs: 20, maxCommands: 20 });
  console.log(printReport(reportOf(campaign, { specification, target, seed: 1, version: VERSION }), PLAIN));
  const { program } = parseProgram(specification, 'fd.close fd=none');
  const verdict: ProgramVerdict = await judge({ specification, target }, program);
  console.log(verdict.kind);
}
`;

/** Not run: it can be loaded by jest alone. */
const SUITE = `
import type { Target } from 'gmem-conformance/adapter';
import { conformanceSuite } from 'gmem-conformance/jest';

export const suite = (mine: Target): void => conformanceSuite({ target: () => mine });
export const later = (mine: Target): Promise<void> => conformanceSuite({ target: () => Promise.resolve(mine) });
export const declared = (mine: Target): void => conformanceSuite({ target: () => Promise.resolve(mine), declares: mine });
`;

const compilerOptions = { strict: true, exactOptionalPropertyTypes: true, target: 'ES2022', types: ['node'] };

describe('a program in TypeScript', () => {
  const compile = (name: string, options: object, files: Readonly<Record<string, string>>): Ran => {
    const tsconfig = JSON.stringify({ compilerOptions: { ...compilerOptions, ...options } });
    write(Object.fromEntries(Object.entries(files).map(([file, text]) => [`${name}/${file}`, text])));
    write({ [`${name}/tsconfig.json`]: tsconfig });
    return run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', name]);
  };

  it('compiles as ES module and as CommonJS, and runs', () => {
    const files = {
      'consumer.mts': CONSUMER,
      'consumer.cts': CONSUMER,
      'suite.mts': SUITE,
      'suite.cts': SUITE,
      'toy-target.mts': toy(),
    };
    expect(compile('node', { module: 'nodenext' }, files)).toMatchObject({ status: 0, stdout: '' });
    for (const file of ['./node/consumer.mjs', './node/consumer.cjs']) {
      const printed = succeed(run(process.execPath, ['-e', `import('${file}').then(({ main }) => main())`]));
      expect(printed).toMatch(/^verdict +conforms$[^]*^conforms$/m);
    }
  });

  it('compiles for a bundler', () => {
    const options = { module: 'preserve', moduleResolution: 'bundler', noEmit: true, skipLibCheck: true };
    expect(compile('bundler', options, { 'consumer.ts': CONSUMER })).toMatchObject({ status: 0, stdout: '' });
  });
});

interface JestRun {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** What jest makes of a project that holds these files. */
function jest(project: string, files: Readonly<Record<string, string>>, env: NodeJS.ProcessEnv = {}) {
  write(Object.fromEntries(Object.entries(files).map(([name, text]) => [`${project}/${name}`, text])));
  const { stdout, stderr } = run(
    process.execPath,
    [join(folder, 'node_modules/jest/bin/jest.js'), '--json', '--runInBand'],
    join(folder, project),
    { GMEM_SEED: '7', ...env },
  );
  if (!stdout.startsWith('{')) throw new Error(`${stdout}\n${stderr}`);
  const result = JSON.parse(stdout) as JestRun;
  const tests = result.testResults.flatMap(({ assertionResults }) => assertionResults);
  const failures = [
    ...result.testResults.filter(({ assertionResults }) => assertionResults.length === 0).map(({ message }) => message),
    ...tests.flatMap(({ failureMessages }) => failureMessages),
  ];
  const titled = (status: string): readonly string[] =>
    tests.filter((test) => test.status === status).map(({ fullName }) => fullName);
  return { passed: titled('passed'), failed: titled('failed'), skipped: titled('pending'), failures };
}

const swc = JSON.stringify({
  injectGlobals: false,
  testEnvironment: 'node',
  transform: { '\\.ts$': ['@swc/jest', { jsc: { parser: { syntax: 'typescript' } }, module: { type: 'commonjs' } }] },
});

describe('a jest project', () => {
  it('in CommonJS, without any configuration, tests a target that is right', () => {
    const { passed, failures, skipped } = jest('plain', {
      'package.json': '{}',
      'simulator.test.js': `
        const { simulatorTarget } = require('gmem-conformance');
        const { conformanceSuite } = require('gmem-conformance/jest');
        conformanceSuite({ name: 'mine', target: () => simulatorTarget(), runs: 300 });`,
    });
    expect(failures).toEqual([]);
    const programs = 'mine random programs, by the rules of linux-7.3';
    expect(passed).toContainEqual(expect.stringMatching(`^${programs} guest_memfd slot\\.set: \\d+ rules$`));
    expect(passed).toContainEqual(expect.stringMatching(`^${programs} memory/private-is-secret: Two runs`));
    expect(passed).toContainEqual(expect.stringMatching('^mine scenarios zeroed-once: A page'));
    expect(skipped).toContainEqual(
      expect.stringMatching(/^mine scenarios link-same-vm: .* \(skipped: gmem\.link is not among the commands/),
    );
  });

  it('in TypeScript, compiled to CommonJS, shows what is wrong with one that is not', () => {
    const files = {
      'package.json': '{}',
      'jest.config.json': swc,
      'toy-target.ts': toy(),
      'toy.test.ts': `
        import { conformanceSuite } from 'gmem-conformance/jest';
        import { Toy, TOY_COMMANDS, toyTarget } from './toy-target';

        class Careless extends Toy {
          override isBadSize(size: bigint): boolean {
            return size === 0n || size % 4096n !== 0n;
          }
        }
        const unobservable = ['memory/private-is-secret'];
        conformanceSuite({ target: () => toyTarget(), commands: TOY_COMMANDS, runs: 300, unobservable });
        conformanceSuite({ name: 'careless', target: () => toyTarget(() => new Careless()), commands: TOY_COMMANDS, unobservable });`,
    };
    const { passed, failed, skipped, failures } = jest('typescript', files);
    expect(passed).toContain('toy random programs, by the rules of linux-7.3 guest_memfd gmem.create: 7 rules');
    expect(failed).toEqual(['careless random programs, by the rules of linux-7.3 guest_memfd gmem.create: 7 rules']);
    expect(skipped).toContainEqual(
      expect.stringMatching(/gmem\/never-rebinds: .* \(skipped: the toy does not show its inside\)$/),
    );
    expect(skipped).toContainEqual(expect.stringMatching(/ mem\.map \(skipped: it is not among `commands`\)$/));
    const [message = ''] = failures;
    expect(message).toMatch(
      /^diverges at command 2 of 2\n[^]*size=0x8000000000000000 .*<-- here\n[^]*rule +gmem\.create\/size-not-positive\n[^]*\nseed +7; /,
    );
    expect(message).not.toMatch(/^ +at /m);
    const [token = ''] = /gmc1\.\S+/.exec(message) ?? [];
    const replayed = jest('typescript', files, { GMEM_REPLAY: token });
    expect(replayed.passed).toEqual(['toy the program of GMEM_REPLAY']);
    expect(replayed.failed).toEqual(['careless the program of GMEM_REPLAY']);
  });

  it('is told where its options do not fit the target', () => {
    const { failures, passed } = jest('unfit', {
      'package.json': '{}',
      'known.json': JSON.stringify([
        {
          id: 'gone',
          rule: 'fd.close/bad-descriptor',
          profiles: ['linux-7.3'],
          observed: 'ok',
          reason: 'it was so once',
          source: 'nowhere',
          witness: ['fd.close fd=none'],
        },
      ]),
      'unfit.test.js': `
        const { simulatorTarget } = require('gmem-conformance');
        const { conformanceSuite } = require('gmem-conformance/jest');
        const target = () => simulatorTarget();
        const blind = { ...simulatorTarget(), capabilities: new Set() };
        const scenarios = { runs: 1, commands: ['vm.create', 'fd.close'], target };
        conformanceSuite({ ...scenarios, name: 'other', declares: blind });
        conformanceSuite({ ...scenarios, name: 'seen', runs: 300, unobservable: ['gmem/never-rebinds'] });
        conformanceSuite({ ...scenarios, name: 'stale', divergences: 'known.json' });
        conformanceSuite({ ...scenarios, name: 'gone', target: () => ({ ...simulatorTarget(), execute: () => [] }) });`,
    });
    const told = failures.join('\n');
    expect(told).toContain('the target has other capabilities than it was said to have when its tests were registered');
    expect(told).toContain('gmem/never-rebinds can be observed: take it from `unobservable`');
    expect(told).toContain('stale: no longer reproduces: remove it');
    expect(told).toMatch(/inconclusive: .*the target was gone after 0 of \d+ commands\nseed +7; /);
    expect(told).toContain('never evaluated in 300 programs: give the suite more runs');
    expect(passed).toContain('seen random programs, by the rules of linux-7.3 guest_memfd fd.close: 4 rules');
  });

  it('in ES modules awaits a target that takes time to open', () => {
    const { passed, failures } = jest(
      'modules',
      {
        'package.json': '{ "type": "module" }',
        'simulator.test.js': `
          import { simulatorTarget } from 'gmem-conformance';
          import { conformanceSuite } from 'gmem-conformance/jest';
          await conformanceSuite({ target: async () => simulatorTarget(), runs: 300, profile: 'linux-6.18' });`,
      },
      { NODE_OPTIONS: '--experimental-vm-modules' },
    );
    expect(failures).toEqual([]);
    expect(passed).toContainEqual(expect.stringMatching(/by the rules of linux-6\.18 guest_memfd vm\.create/));
  });
});
