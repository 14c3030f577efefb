/**
 * The protocol of process targets: what crosses the pipes, one JSON object a line. docs/protocol.md describes it; the JSON
 * Schemas beside it, and the checks of every answer, are made from the definitions here.
 */
import _ from 'lodash';
import { z } from 'zod';
import { CATALOGUE } from '../../model/catalogue.ts';
import { U64_MAX } from '../../model/core/abi.ts';
import type { ArgValue, Domain } from '../../model/core/domain.ts';
import type { Facts as ModelFacts } from '../../model/core/facts.ts';
import type { Errno, Observation as Outcome } from '../../model/core/outcome.ts';
import { PROFILES, type Machine } from '../../model/core/profile.ts';
import { argumentsOf, type AnyCommand, type AnyTransition } from '../../model/core/specification.ts';
import { ALL_CAPABILITIES } from '../adapter.ts';
import { Facts, MAX_ENTRIES, parseFacts, RANGE } from './facts.ts';
import { harmless } from './lines.ts';

export const PROTOCOL = 1;

/** A run has no more: neither what is sent nor what is answered grows without end. */
export const COMMANDS_IN_A_RUN = 100;

/* Numbers and names. */

const WANTED_U64 = 'write a string of decimal digits, or of 0x and hex digits, for a number below 2^64';

/** The only form in which an answer holds a number of 64 bits: JSON numbers are exact up to 2^53. */
const U64 = z
  .string({ error: WANTED_U64 })
  .regex(/^(0|[1-9][0-9]{0,19}|0x[0-9a-fA-F]{1,16})$/, { error: WANTED_U64, abort: true })
  .transform((text) => BigInt(text))
  .refine((value) => value <= U64_MAX, { error: WANTED_U64 })
  .meta({ id: 'u64', description: 'A number from 0 to 2^64 − 1, in decimal, or in hex behind 0x' });

const hex = (value: bigint): string => `0x${value.toString(16)}`;

const u64From = (min: bigint, max: bigint) =>
  U64.refine((value) => value >= min && value <= max, { error: `wanted ${hex(min)} to ${hex(max)}` });

const profileIds = PROFILES.map(({ id }) => id);

/* What the kit says. */

const DIGITS = '([0-9]|0x[1-9a-f][0-9a-f]{0,15})';
const LABEL = '[a-z][a-z0-9_-]{0,31}';

function argumentPattern({ kind, min = 0n }: Domain): RegExp {
  if (kind === 'integer') return new RegExp(`^${min < 0n ? '-?' : ''}${DIGITS}$`);
  if (kind === 'address') return new RegExp(`^(${LABEL}(\\+${DIGITS})?|${DIGITS})$`);
  return new RegExp(`^${LABEL}$`);
}

const argument = (domain: Domain): z.ZodType =>
  (domain.words === undefined ? z.string().regex(argumentPattern(domain)) : z.enum(domain.words)).describe(
    domain.describe,
  );

const command = (transition: AnyTransition): z.ZodType =>
  z
    .object({
      name: z.literal(transition.name),
      args: z.object(Object.fromEntries(argumentsOf(transition).map(([name, domain]) => [name, argument(domain)]))),
    })
    .meta({ id: transition.name, description: transition.summary });

const id = z.int().nonnegative();

const HelloRequest = z
  .object({ type: z.literal('hello'), protocol: z.literal(PROTOCOL) })
  .meta({ id: 'hello', description: 'The first line, once. Answer with hello.' });

const ResetRequest = z
  .object({ type: z.literal('reset'), profile: z.enum(profileIds).describe('Whose rules hold on the machine') })
  .meta({ id: 'reset', description: 'Give up the machine, and begin with a fresh one. No answer.' });

const RunRequest = z
  .object({
    type: z.literal('run'),
    id,
    commands: z.array(z.union(CATALOGUE.map(command))).max(COMMANDS_IN_A_RUN),
    facts: z.literal(false).optional().describe('There where facts are not wanted'),
  })
  .meta({
    id: 'run',
    description: 'Execute the commands in order, on the machine as it is. Answer with observations.',
  });

