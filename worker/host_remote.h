/* SPDX-License-Identifier: MIT */
/*
 * The host of a worker's backend: ublkd, asked by a socket of its own.  While no
 * ublkd is there every request fails with ENOTCONN.
 *
 * Any thread: one asks at a time, the others wait for it.
 */
#ifndef UBLKD_HOST_REMOTE_H
#define UBLKD_HOST_REMOTE_H

#include "engine/backend.h"

/* The longest that ublkd takes for an answer. */
#define ASK_MS 10000
/* The same for a connection: a queue's thread waits for it, and its other ones with that. */
#define ASK_CONNECT_MS 2000

extern const struct backend_host host_remote;

/* Takes over the socket to ask by from now on; -1: there is none. */
void host_remote_use(int socket);

/* The memory that host_remote gave to the backend, or -1. */
int host_remote_memory(void);

#endif
