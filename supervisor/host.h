/* SPDX-License-Identifier: MIT */
/*
 * What a worker's backend has ublkd do for it: files opened and sockets connected
 * that its export names, and memory kept that outlives it.
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

/* The service manager's name of an export's memory; it begins so. */
#define HOST_MEMORY_PREFIX "memory-"

/* Takes the export's memory back from the service manager. */
void host_unstore_memory(const struct export *export);

/* Whether the export's content is memory, which ublkd keeps. */
bool host_has_memory(const struct export *export);

/* fd (taken over) is the export's memory, of which ublkd had none. */
void host_take_memory(struct export *export, int fd);

/*
 * Takes the memory of an export with a device out of a worker of it, which was not asked
 * for it, or did not answer; where that cannot be done it is told why.  Nothing is
 * done where ublkd has it, or there is none to have.
 */
void host_save_memory(struct export *export, const struct worker *worker);

#endif
