/* SPDX-License-Identifier: MIT */
/*
 * Fibers: code that reads as a sequence of steps, and lets the loop run while it waits.
 *
 * A fiber has a stack of its own and runs on the loop's thread until it waits or ends.  Nothing
 * else runs meanwhile, so what it does between two waits is atomic for all others.  Every wait in
 * ublkd (for the kernel, workers, clients, time) is a fiber that waits for an event.
 *
 * Thread: the loop's, all of it.
 */
#ifndef UBLKD_FIBER_H
#define UBLKD_FIBER_H

#include <uv.h>

/* An event that fibers wait for; valid when zeroed.  Owner: the struct that contains it. */
struct fiber_event {
	struct fiber *first;
};

/* Before the first fiber. */
void fiber_setup(uv_loop_t *loop);

/*
 * Starts a fiber: main(context) runs until its first wait, at once or, if a fiber
 * starts another, when that one waits.  Returns 0 or -ENOMEM.
 */
int fiber_start(void (*main)(void *context), void *context);

/*
 * From a fiber: waits until the event is raised, ms milliseconds at most (0: without
 * bound).  Returns 0 or -ETIMEDOUT.  Check the condition again afterwards: other fibers that waited
 * for the same event may have run before.
 */
int fiber_wait(struct fiber_event *event, unsigned ms);

/* From a fiber. */
void fiber_sleep(unsigned ms);

/* Wakes all fibers that wait for the event.  Called from a fiber, it returns before they run. */
void fiber_raise(struct fiber_event *event);

/* Number of fibers that have not ended. */
unsigned fiber_count(void);

#endif
