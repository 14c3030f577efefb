import { createHash } from 'node:crypto';
import { FULL_MACHINE, PROFILES } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { INVARIANTS } from '../model/invariants/index.ts';

let cached: string | undefined;

/** Twelve hex digits that change when a rule, its place, its result or an invariant changes in any profile. */
export function modelHash(): string {
  if (cached !== undefined) return cached;
  const hash = createHash('sha256');
  for (const profile of PROFILES) {
    hash.update(`${profile.id}\n`);
    for (const rule of new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE).rules())
      hash.update(`${rule.id}\t${rule.kind}\t${rule.result}\t${rule.when}\n`);
  }
  for (const { id, sentence } of INVARIANTS) hash.update(`${id}\t${sentence}\n`);
  return (cached = hash.digest('hex').slice(0, 12));
}
