/* SPDX-License-Identifier: MIT */
/*
 * Old connections: given up with requests in flight, which their server may still
 * carry out after a newer write of the same blocks (ghost writes).
 *
 * So the socket of such a connection is not closed: it is shut for sending, and
 * nothing is sent again, on whatever connection, before the server has ended the
 * old one, or has been there for NBD_LINGER_MS without doing so.
 */
#include "backends/nbd.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define member_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

void nbd_ghost_end(struct nbd_link *link)
{
	struct nbd *nbd = link->owner->nbd;

	if (link->polls_old)
		queue_cancel(link->owner->queue, &link->old_ended);
	if (link->old_fd >= 0)
		close(link->old_fd);
	link->old_fd = -1;
	if (link->ghost && atomic_fetch_sub(&nbd->ghosts, 1) == 1)
		nbd_replay_wake(nbd);
	link->ghost = false;
}

static void watch_old(struct nbd_link *link)
{
	if (link->old_fd < 0 || link->polls_old)
		return;
	link->polls_old = true;
	queue_poll(link->owner->queue, &link->old_ended, link->old_fd, POLLIN | POLLRDHUP);
}

static void old_ended(struct ring_op *op, int result)
{
	struct nbd_link *link = member_of(op, struct nbd_link, old_ended);
	char scratch[4096];
	ssize_t n;

	(void)result;
	link->polls_old = false;
	if (link->old_fd < 0)
		return;
	/* Answers that came too late are of no use; behind them is its end. */
	do
		n = recv(link->old_fd, scratch, sizeof(scratch), MSG_DONTWAIT);
	while (n > 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		watch_old(link);
	else
		nbd_ghost_end(link);
}

void nbd_ghost_start(struct nbd_link *link)
{
	link->old_fd = -1;
	link->old_ended.done = old_ended;
}

void nbd_ghost_make(struct nbd_link *link)
{
	/* Nothing is sent before the last one's end, so there is none. */
	nbd_ghost_end(link);
	shutdown(link->fd, SHUT_WR);
	link->old_fd = link->fd;
	link->ghost = true;
	link->ghost_ns = 0;
	atomic_fetch_add(&link->owner->nbd->ghosts, 1);
	watch_old(link);
}

void nbd_ghost_tick(struct nbd_link *link)
{
	uint64_t now = queue_now_ns(link->owner->queue);

	if (!link->ghost)
		return;
	if (!atomic_load(&link->owner->nbd->nr_up))
		link->ghost_ns = 0;
	else if (!link->ghost_ns)
		link->ghost_ns = now;
	else if (now - link->ghost_ns >= NBD_LINGER_MS * (uint64_t)NBD_NS_PER_MS)
		nbd_ghost_end(link);
}
