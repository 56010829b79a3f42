/* SPDX-License-Identifier: MIT */
/*
 * Headers of every unit test, in the order that cmocka wants them.
 */
#ifndef UBLKD_TEST_H
#define UBLKD_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/*
 * Waits really for so long: the fake kernel makes usleep() return at once, so that a loop
 * which waits that way is over before what it waits for.
 */
static inline void sleep_us(unsigned us)
{
	struct timespec t = { us / 1000000, us % 1000000 * 1000l };

	nanosleep(&t, NULL);
}

static inline bool is_between(uint64_t number, uint64_t low, uint64_t high)
{
	return number >= low && number <= high;
}

#endif
