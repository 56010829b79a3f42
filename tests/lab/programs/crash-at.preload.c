/* SPDX-License-Identifier: MIT */
/*
 * crash-at: ublkd dies by SIGKILL at the n-th step that leaves something outside of
 * it: a file, a command to the kernel, a process, a message.  Loaded into it by
 * LD_PRELOAD.
 *
 * The file that CRASH_AT names holds "before N ID" or "after N ID".  Steps count while
 * it is there, anew for each ID.  Each is noted in CRASH_AT.steps, one line each.
 *
 * A connection that is refused is no step: it leaves nothing, and how often it is
 * tried is up to the time that the other side takes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static const char *file;

/* Children have nothing to do with it. */
static __attribute__((constructor)) void begin(void)
{
	if (!strcmp(program_invocation_short_name, "ublkd"))
		file = getenv("CRASH_AT");
	unsetenv("LD_PRELOAD");
}

static void *next(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (!function)
		abort();
	return function;
}

static void note(const char *what, unsigned number)
{
	char path[200], line[300];
	int fd, length;

	snprintf(path, sizeof(path), "%s.steps", file);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	length = snprintf(line, sizeof(line), "%u %s\n", number, what);
	if (fd < 0 || write(fd, line, (size_t)length) != length)
		abort();
	close(fd);
}

/* The number of the step that is taken now, of those that count for ID. */
static unsigned count(unsigned id)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static unsigned counted_for, steps;
	unsigned number;

	pthread_mutex_lock(&lock);
	if (id != counted_for)
		steps = 0;
	counted_for = id;
	number = ++steps;
	pthread_mutex_unlock(&lock);
	return number;
}

struct step {
	bool die_after;
};

static struct step step_begin(const char *what, const char *about)
{
	char text[200], when[8];
	unsigned at, id, number;
	FILE *f = file ? fopen(file, "re") : NULL;

	if (!f)
		return (struct step){ false };
	if (fscanf(f, "%7s %u %u", when, &at, &id) != 3)
		abort();
	fclose(f);
	number = count(id);
	snprintf(text, sizeof(text), "%s %s", what, about);
	note(text, number);
	if (number == at && !strcmp(when, "before"))
		kill(getpid(), SIGKILL);
	return (struct step){ number == at };
}

static void step_end(struct step step)
{
	int code = errno;

	if (step.die_after)
		kill(getpid(), SIGKILL);
	errno = code;
}

/* ---- the steps ---- */

int rename(const char *from, const char *to)
{
	int (*real)(const char *, const char *) = next("rename");
	struct step step = step_begin("rename", to);
	int ret = real(from, to);

	step_end(step);
	return ret;
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to,
	      unsigned flags)
{
	int (*real)(int, const char *, int, const char *, unsigned) = next("renameat2");
	struct step step = step_begin("renameat2", to);
	int ret = real(from_directory, from, to_directory, to, flags);

	step_end(step);
	return ret;
}

int unlink(const char *path)
{
	int (*real)(const char *) = next("unlink");
	struct step step = step_begin("unlink", path);
	int ret = real(path);

	step_end(step);
	return ret;
}

int symlink(const char *to, const char *path)
{
	int (*real)(const char *, const char *) = next("symlink");
	struct step step = step_begin("symlink", path);
	int ret = real(to, path);

	step_end(step);
	return ret;
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	int (*real)(int, const struct sockaddr *, socklen_t) = next("bind");
	struct step step = step_begin("bind", "");
	int ret = real(fd, address, length);

	step_end(step);
	return ret;
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	int (*real)(int, const struct sockaddr *, socklen_t) = next("connect");
	int ret = real(fd, address, length);

	if (!ret)
		step_end(step_begin("connect", ""));
	return ret;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t (*real)(int, const struct msghdr *, int) = next("sendmsg");
	struct step step = step_begin("sendmsg", "");
	ssize_t ret = real(fd, message, flags);

	step_end(step);
	return ret;
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *,
		    const posix_spawnattr_t *, char *const[], char *const[]) = next("posix_spawn");
	struct step step = step_begin("posix_spawn", path);
	int ret = real(pid, path, actions, attributes, argv, envp);

	step_end(step);
	return ret;
}

int io_uring_submit(struct io_uring *ring)
{
	int (*real)(struct io_uring *) = next("io_uring_submit");
	struct step step = step_begin("io_uring_submit", "");
	int ret = real(ring);

	step_end(step);
	return ret;
}
