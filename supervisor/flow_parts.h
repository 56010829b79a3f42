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

#define FLOW_WORKER_MS  20000u /* for a worker to do what it is told */
#define FLOW_OPEN_MS    60000u /* to open its storage */
#define FLOW_RELEASE_MS 40000u /* for the kernel to let go of a dead server */

/* The worker opens the storage: what that is. */
int flow_open(struct export *export, struct backend_limits *limits, char identity[IDENTITY_BYTES],
	      unsigned *nr_queues, unsigned *depth, struct error *err);

/* Writes the record; a device that needs its server is not let wait for that. */
void flow_record(const struct export *export);

/*
 * The next ublkd finds the worker, and no more the one before it (or NULL) that has kept
 * the memory for it: that is killed.
 */
int flow_publish(struct export *export, struct worker *before, struct error *err);

/* Opens /dev/ublkcN and has the worker, which is published, fetch every tag. */
int flow_serve(struct export *export, struct error *err);

/*
 * Has the worker finish what is in flight and take no more.  It ends then, or, where
 * there is memory that it has of ublkd, export->worker.holding: it keeps that.
 */
int flow_drain(struct export *export, struct error *err);

/* A command that waits for the worker, given up when that dies. */
int flow_unless_worker_dies(struct export *export,
			    int (*command)(struct control *control, uint32_t id, int tgid,
					   struct error *err),
			    struct error *err);

/* The kernel has it live: what is left to do, and the state. */
void flow_finish_start(struct export *export);

/*
 * What is done to a device that is live: its name, its settings and, if asked for,
 * its partitions.  Once more does no harm.
 */
void flow_finish(struct export *export, bool partitions);

/* Memory for the counters, again. */
int flow_create_counters(struct export *export, struct error *err);
void flow_drop_counters(struct export *export);
void flow_drop_memory(struct export *export);

/* The fiber's own control, for all commands of a flow. */
void flow_begin(struct export *export);

#endif
