/* SPDX-License-Identifier: MIT */
/*
 * A connection to the server: made, watched, lost, made again.
 *
 *   DOWN -> CONNECTING -> JOINING -> READY
 *    ^          |            |         |
 *    +----------+------------+---------+   it is lost, or refused
 *
 * libnbd's socket is watched by the queue's own ring, with one-shot polls: one
 * that is armed while data is there fires at once, so nothing is missed.
 *
 * The socket of a lost connection with writes in flight goes to ghost.c, and new
 * connections need not wait for its end: only requests that overlap those writes do.
 */
#include "backends/nbd/connection.h"
#include "backends/nbd/explain.h"
#include "backends/nbd/ghost.h"
#include "backends/nbd/loss.h"
#include "backends/nbd/outage.h"
#include "backends/nbd/queues.h"
#include "backends/nbd/tls.h"
#include "common/clock.h"
#include "common/container_of.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An idle connection is given up after request-timeout and so much silence. */
#define USER_TIMEOUT_MORE_MS 60000u

static const char *name_of(const struct nbd_connection *conn)
{
	return conn->owner->nbd->instance->name;
}

static uint64_t now_of(const struct nbd_connection *conn)
{
	return queue_now_ns(conn->owner->queue);
}

/* ---- its sockets ---- */

static void set_keepalive(int fd)
{
	int on = 1, idle = NBD_KEEPALIVE_IDLE_S, interval = NBD_KEEPALIVE_EVERY_S;
	int count = NBD_KEEPALIVE_COUNT;

	/* Fails on a Unix socket, where there is nothing to keep alive. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

/*
 * The kernel is not to give the connection up before request-timeout does: of one that
 * it has given up nothing tells whether the server still carries out its requests.
 */
static void set_user_timeout(int fd, const struct nbd *nbd)
{
	uint64_t ms = nbd->timeout_ns / NBD_NS_PER_MS + USER_TIMEOUT_MORE_MS;
	unsigned value = ms < INT_MAX ? (unsigned)ms : INT_MAX;

	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, sizeof(value));
}

void nbd_connection_cork(struct nbd_connection *conn, bool on)
{
	int value = on;

	if (!conn->is_tcp || conn->fd < 0 || conn->on_wire)
		return;
	setsockopt(conn->fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value));
}

/* libnbd closes its descriptor when the connection dies; ours is for what comes then. */
static void keep_socket(struct nbd_connection *conn)
{
	const struct instance *instance = conn->owner->nbd->instance;
	int off = 0;

	conn->fd = fcntl(nbd_aio_get_fd(conn->handle), F_DUPFD_CLOEXEC, 0);
	conn->is_tcp = !setsockopt(conn->fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off));
	conn->kernel_tls = conn->facts.tls && nbd_tls_is_kernels(conn->fd);
	if (conn->fd < 0)
		return;
	if (instance_option(instance, "keepalive")->number)
		set_keepalive(conn->fd);
	set_user_timeout(conn->fd, conn->owner->nbd);
	conn->slot = nbd_ghost_free_slot(conn);
	if (instance->host->keep_connection)
		instance->host->keep_connection(instance, conn->slot, conn->fd,
						nbd_ghost_wait_ms(conn->owner->nbd));
}

/*
 * The polls hold the socket's file in the kernel until they are cancelled, and come back with
 * -ECANCELED later: is_ready_for() ignores those.
 */
static void drop_polls(struct nbd_connection *conn)
{
	if (conn->polls_read)
		queue_cancel(conn->owner->queue, &conn->readable);
	if (conn->polls_write)
		queue_cancel(conn->owner->queue, &conn->writable);
}

/* ---- down ---- */

/* Nothing on it matters any more; the host's copy does not keep the connection either. */
static void close_socket(struct nbd_connection *conn)
{
	const struct instance *instance = conn->owner->nbd->instance;

	shutdown(conn->fd, SHUT_RDWR);
	close(conn->fd);
	if (instance->host->keep_connection)
		instance->host->keep_connection(instance, conn->slot, -1, 0);
}

/* A handle that has negotiated has been taken from it. */
static void end_connecting(struct nbd_connection *conn)
{
	if (conn->handle == conn->connect.handle) {
		drop_polls(conn);
		conn->handle = NULL;
	}
	nbd_connect_end(&conn->connect);
}

