/**
 * The parts of a C reproducer that are the same in each: declarations that older headers lack, and functions that make
 * a call's result an outcome in the words of the model and compare it with what is expected.
 */
import { CAPS, EXIT, KVM, MEMORY_EXIT_FLAG_PRIVATE, SYS, VM_TYPES, type KvmIoctl } from './uapi.ts';
import type { Names } from './calls.ts';
import { ATTRIBUTE_PRIVATE, GMEM_FLAG, KVM_MEM } from '../../model/core/abi.ts';

export const INCLUDES = `#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>`;

/** Constants that headers of Linux 6.1 and older lack. */
const NEWER: Readonly<Record<string, bigint>> = {
  ...newerOf(VM_TYPES, () => true),
  ...newerOf(CAPS, (cap) => cap > 220n),
  KVM_MEM_GUEST_MEMFD: KVM_MEM.GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE: ATTRIBUTE_PRIVATE,
  GUEST_MEMFD_FLAG_MMAP: GMEM_FLAG.MMAP,
  GUEST_MEMFD_FLAG_INIT_SHARED: GMEM_FLAG.INIT_SHARED,
  FALLOC_FL_WRITE_ZEROES: 0x80n,
  KVM_EXIT_MEMORY_FAULT: EXIT.MEMORY_FAULT,
  KVM_MEMORY_EXIT_FLAG_PRIVATE: MEMORY_EXIT_FLAG_PRIVATE,
  SYS_memfd_secret: BigInt(SYS.memfd_secret),
};

function newerOf({ names }: Names, isNewer: (number: bigint) => boolean): Readonly<Record<string, bigint>> {
  return Object.fromEntries(Object.entries(names).filter(([, each]) => isNewer(each)));
}

/** As the kernel declares them; their offsets are those of uapi.ts. */
export const NEWER_STRUCTS: Readonly<Partial<Record<KvmIoctl, string>>> = {
  SET_USER_MEMORY_REGION2: `struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};`,
  CREATE_GUEST_MEMFD: `struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags;
	__u64 reserved[6];
};`,
  SET_MEMORY_ATTRIBUTES: `struct kvm_memory_attributes {
	__u64 address;
	__u64 size;
	__u64 attributes;
	__u64 flags;
};`,
  PRE_FAULT_MEMORY: `struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};`,
};

const DIRECTIONS = ['_IO', '_IOW', '_IOR', '_IOWR'] as const;

/** How the header defines the number of an ioctl. */
function requestMacro(request: KvmIoctl, declaration: string): string {
  const direction = DIRECTIONS[Number(KVM[request] >> 30n)] ?? '_IO';
  const [struct = ''] = declaration.split(' {');
  return `${direction}(KVMIO, 0x${(KVM[request] & 0xffn).toString(16)}, ${struct})`;
}

/** What of the text older headers may not know, declared where they do not. */
export function declarations(text: string): string {
  const uses = (name: string): boolean => new RegExp(`\\b${name}\\b`).test(text);
  const constants = Object.entries(NEWER)
    .filter(([name]) => uses(name))
    .map(([name, value]) => `#ifndef ${name}\n#define ${name} ${value}\n#endif`);
  const structs = Object.entries(NEWER_STRUCTS)
    .filter(([request]) => uses(`KVM_${request}`))
    .map(
      ([request, struct]) =>
        `#ifndef KVM_${request}\n${struct}\n#define KVM_${request} \\\n\t${requestMacro(request as KvmIoctl, struct)}\n#endif`,
    );
  const all = [...constants, ...structs];
  return all.length === 0 ? '' : ['/* What headers older than the kernel lack. */', ...all].join('\n');
}

