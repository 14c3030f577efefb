/** Programs in C come to the same verdict as the same programs by way of an agent, on the kernel of this machine. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkProgram } from '../../conformance/check.ts';
import { Generator } from '../../conformance/generate.ts';
import { SmallFastRandom } from '../../conformance/random.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { parseProgram, type Program } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { scenarioNamesFor, specify } from '../../properties/support.ts';
import { scenarioText } from '../../scenarios/library.ts';
import { printC, type Reproducer } from './c-source.ts';
import { compilerCommand } from './compile.ts';
import { kvmUnavailable, openKvm } from './kvm.ts';
import { NotExecutable } from './lower.ts';
import { reproduce } from './reproducer.ts';
import type { KernelTarget } from './target.ts';

const PROGRAMS = 20;
const FLAGS = ['-Wall', '-Wextra', '-Werror', '-std=gnu11', '-O1'];

const unavailable = kvmUnavailable();
const where = unavailable === undefined ? 'on this kernel' : `on this kernel, skipped: ${unavailable}`;

(unavailable === undefined ? describe : describe.skip)(`a program in C ${where}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'gmem-c-'));
  let target: KernelTarget;
  let specification: Specification;

  beforeAll(async () => {
    target = await openKvm();
    specification = new Specification({ profile: target.profile, machine: target.machine }, CATALOGUE);
  });
  afterAll(async () => {
    rmSync(folder, { recursive: true });
    await target.close();
  });

  function run(text: string): { readonly status: number | null; readonly stdout: string } {
    const [source, executable] = [join(folder, 'program.c'), join(folder, 'program')];
    writeFileSync(source, text);
    const [command, ...args] = compilerCommand();
    const compiled = spawnSync(command, [...args, ...FLAGS, '-o', executable, source]);
    expect(compiled.stderr.toString()).toBe('');
    return spawnSync(executable, { encoding: 'utf8', timeout: 20_000 });
  }

  const print = (reproducer: Omit<Reproducer, 'about'>): string => printC({ ...reproducer, about: ['A program.'] });

  /** What the agent says, as the exit status of the C program and the step that it ends with. */
  async function verdictOf(program: Program, steps: number): Promise<string> {
    const verdict = await checkProgram({ specification, target }, program);
    if (verdict.kind === 'inconclusive') return verdict.reason;
    return verdict.kind === 'diverges' ? `1 at ${verdict.at + 1}: ${verdict.observed}` : `0 at ${steps}`;
  }

  function verdictInC(reproducer: Omit<Reproducer, 'about'>): string {
    const { status, stdout } = run(print(reproducer));
    const lines = stdout.split('\n').filter((line) => /^(not )?ok /.test(line));
    expect(stdout).toMatch(new RegExp(`^KTAP version 1\n1\\.\\.${reproducer.expectations.length}\n`));
    expect(lines).toHaveLength(reproducer.expectations.length);
    const [, at, observed] = lines.map((line) => /^not ok (\d+) - .*?: (.*)$/.exec(line)).find((each) => each) ?? [];
    return at === undefined
      ? `${status ?? 'killed'} at ${lines.length}`
      : `${status ?? 'killed'} at ${at}: ${observed ?? ''}`;
  }

  async function expectSameVerdict(program: Program): Promise<void> {
    const reproducer = reproduce(specification, program);
    if (reproducer.expectations.length === 0) return;
    expect(verdictInC(reproducer)).toBe(await verdictOf(program, reproducer.expectations.length));
  }

  const programs = (): readonly Program[] => {
    const generator = new Generator(specification, { maxCommands: 25, capabilities: new Set() });
    const random = new SmallFastRandom(4, 3, 2, 1);
    return Array.from({ length: PROGRAMS }, () => generator.generate(random).commands);
  };

  it(`comes to the same verdict as the agent, for ${PROGRAMS} programs by chance`, async () => {
    for (const program of programs()) await expectSameVerdict(program);
  });

  it.each(scenarioNamesFor(specify('linux-6.18')))('comes to the same verdict as the agent for %s', async (name) => {
    const { program } = parseProgram(specification, scenarioText(name));
    try {
      await expectSameVerdict(program);
    } catch (error) {
      // The machine that it takes is another one.
      if (!(error instanceof NotExecutable)) throw error;
    }
  });

  const VM = 'vm.create vm=vm0 dev=kvm type=0\nfd.close fd=vm0\nfd.close fd=vm0';

  it('fails at the first step that is not as expected, and leaves out the rest', () => {
    const { expectations, ...rest } = reproduce(specification, parseProgram(specification, VM).program);
    const wrong = expectations.map((each, index) =>
      index === 1 ? { ...each, outcome: { kind: 'signal', signal: 'SIGBUS' } as const } : each,
    );
    expect(run(print({ ...rest, expectations: wrong }))).toMatchObject({
      status: 1,
      stdout: [
        'KTAP version 1',
        '1..3',
        'ok 1 - vm.create vm=vm0 dev=kvm type=0: ok',
        '# expected SIGBUS, by rule fd.close/vm-destroyed',
        '# observed ok',
        'not ok 2 - fd.close fd=vm0: ok',
        'ok 3 - # SKIP an earlier step went otherwise',
        '',
      ].join('\n'),
    });
  });

  it('has shown nothing where the environment made a step fail', () => {
    const { expectations, ...rest } = reproduce(specification, parseProgram(specification, VM).program);
    const others = expectations.map((each, index) =>
      index === 2 ? { ...each, outcome: { kind: 'ok' } as const, mayAlso: ['EINTR', 'EBADF'] as const } : each,
    );
    const { status, stdout } = run(print({ ...rest, expectations: others }));
    expect(status).toBe(4);
    expect(stdout).toContain('ok 3 - fd.close fd=vm0 # SKIP the environment caused: EBADF\n');
  });

  it('is skipped on a machine of another kind', () => {
    const reproducer = reproduce(specification, parseProgram(specification, VM).program);
    const requirements = [{ capability: 'KVM_CAP_NR_MEMSLOTS', mask: -1n, value: 7n }];
    const { status, stdout } = run(print({ ...reproducer, requirements }));
    expect(status).toBe(4);
    expect(stdout).toBe('KTAP version 1\n1..0 # SKIP this is for another machine: KVM_CAP_NR_MEMSLOTS is 0x7ffc\n');
  });
});
