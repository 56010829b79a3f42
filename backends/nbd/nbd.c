/* SPDX-License-Identifier: MIT */
/*
 * nbd: a remote export, over connections that are made again when they break.
 *
 * A request is one asynchronous call of libnbd on a connection of its queue, made at
 * the end of the round in which it came; libnbd calls back when the server has
 * answered.  A request whose connection is lost waits and is sent again on the next one,
 * before those that have come since.  What was acknowledged and not flushed is kept for that case,
 * too (journal.h, replay.c).
 */
#include "backends/nbd/nbd.h"
#include "backends/nbd/connection.h"
#include "backends/nbd/flush.h"
#include "backends/nbd/ghost.h"
#include "backends/nbd/list.h"
#include "backends/nbd/loss.h"
#include "backends/nbd/outage.h"
#include "backends/nbd/queues.h"
#include "backends/nbd/replay.h"
#include "backends/nbd/request.h"
#include "backends/nbd/silence.h"
#include "common/clock.h"
#include "common/container_of.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_LINKS_AUTO 8
#define RETAIN_MIN       (64u << 10)
#define LEAVE_MS         1000u /* for a queue's end; with FLUSH_NOW_MS less than the engine gives it */

const struct option_def nbd_options[] = {
	{ "connections", OPTION_COUNT, "auto", "auto", 1, NBD_LINKS_MAX,
	  "connections to the server; auto: one for each queue, at most 8, if the server allows "
	  "several" },
	{ "reconnect-deadline", OPTION_TIME, "forever", "forever", 0, 0,
	  "how long I/O waits for the server to come back before it fails with EIO" },
	{ "request-timeout", OPTION_TIME, NULL, "30s", 100, 0,
	  "reconnect if the server neither answers nor accepts a new connection for this long; a "
	  "server that accepts one has ten times as long for a request" },
	{ "retain", OPTION_SIZE, "trust", "64M", 0, 0,
	  "memory for acknowledged but unflushed writes, replayed if the server restarts; 0: none, "
	  "then the next flush fails; trust: none, the server never loses them" },
	{ "ghost-wait", OPTION_TIME, "forever", "forever", 0, 0,
	  "how long I/O waits for the server to close a lost connection, if it overlaps writes "
	  "that the server may still carry out; after TIME old data may overwrite new data" },
	{ "keepalive", OPTION_FLAG, NULL, "on", 0, 0, "probe idle TCP connections" },
	{ "structured", OPTION_FLAG, NULL, "off", 0, 0,
	  "use structured replies: a server need not send holes as zeroes; reads of data cost a "
	  "little more" },
	{ "fast-zero", OPTION_FLAG, NULL, "off", 0, 0,
	  "refuse to write zeroes if the server cannot do it fast; the kernel then writes them as "
	  "data" },
	{ "tls", OPTION_CHOICE, "off|on|require", "off", 0, 0,
	  "use TLS; on: if the server offers it; nbds:// means require" },
	{ "tls-certificates", OPTION_PATH, NULL, NULL, 0, 0,
	  "directory of ca-cert.pem, client-cert.pem and client-key.pem" },
	{ "tls-psk-file", OPTION_PATH, NULL, NULL, 0, 0, "file of pre-shared keys" },
	{ "tls-username", OPTION_TEXT, NULL, NULL, 0, 0, "user name of the pre-shared key" },
	{ "tls-verify", OPTION_FLAG, NULL, "on", 0, 0, "check the server's certificate" },
	{ "tls-allow-unfixed", OPTION_FLAG, NULL, "off", 0, 0,
	  "use certificates even if libnbd does not check them properly (CVE-2024-7383)" },
	{ .name = NULL },
};

