/* SPDX-License-Identifier: MIT */
/*
 * The memory that outlives a worker, and that it has of ublkd: the content of an
 * export that is nowhere else.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_WORKER_MEMORY_H
#define UBLKD_WORKER_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct worker;

/* The memfd's name (memfd_create(2)). */
#define WORKER_MEMORY "ublkd-memory"

/* Whether that is the memory that a worker was given, of that size at least. */
bool worker_is_memory(int fd, uint64_t size);

/*
 * Opens again the memory, of size bytes or more, of a worker that is not to be asked for
 * it, since it does not answer.  Returns a descriptor, or -errno: ENOENT (it has none),
 * ESRCH (it has just ended), EACCES (it is not ours to see).
 */
int worker_open_memory(const struct worker *worker, uint64_t size);

#endif
