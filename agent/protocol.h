/*
 * What crosses the wire between the agent and its client. This is the only description of it;
 * adapters/linux/wire.ts follows it, and so must any other client.
 *
 * All numbers are little-endian, nothing is padded, and a field that has no meaning in its place is
 * zero. `length` counts the bytes of the whole message, itself included.
 *
 * A request:
 *	struct request
 *	struct range		segments[]: where the data area is filled before the program starts
 *	struct range		outputs[]: what is returned of the data area when it has ended
 *	struct step		steps[]
 *	struct operand		operands[]: those of the first step, then those of the second, ...
 *	bytes			of the first segment, then of the second, ...
 *
 * A reply:
 *	struct reply
 *	DONE:			int64_t results[], one for each step; then the bytes of the outputs
 *	REFUSED:		text that says why; nothing was executed
 *	PROGRESS:		struct progress; more replies to the same request follow
 *
 * Requests may be sent before earlier ones are answered. Replies come in the order of the requests.
 */
#ifndef AGENT_PROTOCOL_H
#define AGENT_PROTOCOL_H

#include <stdint.h>

#define REQUEST_MAGIC	 0x71726d67u /* "gmrq" */
#define REPLY_MAGIC	 0x70726d67u /* "gmrp" */
#define PROTOCOL_VERSION 1

#define MESSAGE_MAX (8u << 20) /* bytes of a request, and of a reply */
#define DATA_MAX    (1u << 20)
#define STEPS_MAX   65536u

/* Request flags */
#define FLAG_STREAM 1u /* a PROGRESS reply after each step that was not skipped */

/*
 * `length`, `magic` and `id` stay where they are in every version, so that any request can at least
 * be refused.
 */
struct request {
	uint32_t length;
	uint32_t magic;
	uint32_t id; /* the client's; in every reply to this request */
	uint16_t version;
	uint16_t flags;
	uint32_t threads; /* 1; more are for steps that run side by side, behind a start barrier */
	uint32_t data_bytes;
	uint32_t segments;
	uint32_t outputs;
	uint32_t steps;
	uint32_t operands;
};

struct range {
	uint32_t offset;
	uint32_t length;
};

enum step_kind {
	STEP_CALL,	 /* `target`: the number of the call; its arguments, at most CALL_ARGS */
	STEP_PUT,	 /* `target`: offset in the data area; `width`; one operand */
	STEP_SKIP_EQUAL, /* `target`: how many; `value`: what the one operand is compared with */
	STEP_SKIP_UNEQUAL,
};

#define CALL_ARGS 6

struct step {
	uint8_t kind;
	uint8_t width; /* 4 or 8 */
	uint8_t operands;
	uint8_t zero;
	uint32_t target;
	uint64_t value;
};

enum operand_kind {
	OPERAND_VALUE,	 /* `value` */
	OPERAND_ADDRESS, /* address of the data area's byte `value` */
	OPERAND_RESULT,	 /* result of the earlier step `step`, plus `value` */
	OPERAND_LOAD,	 /* `width` bytes at offset `value` of the data area, zero-extended */
};

struct operand {
	uint8_t kind;
	uint8_t width; /* 4 or 8 */
	uint16_t zero;
	uint32_t step;
	uint64_t value;
};

enum status {
	STATUS_DONE,
	STATUS_REFUSED,
	STATUS_PROGRESS,
};

struct reply {
	uint32_t length;
	uint32_t magic;
	uint32_t id;
	uint32_t status;
};

struct progress {
	uint32_t step;
	uint32_t zero;
	int64_t result;
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structs are the wire format");
_Static_assert(sizeof(struct request) == 40 && sizeof(struct range) == 8, "no padding");
_Static_assert(sizeof(struct step) == 16 && sizeof(struct operand) == 16, "no padding");
_Static_assert(sizeof(struct reply) == 16 && sizeof(struct progress) == 16, "no padding");

#endif
