/* SPDX-License-Identifier: MIT */
#include "common/process.h"
#include "common/log.h"
#include "common/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57 /* Linux 5.6 */
#endif

static void lock_memory(const char *about)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	struct rlimit now;

	/*
	 * A page of ours that must first be read from the disk that we serve would
	 * wait for itself.  Locked as they are touched: an idle device stays small.
	 * With a finite limit a later mapping could fail, so then it is left alone.
	 */
	if (setrlimit(RLIMIT_MEMLOCK, &all) && getrlimit(RLIMIT_MEMLOCK, &now) == 0 &&
	    now.rlim_cur != RLIM_INFINITY) {
		log_info(about,
			 "memory is not locked: the limit on locked memory is finite (ulimit -l)");
		return;
	}
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		log_info(about, "memory is not locked: %s", strerror(errno));
}

void process_prepare_for_io(const char *about)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	/* Threads inherit it. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		log_info(about,
			 "cannot set PR_SET_IO_FLUSHER: %s (it needs CAP_SYS_RESOURCE): memory "
			 "reclaim may block on this device's own I/O",
			 strerror(errno));
	lock_memory(about);
}

int process_hide_memory(void)
{
	struct rlimit none = { 0 };

	/* The limit is for what is written to a file, the flag for what a program gets, too. */
	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	return 0;
}

/* The begin of /proc/PID/FILE, in out as text; "" where it cannot be read. */
static void read_file_of(pid_t pid, const char *file, char *out, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	out[0] = 0;
	if (pid > 0)
		small_file_read(path, out, size);
}

const char *process_name(pid_t pid, char *out, size_t size)
{
	read_file_of(pid, "comm", out, size);
	out[strcspn(out, "\n")] = 0;
	return out;
}

uint64_t process_started(pid_t pid)
{
	char text[1024];
	const char *at;

	read_file_of(pid, "stat", text, sizeof(text));
	/* Field 2 is its name in brackets, and may be anything. */
	at = strrchr(text, ')');
	for (unsigned field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at, NULL, 10) : 0;
}

bool process_has_open(pid_t pid, const char *path)
{
	char directory[32], target[256];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(directory, sizeof(directory), "/proc/%d/fd", (int)pid);
	dir = opendir(directory);
	while (dir && !found && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = 0;
		found = !strcmp(target, path);
	}
	if (dir)
		closedir(dir);
	return found;
}

static int wait_for(int pidfd, siginfo_t *info, int options)
{
	*info = (siginfo_t){ 0 };
	return waitid(P_PIDFD, (id_t)pidfd, info, WEXITED | WNOHANG | options);
}

int process_open_child(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	siginfo_t info;

	/* Only a parent may wait: the number may have become another process's already. */
	if (pidfd >= 0 && wait_for(pidfd, &info, WNOWAIT)) {
		close(pidfd);
		return -1;
	}
	return pidfd;
}

bool process_child_ended(int pidfd)
{
	siginfo_t info;

	return wait_for(pidfd, &info, 0) || info.si_pid;
}

void process_kill(int pidfd)
{
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}
