import { createHash, type Hash } from 'node:crypto';
import { ALL_CAPABILITIES } from '../adapters/adapter.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { FULL_MACHINE, PROFILES } from '../model/core/profile.ts';
import { Specification, type AnyTransition } from '../model/core/specification.ts';
import { factsOfState } from '../model/facts-of-state.ts';
import { Generator } from './generate.ts';
import { SmallFastRandom } from './random.ts';
import { ALL_INVARIANTS } from './invariants.ts';

/** Programs that the specification is probed with in each profile. */
const PROBES = { programs: 24, maxCommands: 40 } as const;

let cached: string | undefined;

/**
 * Twelve hex digits that tell one specification from another. They cover what is written of every rule in every
 * profile, and what the rules do to a few generated programs: each rule that decides, each outcome, the facts at the end.
 * A change of a condition shows where one of those programs meets it; a change of how programs are drawn shows, too.
 * Of the invariants they cover the sentences.
 */
export function modelHash(): string {
  if (cached !== undefined) return cached;
  const hash = createHash('sha256');
  for (const profile of PROFILES) {
    const specification = new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE);
    hash.update(`${profile.id}\n`);
    for (const { name, mayAlso, mayLeavePrefix } of specification.transitions.values())
      hash.update(`${name}\t${mayAlso.map(conditionOf).join()}\t${mayLeavePrefix === true}\n`);
    for (const rule of specification.rules()) hash.update(`${rule.id}\t${rule.kind}\t${rule.result}\t${rule.when}\n`);
    probe(specification, hash);
  }
  for (const { id, sentence } of ALL_INVARIANTS) hash.update(`${id}\t${sentence}\n`);
  return (cached = hash.digest('hex').slice(0, 12));
}

const conditionOf = (error: AnyTransition['mayAlso'][number]): string =>
  typeof error === 'string' ? error : `${error.errno} ${error.when}`;

/** Function source text differs between builds; what functions do does not. */
function probe(specification: Specification, hash: Hash): void {
  const generator = new Generator(specification, {
    maxCommands: PROBES.maxCommands,
    capabilities: new Set(ALL_CAPABILITIES),
  });
  const random = new SmallFastRandom(1, 2, 3, 1);
  try {
    for (let program = 0; program < PROBES.programs; program++) {
      const { trace } = generator.generate(random);
      for (const { rule, outcome } of trace) hash.update(`${rule}\t${printOutcome(outcome)}\n`);
      hash.update(`${JSON.stringify(factsOfState(trace.at(-1)?.state ?? specification.initial))}\n`);
    }
  } catch (error) {
    // A defect of the specification is reported by whatever meets it in earnest.
    hash.update(String(error));
  }
}
