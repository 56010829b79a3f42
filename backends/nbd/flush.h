/* SPDX-License-Identifier: MIT */
/*
 * Flushes of our own: what an earlier worker left unflushed, at the start; what is kept, before
 * it reaches its bound; what no flush has covered, at the end.
 */
#ifndef UBLKD_NBD_FLUSH_H
#define UBLKD_NBD_FLUSH_H

#include "backends/nbd/nbd.h"

/* At open(), before there is a queue: flushes what an earlier worker of the device has written. */
void nbd_flush_first(struct nbd *nbd);
/* The queue ends: flushes what no flush has covered, on a connection of its own. */
void nbd_flush_last(struct nbd_queue *q);
/* Whether so much is kept that a flush is due, and sending that, if it can be. */
bool nbd_is_full(const struct nbd_queue *q);
void nbd_flush_if_full(struct nbd_queue *q);

#endif