export const CORE = `enum { PASS = 0, FAIL = 1, SKIP = 4 };	/* As kselftest has them. */

static const char *command;	/* The step that runs, as the specification writes it. */
static int steps_done;

static char seen[96];		/* What came of it, */
static const char *cause = "";	/* and the error in it, where there is one. */

/* The result of a system call, or minus the error number. */
#define sys(call) result_of((long)(call))
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

static void step(const char *text)
{
	command = text;
	cause = "";
	steps_done++;
}

/* The specification says nothing about the steps after one that went otherwise. */
static void stop(int status)
{
	while (steps_done < STEPS)
		printf("ok %d - # SKIP an earlier step went otherwise\\n", ++steps_done);
	exit(status);
}

static int is_among(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (; length && (list = strstr(list, word)); list += length)
		if (list[length] == ' ' || !list[length])
			return 1;
	return 0;
}

/* "others" are errors that the environment may cause: then the step has shown nothing. */
static void expect(const char *outcome, const char *expected, const char *others, const char *rule)
{
	if (!strcmp(outcome, expected)) {
		printf("ok %d - %s: %s\\n", steps_done, command, outcome);
	} else if (is_among(others, cause)) {
		printf("ok %d - %s # SKIP the environment caused: %s\\n", steps_done, command, outcome);
		stop(SKIP);
	} else {
		printf("# expected %s%s%s%s, by rule %s\\n# observed %s\\n", expected, *others ? " (or " : "",
		       others, *others ? ")" : "", rule, outcome);
		printf("not ok %d - %s: %s\\n", steps_done, command, outcome);
		stop(FAIL);
	}
}

static const char *outcome(long result)
{
	if (is_error(result))
		cause = error_name(result);
	snprintf(seen, sizeof(seen), "%s", is_error(result) ? cause : "ok");
	return seen;
}`;

const NEED = `/* For what the steps need and is not in question. */
static long need(const char *what, long result)
{
	if (is_error(result)) {
		printf("1..0 # SKIP %s: %s\\n", what, error_name(result));
		exit(SKIP);
	}
	return result;
}`;

const NEED_MACHINE = `/* What is expected depends on what the machine offers. */
static void need_machine(long kvm, const char *name, int capability, int mask, int value)
{
	int answer = ioctl(kvm, KVM_CHECK_EXTENSION, capability);

	if ((answer & mask) != value) {
		printf("1..0 # SKIP this is for another machine: %s is 0x%x\\n", name, answer);
		exit(SKIP);
	}
}`;

const OUTCOME_VALUE = `static const char *outcome_value(long result, unsigned long value)
{
	outcome(result);
	if (!is_error(result))
		snprintf(seen, sizeof(seen), "ok 0x%lx", value);
	return seen;
}`;

const OUTCOME_PROGRESS = `/* A call that the environment may stop half-way, and that tells how far it came. */
static const char *outcome_progress(long result, unsigned long done, unsigned long expected)
{
	if (!is_error(result) && done && done < expected && done % 4096 == 0)
		cause = "less";
	return outcome_value(result, done);
}`;

const HOST = `/*
 * Host memory is touched by way of a file: where a load or a store would raise a signal,
 * pwrite(2) and pread(2) return EFAULT. msync(2) tells whether anything is mapped there.
 */
static long scratch;

static const char *fault_at(unsigned long address)
{
	if (sys(msync((void *)(address & -4096UL), 4096, MS_ASYNC)) == -ENOMEM)
		return "SIGSEGV";
	return "SIGBUS";
}`;

const HOST_LOAD = `static const char *host_load(unsigned long address)
{
	long result = sys(pwrite(scratch, (void *)address, 8, 0));
	unsigned long word = 0;

	if (result == -EFAULT)
		return fault_at(address);
	if (sys(pread(scratch, &word, 8, 0)) != 8)
		return "cannot copy";
	return outcome_value(result, word);
}`;

const HOST_STORE = `static const char *host_store(unsigned long address, unsigned long word)
{
	long result;

	if (sys(pwrite(scratch, &word, 8, 0)) != 8)
		return "cannot copy";
	result = sys(pread(scratch, (void *)address, 8, 0));
	return result == -EFAULT ? fault_at(address) : outcome(result);
}`;

