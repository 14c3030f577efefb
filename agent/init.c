/*
 * The first process in a guest that exists to run the agent. It mounts what the agent needs, loads modules, and
 * then starts one agent after the other on the virtio port named `gmem`: each time the host connects, an agent that has the
 * connection to itself. What it says on the console is for the host to follow. While an agent runs, the console also
 * listens: 'k' kills the agent, and 'p' is answered, after all that the kernel has said before. And memory fails when the
 * agent asks for it, see frames.h.
 */
#define _GNU_SOURCE
#include "frames.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define AGENT "/agent"
#define CANNOT_START 127
#define PORT_APPEARS_MS 10000
#define HOST_CONNECTS_MS 60000
#define NAP_MS 10
#define OBEY_MS 50

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = NAP_MS * 1000000L }, NULL);
}

/* Nobody can be told more than this, so the machine ends. */
__attribute__((noreturn))
static void give_up(const char *what)
{
	printf("init: %s\n", what);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void mount_all(void)
{
	static const struct { const char *type, *at; } mounts[] = {
		{ "devtmpfs", "/dev" },
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tmpfs", "/tmp" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].at, 0755);
		if (mount(mounts[i].type, mounts[i].at, mounts[i].type, 0, NULL))
			printf("init: no %s on %s: %s\n", mounts[i].type, mounts[i].at, strerror(errno));
	}
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		printf("init: %s is not loaded: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/*
 * Lines go through the kernel's log, so that they stand whole and in order between those of the kernel. Where that
 * fails they go to the console directly.
 */
static void log_to_kernel(void)
{
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (log < 0)
		return;
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	close(log);
}

/* /modules/order has a path in each line, what is needed before what needs it. */
static void load_modules(void)
{
	FILE *order = fopen("/modules/order", "re");
	char path[PATH_MAX];

	if (!order)
		return;
	while (fgets(path, sizeof(path), order)) {
		path[strcspn(path, "\n")] = '\0';
		load_module(path);
	}
	fclose(order);
}

/* Does the file hold the name and a line end? */
static bool names_gmem(const char *path)
{
	char name[16] = "";
	FILE *file = fopen(path, "re");
	bool same = file && fgets(name, sizeof(name), file) && !strcmp(name, "gmem\n");

	if (file)
		fclose(file);
	return same;
}

/* Leaves the path of the port's device in `path`; false where there is none yet. */
static bool find_port(char path[static PATH_MAX])
{
	static const char pattern[] = "/sys/class/virtio-ports/*/name";
	bool found = false;
	glob_t names;

	if (glob(pattern, 0, NULL, &names))
		return false;
	for (size_t i = 0; i < names.gl_pathc && !found; i++) {
		found = names_gmem(names.gl_pathv[i]);
		if (found) {
			const char *port = names.gl_pathv[i] + sizeof("/sys/class/virtio-ports/") - 1;

			snprintf(path, PATH_MAX, "/dev/%.*s", (int)strcspn(port, "/"), port);
		}
	}
	globfree(&names);
	return found && !access(path, F_OK);
}

/* Waits until the host's end of the port is, or is not, connected. */
static void await_host(int port, bool connected)
{
	struct pollfd state = { .fd = port };

	for (int waited = 0; waited < HOST_CONNECTS_MS; waited += NAP_MS) {
		poll(&state, 1, 0);
		if (!(state.revents & POLLHUP) == connected)
			return;
		nap();
	}
	give_up(connected ? "nobody connects" : "the host does not hang up");
}

/*
 * Each agent gets a connection of its own, so that none reads what was meant for the one before. The agent opens the
 * port itself, and only one process can have it open; the host sends nothing before it is told that the agent runs.
 */
static void await_new_connection(const char *path)
{
	int port = open(path, O_RDWR | O_CLOEXEC);

	if (port < 0)
		give_up("the port cannot be opened");
	await_host(port, false);
	printf("init: waiting for the host\n");
	await_host(port, true);
	close(port);
}

static pid_t start_agent(char *path)
{
	pid_t agent;

	/* A 'k' that came too late for the agent before is not for this one, nor is an answer. */
	tcflush(STDIN_FILENO, TCIFLUSH);
	frames_forget();
	agent = fork();
	if (agent < 0)
		give_up("no process for the agent");
	if (agent == 0) {
		setsid();
		execv(AGENT, (char *[]){ (char[]){ AGENT }, path, NULL });
		printf("init: " AGENT ": %s\n", strerror(errno));
		_exit(CANNOT_START);
	}
	printf("init: agent started\n");
	return agent;
}

static void obey_console(pid_t agent)
{
	char byte;

	if (read(STDIN_FILENO, &byte, 1) != 1)
		return;
	if (byte == 'k')
		kill(-agent, SIGKILL);
	if (byte == 'p')
		printf("init: present\n");
}

/* For a while. */
static void obey(pid_t agent)
{
	struct pollfd from[] = {
		{ .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = frames_arrival(), .events = POLLIN },
	};

	if (poll(from, sizeof(from) / sizeof(from[0]), OBEY_MS) <= 0)
		return;
	if (from[0].revents)
		obey_console(agent);
	if (from[1].revents)
		frames_serve();
}

/* Waits until the agent has ended, and ends what it left behind. Returns its status. */
static int await_end(pid_t agent)
{
	for (;;) {
		int status;
		pid_t ended = waitpid(-1, &status, WNOHANG);

		if (ended == agent) {
			kill(-agent, SIGKILL);
			return status;
		}
		if (ended <= 0)
			obey(agent);
	}
}

int main(void)
{
	char port[PATH_MAX];

	setvbuf(stdout, NULL, _IOLBF, 0);
	mount_all();
	log_to_kernel();
	load_modules();
	printf("init: memory %s on request\n", frames_watch() ? "fails" : "does not fail");
	for (int waited = 0; !find_port(port); waited += NAP_MS) {
		if (waited >= PORT_APPEARS_MS)
			give_up("there is no virtio port named gmem");
		nap();
	}
	for (;;) {
		int status;

		await_new_connection(port);
		status = await_end(start_agent(port));
		if (WIFSIGNALED(status))
			printf("init: agent killed by signal %d\n", WTERMSIG(status));
		else
			printf("init: agent exited with %d\n", WEXITSTATUS(status));
		if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_START)
			give_up("the agent cannot be started");
	}
}
