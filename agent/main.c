/*
 * Executes programs of system calls that arrive on stdin, or on the port whose path is the one
 * argument, and answers each with its results. What the calls mean is the client's business;
 * descriptors and mappings that a program leaves open stay open. Ends with 0 at the end of input, 1
 * where reading or writing fails, and 2 where the input cannot be told into messages any more.
 */
#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u

#ifndef __x86_64__
#error "the calls are those of x86-64"
#endif

static int input = STDIN_FILENO;
static int output = STDOUT_FILENO;

/* Bytes that have arrived and belong to no finished message. */
static struct {
	unsigned char bytes[MESSAGE_MAX];
	size_t start, end;
} arrived;

static int64_t results[STEPS_MAX];
static unsigned char reply[MESSAGE_MAX];

/* The data area, and a page behind it that nobody can touch. */
static unsigned char *area;

__attribute__((noreturn))
static void fail(int status, const char *what)
{
	fprintf(stderr, "agent: %s\n", what);
	exit(status);
}

/* Waits until `count` bytes have arrived. False at the end of input. */
static bool await(size_t count)
{
	if (arrived.start + count > sizeof(arrived.bytes)) {
		arrived.end -= arrived.start;
		memmove(arrived.bytes, arrived.bytes + arrived.start, arrived.end);
		arrived.start = 0;
	}
	while (arrived.end - arrived.start < count) {
		ssize_t got = read(input, arrived.bytes + arrived.end,
				   sizeof(arrived.bytes) - arrived.end);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail(1, strerror(errno));
		if (got == 0)
			return false;
		arrived.end += (size_t)got;
	}
	return true;
}

static uint32_t word(size_t offset)
{
	uint32_t value;

	memcpy(&value, arrived.bytes + arrived.start + offset, sizeof(value));
	return value;
}

/* The next message, or NULL at the end of input. It stays until release(). */
static const unsigned char *receive(size_t *length)
{
	const size_t framing = offsetof(struct request, version);

	if (!await(1))
		return NULL;
	if (!await(sizeof(uint32_t)))
		fail(2, "the input ends inside a message");
	*length = word(offsetof(struct request, length));
	if (*length < framing || *length > MESSAGE_MAX)
		fail(2, "a message has an impossible length");
	if (!await(framing))
		fail(2, "the input ends inside a message");
	if (word(offsetof(struct request, magic)) != REQUEST_MAGIC)
		fail(2, "a message does not begin as a request does");
	if (!await(*length))
		fail(2, "the input ends inside a message");
	return arrived.bytes + arrived.start;
}

static void release(size_t length)
{
	arrived.start += length;
	if (arrived.start == arrived.end)
		arrived.start = arrived.end = 0;
}

/* Sends what stands in `reply` behind its head. */
static void answer(uint32_t id, enum status status, size_t body)
{
	struct reply head = {
		.length = (uint32_t)(sizeof(head) + body),
		.magic = REPLY_MAGIC,
		.id = id,
		.status = status,
	};

	memcpy(reply, &head, sizeof(head));
	for (size_t sent = 0; sent < head.length;) {
		ssize_t put = write(output, reply + sent, head.length - sent);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			fail(1, strerror(errno));
		sent += (size_t)put;
	}
}

/* Not libc's syscall(), which takes the error number out of the result. */
static int64_t system_call(uint32_t number, const uint64_t args[CALL_ARGS])
{
	register uint64_t r10 __asm__("r10") = args[3];
	register uint64_t r8 __asm__("r8") = args[4];
	register uint64_t r9 __asm__("r9") = args[5];
	int64_t result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "0"((uint64_t)number), "D"(args[0]), "S"(args[1]), "d"(args[2]),
			   "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static void report(const struct program *program, uint32_t step, int64_t result)
{
	struct progress progress = { .step = step, .result = result };

	if (!(program->head.flags & FLAG_STREAM))
		return;
	memcpy(reply + sizeof(struct reply), &progress, sizeof(progress));
	answer(program->head.id, STATUS_PROGRESS, sizeof(progress));
}

static const struct effects effects = { .call = system_call, .executed = report };

/*
 * New memory for every program. Whatever the one before did to the area, by calls or through a
 * guest's memory, is gone with the pages: what was written, protections, pinned or poisoned pages.
 * Costs only what was touched. Beyond the pages that the program asked for a call finds nothing
 * (EFAULT).
 */
static bool renew_area(size_t bytes)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	return mmap(area, DATA_MAX + PAGE, PROT_NONE, flags, -1, 0) == area &&
	       mprotect(area, bytes, PROT_READ | PROT_WRITE) == 0;
}

static void refuse(uint32_t id, const char *reason)
{
	memcpy(reply + sizeof(struct reply), reason, strlen(reason));
	answer(id, STATUS_REFUSED, strlen(reason));
}

static void serve(const unsigned char *message, size_t length)
{
	unsigned char *body = reply + sizeof(struct reply);
	uint32_t id = word(offsetof(struct request, id));
	struct program program;
	size_t result_bytes;

	if (!program_decode(&program, message, length)) {
		refuse(id, program.reason);
		return;
	}
	if (!renew_area(program.head.data_bytes)) {
		refuse(id, "no memory for the data area");
		return;
	}
	program_execute(&program, area, results, &effects);
	result_bytes = program.head.steps * sizeof(*results);
	memcpy(body, results, result_bytes);
	program_collect(&program, area, body + result_bytes);
	answer(id, STATUS_DONE, result_bytes + program.output_bytes);
}

/* A program may do anything to this process. It finds little here, and harms nobody else. */
static void prepare(void)
{
	const struct rlimit none = { 0, 0 };
	int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* Where memory runs out, this process is to go. Without /proc the kernel chooses. */
	if (score >= 0 && write(score, "1000", 4) < 0)
		fail(1, "/proc/self/oom_score_adj cannot be written");
	system_call(SYS_close_range, (const uint64_t[CALL_ARGS]){ 3, UINT32_MAX });
	setrlimit(RLIMIT_CORE, &none);
	signal(SIGPIPE, SIG_IGN);
	area = mmap(NULL, DATA_MAX + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		fail(1, "no room for the data area");
}

int main(int argc, char **argv)
{
	const unsigned char *message;
	size_t length;

	if (argc > 2)
		fail(1, "usage: agent [port]");
	prepare();
	if (argc == 2)
		input = output = open(argv[1], O_RDWR | O_CLOEXEC);
	else
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever holds the other end of stdin */
	if (input < 0)
		fail(1, strerror(errno));
	while ((message = receive(&length))) {
		serve(message, length);
		release(length);
	}
	return 0;
}
