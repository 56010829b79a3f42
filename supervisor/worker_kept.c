/* SPDX-License-Identifier: MIT */
#include "supervisor/worker_kept.h"
#include "supervisor/fiber.h"
#include "worker/link.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>

void kept_init(struct kept *kept)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		kept->fd[i] = -1;
}

void kept_put(struct kept *kept, unsigned slot, int fd)
{
	if (kept->fd[slot] >= 0)
		link_close(kept->fd[slot]);
	kept->fd[slot] = fd;
}

/* Whether the other side has ended it; what still comes is of no use. */
static bool is_over(int fd)
{
	char scratch[4096];
	ssize_t n;

	do
		n = recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT);
	while (n > 0);
	return !n || (errno != EAGAIN && errno != EINTR);
}

int kept_fence(struct kept *kept, unsigned ms)
{
	uint64_t end = fiber_now_ms() + ms;
	int ret = 0;

	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		if (kept->fd[i] >= 0)
			shutdown(kept->fd[i], SHUT_WR);
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++) {
		if (kept->fd[i] < 0)
			continue;
		while (!is_over(kept->fd[i])) {
			if (fiber_now_ms() >= end) {
				ret = -ETIMEDOUT;
				break;
			}
			fiber_sleep(5);
		}
		kept_put(kept, i, -1);
	}
	return ret;
}

void kept_close(struct kept *kept)
{
	for (unsigned i = 0; i < HOST_CONNECTIONS; i++)
		kept_put(kept, i, -1);
}
