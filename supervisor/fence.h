/* SPDX-License-Identifier: MIT */
/*
 * The connections of an export's dead workers: their servers may still carry out what
 * those workers had in flight, and ublkd does not know which blocks that is.  So no other
 * worker serves the device before each of them is over (common/old_socket.h).
 *
 * Owner: the export (struct export).  Thread: the loop's.
 */
#ifndef UBLKD_FENCE_H
#define UBLKD_FENCE_H

#include <stdint.h>

struct fenced;

/* Zeroed: no connection. */
struct fence {
	struct fenced *list;
	unsigned nr;
	uint64_t since_ms; /* when the first of them was given up; clock_ms() */
};

/*
 * fd, which is the fence's from now on, was a dead worker's: it is shut for sending, and
 * waited for, wait_ms milliseconds at most (UINT64_MAX: without bound).
 */
void fence_add(struct fence *fence, int fd, uint64_t wait_ms);

/*
 * Closes the connections that are over.  elsewhere_ms: when the server last answered
 * another worker; 0: it has not.  Returns how many connections there still are; *there
 * (may be NULL): how many of them the server is known to have.  name: for the log.
 */
unsigned fence_check(struct fence *fence, const char *name, uint64_t elsewhere_ms, unsigned *there);

/* Closes all of them, whatever their servers do. */
void fence_close(struct fence *fence);

#endif
