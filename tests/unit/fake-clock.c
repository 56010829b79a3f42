/* SPDX-License-Identifier: MIT */
/*
 * The queues' clock, as a backend sees it: the real one, and what a test lets pass at
 * once.  Timers of the ring are not touched.
 */
#include "tests/unit/fake-kernel.h"

#include <stdatomic.h>

struct queue;

uint64_t __real_queue_now_ns(const struct queue *queue);
uint64_t __wrap_queue_now_ns(const struct queue *queue);

static _Atomic uint64_t ahead_ns;

uint64_t __wrap_queue_now_ns(const struct queue *queue)
{
	return __real_queue_now_ns(queue) + atomic_load(&ahead_ns);
}

void fake_clock_pass(unsigned seconds)
{
	atomic_fetch_add(&ahead_ns, seconds * 1000000000ull);
}

void fake_clock_reset(void)
{
	atomic_store(&ahead_ns, 0);
}
