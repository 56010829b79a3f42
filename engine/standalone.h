/* SPDX-License-Identifier: MIT */
/*
 * A device and its server in one process: backend, queues, and their start and stop in order.
 *
 *   start: backend open, ADD_DEV, SET_PARAMS, open ublkcN, every queue fetches
 *          every tag, START_DEV
 *   stop:  STOP_DEV while the queues still serve (write-back comes through
 *          them), the queues see every tag aborted and end, DEL_DEV while the
 *          open ublkcN keeps the id taken, ublkcN is closed, backend close
 *
 * Thread: whoever owns it, one at a time.
 */
#ifndef UBLKD_STANDALONE_H
#define UBLKD_STANDALONE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/device.h"
#include "engine/serve.h"
#include "engine/state.h"

/* Owner: whoever called standalone_start().  Readable by it while the device is there. */
struct standalone {
	struct serving serving;
	struct device device;
	enum export_state state;
	struct cpus cpus; /* for every queue; empty: those of the queue's node */
	struct counters *counters;
	int counters_fd; /* a memfd, see counters.h */
	int char_fd;
	char path_name[32]; /* "/dev/ublkb0", also once it is gone */
};

/*
 * Makes a device of spec (checked; it and control must stay until standalone_stop())
 * and serves it.  host opens the backend's files.  Returns 0 with the device
 * live, or -errno with err filled and nothing left, in the kernel neither.
 */
int standalone_start(struct standalone *device, const struct spec *spec,
		     const struct backend_host *host, struct control *control, struct error *err);

/*
 * Readable (poll) once a queue has ended by itself: the device was stopped by
 * somebody else, or a queue failed.  standalone_stop() is due then.
 */
static inline int standalone_event(const struct standalone *device)
{
	return serving_event(&device->serving);
}

/*
 * Readable once the storage has grown: standalone_follow_size() is due then, which
 * makes the device as big and tells of it in the log.
 */
static inline int standalone_grown_event(const struct standalone *device)
{
	return serving_grown_event(&device->serving);
}
void standalone_follow_size(struct standalone *device);

/*
 * Has the backend look again how big its storage is; what comes of it comes by
 * standalone_grown_event().  Returns 0, or -errno with err filled.
 */
int standalone_resize(struct standalone *device, struct error *err);

/*
 * Stops and deletes the device.  With control->abort set (before or meanwhile)
 * requests in flight are abandoned.  Returns 0, or -errno with err filled: the
 * reason why a queue failed earlier, or what could not be undone.
 */
int standalone_stop(struct standalone *device, struct error *err);

/*
 * Closes the mapping of the counters, which standalone_stop() leaves readable.  After
 * it nothing of the device is left, unless a thread of it did not end.
 */
void standalone_forget(struct standalone *device);

#endif
