/* SPDX-License-Identifier: MIT */
/*
 * A queue's io_uring: one thread's, one system call a round, one dispatch.
 */
#ifndef UBLKD_RING_H
#define UBLKD_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine/ring_op.h"

struct error;

/* Owner: the queue.  Every call on the thread that called ring_open(). */
struct ring {
	struct io_uring uring;
	uint64_t rounds;  /* calls of ring_dispatch() */
	const char *mode; /* how it was set up, in words */
};

/* A set of operations: RING_OP(IORING_OP_READ) | … */
#define RING_OP(op) (1ull << (op))

/*
 * Sets a ring up for `entries` submissions at once (a power of 2 is made of it):
 * SINGLE_ISSUER and DEFER_TASKRUN where the kernel has them (6.1), else
 * COOP_TASKRUN (5.19), else plain.  polls: ring_poll() will be called, so that the kernel is to
 * flag what waits for the thread (IORING_SETUP_TASKRUN_FLAG, 5.19).  Its own descriptor is registered where that
 * works (5.18).  Whoever gets hold of the ring can do the operations `ops` with it,
 * register files and buffers, and no more: any other ends with EACCES (5.10).
 * Returns 0, or -errno with err filled: EPERM where kernel.io_uring_disabled forbids
 * it, ENOSYS, ENOMEM.
 */
int ring_open(struct ring *ring, unsigned entries, uint64_t ops, bool polls, struct error *err);
/* Its thread's last call, where another thread is to close it after this one's end. */
void ring_leave(struct ring *ring);
/* By its thread, or after ring_leave() and that thread's end by any. */
void ring_close(struct ring *ring);

/* Words for why an io_uring could not be set up (code: errno); fills err, returns -code. */
int ring_error(struct error *err, int code);

/* Submits early, to make room; returns an SQE.  What ring_sqe() does when there is none. */
struct io_uring_sqe *ring_sqe_late(struct ring *ring);

/*
 * Whether there is an SQE without submitting.  liburing's own call asks each time for modes that
 * this ring does not have: a kernel's thread that submits, and SQEs of 128 bytes.
 */
static inline bool ring_has_room(const struct ring *ring)
{
	const struct io_uring_sq *sq = &ring->uring.sq;

	return sq->sqe_tail - *sq->khead < sq->ring_entries;
}
/* The next SQE, not prepared; ring_has_room() has said that there is one. */
static inline struct io_uring_sqe *ring_sqe_in_room(struct ring *ring)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	struct io_uring_sqe *sqe = &sq->sqes[sq->sqe_tail++ & sq->ring_mask];

	/* What an older one has left: since 2.5 liburing's preparing calls do not clear it. */
	memset(sqe, 0, sizeof(*sqe));
	return sqe;
}
/* The next SQE, not prepared.  Never NULL: more than `entries` in a round are submitted early. */
static inline struct io_uring_sqe *ring_sqe(struct ring *ring)
{
	return __builtin_expect(ring_has_room(ring), 1) ? ring_sqe_in_room(ring)
							: ring_sqe_late(ring);
}

/* Once it is prepared: op is told of its completion. */
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

/*
 * Spins until a completion is there, or ring_wait() would take one without sleeping, or the clock
 * is at until_ns (clock_ns()).  Returns whether there is one.  What is prepared must have been
 * submitted.
 */
bool ring_poll(const struct ring *ring, uint64_t until_ns);

/*
 * Calls done for every completion that is there, and not for those that come meanwhile; returns
 * how many these were.
 */
static inline unsigned ring_dispatch(struct ring *ring)
{
	const struct io_uring_cq *cq = &ring->uring.cq;
	const struct io_uring_cqe *cqes = cq->cqes;
	unsigned mask = cq->ring_mask, first = *cq->khead;
	unsigned end = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);

	ring->rounds++;
	for (unsigned at = first; at != end; at++) {
		const struct io_uring_cqe *cqe = &cqes[at & mask];
		struct ring_op *op = (struct ring_op *)(uintptr_t)cqe->user_data;

		op->done(op, cqe->res);
	}
	io_uring_cq_advance(&ring->uring, end - first);
	return end - first;
}

#endif
