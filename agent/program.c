#include "program.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct range range_at(const unsigned char *ranges, uint32_t index)
{
	struct range range;

	memcpy(&range, ranges + index * sizeof(range), sizeof(range));
	return range;
}

static struct step step_at(const struct program *program, uint32_t index)
{
	struct step step;

	memcpy(&step, program->steps + index * sizeof(step), sizeof(step));
	return step;
}

static struct operand operand_at(const struct program *program, uint32_t index)
{
	struct operand operand;

	memcpy(&operand, program->operands + index * sizeof(operand), sizeof(operand));
	return operand;
}

/* Always false, so that a check can end with `return refuse(...)`. */
__attribute__((format(printf, 2, 3)))
static bool refuse(struct program *program, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(program->reason, sizeof(program->reason), format, args);
	va_end(args);
	return false;
}

static bool in_data(const struct program *program, uint64_t offset, uint64_t length)
{
	return length <= program->head.data_bytes && offset <= program->head.data_bytes - length;
}

static bool is_width(uint8_t width)
{
	return width == 4 || width == 8;
}

static bool head_is_good(struct program *program)
{
	const struct request *head = &program->head;

	if (head->version != PROTOCOL_VERSION)
		return refuse(program, "protocol version %u; this agent speaks %d", head->version,
			      PROTOCOL_VERSION);
	if (head->flags & ~FLAG_STREAM)
		return refuse(program, "unknown flags 0x%x", head->flags & ~FLAG_STREAM);
	if (head->threads != 1)
		return refuse(program, "%u threads; this agent has one", head->threads);
	if (head->data_bytes > DATA_MAX)
		return refuse(program, "%u bytes of data; the limit is %u", head->data_bytes,
			      DATA_MAX);
	if (head->steps > STEPS_MAX)
		return refuse(program, "%u steps; the limit is %u", head->steps, STEPS_MAX);
	return true;
}

/* Adds up the lengths; each range lies in the data area. */
static bool ranges_are_good(struct program *program, const char *what, const unsigned char *ranges,
			    uint32_t count, uint64_t *sum)
{
	*sum = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct range range = range_at(ranges, i);

		if (!in_data(program, range.offset, range.length))
			return refuse(program, "%s %u: %u bytes at offset %u of %u bytes of data",
				      what, i, range.length, range.offset,
				      program->head.data_bytes);
		*sum += range.length;
	}
	return true;
}

static bool operand_is_good(struct program *program, const struct operand *operand, uint32_t step)
{
	bool refers = operand->kind == OPERAND_RESULT;
	bool loads = operand->kind == OPERAND_LOAD;

	if (operand->zero || (operand->step && !refers) || (operand->width && !loads))
		return refuse(program, "step %u: an operand has a field that should be zero", step);
	switch (operand->kind) {
	case OPERAND_VALUE:
		return true;
	case OPERAND_ADDRESS:
		if (!in_data(program, operand->value, 1))
			return refuse(program, "step %u: address outside of the data area", step);
		return true;
	case OPERAND_RESULT:
		if (operand->step >= step)
			return refuse(program, "step %u: result of step %u, which is not earlier",
				      step, operand->step);
		return true;
	case OPERAND_LOAD:
		if (!is_width(operand->width) || !in_data(program, operand->value, operand->width))
			return refuse(program, "step %u: no load of %u bytes there", step,
				      operand->width);
		return true;
	default:
		return refuse(program, "step %u: unknown kind of operand %u", step, operand->kind);
	}
}

static bool step_is_good(struct program *program, const struct step *step, uint32_t index)
{
	bool skips = step->kind == STEP_SKIP_EQUAL || step->kind == STEP_SKIP_UNEQUAL;

	if (step->zero || (step->value && !skips) || (step->width && step->kind != STEP_PUT))
		return refuse(program, "step %u: a field should be zero", index);
	if (step->kind == STEP_CALL ? step->operands > CALL_ARGS : step->operands != 1)
		return refuse(program, "step %u: %u operands", index, step->operands);
	switch (step->kind) {
	case STEP_CALL:
		return true;
	case STEP_PUT:
		if (!is_width(step->width) || !in_data(program, step->target, step->width))
			return refuse(program, "step %u: no put of %u bytes there", index,
				      step->width);
		return true;
	case STEP_SKIP_EQUAL:
	case STEP_SKIP_UNEQUAL:
		if (step->target > program->head.steps - index - 1)
			return refuse(program, "step %u: skips %u steps, past the end", index,
				      step->target);
		return true;
	default:
		return refuse(program, "step %u: unknown kind of step %u", index, step->kind);
	}
}

