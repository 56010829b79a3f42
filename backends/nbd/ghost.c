/* SPDX-License-Identifier: MIT */
/*
 * Old connections: given up with requests in flight, which their server may still
 * carry out after a newer write of the same blocks (ghost writes).
 *
 * So the socket of such a connection is shut for sending and not closed.  Until that
 * socket tells that the connection is over (common/old_socket.h), no request that
 * overlaps one of its writes, zeroings or trims is sent on any connection of the export:
 *
 *   - not the same request again, so it is not acknowledged before;
 *   - no newer write, zeroing or trim: the old one could land on it;
 *   - no read: it could show the block as it was before, and the next read the old
 *     write, although its writer was told that it had failed (reconnect-deadline).
 *
 * All other requests go on.  So do flushes: a flush covers what was acknowledged, and
 * the old connection's requests are not.
 *
 * The replay (replay.c) sends acknowledged writes again, and need not wait for an
 * old connection's requests.  Where both are of the same blocks, the request was sent
 * beside or after the acknowledged write, it has not been acknowledged, and nothing reads
 * the blocks before it was: the two may land in either order.  What an abandoned replay
 * itself has sent is different: it must not land on a write that was acknowledged later.
 * So the next replay does not send such a later write before the connection is over;
 * sending the same write twice does no harm.
 *
 * With ghost-wait=TIME the user has a connection count as over after that time.
 */
#include "backends/nbd/ghost.h"
#include "backends/nbd/outage.h"
#include "backends/nbd/queues.h"
#include "common/container_of.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The order of a request that is not acknowledged: none that is comes after it. */
#define NOT_ACKNOWLEDGED (UINT64_MAX - 1)
#define ANY_ORDER        UINT64_MAX
/* An old connection that ends by itself mostly does so at once: nothing to report. */
#define REPORT_MS 1000u
#define CURE                                                                       \
	"restart the server if it never does, or set -o ghost-wait=TIME to go on " \
	"after that time (older data may then overwrite newer data)"

static uint64_t now_ms(const struct nbd_ghost *g)
{
	return queue_now_ns(g->conn->owner->queue) / NBD_NS_PER_MS;
}

/* ---- what it covers ---- */

static bool overlaps(const struct nbd_ghost_range *r, uint64_t offset, uint64_t length)
{
	return offset < r->offset + r->length && r->offset < offset + length;
}

/* Whether a range of an old connection overlaps whose order is below `before`. */
static bool any_overlaps(struct nbd *nbd, uint64_t offset, uint64_t length, uint64_t before)
{
	bool found = false;

	pthread_mutex_lock(&nbd->gate);
	for (unsigned i = 0; i < nbd->nr_connections * NBD_GHOSTS && !found; i++)
		for (unsigned r = 0; r < nbd->ghost[i].nr_ranges && !found; r++)
			found = overlaps(&nbd->ghost[i].ranges[r], offset, length) &&
				nbd->ghost[i].ranges[r].order < before;
	pthread_mutex_unlock(&nbd->gate);
	return found;
}

bool nbd_ghost_overlaps(struct nbd *nbd, const struct io *io)
{
	return io->op != IO_FLUSH && any_overlaps(nbd, io->offset, io->length, ANY_ORDER);
}

bool nbd_ghost_precedes(struct nbd *nbd, const struct nbd_kept *kept)
{
	return any_overlaps(nbd, kept->offset, kept->length, kept->order);
}

static void add_range(struct nbd_ghost *g, uint64_t offset, uint32_t length, uint64_t order)
{
	g->ranges[g->nr_ranges++] = (struct nbd_ghost_range){ offset, order, length };
}

/* The connection's requests in flight that change data. */
static void take_ranges(struct nbd_ghost *g)
{
	struct nbd_queue *q = g->conn->owner;
	struct nbd *nbd = q->nbd;

	for (unsigned tag = 0; tag < nbd->instance->depth; tag++) {
		const struct nbd_io *n = q->ios[tag];

		if (n && n->conn == g->conn && n->io->op != IO_READ && n->io->op != IO_FLUSH)
			add_range(g, n->io->offset, n->io->length, NOT_ACKNOWLEDGED);
	}
	if (nbd->leader != q || nbd->replay_connection != g->conn)
		return;
	for (unsigned i = 0; i < NBD_REPLAYS; i++) {
		const struct nbd_kept *kept = nbd->slots[i].kept;

		if (kept)
			add_range(g, kept->offset, kept->length, kept->order);
	}
}

