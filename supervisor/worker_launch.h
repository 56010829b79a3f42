/* SPDX-License-Identifier: MIT */
/*
 * Starts a worker: by the service manager, if that has a socket for it, else by ublkd itself. Then
 * gives it a socket to listen at, and connects to that.
 *
 * Thread: the loop's; from a fiber.
 */
#ifndef UBLKD_WORKER_LAUNCH_H
#define UBLKD_WORKER_LAUNCH_H

#include <sys/types.h>

struct error;

/*
 * Starts a worker for the export of that name.  Returns the link to it (worker/link.h),
 * the caller's, with *pid, or -errno with err filled: EPIPE (it has ended at once),
 * ETIMEDOUT.
 */
int worker_launch(const char *name, pid_t *pid, struct error *err);

#endif
