/* SPDX-License-Identifier: MIT */
/*
 * Duplicates of a worker's connections to NBD servers, each in a slot (backend.h,
 * keep_connection()). A server may carry out what was sent on them even after the worker's death,
 * until they are over (fence.h).
 *
 * Owner: the worker's struct.  Thread: the loop's.
 */
#ifndef UBLKD_WORKER_FENCE_H
#define UBLKD_WORKER_FENCE_H

#include "engine/backend.h"
#include "supervisor/fence.h"

struct worker_fence {
	int fd[HOST_CONNECTIONS]; /* -1: none */
	uint64_t wait_ms[HOST_CONNECTIONS];
};

void worker_fence_init(struct worker_fence *kept);

/* fd takes the place of the connection in the slot, and is kept's; -1: none does. */
void worker_fence_put(struct worker_fence *kept, unsigned slot, int fd, uint64_t wait_ms);

/* The worker has ended: the connections are the fence's from now on. */
void worker_fence_give(struct worker_fence *kept, struct fence *fence);

void worker_fence_close(struct worker_fence *kept);

#endif