const MAP_SECRET = `/* Memory of memfd_secret(2), which its mapping alone keeps. */
static long map_secret(unsigned long place, unsigned long length)
{
	long mapping, file = sys(syscall(SYS_memfd_secret, 0));

	if (is_error(file))
		return file;
	mapping = sys(ftruncate((int)file, (long)length));
	if (!is_error(mapping))
		mapping = sys(mmap((void *)place, length, PROT_READ | PROT_WRITE, MAP_SHARED, (int)file, 0));
	close((int)file);
	return mapping;
}`;

/** Ways of the kernel to memory of the process that go through get_user_pages(). */
const READ_BY_PROCESS_VM = `static const char *read_by_process_vm(unsigned long address)
{
	unsigned long word = 0;
	struct iovec here = { &word, 8 }, there = { (void *)address, 8 };
	long result = sys(process_vm_readv(getpid(), &here, 1, &there, 1, 0));

	return outcome_value(result, word);
}`;

const WRITE_BY_PROCESS_VM = `static const char *write_by_process_vm(unsigned long address, unsigned long word)
{
	struct iovec here = { &word, 8 }, there = { (void *)address, 8 };

	return outcome(sys(process_vm_writev(getpid(), &here, 1, &there, 1, 0)));
}`;

const READ_BY_SPLICE = `/* The page goes into a pipe, and the word is read from that. */
static const char *read_by_splice(unsigned long address)
{
	struct iovec there = { (void *)address, 8 };
	unsigned long word = 0;
	long result;
	int ends[2];

	if (pipe(ends))
		return outcome(-errno);
	result = sys(vmsplice(ends[1], &there, 1, 0));
	if (result == 8 && read(ends[0], &word, 8) != 8)
		result = -EIO;
	close(ends[0]);
	close(ends[1]);
	return outcome_value(result, word);
}`;

const READ_BY_MEM = `static const char *read_by_mem(unsigned long address)
{
	int file = open("/proc/self/mem", O_RDWR);
	unsigned long word = 0;
	long result = sys(pread(file, &word, 8, (long)address));

	close(file);
	return outcome_value(result, word);
}`;

const WRITE_BY_MEM = `static const char *write_by_mem(unsigned long address, unsigned long word)
{
	int file = open("/proc/self/mem", O_RDWR);
	long result = sys(pwrite(file, &word, 8, (long)address));

	close(file);
	return outcome(result);
}`;

/** Functions that a program may use, in the order in which they must stand; each with what it uses itself. */
const FUNCTIONS: readonly { readonly name: string; readonly text: string; readonly uses: readonly string[] }[] = [
  { name: 'need', text: NEED, uses: [] },
  { name: 'need_machine', text: NEED_MACHINE, uses: [] },
  { name: 'outcome_value', text: OUTCOME_VALUE, uses: [] },
  { name: 'outcome_progress', text: OUTCOME_PROGRESS, uses: ['outcome_value'] },
  { name: 'fault_at', text: HOST, uses: [] },
  { name: 'host_load', text: HOST_LOAD, uses: ['fault_at', 'outcome_value'] },
  { name: 'host_store', text: HOST_STORE, uses: ['fault_at'] },
  { name: 'map_secret', text: MAP_SECRET, uses: [] },
  { name: 'read_by_process_vm', text: READ_BY_PROCESS_VM, uses: ['outcome_value'] },
  { name: 'write_by_process_vm', text: WRITE_BY_PROCESS_VM, uses: [] },
  { name: 'read_by_splice', text: READ_BY_SPLICE, uses: ['outcome_value'] },
  { name: 'read_by_mem', text: READ_BY_MEM, uses: ['outcome_value'] },
  { name: 'write_by_mem', text: WRITE_BY_MEM, uses: [] },
];

/** The functions whose names stand in the text, and those that they use. */
export function functionsFor(text: string): readonly string[] {
  const wanted = new Set<string>();
  for (const { name, uses } of [...FUNCTIONS].reverse())
    if (wanted.has(name) || text.includes(`${name}(`)) for (const each of [name, ...uses]) wanted.add(each);
  return FUNCTIONS.filter(({ name }) => wanted.has(name)).map((each) => each.text);
}
