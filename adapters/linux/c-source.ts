/**
 * A lowered program as one C file that stands alone: it makes the same calls, compares what comes of each command with
 * what is expected, and says so in KTAP. What a maintainer compiles and runs.
 */
import type { Layout, Operand, Segment, Step } from './calls.ts';
import type { LoweredProgram } from './lower.ts';
import type { Reading } from './reading.ts';
import {
  CREATE_GUEST_MEMFD,
  EXIT,
  KVM,
  MEMORY_ATTRIBUTES,
  PRE_FAULT_MEMORY,
  REGION2,
  RUN,
  SYS,
  type KvmIoctl,
} from './uapi.ts';

/** One command of the program, and all that it may come to, as printed by printOutcome(). */
export interface Expectation {
  readonly command: string;
  readonly rule: string;
  readonly outcomes: readonly string[];
}

export interface Reproducer {
  readonly lowered: LoweredProgram;
  readonly expectations: readonly Expectation[];
  /** Lines for the comment at the top: what the program shows, and by whose rules. */
  readonly about: readonly string[];
}

/** What headers older than the kernel lack. The layouts are those that the calls were made with. */
const NEWER: readonly { readonly request: KvmIoctl; readonly layout: Layout }[] = [
  { request: 'SET_USER_MEMORY_REGION2', layout: REGION2 },
  { request: 'SET_MEMORY_ATTRIBUTES', layout: MEMORY_ATTRIBUTES },
  { request: 'CREATE_GUEST_MEMFD', layout: CREATE_GUEST_MEMFD },
  { request: 'PRE_FAULT_MEMORY', layout: PRE_FAULT_MEMORY },
];

const C_TYPES = { 1: '__u8', 2: '__u16', 4: '__u32', 8: '__u64' } as const;

const hex = (number: bigint): string => (number < 10n ? `${number}` : `0x${number.toString(16)}`);
const comment = (text: string): string => text.replaceAll('*/', '* /');
const quoted = (text: string): string => JSON.stringify(text);

export function printC({ lowered, expectations, about }: Reproducer): string {
  const { calls, firstSteps, end, readings } = lowered;
  const parts = [
    '// SPDX-License-Identifier: Apache-2.0',
    ['/*', ...about.map((line) => ` * ${comment(line)}`.trimEnd()), ' */'].join('\n'),
    PRELUDE,
    ...NEWER.map(newerDeclaration),
    EXIT_DECLARATIONS,
    `static unsigned char data[${Math.max(calls.dataBytes, 1)}] __attribute__((aligned(4096)));`,
    `static long r[${calls.steps.length}];`,
    HELPERS,
    'int main(void)\n{',
    ...calls.segments.map(printSegment),
    `\tprintf("KTAP version 1\\n1..${readings.length}\\n");`,
    ...printSteps(calls.steps, 0, firstSteps[0] ?? 0, calls.segments),
    ...readings.flatMap((reading, index) => {
      const { command, rule, outcomes } = expectations[index] ?? { command: '', rule: '', outcomes: [] };
      return [
        `\n\t/* ${comment(command)} */`,
        ...printSteps(calls.steps, firstSteps[index] ?? 0, firstSteps[index + 1] ?? end, calls.segments),
        `\t${printReading(reading, lowered)}`,
        `\tcheck(${index + 1}, ${quoted(command)}, ${quoted(rule)}, ${quoted(outcomes.join('|'))});`,
      ];
    }),
    `\n\treturn failed;\n}\n`,
  ];
  return parts.join('\n');
}

function newerDeclaration({ request, layout }: (typeof NEWER)[number]): string {
  const fields = Object.entries(layout.fields);
  const used = fields.reduce((bytes, [, place]) => Math.max(bytes, place.offset + place.bytes), 0);
  return [
    `#ifndef KVM_${request}`,
    `#define KVM_${request} ${hex(KVM[request])}`,
    `${layout.name} {`,
    ...fields.map(([name, place]) => `\t${C_TYPES[place.bytes]} ${name};`),
    ...(used < layout.bytes ? [`\t__u8 rest[${layout.bytes - used}];`] : []),
    '};',
    '#endif',
    `_Static_assert(sizeof(${layout.name}) == ${layout.bytes}, "layout");`,
  ].join('\n');
}

