/**
 * A lowered program as one C file that stands alone: it makes the same calls, compares what comes of each command with
 * what is expected, and says so in KTAP. What a maintainer compiles and runs.
 */
import type { Errno, Outcome } from '../../model/core/outcome.ts';
import { printOutcome } from '../../model/core/outcome.ts';
import { DEVICE } from '../../model/core/state.ts';
import type { Layout, Operand, Step } from './calls.ts';
import { guestFunctions } from './c-guest.ts';
import { CORE, declarations, functionsFor, INCLUDES } from './c-library.ts';
import { blockComment, call, fieldLine, identifier, longString, number, quoted, withNames } from './c-text.ts';
import type { LoweredProgram } from './lower.ts';
import type { Block, Variable } from './lowering.ts';
import type { Reading } from './reading.ts';
import { SYS, type SystemCall } from './uapi.ts';

/** One command of the program, and all that it may come to. */
export interface Expectation {
  /** As the model writes it. */
  readonly command: string;
  readonly rule: string;
  readonly outcome: Outcome;
  /** Errors that the environment may cause instead. */
  readonly mayAlso: readonly Errno[];
}

/** What a capability must be, in the bits of the mask, for the expectations to be those of the machine. */
export interface Requirement {
  readonly capability: string;
  readonly mask: bigint;
  readonly value: bigint;
}

export interface Reproducer {
  readonly lowered: LoweredProgram;
  readonly expectations: readonly Expectation[];
  readonly requirements: readonly Requirement[];
  /** Lines for the comment at the top: what the program shows, and by whose rules. */
  readonly about: readonly string[];
}

type Call = Extract<Step, { readonly kind: 'call' }>;

/** How C declares the arguments of a call, and its own name where that is another. */
const PROTOTYPES: Partial<Record<SystemCall, { readonly name?: string; readonly types: readonly ArgumentType[] }>> = {
  openat: { types: ['int', 'pointer', 'int'] },
  read: { types: ['int', 'pointer', 'long'] },
  write: { types: ['int', 'pointer', 'long'] },
  pread64: { name: 'pread', types: ['int', 'pointer', 'long', 'long'] },
  pwrite64: { name: 'pwrite', types: ['int', 'pointer', 'long', 'long'] },
  fallocate: { types: ['int', 'int', 'long', 'long'] },
  ftruncate: { types: ['int', 'long'] },
  mmap: { types: ['pointer', 'unsigned', 'int', 'int', 'int', 'unsigned'] },
  munmap: { types: ['pointer', 'unsigned'] },
  ioctl: { types: ['int', 'unsigned', 'word'] },
};

/** `word`: of the width of a register, which C must be told of constants that it takes without a declaration. */
type ArgumentType = 'int' | 'long' | 'unsigned' | 'pointer' | 'word';

const NAME_OF_CALL = new Map(Object.entries(SYS).map(([name, each]) => [each as number, name as SystemCall]));

/** Variables that structures are built in. */
const VARIABLES: Readonly<Record<string, string>> = {
  'struct kvm_userspace_memory_region': 'region_v1',
  'struct kvm_userspace_memory_region2': 'region',
  'struct kvm_create_guest_memfd': 'memfd',
  'struct kvm_memory_attributes': 'attributes',
  'struct kvm_pre_fault_memory': 'range',
  'struct stat': 'st',
  __u64: 'word',
};
const RESULT = 'ret';

/** Text of main(), and what it takes. */
class Printer {
  readonly #reproducer: Reproducer;
  readonly #lowered: LoweredProgram;
  /** Identifiers, by the step whose result they hold. */
  readonly #names = new Map<number, string>();
  readonly #used = new Set<number>();
  readonly #structs = new Map<string, Layout>();
  /** Fields that are set on the way, by the place of their structure. */
  readonly #puts = new Map<number, Map<string, Operand>>();
  #usesResult = false;