static const char *const nbd_gauges[] = {
	[NBD_GAUGE_CONNECTIONS] = "connections",
	[NBD_GAUGE_CONNECTED] = "connected",
	[NBD_GAUGE_RECONNECTS] = "reconnects",
	[NBD_GAUGE_RETAINED] = "retained-bytes",
	[NBD_GAUGE_REPLAYED] = "replayed",
	[NBD_GAUGE_SUSPENDED] = "suspended",
	[NBD_GAUGE_IN_DOUBT] = "in-doubt",
	[NBD_GAUGE_GHOSTS] = "ghost-writes",
	NULL,
};

/* Frees the queue's records that a flush of any queue has covered; mostly there is no news. */
static void drop_stable(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	uint64_t stable;

	/* After a failed flush no other will ever cover it. */
	if (instance_lost(nbd->instance))
		nbd_journal_flushed(&nbd->journal, atomic_load(&nbd->journal.order));
	stable = atomic_load_explicit(&nbd->journal.stable, memory_order_relaxed);
	if (stable == q->stable_seen)
		return;
	q->stable_seen = stable;
	nbd_segment_drop(q->segment);
}

/* ---- connections' events ---- */

static void connected(struct nbd_connection *conn)
{
	nbd_silence_met(conn);
	nbd_replay_join(conn->owner, conn);
}

static void lost(struct nbd_connection *conn)
{
	nbd_silence_end(conn);
	nbd_replay_abandon(conn);
	nbd_take_back(conn->owner, conn);
}

static const struct nbd_connection_events connection_events = { connected, lost };

/* ---- rounds and time ---- */

static bool has_work(const struct nbd_queue *q)
{
	if (q->again.first || q->waiting.first || nbd_segment_is_large(q->segment))
		return true;
	for (unsigned i = 0; i < q->nr_connections; i++)
		if (q->connections[i].state != NBD_CONNECTION_READY ||
		    q->connections[i].in_flight || q->connections[i].nr_ghosts ||
		    q->connections[i].suspected)
			return true;
	return atomic_load_explicit(&q->nbd->silent, memory_order_relaxed);
}

static void set_failing(struct nbd_queue *q, bool failing)
{
	if (q->failing != failing)
		nbd_outage_fails(q->nbd, failing);
	q->failing = failing;
}

/* Nothing can be sent: fails what waits once it has waited for too long. */
static void check_deadline(struct nbd_queue *q)
{
	uint64_t now = queue_now_ns(q->queue), deadline = q->nbd->deadline_ns;
	bool server_up = atomic_load(&q->nbd->nr_up);

	if (nbd_free_connection(q)) {
		q->stalled_ns = 0;
		set_failing(q, false);
		return;
	}
	if (!q->stalled_ns || (server_up && !q->server_up)) {
		q->stalled_ns = now;
		set_failing(q, false);
	}
	q->server_up = server_up;
	/*
	 * The server is there, for another queue at least: a connection or a replay is
	 * under way, and takes no longer than an answer may.
	 */
	if (server_up && deadline < q->nbd->timeout_ns)
		deadline = q->nbd->timeout_ns;
	if (deadline == NBD_FOREVER || now - q->stalled_ns < deadline)
		return;
	if (!q->failing) {
		log_error(q->nbd->instance->name,
			  "queue %u: the server did not come back within reconnect-deadline: I/O "
			  "fails until it does",
			  q->index);
	}
	set_failing(q, true);
	nbd_fail_waiting(q, -EIO);
}

static void ticked(struct ring_op *op, int result)
{
	struct nbd_queue *q = container_of(op, struct nbd_queue, tick.op);

	(void)result;
	q->ticks = false;
	for (unsigned i = 0; i < q->nr_connections; i++)
		nbd_connection_tick(&q->connections[i]);
	for (unsigned i = 0; i < q->nr_connections; i++)
		nbd_silence_tick(&q->connections[i]);
	nbd_outage_tick(q, queue_now_ns(q->queue));
	if (atomic_load(&q->nbd->ghosts))
		nbd_fail_held(q);
	nbd_segment_trim(q->segment);
	/* The room may be held by what an idle queue does not need to keep any more. */
	if (q->waiting.first && nbd_is_full(q))
		nbd_queues_wake(q->nbd);
}

