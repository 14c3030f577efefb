/* A program of system calls: taken from a message, checked, and executed. */
#ifndef AGENT_PROGRAM_H
#define AGENT_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include "protocol.h"

/* A view into the message, in which nothing is aligned. */
struct program {
	struct request head;
	const unsigned char *segments;
	const unsigned char *outputs;
	const unsigned char *steps;
	const unsigned char *operands;
	const unsigned char *bytes;
	size_t output_bytes;
	char reason[128]; /* why it was refused */
};

/* What a program does to the world. */
struct effects {
	/* Returns what the kernel returned: a value, or minus the error number. */
	int64_t (*call)(uint32_t number, const uint64_t args[CALL_ARGS]);
	/* A step has been executed. */
	void (*executed)(const struct program *program, uint32_t step, int64_t result);
};

/*
 * Checks the whole of a message, which begins with a struct request if it is long enough. False if
 * it is not a program, and says why; after true, executing it touches nothing outside of its data
 * area and its results, except through system calls.
 */
bool program_decode(struct program *program, const unsigned char *message, size_t length);

/* `data` points to head.data_bytes zeroed bytes, `results` has room for head.steps. */
void program_execute(const struct program *program, unsigned char *data, int64_t *results,
		     const struct effects *effects);

/* Copies output_bytes bytes to `to`. */
void program_collect(const struct program *program, const unsigned char *data, unsigned char *to);

#endif
