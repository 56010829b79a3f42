/* SPDX-License-Identifier: MIT */
/*
 * Steps that come before a new connection may be used.
 *
 * The server behind it may have lost what no flush has covered.  A read would
 * show the loss, and a flush on it would succeed over it.  So:
 *
 *   1. every queue holds still: it sends nothing more, and waits until what it
 *      has sent was answered, or its connection was lost;
 *   2. one queue with a usable connection leads: it sends all that is kept, of all
 *      queues, in the order in which it was acknowledged;
 *   3. every queue goes on: first with what was never answered, unless it overlaps what
 *      an old connection may still write (ghost.c).
 *
 * Nothing goes on between 2 and 3 unless 2 was finished: half of it may have put
 * an older write over a newer one.  When the leader's connection is lost, another
 * queue leads, from the start.
 *
 * A connection counts as joined by a replay that began after it was made: one
 * that began before may have gone to a server that is gone since.
 */
#include "backends/nbd/replay.h"
#include "backends/nbd/connection.h"
#include "backends/nbd/ghost.h"
#include "backends/nbd/loss.h"
#include "backends/nbd/queues.h"

#include <errno.h>
#include <string.h>

void nbd_replay_close_queue(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	pthread_mutex_lock(&nbd->gate);
	nbd->queues[q->index] = NULL;
	nbd->nr_serving--;
	if (q->parked == nbd->halts)
		nbd->nr_parked--;
	if (nbd->leader == q)
		nbd->leader = NULL;
	nbd_queues_wake_locked(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

/*
 * What was acknowledged may be lost, and nobody has it: the next flush tells.  On
 * whichever connection that was: its loss need not have been noticed yet.
 */
static void report_loss(struct nbd *nbd)
{
	pthread_mutex_lock(&nbd->gate);
	if (nbd_journal_has_unflushed(&nbd->journal)) {
		nbd_journal_flushed(&nbd->journal, atomic_load(&nbd->journal.order));
		atomic_store(&nbd->pending_error, -EIO);
		log_error(nbd->instance->name,
			  "the server may have lost writes that it acknowledged, and no copy is "
			  "kept (retain=0): the next flush fails");
	}
	pthread_mutex_unlock(&nbd->gate);
}

static void ask_for_replay(struct nbd *nbd, struct nbd_connection *conn)
{
	pthread_mutex_lock(&nbd->gate);
	/*
	 * A replay that has begun may be on a connection to a server that is gone: only the next
	 * one counts for this connection.
	 */
	conn->joins = nbd->replays_begun + 1;
	atomic_store(&nbd->halt, true);
	nbd_queues_wake_locked(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

void nbd_replay_join(struct nbd_queue *q, struct nbd_connection *conn)
{
	struct nbd *nbd = q->nbd;

	/* Unless it is flushed by now, the server may have lost that too. */
	if (nbd_has_inherited(nbd))
		nbd_set_lost(nbd, EIO, NBD_INHERITED_LOST);
	else if (nbd->retain == NBD_RETAIN_NONE)
		report_loss(nbd);
	if (nbd->retain != NBD_RETAIN_JOURNAL ||
	    !__atomic_load_n(nbd->journal.bytes, __ATOMIC_SEQ_CST))
		nbd_connection_ready(conn);
	else
		ask_for_replay(nbd, conn);
}

/* ---- sending again ---- */

/* The oldest of all segments that was not sent yet; *segment: whose. */
static const struct nbd_kept *next_kept(const struct nbd *nbd, unsigned *segment)
{
	const struct nbd_kept *oldest = NULL;

	for (unsigned i = 0; i < nbd->nr_segments; i++)
		if (nbd->cursors[i] && (!oldest || nbd->cursors[i]->order < oldest->order)) {
			oldest = nbd->cursors[i];
			*segment = i;
		}
	return oldest;
}

/* A free slot, if nothing that overlaps is under way, nor may be on an old connection. */
static struct nbd_replay_slot *slot_for(struct nbd *nbd, const struct nbd_kept *kept)
{
	struct nbd_replay_slot *free_slot = NULL;

	/* Its end wakes this queue.  Until then all queues hold still. */
	if (atomic_load(&nbd->ghosts) && nbd_ghost_precedes(nbd, kept))
		return NULL;
	for (unsigned i = 0; i < NBD_REPLAYS; i++) {
		const struct nbd_kept *other = nbd->slots[i].kept;

		if (!other)
			free_slot = &nbd->slots[i];
		else if (kept->offset < other->offset + other->length &&
			 other->offset < kept->offset + kept->length)
			return NULL;
	}
	return free_slot;
}

static bool any_under_way(const struct nbd *nbd)
{
	for (unsigned i = 0; i < NBD_REPLAYS; i++)
		if (nbd->slots[i].kept)
			return true;
	return false;
}

static int sent_again(void *user_data, int *error)
{
	struct nbd_replay_slot *slot = user_data;
	struct nbd *nbd = slot->nbd;
	struct nbd_connection *conn = nbd->replay_connection;

	if (!nbd_connection_answered(conn, slot->sent_ns, *error))
		return 1; /* it is lost, and all this with it */
	slot->kept = NULL;
	if (*error)
		nbd_set_lost(nbd, *error,
			     "the server refuses to repeat a write that it "
			     "acknowledged before");
	nbd->replayed++;
	nbd_gauge_add(nbd, NBD_GAUGE_REPLAYED, 1);
	return 1;
}

static int send_again(struct nbd_connection *conn, struct nbd_replay_slot *slot,
		      const struct nbd_kept *kept)
{
	struct nbd_command command = {
		.type = NBD_COMMAND_TRIM,
		.length = kept->length,
		.offset = kept->offset,
		.sent_ns = &slot->sent_ns,
		.done = sent_again,
		.context = slot,
	};

	if (kept->flags & IO_FUA && conn->facts.fua)
		command.flags |= LIBNBD_CMD_FLAG_FUA;
	if (kept->op == IO_WRITE) {
		command.type = NBD_COMMAND_WRITE;
		command.data = kept->data;
	} else if (kept->op == IO_WRITE_ZEROES) {
		command.type = NBD_COMMAND_WRITE_ZEROES;
		if (kept->flags & IO_KEEP)
			command.flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	}
	return nbd_connection_send(conn, &command);
}

/*
 * All queues go on together: halts changes with the same lock held, so that a queue that parked for
 * this halt is not counted for the next one.
 */
static void finish_replay(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	atomic_store(&nbd->flush_soon, nbd->replayed > 0);
	if (nbd->replayed)
		log_info(nbd->instance->name,
			 "resent %llu acknowledged writes that no flush had covered",
			 (unsigned long long)nbd->replayed);
	pthread_mutex_lock(&nbd->gate);
	nbd->replays_done = nbd->replays_begun;
	nbd->replay_cuts = 0;
	nbd->leader = NULL;
	nbd->replay_connection = NULL;
	nbd->nr_parked = 0;
	nbd->halts++;
	atomic_store(&nbd->halt, false);
	nbd_queues_wake_locked(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

static void send_kept(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	struct nbd_connection *conn = nbd->replay_connection;
	const struct nbd_kept *kept;
	struct nbd_replay_slot *slot;
	unsigned segment;

	while ((kept = next_kept(nbd, &segment)) && (slot = slot_for(nbd, kept))) {
		nbd->cursors[segment] = kept->next;
		/* A trim leaves undefined data: a server that cannot trim any more is right. */
		if (kept->op == IO_DISCARD && !conn->facts.trim)
			continue;
		*slot = (struct nbd_replay_slot){ nbd, kept, queue_now_ns(q->queue) };
		/* Counted before the call: libnbd may answer from within it. */
		conn->in_flight++;
		if (send_again(conn, slot, kept)) {
			slot->kept = NULL;
			conn->in_flight--;
			if (nbd_connection_refused(conn))
				nbd_set_lost(nbd, nbd_connection_refused(conn),
					     "cannot resend a write");
		}
		nbd_connection_check(conn);
		if (nbd->leader != q)
			return; /* it was lost over it */
	}
	if (!kept && !any_under_way(nbd))
		finish_replay(q);
}

static struct nbd_connection *usable_connection(struct nbd_queue *q)
{
	for (unsigned i = 0; i < q->nr_connections; i++)
		if (q->connections[i].state >= NBD_CONNECTION_JOINING)
			return &q->connections[i];
	return NULL;
}

/*
 * The oldest of a segment that no flush has covered.  Segments let go of what one has
 * covered at times of their own: what one still has may be older than what another
 * has let go of, and must not be written over that.
 */
static const struct nbd_kept *first_unstable(const struct nbd_segment *segment)
{
	uint64_t stable = atomic_load(&segment->journal->stable);
	const struct nbd_kept *kept = nbd_segment_first(segment);

	while (kept && kept->order < stable)
		kept = kept->next;
	return kept;
}

static void lead_replay(struct nbd_queue *q, struct nbd_connection *conn)
{
	struct nbd *nbd = q->nbd;

	nbd->leader = q;
	nbd->replay_connection = conn;
	nbd->replays_begun++;
	nbd->replayed = 0;
	memset(nbd->slots, 0, sizeof(nbd->slots));
	for (unsigned i = 0; i < nbd->nr_segments; i++)
		nbd->cursors[i] = first_unstable(&nbd->segments[i]);
}

/* Nothing of q is under way: holds still, and leads if it can and nobody does. */
static void hold_still(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	struct nbd_connection *conn = usable_connection(q);

	pthread_mutex_lock(&nbd->gate);
	if (atomic_load(&nbd->halt)) {
		bool last = false;

		if (q->parked != nbd->halts) {
			q->parked = nbd->halts;
			last = ++nbd->nr_parked == nbd->nr_serving;
		}
		if (nbd->nr_parked == nbd->nr_serving && !nbd->leader) {
			if (conn)
				lead_replay(q, conn);
			else if (last)
				nbd_queues_wake_locked(nbd);
		}
	}
	pthread_mutex_unlock(&nbd->gate);
}

static unsigned in_flight(const struct nbd_queue *q)
{
	unsigned n = 0;

	for (unsigned i = 0; i < q->nr_connections; i++)
		n += q->connections[i].in_flight;
	return n;
}

static void joined(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	for (unsigned i = 0; i < q->nr_connections; i++) {
		struct nbd_connection *conn = &q->connections[i];
		bool done;

		if (conn->state != NBD_CONNECTION_JOINING)
			continue;
		pthread_mutex_lock(&nbd->gate);
		done = conn->joins <= nbd->replays_done;
		pthread_mutex_unlock(&nbd->gate);
		if (done)
			nbd_connection_ready(conn);
		else
			nbd_replay_join(q, conn);
	}
}

void nbd_replay_round(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	if (atomic_load_explicit(&nbd->halt, memory_order_acquire)) {
		if (nbd->leader != q && !in_flight(q))
			hold_still(q);
		if (nbd->leader == q)
			send_kept(q);
	}
	if (!atomic_load_explicit(&nbd->halt, memory_order_acquire))
		joined(q);
}

void nbd_replay_abandon(struct nbd_connection *conn)
{
	struct nbd *nbd = conn->owner->nbd;

	if (nbd->leader != conn->owner || nbd->replay_connection != conn)
		return;
	pthread_mutex_lock(&nbd->gate);
	memset(nbd->slots, 0, sizeof(nbd->slots));
	nbd->leader = NULL;
	nbd->replay_connection = NULL;
	nbd_queues_wake_locked(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

uint64_t nbd_replay_oldest_sent(const struct nbd_connection *conn)
{
	const struct nbd *nbd = conn->owner->nbd;
	uint64_t oldest = 0;

	if (nbd->leader != conn->owner || nbd->replay_connection != conn)
		return 0;
	for (unsigned i = 0; i < NBD_REPLAYS; i++)
		if (nbd->slots[i].kept && (!oldest || nbd->slots[i].sent_ns < oldest))
			oldest = nbd->slots[i].sent_ns;
	return oldest;
}