  constructor(reproducer: Reproducer) {
    this.#reproducer = reproducer;
    this.#lowered = reproducer.lowered;
    const taken = new Set([...Object.values(VARIABLES), RESULT]);
    for (const [step, label] of this.#lowered.legend.names) {
      // What is there before the program starts has the names that the model gives it.
      const name = step < this.#firstStep ? label : identifier(label, taken);
      taken.add(name);
      this.#names.set(step, name);
    }
  }

  get #firstStep(): number {
    return this.#lowered.firstSteps[0] ?? this.#lowered.end;
  }

  print(): string {
    const { readings, guest } = this.#lowered;
    const commands = readings.map((reading, index) => this.#command(reading, index)).join('\n\n');
    const touchesHost = /\bhost_(load|store)\(/.test(commands);
    const set = [
      '\tsetvbuf(stdout, NULL, _IOLBF, 0);',
      '\tprintf("KTAP version 1\\n");',
      ...this.#prelude(touchesHost),
    ];
    if (commands.includes('prepare_vcpu(')) set.push('\twrite_tables();');
    set.push(...this.#requirements());
    set.push('\tprintf("1..%d\\n", STEPS);');
    const main = ['int main(void)\n{', ...this.#declarations(), '', ...set, '', commands, '', '\treturn PASS;\n}'];
    const steps = main.join('\n');
    const rest = [...guestFunctions(guest, steps), steps].join('\n\n');
    const body = [`#define STEPS ${readings.length}`, CORE, ...functionsFor(rest), rest].join('\n\n');
    return `${[
      '// SPDX-License-Identifier: Apache-2.0',
      blockComment(this.#reproducer.about),
      INCLUDES,
      declarations(body),
      body,
    ]
      .filter((part) => part !== '')
      .join('\n\n')
      .replace('Apache-2.0\n\n', 'Apache-2.0\n')}\n`;
  }

  /** What the commands make use of: files that are there before the program starts, memory of the process. */
  #prelude(touchesHost: boolean): readonly string[] {
    const { calls } = this.#lowered;
    return calls.steps.slice(0, this.#firstStep).flatMap((step, at) => {
      const name = this.#names.get(at);
      if (step.kind !== 'call' || name === undefined) return [];
      if (!this.#used.has(at) && !(touchesHost && name === 'scratch')) return [];
      const path = this.#lowered.legend.texts.get(addressIn(step.args)) ?? name;
      const [opening, args] = this.#systemCall(step);
      return [call(`${name} = need(${quoted(path)}, sys(${opening}`, args, ')));')];
    });
  }

  #requirements(): readonly string[] {
    const device = [...this.#names].find(([, name]) => name === DEVICE)?.[0];
    if (device === undefined || !this.#used.has(device)) return [];
    return this.#reproducer.requirements.map(({ capability, mask, value }) =>
      call('need_machine', [DEVICE, quoted(capability), capability, number(mask), number(value)]),
    );
  }

  #declarations(): readonly string[] {
    const structs = [...this.#structs.values()].map(
      (layout) => `\t${layout.name} ${VARIABLES[layout.name] ?? ''}${isZeroed(layout) ? zeroOf(layout) : ''};`,
    );
    const held = [...this.#names].filter(
      ([step, name]) => name !== 'scratch' && (step >= this.#firstStep || this.#used.has(step)),
    );
    const names = [...held.map(([, name]) => name), ...(this.#usesResult ? [RESULT] : [])];
    return [...structs, ...(names.length === 0 ? [] : [wrapped('\tlong ', names)])];
  }

  #command(reading: Reading, index: number): string {
    const { firstSteps, end, legend } = this.#lowered;
    const { command } = this.#expectation(index);
    const lines = [longString('step', command)];
    const last = firstSteps[index + 1] ?? end;
    for (let at = firstSteps[index] ?? end; at < last; at++) {
      const block = legend.blocks.find(({ first }) => first === at);
      if (block === undefined) lines.push(...this.#step(at));
      else at += block.count - 1;
      const shown = block?.result ?? at;
      // What has a name is needed later on, too.
      const isNamed = this.#names.has(shown);
      if (block !== undefined && (shown !== reading.step || isNamed)) lines.push(this.#block(block));
      if (shown === reading.step)
        lines.push(this.#expect(this.#outcome(reading, isNamed ? undefined : block, index), index));
    }
    return lines.join('\n');
  }

  #step(at: number): readonly string[] {
    const step = this.#lowered.calls.steps[at] as Step;
    switch (step.kind) {
      case 'call': {
        const filled = step.args.flatMap((arg) => (arg.kind === 'address' ? this.#fill(arg.offset) : []));
        const [opening, args] = this.#systemCall(step);
        return [...filled, call(`${this.#resultName(at)} = sys(${opening}`, args, '));')];
      }
      case 'put': {
        const [variable, field] = this.#fieldAt(step.offset);
        const puts = this.#puts.get(variable.offset) ?? new Map<string, Operand>();
        this.#puts.set(variable.offset, puts.set(field, step.operand));
        return [];
      }
      case 'skip':
        throw new Error('only a named block may skip steps');
    }
  }

  #resultName(at: number): string {
    const name = this.#names.get(at);
    if (name === undefined) this.#usesResult = true;
    return name ?? RESULT;
  }

  #systemCall({ number: code, args }: Call): readonly [string, readonly string[]] {
    const system = NAME_OF_CALL.get(code);
    if (system === undefined) throw new Error(`system call ${code} has no name`);
    const { name = system, types } = PROTOTYPES[system] ?? { types: [] };
    // read(2) takes no offset, and the kernel does not look at one.
    const taken = types.length === 0 ? args : args.slice(0, types.length);
    const printed = taken.map((arg, index) => this.#argument(arg, types[index] ?? 'int'));
    // open(2) is openat(2) from the working folder.
    return system === 'openat' ? ['open', printed.slice(1)] : [name, printed];
  }

  /** The structure that an address means, filled right before the call that it is for. */
  #fill(offset: number): readonly string[] {
    const variable = this.#variableAt(offset);
    if (variable === undefined) return [];
    const { layout, fields } = variable;
    this.#structs.set(layout.name, layout);
    if (isZeroed(layout)) return [];
    const puts = this.#puts.get(variable.offset);
    const lines = Object.entries(layout.fields).flatMap(([field, { names }]) => {
      const put = puts?.get(field);
      const constant = fields[field] ?? 0n;
      if (put !== undefined && !isZero(put)) return [fieldLine(field, this.#operand(put))];
      if (constant === 0n) return [];
      return [fieldLine(field, names === undefined ? number(constant) : withNames(constant, names))];
    });
    const name = VARIABLES[layout.name] ?? '';
    return lines.length === 0
      ? [`\t${name} = (${layout.name}){ 0 };`]
      : [`\t${name} = (${layout.name}){`, ...lines, '\t};'];
  }

  #block({ name, args, result }: Block): string {
    const held = this.#names.get(result);
    const opening = held === undefined ? name : `${held} = ${name}`;
    return call(
      opening,
      args.map((arg) => this.#operand(arg)),
    );
  }

  /** The expression that tells what came of the command. */
  #outcome(reading: Reading, block: Block | undefined, index: number): string {
    if (block !== undefined) return `${block.name}(${block.args.map((arg) => this.#operand(arg)).join(', ')})`;
    const result = this.#resultName(reading.step);
    if (reading.kind !== 'field')
      return reading.kind === 'call' && reading.tells ? `outcome_value(${result}, ${result})` : `outcome(${result})`;
    const output = this.#lowered.calls.outputs[reading.output];
    const [{ layout }, field] = this.#fieldAt(output?.offset ?? 0);
    const word = `${VARIABLES[layout.name] ?? ''}.${field}`;
    if (reading.outOf === undefined) return `outcome_value(${result}, ${word})`;
    const { outcome } = this.#expectation(index);
    const done = `${number(reading.outOf)} - ${word}`;
    return outcome.kind === 'ok' && outcome.value !== undefined
      ? `outcome_progress(${result}, ${done}, ${number(outcome.value)})`
      : `outcome_value(${result}, ${done})`;
  }

  #expect(outcome: string, index: number): string {
    const { outcome: expected, mayAlso, rule } = this.#expectation(index);
    const others = mayAlso.filter((errno) => expected.kind !== 'errno' || expected.errno !== errno);
    const less = outcome.startsWith('outcome_progress(') && others.length > 0 ? ['less'] : [];
    return call('expect', [
      outcome,
      quoted(printOutcome(expected)),
      quoted([...others, ...less].join(' ')),
      quoted(rule),
    ]);
  }

  #expectation(index: number): Expectation {
    const expectation = this.#reproducer.expectations[index];
    if (expectation === undefined) throw new Error(`nothing is expected of command ${index + 1}`);
    return expectation;
  }

  #variableAt(offset: number): Variable | undefined {
    return this.#lowered.legend.variables.find((each) => each.offset === offset);
  }

  #fieldAt(offset: number): readonly [Variable, string] {
    for (const variable of this.#lowered.legend.variables)
      for (const [field, place] of Object.entries(variable.layout.fields))
        if (variable.offset + place.offset === offset) return [variable, field];
    throw new Error(`no field lies at ${offset}`);
  }

  #argument(operand: Operand, type: ArgumentType): string {
    if (operand.kind === 'value' && operand.names === undefined) {
      const { value } = operand;
      if (type === 'pointer') return value === 0n ? 'NULL' : `(void *)${number(value)}`;
      if (type === 'int') return number(BigInt.asIntN(32, value));
      if (type === 'long') return number(BigInt.asIntN(64, value));
      return type === 'word' ? `${number(value)}UL` : number(value);
    }
    const text = this.#operand(operand, type === 'int' ? 32 : 64);
    if (type === 'word' && /^[0-9]/.test(text)) return `${text}UL`;
    if (type !== 'pointer' || operand.kind !== 'result') return text;
    return `(void *)${operand.plus === 0n ? text : `(${text})`}`;
  }

  #operand(operand: Operand, bits = 64): string {
    switch (operand.kind) {
      case 'value': {
        const { value, names } = operand;
        if (typeof names === 'string') return names;
        if (names === undefined) return number(value);
        return value >> 31n === 0n ? withNames(value, names) : number(BigInt.asIntN(bits, value));
      }
      case 'address': {
        const text = this.#lowered.legend.texts.get(operand.offset);
        if (text !== undefined) return quoted(text);
        const variable = this.#variableAt(operand.offset);
        if (variable === undefined) throw new Error(`nothing with a name lies at ${operand.offset}`);
        return `&${VARIABLES[variable.layout.name] ?? ''}`;
      }
      case 'result': {
        this.#used.add(operand.step);
        const name = this.#names.get(operand.step);
        if (name === undefined) throw new Error(`the result of step ${operand.step} has no name`);
        return operand.plus === 0n ? name : `${name} + ${number(operand.plus)}UL`;
      }
      case 'load':
        throw new Error('only a named block may look into memory');
    }
  }
}

/** Buffers that the kernel fills, rather than the program. */
const isZeroed = ({ name }: Layout): boolean => name === '__u64' || name === 'struct stat';
const zeroOf = ({ name }: Layout): string => (name === '__u64' ? ' = 0' : ' = { 0 }');

const isZero = (operand: Operand): boolean => operand.kind === 'value' && operand.value === 0n;

const addressIn = (args: readonly Operand[]): number =>
  args.map((arg) => (arg.kind === 'address' ? arg.offset : -1)).find((offset) => offset >= 0) ?? -1;

/** Names one after another, over as many lines as it takes. */
function wrapped(before: string, names: readonly string[]): string {
  const lines = [before];
  names.forEach((name, index) => {
    const text = `${name}${index < names.length - 1 ? ',' : ';'}`;
    const line = lines[lines.length - 1] ?? '';
    if (line.length + text.length > 90) lines.push(`\t     ${text}`);
    else lines[lines.length - 1] = line === before ? line + text : `${line} ${text}`;
  });
  return lines.join('\n');
}

export const printC = (reproducer: Reproducer): string => new Printer(reproducer).print();