static bool steps_are_good(struct program *program)
{
	uint32_t next = 0;

	for (uint32_t i = 0; i < program->head.steps; i++) {
		struct step step = step_at(program, i);

		if (!step_is_good(program, &step, i))
			return false;
		if (step.operands > program->head.operands - next)
			return refuse(program, "step %u: operands are missing", i);
		for (uint32_t end = next + step.operands; next < end; next++) {
			struct operand operand = operand_at(program, next);

			if (!operand_is_good(program, &operand, i))
				return false;
		}
	}
	if (next != program->head.operands)
		return refuse(program, "%u operands that belong to no step",
			      program->head.operands - next);
	return true;
}

bool program_decode(struct program *program, const unsigned char *message, size_t length)
{
	struct request *head = &program->head;
	uint64_t tables, bytes, output_bytes;

	if (length < sizeof(*head))
		return refuse(program, "%zu bytes are no request", length);
	memcpy(head, message, sizeof(*head));
	if (!head_is_good(program))
		return false;

	tables = sizeof(*head) + (uint64_t)head->segments * sizeof(struct range) +
		 (uint64_t)head->outputs * sizeof(struct range) +
		 (uint64_t)head->steps * sizeof(struct step) +
		 (uint64_t)head->operands * sizeof(struct operand);
	if (tables > length)
		return refuse(program, "%zu bytes, but the counts make %llu", length,
			      (unsigned long long)tables);
	program->segments = message + sizeof(*head);
	program->outputs = program->segments + head->segments * sizeof(struct range);
	program->steps = program->outputs + head->outputs * sizeof(struct range);
	program->operands = program->steps + head->steps * sizeof(struct step);
	program->bytes = message + tables;

	if (!ranges_are_good(program, "segment", program->segments, head->segments, &bytes) ||
	    !ranges_are_good(program, "output", program->outputs, head->outputs, &output_bytes))
		return false;
	if (bytes != length - tables)
		return refuse(program, "%zu bytes follow the tables, but the segments have %llu",
			      length - (size_t)tables, (unsigned long long)bytes);
	if (output_bytes > MESSAGE_MAX - sizeof(struct reply) - head->steps * sizeof(int64_t))
		return refuse(program, "the reply would be longer than %u bytes", MESSAGE_MAX);
	program->output_bytes = output_bytes;
	return steps_are_good(program);
}

static uint64_t load(const unsigned char *from, uint8_t width)
{
	uint64_t value = 0;

	memcpy(&value, from, width);
	return value;
}

static uint64_t evaluate(const struct program *program, uint32_t index, const unsigned char *data,
			 const int64_t *results)
{
	struct operand operand = operand_at(program, index);

	switch (operand.kind) {
	case OPERAND_ADDRESS:
		return (uintptr_t)data + operand.value;
	case OPERAND_RESULT:
		return (uint64_t)results[operand.step] + operand.value;
	case OPERAND_LOAD:
		return load(data + operand.value, operand.width);
	default:
		return operand.value;
	}
}

static void fill(const struct program *program, unsigned char *data)
{
	const unsigned char *from = program->bytes;

	for (uint32_t i = 0; i < program->head.segments; i++) {
		struct range segment = range_at(program->segments, i);

		memcpy(data + segment.offset, from, segment.length);
		from += segment.length;
	}
}

void program_execute(const struct program *program, unsigned char *data, int64_t *results,
		     const struct effects *effects)
{
	uint32_t skip = 0, next = 0;

	fill(program, data);
	for (uint32_t i = 0; i < program->head.steps; i++) {
		struct step step = step_at(program, i);
		uint64_t args[CALL_ARGS] = { 0 };

		results[i] = 0;
		if (skip) {
			skip--;
			next += step.operands;
			continue;
		}
		for (uint32_t arg = 0; arg < step.operands; arg++)
			args[arg] = evaluate(program, next++, data, results);

		switch (step.kind) {
		case STEP_CALL:
			results[i] = effects->call(step.target, args);
			break;
		case STEP_PUT:
			memcpy(data + step.target, args, step.width);
			break;
		case STEP_SKIP_EQUAL:
			skip = args[0] == step.value ? step.target : 0;
			break;
		case STEP_SKIP_UNEQUAL:
			skip = args[0] != step.value ? step.target : 0;
			break;
		}
		effects->executed(program, i, results[i]);
	}
}

void program_collect(const struct program *program, const unsigned char *data, unsigned char *to)
{
	for (uint32_t i = 0; i < program->head.outputs; i++) {
		struct range output = range_at(program->outputs, i);

		memcpy(to, data + output.offset, output.length);
		to += output.length;
	}
}
