/* SPDX-License-Identifier: MIT */
/*
 * Flushes of our own, on three occasions:
 *
 *   nbd_flush_first()    the writes that an earlier worker of the device left unflushed were
 *                        kept in its memory, and cannot be sent again
 *   nbd_flush_if_full()  the replay journal is bounded (retain): a flush makes room in it
 *   nbd_flush_last()     the server's end might lose unflushed writes
 *
 * The first and the last block the queue's thread, for FLUSH_NOW_MS at most: no request is in
 * flight then.
 */
#include "backends/nbd/flush.h"
#include "backends/nbd/connection.h"
#include "backends/nbd/explain.h"
#include "backends/nbd/loss.h"
#include "backends/nbd/queues.h"
#include "backends/nbd/request.h"

#include <errno.h>
#include <string.h>

#define FLUSH_NOW_MS 10000u

/* ---- at the start and at the end ---- */

static int flushed(void *user_data, int *error)
{
	*(int *)user_data = *error;
	return 1;
}

static int nothing_in_flight(struct nbd_handle *h)
{
	return nbd_aio_in_flight(h) == 0;
}

/*
 * Flushes, and waits for that and all else that is in flight.  Returns 0 once it is
 * flushed, or -errno with err filled; result is the server's, EINPROGRESS: none so far,
 * and has to live as long as the connection.
 */
static int flush_now(struct nbd_handle *h, int *result, struct error *err)
{
	nbd_completion_callback done = { .callback = flushed, .user_data = result };
	int ret;

	*result = EINPROGRESS;
	if (nbd_aio_flush(h, done, 0) < 0)
		return nbd_explain_loss(err);
	ret = nbd_server_run(h, NULL, FLUSH_NOW_MS, nothing_in_flight, err);
	if (!*result)
		return 0;
	return ret ? -err->code : error_set(err, *result, "%s", strerror(*result));
}

/* ---- the same on a wire ---- */

static bool last_is_over(const void *context)
{
	const struct nbd_connection *conn = context;

	if (conn->owner->last_flush != EINPROGRESS || !conn->on_wire)
		return true;
	/* No round's end does it here: what was queued behind a send, and the next receive. */
	nbd_wire_round(conn->wire);
	return false;
}

static int last_flushed(void *context, int *error)
{
	struct nbd_queue *q = context;

	q->last_flush = *error;
	return 1;
}

/* As flush_now(), by a command like any other. */
static int flush_on_wire(struct nbd_queue *q, struct nbd_connection *conn, struct error *err)
{
	struct nbd_command command = {
		.type = NBD_COMMAND_FLUSH,
		.sent_ns = &q->last_flush_sent_ns,
		.done = last_flushed,
		.context = q,
	};

	q->last_flush = EINPROGRESS;
	nbd_wire_send(conn->wire, &command);
	if (!queue_run_until(q->queue, last_is_over, conn, FLUSH_NOW_MS))
		return error_set(err, ETIMEDOUT, "the server does not answer");
	if (q->last_flush == EINPROGRESS)
		return error_set(err, ECONNRESET, "the connection was lost");
	return q->last_flush ? error_set(err, q->last_flush, "%s", strerror(q->last_flush)) : 0;
}

static int flush_on(struct nbd_queue *q, struct nbd_connection *conn, struct error *err)
{
	if (conn->on_wire)
		return flush_on_wire(q, conn, err);
	return flush_now(conn->handle, &q->last_flush, err);
}

/* Flush before disconnecting: the server's end might lose unflushed writes. */
void nbd_flush_last(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	struct nbd_connection *conn = nbd_free_connection(q);
	uint64_t covers = nbd_journal_flush_begins(&nbd->journal);
	struct error err;

	if (!nbd_flush_matters(nbd) || !nbd_journal_has_unflushed(&nbd->journal))
		return;
	/* A flush of our own may be in flight: it covers less, and is not waited for first. */
	if (!conn)
		log_warning(nbd->instance->name,
			    "queue %u ends without a connection to the server: unflushed writes "
			    "may be lost",
			    q->index);
	else if (flush_on(q, conn, &err))
		log_error(nbd->instance->name,
			  "the last flush failed: %s: the writes since the previous flush may be "
			  "lost",
			  err.text);
	else
		nbd_flushed(nbd, covers);
}