static void nbd_round_end(struct queue *queue)
{
	struct nbd_queue *q = queue_private(queue);

	/*
	 * The replay goes first: it may make connections ready, which the waiting requests then
	 * use.
	 */
	nbd_replay_round(q);
	/* While queues hold still one of them reads all segments. */
	if (!atomic_load(&q->nbd->halt))
		drop_stable(q);
	if (__builtin_expect(q->again.first || q->waiting.first, 0))
		nbd_send_waiting(q);
	nbd_flush_if_full(q);
	if (__builtin_expect(q->stalled_ns || !nbd_free_connection(q), 0))
		check_deadline(q);
	for (unsigned i = 0; i < q->nr_connections; i++)
		nbd_connection_watch(&q->connections[i]);
	if (!q->ticks && has_work(q)) {
		q->ticks = true;
		queue_timer(queue, &q->tick, NBD_TICK_MS * (uint64_t)NBD_NS_PER_MS);
	}
}

/* ---- a queue's start and end ---- */

static void end_connections(struct nbd_queue *q)
{
	uint64_t until = clock_ms() + LEAVE_MS;

	for (unsigned i = 0; i < q->nr_connections; i++)
		nbd_connection_leave(&q->connections[i]);
	for (unsigned i = 0; i < q->nr_connections; i++) {
		nbd_silence_end(&q->connections[i]);
		nbd_connection_end(&q->connections[i], until);
	}
	free(q->connections);
	free(q->ios);
}

static int nbd_queue_open(struct queue *queue, struct error *err)
{
	struct instance *instance = queue_instance(queue);
	struct nbd *nbd = instance->private;
	struct nbd_queue *q = queue_private(queue);
	unsigned index = queue_index(queue);
	int ret;

	*q = (struct nbd_queue){
		.nbd = nbd,
		.queue = queue,
		.index = index,
		.segment = &nbd->segments[index],
		.tick.op.done = ticked,
	};
	nbd_list_init(&q->again);
	nbd_list_init(&q->waiting);
	q->connections = calloc(nbd->nr_connections, sizeof(*q->connections));
	q->ios = calloc(instance->depth, sizeof(*q->ios));
	if (!q->connections || !q->ios) {
		ret = error_set(err, ENOMEM, "no memory for %u connections", nbd->nr_connections);
		goto end_connections;
	}
	/*
	 * Connections are dealt out round robin, and a queue keeps its own: libnbd's handles need
	 * no lock.
	 */
	for (unsigned i = index; i < nbd->nr_connections; i += instance->nr_queues) {
		struct nbd_handle *handle = nbd->handles[i];

		nbd->handles[i] = NULL;
		ret = nbd_connection_start(&q->connections[q->nr_connections++], q, i, handle, err);
		if (ret)
			goto end_connections;
	}
	nbd_queues_add(q);
	/* The timer runs from the first round on; a connection may break before. */
	queue_wake(queue);
	return 0;

end_connections:
	end_connections(q);
	return ret;
}

/*
 * The replay first: the other queues need not wait for this one to hold still. The flush needs the
 * connections, which end last.
 */
static void nbd_queue_close(struct queue *queue)
{
	struct nbd_queue *q = queue_private(queue);

	nbd_replay_close_queue(q);
	nbd_flush_last(q);
	end_connections(q);
}

/* ---- open and close ---- */

static void close_handles(struct nbd *nbd)
{
	for (unsigned i = 0; i < NBD_LINKS_MAX; i++) {
		if (!nbd->handles[i])
			continue;
		nbd_aio_disconnect(nbd->handles[i], 0);
		nbd_close(nbd->handles[i]);
		nbd->handles[i] = NULL;
	}
}

