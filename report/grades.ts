/** How the kit does against implementations that are known to be wrong. */
import _ from 'lodash';
import type { Grade } from '../conformance/grade.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { printCommand } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import type { Colors } from './colors.ts';
import { printTable } from './tables.ts';
import { aligned, plural, type Row } from './text.ts';

export const GRADES_SCHEMA = 'gmem-conformance-mutants/1';

/** What is known of a wrong implementation before it is tried. */
export interface KnownFault {
  readonly id: string;
  readonly origin: string;
  readonly fault: string;
  readonly profile: string;
  /** Why no program can tell it from the real thing, where that is so. */
  readonly equivalent?: string;
}

export interface MutantGrade extends KnownFault {
  readonly killed: boolean;
  readonly programs: number;
  readonly commands: number;
  /** Null where the mutant survived. */
  readonly witnessLength: number | null;
  readonly witness?: readonly string[];
}

export function gradeOf(fault: KnownFault, grade: Grade, specification: Specification): MutantGrade {
  const { id, origin, fault: sentence, profile, equivalent } = fault;
  const { killed, programs, commands, witness } = grade;
  return {
    id,
    origin,
    fault: sentence,
    profile,
    ...(equivalent === undefined ? {} : { equivalent }),
    killed,
    programs,
    commands,
    witnessLength: witness?.program.length ?? null,
    ...(witness === undefined
      ? {}
      : { witness: witness.program.map((command) => printCommand(specification, command)) }),
  };
}

/** A fault that was missed, or one that was called undetectable and then was detected. */
export const isSurprise = ({ killed, equivalent }: MutantGrade): boolean => killed === (equivalent !== undefined);

export interface GradeOptions {
  readonly version: string;
  readonly seed: number;
  readonly runs: number;
}

export const gradesJson = (mutants: readonly MutantGrade[], { version, seed, runs }: GradeOptions): object => ({
  schema: GRADES_SCHEMA,
  version,
  modelHash: modelHash(),
  seed,
  runs,
  mutants,
});

/** One line on the number of mutants killed, then those that survived, with the reason. */
export function printDetectionPower(grades: readonly MutantGrade[], colors: Colors): string {
  const [killed, survivors] = _.partition(grades, 'killed');
  const wronglyEquivalent = killed.filter(({ equivalent }) => equivalent !== undefined);
  const rows = [
    ...survivors.map(({ id, fault, programs, equivalent }): Row => [
      id,
      equivalent === undefined
        ? colors.red(`survived ${plural(programs, 'program')}: ${fault}`)
        : `equivalent: ${equivalent}`,
    ]),
    ...wronglyEquivalent.map(({ id }): Row => [id, colors.red('killed, though it is marked equivalent')]),
  ];
  return [`detection power: killed ${killed.length} of ${grades.length} mutants`, ...aligned(rows)].join('\n');
}

const WIDTHS = { fault: 48 };

export const printFaults = (faults: readonly KnownFault[]): string =>
  printTable(
    ['mutant', 'origin', 'profile', 'fault'],
    faults.map(({ id, origin, profile, fault }) => [id, origin, profile, fault]),
    [undefined, undefined, undefined, WIDTHS.fault],
  );

export const printGrades = (grades: readonly MutantGrade[], colors: Colors): string =>
  printTable(
    ['mutant', 'origin', 'fault', 'killed', 'programs', 'commands', 'witness'],
    grades.map((grade) => {
      const { id, origin, fault, killed, programs, commands, witnessLength, equivalent } = grade;
      const verdict = killed ? 'yes' : equivalent === undefined ? 'no' : 'equivalent';
      const length = witnessLength === null ? '' : `${witnessLength}`;
      return [
        id,
        origin,
        fault,
        isSurprise(grade) ? colors.red(verdict) : verdict,
        `${programs}`,
        `${commands}`,
        length,
      ];
    }),
    [undefined, undefined, WIDTHS.fault],
  );