/*
 * libnbd may have a flush of nbd_flush_first() in flight still: then it stays in charge, as its
 * answer would be a reply that the wire does not know.
 */
static bool open_wire(struct nbd_connection *conn)
{
	if (!conn->wire || !nbd_wire_fits(conn) || nbd_aio_in_flight(conn->handle))
		return true;
	drop_polls(conn);
	return nbd_wire_open(conn->wire, conn->fd, conn->facts.structured);
}

static void drop_handle(struct nbd_connection *conn)
{
	drop_polls(conn);
	/* Requests go back to their lists after this: their buffers must be theirs alone. */
	nbd_wire_close(conn->wire);
	/*
	 * The ghost takes our copy of the socket over, with the ranges in flight, before libnbd
	 * forgets both.
	 */
	if (conn->state >= NBD_CONNECTION_JOINING)
		atomic_fetch_sub(&conn->owner->nbd->nr_up, 1);
	if (conn->fd >= 0 && !nbd_ghost_make(conn))
		close_socket(conn);
	conn->fd = -1;
	nbd_close(conn->handle);
	conn->handle = NULL;
}

/* Tells why it is not to be had, once a reason. */
static void report_refusal(struct nbd_connection *conn, const struct error *err, bool suspended)
{
	nbd_outage_failed(conn->owner->nbd, err->text, suspended);
	if (conn->reported == err->code &&
	    !strncmp(conn->reported_text, err->text, sizeof(conn->reported_text) - 1))
		return;
	conn->reported = err->code;
	snprintf(conn->reported_text, sizeof(conn->reported_text), "%.*s",
		 (int)sizeof(conn->reported_text) - 1, err->text);
	if (suspended)
		log_error(name_of(conn), "suspended: %s; I/O waits", err->text);
	else
		log_warning(name_of(conn), "connection %u: %s; retrying", conn->number, err->text);
}

/*
 * Not this time.  The longer it lasts, the longer until the next try: a quarter of
 * the time so far, so that a server is found soon after a short outage and not
 * besieged in a long one; and not at the same moment as by everybody else.
 */
static void back_off(struct nbd_connection *conn)
{
	uint64_t now = now_of(conn), ms = (now - conn->trouble_ns) / NBD_NS_PER_MS / 4;

	if (conn->state == NBD_CONNECTION_CONNECTING)
		end_connecting(conn);
	if (conn->handle)
		drop_handle(conn);
	if (ms < NBD_BACKOFF_MIN_MS)
		ms = NBD_BACKOFF_MIN_MS;
	if (ms > NBD_BACKOFF_MAX_MS)
		ms = NBD_BACKOFF_MAX_MS;
	ms -= now / 1000 % (ms / 2);
	conn->state = NBD_CONNECTION_DOWN;
	conn->next_ns = now + ms * NBD_NS_PER_MS;
}

static void suspend_connection(struct nbd_connection *conn, const struct error *err)
{
	struct nbd *nbd = conn->owner->nbd;

	report_refusal(conn, err, true);
	__atomic_store_n(&nbd->instance->gauges[NBD_GAUGE_SUSPENDED], 1, __ATOMIC_RELAXED);
	back_off(conn);
}

void nbd_connection_lost(struct nbd_connection *conn, const char *reason)
{
	struct nbd_queue *q = conn->owner;
	bool was_ready = conn->state == NBD_CONNECTION_READY, lasted = false;

	if (was_ready) {
		if (reason)
			log_warning(name_of(conn), "connection %u to the server is lost: %s: %s",
				    conn->number, reason,
				    q->nbd->deadline_ns ? "I/O waits" : "I/O fails");
		conn->lost_ns = now_of(conn);
		lasted = now_of(conn) - conn->ready_ns >= NBD_LASTED_MS * (uint64_t)NBD_NS_PER_MS;
		if (lasted)
			conn->trouble_ns = now_of(conn);
		conn->reported = 0;
		nbd_gauge_add(q->nbd, NBD_GAUGE_CONNECTED, -1);
		nbd_suspect_loss(q->nbd);
		if (reason)
			nbd_outage_failed(q->nbd, reason, false);
	}
	drop_handle(conn);
	q->nbd->events->lost(conn);
	conn->in_flight = 0;
	conn->fault = NULL;
	conn->explained = false;
	conn->retiring = false;
	back_off(conn);
	if (lasted)
		conn->next_ns = now_of(conn);
}

