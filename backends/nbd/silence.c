/* SPDX-License-Identifier: MIT */
/*
 * A connection that is silent: is the server slow, or gone?
 *
 * Age alone proves nothing: a flush to slow disks takes minutes, and a request that is
 * given up for its age is carried out again, with the same end.  So a connection on which
 * other requests are answered is alive; and on one that is silent something is asked that
 * any living server can answer, however busy: another connection, as far as the server's
 * options (a request on the same connection would wait behind the slow one with a server
 * that serves one at a time).  A stopped process accepts connections too, in its kernel,
 * but does not negotiate.
 *
 *   silent for half the time-out  one connection of the export begins to probe, and TCP's
 *                                 keepalive is made quick
 *   silent for the time-out       lost if no connection of the export was answered and no
 *                                 probe has negotiated meanwhile, or if the peer's kernel
 *                                 does not acknowledge what TCP sends
 *   NBD_PATIENCE time-outs        lost in any case: a living server, or a proxy before it,
 *                                 may have forgotten a request
 *
 * A request whose connection was given up so has twice the time on the next one
 * (nbd_io.cuts): however slow it is, it ends.
 */
#include "backends/nbd/silence.h"
#include "backends/nbd/connection.h"
#include "backends/nbd/outage.h"
#include "backends/nbd/replay.h"
#include "backends/nbd/request.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define PROBE_MIN_NS  (2000ull * NBD_NS_PER_MS) /* for a probe, however short the time-out */
#define PROBE_NEXT_NS (1000ull * NBD_NS_PER_MS) /* between two that fail */
#define ACK_MIN_NS    (5000ull * NBD_NS_PER_MS) /* for an acknowledgement, likewise */
#define CUTS_MAX      10u
#define QUIET_PROBES  3u /* of a zero window, not acknowledged */

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The server has shown life; read and written by all queues, on their ticks only. */
static void note_life(struct nbd *nbd, uint64_t ns)
{
	uint64_t before = atomic_load(&nbd->alive_ns);

	while (before < ns && !atomic_compare_exchange_weak(&nbd->alive_ns, &before, ns))
		;
}

void nbd_silence_met(struct nbd_connection *conn)
{
	note_life(conn->owner->nbd, queue_now_ns(conn->owner->queue));
}

/* ---- what TCP knows ---- */

