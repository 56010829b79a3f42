/* SPDX-License-Identifier: MIT */
#include "supervisor/worker_kept.h"
#include "worker/link.h"

void kept_init(struct kept *kept)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		kept->fd[i] = -1;
}

void kept_put(struct kept *kept, unsigned slot, int fd, uint64_t wait_ms)
{
	if (kept->fd[slot] >= 0)
		link_close(kept->fd[slot]);
	kept->fd[slot] = fd;
	kept->wait_ms[slot] = wait_ms;
}

void kept_give(struct kept *kept, struct fence *fence)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++) {
		if (kept->fd[i] >= 0)
			fence_add(fence, kept->fd[i], kept->wait_ms[i]);
		kept->fd[i] = -1;
	}
}

void kept_close(struct kept *kept)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		kept_put(kept, i, -1, 0);
}
