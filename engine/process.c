/* SPDX-License-Identifier: MIT */
#include "engine/process.h"
#include "engine/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

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
			 "memory is not locked: the limit of locked memory is finite (ulimit -l)");
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
		log_info(
			about,
			"reclaim may wait for this device's own I/O: PR_SET_IO_FLUSHER: %s (it needs "
			"CAP_SYS_RESOURCE)",
			strerror(errno));
	lock_memory(about);
}

const char *process_name(pid_t pid, char *out, size_t size)
{
	char path[64];
	FILE *f;

	*out = 0;
	if (pid <= 0)
		return out;
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return out;
	if (!fgets(out, (int)size, f))
		*out = 0;
	out[strcspn(out, "\n")] = 0;
	fclose(f);
	return out;
}