/* ---- up ---- */

static void connect_failed(struct nbd_connection *conn, const struct error *err)
{
	report_refusal(conn, err, false);
	back_off(conn);
	/* Without its host it has asked nobody: that may be back at any time. */
	if (err->code == ENOTCONN)
		conn->next_ns = now_of(conn) + NBD_BACKOFF_MIN_MS * (uint64_t)NBD_NS_PER_MS;
}

/* Up to a socket; from there on libnbd is called when it is ready. */
static void go_on_connecting(struct nbd_connection *conn)
{
	struct error err;
	int ret = nbd_connect_step(&conn->connect, &err);

	if (ret == -EAGAIN)
		return;
	if (ret) {
		connect_failed(conn, &err);
		return;
	}
	conn->handle = conn->connect.handle;
	/* A quick server has answered all by now, and nothing more would wake us. */
	nbd_connection_check(conn);
}

static void connect_it(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;
	struct error err;

	conn->returns_seen = atomic_load(&nbd->returns);
	conn->state = NBD_CONNECTION_CONNECTING;
	if (nbd_connect_begin(&conn->connect, nbd->instance, nbd->resolver, conn->owner->queue,
			      false, nbd_connect_ms(nbd), &err))
		connect_failed(conn, &err);
	else
		go_on_connecting(conn);
}

/* The connection has come to nothing.  Another address may do. */
static void connect_next(struct nbd_connection *conn, const struct error *err)
{
	drop_polls(conn);
	conn->handle = NULL;
	conn->explained = false;
	if (nbd_connect_next(&conn->connect))
		connect_failed(conn, err);
	else
		go_on_connecting(conn);
}

/* On each tick, while it connects. */
static void watch_connecting(struct nbd_connection *conn)
{
	struct error err;

	if (nbd_connect_is_late(&conn->connect, &err)) {
		/* A lookup cannot be hurried, and a new one would take as long. */
		if (conn->connect.lookup)
			report_refusal(conn, &err, false);
		else
			connect_failed(conn, &err);
	} else if (nbd_connect_is_overdue(&conn->connect)) {
		char place[NBD_PLACE_TEXT];

		error_set(&err, ETIMEDOUT, "%s does not answer" NBD_SILENT_CURE,
			  nbd_connect_where(&conn->connect, place, sizeof(place)));
		connect_next(conn, &err);
	}
	if (conn->state == NBD_CONNECTION_CONNECTING && !conn->handle)
		go_on_connecting(conn);
}

/* Negotiation is over: checks that this is still our export. */
static void settle(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;
	struct error err;

	/*
	 * Checked on every connection, not only on the first: the server behind the address may be
	 * another by now, and must never get the device's writes.
	 */
	nbd_connect_take(&conn->connect);
	if (nbd_server_facts(conn->handle, &conn->facts, &err) ||
	    nbd_facts_match(&nbd->facts, &conn->facts, &nbd->instance->limits,
			    nbd->nr_connections > 1, &err)) {
		/* In good order: nothing was sent on it. */
		nbd_aio_disconnect(conn->handle, 0);
		suspend_connection(conn, &err);
		return;
	}
	keep_socket(conn);
	if (conn->fd < 0) {
		error_set(&err, errno, "no descriptor for the connection: %s", strerror(errno));
		report_refusal(conn, &err, false);
		back_off(conn);
		return;
	}
	if (!open_wire(conn)) {
		/* What was cancelled comes back in the next round. */
		back_off(conn);
		return;
	}
	conn->answered_ns = now_of(conn);
	conn->state = NBD_CONNECTION_JOINING;
	atomic_fetch_add(&nbd->nr_up, 1);
	/* The server is there: the others need not wait for their time. */
	atomic_fetch_add(&nbd->returns, 1);
	nbd->events->connected(conn);
}

/* ---- an export that grows ---- */

void nbd_saw_size(struct nbd *nbd, uint64_t size)
{
	uint64_t seen = atomic_load(&nbd->seen_size);

	while (seen < size)
		if (atomic_compare_exchange_weak(&nbd->seen_size, &seen, size)) {
			/* A connection goes on with the size that it was made with. */
			nbd_queues_wake(nbd);
			return;
		}
}

