/* SPDX-License-Identifier: MIT */
/*
 * When a queue's thread spins before it sleeps.  To be woken costs a thread some microseconds, and
 * the request that wakes it waits that long; spinning spares both where the next request comes
 * soon, and wastes a CPU where it does not.
 *
 * So it is given up while it does not pay: after BUSY_POLL_MISSES polls in a row for nothing the
 * thread sleeps at once in the next BUSY_POLL_REST rounds, in twice as many after the next such
 * failure, up to BUSY_POLL_REST_MAX.  Nor does it spin after a round with BUSY_POLL_BUSY
 * completions: then it is woken seldom anyway.
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

/* After a spin: whether something came. */
static inline void busy_poll_ended(struct busy_poll *poll, bool paid)
{
	if (paid) {
		poll->misses = 0;
		poll->next_rest = BUSY_POLL_REST;
	} else if (++poll->misses >= BUSY_POLL_MISSES) {
		if (!poll->next_rest)
			poll->next_rest = BUSY_POLL_REST;
		poll->misses = 0;
		poll->rest = poll->next_rest;
		if (poll->next_rest < BUSY_POLL_REST_MAX)
			poll->next_rest *= 2;
	}
}

#endif