function printSegment({ offset, bytes, layout, note }: Segment): string {
  if (layout !== undefined) return printStruct(offset, bytes, layout);
  const text = [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
  return `\tmemcpy(data + ${offset}, "${text}", ${bytes.length});${note === undefined ? '' : ` /* ${comment(note)} */`}`;
}

function printStruct(offset: number, bytes: Uint8Array, layout: Layout): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const read = { 1: 'getUint8', 2: 'getUint16', 4: 'getUint32' } as const;
  const fields = Object.entries(layout.fields).flatMap(([name, place]) => {
    const value =
      place.bytes === 8 ? view.getBigUint64(place.offset, true) : BigInt(view[read[place.bytes]](place.offset, true));
    if (value === 0n) return [];
    const target = name === 'reserved' ? '.reserved = {' : `.${name} = `;
    return [`${target}${hex(value)}${place.bytes === 8 ? 'ULL' : 'U'}${name === 'reserved' ? '}' : ''}`];
  });
  return `\t*(${layout.name} *)(data + ${offset}) = (${layout.name}){ ${fields.length === 0 ? '0' : fields.join(', ')} };`;
}

const NUMBER_TO_CALL = new Map<number, string>(Object.entries(SYS).map(([name, number]) => [number, name]));

function printSteps(steps: readonly Step[], from: number, to: number, segments: readonly Segment[]): string[] {
  const lines: string[] = [];
  const closings = new Map<number, number>();
  let depth = 1;
  for (let at = from; at < to; at++) {
    const step = steps[at] as Step;
    lines.push('\t'.repeat(depth) + printStep(step, at, segments));
    if (step.kind === 'skip') {
      depth++;
      closings.set(at + step.count, (closings.get(at + step.count) ?? 0) + 1);
    }
    for (let closing = closings.get(at) ?? 0; closing > 0; closing--) lines.push(`${'\t'.repeat(--depth)}}`);
  }
  return lines;
}

function printStep(step: Step, at: number, segments: readonly Segment[]): string {
  switch (step.kind) {
    case 'call': {
      const name = NUMBER_TO_CALL.get(step.number);
      const args = [0, 1, 2, 3, 4, 5].map((index) => step.args[index]).filter((arg) => arg !== undefined);
      return `r[${at}] = call(${[name === undefined ? `${step.number}` : `SYS_${name}`, ...args.map(printOperand)].join(', ')});`;
    }
    case 'put': {
      const field = fieldAt(step.offset, segments);
      const operand = printOperand(step.operand);
      return field === undefined
        ? `*(__u${step.bytes * 8} *)(data + ${step.offset}) = ${operand};`
        : `((${field.layout.name} *)(data + ${field.struct}))->${field.name} = ${operand};`;
    }
    case 'skip':
      return `if (${printOperand(step.operand)} ${step.when === 'equal' ? '!=' : '=='} (long)${hex(step.value)}) {`;
  }
}

function fieldAt(
  offset: number,
  segments: readonly Segment[],
): { readonly layout: Layout; readonly struct: number; readonly name: string } | undefined {
  for (const { offset: struct, layout } of segments) {
    if (layout === undefined || offset < struct || offset >= struct + layout.bytes) continue;
    const field = Object.entries(layout.fields).find(([, place]) => struct + place.offset === offset);
    if (field !== undefined) return { layout, struct, name: field[0] };
  }
  return undefined;
}

function printOperand(operand: Operand): string {
  switch (operand.kind) {
    case 'value':
      return operand.symbol ?? (operand.value > 0x7fff_ffffn ? `${hex(operand.value)}ULL` : hex(operand.value));
    case 'address':
      return `(long)(data + ${operand.offset})`;
    case 'result':
      return operand.plus === 0n ? `r[${operand.step}]` : `r[${operand.step}] + ${hex(operand.plus)}ULL`;
    case 'load':
      return `*(__u${operand.bytes * 8} *)(data + ${operand.offset})`;
  }
}

