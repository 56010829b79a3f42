/* SPDX-License-Identifier: MIT */
/*
 * What is done with an export, step by step: each flow leads it from one state to
 * another, or back with the reason.
 *
 *   flow_start    declared -> opening -> added -> starting -> live
 *   flow_recover  recovering -> live: a new server for a device whose server is gone
 *   flow_leave    live -> recovering or suspended: the server hands over, and ends
 *   flow_stop     any -> stopping -> gone
 *   flow_adopt    what an earlier ublkd has left, as it is found
 *
 * Every step that leaves something behind is on record before it is taken.
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
 * Puts a new server under the device: `ready` (one that flow_prepare() made, taken
 * over in any case), or NULL: a fresh one.  On failure the device stays as it is, its
 * I/O waits, and the state is recovering.  -ENODEV: the device is gone; -EPIPE and
 * -ETIMEDOUT: the server has died of it, or hung; -ENODATA: what it had is lost;
 * -EINPROGRESS: as flow_fence(), which went before it.
 */
int flow_recover(struct export *export, struct worker *ready, struct error *err);

/*
 * Ends the server, if it has not ended, and looks whether the connections of all former
 * servers are over.  -EINPROGRESS: one is not, so that an old write may still be carried
 * out, and no other server may serve.  Does not wait for that.
 */
int flow_fence(struct export *export, struct error *err);

/* Starts a server that only has to open the storage. */
int flow_prepare(struct export *export, bool resumed, struct worker **worker, struct error *err);

/*
 * Has the server finish what it has begun, and end; I/O waits from then on.  The state
 * is suspended or recovering, as asked for.  -ETIMEDOUT: its backend does not answer;
 * any other error as well: it keeps serving.
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

/* The device follows its storage, which has size bytes by now. */
int flow_grow(struct export *export, uint64_t size, struct error *err);

/*
 * Changes the size of the storage, where it is a file (size 0: finds out how large it is),
 * and has the device follow. shrink: a smaller size is meant. -EBUSY: the device would shrink
 * while it is open.
 */
int flow_resize(struct export *export, uint64_t size, bool shrink, struct error *err);

/* Kills the worker if it, or one of its queues, hangs. */
void flow_check(struct export *export);

/* Ends and releases the server, whatever it does.  -ETIMEDOUT: it does not end. */
int flow_end_worker(struct export *export, unsigned ms, struct error *err);

#endif
