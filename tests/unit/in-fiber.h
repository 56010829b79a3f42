/* SPDX-License-Identifier: MIT */
/*
 * Runs the part of a test that must be in a fiber.
 */
#ifndef UBLKD_IN_FIBER_H
#define UBLKD_IN_FIBER_H

#include "supervisor/fiber.h"
#include "tests/unit/test.h"

static inline void in_fiber_main(void *part)
{
	(*(void (**)(void))part)();
}

/* Starts part() in a fiber and runs the default loop, whose fibers must all have ended then. */
static inline void in_fiber(void (*part)(void))
{
	assert_int_equal(fiber_start(in_fiber_main, &part), 0);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	assert_int_equal(fiber_count(), 0);
}

#endif
