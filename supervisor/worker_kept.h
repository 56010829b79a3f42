/* SPDX-License-Identifier: MIT */
/*
 * A worker's connections to servers, which it gives ublkd a copy of, each in a slot
 * (backend.h, keep_connection()): what was sent on them may be carried out after the
 * worker's death, until the server has ended them.
 *
 * Owner: the worker's struct.  Thread: the loop's.
 */
#ifndef UBLKD_WORKER_KEPT_H
#define UBLKD_WORKER_KEPT_H

#include "engine/backend.h"

struct kept {
	int fd[HOST_CONNECTIONS]; /* -1: none */
};

void kept_init(struct kept *kept);

/* fd takes the place of what was in the slot, and is kept's; -1: none does. */
void kept_put(struct kept *kept, unsigned slot, int fd);

/*
 * From a fiber, when the worker has ended: has the servers end all of them, and closes
 * them; waits for that, ms milliseconds at most.  Returns 0, or -ETIMEDOUT: a server has
 * not ended one.
 */
int kept_fence(struct kept *kept, unsigned ms);

void kept_close(struct kept *kept);

#endif