/* A connection can be used for an export of that size; the device follows the smallest. */
static void set_size(struct nbd *nbd, unsigned conn, uint64_t size)
{
	uint64_t least = size;

	/*
	 * The smallest counts: a connection refuses requests behind the size that it was made with.
	 */
	atomic_store(&nbd->connection_sizes[conn], size);
	for (unsigned i = 0; i < nbd->nr_connections; i++)
		if (atomic_load(&nbd->connection_sizes[i]) < least)
			least = atomic_load(&nbd->connection_sizes[i]);
	instance_grow(nbd->instance, least);
}

/* ---- ready ---- */

static const char *tls_words(const struct nbd_connection *conn)
{
	return !conn->facts.tls   ? ""
	       : conn->kernel_tls ? ", with TLS by the kernel"
				  : ", with TLS by libnbd";
}

void nbd_connection_ready(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;
	char place[NBD_PLACE_TEXT];

	conn->state = NBD_CONNECTION_READY;
	conn->ready_ns = conn->answered_ns = now_of(conn);
	conn->overtaken_ns = 0;
	__atomic_store_n(&nbd->instance->gauges[NBD_GAUGE_SUSPENDED], 0, __ATOMIC_RELAXED);
	nbd_gauge_add(nbd, NBD_GAUGE_CONNECTED, 1);
	nbd_gauge_add(nbd, NBD_GAUGE_RECONNECTS, 1);
	nbd_outage_connected(conn->owner);
	set_size(nbd, conn->number, conn->facts.size);
	nbd_saw_size(nbd, conn->facts.size);
	log_info(name_of(conn), "connection %u is back after %.1f s, at %s%s", conn->number,
		 (double)(now_of(conn) - conn->lost_ns) / 1e9,
		 nbd_place(nbd->instance, conn->fd, place, sizeof(place)), tls_words(conn));
}

/* ---- libnbd's calls ---- */

/* Why a handshake has failed, before connect_next() forgets the address that it was with. */
static void explain_refusal(const struct nbd_connection *conn, struct error *err)
{
	char place[NBD_PLACE_TEXT];

	nbd_connect_where(&conn->connect, place, sizeof(place));
	if (conn->explained)
		nbd_explain_last(err, conn->connect.instance, place);
	else
		nbd_explain(err, conn->connect.instance, place, ECONNRESET,
			    "server disconnected unexpectedly");
}

void nbd_connection_check(struct nbd_connection *conn)
{
	struct error err;

	if (!conn->handle)
		return;
	/* libnbd sees nothing of what a wire does. */
	if (!conn->on_wire && nbd_connection_is_dead(conn->handle)) {
		if (conn->state == NBD_CONNECTION_CONNECTING) {
			explain_refusal(conn, &err);
			connect_next(conn, &err);
			return;
		}
		if (conn->explained)
			nbd_explain_loss(&err);
		else
			error_set(&err, ECONNRESET, "the server closed the connection");
		nbd_connection_lost(conn, err.text);
	} else if (conn->state == NBD_CONNECTION_CONNECTING) {
		if (nbd_aio_is_ready(conn->handle))
			settle(conn);
	} else if (conn->fault) {
		nbd_connection_lost(conn, conn->fault);
	}
}

bool nbd_connection_failed(struct nbd_connection *conn, int error)
{
	switch (error) {
	case ENOTCONN: /* libnbd's own, for what it had when the connection died */
		return true;
	case ESHUTDOWN: /* NBD protocol, "Error values": the server is being shut down */
		conn->fault = "the server says that it shuts down";
		return true;
	case EPROTO: /* libnbd's own: the server's chunks make no sense */
		conn->fault = "the server breaks the protocol";
		return true;
	}
	return false;
}

static bool wants(const struct nbd_connection *conn, unsigned direction)
{
	return conn->handle && !conn->on_wire && (nbd_aio_get_direction(conn->handle) & direction);
}

/*
 * libnbd that is told that there is something to read, and there is nothing, waits for
 * it and sends nothing before: neither the rest of a write, which may be what the server
 * waits for, nor what comes next, which would wait for the slowest answer.  So this must
 * be sure.
 */
static bool can_read(const struct nbd_connection *conn)
{
	struct pollfd fd = { .fd = nbd_aio_get_fd(conn->handle), .events = POLLIN };

	return wants(conn, LIBNBD_AIO_DIRECTION_READ) && poll(&fd, 1, 0) == 1;
}