static void set_quick_keepalive(struct nbd_connection *conn, bool quick)
{
	int on = quick || instance_option(conn->owner->nbd->instance, "keepalive")->number;
	int idle = quick ? 1 : NBD_KEEPALIVE_IDLE_S, interval = quick ? 1 : NBD_KEEPALIVE_EVERY_S;
	/* In doubt it is decided here, by the time-out, and not by the kernel. */
	int count = quick ? 127 : NBD_KEEPALIVE_COUNT;

	conn->suspected = quick;
	if (!conn->is_tcp || conn->fd < 0)
		return;
	setsockopt(conn->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

/*
 * Whether the peer's kernel no longer acknowledges anything: this connection leads nowhere
 * even if another one reaches the server (a host that has started again would reset it; a
 * NAT that has forgotten it is silent).
 */
static bool is_cut_off(const struct nbd_connection *conn, uint64_t wait_ns)
{
	uint64_t limit_ms = later(wait_ns, ACK_MIN_NS) / NBD_NS_PER_MS;
	struct tcp_info info = { 0 };
	socklen_t length = sizeof(info);

	if (!conn->is_tcp || getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		return false;
	/*
	 * A server that is busy does not read, and its window closes: it is probed, at
	 * intervals that grow up to two minutes, and no keepalive is sent.
	 */
	if (!info.tcpi_unacked && info.tcpi_notsent_bytes)
		return info.tcpi_probes >= QUIET_PROBES;
	return info.tcpi_last_ack_recv >= limit_ms;
}

/* ---- the probe ---- */

static void end_probe(struct nbd_connection *conn)
{
	if (conn->probes)
		nbd_connect_end(&conn->probe);
	conn->probes = false;
}

static void stop_probing(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;

	end_probe(conn);
	if (atomic_load(&nbd->prober) == conn)
		atomic_store(&nbd->prober, NULL);
}

static void probe_failed(struct nbd_connection *conn, uint64_t now)
{
	end_probe(conn);
	conn->probe_ns = now + PROBE_NEXT_NS;
}

static void begin_probe(struct nbd_connection *conn, uint64_t now)
{
	struct nbd *nbd = conn->owner->nbd;
	unsigned ms = nbd_connect_ms(nbd);
	struct error err;

	if (ms < PROBE_MIN_NS / NBD_NS_PER_MS)
		ms = PROBE_MIN_NS / NBD_NS_PER_MS;
	if (!nbd_connect_begin(&conn->probe, nbd->instance, nbd->resolver, NULL, true, ms, &err)) {
		conn->probes = true;
		return;
	}
	/* Nobody was asked, so this says nothing; nor could a lost connection be made again. */
	if (err.code == ENOTCONN)
		atomic_store(&nbd->probed_ns, now);
	probe_failed(conn, now);
}

static void step_probe(struct nbd_connection *conn, uint64_t now)
{
	struct nbd_handle *h;
	struct error err;
	int ret;

	if (!conn->probes && now >= conn->probe_ns)
		begin_probe(conn, now);
	if (!conn->probes)
		return;
	ret = nbd_connect_step(&conn->probe, &err);
	if (ret && ret != -EAGAIN) {
		probe_failed(conn, now);
		return;
	}
	h = conn->probe.handle;
	while (!ret && nbd_poll(h, 0) > 0)
		;
	if (!ret && (nbd_aio_is_negotiating(h) || nbd_aio_is_ready(h))) {
		/* In good order, so that no server complains. */
		if (nbd_aio_is_negotiating(h))
			nbd_aio_opt_abort(h);
		else
			nbd_aio_disconnect(h, 0);
		note_life(conn->owner->nbd, now);
		stop_probing(conn);
	} else if (!ret && (nbd_connection_is_dead(h) || nbd_connect_is_overdue(&conn->probe))) {
		if (nbd_connect_next(&conn->probe))
			probe_failed(conn, now);
	} else if (!conn->probe.lookup && nbd_connect_is_late(&conn->probe, &err)) {
		probe_failed(conn, now);
	}
}

/* A single connection probes for all of the export. */
static void probe(struct nbd_connection *conn, uint64_t now)
{
	struct nbd *nbd = conn->owner->nbd;
	struct nbd_connection *none = NULL;

	if (atomic_load(&nbd->prober) != conn) {
		if (!atomic_compare_exchange_strong(&nbd->prober, &none, conn))
			return;
		conn->probe_ns = 0;
		/* Unless another one has begun to, and there was no life since. */
		if (atomic_load(&nbd->probed_ns) <= atomic_load(&nbd->alive_ns))
			atomic_store(&nbd->probed_ns, now);
	}
	step_probe(conn, now);
}

/* ---- the verdict ---- */

/* The allowance of what the connection has under way. */
static uint64_t wait_of(const struct nbd_connection *conn)
{
	const struct nbd_queue *q = conn->owner;
	const struct nbd *nbd = q->nbd;
	unsigned cuts = nbd_most_cuts(q, conn);

	if (nbd_replay_oldest_sent(conn) && nbd->replay_cuts > cuts)
		cuts = nbd->replay_cuts;
	return nbd->timeout_ns << (cuts < CUTS_MAX ? cuts : CUTS_MAX);
}

static uint64_t oldest_of(const struct nbd_connection *conn)
{
	uint64_t oldest = nbd_oldest_sent(conn->owner, conn);
	uint64_t replay = nbd_replay_oldest_sent(conn);

	return replay && (!oldest || replay < oldest) ? replay : oldest;
}

static void calm_down(struct nbd_connection *conn)
{
	if (conn->suspected)
		set_quick_keepalive(conn, false);
	conn->logged_slow = false;
	stop_probing(conn);
}

static void log_slow(struct nbd_connection *conn, uint64_t age)
{
	if (!conn->logged_slow)
		log_info(conn->owner->nbd->instance->name,
			 "connection %u: a request has waited for an answer for %.0f s; the "
			 "server is alive: waiting on",
			 conn->number, (double)age / 1e9);
	conn->logged_slow = true;
}

/* Why the connection is to be given up; NULL: it is not. */
static const char *fault_of(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;
	uint64_t now = queue_now_ns(conn->owner->queue), wait, patience, silent, oldest, probed;

	note_life(nbd, conn->answered_ns);
	if (atomic_load(&nbd->silent) && now - atomic_load(&nbd->alive_ns) < nbd->timeout_ns / 2)
		nbd_outage_silent(nbd, false);
	oldest = conn->in_flight ? oldest_of(conn) : 0;
	/* A request may be younger than this round. */
	if (!oldest || oldest >= now || nbd->timeout_ns == NBD_FOREVER) {
		calm_down(conn);
		return NULL;
	}
	wait = wait_of(conn);
	patience = wait * NBD_PATIENCE;
	if (now - oldest >= patience &&
	    (now - conn->answered_ns >= patience ||
	     (conn->overtaken_ns > oldest && conn->overtaken_ns - oldest >= patience)))
		return "the server is alive, but does not answer a request (request-timeout)";
	silent = now - later(oldest, conn->answered_ns);
	if (silent < wait / 2) {
		calm_down(conn);
		return NULL;
	}
	if (!conn->suspected)
		set_quick_keepalive(conn, true);
	if (now - atomic_load(&nbd->alive_ns) >= wait / 2 || conn->probes)
		probe(conn, now);
	/* A probe that has just begun may find the server well. */
	probed = atomic_load(&nbd->probed_ns);
	if (probed > atomic_load(&nbd->alive_ns) && now - probed >= PROBE_MIN_NS)
		nbd_outage_silent(nbd, true);
	if (silent < wait)
		return NULL;
	if (is_cut_off(conn, wait))
		return "the server's host acknowledges no data (request-timeout)";
	if (now - atomic_load(&nbd->alive_ns) < wait) {
		log_slow(conn, silent);
		return NULL;
	}
	if (probed <= atomic_load(&nbd->alive_ns) || now - probed < PROBE_MIN_NS)
		return NULL;
	return "the server does not answer (request-timeout)";
}

/* Requests that had a whole time-out have more time on the next connection. */
static void count_cuts(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;
	uint64_t oldest = nbd_replay_oldest_sent(conn);

	nbd_count_cuts(conn->owner, conn);
	if (oldest && queue_now_ns(conn->owner->queue) - oldest >= nbd->timeout_ns)
		nbd->replay_cuts++;
}

void nbd_silence_tick(struct nbd_connection *conn)
{
	const char *fault;

	if (conn->state < NBD_CONNECTION_JOINING)
		return;
	fault = fault_of(conn);
	if (!fault)
		return;
	count_cuts(conn);
	nbd_connection_lost(conn, fault);
}

void nbd_silence_end(struct nbd_connection *conn)
{
	stop_probing(conn);
	conn->suspected = conn->logged_slow = false;
}
