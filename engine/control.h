/* SPDX-License-Identifier: MIT */
/*
 * The commands of /dev/ublk-control, one function each, on a ring of their own
 * (128-byte SQEs, ioctl-encoded commands: Linux 6.4 and later; 6.0 to 6.3 take
 * the same codes only from a driver with that backported).
 *
 * Every command has a deadline.  One that passes it is cancelled; a kernel that
 * does not even let it be cancelled leaves the command behind, with its memory,
 * and the caller gets ETIMEDOUT all the same.
 *
 * Thread: one at a time.  Errors: each returns 0, or -errno with err filled in
 * words: which command, which device, what it means, what to do.
 */
#ifndef UBLKD_CONTROL_H
#define UBLKD_CONTROL_H

#include <liburing.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/ublk_abi.h"

struct error;

struct control {
	struct io_uring own, *uring; /* its own, or the one that it shares */
	int fd;                      /* /dev/ublk-control */
	unsigned deadline_ms;        /* for commands that may wait; others have a shorter one */
	/*
	 * STOP_DEV writes back what is dirty, which takes as long as it takes: its
	 * deadline counts from the last change of this number (NULL: from its start).
	 */
	uint64_t (*progress)(void *context);
	void *progress_context;
	uint32_t path_id;      /* a device whose commands must carry its path; UBLK_ID_AUTO: none */
	unsigned nr_abandoned; /* commands the kernel never answered */
	volatile sig_atomic_t abort; /* set (by a signal handler): no more waiting */
	/*
	 * Waits, instead of blocking, until control_take() has found the completion
	 * `number`, ms milliseconds at most.  Returns 0 with *result, or -ETIME.  NULL:
	 * the calling thread blocks.
	 */
	int (*wait)(struct control *control, uint64_t number, unsigned ms, int *result);
	/*
	 * Writes an attribute of a device in /sys, which may wait for requests in flight
	 * (attribute.h). Returns 0 or -errno. NULL: the calling thread writes it.
	 */
	int (*write_attribute)(struct control *control, const char *path, const char *value);
	/* Waits ms milliseconds before another try.  NULL: the calling thread sleeps. */
	void (*pause)(struct control *control, unsigned ms);
	void *context; /* the hooks' */
};

/* A command that only asks and never waits for a server is answered within this. */
#define CONTROL_SHORT_MS    5000u
#define CONTROL_DEADLINE_MS 30000u

/*
 * Opens the driver's control device.  Errors: ENOENT where the driver is not
 * loaded or not in this kernel, EACCES without privilege, ring_error()'s.
 */
int control_open(struct control *control, unsigned deadline_ms, struct error *err);
void control_close(struct control *control);

/*
 * For commands that are under way side by side: makes control one with the driver,
 * ring and hooks of another, which must stay, and patience of its own.  Nothing is
 * to be closed.
 */
void control_share(struct control *control, struct control *of);
/* Readable while control_take() has something. */
int control_event(const struct control *control);
/* The hooks, or what stands for them. */
void control_pause(struct control *control, unsigned ms);
int control_write_attribute(struct control *control, const char *path, const char *value);
/* The next completion, without waiting; false where there is none. */
bool control_take(struct control *control, uint64_t *number, int *result);
/*
 * How many commands may wait in the kernel at once (else 4 a CPU).  Returns 0 or
 * -errno.
 */
int control_set_max_inflight(struct control *control, unsigned nr);

/*
 * The UBLK_FEAT_* that this kernel's driver has.  A kernel without the command
 * (before 6.5) gives 0 features and success.
 */
int control_get_features(struct control *control, uint64_t *features, struct error *err);

/*
 * Adds a device as *info describes (dev_id may be UBLK_ID_AUTO); the driver's
 * answer, with the id and the flags it granted, comes back in *info.  EEXIST:
 * the id is taken; EACCES: the driver's limit of devices is reached.
 */
int control_add(struct control *control, struct ublk_dev_info *info, struct error *err);
/* Removes a device and waits until its last reference is gone. */
int control_delete(struct control *control, uint32_t id, struct error *err);
/* The same without waiting for references (6.9): the id stays taken until the last is gone. */
int control_delete_async(struct control *control, uint32_t id, struct error *err);
/* After every tag is fetched; tgid: of the process that opened ublkcN. */
int control_start(struct control *control, uint32_t id, int tgid, struct error *err);
int control_stop(struct control *control, uint32_t id, struct error *err);
/* params->len and ->types say what counts. */
int control_set_params(struct control *control, uint32_t id, const struct ublk_dev_params *params,
		       struct error *err);
int control_get_params(struct control *control, uint32_t id, struct ublk_dev_params *params,
		       struct error *err);
int control_get_info(struct control *control, uint32_t id, struct ublk_dev_info *info,
		     struct error *err);
/* The CPUs of a queue: a mask of size bytes (a multiple of 8). */
int control_get_affinity(struct control *control, uint32_t id, unsigned queue, void *mask,
			 unsigned size, struct error *err);
/* EBUSY until the old server is gone; see KERNEL's recovery in ublk_drv.c. */
int control_start_recovery(struct control *control, uint32_t id, struct error *err);
int control_end_recovery(struct control *control, uint32_t id, int tgid, struct error *err);
/* 6.16.  Never before the device was started: 6.16 and 6.17 crash then. */
int control_update_size(struct control *control, uint32_t id, uint64_t sectors, struct error *err);
/* 7.0: EBUSY while the block device is open. */
int control_try_stop(struct control *control, uint32_t id, struct error *err);

#endif
