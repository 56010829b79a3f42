/* SPDX-License-Identifier: MIT */
/*
 * A connection that is silent; silence.c says when it counts as lost. On its queue's thread.
 */
#ifndef UBLKD_NBD_SILENCE_H
#define UBLKD_NBD_SILENCE_H

#include "backends/nbd/nbd.h"

/* On each tick of a connection's queue: gives the connection up if it is silent for too long. */
void nbd_silence_tick(struct nbd_connection *conn);
/* The connection has negotiated. */
void nbd_silence_met(struct nbd_connection *conn);
/* The connection is lost, or ends. */
void nbd_silence_end(struct nbd_connection *conn);

#endif