static const char *ranges_text(const struct nbd_ghost *g, char *out, size_t size)
{
	size_t at = 0;

	for (unsigned i = 0; i < g->nr_ranges && i < 4 && at < size; i++)
		at += (size_t)snprintf(out + at, size - at, "%s%" PRIu64 "+%" PRIu32, i ? ", " : "",
				       g->ranges[i].offset, g->ranges[i].length);
	if (g->nr_ranges > 4 && at < size)
		snprintf(out + at, size - at, " and %u more", g->nr_ranges - 4);
	return out;
}

/* ---- its end ---- */

static void end_ghost(struct nbd_ghost *g)
{
	struct nbd *nbd = g->conn->owner->nbd;

	if (g->polls)
		queue_cancel(g->conn->owner->queue, &g->readable);
	close(g->socket.fd);
	if (nbd->instance->host->keep_connection)
		nbd->instance->host->keep_connection(nbd->instance, g->slot, -1, 0);
	nbd_gauge_add(nbd, NBD_GAUGE_GHOSTS, -(int64_t)g->nr_ranges);
	pthread_mutex_lock(&nbd->gate);
	g->nr_ranges = 0;
	pthread_mutex_unlock(&nbd->gate);
	g->conn->nr_ghosts--;
	if (atomic_fetch_sub(&nbd->ghosts, 1) == 1)
		nbd_outage_ghost(nbd, false);
	/* Requests of any queue may have waited for it. */
	nbd_queues_wake(nbd);
}

static void report_wait(struct nbd_ghost *g, enum old_socket_state state)
{
	const struct nbd *nbd = g->conn->owner->nbd;
	char ranges[160];

	g->reported = true;
	nbd_outage_ghost(g->conn->owner->nbd, true);
	log_warning(nbd->instance->name,
		    "connection %u was given up with %u writes that the server may still carry "
		    "out (offset+length: %s): %s, so I/O that overlaps them waits%s: " CURE,
		    g->conn->number, g->nr_ranges, ranges_text(g, ranges, sizeof(ranges)),
		    old_socket_state_text(state),
		    nbd->deadline_ns == NBD_FOREVER ? "" : " (and fails after reconnect-deadline)");
}

/* When the server last answered on a connection of this queue; 0: it has none. */
static uint64_t last_answer_ms(const struct nbd_ghost *g)
{
	const struct nbd_queue *q = g->conn->owner;
	uint64_t last = 0, now = now_ms(g);

	for (unsigned i = 0; i < q->nr_connections; i++) {
		const struct nbd_connection *conn = &q->connections[i];
		struct old_socket_tcp tcp;

		if (conn->state < NBD_CONNECTION_JOINING)
			continue;
		if (conn->answered_ns / NBD_NS_PER_MS > last)
			last = conn->answered_ns / NBD_NS_PER_MS;
		/* A keepalive's answer counts, too: the rest may be idle. */
		if (old_socket_ask_tcp(conn->fd, now, &tcp) && tcp.heard_ms > last)
			last = tcp.heard_ms;
	}
	return last;
}

static void check_ghost(struct nbd_ghost *g)
{
	struct nbd *nbd = g->conn->owner->nbd;
	uint64_t now = now_ms(g), age_ms = now - g->since_ms;
	enum old_socket_state state = old_socket_check(&g->socket, last_answer_ms(g), now);
	const char *name = nbd->instance->name;

	if (old_socket_is_over(state)) {
		if (g->reported || state == OLD_SOCKET_UNREACHABLE)
			log_warning(name,
				    "connection %u: %s, %" PRIu64 ".%" PRIu64
				    " s after it was given up: I/O that waited for it goes on",
				    g->conn->number, old_socket_state_text(state), age_ms / 1000,
				    age_ms / 100 % 10);
		end_ghost(g);
	} else if (age_ms * NBD_NS_PER_MS >= nbd->ghost_wait_ns) {
		log_error(name,
			  "connection %u: %s within ghost-wait: I/O goes on, and if the server "
			  "carries out one of the %u old writes now, it overwrites newer data",
			  g->conn->number, old_socket_state_text(state), g->nr_ranges);
		end_ghost(g);
	} else if (!g->reported && age_ms >= REPORT_MS) {
		report_wait(g, state);
	}
}

static void poll_ghost(struct nbd_ghost *g)
{
	/* A socket that the kernel has given up is ready all the time, and tells nothing. */
	if (!g->nr_ranges || g->polls || g->socket.deaf)
		return;
	g->polls = true;
	queue_poll(g->conn->owner->queue, &g->readable, g->socket.fd, POLLIN | POLLRDHUP);
}

