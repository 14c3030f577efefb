/*
 * fuzz COUNT [SEED]: hands COUNT messages to the decoder and executes those that it takes for
 * programs, with calls that return random numbers. To be built with -fsanitize=address,undefined:
 * what is looked for is an access outside of the message, the data area, the results or the reply.
 *
 * One message in eight is a program written by rule, and must be accepted. The others are mutations
 * of messages that were accepted earlier. A run in which nearly all of those are accepted, or
 * nearly all refused, shows nothing and fails.
 */
#include "program.h"

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SMALL_MAX     4096u /* bytes of a message here; larger ones differ in nothing but time */
#define POOL	      256u
#define LONGEST_REPLY (MESSAGE_MAX - sizeof(struct reply))

struct message {
	uint32_t length;
	unsigned char bytes[SMALL_MAX];
};

static uint64_t state;
static struct message pool[POOL], candidate;
static unsigned char data[DATA_MAX];
static unsigned char outputs[LONGEST_REPLY];
static int64_t results[STEPS_MAX];

static uint64_t random_word(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* 0 to bound - 1; 0 where the bound is 0. */
static uint32_t below(uint32_t bound)
{
	return (uint32_t)(((random_word() >> 32) * bound) >> 32);
}

static bool one_in(uint32_t count)
{
	return below(count) == 0;
}

static uint64_t boundary(void)
{
	static const uint64_t values[] = {
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 0x7f, 0x80, 0xff, 0xfff, 0x1000, 0xffff,
		STEPS_MAX, STEPS_MAX + 1, DATA_MAX - 8, DATA_MAX - 1, DATA_MAX, DATA_MAX + 1,
		MESSAGE_MAX, 0x10000000, 0x1fffffff, 0x20000000, 0x7fffffff, 0x80000000,
		0xfffffff8, 0xffffffff, 0x100000000, INT64_MAX, UINT64_MAX - 7, UINT64_MAX,
	};

	return values[below(sizeof(values) / sizeof(*values))] + (one_in(4) ? below(5) - 2ull : 0);
}

static void append(struct message *message, const void *bytes, size_t length)
{
	if (message->length + length > SMALL_MAX)
		abort();
	memcpy(message->bytes + message->length, bytes, length);
	message->length += (uint32_t)length;
}

/* A program by rule */

static void append_range(struct message *message, uint32_t data_bytes, uint32_t longest,
			 uint32_t *sum)
{
	struct range range = { .offset = below(data_bytes + 1) };
	uint32_t room = data_bytes - range.offset;

	range.length = below((room < longest ? room : longest) + 1);
	*sum += range.length;
	append(message, &range, sizeof(range));
}

static uint8_t any_width(void)
{
	return one_in(2) ? 4 : 8;
}

static struct operand any_operand(uint32_t data_bytes, uint32_t step)
{
	struct operand operand = { .kind = (uint8_t)below(4), .value = boundary() };

	if (one_in(2))
		operand.value = random_word();
	if (operand.kind == OPERAND_LOAD && data_bytes >= 8) {
		operand.width = any_width();
		operand.value = below(data_bytes - operand.width + 1u);
	} else if (operand.kind == OPERAND_ADDRESS && data_bytes) {
		operand.value = below(data_bytes);
	} else if (operand.kind == OPERAND_RESULT && step) {
		operand.step = below(step);
	} else {
		operand.kind = OPERAND_VALUE;
	}
	return operand;
}

static struct step any_step(uint32_t data_bytes, uint32_t steps_after)
{
	struct step step = { .kind = (uint8_t)below(4), .operands = 1 };

	if (step.kind == STEP_PUT && data_bytes >= 8) {
		step.width = any_width();
		step.target = below(data_bytes - step.width + 1u);
	} else if (step.kind == STEP_SKIP_EQUAL || step.kind == STEP_SKIP_UNEQUAL) {
		step.target = below(steps_after + 1);
		step.value = boundary();
	} else {
		step.kind = STEP_CALL;
		step.operands = (uint8_t)below(CALL_ARGS + 1);
		step.target = (uint32_t)boundary();
	}
	return step;
}

static void write_program(struct message *message)
{
	static const uint32_t sizes[] = { 0, 7, 8, 64, 4096, DATA_MAX };
	struct request head = {
		.magic = REQUEST_MAGIC,
		.id = (uint32_t)random_word(),
		.version = PROTOCOL_VERSION,
		.flags = (uint16_t)below(2),
		.threads = 1,
		.data_bytes = sizes[below(sizeof(sizes) / sizeof(*sizes))],
		.segments = below(4),
		.outputs = below(4),
		.steps = below(12),
	};
	struct operand operands[12 * CALL_ARGS];
	uint32_t segment_bytes = 0, output_bytes = 0;

	message->length = sizeof(head);
	for (uint32_t i = 0; i < head.segments; i++)
		append_range(message, head.data_bytes, 64, &segment_bytes);
	for (uint32_t i = 0; i < head.outputs; i++)
		append_range(message, head.data_bytes, 4096, &output_bytes);
	for (uint32_t i = 0; i < head.steps; i++) {
		struct step step = any_step(head.data_bytes, head.steps - i - 1);

		append(message, &step, sizeof(step));
		for (uint32_t end = head.operands + step.operands; head.operands < end;
		     head.operands++)
			operands[head.operands] = any_operand(head.data_bytes, i);
	}
	append(message, operands, head.operands * sizeof(*operands));
	for (uint32_t i = 0; i < segment_bytes; i++)
		append(message, &(unsigned char){ (unsigned char)random_word() }, 1);
	head.length = message->length;
	memcpy(message->bytes, &head, sizeof(head));
}

/* Mutations */

static void flip_bit(struct message *message)
{
	message->bytes[below(message->length)] ^= (unsigned char)(1u << below(8));
}

static void set_integer(struct message *message)
{
	uint64_t value = boundary();
	size_t width = 1ull << below(4);
	uint32_t at = below(message->length) & ~((uint32_t)width - 1);

	if (at + width <= message->length)
		memcpy(message->bytes + at, &value, width);
}

/* One of the words of the head that say how much there is. */
static void change_count(struct message *message)
{
	uint32_t at = offsetof(struct request, threads) + 4 * below(6);
	uint32_t value;

	if (message->length < sizeof(struct request))
		return;
	memcpy(&value, message->bytes + at, sizeof(value));
	value = (one_in(4) ? 0 : value) + (one_in(4) ? (uint32_t)boundary() : below(5) - 2);
	memcpy(message->bytes + at, &value, sizeof(value));
}

static void change_length(struct message *message)
{
	if (one_in(2))
		message->length = 1 + below(message->length);
	else
		while (message->length < SMALL_MAX && !one_in(16))
			message->bytes[message->length++] = (unsigned char)random_word();
}

/* A step takes one operand more; all counts agree, so only the step itself can be wrong. */
static void add_operand(struct message *message)
{
	struct request head;
	uint64_t steps, end;

	if (message->length < sizeof(head) || message->length + sizeof(struct operand) > SMALL_MAX)
		return;
	memcpy(&head, message->bytes, sizeof(head));
	steps = sizeof(head) + ((uint64_t)head.segments + head.outputs) * sizeof(struct range);
	end = steps + (uint64_t)head.steps * sizeof(struct step) +
	      (uint64_t)head.operands * sizeof(struct operand);
	if (head.steps == 0 || end > message->length)
		return;
	head.operands++;
	memcpy(message->bytes, &head, sizeof(head));
	message->bytes[steps + below(head.steps) * sizeof(struct step) +
		       offsetof(struct step, operands)]++;
	memmove(message->bytes + end + sizeof(struct operand), message->bytes + end,
		message->length - end);
	memset(message->bytes + end, 0, sizeof(struct operand));
	message->length += sizeof(struct operand);
}

/* What stands in one place also stands in another. */
static void copy_within(struct message *message)
{
	uint32_t length = 1 + below(message->length < 32 ? message->length : 32);
	uint32_t slack = message->length - length + 1;

	memmove(message->bytes + below(slack), message->bytes + below(slack), length);
}

static void splice(struct message *message)
{
	const struct message *other = &pool[below(POOL)];
	uint32_t at = below(message->length < other->length ? message->length : other->length);

	memcpy(message->bytes + at, other->bytes + at, other->length - at);
	message->length = other->length;
}

static void mutate(struct message *message)
{
	static void (*const mutations[])(struct message *) = {
		flip_bit, flip_bit, set_integer, set_integer, change_count, change_length,
		add_operand, copy_within, splice,
	};

	do
		mutations[below(sizeof(mutations) / sizeof(*mutations))](message);
	while (one_in(2));
}

/* The message is tried */

static int64_t stub_call(uint32_t number, const uint64_t args[CALL_ARGS])
{
	uint64_t mixed = number;

	for (int i = 0; i < CALL_ARGS; i++)
		mixed ^= args[i];
	return one_in(4) ? (int64_t)mixed : (int64_t)boundary();
}

static void ignore(const struct program *program, uint32_t step, int64_t result)
{
	(void)program, (void)step, (void)result;
}

static const struct effects stubs = { .call = stub_call, .executed = ignore };

/* What lies behind a length is poisoned: in these large arrays, too, one byte too far shows. */
static void execute(const struct program *program)
{
	uint32_t data_bytes = program->head.data_bytes, steps = program->head.steps;

	__asan_poison_memory_region(data + data_bytes, sizeof(data) - data_bytes);
	__asan_poison_memory_region(results + steps, sizeof(results) - steps * sizeof(*results));
	__asan_poison_memory_region(outputs + program->output_bytes,
				    sizeof(outputs) - program->output_bytes);
	program_execute(program, data, results, &stubs);
	program_collect(program, data, outputs);
	__asan_unpoison_memory_region(data, sizeof(data));
	__asan_unpoison_memory_region(results, sizeof(results));
	__asan_unpoison_memory_region(outputs, sizeof(outputs));
}

static bool try(const struct message *message)
{
	struct program program = { .reason = "" };
	bool accepted;

	__asan_poison_memory_region(message->bytes + message->length, SMALL_MAX - message->length);
	accepted = program_decode(&program, message->bytes, message->length);
	if (accepted)
		execute(&program);
	__asan_unpoison_memory_region(message->bytes, SMALL_MAX);
	if (accepted == (*program.reason != '\0')) {
		fprintf(stderr, "accepted with a reason, or refused without: '%s'\n",
			program.reason);
		abort();
	}
	return accepted;
}

static void copy(struct message *to, const struct message *from)
{
	to->length = from->length;
	memcpy(to->bytes, from->bytes, from->length);
}

static void write_valid(struct message *message)
{
	write_program(message);
	if (!try(message)) {
		fprintf(stderr, "a valid program was refused\n");
		abort();
	}
}

int main(int argc, char **argv)
{
	unsigned long long count = argc > 1 ? strtoull(argv[1], NULL, 0) : 0;
	unsigned long long seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
	unsigned long long written = 0, accepted = 0, refused = 0;

	if (count == 0 || argc > 3) {
		fprintf(stderr, "usage: fuzz COUNT [SEED]\n");
		return 2;
	}
	printf("seed %llu\n", seed);
	fflush(stdout);
	state = seed * 0x9e3779b97f4a7c15u | 1; /* xorshift stays at zero */
	for (int i = 0; i < 16; i++)
		random_word();
	for (uint32_t i = 0; i < POOL; i++)
		write_valid(&pool[i]);

	for (unsigned long long i = 0; i < count; i++) {
		struct message *slot = &pool[below(POOL)];

		if (one_in(8)) {
			write_valid(slot);
			written++;
			continue;
		}
		copy(&candidate, slot);
		mutate(&candidate);
		if (!try(&candidate)) {
			refused++;
			continue;
		}
		accepted++;
		if (one_in(8))
			copy(slot, &candidate);
	}
	printf("%llu messages: %llu written by rule, all accepted; of %llu mutated, %llu accepted "
	       "and %llu refused\n",
	       count, written, accepted + refused, accepted, refused);
	if (accepted * 100 < accepted + refused || refused * 100 < accepted + refused) {
		fprintf(stderr, "less than 1 %% of the mutated were accepted, or refused\n");
		return 1;
	}
	return 0;
}
