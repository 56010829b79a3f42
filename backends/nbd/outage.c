/* SPDX-License-Identifier: MIT */
/*
 * What is reported of a server that is away. The gauge of connected connections is read and the
 * report made under one lock: else one queue could report what another one has just resolved,
 * and the report would stay until the next change.
 */
#include "backends/nbd/outage.h"

#include <stdio.h>

static unsigned nr_connected(const struct nbd *nbd)
{
	return (unsigned)__atomic_load_n(&nbd->instance->gauges[NBD_GAUGE_CONNECTED],
					 __ATOMIC_RELAXED);
}

/* Before that, the other connections of a server that goes away are lost, too, which says more. */
#define CUT_OFF_MS 1000u

/* Whether its I/O has waited for a while, wherever the other queues' goes. */
static bool is_cut_off(const struct nbd_queue *q, uint64_t now_ns)
{
	for (unsigned i = 0; i < q->nr_connections; i++) {
		const struct nbd_connection *conn = &q->connections[i];

		if (conn->state == NBD_CONNECTION_READY ||
		    now_ns - conn->lost_ns < CUT_OFF_MS * (uint64_t)NBD_NS_PER_MS)
			return false;
	}
	return q->nr_connections;
}

/* Why I/O is blocked, or, with reconnect-deadline=0, fails. */
static void report_away(struct nbd *nbd, const char *reason)
{
	instance_resolve(nbd->instance, CAUSE_OTHER_EXPORT);
	instance_report(nbd->instance, nbd->deadline_ns ? CAUSE_SERVER_AWAY : CAUSE_DEADLINE,
			"no connection to the server: %s", reason);
}

/* Some connections work. */
static void report_part(struct nbd *nbd)
{
	const char *colon = *nbd->outage_reason ? ": " : "";

	/* I/O of a queue waits for a connection of its own, with reconnect-deadline=0, too. */
	if (nbd->nr_cut_off)
		instance_report(nbd->instance, CAUSE_SERVER_AWAY,
				"%u of %u queues have no connection%s%s", nbd->nr_cut_off,
				nbd->instance->nr_queues, colon, nbd->outage_reason);
	else
		instance_report(nbd->instance, CAUSE_CONNECTIONS,
				"%u of %u connections to the server%s%s", nr_connected(nbd),
				nbd->nr_connections, colon, nbd->outage_reason);
}

void nbd_outage_tick(struct nbd_queue *q, uint64_t now_ns)
{
	struct nbd *nbd = q->nbd;

	if (q->cut_off || !is_cut_off(q, now_ns))
		return;
	pthread_mutex_lock(&nbd->outage_lock);
	q->cut_off = nbd->ailing = true;
	nbd->nr_cut_off++;
	if (nr_connected(nbd))
		report_part(nbd);
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_connected(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	pthread_mutex_lock(&nbd->outage_lock);
	nbd->nr_cut_off -= q->cut_off;
	q->cut_off = false;
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
		nbd->outage_reason[0] = 0;
	} else if (nbd->ailing) {
		/* Not while connections are only made again for a larger size. */
		report_part(nbd);
	}
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_failed(struct nbd *nbd, const char *reason, bool refused)
{
	pthread_mutex_lock(&nbd->outage_lock);
	nbd->ailing = true;
	snprintf(nbd->outage_reason, sizeof(nbd->outage_reason), "%s", reason);
	if (nr_connected(nbd)) {
		report_part(nbd);
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