/** Every line that an implementation reads. */
export const Request = z
  .discriminatedUnion('type', [HelloRequest, ResetRequest, RunRequest])
  .meta({ title: 'What the kit writes, one object a line' });

export const encodeHello = (): string => line({ type: 'hello', protocol: PROTOCOL });
export const encodeReset = (profile: string): string => line({ type: 'reset', profile });
export const encodeRun = (run: number, program: readonly AnyCommand[], declinesFacts = false): string =>
  line({ type: 'run', id: run, commands: program.map(encodeCommand), ...(declinesFacts ? { facts: false } : {}) });

const line = (message: z.input<typeof Request>): string => `${JSON.stringify(message)}\n`;

const transitions = new Map(CATALOGUE.map((each) => [each.name, each]));

function encodeCommand({ name, args }: AnyCommand): object {
  const transition = transitions.get(name);
  if (transition === undefined) throw new RangeError(`the protocol has no command '${name}'`);
  const printed = argumentsOf(transition).map(([each, domain]) => [each, domain.print(args[each] as ArgValue)]);
  return { name, args: Object.fromEntries(printed) as object };
}

/* What the implementation answers. */

const MACHINE = {
  vmTypes: U64.refine((types) => types === 1n || types === 3n, { error: 'wanted 0x1 or 0x3' }).describe(
    'Bit n is set where KVM_CREATE_VM accepts type n: 0x1 for DEFAULT alone, 0x3 for SW_PROTECTED as well',
  ),
  memoryAttributes: z.boolean().describe('KVM_SET_MEMORY_ATTRIBUTES exists; without it, the ioctl is unknown'),
  twoDimensionalPaging: z.boolean().describe('There is two-dimensional paging, without which nothing is pre-faulted'),
  addressSpaces: z.int().min(1).max(2).describe('Slot address spaces of a VM without private memory; 2 with SMM'),
  guestPhysicalBits: z.int().min(32).max(52).describe('Guest frames of slots are numbered below 2^(this − 12)'),
  vcpuPhysicalBits: z.int().min(32).max(52).describe('vCPUs name guest physical addresses below 2^this'),
  userTop: u64From(1n << 46n, 1n << 56n).describe('First address past what a process may name (TASK_SIZE_MAX)'),
  maxVcpuIds: u64From(1n, 1n << 32n).describe('vCPU ids are below this (KVM_CAP_MAX_VCPU_ID)'),
  maxVcpus: u64From(1n, 1n << 32n).describe('A VM can have so many vCPUs (KVM_CAP_MAX_VCPUS)'),
  secretMemory: z.boolean().describe('There is memfd_secret(), and it is enabled'),
  processVm: z.boolean().describe('There are process_vm_readv() and process_vm_writev()'),
  memoryBytes: u64From(1n << 30n, 1n << 52n).describe('Programs need less than half of this much memory'),
} satisfies { readonly [Field in keyof Machine]: z.ZodType<Machine[Field]> };

const optional = _.mapValues(MACHINE, (field) => field.exactOptional()) as {
  readonly [Field in keyof Machine]: z.ZodExactOptional<(typeof MACHINE)[Field]>;
};

const MachineAnswer = z.object(optional).meta({
  id: 'machine',
  description: 'What the machine offers, as far as that is not what docs/protocol-reference.md has under "Machine"',
});

/** In words, for people. */
const text = z.string().max(4096).transform(harmless);

const HelloAnswer = z
  .object({
    type: z.literal('hello'),
    protocol: z.literal(PROTOCOL, { error: `wanted ${PROTOCOL}, the version of the protocol that the kit speaks` }),
    name: text.describe('Of the implementation, for reports'),
    version: text.optional().describe('The same'),
    profile: z.enum(profileIds).optional().describe('Whose rules it keeps, where the caller does not say otherwise'),
    commands: z
      .array(z.enum(CATALOGUE.map(({ name }) => name)))
      .optional()
      .describe('Those that it has, each in full; all of them where this is left out'),
    capabilities: z
      .array(z.enum(ALL_CAPABILITIES))
      .default([])
      .describe('What it can do beyond executing commands; nothing where this is left out'),
    missing: z
      .partialRecord(z.enum(ALL_CAPABILITIES), text)
      .default({})
      .describe('Why it lacks a capability, in words, for reports'),
    machine: MachineAnswer.default({}),
  })
  .meta({ id: 'hello', description: 'Who it is and what it has. The answer to hello.' });