static void take_answers(struct nbd_connection *conn)
{
	uint64_t before;

	if (conn->facts.tls) {
		/* No poll reports bytes that TLS has read ahead: only libnbd's own does. */
		int ret;

		while ((ret = nbd_poll(conn->handle, 0)) > 0)
			;
		conn->explained = ret < 0;
		return;
	}
	do {
		before = conn->answered;
		conn->explained = nbd_aio_notify_read(conn->handle);
		if (conn->explained)
			return;
	} while (conn->in_flight && conn->answered != before && can_read(conn));
}

/* A poll came back. */
static bool is_ready_for(struct nbd_connection *conn, int result)
{
	if (!conn->handle || result == -ECANCELED)
		return false;
	if (result < 0)
		nbd_connection_lost(conn, "its socket cannot be watched");
	return result >= 0;
}

/*
 * A poll is one-shot: nbd_connection_watch() arms the next at the round's end, so that one poll
 * serves all answers of a round.
 */
static void readable(struct ring_op *op, int result)
{
	struct nbd_connection *conn = container_of(op, struct nbd_connection, readable);

	conn->polls_read = false;
	if (!is_ready_for(conn, result) || !can_read(conn))
		return;
	if (conn->state == NBD_CONNECTION_CONNECTING)
		conn->explained = nbd_aio_notify_read(conn->handle);
	else
		take_answers(conn);
	nbd_connection_check(conn);
}

static void writable(struct ring_op *op, int result)
{
	struct nbd_connection *conn = container_of(op, struct nbd_connection, writable);

	conn->polls_write = false;
	if (!is_ready_for(conn, result) || !wants(conn, LIBNBD_AIO_DIRECTION_WRITE))
		return;
	conn->explained = nbd_aio_notify_write(conn->handle);
	nbd_connection_check(conn);
}

/* The export has grown, and this connection knows it as it was. */
static bool is_outgrown(const struct nbd_connection *conn)
{
	uint64_t size = atomic_load_explicit(&conn->owner->nbd->seen_size, memory_order_relaxed);

	return conn->state == NBD_CONNECTION_READY && conn->facts.size < size &&
	       conn->size_tried < size;
}

/* Makes it again once it has nothing under way, and nothing is owed to anybody. */
static void retire(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;

	/* With nothing kept, a new connection means that a flush fails. */
	if (nbd_has_inherited(nbd) ||
	    (nbd->retain == NBD_RETAIN_NONE && nbd_journal_has_unflushed(&nbd->journal))) {
		conn->retiring = false;
		return;
	}
	conn->retiring = true;
	if (conn->in_flight)
		return;
	conn->size_tried = atomic_load(&nbd->seen_size);
	log_info(name_of(conn), "reconnecting %u to pick up the export's new size", conn->number);
	nbd_connection_lost(conn, NULL);
}

void nbd_connection_watch(struct nbd_connection *conn)
{
	struct queue *queue = conn->owner->queue;
	int fd;

	if (__builtin_expect(is_outgrown(conn), 0))
		retire(conn);
	/* The resolver may have woken it. */
	if (__builtin_expect(conn->connect.lookup != NULL, 0))
		go_on_connecting(conn);
	if (!conn->handle)
		return;
	if (conn->on_wire) {
		nbd_wire_round(conn->wire);
		return;
	}
	fd = conn->fd;
	if (fd < 0)
		fd = nbd_aio_get_fd(conn->handle);
	if (fd < 0)
		return;
	if (!conn->polls_read && wants(conn, LIBNBD_AIO_DIRECTION_READ)) {
		conn->polls_read = true;
		queue_poll(queue, &conn->readable, fd, POLLIN);
	}
	if (!conn->polls_write && wants(conn, LIBNBD_AIO_DIRECTION_WRITE)) {
		conn->polls_write = true;
		queue_poll(queue, &conn->writable, fd, POLLOUT);
	}
}

/* ---- commands ---- */

