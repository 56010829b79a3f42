/* SPDX-License-Identifier: MIT */
/*
 * A queue's io_uring: one thread's, one system call a round, one dispatch.
 */
#ifndef UBLKD_RING_H
#define UBLKD_RING_H

#include <liburing.h>
#include <stdbool.h>

struct error;

/*
 * What a completion is for: its address is the SQE's user_data.  Must stay until
 * done was called, or the ring is closed.
 */
struct ring_op {
	void (*done)(struct ring_op *op, int result);
};

/* Owner: the queue.  Every call on the thread that called ring_open(). */
struct ring {
	struct io_uring uring;
	const char *mode; /* how it was set up, in words */
};

/*
 * Sets a ring up for `entries` submissions at once (a power of 2 is made of it):
 * SINGLE_ISSUER and DEFER_TASKRUN where the kernel has them (6.1), else
 * COOP_TASKRUN (5.19), else plain.  Its own descriptor is registered where that
 * works (5.18).  Returns 0, or -errno with err filled: EPERM where
 * kernel.io_uring_disabled forbids it, ENOSYS, ENOMEM.
 */
int ring_open(struct ring *ring, unsigned entries, struct error *err);
void ring_close(struct ring *ring);

/* Words for why an io_uring could not be set up (code: errno); fills err, returns -code. */
int ring_refused(struct error *err, int code);

/*
 * The next SQE, not prepared; op is told of its completion.  Never NULL: more
 * than `entries` in one round are submitted early.
 */
struct io_uring_sqe *ring_sqe(struct ring *ring);
static inline void ring_sqe_for(struct io_uring_sqe *sqe, struct ring_op *op)
{
	sqe->user_data = (uint64_t)(uintptr_t)op;
}

/* Submits what is prepared, without waiting.  Returns 0 or -errno. */
int ring_submit(struct ring *ring);

/*
 * Submits what is prepared, waits for at least one completion, in one system
 * call.  Returns 0, or -errno (EINTR is not an error: 0).
 */
int ring_wait(struct ring *ring);

/* Calls done for every completion that is there.  Returns their number. */
unsigned ring_dispatch(struct ring *ring);

#endif
