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
#include "backends/nbd/nbd.h"
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

static const char *name_of(const struct nbd_link *link)
{
	return link->owner->nbd->export->name;
}

static uint64_t now_of(const struct nbd_link *link)
{
	return queue_now_ns(link->owner->queue);
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

void nbd_link_cork(struct nbd_link *link, bool on)
{
	int value = on;

	if (!link->is_tcp || link->fd < 0)
		return;
	setsockopt(link->fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value));
}

/* libnbd closes its descriptor when the connection dies; ours is for what comes then. */
static void keep_socket(struct nbd_link *link)
{
	const struct export *export = link->owner->nbd->export;
	int off = 0;

	link->fd = fcntl(nbd_aio_get_fd(link->handle), F_DUPFD_CLOEXEC, 0);
	link->is_tcp = !setsockopt(link->fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off));
	if (link->fd < 0)
		return;
	if (export_option(export, "keepalive")->number)
		set_keepalive(link->fd);
	set_user_timeout(link->fd, link->owner->nbd);
	link->slot = nbd_ghost_free_slot(link);
	if (export->host->keep_connection)
		export->host->keep_connection(export, link->slot, link->fd,
					      nbd_ghost_wait_ms(link->owner->nbd));
}

static void drop_polls(struct nbd_link *link)
{
	if (link->polls_read)
		queue_cancel(link->owner->queue, &link->readable);
	if (link->polls_write)
		queue_cancel(link->owner->queue, &link->writable);
}

/* ---- down ---- */

/* Nothing on it matters any more; the host's copy does not keep the connection either. */
static void close_socket(struct nbd_link *link)
{
	const struct export *export = link->owner->nbd->export;

	shutdown(link->fd, SHUT_RDWR);
	close(link->fd);
	if (export->host->keep_connection)
		export->host->keep_connection(export, link->slot, -1, 0);
}

/* A handle that has negotiated has been taken from it. */
static void end_connecting(struct nbd_link *link)
{
	if (link->handle == link->connect.handle) {
		drop_polls(link);
		link->handle = NULL;
	}
	nbd_connect_end(&link->connect);
}

static void drop_handle(struct nbd_link *link)
{
	drop_polls(link);
	if (link->state >= NBD_LINK_JOINING)
		atomic_fetch_sub(&link->owner->nbd->nr_up, 1);
	if (link->fd >= 0 && !nbd_ghost_make(link))
		close_socket(link);
	link->fd = -1;
	nbd_close(link->handle);
	link->handle = NULL;
}

/* Tells why it is not to be had, once a reason. */
static void tell(struct nbd_link *link, const struct error *err, bool suspended)
{
	if (link->told == err->code &&
	    !strncmp(link->told_text, err->text, sizeof(link->told_text) - 1))
		return;
	link->told = err->code;
	snprintf(link->told_text, sizeof(link->told_text), "%.*s", (int)sizeof(link->told_text) - 1,
		 err->text);
	if (suspended)
		log_error(name_of(link), "suspended: %s; I/O waits", err->text);
	else
		log_warning(name_of(link), "connection %u: %s: trying on", link->number, err->text);
}

/*
 * Not this time.  The longer it lasts, the longer until the next try: a quarter of
 * the time so far, so that a server is found soon after a short outage and not
 * besieged in a long one; and not at the same moment as by everybody else.
 */
static void back_off(struct nbd_link *link)
{
	uint64_t now = now_of(link), ms = (now - link->trouble_ns) / NBD_NS_PER_MS / 4;

	if (link->state == NBD_LINK_CONNECTING)
		end_connecting(link);
	if (link->handle)
		drop_handle(link);
	if (ms < NBD_BACKOFF_MIN_MS)
		ms = NBD_BACKOFF_MIN_MS;
	if (ms > NBD_BACKOFF_MAX_MS)
		ms = NBD_BACKOFF_MAX_MS;
	ms -= now / 1000 % (ms / 2);
	link->state = NBD_LINK_DOWN;
	link->next_ns = now + ms * NBD_NS_PER_MS;
}

static void suspend(struct nbd_link *link, const struct error *err)
{
	struct nbd *nbd = link->owner->nbd;

	tell(link, err, true);
	__atomic_store_n(&nbd->export->gauges[NBD_GAUGE_SUSPENDED], 1, __ATOMIC_RELAXED);
	back_off(link);
}

