/* SPDX-License-Identifier: MIT */
/*
 * Steps that come before a new connection may be used; replay.c says which. On the thread of
 * the queue, unless a call says otherwise.
 */
#ifndef UBLKD_NBD_REPLAY_H
#define UBLKD_NBD_REPLAY_H

#include "backends/nbd/nbd.h"

/* The queue no longer serves: the others do not wait for it. */
void nbd_replay_close_queue(struct nbd_queue *q);
/* A connection of q is connected. */
void nbd_replay_join(struct nbd_queue *q, struct nbd_connection *conn);
/* At the end of a round: holds still, leads, goes on, as it is due. */
void nbd_replay_round(struct nbd_queue *q);
/* A connection of the leader's was lost, or its queue ends. */
void nbd_replay_abandon(struct nbd_connection *conn);
/* Of what is being sent again over connection, when the oldest was sent; 0: nothing is. */
uint64_t nbd_replay_oldest_sent(const struct nbd_connection *conn);

#endif
