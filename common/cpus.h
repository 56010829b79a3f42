/* SPDX-License-Identifier: MIT */
/*
 * Sets of CPUs, up to as many as ublk has queues.  Any thread.
 */
#ifndef UBLKD_CPUS_H
#define UBLKD_CPUS_H

#include <pthread.h>
#include <stdbool.h>

struct error;

#define CPUS_MAX 4096u

struct cpus {
	unsigned long bits[CPUS_MAX / (8 * sizeof(unsigned long))];
};

bool cpus_empty(const struct cpus *cpus);
unsigned cpus_count(const struct cpus *cpus);
bool cpus_has(const struct cpus *cpus, unsigned cpu);
bool cpus_overlap(const struct cpus *a, const struct cpus *b);
/* Adds all of `more`. */
void cpus_add(struct cpus *cpus, const struct cpus *more);

/* Parses "0-3,8".  Returns 0, or -EINVAL with err filled. */
int cpus_parse(const char *list, struct cpus *cpus, struct error *err);

/* Writes the set as cpus_parse() takes it, cut if need be; returns out. */
const char *cpus_format(const struct cpus *cpus, char *out, unsigned out_size);

/* The CPUs that this process may run on: at least 1. */
unsigned cpus_available(void);

/* Whether this process may run on any of them. */
bool cpus_usable(const struct cpus *cpus);

/* Removes the CPUs that the calling thread may not run on now: a mask of its own, or offline. */
void cpus_limit(struct cpus *cpus);

/* Pins the calling thread.  Returns 0 or -errno (EINVAL: none of them is online). */
int cpus_pin(const struct cpus *cpus);

#endif
