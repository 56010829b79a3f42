/* SPDX-License-Identifier: MIT */
/*
 * Requests of a worker's backend that ublkd carries out: to open files and connect sockets that the
 * export names, and to keep memory that outlives the worker.
 *
 * Thread: the loop's; from a fiber.
 */
#ifndef UBLKD_SUPERVISOR_HOST_H
#define UBLKD_SUPERVISOR_HOST_H

#include <jansson.h>
#include <stdbool.h>

struct export;
struct worker;

/* A struct worker_events' ask. */
int host_answer(struct export *export, const char *kind, const json_t *question);

/* Prefix of the name under which the service manager keeps an export's memory. */
#define HOST_MEMORY_PREFIX "memory-"

/* Takes the export's memory back from the service manager. */
void host_unstore_memory(const struct export *export);

/* Whether the export's content is memory, which ublkd keeps. */
bool host_has_memory(const struct export *export);

/* Makes fd (taken over) the export's memory; ublkd must have had none. */
void host_take_memory(struct export *export, int fd);

/*
 * Takes a copy of the memory of an export with a device from its worker, without asking it; logs
 * why if that fails.  Does nothing if ublkd has the memory, or the export has none.
 */
void host_save_memory(struct export *export, const struct worker *worker);

#endif
