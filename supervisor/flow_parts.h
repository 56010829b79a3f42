/* SPDX-License-Identifier: MIT */
/*
 * Steps that several flows take; see flow.h for thread and errors.
 */
#ifndef UBLKD_FLOW_PARTS_H
#define UBLKD_FLOW_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/backend.h"

struct control;
struct error;
struct export;
struct worker;

#define FLOW_WORKER_MS  20000u /* for a worker to answer a request */
#define FLOW_OPEN_MS    60000u /* for a worker to open its storage */
#define FLOW_RELEASE_MS 40000u /* for the kernel to release a dead worker's ublkcN */

/* Has the worker open the storage, and returns its limits, identity and shape, checked. */
int flow_open(struct export *export, struct backend_limits *limits, char identity[IDENTITY_BYTES],
	      unsigned *nr_queues, unsigned *depth, struct error *err);

/* Writes the record. A failure is logged and ignored: a device with I/O waiting comes first. */
void flow_record(const struct export *export);

/*
 * Makes the change of workers final: from now on an ublkd that starts finds this worker. `before`
 * (or NULL), the previous worker that only held the memory, is killed.
 */
int flow_publish(struct export *export, struct worker *before, struct error *err);

/* Opens /dev/ublkcN and has the worker, which is published, fetch every tag. */
int flow_serve(struct export *export, struct error *err);

/*
 * Has the worker finish its requests in flight and take no more.  It exits then, or, if it holds
 * the content of a memory export, stays to keep that (export->worker.holding).
 */
int flow_drain(struct export *export, struct error *err);

/* Runs a control command that waits for the worker, and abandons it if the worker dies. */
int flow_unless_worker_dies(struct export *export,
			    int (*command)(struct control *control, uint32_t id, int tgid,
					   struct error *err),
			    struct error *err);

/* The last steps after the kernel has made the device live, and the state live. */
void flow_finish_start(struct export *export);

/*
 * Finishes a live device: its symlink, its sysfs settings and, if asked for, its partitions.  Does
 * no harm when repeated.
 */
void flow_finish(struct export *export, bool partitions);

/* Replaces the shared memory of the counters. */
int flow_create_counters(struct export *export, struct error *err);
void flow_drop_counters(struct export *export);
void flow_drop_memory(struct export *export);

/* Sets up export->control for the commands of this flow. */
void flow_begin(struct export *export);

#endif
