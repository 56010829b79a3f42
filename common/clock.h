/* SPDX-License-Identifier: MIT */
/*
 * The monotonic clock, which stands still while the machine is suspended.  Any thread.
 */
#ifndef UBLKD_CLOCK_H
#define UBLKD_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Nanoseconds since some moment before this process was started. */
static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Milliseconds of the same clock. */
static inline uint64_t clock_ms(void)
{
	return clock_ns() / 1000000u;
}

/* The time in ms milliseconds, for pthread_cond_timedwait() on clock_condition(). */
static inline struct timespec clock_in_ms(uint64_t ms)
{
	uint64_t ns = clock_ns() + ms * 1000000u;

	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u),
				  .tv_nsec = (long)(ns % 1000000000u) };
}

/* A condition whose timed waits follow this clock; pthread_cond_destroy() ends it. */
static inline void clock_condition(pthread_cond_t *condition)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

#endif
