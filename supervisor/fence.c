/* SPDX-License-Identifier: MIT */
/*
 * The fence: connections of dead workers that an NBD server may still have requests from.
 *
 * A write that the server carries out late would overwrite newer data of the next worker. So ublkd
 * keeps a duplicate of each connection, shuts it for sending, and lets no other worker serve until
 * the server has closed it (common/old_socket.h says how that is seen). The option ghost-wait
 * bounds the wait, at the risk of such an overwrite, which is logged.
 */
#include "supervisor/fence.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/old_socket.h"
#include "supervisor/fiber.h"
#include "worker/link.h"

#include <stdlib.h>

struct fenced {
	struct old_socket socket;
	uint64_t until_ms; /* UINT64_MAX: without bound */
};

void fence_add(struct fence *fence, int fd, uint64_t wait_ms)
{
	struct fenced *list = realloc(fence->list, (fence->nr + 1) * sizeof(*list)), *f;
	uint64_t now = clock_ms();

	if (!list)
		abort(); /* to go on without it could put old data over newer data */
	fence->list = list;
	if (!fence->nr)
		fence->since_ms = now;
	f = &list[fence->nr++];
	f->until_ms = wait_ms < UINT64_MAX - now ? now + wait_ms : UINT64_MAX;
	old_socket_shut(&f->socket, fd, now);
}

unsigned fence_check(struct fence *fence, const char *name, uint64_t elsewhere_ms, unsigned *there)
{
	uint64_t now = clock_ms();
	unsigned nr = 0, nr_there = 0;

	for (unsigned i = 0; i < fence->nr; i++) {
		struct fenced *f = &fence->list[i];
		enum old_socket_state state = old_socket_check(&f->socket, elsewhere_ms, now);

		if (state == OLD_SOCKET_UNREACHABLE)
			log_warning(name,
				    "connection of a dead worker: %s; no longer waiting for it",
				    old_socket_state_text(state));
		if (old_socket_is_over(state)) {
			link_close(f->socket.fd);
			continue;
		}
		if (now >= f->until_ms) {
			log_error(
				name,
				"connection of a dead worker: %s within ghost-wait; a new worker "
				"takes over, and a late write of the server overwrites newer data",
				old_socket_state_text(state));
			link_close(f->socket.fd);
			continue;
		}
		nr_there += state == OLD_SOCKET_THERE;
		fence->list[nr++] = *f;
	}
	fence->nr = nr;
	if (there)
		*there = nr_there;
	return nr;
}

void fence_close(struct fence *fence)
{
	for (unsigned i = 0; i < fence->nr; i++)
		link_close(fence->list[i].socket.fd);
	free(fence->list);
	*fence = (struct fence){ 0 };
}
