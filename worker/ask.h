/* SPDX-License-Identifier: MIT */
/*
 * The host of a worker's backend: ublkd, asked by a socket of its own.  While no
 * ublkd is there every request fails with ENOTCONN.
 *
 * Any thread: one asks at a time, the others wait for it.
 */
#ifndef UBLKD_ASK_H
#define UBLKD_ASK_H

#include "engine/backend.h"

/* The longest that ublkd takes for an answer. */
#define ASK_MS 10000
/* The same for a connection: a queue's thread waits for it, and its other ones with that. */
#define ASK_CONNECT_MS 2000

extern const struct backend_host ask_host;

/* Takes over the socket to ask by from now on; -1: there is none. */
void ask_use(int socket);

/* The memory that ask_host gave to the backend, or -1. */
int ask_memory(void);

#endif