/* A new connection, and what the server says on it; NULL with err filled. */
static struct nbd_handle *connect_one(const struct nbd *nbd, struct nbd_facts *facts,
				      struct error *err)
{
	struct nbd_handle *h = nbd_connect_now(nbd->instance, nbd->resolver, false,
					       nbd_connect_ms(nbd), nbd_aio_is_ready, err);

	if (h && nbd_server_facts(h, facts, err)) {
		nbd_close(h);
		return NULL;
	}
	return h;
}

/* How many connections there are to be. */
static unsigned wanted_connections(const struct nbd *nbd)
{
	const struct instance *instance = nbd->instance;
	const struct option_value *asked = instance_option(instance, "connections");
	unsigned n;

	if (asked->word < 0)
		n = (unsigned)asked->number;
	else
		n = instance->nr_queues < QUEUE_LINKS_AUTO ? instance->nr_queues : QUEUE_LINKS_AUTO;
	if (n > 1 && !nbd->facts.multi_conn && !instance->limits.read_only) {
		if (asked->word < 0)
			log_warning(
				instance->name,
				"using 1 of %u requested connections: the server does not allow "
				"writes over several (multi-conn)",
				n);
		n = 1;
	}
	return n;
}

static void connect_more(struct nbd *nbd)
{
	unsigned wanted = wanted_connections(nbd);
	struct nbd_facts facts;
	struct nbd_handle *h;
	struct error err;

	while (nbd->nr_connections < wanted) {
		/* Fewer connections than wanted are no error: the first one works. */
		h = connect_one(nbd, &facts, &err);
		if (!h)
			break;
		error_set(&err, ESTALE,
			  "the server describes its export differently on each "
			  "connection");
		if (facts.size == nbd->facts.size &&
		    !nbd_facts_match(&nbd->facts, &facts, &nbd->instance->limits,
				     !nbd->instance->limits.read_only, &err)) {
			nbd->handles[nbd->nr_connections++] = h;
			continue;
		}
		nbd_close(h);
		break;
	}
	if (nbd->nr_connections < wanted)
		log_warning(nbd->instance->name, "using %u of %u requested connections: %s",
			    nbd->nr_connections, wanted, err.text);
}

static void choose_retain(struct nbd *nbd)
{
	const struct option_value *retain = instance_option(nbd->instance, "retain");
	struct backend_limits *l = &nbd->instance->limits;
	uint64_t most;

	nbd->fua_always = nbd->facts.fua && !nbd->facts.flush;
	if (l->read_only)
		nbd->retain = NBD_RETAIN_TRUST;
	else if (!nbd->facts.flush)
		nbd->retain = NBD_RETAIN_TRUST; /* acknowledged is all that there is */
	else if (retain->word >= 0)
		nbd->retain = NBD_RETAIN_TRUST;
	else
		nbd->retain = retain->number ? NBD_RETAIN_JOURNAL : NBD_RETAIN_NONE;
	if (nbd->retain != NBD_RETAIN_JOURNAL)
		return;
	/*
	 * A write that the journal has no room for could never be sent: the device is made with
	 * smaller requests instead.
	 */
	nbd->journal.bound = retain->number;
	most = nbd_journal_max_io(nbd->journal.bound);
	most -= most % 4096;
	if (most < l->max_io)
		l->max_io = (uint32_t)most;
}

static uint64_t time_of(const struct instance *instance, const char *name)
{
	const struct option_value *v = instance_option(instance, name);

	return v->word < 0 ? v->number * NBD_NS_PER_MS : NBD_FOREVER;
}

