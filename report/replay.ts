/** One program, every step shown. */
import { match } from 'ts-pattern';
import type { CheckedStep } from '../conformance/check.ts';
import { invariantById } from '../conformance/invariants.ts';
import type { Stepwise } from '../conformance/stepwise.ts';
import type { Divergence } from '../conformance/verdict.ts';
import type { Program } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import type { Colors } from './colors.ts';
import { stepReports } from './json.ts';
import { explain } from './terminal.ts';
import { field, plural } from './text.ts';
import { printWitness } from './witness.ts';

export interface Replay extends Stepwise {
  readonly specification: Specification;
  readonly program: Program;
}

export function printReplay({ specification, program, verdict, steps }: Replay, colors: Colors): string {
  const lines = stepReports(specification, program, steps);
  const at = verdict.kind === 'diverges' ? { at: verdict.at } : {};
  return [
    printWitness(lines, { colors, rules: true, ...at }),
    '',
    ...match(verdict)
      .with({ kind: 'conforms' }, () => printConforms(steps, colors))
      .with({ kind: 'diverges' }, (divergence) => printDivergence(divergence, specification, colors))
      .with({ kind: 'inconclusive' }, ({ reason }) => [field('verdict', colors.yellow(`inconclusive: ${reason}`))])
      .exhaustive(),
  ].join('\n');
}

function printConforms(steps: readonly CheckedStep[], colors: Colors): readonly string[] {
  const silent = steps.findIndex(({ expected }) => expected.unmodelled !== undefined);
  const verdict = field('verdict', colors.green('conforms'));
  if (silent < 0) return [verdict, field('checked', plural(steps.length, 'command'))];
  return [
    verdict,
    field('checked', `${plural(silent, 'command')}; from command ${silent + 1} on the specification takes no position`),
  ];
}

const printDivergence = (divergence: Divergence, specification: Specification, colors: Colors): readonly string[] => [
  field('verdict', colors.red(`diverges at command ${divergence.at + 1}`)),
  ...explain(
    specification.rules().find(({ id }) => id === divergence.rule),
    divergence.invariant === undefined ? undefined : invariantById(divergence.invariant),
  ),
  field('expected', divergence.expected),
  field('observed', divergence.observed),
];
