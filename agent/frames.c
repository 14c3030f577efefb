/*
 * The kernel tells nobody in which frame an unmapped page of a file is, except by the trace points
 * at which the page cache gains and loses it. The failure itself is that of hwpoison-inject.
 */
#define _GNU_SOURCE
#include "frames.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TRACING	   "/sys/kernel/tracing"
#define EVENTS	   TRACING "/events/filemap/mm_filemap_"
#define FAIL_FRAME "/sys/kernel/debug/hwpoison/corrupt-pfn"
#define FRAME_FLAGS "/proc/kpageflags"

/* Of 4 KiB each; a guest has no more. */
#define FRAMES_MAX (1u << 20)

/* Source: include/uapi/linux/kernel-page-flags.h */
#define KPF_HWPOISON 19

/* The page that each frame holds; those without an inode hold none of a file. */
static struct frames_ask pages[FRAMES_MAX];
/* No frame from this one on has held any. */
static uint64_t top;
static int asks = -1, answers = -1, events = -1;

/* Zero, or minus an error number. */
static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int result = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return result;
}

static int open_pipe(const char *path)
{
	return mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

bool frames_watch(void)
{
	if (access(FAIL_FRAME, F_OK) || access(FRAME_FLAGS, F_OK) ||
	    mount("tracefs", TRACING, "tracefs", 0, NULL) ||
	    write_text(EVENTS "add_to_page_cache/enable", "1") ||
	    write_text(EVENTS "delete_from_page_cache/enable", "1"))
		return false;
	events = open(TRACING "/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	asks = open_pipe(FRAMES_ASK);
	answers = open_pipe(FRAMES_ANSWER);
	return events >= 0 && asks >= 0 && answers >= 0;
}

int frames_arrival(void)
{
	return asks;
}

/* `...: mm_filemap_add_to_page_cache: dev 0:15 ino 3 pfn=0x1a2b ofs=4096 order=0` */
static void note(const char *line)
{
	const char *event = strstr(line, ": mm_filemap_");
	const char *fields = event ? strstr(event, " dev ") : NULL;
	unsigned long long ino, frame, offset;
	unsigned int major, minor;

	if (!fields || sscanf(fields, " dev %u:%u ino %llx pfn=%llx ofs=%llu", &major, &minor, &ino,
			      &frame, &offset) != 5 || frame >= FRAMES_MAX)
		return;
	top = frame < top ? top : frame + 1;
	pages[frame] = (struct frames_ask){ 0 };
	if (strstr(event, "_add_"))
		pages[frame] = (struct frames_ask){ .page = offset / 4096,
						    .dev = makedev(major, minor),
						    .ino = ino };
}

/* Takes in what has happened to the page cache since it was last asked. */
static void catch_up(void)
{
	static char text[1 << 16];
	static size_t kept;
	ssize_t got;

	while ((got = read(events, text + kept, sizeof(text) - 1 - kept)) > 0) {
		char *line = text, *end;

		text[kept + (size_t)got] = '\0';
		for (; (end = strchr(line, '\n')); line = end + 1) {
			*end = '\0';
			note(line);
		}
		kept = strlen(line);
		memmove(text, line, kept);
	}
}

static uint64_t frame_of(const struct frames_ask *page)
{
	for (uint64_t frame = 1; frame < top; frame++)
		if (!memcmp(&pages[frame], page, sizeof(*page)))
			return frame;
	return 0;
}

static bool is_poisoned(uint64_t frame)
{
	int fd = open(FRAME_FLAGS, O_RDONLY | O_CLOEXEC);
	uint64_t flags = 0;

	if (fd < 0)
		return false;
	if (pread(fd, &flags, sizeof(flags), (off_t)(frame * sizeof(flags))) < 0)
		flags = 0;
	close(fd);
	return flags >> KPF_HWPOISON & 1;
}

static struct frames_answer fail(const struct frames_ask *page)
{
	struct frames_answer answer = { .frame = page->ino ? frame_of(page) : 0 };
	char number[32];
	int said;

	if (!answer.frame)
		return answer;
	snprintf(number, sizeof(number), "%#llx", (unsigned long long)answer.frame);
	said = write_text(FAIL_FRAME, number);
	/* memory_failure() says EBUSY of what it has done, too. */
	if (!is_poisoned(answer.frame))
		answer.result = said ? said : -EIO;
	return answer;
}

void frames_serve(void)
{
	struct frames_answer answer;
	struct frames_ask ask;

	if (read(asks, &ask, sizeof(ask)) != sizeof(ask))
		return;
	catch_up();
	answer = fail(&ask);
	if (write(answers, &answer, sizeof(answer)) < 0)
		printf("init: an answer is lost: %s\n", strerror(errno));
}

void frames_forget(void)
{
	char rest[256];

	while (read(asks, rest, sizeof(rest)) > 0 || read(answers, rest, sizeof(rest)) > 0)
		;
}
