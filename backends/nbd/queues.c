/* SPDX-License-Identifier: MIT */
#include "backends/nbd/queues.h"

void nbd_queues_wake_locked(struct nbd *nbd)
{
	for (unsigned i = 0; i < nbd->nr_segments; i++)
		if (nbd->queues[i])
			queue_wake(nbd->queues[i]->queue);
}

void nbd_queues_wake(struct nbd *nbd)
{
	pthread_mutex_lock(&nbd->gate);
	nbd_queues_wake_locked(nbd);
	pthread_mutex_unlock(&nbd->gate);
}

void nbd_queues_add(struct nbd_queue *q)
{
	struct nbd *nbd = q->nbd;

	pthread_mutex_lock(&nbd->gate);
	nbd->queues[q->index] = q;
	nbd->nr_serving++;
	if (atomic_load(&nbd->halt))
		queue_wake(q->queue);
	pthread_mutex_unlock(&nbd->gate);
}
