/* SPDX-License-Identifier: MIT */
/*
 * What is reported of a server that is away, in part or as a whole (instance_report()). Called
 * at changes; on the thread of a connection's queue.
 */
#ifndef UBLKD_NBD_OUTAGE_H
#define UBLKD_NBD_OUTAGE_H

#include "backends/nbd/nbd.h"

/* A connection of the queue takes requests, after its gauge. */
void nbd_outage_connected(struct nbd_queue *q);
/*
 * A connection is lost, after its gauge, or could not be made; why. refused: the server is there,
 * and offers something else.
 */
void nbd_outage_failed(struct nbd *nbd, const char *reason, bool refused);
/* Every so often, while a connection of the queue is not READY: it may be its last. */
void nbd_outage_tick(struct nbd_queue *q, uint64_t now_ns);
/* The server has been silent on all connections for half of request-timeout, or shows life. */
void nbd_outage_silent(struct nbd *nbd, bool silent);
/* I/O of a queue fails from now on, as reconnect-deadline is over, or no longer does. */
void nbd_outage_fails(struct nbd *nbd, bool fails);
/* A connection that was given up is waited for, or none is any more. */
void nbd_outage_ghost(struct nbd *nbd, bool waits);

#endif
