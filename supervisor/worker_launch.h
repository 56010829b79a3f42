/* SPDX-License-Identifier: MIT */
/*
 * How a process comes to be a worker: started by the service manager, where that has
 * a socket for it, else by ublkd itself; told where to listen, and connected to there.
 *
 * Thread: the loop's; from a fiber.
 */
#ifndef UBLKD_WORKER_LAUNCH_H
#define UBLKD_WORKER_LAUNCH_H

#include <sys/types.h>

struct error;

/*
 * Starts one for the export of that name.  Returns the link to it (worker/link.h),
 * the caller's, with *pid, or -errno with err filled: EPIPE (it has ended at once),
 * ETIMEDOUT.
 */
int worker_launch(const char *name, pid_t *pid, struct error *err);

#endif