static void readable(struct ring_op *op, int result)
{
	struct nbd_ghost *g = container_of(op, struct nbd_ghost, readable);

	g->polls = false;
	if (result == -ECANCELED || !g->nr_ranges)
		return;
	check_ghost(g);
	poll_ghost(g);
}

/* ---- a connection's ---- */

static struct nbd_ghost *ghosts_of(const struct nbd_connection *conn)
{
	return &conn->owner->nbd->ghost[conn->number * NBD_GHOSTS];
}

/* A poll that was cancelled may not have come back yet: its place is not free before. */
static bool is_free(const struct nbd_ghost *g)
{
	return !g->nr_ranges && !g->polls;
}

bool nbd_ghost_has_room(const struct nbd_connection *conn)
{
	for (unsigned i = 0; i < NBD_GHOSTS; i++)
		if (is_free(&ghosts_of(conn)[i]))
			return true;
	return false;
}

unsigned nbd_ghost_free_slot(const struct nbd_connection *conn)
{
	unsigned first = conn->number * NBD_SLOTS, used = 0, i;

	_Static_assert(NBD_LINKS_MAX * NBD_SLOTS <= HOST_CONNECTIONS, "each link has its own");
	for (i = 0; i < NBD_GHOSTS; i++)
		if (ghosts_of(conn)[i].nr_ranges)
			used |= 1u << (ghosts_of(conn)[i].slot - first);
	for (i = 0; used & 1u << i; i++)
		;
	return first + i;
}

bool nbd_ghost_make(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;
	struct nbd_ghost *g = ghosts_of(conn);

	if (!conn->in_flight)
		return false;
	while (!is_free(g))
		g++; /* a connection without room is not connected */
	g->conn = conn;
	g->readable.done = readable;
	g->reported = false;
	pthread_mutex_lock(&nbd->gate);
	take_ranges(g);
	pthread_mutex_unlock(&nbd->gate);
	if (!g->nr_ranges)
		return false;
	atomic_fetch_add(&nbd->ghosts, 1);
	conn->nr_ghosts++;
	nbd_gauge_add(nbd, NBD_GAUGE_GHOSTS, g->nr_ranges);
	g->slot = conn->slot;
	g->since_ms = now_ms(g);
	old_socket_shut(&g->socket, conn->fd, g->since_ms);
	/* The connection of a server that has died has ended before. */
	check_ghost(g);
	poll_ghost(g);
	return true;
}

void nbd_ghost_tick(struct nbd_connection *conn)
{
	for (unsigned i = 0; conn->nr_ghosts && i < NBD_GHOSTS; i++)
		if (ghosts_of(conn)[i].nr_ranges)
			check_ghost(&ghosts_of(conn)[i]);
}

void nbd_ghost_leave(struct nbd_connection *conn)
{
	for (unsigned i = 0; conn->nr_ghosts && i < NBD_GHOSTS; i++) {
		struct nbd_ghost *g = &ghosts_of(conn)[i];

		if (!g->nr_ranges)
			continue;
		if (g->polls)
			queue_cancel(conn->owner->queue, &g->readable);
		log_warning(conn->owner->nbd->instance->name,
			    "connection %u: closing; the server may still carry out %u old writes "
			    "of a connection that was given up",
			    conn->number, g->nr_ranges);
	}
}

/* ---- the export's ---- */

int nbd_ghost_open(struct nbd *nbd)
{
	unsigned nr = nbd->nr_connections * NBD_GHOSTS, ranges = nbd->instance->depth + NBD_REPLAYS;

	nbd->ghost = calloc(nr, sizeof(*nbd->ghost));
	nbd->ghost_ranges = calloc((size_t)nr * ranges, sizeof(*nbd->ghost_ranges));
	if (!nbd->ghost || !nbd->ghost_ranges)
		return -ENOMEM;
	for (unsigned i = 0; i < nr; i++)
		nbd->ghost[i].ranges = &nbd->ghost_ranges[(size_t)i * ranges];
	return 0;
}

void nbd_ghost_close(struct nbd *nbd)
{
	for (unsigned i = 0; nbd->ghost && i < nbd->nr_connections * NBD_GHOSTS; i++)
		if (nbd->ghost[i].nr_ranges)
			close(nbd->ghost[i].socket.fd);
	free(nbd->ghost);
	free(nbd->ghost_ranges);
}
