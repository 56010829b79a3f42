/* SPDX-License-Identifier: MIT */
/*
 * Flows of the loop: code that does one step after the other, as it reads, and
 * lets the loop go on while it waits.
 *
 * A fiber has a stack of its own and runs on the loop's thread.  It runs until it
 * waits or ends; nothing else runs meanwhile, so what one fiber does between two
 * waits is seen whole by all others.  Everything that waits in ublkd (the
 * kernel's commands, workers, clients, time) is a fiber that waits for an event.
 *
 * Thread: the loop's, all of it.
 */
#ifndef UBLKD_FIBER_H
#define UBLKD_FIBER_H

#include <uv.h>

/* Owner: whoever has it; zeroed is a good one.  Fibers wait for it. */
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
 * bound).  Returns 0 or -ETIMEDOUT.  What was waited for must be looked at again:
 * others that waited for the same event may have run before.
 */
int fiber_wait(struct fiber_event *event, unsigned ms);

/* From a fiber. */
void fiber_sleep(unsigned ms);

/* Wakes all that wait for the event.  Nothing of theirs has run when it returns to a fiber. */
void fiber_raise(struct fiber_event *event);

/* Number of fibers that have not ended. */
unsigned fiber_count(void);

#endif
