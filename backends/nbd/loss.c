/* SPDX-License-Identifier: MIT */
/*
 * Three grades of a loss. Suspected: a connection is gone with unflushed writes. A flush that
 * succeeds later ends that; until then the shared counters keep it for the next worker
 * (NBD_GAUGE_IN_DOUBT). Reported once (nbd->pending_error): no copies are kept (retain=0), so one
 * flush fails and later ones are normal. For good (instance_set_lost()): a flush or a replay has
 * failed, and every flush fails from then on.
 */
#include "backends/nbd/loss.h"

#include <string.h>

void nbd_set_lost(struct nbd *nbd, int code, const char *what)
{
	if (instance_set_lost(nbd->instance, -code))
		log_error(nbd->instance->name,
			  "%s: %s: acknowledged writes may be lost, so every flush fails from now "
			  "on: check the data, then remove the export and create it again",
			  what, strerror(code));
}

bool nbd_flush_matters(const struct nbd *nbd)
{
	return nbd->facts.flush && nbd->retain != NBD_RETAIN_TRUST &&
	       !nbd->instance->limits.read_only && !instance_lost(nbd->instance);
}

uint64_t *nbd_suspect_gauge(const struct nbd *nbd)
{
	return &nbd->instance->gauges[NBD_GAUGE_IN_DOUBT];
}

void nbd_suspect_loss(struct nbd *nbd)
{
	if (!nbd_flush_matters(nbd) || !nbd_journal_has_unflushed(&nbd->journal))
		return;
	pthread_mutex_lock(&nbd->gate);
	nbd->suspect_order = atomic_load(&nbd->journal.order);
	__atomic_store_n(nbd_suspect_gauge(nbd), 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&nbd->gate);
}

void nbd_flushed(struct nbd *nbd, uint64_t covered)
{
	nbd_journal_flushed(&nbd->journal, covered);
	if (__builtin_expect(!__atomic_load_n(nbd_suspect_gauge(nbd), __ATOMIC_RELAXED), 1))
		return;
	pthread_mutex_lock(&nbd->gate);
	if (atomic_load(&nbd->journal.stable) >= nbd->suspect_order &&
	    !atomic_load(&nbd->pending_error))
		__atomic_store_n(nbd_suspect_gauge(nbd), 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&nbd->gate);
}