/*
 * What an earlier server of this device had written and not flushed was kept in its
 * memory, which is gone: should the server lose it, nobody can send it again, and a
 * flush on a connection that is made later would succeed over the loss.  So a flush has
 * to succeed on one that is there now.  Any will do: all lead to the same server.
 */
void nbd_flush_first(struct nbd *nbd)
{
	struct error err;
	unsigned i = 0;

	if (nbd->instance->reason != OPEN_TAKEOVER || !nbd_flush_matters(nbd))
		return;
	if (__atomic_exchange_n(nbd_suspect_gauge(nbd), 0, __ATOMIC_RELAXED)) {
		nbd_set_lost(nbd, EIO,
			     "a connection was lost, then the worker that kept the unflushed "
			     "writes");
		return;
	}
	nbd->has_predecessor = true;
	atomic_store(&nbd->journal.order, NBD_INHERITED + 1);
	do {
		if (!flush_now(nbd->handles[i], &nbd->first_flush, &err)) {
			nbd_journal_flushed(&nbd->journal, NBD_INHERITED + 1);
			return;
		}
	} while (nbd_connection_is_dead(nbd->handles[i]) && ++i < nbd->nr_connections);
	if (i == nbd->nr_connections) {
		nbd_set_lost(nbd, EIO, NBD_INHERITED_LOST);
	} else if (nbd->first_flush != EINPROGRESS) {
		nbd_set_lost(nbd, nbd->first_flush, "flushing the previous worker's writes");
	} else {
		log_warning(nbd->instance->name,
			    "flushing the previous worker's writes: %s: serving I/O; flushes wait "
			    "until that completes",
			    err.text);
		atomic_store(&nbd->flush_soon, true);
	}
}

/* ---- in between: what is kept is bounded ---- */

static int own_flushed(void *user_data, int *error)
{
	struct nbd_queue *q = user_data;
	struct nbd *nbd = q->nbd;

	if (!nbd_connection_answered(q->flush_connection, q->flush_sent_ns, *error))
		return 1;
	if (*error)
		nbd_set_lost(nbd, *error, "the server's flush failed");
	else
		nbd_flushed(nbd, q->flush_covers);
	q->flush_connection = NULL;
	q->flush_cuts = 0;
	atomic_store(&nbd->flushing, false);
	/* Each queue lets go of its own part, and may have waited for that. */
	nbd_queues_wake(nbd);
	return 1;
}

bool nbd_is_full(const struct nbd_queue *q)
{
	const struct nbd *nbd = q->nbd;

	if (atomic_load_explicit(&nbd->flush_soon, memory_order_relaxed) || q->segment->is_starved)
		return true;
	return nbd->journal.bound &&
	       __atomic_load_n(nbd->journal.bytes, __ATOMIC_RELAXED) > nbd->journal.bound / 2;
}

void nbd_flush_if_full(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	struct nbd_command command = {
		.type = NBD_COMMAND_FLUSH,
		.sent_ns = &q->flush_sent_ns,
		.done = own_flushed,
		.context = q,
	};
	struct nbd_connection *conn;

	if (!nbd_is_full(q) || !nbd_journal_has_unflushed(&nbd->journal) ||
	    instance_lost(nbd->instance))
		return;
	conn = nbd_free_connection(q);
	if (!conn || atomic_exchange(&nbd->flushing, true))
		return;
	atomic_store(&nbd->flush_soon, false);
	q->flush_connection = conn;
	q->flush_covers = nbd_journal_flush_begins(&nbd->journal);
	q->flush_sent_ns = queue_now_ns(q->queue);
	conn->in_flight++;
	if (nbd_connection_send(conn, &command)) {
		conn->in_flight--;
		q->flush_connection = NULL;
		atomic_store(&nbd->flushing, false);
	}
	nbd_connection_check(conn);
}