void nbd_link_lost(struct nbd_link *link, const char *reason)
{
	struct nbd_queue *q = link->owner;
	bool was_ready = link->state == NBD_LINK_READY, lasted = false;

	if (was_ready) {
		if (reason)
			log_warning(name_of(link), "connection %u to the server is lost: %s: %s",
				    link->number, reason,
				    q->nbd->deadline_ns ? "I/O waits" : "I/O fails");
		link->lost_ns = now_of(link);
		lasted = now_of(link) - link->ready_ns >= NBD_LASTED_MS * (uint64_t)NBD_NS_PER_MS;
		if (lasted)
			link->trouble_ns = now_of(link);
		link->told = 0;
		nbd_gauge_add(q->nbd, NBD_GAUGE_CONNECTED, -1);
		nbd_doubt(q->nbd);
	}
	nbd_silence_end(link);
	drop_handle(link);
	nbd_replay_abandon(link);
	nbd_take_back(q, link);
	link->in_flight = 0;
	link->fault = NULL;
	link->explained = false;
	link->retiring = false;
	back_off(link);
	if (lasted)
		link->next_ns = now_of(link);
}

/* ---- up ---- */

static void connect_failed(struct nbd_link *link, const struct error *err)
{
	tell(link, err, false);
	back_off(link);
	/* Without its host it has asked nobody: that may be back at any time. */
	if (err->code == ENOTCONN)
		link->next_ns = now_of(link) + NBD_BACKOFF_MIN_MS * (uint64_t)NBD_NS_PER_MS;
}

/* Up to a socket; from there on libnbd is called when it is ready. */
static void go_on_connecting(struct nbd_link *link)
{
	struct error err;
	int ret = nbd_connect_step(&link->connect, &err);

	if (ret == -EAGAIN)
		return;
	if (ret) {
		connect_failed(link, &err);
		return;
	}
	link->handle = link->connect.handle;
	/* A quick server has answered all by now, and nothing more would wake us. */
	nbd_link_look(link);
}

static void connect_it(struct nbd_link *link)
{
	struct nbd *nbd = link->owner->nbd;
	struct error err;

	link->returns_seen = atomic_load(&nbd->returns);
	link->state = NBD_LINK_CONNECTING;
	if (nbd_connect_begin(&link->connect, nbd->export, nbd->resolver, link->owner->queue, false,
			      nbd_connect_ms(nbd), &err))
		connect_failed(link, &err);
	else
		go_on_connecting(link);
}

/* The connection has come to nothing.  Another address may do. */
static void connect_next(struct nbd_link *link, const struct error *err)
{
	drop_polls(link);
	link->handle = NULL;
	link->explained = false;
	if (nbd_connect_next(&link->connect))
		connect_failed(link, err);
	else
		go_on_connecting(link);
}

/* On each tick, while it connects. */
static void watch_connecting(struct nbd_link *link)
{
	struct error err;

	if (nbd_connect_is_late(&link->connect, &err)) {
		/* A lookup cannot be hurried, and a new one would take as long. */
		if (link->connect.lookup)
			tell(link, &err, false);
		else
			connect_failed(link, &err);
	} else if (nbd_connect_is_overdue(&link->connect)) {
		error_set(&err, ETIMEDOUT, "the server does not answer");
		connect_next(link, &err);
	}
	if (link->state == NBD_LINK_CONNECTING && !link->handle)
		go_on_connecting(link);
}

/* Negotiation is over: checks that this is still our export. */
static void settle(struct nbd_link *link)
{
	struct nbd *nbd = link->owner->nbd;
	struct error err;

	nbd_connect_take(&link->connect);
	if (nbd_server_facts(link->handle, &link->facts, &err) ||
	    nbd_facts_match(&nbd->facts, &link->facts, &nbd->export->limits, nbd->nr_links > 1,
			    &err)) {
		/* In good order: nothing was sent on it. */
		nbd_aio_disconnect(link->handle, 0);
		suspend(link, &err);
		return;
	}
	keep_socket(link);
	if (link->fd < 0) {
		error_set(&err, errno, "no descriptor: %s", strerror(errno));
		tell(link, &err, false);
		back_off(link);
		return;
	}
	link->answered_ns = now_of(link);
	nbd_silence_met(link);
	link->state = NBD_LINK_JOINING;
	atomic_fetch_add(&nbd->nr_up, 1);
	/* The server is there: the others need not wait for their time. */
	atomic_fetch_add(&nbd->returns, 1);
	nbd_replay_join(link->owner, link);
}

