/* SPDX-License-Identifier: MIT */
/*
 * The memory of a memory export, taken from a worker that does not answer.
 *
 * An earlier ublkd may have died without handing its memfd to the service manager. Then only the
 * worker has the content: it is found through /proc/PID/fd, by name, owner and seals, since the
 * worker chooses the names of its own files.
 */
#include "supervisor/worker_memory.h"
#include "supervisor/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A memfd that a worker creates itself belongs to the worker's user: only ublkd's passes. */
bool worker_is_memory(int fd, uint64_t size)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !st.st_nlink &&
	       (uint64_t)st.st_size >= size && fcntl(fd, F_GET_SEALS) > 0;
}

static int open_memory(DIR *dir, const char *entry, uint64_t size)
{
	static const char name[] = "/memfd:" WORKER_MEMORY " (deleted)";
	char target[sizeof(name)];
	ssize_t n = readlinkat(dirfd(dir), entry, target, sizeof(target));
	int fd;

	if (n < 0)
		return errno == EACCES || errno == EPERM ? -EACCES : -ENOENT;
	if (n != sizeof(name) - 1 || memcmp(target, name, (size_t)n) != 0)
		return -ENOENT;
	/* Any file may have this name: opening it must not block, or take a terminal. */
	fd = openat(dirfd(dir), entry, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (worker_is_memory(fd, size))
		return fd;
	close(fd);
	return -ENOENT;
}

int worker_open_memory(const struct worker *w, uint64_t size)
{
	struct dirent *entry;
	int fd = -ENOENT, one;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)worker_pid(w));
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (fd < 0 && (entry = readdir(dir))) {
		one = open_memory(dir, entry->d_name, size);
		if (one != -ENOENT)
			fd = one;
	}
	closedir(dir);
	/* The worker still lives, so the pid was not reused while we read its /proc. */
	if (worker_is_there(w))
		return fd;
	if (fd >= 0)
		close(fd);
	return -ESRCH;
}
