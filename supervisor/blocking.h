/* SPDX-License-Identifier: MIT */
/*
 * System calls that may wait for a disk, for fibers: a thread of its own makes each call, and the
 * loop goes on meanwhile.
 *
 * Thread: the loop's.  From fibers.
 */
#ifndef UBLKD_BLOCKING_H
#define UBLKD_BLOCKING_H

#include <stdbool.h>

struct holders;
struct owner;

/* The resource that a blocking call touches; a hang on one does not block calls on the others. */
enum blocking_side {
	BLOCKING_STORAGE, /* files that it names */
	BLOCKING_DEVICE,  /* its block device */
	BLOCKING_HOLDERS  /* the processes that may have that open */
};

/* The export that a call is for, and what of it the call touches. */
struct blocking_for {
	const char *export;
	enum blocking_side side;
};

/*
 * open(2) and so on, each in a thread of its own, for at most ms milliseconds.  Each returns the
 * result of the system call, or -errno: ETIMEDOUT (the call has not returned; it may still succeed,
 * and what it opens is then closed); EALREADY (an earlier call of the same export and side timed
 * out and has not returned yet: until then no other call starts).  Two calls of an export and side
 * run at the same time; others wait.
 */
int blocking_open(struct blocking_for who, const char *path, int flags, unsigned mode, unsigned ms);
/*
 * The same for a path that an export names, with the rights of its owner.  storage: the file must
 * be a regular file, a block device or (O_DIRECTORY) a directory, and not on a file system of the
 * kernel such as /proc: else -EACCES.  The check uses a descriptor, not the path, before opening
 * has any effect; O_PATH opens anything.
 */
int blocking_open_as(struct blocking_for who, const struct owner *owner, const char *path,
		     int flags, unsigned mode, bool storage, unsigned ms);
int blocking_unlink_as(struct blocking_for who, const struct owner *owner, const char *path,
		       unsigned ms);
/* host_here.connect_unix(); the server sees the owner as its peer. */
int blocking_connect_as(struct blocking_for who, const struct owner *owner, const char *path,
			unsigned ms);
/* Closes fd in any case.  Closing may write back dirty pages, and take as long. */
void blocking_close(struct blocking_for who, int fd, unsigned ms);
int blocking_fsync(struct blocking_for who, int fd, unsigned ms);
/*
 * holders_find() of a block device, without this process; there may be thousands of processes to
 * search.
 */
int blocking_find_holders(const char *export, const char *block, struct holders *holders,
			  unsigned ms);
/*
 * Waits until the kernel has done the work that is on its common work queue at this moment
 * (system_wq: kernel/workqueue.c of Linux 6.12; schedule_on_each_cpu() in mm/vmstat.c).
 */
int blocking_settle(struct blocking_for who, unsigned ms);

/* Writes text to an attribute of the export's device, a file of sysfs. */
int blocking_write_attribute(const char *export, const char *path, const char *text, unsigned ms);

/* The text of such a -errno for a message. */
const char *blocking_reason(int code);

#endif
