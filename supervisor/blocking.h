/* SPDX-License-Identifier: MIT */
/*
 * System calls that may wait for a disk, for fibers: each is made by a thread of its own,
 * and the loop goes on meanwhile.
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

/* Whose errand it is. */
struct blocking_for {
	const char *export;
	enum blocking_side side;
};

/*
 * open(2) and friends, each in a thread of its own, ms milliseconds at most.  Each
 * returns what the system call does, or -errno: ETIMEDOUT (not yet done; it may still
 * be, and what it opens is closed then); EALREADY (an earlier one of that export and
 * side, whose time was up, has not returned yet: no other one is begun until it has).
 * Two of them are done at once for an export and side, the others wait.
 */
int blocking_open(struct blocking_for who, const char *path, int flags, unsigned mode, unsigned ms);
/*
 * The same for a path that an export names, with the rights of its owner.  storage: what
 * is opened must be a regular file, a block device or (O_DIRECTORY) a directory, and
 * none of the kernel's own file systems such as /proc: else -EACCES.  The descriptor is
 * checked and not the path, before opening has any effect; O_PATH opens anything.
 */
int blocking_open_as(struct blocking_for who, const struct owner *owner, const char *path,
		     int flags, unsigned mode, bool storage, unsigned ms);
int blocking_unlink_as(struct blocking_for who, const struct owner *owner, const char *path,
		       unsigned ms);
/* host_here.connect_unix(): the other side sees the owner as its peer. */
int blocking_connect_as(struct blocking_for who, const struct owner *owner, const char *path,
			unsigned ms);
/* Closes fd in any case, which may take as long as what was written to it. */
void blocking_close(struct blocking_for who, int fd, unsigned ms);
int blocking_fsync(struct blocking_for who, int fd, unsigned ms);
/*
 * holders_find() of a block device, but not this process; there may be thousands to
 * look through.
 */
int blocking_find_holders(const char *export, const char *block, struct holders *holders,
			  unsigned ms);
/*
 * Waits until the kernel is done with what it had put on its common work queue by now
 * (system_wq: kernel/workqueue.c of Linux 6.12; schedule_on_each_cpu() in mm/vmstat.c).
 */
int blocking_settle(struct blocking_for who, unsigned ms);

/* Writes text to an attribute of the export's device, a file of sysfs. */
int blocking_write_attribute(const char *export, const char *path, const char *text, unsigned ms);

/* The meaning of such a -errno, for a message. */
const char *blocking_reason(int code);

#endif
