import { describe, expect, it } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { runCampaign } from '../conformance/campaign.ts';
import type { KnownDivergence } from '../conformance/divergences.ts';
import type { KnownResult } from '../conformance/known.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { PLAIN } from './colors.ts';
import { Report, reportOf } from './json.ts';
import { printReport } from './terminal.ts';

const specification = new Specification({ profile: profileById(DEFAULT_PROFILE), machine: FULL_MACHINE }, CATALOGUE);
const target = referenceTarget();

const entry = (id: string, reason: string): KnownDivergence => ({
  id,
  rule: 'vm.create/created',
  profiles: [DEFAULT_PROFILE],
  observed: 'EIO',
  reason,
  source: 'kvm_dev_ioctl_create_vm()',
  witness: ['vm.create vm=vm0 dev=kvm type=0'],
});

async function reportWith(...known: readonly KnownResult[]): Promise<Report> {
  const campaign = await runCampaign(specification, target, { seed: 1, runs: 1, maxCommands: 2 });
  return reportOf({ ...campaign, known }, { specification, target, seed: 1, version: '1.2.3' });
}

describe('known divergences in a report', () => {
  it('are shown with their programs and reasons, and what is wrong with them', async () => {
    const report = await reportWith(
      { entry: entry('held', 'it is broken'), status: 'reproduced', programs: 2 },
      { entry: entry('other', 'unexplained: why'), status: 'changed', programs: 1, note: 'observed x instead of y' },
      { entry: entry('gone', 'it was broken'), status: 'stale', programs: 0, note: 'remove it' },
      { entry: entry('far', 'not here'), status: 'not-applicable', programs: 0, note: 'it is about another kernel' },
    );
    expect(printReport(report, PLAIN)).toContain(
      [
        'known       2 divergences, met by 3 programs',
        '  held   2 programs; it is broken',
        '  other  1 program; unexplained: why',
        'stale:',
        '  gone  remove it',
        'changed:',
        '  other  observed x instead of y',
        'not applicable here:',
        '  far  it is about another kernel',
        'warning     nobody has explained other',
      ].join('\n'),
    );
    expect(Report.parse(report)).toEqual(report);
    const schema = JSON.parse(readFileSync(join(__dirname, '../docs/report.schema.json'), 'utf8')) as object;
    expect(new Ajv2020().validate(schema, report)).toBe(true);
  });

  it('are not spoken of where there are none', async () => {
    const report = await reportWith();
    expect(report.knownDivergences).toEqual([]);
    expect(printReport(report, PLAIN)).not.toMatch(/^known/m);
  });
});
