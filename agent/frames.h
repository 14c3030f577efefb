/*
 * In a guest, what stands for hardware that fails: programs ask for a memory failure of a page of a
 * file, and are answered by the process that is the first one there.
 */
#ifndef AGENT_FRAMES_H
#define AGENT_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

/* Two pipes. Whoever writes an ask reads the answer to it. */
#define FRAMES_ASK    "/frames-ask"
#define FRAMES_ANSWER "/frames-answer"

/* The page of the file, by its number, its st_dev and its st_ino. */
struct frames_ask {
	uint64_t page;
	uint64_t dev;
	uint64_t ino;
};

struct frames_answer {
	int64_t result; /* 0: the frame is poisoned now, or there is none; else minus an error number */
	uint64_t frame; /* 0: there is none */
};

/* From now on it is known which frames files have. False where this kernel does not tell. */
bool frames_watch(void);

/* Where asks arrive, for poll(2). */
int frames_arrival(void);

/* Does what the oldest ask says, if there is one, and answers. */
void frames_serve(void);

/* Nobody waits for an answer any more. */
void frames_forget(void);

#endif
