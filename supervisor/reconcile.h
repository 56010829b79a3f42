/* SPDX-License-Identifier: MIT */
/*
 * What keeps an export as it is wanted: whenever something of it has changed, or a
 * time has come, a fiber of its own compares what is wanted with what there is, and
 * takes the next flow, until the two are the same.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_RECONCILE_H
#define UBLKD_RECONCILE_H

#include <uv.h>

#include "supervisor/export.h"

/* Flows that make or recover a device, at once; the others wait for their turn. */
extern unsigned reconcile_max_jobs;

/* Called, from no fiber's flow, when an export is gone or was dropped. */
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

/* Forgets earlier failures: tries at once. */
void reconcile_retry(struct export *export);

/* Whether nothing more is going to happen by itself, but for tries to come. */
bool reconcile_is_settled(const struct export *export);

/*
 * Whether a worker that died had done no work worth the name, so that the next one may die
 * of the same; such deaths in a row end in giving up.  A worker that is killed every few
 * seconds and serves in between is no reason for that.  A minimum of time bounds what
 * recoveries cost, whatever a worker's counters say.
 */
bool reconcile_died_at_once(uint64_t lived_ms, uint64_t served);

/* For export_worker_events. */
extern const struct worker_events reconcile_worker_events;

#endif
