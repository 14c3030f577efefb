/** What can be tested from here, by the names that the command line takes. */
import type { Target } from './adapter.ts';
import { mutantById, MUTANTS } from './mutants/index.ts';
import { referenceTarget } from './reference/reference.ts';
import { simulatorTarget } from './simulator/index.ts';

export interface TargetEntry {
  readonly name: string;
  readonly summary: string;
}

export const TARGETS: readonly TargetEntry[] = [
  { name: 'simulator', summary: 'a host machine built from mechanisms: frames, page tables, reference counts, locks' },
  { name: 'reference', summary: 'the specification itself' },
  { name: 'mutant:ID', summary: `one of ${MUTANTS.length} implementations that are wrong in a known way` },
];

/** Throws a RangeError that says which names there are. */
export function targetByName(name: string): Target {
  if (name === 'simulator') return simulatorTarget();
  if (name === 'reference') return referenceTarget();
  const id = name.startsWith('mutant:') ? name.slice('mutant:'.length) : undefined;
  const mutant = id === undefined ? undefined : mutantById(id);
  if (mutant !== undefined) return mutant.target;
  throw new RangeError(
    id === undefined
      ? `unknown target '${name}'; known are ${TARGETS.map((each) => each.name).join(', ')}`
      : `unknown mutant '${id}'; \`gmem-conformance mutants --list\` names them`,
  );
}
