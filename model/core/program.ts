/**
 * Programs as text: one command a line, `name arg=value …`, arguments in any order; `#` starts a comment. Comments of
 * the form `# key: value` before the first command are the program's header.
 *
 *     # profile: linux-7.3
 *     vm.create vm=vm0 dev=kvm type=0
 *     gmem.create file=file0 vm=vm0 size=0x4000 flags=1 reserved=0
 */
import type { ArgValue, Domain } from './domain.ts';
import { argumentsOf, type AnyCommand, type AnyTransition, type Specification } from './specification.ts';
import { RESERVED_LABELS, type Label } from './state.ts';

export type Program = readonly AnyCommand[];

const LONGEST_MESSAGE = 500;

/** A program text that cannot be read. `line` counts from 1. */
export class ProgramError extends Error {
  readonly line: number;
  constructor(line: number, message: string) {
    // Programs come from strangers: what is quoted of them must neither steer a terminal nor fill it.
    super(message.replace(/\p{Cc}/gu, '?').slice(0, LONGEST_MESSAGE));
    this.name = 'ProgramError';
    this.line = line;
  }
}

export function printCommand(specification: Specification, command: AnyCommand): string {
  const parts = argumentsOf(specification.transition(command.name)).map(
    ([name, domain]) => `${name}=${domain.print(command.args[name] as ArgValue)}`,
  );
  return [command.name, ...parts].join(' ');
}

export const printProgram = (specification: Specification, program: Program): string =>
  program.map((command) => `${printCommand(specification, command)}\n`).join('');

/** Labels that a command gives to what it creates. */
export function createdLabels(transition: AnyTransition, command: AnyCommand): readonly Label[] {
  return argumentsOf(transition)
    .filter(([, domain]) => domain.kind === 'fresh')
    .map(([name]) => command.args[name] as Label);
}

/** Labels that a command has among its arguments. */
export function labelsOf(transition: AnyTransition, command: AnyCommand): readonly Label[] {
  const labels: Label[] = [];
  renameLabels(transition, command, (label) => {
    labels.push(label);
    return label;
  });
  return labels;
}

/** The same command with every label replaced by what `rename` says. */
export function renameLabels(
  transition: AnyTransition,
  command: AnyCommand,
  rename: (label: Label) => Label,
): AnyCommand {
  const args: Record<string, ArgValue> = {};
  for (const [name, domain] of argumentsOf(transition))
    args[name] = renamed(domain, command.args[name] as ArgValue, rename);
  return { name: command.name, args };
}

function renamed(domain: Domain, value: ArgValue, rename: (label: Label) => Label): ArgValue {
  if (typeof value === 'bigint' || domain.kind === 'choice') return value;
  if (typeof value === 'string') return rename(value);
  return value.base === '' ? value : { base: rename(value.base), offset: value.offset };
}

export interface ParsedProgram {
  readonly program: Program;
  /** The line of each command, from 1 on. */
  readonly lines: readonly number[];
  readonly header: Readonly<Record<string, string>>;
}

export interface HeaderField {
  readonly key: string;
  readonly value: string;
  /** From 1 on. */
  readonly line: number;
}

/** The header of a program text, line by line. */
export function headerFields(text: string): readonly HeaderField[] {
  const fields: HeaderField[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() !== '' && !line.trimStart().startsWith('#')) break;
    const match = /^\s*#\s*([a-z][a-z-]*):\s*(.*?)\s*$/.exec(line);
    if (match !== null) fields.push({ key: match[1] as string, value: match[2] as string, line: index + 1 });
  }
  return fields;
}

/** The same as a record; it may name the profile that the commands must be read with. */
export const headerOf = (text: string): Readonly<Record<string, string>> =>
  Object.fromEntries(headerFields(text).map(({ key, value }) => [key, value]));

/** Throws a ProgramError that names the line and says what to write instead. */
export function parseProgram(specification: Specification, text: string): ParsedProgram {
  const lines = text.split('\n');
  const program: AnyCommand[] = [];
  const numbers: number[] = [];
  const labels = new Map<Label, number>();
  lines.forEach((raw, index) => {
    const line = raw.replace(/#.*$/, '').trim();
    if (line === '') return;
    program.push(parseCommand(specification, line, index + 1, labels));
    numbers.push(index + 1);
  });
  return { program, lines: numbers, header: headerOf(text) };
}

/** Reads one command. `labels`: those that earlier commands gave, with their lines. Throws a ProgramError. */
export function parseCommand(
  specification: Specification,
  text: string,
  line: number,
  labels: Map<Label, number>,
): AnyCommand {
  const [name = '', ...words] = text.split(/\s+/);
  const transition = specification.transitions.get(name);
  if (transition === undefined)
    throw new ProgramError(
      line,
      `profile ${specification.config.profile.id} has no command '${name}'; it has ${[...specification.transitions.keys()].join(', ')}`,
    );
  const given = new Map<string, string>();
  for (const word of words) {
    const equals = word.indexOf('=');
    if (equals <= 0) throw new ProgramError(line, `'${word}' is not an argument: write name=value`);
    const key = word.slice(0, equals);
    if (given.has(key)) throw new ProgramError(line, `argument '${key}' is given twice`);
    given.set(key, word.slice(equals + 1));
  }
  const args: Record<string, ArgValue> = {};
  for (const [key, domain] of argumentsOf(transition)) {
    const value = given.get(key);
    if (value === undefined) throw new ProgramError(line, `${name} needs ${key}=<${domain.describe}>`);
    given.delete(key);
    try {
      args[key] = domain.parse(value);
    } catch (error) {
      throw new ProgramError(line, `argument '${key}': ${(error as Error).message}`);
    }
  }
  const [unknown] = given.keys();
  if (unknown !== undefined)
    throw new ProgramError(
      line,
      `${name} has no argument '${unknown}'; it takes ${Object.keys(transition.args).join(', ')}`,
    );
  const command = { name, args };
  for (const label of createdLabels(transition, command)) registerLabel(label, line, labels);
  return command;
}

function registerLabel(label: Label, line: number, labels: Map<Label, number>): void {
  if (RESERVED_LABELS.has(label)) throw new ProgramError(line, `label '${label}' is taken before the program starts`);
  const earlier = labels.get(label);
  if (earlier !== undefined)
    throw new ProgramError(line, `label '${label}' was created on line ${earlier}: every label is used once`);
  labels.set(label, line);
}
