/* SPDX-License-Identifier: MIT */
#include "supervisor/worker_fence.h"
#include "worker/link.h"

void worker_fence_init(struct worker_fence *kept)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		kept->fd[i] = -1;
}

void worker_fence_put(struct worker_fence *kept, unsigned slot, int fd, uint64_t wait_ms)
{
	if (kept->fd[slot] >= 0)
		link_close(kept->fd[slot]);
	kept->fd[slot] = fd;
	kept->wait_ms[slot] = wait_ms;
}

void worker_fence_give(struct worker_fence *kept, struct fence *fence)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++) {
		if (kept->fd[i] >= 0)
			fence_add(fence, kept->fd[i], kept->wait_ms[i]);
		kept->fd[i] = -1;
	}
}

void worker_fence_close(struct worker_fence *kept)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		worker_fence_put(kept, i, -1, 0);
}
