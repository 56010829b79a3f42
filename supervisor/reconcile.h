/* SPDX-License-Identifier: MIT */
/*
 * Keeps each export as it is wanted: whenever an export changes, or a retry is due, a fiber of its
 * own compares what is wanted with what there is, and runs flows until the two are the same.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_RECONCILE_H
#define UBLKD_RECONCILE_H

#include <uv.h>

#include "supervisor/export.h"

/* Limit on starts at the same time, and on recoveries; others wait for their turn. */
extern unsigned reconcile_max_jobs;

/* Called at the end of an export's fiber when the export is gone; the export may be freed then. */
extern void (*reconcile_gone)(struct export *export);

/* Called once for each reconcile_adopt(), from its fiber, when it is known what there is. */
extern void (*reconcile_adopted)(struct export *export);

/*
 * Begins with an export that was read from a record: finds out what there is, then goes on as
 * after reconcile_kick(). Returns 0 or -ENOMEM.
 */
int reconcile_adopt(struct export *export);

/* Compares what is wanted with what there is, and acts, in the export's fiber. */
void reconcile_kick(struct export *export);

/* Forgets earlier failures, and tries at once. */
void reconcile_retry(struct export *export);

/* Whether the export's fiber is idle: nothing happens until a kick or a retry. */
bool reconcile_is_settled(const struct export *export);

/*
 * Whether a worker died before it did useful work, so that its successor probably dies as well; the
 * export is given up after several such deaths in a row, but not if workers are killed every few
 * seconds and serve in between. WORKING_MS bounds the rate of recoveries whatever the counters say,
 * which the worker can write.
 */
bool reconcile_died_at_once(uint64_t lived_ms, uint64_t served);

/* For export_worker_events. */
extern const struct worker_events reconcile_worker_events;

#endif
