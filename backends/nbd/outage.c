/* SPDX-License-Identifier: MIT */
#include "backends/nbd/outage.h"

static unsigned nr_connected(const struct nbd *nbd)
{
	return (unsigned)__atomic_load_n(&nbd->instance->gauges[NBD_GAUGE_CONNECTED],
					 __ATOMIC_RELAXED);
}

/* Why I/O is blocked, or, with reconnect-deadline=0, fails. */
static void report_away(struct nbd *nbd, const char *reason)
{
	if (!nbd->deadline_ns)
		instance_report(nbd->instance, CAUSE_DEADLINE, "no connection to the server: %s",
				reason);
	else
		instance_report(nbd->instance, CAUSE_SERVER_AWAY, "no connection to the server: %s",
				reason);
}

void nbd_outage_connected(struct nbd *nbd)
{
	instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
	instance_resolve(nbd->instance, CAUSE_OTHER_EXPORT);
	instance_resolve(nbd->instance, CAUSE_DEADLINE);
	if (nr_connected(nbd) == nbd->nr_connections)
		instance_resolve(nbd->instance, CAUSE_CONNECTIONS);
	else
		instance_report(nbd->instance, CAUSE_CONNECTIONS,
				"%u of %u connections to the server", nr_connected(nbd),
				nbd->nr_connections);
}

void nbd_outage_lost(struct nbd *nbd, const char *reason)
{
	if (nr_connected(nbd))
		instance_report(nbd->instance, CAUSE_CONNECTIONS,
				"%u of %u connections to the server: %s", nr_connected(nbd),
				nbd->nr_connections, reason);
	else
		report_away(nbd, reason);
}

void nbd_outage_refused(struct nbd *nbd, const char *reason, bool refused)
{
	if (nr_connected(nbd))
		return;
	if (!refused) {
		report_away(nbd, reason);
		return;
	}
	instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
	instance_report(nbd->instance, CAUSE_OTHER_EXPORT, "%s", reason);
}

void nbd_outage_silent(struct nbd *nbd, bool silent)
{
	if (silent)
		instance_report(nbd->instance, CAUSE_SERVER_AWAY,
				"the server does not answer requests");
	else if (nr_connected(nbd))
		instance_resolve(nbd->instance, CAUSE_SERVER_AWAY);
}

void nbd_outage_fails(struct nbd *nbd, bool fails)
{
	if (fails)
		instance_report(nbd->instance, CAUSE_DEADLINE,
				"I/O fails with EIO: the server is away for longer than "
				"reconnect-deadline");
	else
		instance_resolve(nbd->instance, CAUSE_DEADLINE);
}

void nbd_outage_ghost(struct nbd *nbd, bool waits)
{
	if (waits)
		instance_report(nbd->instance, CAUSE_OLD_CONNECTION,
				"the server has not ended a connection that was given up with "
				"writes in flight: I/O that overlaps them waits");
	else
		instance_resolve(nbd->instance, CAUSE_OLD_CONNECTION);
}