void nbd_link_ready(struct nbd_link *link)
{
	struct nbd *nbd = link->owner->nbd;
	char place[NBD_PLACE_TEXT];

	link->state = NBD_LINK_READY;
	link->ready_ns = link->answered_ns = now_of(link);
	link->overtaken_ns = 0;
	__atomic_store_n(&nbd->export->gauges[NBD_GAUGE_SUSPENDED], 0, __ATOMIC_RELAXED);
	nbd_gauge_add(nbd, NBD_GAUGE_CONNECTED, 1);
	nbd_gauge_add(nbd, NBD_GAUGE_RECONNECTS, 1);
	nbd_link_size(nbd, link->number, link->facts.size);
	nbd_saw_size(nbd, link->facts.size);
	log_info(name_of(link), "connection %u is back after %.1f s, at %s", link->number,
		 (double)(now_of(link) - link->lost_ns) / 1e9,
		 nbd_connect_place(nbd->export, link->fd, place, sizeof(place)));
}

/* ---- libnbd's calls ---- */

void nbd_link_look(struct nbd_link *link)
{
	struct error err;

	if (!link->handle)
		return;
	if (nbd_link_is_dead(link->handle)) {
		if (link->explained)
			nbd_error(&err, "the connection has ended");
		else
			error_set(&err, ECONNRESET, "the server has ended the connection");
		if (link->state == NBD_LINK_CONNECTING)
			connect_next(link, &err);
		else
			nbd_link_lost(link, err.text);
	} else if (link->state == NBD_LINK_CONNECTING) {
		if (nbd_aio_is_ready(link->handle))
			settle(link);
	} else if (link->fault) {
		nbd_link_lost(link, link->fault);
	}
}

bool nbd_link_answered(struct nbd_link *link, uint64_t sent_ns, int error)
{
	switch (error) {
	case ENOTCONN: /* libnbd's own, for what it had when the connection died */
		return false;
	case ESHUTDOWN: /* NBD protocol, "Error values": the server is being shut down */
		link->fault = "the server says that it shuts down";
		return false;
	case EPROTO: /* libnbd's own: the server's chunks make no sense */
		link->fault = "the server breaks the protocol";
		return false;
	}
	link->in_flight--;
	link->answered++;
	link->answered_ns = now_of(link);
	if (sent_ns > link->overtaken_ns)
		link->overtaken_ns = sent_ns;
	return true;
}

static bool wants(const struct nbd_link *link, unsigned direction)
{
	return link->handle && (nbd_aio_get_direction(link->handle) & direction);
}

/*
 * libnbd that is told that there is something to read, and there is nothing, waits for
 * it and sends nothing before: neither the rest of a write, which may be what the server
 * waits for, nor what comes next, which would wait for the slowest answer.  So this must
 * be sure.
 */
static bool can_read(const struct nbd_link *link)
{
	struct pollfd fd = { .fd = nbd_aio_get_fd(link->handle), .events = POLLIN };

	return wants(link, LIBNBD_AIO_DIRECTION_READ) && poll(&fd, 1, 0) == 1;
}

static void take_answers(struct nbd_link *link)
{
	uint64_t before;

	if (link->facts.tls) {
		/* No poll reports bytes that TLS has read ahead: only libnbd's own does. */
		int ret;

		while ((ret = nbd_poll(link->handle, 0)) > 0)
			;
		link->explained = ret < 0;
		return;
	}
	do {
		before = link->answered;
		link->explained = nbd_aio_notify_read(link->handle);
		if (link->explained)
			return;
	} while (link->in_flight && link->answered != before && can_read(link));
}

/* A poll came back. */
static bool is_ready_for(struct nbd_link *link, int result)
{
	if (!link->handle || result == -ECANCELED)
		return false;
	if (result < 0)
		nbd_link_lost(link, "its socket cannot be watched");
	return result >= 0;
}

static void readable(struct ring_op *op, int result)
{
	struct nbd_link *link = container_of(op, struct nbd_link, readable);

	link->polls_read = false;
	if (!is_ready_for(link, result) || !can_read(link))
		return;
	if (link->state == NBD_LINK_CONNECTING)
		link->explained = nbd_aio_notify_read(link->handle);
	else
		take_answers(link);
	nbd_link_look(link);
}

static void writable(struct ring_op *op, int result)
{
	struct nbd_link *link = container_of(op, struct nbd_link, writable);

	link->polls_write = false;
	if (!is_ready_for(link, result) || !wants(link, LIBNBD_AIO_DIRECTION_WRITE))
		return;
	link->explained = nbd_aio_notify_write(link->handle);
	nbd_link_look(link);
}

/* The export has grown, and this connection knows it as it was. */
static bool is_outgrown(const struct nbd_link *link)
{
	uint64_t size = atomic_load_explicit(&link->owner->nbd->seen_size, memory_order_relaxed);

	return link->state == NBD_LINK_READY && link->facts.size < size && link->size_tried < size;
}