const WANTED_ERRNO = 'write the name of an error, such as "EINVAL"';

const errno = z
  .string({ error: WANTED_ERRNO })
  .regex(/^E[A-Z0-9]{1,20}$/, { error: WANTED_ERRNO })
  // Names that no rule has are told as well: they diverge.
  .transform((name) => name as Errno)
  .meta({ id: 'errno', description: 'The name of an error, such as EINVAL' });

const WANTED_SIGNAL = 'write the name of a signal, such as "SIGBUS"';

const kind = <const K extends Outcome['kind']>(name: K) => z.literal(name);

const OutcomeAnswer = z
  .discriminatedUnion('kind', [
    z
      .object({ kind: kind('ok'), value: U64.exactOptional().describe('Where the command tells one, and only there') })
      .describe('The call succeeded.'),
    z.object({ kind: kind('errno'), errno }).describe('The call failed.'),
    z
      .object({ kind: kind('mmio'), gpa: U64.describe('As given by the guest'), write: z.boolean() })
      .describe('KVM_RUN returned with KVM_EXIT_MMIO: the VMM is to emulate the access.'),
    z
      .object({
        kind: kind('memory-fault'),
        errno,
        gpa: U64.describe('Of the exit: the start of the page'),
        private: z.boolean().describe('KVM_MEMORY_EXIT_FLAG_PRIVATE'),
      })
      .describe('KVM_RUN returned −1 with KVM_EXIT_MEMORY_FAULT filled in.'),
    z
      .object({
        kind: kind('signal'),
        signal: z
          .string({ error: WANTED_SIGNAL })
          .regex(/^SIG[A-Z0-9]{2,10}$/, { error: WANTED_SIGNAL })
          .transform((name) => name as 'SIGBUS'),
      })
      .describe('The access of the host raised a signal.'),
    z.object({ kind: kind('oops') }).describe('The kernel touched an address that is not mapped, and ended the task.'),
    z
      .object({ kind: kind('machine-check'), ends: z.enum(['guest', 'machine', 'nobody']) })
      .describe(
        'Poison was consumed: a machine check ended the guest, or, in the kernel, the machine; or it was raised, and nobody has handled it yet.',
      ),
    z
      .object({ kind: kind('sigbus'), to: z.enum(['task', 'vmm']), code: z.enum(['AR', 'AO', 'none']) })
      .describe(
        'SIGBUS because of poison, to a task of the guest or to the VMM: BUS_MCEERR_AR, BUS_MCEERR_AO, or without an address.',
      ),
    z.object({ kind: kind('shutdown') }).describe('Poison was consumed, and the machine shut down.'),
    z
      .object({ kind: kind('ciphertext') })
      .describe('The access was made, and the word tells nothing of what was stored. Its bits are not told.'),
    z
      .object({
        kind: kind('hypercall'),
        gpa: U64.describe('Without the shared bit'),
        pages: U64,
        private: z.boolean().describe('KVM_MAP_GPA_RANGE_ENCRYPTED'),
        attributes: U64.exactOptional().describe('As the guest gave them, where it gave any'),
      })
      .describe('KVM_RUN returned with KVM_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE.'),
    z
      .object({
        kind: kind('status'),
        status: text.describe('TDX_… of the module, TDVMCALL_STATUS_… to the guest, or KVM_EXIT_… to the VMM'),
        gpa: U64.exactOptional().describe('Where an address comes with it'),
      })
      .describe('An answer that is neither a success nor an error number.'),
    z
      .object({
        kind: kind('ranges'),
        ranges: z.array(RANGE).max(MAX_ENTRIES).describe('Guest frames that are recorded as shared, in order'),
        incomplete: z.boolean().describe('The mark that the record is incomplete'),
      })
      .describe('What the host has recorded of the frames that a guest shares.'),
    z
      .object({ kind: kind('crash'), message: text })
      .describe('The implementation broke while it executed the command, and stopped. The last observation. Diverges.'),
    z
      .object({ kind: kind('unsupported'), message: text })
      .describe('It cannot execute this command, and stopped. The last observation. Makes the program inconclusive.'),
  ])
  .meta({ id: 'outcome', description: 'What the command came to' });

