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

/* Why I/O is blocked, or, with reconnect-deadline=0, fails. */
static void report_away(struct nbd *nbd, const char *reason)
{
	instance_resolve(nbd->instance, CAUSE_OTHER_EXPORT);
	instance_report(nbd->instance, nbd->deadline_ns ? CAUSE_SERVER_AWAY : CAUSE_DEADLINE,
			"no connection to the server: %s", reason);
}

void nbd_outage_connected(struct nbd *nbd)
{
	unsigned nr;

	pthread_mutex_lock(&nbd->outage_lock);
	/*
	 * One connection that works proves that the server has this export, whatever another was
	 * told.
	 */
	nr = nr_connected(nbd);
	instance_resolve(nbd->instance, CAUSE_OTHER_EXPORT);
	if (!atomic_load(&nbd->silent))
		instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
	if (!nbd->nr_failing)
		instance_resolve(nbd->instance, CAUSE_DEADLINE);
	if (nr == nbd->nr_connections) {
		instance_resolve(nbd->instance, CAUSE_CONNECTIONS);
		nbd->ailing = false;
	} else if (nbd->ailing) {
		/* Not while connections are only made again for a larger size. */
		instance_report(nbd->instance, CAUSE_CONNECTIONS,
				"%u of %u connections to the server", nr, nbd->nr_connections);
	}
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_lost(struct nbd *nbd, const char *reason)
{
	pthread_mutex_lock(&nbd->outage_lock);
	nbd->ailing = true;
	if (nr_connected(nbd))
		instance_report(nbd->instance, CAUSE_CONNECTIONS,
				"%u of %u connections to the server: %s", nr_connected(nbd),
				nbd->nr_connections, reason);
	else
		report_away(nbd, reason);
	pthread_mutex_unlock(&nbd->outage_lock);
}

void nbd_outage_refused(struct nbd *nbd, const char *reason, bool refused)
{
	pthread_mutex_lock(&nbd->outage_lock);
	if (nr_connected(nbd)) {
		/* CAUSE_CONNECTIONS says enough. */
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
		else if (nr_connected(nbd))
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
