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
#include "backends/nbd/nbd.h"

#include <errno.h>
#include <string.h>

/* Gate held. */
static void wake_all(struct nbd *nbd)
{
	for (unsigned i = 0; i < nbd->nr_logs; i++)
		if (nbd->queues[i])
			queue_wake(nbd->queues[i]->queue);
}

void nbd_replay_wake(struct nbd *nbd)
{
	pthread_mutex_lock(&nbd->gate);
	wake_all(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

void nbd_replay_open_queue(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	pthread_mutex_lock(&nbd->gate);
	nbd->queues[q->index] = q;
	nbd->nr_serving++;
	if (atomic_load(&nbd->halt))
		queue_wake(q->queue);
	pthread_mutex_unlock(&nbd->gate);
}

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
	wake_all(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

/*
 * What was acknowledged may be lost, and nobody has it: the next flush tells.  On
 * whichever connection that was: its loss need not have been noticed yet.
 */
static void tell_loss(struct nbd *nbd)
{
	pthread_mutex_lock(&nbd->gate);
	if (nbd_ledger_owes(&nbd->ledger)) {
		nbd_ledger_flushed(&nbd->ledger, atomic_load(&nbd->ledger.order));
		atomic_store(&nbd->owed, -EIO);
		log_error(nbd->export->name,
			  "the server may have lost writes that it acknowledged, and none are kept "
			  "(retain=0): the next flush fails");
	}
	pthread_mutex_unlock(&nbd->gate);
}

static void ask(struct nbd *nbd, struct nbd_link *link)
{
	pthread_mutex_lock(&nbd->gate);
	link->joins = nbd->replays_begun + 1;
	atomic_store(&nbd->halt, true);
	wake_all(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

void nbd_replay_join(struct nbd_queue *q, struct nbd_link *link)
{
	struct nbd *nbd = q->nbd;

	/* Unless it is flushed by now, the server may have lost that too. */
	if (nbd_has_heritage(nbd))
		nbd_set_lost(nbd, EIO, NBD_HERITAGE_LOST);
	else if (nbd->retain == NBD_RETAIN_TELL)
		tell_loss(nbd);
	if (nbd->retain != NBD_RETAIN_LOG || !__atomic_load_n(nbd->ledger.bytes, __ATOMIC_SEQ_CST))
		nbd_link_ready(link);
	else
		ask(nbd, link);
}

/* ---- sending again ---- */

/* The oldest of all logs that was not sent yet; *log: whose. */
static const struct nbd_kept *next_kept(const struct nbd *nbd, unsigned *log)
{
	const struct nbd_kept *oldest = NULL;

	for (unsigned i = 0; i < nbd->nr_logs; i++)
		if (nbd->cursors[i] && (!oldest || nbd->cursors[i]->order < oldest->order)) {
			oldest = nbd->cursors[i];
			*log = i;
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
	struct nbd_link *link = nbd->replay_link;

	if (!nbd_link_answered(link, slot->sent_ns, *error))
		return 1; /* it is lost, and all this with it */
	slot->kept = NULL;
	if (*error)
		nbd_set_lost(nbd, *error, "the server refuses a write that it acknowledged before");
	nbd->replayed++;
	nbd_gauge_add(nbd, NBD_GAUGE_REPLAYED, 1);
	return 1;
}

static int send_again(struct nbd_link *link, struct nbd_replay_slot *slot,
		      const struct nbd_kept *kept)
{
	nbd_completion_callback done = { .callback = sent_again, .user_data = slot };
	uint32_t flags = 0;

	if (kept->flags & IO_FUA && link->facts.fua)
		flags |= LIBNBD_CMD_FLAG_FUA;
	switch (kept->op) {
	case IO_WRITE:
		return nbd_aio_pwrite(link->handle, kept->data, kept->length, kept->offset, done,
				      flags) < 0;
	case IO_WRITE_ZEROES:
		if (kept->flags & IO_KEEP)
			flags |= LIBNBD_CMD_FLAG_NO_HOLE;
		return nbd_aio_zero(link->handle, kept->length, kept->offset, done, flags) < 0;
	}
	return nbd_aio_trim(link->handle, kept->length, kept->offset, done, flags) < 0;
}

static void finish(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	atomic_store(&nbd->flush_soon, nbd->replayed > 0);
	if (nbd->replayed)
		log_info(nbd->export->name,
			 "%llu acknowledged writes that no flush had covered were sent again",
			 (unsigned long long)nbd->replayed);
	pthread_mutex_lock(&nbd->gate);
	nbd->replays_done = nbd->replays_begun;
	nbd->replay_cuts = 0;
	nbd->leader = NULL;
	nbd->replay_link = NULL;
	nbd->nr_parked = 0;
	nbd->halts++;
	atomic_store(&nbd->halt, false);
	wake_all(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

static void pump(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	struct nbd_link *link = nbd->replay_link;
	const struct nbd_kept *kept;
	struct nbd_replay_slot *slot;
	unsigned log;

	while ((kept = next_kept(nbd, &log)) && (slot = slot_for(nbd, kept))) {
		nbd->cursors[log] = nbd_log_next(&nbd->logs[log], kept);
		/* A trim leaves undefined data: a server that cannot trim any more is right. */
		if (kept->op == IO_DISCARD && !link->facts.trim)
			continue;
		*slot = (struct nbd_replay_slot){ nbd, kept, queue_now_ns(q->queue) };
		link->in_flight++;
		if (send_again(link, slot, kept)) {
			slot->kept = NULL;
			link->in_flight--;
			if (!nbd_aio_is_dead(link->handle))
				nbd_set_lost(nbd, nbd_get_errno(), "a write cannot be sent again");
		}
		nbd_link_look(link);
		if (nbd->leader != q)
			return; /* it was lost over it */
	}
	if (!kept && !any_under_way(nbd))
		finish(q);
}

static struct nbd_link *usable_link(struct nbd_queue *q)
{
	for (unsigned i = 0; i < q->nr_links; i++)
		if (q->links[i].state >= NBD_LINK_JOINING)
			return &q->links[i];
	return NULL;
}

/*
 * The oldest of a log that no flush has covered.  Logs let go of what one has
 * covered at times of their own: what one still has may be older than what another
 * has let go of, and must not be written over that.
 */
static const struct nbd_kept *first_unstable(const struct nbd_log *log)
{
	uint64_t stable = atomic_load(&log->ledger->stable);
	const struct nbd_kept *kept = log->arena ? nbd_log_first(log) : NULL;

	while (kept && kept->order < stable)
		kept = nbd_log_next(log, kept);
	return kept;
}

static void lead(struct nbd_queue *q, struct nbd_link *link)
{
	struct nbd *nbd = q->nbd;

	nbd->leader = q;
	nbd->replay_link = link;
	nbd->replays_begun++;
	nbd->replayed = 0;
	memset(nbd->slots, 0, sizeof(nbd->slots));
	for (unsigned i = 0; i < nbd->nr_logs; i++)
		nbd->cursors[i] = first_unstable(&nbd->logs[i]);
}

/* Nothing of q is under way: holds still, and leads if it can and nobody does. */
static void hold_still(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;
	struct nbd_link *link = usable_link(q);

	pthread_mutex_lock(&nbd->gate);
	if (atomic_load(&nbd->halt)) {
		bool last = false;

		if (q->parked != nbd->halts) {
			q->parked = nbd->halts;
			last = ++nbd->nr_parked == nbd->nr_serving;
		}
		if (nbd->nr_parked == nbd->nr_serving && !nbd->leader) {
			if (link)
				lead(q, link);
			else if (last)
				wake_all(nbd);
		}
	}
	pthread_mutex_unlock(&nbd->gate);
}

static unsigned in_flight(const struct nbd_queue *q)
{
	unsigned n = 0;

	for (unsigned i = 0; i < q->nr_links; i++)
		n += q->links[i].in_flight;
	return n;
}

static void joined(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	for (unsigned i = 0; i < q->nr_links; i++) {
		struct nbd_link *link = &q->links[i];
		bool done;

		if (link->state != NBD_LINK_JOINING)
			continue;
		pthread_mutex_lock(&nbd->gate);
		done = link->joins <= nbd->replays_done;
		pthread_mutex_unlock(&nbd->gate);
		if (done)
			nbd_link_ready(link);
		else
			nbd_replay_join(q, link);
	}
}

void nbd_replay_round(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	if (atomic_load_explicit(&nbd->halt, memory_order_acquire)) {
		if (nbd->leader != q && !in_flight(q))
			hold_still(q);
		if (nbd->leader == q)
			pump(q);
	}
	if (!atomic_load_explicit(&nbd->halt, memory_order_acquire))
		joined(q);
}

void nbd_replay_abandon(struct nbd_link *link)
{
	struct nbd *nbd = link->owner->nbd;

	if (nbd->leader != link->owner || nbd->replay_link != link)
		return;
	pthread_mutex_lock(&nbd->gate);
	memset(nbd->slots, 0, sizeof(nbd->slots));
	nbd->leader = NULL;
	nbd->replay_link = NULL;
	wake_all(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

uint64_t nbd_replay_oldest_sent(const struct nbd_link *link)
{
	const struct nbd *nbd = link->owner->nbd;
	uint64_t oldest = 0;

	if (nbd->leader != link->owner || nbd->replay_link != link)
		return 0;
	for (unsigned i = 0; i < NBD_REPLAYS; i++)
		if (nbd->slots[i].kept && (!oldest || nbd->slots[i].sent_ns < oldest))
			oldest = nbd->slots[i].sent_ns;
	return oldest;
}
