/* SPDX-License-Identifier: MIT */
/*
 * What is reported of a server that is away. The gauge of connected connections is read and the
 * report made under one lock: else one queue could report what another one has just resolved,
 * and the report would stay until the next change.
 */
#include "backends/nbd/outage.h"

static unsigned nr_connected(const struct nbd *nbd)
{
	return (unsigned)__atomic_load_n(&nbd->instance->gauges[NBD_GAUGE_CONNECTED],
					 __ATOMIC_RELAXED);
}

/* Counts the queue as cut off while none of its connections takes requests; lost: one that ends. */
static void count_cut_off(struct nbd_queue *q, const struct nbd_connection *lost)
{
	bool cut_off = true;

	for (unsigned i = 0; i < q->nr_connections; i++)
		if (q->connections[i].state == NBD_CONNECTION_READY && &q->connections[i] != lost)
			cut_off = false;
	if (q->cut_off != cut_off)
		q->nbd->nr_cut_off += cut_off ? 1 : -1;
	q->cut_off = cut_off;
}

/* Why I/O is blocked, or, with reconnect-deadline=0, fails. */
static void report_away(struct nbd *nbd, const char *reason)
{
	instance_resolve(nbd->instance, CAUSE_OTHER_EXPORT);
	instance_report(nbd->instance, nbd->deadline_ns ? CAUSE_SERVER_AWAY : CAUSE_DEADLINE,
			"no connection to the server: %s", reason);
}

/* Some connections work; reason: why the last one does not, or "". */
static void report_part(struct nbd *nbd, const char *reason)
{
	const char *colon = *reason ? ": " : "";

	/* I/O of a queue waits for a connection of its own, with reconnect-deadline=0, too. */
	if (nbd->nr_cut_off)
		instance_report(nbd->instance, CAUSE_SERVER_AWAY,
				"%u of %u queues have no connection%s%s", nbd->nr_cut_off,
				nbd->instance->nr_queues, colon, reason);
	else
		instance_report(nbd->instance, CAUSE_CONNECTIONS,
				"%u of %u connections to the server%s%s", nr_connected(nbd),
				nbd->nr_connections, colon, reason);
}

void nbd_outage_connected(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	pthread_mutex_lock(&nbd->outage_lock);
	count_cut_off(q, NULL);
	/*
	 * One connection that works proves that the server has this export, whatever another was
	 * told.
	 */
	instance_resolve(nbd->instance, CAUSE_OTHER_EXPORT);
	if (!atomic_load(&nbd->silent) && !nbd->nr_cut_off)
		instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
	if (!nbd->nr_failing)
		instance_resolve(nbd->instance, CAUSE_DEADLINE);
	if (nr_connected(nbd) == nbd->nr_connections) {
		instance_resolve(nbd->instance, CAUSE_CONNECTIONS);
		nbd->ailing = false;
	} else if (nbd->ailing) {
		/* Not while connections are only made again for a larger size. */
		report_part(nbd, "");
	}
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_lost(const struct nbd_connection *conn, const char *reason)
{
	struct nbd *nbd = conn->owner->nbd;

	pthread_mutex_lock(&nbd->outage_lock);
	count_cut_off(conn->owner, conn);
	nbd->ailing = true;
	if (nr_connected(nbd))
		report_part(nbd, reason);
	else
		report_away(nbd, reason);
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_refused(const struct nbd_connection *conn, const char *reason, bool refused)
{
	struct nbd *nbd = conn->owner->nbd;

	pthread_mutex_lock(&nbd->outage_lock);
	count_cut_off(conn->owner, conn);
	nbd->ailing = true;
	if (nr_connected(nbd)) {
		report_part(nbd, reason);
	} else if (!refused) {
		report_away(nbd, reason);
	} else {
		instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
		instance_report(nbd->instance, CAUSE_OTHER_EXPORT, "%s", reason);
	}
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_silent(struct nbd *nbd, bool silent)
{
	pthread_mutex_lock(&nbd->outage_lock);
	if (atomic_load(&nbd->silent) != silent) {
		atomic_store(&nbd->silent, silent);
		if (silent)
			instance_report(nbd->instance, CAUSE_SERVER_AWAY,
					"the server does not answer requests");
		else if (nr_connected(nbd) && !nbd->nr_cut_off)
			instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
	}
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_fails(struct nbd *nbd, bool fails)
{
	pthread_mutex_lock(&nbd->outage_lock);
	nbd->nr_failing += fails ? 1 : -1;
	if (nbd->nr_failing)
		instance_report(nbd->instance, CAUSE_DEADLINE,
				"I/O fails with EIO: the server has been away for longer than "
				"reconnect-deadline");
	else
		instance_resolve(nbd->instance, CAUSE_DEADLINE);
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_ghost(struct nbd *nbd, bool waits)
{
	if (waits)
		instance_report(
			nbd->instance, CAUSE_OLD_CONNECTION,
			"the server has not closed a connection that was given up with writes in "
			"flight: I/O that overlaps them waits");
	else
		instance_resolve(nbd->instance, CAUSE_OLD_CONNECTION);
}