int nbd_connection_send_by_libnbd(struct nbd_connection *conn, const struct nbd_command *c)
{
	struct nbd_handle *h = conn->handle;
	nbd_completion_callback done = { .callback = c->done, .user_data = c->context };

	switch (c->type) {
	case NBD_COMMAND_READ:
		return nbd_aio_pread(h, c->data, c->length, c->offset, done, 0) < 0 ? -1 : 0;
	case NBD_COMMAND_WRITE:
		return nbd_aio_pwrite(h, c->data, c->length, c->offset, done, c->flags) < 0 ? -1
											    : 0;
	case NBD_COMMAND_FLUSH:
		return nbd_aio_flush(h, done, 0) < 0 ? -1 : 0;
	case NBD_COMMAND_TRIM:
		return nbd_aio_trim(h, c->length, c->offset, done, c->flags) < 0 ? -1 : 0;
	case NBD_COMMAND_WRITE_ZEROES:
		break;
	}
	return nbd_aio_zero(h, c->length, c->offset, done, c->flags) < 0 ? -1 : 0;
}

int nbd_connection_refused(const struct nbd_connection *conn)
{
	if (nbd_aio_is_dead(conn->handle))
		return 0;
	return nbd_get_errno() ? nbd_get_errno() : EIO;
}

/* ---- time ---- */

void nbd_connection_tick(struct nbd_connection *conn)
{
	uint64_t now = now_of(conn);

	nbd_ghost_tick(conn);
	switch (conn->state) {
	case NBD_CONNECTION_DOWN:
		if ((now >= conn->next_ns ||
		     conn->returns_seen != atomic_load(&conn->owner->nbd->returns)) &&
		    nbd_ghost_has_room(conn))
			connect_it(conn);
		break;
	case NBD_CONNECTION_CONNECTING:
		watch_connecting(conn);
		break;
	case NBD_CONNECTION_JOINING:
	case NBD_CONNECTION_READY:
		break;
	}
}

/* ---- start and end ---- */

int nbd_connection_start(struct nbd_connection *conn, struct nbd_queue *owner, unsigned number,
			 struct nbd_handle *handle, struct error *err)
{
	*conn = (struct nbd_connection){
		.owner = owner,
		.number = number,
		.state = NBD_CONNECTION_READY,
		.handle = handle,
		.facts = owner->nbd->facts,
		.fd = -1,
		/* Requests of the queue, a replay's, our own flush and the last one. */
		.wire = nbd_wire_create(conn, owner->nbd->instance->depth + NBD_REPLAYS + 2,
					nbd_connection_check),
		.readable.done = readable,
		.writable.done = writable,
	};
	conn->answered_ns = conn->lost_ns = conn->trouble_ns = now_of(conn);
	if (nbd_connection_is_dead(handle)) {
		nbd_close(handle);
		conn->handle = NULL;
		conn->state = NBD_CONNECTION_DOWN;
		return 0;
	}
	atomic_fetch_add(&owner->nbd->nr_up, 1);
	nbd_gauge_add(owner->nbd, NBD_GAUGE_CONNECTED, 1);
	keep_socket(conn);
	if (conn->fd < 0)
		return error_set(err, errno, "no descriptor for connection %u: %s", number,
				 strerror(errno));
	open_wire(conn);
	if (conn->facts.tls)
		log_info(name_of(conn), "connection %u is up%s", number, tls_words(conn));
	return 0;
}

static bool may_leave(const struct nbd_connection *conn)
{
	return conn->state == NBD_CONNECTION_READY && !conn->in_flight && conn->handle;
}

/* libnbd says goodbye: the stream is between two messages. */
void nbd_connection_leave(struct nbd_connection *conn)
{
	nbd_wire_close(conn->wire);
	if (may_leave(conn))
		nbd_aio_disconnect(conn->handle, 0);
}

void nbd_connection_end(struct nbd_connection *conn, uint64_t until_ms)
{
	uint64_t now = clock_ms();

	if (conn->state == NBD_CONNECTION_CONNECTING)
		end_connecting(conn);
	if (conn->handle) {
		if (may_leave(conn))
			nbd_server_run(conn->handle, NULL,
				       until_ms > now ? (unsigned)(until_ms - now) : 0,
				       nbd_aio_is_closed, NULL);
		if (conn->state >= NBD_CONNECTION_JOINING)
			atomic_fetch_sub(&conn->owner->nbd->nr_up, 1);
		if (conn->state == NBD_CONNECTION_READY)
			nbd_gauge_add(conn->owner->nbd, NBD_GAUGE_CONNECTED, -1);
		nbd_close(conn->handle);
	}
	if (conn->fd >= 0)
		close(conn->fd);
	nbd_wire_destroy(conn->wire);
	nbd_ghost_leave(conn);
}