static int open_journal(struct nbd *nbd, struct error *err)
{
	struct instance *instance = nbd->instance;

	nbd->nr_segments = instance->nr_queues;
	nbd->segments = calloc(nbd->nr_segments, sizeof(*nbd->segments));
	nbd->queues = calloc(nbd->nr_segments, sizeof(*nbd->queues));
	nbd->cursors = calloc(nbd->nr_segments, sizeof(*nbd->cursors));
	if (!nbd->segments || !nbd->queues || !nbd->cursors || nbd_ghost_open(nbd))
		return error_set(err, ENOMEM, "no memory for %u queues", nbd->nr_segments);
	for (unsigned i = 0; i < nbd->nr_segments; i++)
		if (nbd_segment_open(&nbd->segments[i], &nbd->journal, instance->limits.max_io,
				     nbd->nr_segments))
			return error_set(err, ENOMEM,
					 "no memory to keep unflushed writes: use a smaller -o "
					 "retain");
	return 0;
}

static void close_journal(struct nbd *nbd)
{
	for (unsigned i = 0; nbd->segments && i < nbd->nr_segments; i++)
		nbd_segment_close(&nbd->segments[i]);
	free(nbd->segments);
	free(nbd->queues);
	free(nbd->cursors);
	nbd_ghost_close(nbd);
}

static void warn_no_flush(const struct nbd *nbd)
{
	const char *name = nbd->instance->name;

	if (!nbd->instance->limits.read_only && !nbd->facts.flush && !nbd->facts.fua)
		log_warning(name, "the server does not support flush: the device reports no write "
				  "cache, and only the server decides whether a completed write "
				  "survives its crash");
}

static int nbd_check(const struct instance *instance, struct error *err)
{
	const struct option_value *retain = instance_option(instance, "retain");

	/* A few requests must fit, or there is nothing to wait for when there is no room. */
	if (retain->word < 0 && retain->number && retain->number < RETAIN_MIN)
		return error_set(err, EINVAL,
				 "retain: '%s' is not valid: use 0, trust, or at least 64K",
				 retain->text);
	return nbd_server_check(instance, err);
}

/*
 * The counters outlive a worker. Facts of the present start at 0; sums go on, and so does
 * NBD_GAUGE_IN_DOUBT, which nbd_flush_first() reads.
 */
static void reset_gauges(struct instance *instance)
{
	static const enum nbd_gauge now[] = { NBD_GAUGE_CONNECTIONS, NBD_GAUGE_CONNECTED,
					      NBD_GAUGE_RETAINED, NBD_GAUGE_SUSPENDED,
					      NBD_GAUGE_GHOSTS };

	for (unsigned i = 0; i < sizeof(now) / sizeof(*now); i++)
		__atomic_store_n(&instance->gauges[now[i]], 0, __ATOMIC_RELAXED);
}

static int nbd_open(struct instance *instance, struct error *err)
{
	struct nbd *nbd = instance->private;
	int ret;

	nbd->instance = instance;
	nbd->events = &connection_events;
	reset_gauges(instance);
	nbd->journal.bytes = &instance->gauges[NBD_GAUGE_RETAINED];
	nbd->deadline_ns = time_of(instance, "reconnect-deadline");
	nbd->timeout_ns = time_of(instance, "request-timeout");
	nbd->ghost_wait_ns = time_of(instance, "ghost-wait");
	nbd->fast_zero = instance_option(instance, "fast-zero")->number;
	/* Not 0, which is q->parked of a queue that never held still. */
	nbd->halts = 1;
	if (nbd_connect_resolves(instance)) {
		nbd->resolver = nbd_resolver_create(err);
		if (!nbd->resolver)
			return -err->code;
	}
	nbd->handles[0] = connect_one(nbd, &nbd->facts, err);
	if (!nbd->handles[0]) {
		ret = -err->code;
		goto close_handles;
	}
	nbd->nr_connections = 1;
	ret = nbd_facts_to_limits(&nbd->facts, instance, &instance->limits, err);
	if (ret)
		goto close_handles;
	choose_retain(nbd);
	connect_more(nbd);
	instance->limits.max_queues = nbd->nr_connections;
	ret = open_journal(nbd, err);
	if (ret)
		goto close_journal;
	nbd_flush_first(nbd);
	pthread_mutex_init(&nbd->gate, NULL);
	pthread_mutex_init(&nbd->outage_lock, NULL);
	nbd->seen_size = nbd->facts.size;
	for (unsigned i = 0; i < nbd->nr_connections; i++)
		nbd->connection_sizes[i] = nbd->facts.size;
	nbd_gauge_add(nbd, NBD_GAUGE_CONNECTIONS, nbd->nr_connections);
	warn_no_flush(nbd);
	return 0;

close_journal:
	close_journal(nbd);
close_handles:
	close_handles(nbd);
	nbd_resolver_release(nbd->resolver);
	return ret;
}

