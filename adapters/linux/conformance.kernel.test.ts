/** Kernels against the specification: whatever is not known of them fails. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCampaign } from '../../conformance/campaign.ts';
import { parseDivergences } from '../../conformance/divergences.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { printProgram } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { cachedKernels } from './kernels.ts';
import { kvmUnavailable, openKvm } from './kvm.ts';
import { openQemu, qemuUnavailable } from './qemu-target.ts';
import type { KernelTarget } from './target.ts';

const FILE = join(__dirname, '../../divergences/linux.json');
const DIVERGENCES = parseDivergences(readFileSync(FILE, 'utf8'), FILE);
const SEED = 20_261_120;

interface Subject {
  readonly name: string;
  /** Why it cannot be tested here. */
  readonly lacking: string | undefined;
  readonly runs: number;
  readonly open: () => Promise<KernelTarget>;
}

function inQemu(origin: string, fits: (name: string) => boolean, append?: string): Subject {
  const kernel = cachedKernels().findLast(({ name }) => fits(name));
  return {
    name: `${kernel?.name ?? origin} in QEMU${append === undefined ? '' : `, ${append}`}`,
    lacking: qemuUnavailable() ?? (kernel === undefined ? `there is no ${origin}` : undefined),
    runs: 150,
    open: () => openQemu({ kernel: kernel?.image, modules: kernel?.modules, append }),
  };
}

const isBuilt = (name: string): boolean => name.includes('-built-');
const SUBJECTS: readonly Subject[] = [
  { name: '/dev/kvm', lacking: kvmUnavailable(), runs: 400, open: openKvm },
  inQemu('kernel of Debian: scripts/debian-kernel', (name) => !isBuilt(name)),
  inQemu('built kernel: scripts/build-kernel', isBuilt),
  inQemu('built kernel: scripts/build-kernel', isBuilt, 'kvm_amd.npt=0'),
];

for (const { name, lacking, runs, open } of SUBJECTS) {
  const suite = lacking === undefined ? describe : describe.skip;
  suite(lacking === undefined ? name : `${name} (skipped: ${lacking})`, () => {
    let target: KernelTarget | undefined;
    afterEach(async () => target?.close());

    it('conforms, but for what is known', async () => {
      target = await open();
      const specification = new Specification({ profile: target.profile, machine: target.machine }, CATALOGUE);
      const options = {
        seed: SEED,
        runs,
        maxCommands: 40,
        divergences: DIVERGENCES,
        shrinkBudget: 200,
        searchBudget: 0,
      };
      const { verdict, reason, failure, known, commands, programs } = await runCampaign(specification, target, options);
      const wrong = known.filter(({ status }) => status !== 'reproduced' && status !== 'not-applicable');
      const witness = failure && {
        ...failure,
        original: undefined,
        program: printProgram(specification, failure.program),
      };
      process.stdout.write(`${name}: ${target.about}: ${programs} programs, ${commands} commands\n`);
      expect({ verdict, reason, witness, wrong }).toEqual({ verdict: 'conforms', wrong: [] });
    });
  });
}
