/** The implementations in examples/ conform, and what they do wrong when they are asked to is found out. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import _ from 'lodash';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ProcessTarget } from '../adapters/process/target.ts';
import { runCampaign } from '../conformance/campaign.ts';
import type { Campaign } from '../conformance/findings.ts';
import { printProgram } from '../model/core/program.ts';
import { FIXED_SEED, specify } from './support.ts';

const COMPILER = 'cc';
const EXAMPLES = join(__dirname, '..', 'examples');
const folder = mkdtempSync(join(tmpdir(), 'gmem-examples-'));
const binary = join(folder, 'gmem');

const runs = (...[command, ...args]: readonly [string, ...string[]]): boolean => spawnSync(command, args).status === 0;

interface Example {
  readonly language: string;
  readonly tool: string;
  readonly hasTool: boolean;
  readonly commandLine: string;
  readonly bug: string;
  /** What the bug breaks, and the shortest program that shows it. */
  readonly breaks: { readonly rule: string; readonly invariant: string };
  readonly witness: readonly string[];
}

const VM_AND_FILE = ['vm.create vm=vm0 dev=kvm type=0', 'gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0'];

const EXAMPLES_BY_LANGUAGE: readonly Example[] = [
  {
    language: 'Python',
    tool: 'python3',
    hasTool: runs('python3', '-c', 'import sys; sys.exit(sys.version_info < (3, 9))'),
    commandLine: `python3 '${join(EXAMPLES, 'python', 'gmem.py')}'`,
    bug: 'stale-binding',
    breaks: { rule: 'slot.set/delete', invariant: 'gmem/bindings-match-slots' },
    witness: [
      ...VM_AND_FILE,
      'slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=0 gmem=file0 offset=0',
      'slot.set vm=vm0 api=v2 slot=0 flags=0 gpa=0 size=0 hva=0 gmem=none offset=0',
    ],
  },
  {
    language: 'C',
    tool: COMPILER,
    hasTool: runs(COMPILER, '--version'),
    commandLine: `'${binary}'`,
    bug: 'vm-reuse',
    breaks: { rule: 'fd.close/still-held', invariant: 'gmem/file-pins-vm' },
    witness: [...VM_AND_FILE, 'fd.close fd=vm0'],
  },
];

beforeAll(() => {
  const flags = ['-std=c11', '-Wall', '-Wextra', '-Werror', '-O2', '-o', binary];
  const { error, status, stderr } = spawnSync(COMPILER, [...flags, join(EXAMPLES, 'c', 'gmem.c')], {
    encoding: 'utf8',
  });
  if (error === undefined && status !== 0) throw new Error(stderr);
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

async function campaign(commandLine: string, programs: number): Promise<Campaign & { readonly witness: string[] }> {
  const target = await ProcessTarget.open(commandLine);
  try {
    const specification = specify(target.profile?.id, target.machine);
    const found = await runCampaign(specification, target, { seed: FIXED_SEED, runs: programs, maxCommands: 40 });
    const witness = printProgram(specification, found.failure?.program ?? [])
      .trim()
      .split('\n');
    return { ...found, witness };
  } finally {
    await target.close();
  }
}

for (const { language, tool, hasTool, commandLine, bug, breaks, witness } of EXAMPLES_BY_LANGUAGE)
  (hasTool ? describe : describe.skip)(`the example in ${language}${hasTool ? '' : ` (skipped: no ${tool})`}`, () => {
    it('conforms', async () => {
      const { verdict, failure, programs } = await campaign(commandLine, 300);
      expect({ verdict, failure, programs }).toEqual({ verdict: 'conforms', failure: undefined, programs: 300 });
    });

    it(`diverges with --bug=${bug}`, async () => {
      const { failure, witness: found } = await campaign(`${commandLine} --bug=${bug}`, 2000);
      expect(_.pick(failure, 'kind', 'rule', 'invariant')).toEqual({ kind: 'diverges', ...breaks });
      expect(found).toEqual(witness);
    });
  });
