/* SPDX-License-Identifier: MIT */
/*
 * Requests: sent, answered, taken back from a lost connection and sent again. On the queue's
 * thread.
 */
#ifndef UBLKD_NBD_REQUEST_H
#define UBLKD_NBD_REQUEST_H

#include "backends/nbd/nbd.h"

void nbd_list_init(struct nbd_list *list);
/* The backend's submit(): the request is sent at the end of the round. */
void nbd_submit(struct io *io);
/* Sends what waits, as far as it goes. */
void nbd_send_waiting(struct nbd_queue *q);
/* Fails what has waited for the end of an old connection for longer than reconnect-deadline. */
void nbd_fail_held(struct nbd_queue *q);
/* Ends all that waits with result, -errno. */
void nbd_fail_waiting(struct nbd_queue *q, int result);
/* The connection that has least to do; NULL: none is ready, or all hold still. */
struct nbd_connection *nbd_free_connection(struct nbd_queue *q);
/* A connection is lost: what it had waits to be sent again. */
void nbd_take_back(struct nbd_queue *q, struct nbd_connection *conn);
/* The age of the oldest request that the connection has: when it was sent; 0: it has none. */
uint64_t nbd_oldest_sent(const struct nbd_queue *q, const struct nbd_connection *conn);
/* The most cuts of what the connection has. */
unsigned nbd_most_cuts(const struct nbd_queue *q, const struct nbd_connection *conn);
/* The connection is given up over its silence: what it has for a whole time-out has more time. */
void nbd_count_cuts(struct nbd_queue *q, struct nbd_connection *conn);

#endif
