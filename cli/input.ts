/** Programs that the caller hands in: as a file, on standard input, or as a replay token. */
import { readFileSync } from 'node:fs';
import { executesItsName } from '../adapters/targets.ts';
import { decodeToken, isToken } from '../conformance/token.ts';
import { headerOf, parseProgram, ProgramError, type Program } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import { shellWord } from '../report/text.ts';
import { fileTrouble, UsageError } from './errors.ts';
import { withSubject, type Subject, type SubjectOptions } from './options.ts';
import { scenarioFile, scenarioNames } from '../scenarios/library.ts';

interface Input extends SubjectOptions {
  /** As messages name it. */
  readonly name: string;
  readonly text: string;
  /** The model that judged the program when it was recorded. */
  readonly modelHash?: string;
}

export interface Loaded extends Subject {
  readonly program: Program;
  /** Where a command stands, as messages name it: `found.gmem:3`. */
  readonly place: (command: number) => string;
  /** What the program says that it shows. */
  readonly title?: string;
  readonly modelHash?: string;
}

/** Options win over what the program says of itself. */
export function withProgram<T>(
  argument: string,
  options: SubjectOptions,
  use: (loaded: Loaded) => Promise<T>,
): Promise<T> {
  const input = readInput(argument);
  if (options.target === undefined) assertHarmless(input);
  const wanted = { ...options, target: options.target ?? input.target, profile: options.profile ?? input.profile };
  return withSubject(wanted, (subject) => use({ ...subject, ...parse(subject.specification, input) }));
}

/** Reading a program that a stranger wrote must execute nothing that the caller did not ask for. */
function assertHarmless({ name, target }: Input): void {
  if (target === undefined || !executesItsName(target)) return;
  throw new UsageError(`${name} names a command as its target: if you trust that, say --target ${shellWord(target)}`);
}

function parse(specification: Specification, { name, text, modelHash }: Input): Omit<Loaded, keyof Subject> {
  try {
    const { program, lines, header } = parseProgram(specification, text);
    if (program.length === 0) throw new UsageError(`${name}: there is no command in it`);
    const { title } = header;
    return {
      program,
      place: (command) => `${name}:${lines[command] ?? 0}`,
      ...(title === undefined ? {} : { title }),
      ...(modelHash === undefined ? {} : { modelHash }),
    };
  } catch (error) {
    throw error instanceof ProgramError ? new UsageError(`${name}:${error.line}: ${error.message}`) : error;
  }
}

function readInput(argument: string): Input {
  if (isToken(argument)) return fromToken(argument);
  const name = argument === '-' ? 'standard input' : argument;
  const text = readText(scenarioNames().includes(argument) ? scenarioFile(argument) : argument, name);
  return isToken(text.trim()) ? fromToken(text.trim()) : { name, text, ...subjectIn(text) };
}

function readText(argument: string, name: string): string {
  try {
    return readFileSync(argument === '-' ? 0 : argument, 'utf8');
  } catch (error) {
    throw new UsageError(
      `cannot read '${name}': ${fileTrouble(error)}; give a program file, the name of a scenario, - for standard input, or a token (gmc1.…)`,
    );
  }
}

function subjectIn(text: string): SubjectOptions {
  const { profile, target } = headerOf(text);
  return { profile, target };
}

function fromToken(token: string): Input {
  try {
    const { program, profile, target, modelHash } = decodeToken(token);
    return { name: 'token', text: program, profile, target, modelHash };
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}
