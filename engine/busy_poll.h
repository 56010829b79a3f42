/* SPDX-License-Identifier: MIT */
/*
 * When a queue's thread spins before it sleeps.  To be woken costs a thread some microseconds, and
 * the request that wakes it waits that long; spinning spares both where the next request comes
 * soon, and wastes a CPU where it does not.
 *
 * So it is given up while it does not pay: after BUSY_POLL_MISSES spins in a row for nothing the
 * thread sleeps at once in the next BUSY_POLL_REST rounds, in twice as many after the next such
 * failure, up to BUSY_POLL_REST_MAX.  One spin is enough if the thread was preempted since the last
 * one: others want the CPU, maybe who would send the next request.  Nor does it spin after a round
 * with BUSY_POLL_BUSY completions: then it is woken seldom anyway.
 *
 * Thread: the queue's.
 */
#ifndef UBLKD_BUSY_POLL_H
#define UBLKD_BUSY_POLL_H

#include <stdbool.h>
#include <stdint.h>

#define BUSY_POLL_AUTO_US  100u
#define BUSY_POLL_MISSES   4u
#define BUSY_POLL_REST     16u
#define BUSY_POLL_REST_MAX 4096u
#define BUSY_POLL_BUSY     4u

struct busy_poll {
	uint64_t bound_ns; /* the longest spin; 0: never spins */
	unsigned misses;   /* in a row */
	unsigned rest;     /* rounds to come in which it sleeps at once */
	unsigned next_rest;
	long preemptions; /* of the thread, at its last spin */
};

/* Whether to spin now; completions: how many the last round took. */
static inline bool busy_poll_is_due(struct busy_poll *poll, unsigned completions)
{
	if (!poll->bound_ns)
		return false;
	if (poll->rest) {
		poll->rest--;
		return false;
	}
	return completions < BUSY_POLL_BUSY;
}

/* After a spin: whether something came, and how often the thread was preempted so far. */
static inline void busy_poll_ended(struct busy_poll *poll, bool paid, long preemptions)
{
	bool preempted = preemptions != poll->preemptions;

	poll->preemptions = preemptions;
	poll->misses = paid ? 0 : poll->misses + 1;
	if (preempted || poll->misses >= BUSY_POLL_MISSES) {
		poll->misses = 0;
		poll->rest = poll->next_rest ? poll->next_rest : BUSY_POLL_REST;
		poll->next_rest = 2 * poll->rest;
		if (poll->next_rest > BUSY_POLL_REST_MAX)
			poll->next_rest = BUSY_POLL_REST_MAX;
	} else if (paid && poll->next_rest > BUSY_POLL_REST) {
		poll->next_rest /= 2;
	}
}

#endif
