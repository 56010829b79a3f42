/* SPDX-License-Identifier: MIT */
/*
 * The kernel's side, for fibers: control.h's commands on one ring that the loop
 * watches, so that a command that never returns stops one fiber, for as long as
 * its deadline says, and nothing else; and what else might wait for a disk.
 *
 * Thread: the loop's.  All but kernel_open() are called from fibers.
 */
#ifndef UBLKD_KERNEL_H
#define UBLKD_KERNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "engine/control.h"

struct error;
struct holders;
struct owner;

/* Commands that may be waiting in the kernel at once. */
#define KERNEL_MAX_INFLIGHT 128u

/*
 * Opens the driver and learns its features.  deadline_ms: of a command that may
 * wait.  Returns 0, or -errno with err filled.
 */
int kernel_open(uv_loop_t *loop, unsigned deadline_ms, struct error *err);

/* The UBLK_FEAT_* of this kernel. */
uint64_t kernel_features(void);

/*
 * A control for one fiber's commands, whose hooks wait as fibers do.  export: whose device
 * its attributes are (it must stay); NULL: none are written.
 */
void kernel_control(struct control *control, const char *export);

/* What of an export an errand is about: one that hangs says nothing of the other. */
enum kernel_side {
	KERNEL_STORAGE, /* files that it names */
	KERNEL_DEVICE,  /* its block device */
	KERNEL_HOLDERS  /* the processes that may have that open */
};

/* Whose errand it is. */
struct kernel_for {
	const char *export;
	enum kernel_side side;
};

/*
 * open(2) and friends, each in a thread of its own, ms milliseconds at most.  Each
 * returns what the system call does, or -errno: ETIMEDOUT (not yet done; it may still
 * be, and what it opens is closed then); EALREADY (an earlier one of that export and
 * side, whose time was up, has not returned yet: no other one is begun until it has).
 * Two of them are done at once for an export and side, the others wait.
 */
int kernel_open_file(struct kernel_for who, const char *path, int flags, unsigned mode,
		     unsigned ms);
/*
 * The same for a path that an export names, with the rights of its owner.  storage: what
 * is opened must be a regular file, a block device or (O_DIRECTORY) a directory, and
 * none of the kernel's own file systems such as /proc: else -EACCES.  The descriptor is
 * checked and not the path, before opening has any effect; O_PATH opens anything.
 */
int kernel_open_as(struct kernel_for who, const struct owner *owner, const char *path, int flags,
		   unsigned mode, bool storage, unsigned ms);
int kernel_unlink_as(struct kernel_for who, const struct owner *owner, const char *path,
		     unsigned ms);
/* host_here.connect_unix(): the other side sees the owner as its peer. */
int kernel_connect_as(struct kernel_for who, const struct owner *owner, const char *path,
		      unsigned ms);
/* Closes fd in any case, which may take as long as what was written to it. */
void kernel_close_file(struct kernel_for who, int fd, unsigned ms);
int kernel_fsync(struct kernel_for who, int fd, unsigned ms);
/*
 * holders_find() of a block device, but not this process; there may be thousands to
 * look through.
 */
int kernel_holders(const char *export, const char *block, struct holders *holders, unsigned ms);
/*
 * Waits until the kernel is done with what it had put on its common work queue by now
 * (system_wq: kernel/workqueue.c of Linux 6.12; schedule_on_each_cpu() in mm/vmstat.c).
 */
int kernel_settle(struct kernel_for who, unsigned ms);

/* What such a -errno means, for a message. */
const char *kernel_reason(int code);

#endif
