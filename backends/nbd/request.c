/* SPDX-License-Identifier: MIT */
/*
 * Requests: sent, answered, taken back from a lost connection and sent again.
 *
 * A request waits in one of two lists of its queue: `waiting`, new ones, and `again`, which were
 * on a connection that was lost and go first. They are sent at the end of a round, together, on
 * the connection that has least to do; one that overlaps a ghost write stays (ghost.c).
 *
 * answered() is the end of each. The data of a write that is to be kept until a flush covers it is
 * in the journal from the first time that it is sent, and is sent from there; other data goes by way
 * of the request's own buffer, but for small reads (hand_over()).
 *
 * A list holds requests in the order in which they came; requests of one queue that overlap are
 * the file system's to order, but what is sent again must not pass what came later (held ones go
 * back to the front).
 */
#include "backends/nbd/request.h"
#include "backends/nbd/connection.h"
#include "backends/nbd/ghost.h"
#include "backends/nbd/loss.h"

#include <errno.h>

/* ---- lists of requests ---- */

void nbd_list_init(struct nbd_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static void list_add(struct nbd_list *list, struct nbd_io *n)
{
	n->next = NULL;
	*list->last = n;
	list->last = &n->next;
}

static struct nbd_io *list_take(struct nbd_list *list)
{
	struct nbd_io *n = list->first;

	list->first = n->next;
	if (!list->first)
		list->last = &list->first;
	return n;
}

static void list_put_back(struct nbd_list *list, struct nbd_io *n)
{
	n->next = list->first;
	list->first = n;
	if (!n->next)
		list->last = &n->next;
}

/* first, with all that it has, goes before list, and is empty then. */
static void list_prepend(struct nbd_list *list, struct nbd_list *first)
{
	if (!first->first)
		return;
	*first->last = list->first;
	if (!list->first)
		list->last = first->last;
	list->first = first->first;
	nbd_list_init(first);
}

/* ---- requests ---- */

static void end_request(struct nbd_queue *q, struct nbd_io *n, int result)
{
	if (n->kept)
		nbd_segment_release(q->segment, n->kept);
	n->kept = NULL;
	n->conn = NULL;
	io_complete(n->io, result);
}

/* A write, zeroing or trim was acknowledged. */
static void acknowledged(struct nbd_queue *q, struct nbd_io *n)
{
	/* libnbd reads answers in the course of a round. */
	uint64_t round = n->conn->on_wire ? queue_round(q->queue) : 0;

	if (n->kept)
		nbd_segment_keep(q->segment, n->kept, round);
	else
		nbd_segment_number(q->segment, round);
	n->kept = NULL; /* the segment's from now on */
}

/* libnbd has a part of a structured reply: of a read that fails, too. */
static int chunk_came(void *user_data, const void *data, size_t count, uint64_t offset,
		      unsigned status, int *error)
{
	struct nbd_io *n = user_data;

	(void)data;
	(void)error;
	/* libnbd has seen to it that the part is within the read. */
	if (status != LIBNBD_READ_ERROR &&
	    !nbd_cover_add(&n->cover, (uint32_t)(offset - n->io->offset), (uint32_t)count))
		n->garbled = true;
	return 0;
}

/* All data of a read is there.  Returns its bytes, or -errno. */
static int hand_over(const struct nbd_io *n)
{
	struct io *io = n->io;
	int ret =
		n->came ? io_copy_to(io, 0, n->came, io->length) : io_fill_zero(io, 0, io->length);

	return ret ? ret : (int)io->length;
}

static int answered(void *user_data, int *error)
{
	struct nbd_io *n = user_data;
	struct io *io = n->io;
	struct nbd_queue *q = n->conn->owner;
	struct nbd *nbd = q->nbd;

	if (!nbd_connection_answered(n->conn, n->sent_ns, *error))
		return 1;
	if (*error) {
		if (io->op == IO_FLUSH)
			nbd_set_lost(nbd, *error, "the server's flush failed");
		/* The kernel's word for "write zeroes yourself" (NBD protocol: FAST_ZERO). */
		end_request(q, n, *error == ENOTSUP ? -EOPNOTSUPP : -*error);
		return 1;
	}
	if (io->op == IO_READ) {
		end_request(q, n, hand_over(n));
	} else if (io->op == IO_FLUSH) {
		nbd_flushed(nbd, n->covers);
		/* The server may have reported a loss only to one that ended before this one. */
		end_request(q, n, instance_lost(nbd->instance));
	} else {
		acknowledged(q, n);
		end_request(q, n, (int)io->length);
	}
	return 1;
}

/* libnbd does not check that all parts have come. */
static int structured_answered(void *user_data, int *error)
{
	struct nbd_io *n = user_data;

	if (!*error && (n->garbled || !nbd_cover_is_whole(&n->cover, n->io->length)))
		*error = EPROTO;
	return answered(n, error);
}

/* Without a wire. */
static int64_t read_structured(struct nbd_connection *conn, struct nbd_io *n)
{
	nbd_completion_callback done = { .callback = structured_answered, .user_data = n };
	nbd_chunk_callback chunk = { .callback = chunk_came, .user_data = n };

	n->cover.nr = 0;
	n->garbled = false;
	return nbd_aio_pread_structured(conn->handle, io_data(n->io), n->io->length, n->io->offset,
					chunk, done, 0);
}

static uint16_t command_flags(const struct nbd_queue *q, const struct nbd_connection *conn,
			      const struct io *io)
{
	uint16_t flags = 0;

	if (io->op == IO_READ || io->op == IO_FLUSH)
		return 0;
	if (conn->facts.fua && (io->flags & IO_FUA || q->nbd->fua_always))
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (io->op == IO_WRITE_ZEROES && io->flags & IO_KEEP)
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (io->op == IO_WRITE_ZEROES && conn->facts.fast_zero && q->nbd->fast_zero)
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return flags;
}

/* Where its data is sent from, or may be received. */
static void *data_of(const struct nbd_io *n)
{
	if (n->io->op > IO_WRITE)
		return NULL;
	return n->kept ? n->kept->data : io_data(n->io);
}

/* Brings a write's data there, the first time.  Returns 0, or -errno: the device is going. */
static int bring_data(struct nbd_io *n)
{
	int ret;

	if (n->io->op != IO_WRITE || n->has_data)
		return 0;
	ret = io_copy_from(n->io, 0, data_of(n), n->io->length);
	n->has_data = !ret;
	return ret;
}

/* As nbd_connection_send(). */
static int call(struct nbd_queue *q, struct nbd_connection *conn, struct nbd_io *n)
{
	static const enum nbd_command_type types[] = {
		[IO_READ] = NBD_COMMAND_READ,
		[IO_WRITE] = NBD_COMMAND_WRITE,
		[IO_FLUSH] = NBD_COMMAND_FLUSH,
		[IO_DISCARD] = NBD_COMMAND_TRIM,
		[IO_WRITE_ZEROES] = NBD_COMMAND_WRITE_ZEROES,
	};
	struct io *io = n->io;
	struct nbd_command command = {
		.type = types[io->op],
		.flags = command_flags(q, conn, io),
		.length = io->length,
		.offset = io->offset,
		.data = data_of(n),
		.came = &n->came,
		.sent_ns = &n->sent_ns,
		.done = answered,
		.context = n,
	};

	n->came = command.data;
	if (io->op == IO_FLUSH)
		n->covers = nbd_journal_flush_begins(&q->nbd->journal);
	if (io->op == IO_READ && conn->facts.structured && !conn->on_wire)
		return read_structured(conn, n) < 0 ? -1 : 0;
	return nbd_connection_send(conn, &command);
}

struct nbd_connection *nbd_free_connection(struct nbd_queue *q)
{
	struct nbd_connection *best = NULL;

	if (atomic_load_explicit(&q->nbd->halt, memory_order_relaxed))
		return NULL;
	for (unsigned i = 0; i < q->nr_connections; i++) {
		struct nbd_connection *conn = &q->connections[i];

		if (conn->state == NBD_CONNECTION_READY && !conn->retiring &&
		    (!best || conn->in_flight < best->in_flight))
			best = conn;
	}
	return best;
}

/* Requests that need no server.  Returns true where the request has ended. */
static bool ends_here(struct nbd_queue *q, struct nbd_connection *conn, struct nbd_io *n)
{
	struct nbd *nbd = q->nbd;
	int ret;

	if (n->io->op == IO_DISCARD && !conn->facts.trim) {
		end_request(q, n, -EOPNOTSUPP);
		return true;
	}
	if (n->io->op != IO_FLUSH)
		return false;
	ret = instance_lost(nbd->instance);
	if (!ret && atomic_load_explicit(&nbd->pending_error, memory_order_relaxed)) {
		ret = atomic_exchange(&nbd->pending_error, 0);
		nbd_flushed(nbd, 0);
	}
	if (!ret && nbd->facts.flush)
		return false;
	end_request(q, n, ret); /* without a flush every write was FUA */
	return true;
}

/* Has the journal take what will be kept of it.  Returns false where there is no room. */
static bool make_room(struct nbd_queue *q, struct nbd_io *n)
{
	const struct io *io = n->io;

	if (io->op == IO_READ || io->op == IO_FLUSH || n->kept || !q->segment->arena ||
	    instance_lost(q->nbd->instance))
		return true;
	n->kept = nbd_segment_reserve(q->segment, io->op, io->flags, io->offset, io->length);
	return n->kept;
}

/* Sends a request on a free connection.  Returns false where it must wait. */
static bool send_request(struct nbd_queue *q, struct nbd_connection *conn, struct nbd_io *n)
{
	int ret;

	if (ends_here(q, conn, n))
		return true;
	if (!make_room(q, n))
		return false;
	ret = bring_data(n);
	if (ret) {
		end_request(q, n, ret);
		return true;
	}
	n->conn = conn;
	n->sent_ns = queue_now_ns(q->queue);
	n->held_ns = 0;
	/* Counted before the call: libnbd may answer from within it. */
	conn->in_flight++;
	if (call(q, conn, n)) {
		int refused = nbd_connection_refused(conn);

		conn->in_flight--;
		n->conn = NULL;
		if (refused) {
			end_request(q, n, -refused);
			return true;
		}
		list_add(&q->again, n);
	}
	if (!conn->on_wire)
		nbd_connection_check(conn);
	return true;
}

void nbd_submit(struct io *io)
{
	struct nbd_queue *q = queue_private(io->queue);
	struct nbd_io *n = io_private(io);

	n->io = io;
	n->has_data = false;
	n->held_ns = 0;
	n->cuts = 0;
	q->ios[io->tag] = n;
	/* After reconnect-deadline errors come at once, without another wait for each request. */
	if (q->failing)
		end_request(q, n, -EIO);
	else
		list_add(&q->waiting, n); /* sent at the round's end, with the others */
}

/* Sends what is in the list, as far as it goes.  Returns how many. */
static unsigned send_list(struct nbd_queue *q, struct nbd_list *list)
{
	struct nbd_connection *conn;
	struct nbd_list held;
	unsigned sent = 0;

	nbd_list_init(&held);
	while (list->first && (conn = nbd_free_connection(q))) {
		struct nbd_io *n = list_take(list);

		if (nbd_ghost_blocks(q->nbd, n->io)) {
			if (!n->held_ns)
				n->held_ns = queue_now_ns(q->queue);
			list_add(&held, n);
			continue;
		}
		if (!send_request(q, conn, n)) {
			list_put_back(list, n);
			break;
		}
		sent++;
	}
	list_prepend(list, &held);
	return sent;
}

void nbd_send_waiting(struct nbd_queue *q)
{
	unsigned again = send_list(q, &q->again);
	bool several;

	/*
	 * Corked while several are sent, so that they share TCP segments; each small request alone
	 * would be one.
	 */
	several = q->waiting.first && q->waiting.first->next;
	for (unsigned i = 0; several && i < q->nr_connections; i++)
		nbd_connection_cork(&q->connections[i], true);
	send_list(q, &q->waiting);
	for (unsigned i = 0; several && i < q->nr_connections; i++)
		nbd_connection_cork(&q->connections[i], false);
	if (again)
		nbd_gauge_add(q->nbd, NBD_GAUGE_REPLAYED, again);
}

static void fail_held(struct nbd_queue *q, struct nbd_list *list)
{
	uint64_t now = queue_now_ns(q->queue);
	struct nbd_list rest;

	nbd_list_init(&rest);
	while (list->first) {
		struct nbd_io *n = list_take(list);

		if (n->held_ns && now - n->held_ns >= q->nbd->deadline_ns)
			end_request(q, n, -EIO);
		else
			list_add(&rest, n);
	}
	list_prepend(list, &rest);
}

void nbd_fail_held(struct nbd_queue *q)
{
	if (q->nbd->deadline_ns == NBD_FOREVER)
		return;
	fail_held(q, &q->again);
	fail_held(q, &q->waiting);
}

void nbd_fail_waiting(struct nbd_queue *q, int result)
{
	while (q->again.first)
		end_request(q, list_take(&q->again), result);
	while (q->waiting.first)
		end_request(q, list_take(&q->waiting), result);
}

/*
 * Every request of the connection without an answer is sent again, whether the server has carried
 * it out or not: the same write or read twice does no harm.
 */
void nbd_take_back(struct nbd_queue *q, struct nbd_connection *conn)
{
	unsigned depth = q->nbd->instance->depth;

	for (unsigned tag = 0; tag < depth; tag++) {
		struct nbd_io *n = q->ios[tag];

		if (!n || n->conn != conn)
			continue;
		n->conn = NULL;
		list_add(&q->again, n);
	}
	if (q->flush_connection == conn) {
		q->flush_connection = NULL;
		atomic_store(&q->nbd->flushing, false);
	}
}

uint64_t nbd_oldest_sent(const struct nbd_queue *q, const struct nbd_connection *conn)
{
	unsigned depth = q->nbd->instance->depth;
	uint64_t oldest = q->flush_connection == conn ? q->flush_sent_ns : 0;

	for (unsigned tag = 0; tag < depth; tag++) {
		const struct nbd_io *n = q->ios[tag];

		if (n && n->conn == conn && (!oldest || n->sent_ns < oldest))
			oldest = n->sent_ns;
	}
	return oldest;
}

unsigned nbd_most_cuts(const struct nbd_queue *q, const struct nbd_connection *conn)
{
	unsigned depth = q->nbd->instance->depth, most = 0;

	if (q->flush_connection == conn)
		most = q->flush_cuts;
	for (unsigned tag = 0; tag < depth; tag++) {
		const struct nbd_io *n = q->ios[tag];

		if (n && n->conn == conn && n->cuts > most)
			most = n->cuts;
	}
	return most;
}

void nbd_count_cuts(struct nbd_queue *q, struct nbd_connection *conn)
{
	uint64_t now = queue_now_ns(q->queue), timeout = q->nbd->timeout_ns;

	for (unsigned tag = 0; tag < q->nbd->instance->depth; tag++) {
		struct nbd_io *n = q->ios[tag];

		if (n && n->conn == conn && now - n->sent_ns >= timeout)
			n->cuts++;
	}
	if (q->flush_connection == conn && now - q->flush_sent_ns >= timeout)
		q->flush_cuts++;
}