/* Makes it anew once it has nothing under way, and nothing is owed to anybody. */
static void retire(struct nbd_link *link)
{
	struct nbd *nbd = link->owner->nbd;

	/* With nothing kept, a new connection means that a flush fails. */
	if (nbd_has_heritage(nbd) ||
	    (nbd->retain == NBD_RETAIN_TELL && nbd_ledger_owes(&nbd->ledger))) {
		link->retiring = false;
		return;
	}
	link->retiring = true;
	if (link->in_flight)
		return;
	link->size_tried = atomic_load(&nbd->seen_size);
	log_info(name_of(link), "connection %u is made anew: the export has grown", link->number);
	nbd_link_lost(link, NULL);
}

void nbd_link_watch(struct nbd_link *link)
{
	struct queue *queue = link->owner->queue;
	int fd;

	if (__builtin_expect(is_outgrown(link), 0))
		retire(link);
	/* The resolver may have woken it. */
	if (__builtin_expect(link->connect.lookup != NULL, 0))
		go_on_connecting(link);
	if (!link->handle)
		return;
	fd = link->fd;
	if (fd < 0)
		fd = nbd_aio_get_fd(link->handle);
	if (fd < 0)
		return;
	if (!link->polls_read && wants(link, LIBNBD_AIO_DIRECTION_READ)) {
		link->polls_read = true;
		queue_poll(queue, &link->readable, fd, POLLIN);
	}
	if (!link->polls_write && wants(link, LIBNBD_AIO_DIRECTION_WRITE)) {
		link->polls_write = true;
		queue_poll(queue, &link->writable, fd, POLLOUT);
	}
}

/* ---- time ---- */

void nbd_link_tick(struct nbd_link *link)
{
	uint64_t now = now_of(link);
	const char *fault;

	nbd_ghost_tick(link);
	switch (link->state) {
	case NBD_LINK_DOWN:
		if ((now >= link->next_ns ||
		     link->returns_seen != atomic_load(&link->owner->nbd->returns)) &&
		    nbd_ghost_has_room(link))
			connect_it(link);
		break;
	case NBD_LINK_CONNECTING:
		watch_connecting(link);
		break;
	case NBD_LINK_JOINING:
	case NBD_LINK_READY:
		fault = nbd_silence_fault(link);
		if (!fault)
			break;
		nbd_count_cuts(link->owner, link);
		nbd_link_lost(link, fault);
		break;
	}
}

/* ---- start and end ---- */

int nbd_link_start(struct nbd_link *link, struct nbd_queue *owner, unsigned number,
		   struct nbd_handle *handle, struct error *err)
{
	*link = (struct nbd_link){
		.owner = owner,
		.number = number,
		.state = NBD_LINK_READY,
		.handle = handle,
		.facts = owner->nbd->facts,
		.fd = -1,
		.readable.done = readable,
		.writable.done = writable,
	};
	link->answered_ns = link->lost_ns = link->trouble_ns = now_of(link);
	if (nbd_link_is_dead(handle)) {
		nbd_close(handle);
		link->handle = NULL;
		link->state = NBD_LINK_DOWN;
		return 0;
	}
	atomic_fetch_add(&owner->nbd->nr_up, 1);
	nbd_gauge_add(owner->nbd, NBD_GAUGE_CONNECTED, 1);
	keep_socket(link);
	if (link->fd < 0)
		return error_set(err, errno, "a descriptor for connection %u: %s", number,
				 strerror(errno));
	return 0;
}

static bool may_leave(const struct nbd_link *link)
{
	return link->state == NBD_LINK_READY && !link->in_flight && link->handle;
}

void nbd_link_leave(struct nbd_link *link)
{
	if (may_leave(link))
		nbd_aio_disconnect(link->handle, 0);
}

void nbd_link_end(struct nbd_link *link, uint64_t until_ms)
{
	uint64_t now = clock_ms();

	nbd_silence_end(link);
	if (link->state == NBD_LINK_CONNECTING)
		end_connecting(link);
	if (link->handle) {
		if (may_leave(link))
			nbd_server_run(link->handle,
				       until_ms > now ? (unsigned)(until_ms - now) : 0,
				       nbd_aio_is_closed, NULL);
		if (link->state >= NBD_LINK_JOINING)
			atomic_fetch_sub(&link->owner->nbd->nr_up, 1);
		if (link->state == NBD_LINK_READY)
			nbd_gauge_add(link->owner->nbd, NBD_GAUGE_CONNECTED, -1);
		nbd_close(link->handle);
	}
	if (link->fd >= 0)
		close(link->fd);
	nbd_ghost_leave(link);
}
