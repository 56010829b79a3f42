/* SPDX-License-Identifier: MIT */
/*
 * The memory of a memory export: its only content. ublkd creates it and gives it to the worker, so
 * that it outlives the worker.
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
 * Opens the memory (at least size bytes) of a worker that does not answer, through /proc.  Returns
 * a descriptor, or -errno: ENOENT (it has none), ESRCH (it has just ended), EACCES (it is not ours
 * to see).
 */
int worker_open_memory(const struct worker *worker, uint64_t size);

#endif