static int nbd_resize(struct instance *instance, struct error *err)
{
	struct nbd *nbd = instance->private;
	struct nbd_facts facts;
	struct nbd_handle *h = connect_one(nbd, &facts, err);
	int ret = 0;

	if (!h)
		return -err->code;
	if (facts.size < instance->limits.size) {
		ret = error_set(
			err, ESTALE,
			"the server's export has shrunk to %llu bytes: the device keeps its size, "
			"and I/O past that end will fail",
			(unsigned long long)facts.size);
	} else {
		nbd_aio_disconnect(h, 0);
		nbd_saw_size(nbd, facts.size);
	}
	nbd_close(h);
	return ret;
}

/* Kept writes cannot be handed over: a flush has to make them needless. */
static int nbd_settled(struct instance *instance, struct error *err)
{
	struct nbd *nbd = instance->private;

	/* The next process would not know which requests have to wait for that. */
	if (atomic_load(&nbd->ghosts))
		return error_set(err, EAGAIN,
				 "the server may still carry out writes of a connection that was "
				 "given up: try again once the server has closed it");
	if (!nbd_flush_matters(nbd) || !nbd_journal_has_unflushed(&nbd->journal))
		return 0;
	atomic_store(&nbd->flush_soon, true);
	nbd_queues_wake(nbd);
	return error_set(
		err, EAGAIN,
		"the worker keeps writes that the server has not flushed, and %s: try again later",
		atomic_load(&nbd->nr_up) ? "the flush is not over"
					 : "there is no connection to the "
					   "server");
}

static void nbd_close_export(struct instance *instance)
{
	struct nbd *nbd = instance->private;

	/* Another one that opens it for this device would flush, and not know. */
	if (nbd_flush_matters(nbd) &&
	    (nbd_journal_has_unflushed(&nbd->journal) || atomic_load(&nbd->pending_error)))
		instance_set_lost(instance, -EIO);
	close_handles(nbd);
	close_journal(nbd);
	nbd_resolver_release(nbd->resolver);
	pthread_mutex_destroy(&nbd->outage_lock);
	pthread_mutex_destroy(&nbd->gate);
}

static const char *const nbd_aliases[] = { "nbds",      "nbd+unix",   "nbds+unix",
					   "nbd+vsock", "nbds+vsock", NULL };

static const struct backend nbd_backend = {
	.scheme = "nbd",
	.aliases = nbd_aliases,
	.syntax = "nbd://HOST[:PORT]/EXPORT",
	.summary = "a remote NBD export; survives restarts of the server",
	.access = ACCESS_SOCKET,
	.options = nbd_options,
	.gauges = nbd_gauges,
	.instance_size = sizeof(struct nbd),
	.queue_size = sizeof(struct nbd_queue),
	.io_size = sizeof(struct nbd_io),
	.check = nbd_check,
	.needs = nbd_server_needs,
	.list = nbd_list,
	.open = nbd_open,
	.close = nbd_close_export,
	.resize = nbd_resize,
	.settled = nbd_settled,
	.queue_open = nbd_queue_open,
	.queue_close = nbd_queue_close,
	.submit = nbd_submit,
	.round_end = nbd_round_end,
};
BACKEND_REGISTER(nbd_backend);
