/* SPDX-License-Identifier: MIT */
/*
 * Flows: sequences of steps, each of which leads an export from one state to another, or back
 * with the reason.
 *
 *   flow_start    declared -> opening -> added -> starting -> live
 *   flow_recover  recovering -> live: a new worker for a device whose worker is gone
 *   flow_leave    live -> recovering or suspended: the worker drains and exits
 *   flow_stop     any -> stopping -> gone
 *   flow_adopt    finds out what an earlier ublkd left
 *
 * Each step that leaves something in the kernel is on record before it is taken, so that the next
 * ublkd finds it if this one dies.
 *
 * Thread: the loop's; from the export's own fiber, one flow at a time.  Errors: each
 * returns 0, or -errno with err filled.
 */
#ifndef UBLKD_FLOW_H
#define UBLKD_FLOW_H

#include <stdbool.h>
#include <stdint.h>

struct error;
struct export;
struct worker;

/* Makes the device.  On failure nothing is left, and the state is failed. */
int flow_start(struct export *export, struct error *err);

/*
 * Starts serving the device with a new worker: `ready` (from flow_prepare(), taken over in any
 * case), or NULL: one that it starts itself.  On failure the device stays as it is, its I/O waits,
 * and the state is recovering.  -ENODEV: the device is gone; -EPIPE, -ETIMEDOUT: the worker died or
 * hung; -ENODATA: the content of a memory export is lost; -EINPROGRESS: as flow_fence(), which must
 * have succeeded before.
 */
int flow_recover(struct export *export, struct worker *ready, struct error *err);

/*
 * Ends the worker, if it has not ended, and checks whether the connections of all former workers
 * are over.  -EINPROGRESS: one is not, so that the NBD server may still carry out an old write, and
 * no other worker may serve.  Does not wait for that.
 */
int flow_fence(struct export *export, struct error *err);

/* Starts a worker and sets it up, so that it only has to open the storage. */
int flow_prepare(struct export *export, bool resumed, struct worker **worker, struct error *err);

/*
 * Has the worker finish its requests in flight and exit; I/O then waits in the kernel.  The state
 * is suspended or recovering.  On error (-ETIMEDOUT: the backend does not answer) the worker keeps
 * serving, and the state is live.
 */
int flow_leave(struct export *export, bool suspend, struct error *err);

/*
 * Stops the device and deletes it; with force, or wanted.force, requests in flight may fail.
 * -EBUSY: the device is open, and stays as it is. On another failure the state is failed, or
 * what it was.
 */
int flow_stop(struct export *export, bool force, struct error *err);

/*
 * Finds out what there is of an export that was read from a record: its state is live
 * (served by the worker that is adopted), recovering, suspended or declared then. On failure
 * the kernel did not say what there is: the state is failed, and nothing was changed.
 */
int flow_adopt(struct export *export, struct error *err);

/* Has the device adopt the size of its storage, which has grown to size bytes. */
int flow_grow(struct export *export, uint64_t size, struct error *err);

/*
 * Changes the size of the storage, where it is a file (size 0: finds out how large it is),
 * and has the device adopt it. shrink: a smaller size is allowed. -EBUSY: the device would shrink
 * while it is open.
 */
int flow_resize(struct export *export, uint64_t size, bool shrink, struct error *err);

/* Kills the worker if it, or one of its queues, hangs. */
void flow_check(struct export *export);

/* Waits ms milliseconds for the worker to exit, kills it, releases it.  -ETIMEDOUT: it lives on. */
int flow_end_worker(struct export *export, unsigned ms, struct error *err);

#endif