function printReading(reading: Reading, { calls: { outputs } }: LoweredProgram): string {
  const place = (output: number | undefined): string =>
    output === undefined ? 'NULL' : `data + ${outputs[output]?.offset ?? 0}`;
  const result = `r[${reading.step}]`;
  switch (reading.kind) {
    case 'call':
      return reading.tells ? `saw_value(${result}, ${result});` : `saw(${result});`;
    case 'field': {
      const word = `*(__u${(outputs[reading.output]?.length ?? 8) * 8} *)(${place(reading.output)})`;
      return `saw_value(${result}, ${reading.outOf === undefined ? word : `${hex(reading.outOf)}ULL - ${word}`});`;
    }
    case 'guest':
      return `saw_exit(${result}, ${place(reading.exit)}, ${hex(reading.doorbell)}ULL, ${reading.loads ? 1 : 0});`;
    case 'host':
      return `saw_touch(${result}, r[${reading.mapped}], ${place(reading.loaded)});`;
  }
}

const PRELUDE = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
`;

const EXIT_DECLARATIONS = `#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT ${EXIT.MEMORY_FAULT}
#endif
`;

const HELPERS = `static char seen[160];
static int failed;

/* The result of a system call, or minus the error number. */
#define call(...) result_of(syscall(__VA_ARGS__))
static long result_of(long result)
{
	return result == -1 ? -errno : result;
}

static int is_error(long result)
{
	return result < 0 && result >= -4095;
}

static const char *error_name(long result)
{
	const char *name = strerrorname_np((int)-result);

	return name ? name : "an unknown error";
}

static __attribute__((unused)) void saw(long result)
{
	snprintf(seen, sizeof(seen), "%s", is_error(result) ? error_name(result) : "ok");
}

static __attribute__((unused)) void saw_value(long result, unsigned long value)
{
	if (is_error(result))
		saw(result);
	else
		snprintf(seen, sizeof(seen), "ok 0x%lx", value);
}

/* What came of KVM_RUN. A store to the doorbell means that the code came past its access. */
static __attribute__((unused)) void saw_exit(long result, const void *head, __u64 doorbell, int loads)
{
	__u32 reason = *(const __u32 *)((const char *)head + ${RUN.exitReason});
	unsigned long long flags = *(const __u64 *)((const char *)head + ${RUN.faultFlags});
	unsigned long long gpa = *(const __u64 *)((const char *)head + ${RUN.faultGpa});
	unsigned long long mmio = *(const __u64 *)((const char *)head + ${RUN.mmioPhysAddr});

	if (is_error(result) && reason == KVM_EXIT_MEMORY_FAULT)
		snprintf(seen, sizeof(seen), "MEMORY_FAULT %s gpa=0x%llx %s", error_name(result), gpa,
			 flags & 8 ? "private" : "shared");
	else if (is_error(result))
		saw(result);
	else if (reason == KVM_EXIT_MMIO && mmio == doorbell && loads)
		saw_value(0, *(const unsigned long *)((const char *)head + ${RUN.mmioData}));
	else if (reason == KVM_EXIT_MMIO && mmio == doorbell)
		saw(0);
	else if (reason == KVM_EXIT_MMIO)
		snprintf(seen, sizeof(seen), "MMIO %s gpa=0x%llx",
			 *((const char *)head + ${RUN.mmioIsWrite}) ? "write" : "read", mmio);
	else
		snprintf(seen, sizeof(seen), "exit reason %u", reason);
}

/* What came of a copy from or to host memory; mapped is what msync() said of the place. */
static __attribute__((unused)) void saw_touch(long result, long mapped, const void *loaded)
{
	if (result == -EFAULT)
		snprintf(seen, sizeof(seen), "%s", mapped == -ENOMEM ? "SIGSEGV" : "SIGBUS");
	else if (loaded)
		saw_value(result, *(const unsigned long *)loaded);
	else
		saw(result);
}

/* Whether what was seen is among the alternatives, which | separates. */
static int is_allowed(const char *allowed)
{
	size_t length = strlen(seen);

	while (allowed) {
		if (!strncmp(allowed, seen, length) && (allowed[length] == '|' || !allowed[length]))
			return 1;
		allowed = strchr(allowed, '|');
		if (allowed)
			allowed++;
	}
	return 0;
}

static void check(int number, const char *command, const char *rule, const char *allowed)
{
	int passed = is_allowed(allowed);

	printf("%s %d - %s: %s\\n", passed ? "ok" : "not ok", number, command, seen);
	if (!passed) {
		printf("# expected %s, by rule %s\\n", allowed, rule);
		failed = 1;
	}
}
`;