const ObservationAnswer = z
  .object({
    outcome: OutcomeAnswer,
    facts: Facts.optional().describe('Left out where they are as behind the command before'),
  })
  .meta({ id: 'observation' });

const ObservationsAnswer = z
  .object({ type: z.literal('observations'), id: id.describe('Of the run'), observations: z.array(ObservationAnswer) })
  .meta({ id: 'observations', description: 'One for each command, in order. The answer to run.' });

/** Every line that an implementation writes. */
export const Answer = z
  .discriminatedUnion('type', [HelloAnswer, ObservationsAnswer])
  .meta({ title: 'What an implementation writes, one object a line' });

/** An answer that is none. The message says what is wrong with it, and where. */
export class Breach extends Error {}

export type Hello = z.output<typeof HelloAnswer>;

/** What came of a command. `facts` are left out where they are as before. */
export interface Answered {
  readonly outcome: Outcome;
  readonly facts?: ModelFacts;
}

/** Throws a Breach. */
export const parseHello = (answer: string): Hello => checked(HelloAnswer, message(answer, 'hello'), '');

/*
 * What a stranger may send by the million is checked one by one, up to the first mistake: a schema would list all of them,
 * in gigabytes.
 */
const Envelope = ObservationsAnswer.extend({ observations: z.array(z.unknown()) });
const Observation = ObservationAnswer.extend({ facts: z.record(z.string(), z.unknown()).optional() });

/** What came of one command. `place` names the value in messages. Throws a Breach. */
export function observation(value: unknown, place: string): Answered {
  const { outcome, facts } = checked(Observation, value, place);
  return {
    outcome,
    ...(facts === undefined
      ? {}
      : { facts: parseFacts(facts, (schema, part, where) => checked(schema, part, `${place}.facts.${where}`)) }),
  };
}

/** What came of `wanted` commands, in the run of this id. Throws a Breach. */
export function parseObservations(answer: string, run: number, wanted: number): readonly Answered[] {
  const { id: answered, observations } = checked(Envelope, message(answer, 'observations'), '');
  if (answered !== run) throw new Breach(`id: wanted ${run}, that of the run, and it is ${answered}`);
  if (observations.length > wanted) throw new Breach(`observations: ${observations.length}, for ${count(wanted)}`);
  const read = observations.map((each, index) => observation(each, `observations[${index}]`));
  const last = read.findIndex(({ outcome: { kind: each } }) => each === 'crash' || each === 'unsupported');
  if (last < 0 && read.length < wanted) throw new Breach(`observations: ${read.length}, for ${count(wanted)}`);
  if (last >= 0 && last < read.length - 1)
    throw new Breach(`observations[${last + 1}]: behind ${read[last]?.outcome.kind ?? ''} there are none`);
  return read;
}

const count = (commands: number): string => (commands === 1 ? '1 command' : `${commands} commands`);

function message(answer: string, wanted: z.output<typeof Answer>['type']): object {
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch (error) {
    throw new Breach(`not JSON: ${(error as Error).message}`);
  }
  if (!_.isPlainObject(value)) throw new Breach('not a JSON object');
  const { type } = value as { readonly type?: unknown };
  if (type !== wanted)
    throw new Breach(`type: wanted "${wanted}", and it is ${type === undefined ? 'not there' : JSON.stringify(type)}`);
  return value as object;
}

function checked<T>(schema: z.ZodType<T>, value: unknown, place: string): T {
  const { data, error } = schema.safeParse(value);
  if (error === undefined) return data;
  const [issue] = error.issues;
  const path = (issue?.path ?? []).map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`));
  const field = [place, ...path].join('').replace(/^\./, '');
  throw new Breach([...(field === '' ? [] : [field]), issue?.message].join(': '));
}
