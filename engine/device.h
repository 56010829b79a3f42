/* SPDX-License-Identifier: MIT */
/*
 * A ublk device in the kernel: its commands in their order, and each known quirk of the
 * kernel once.  No backend and no queue is known here: `ublkctl run` serves the device
 * from the same process (standalone.h), ublkd has a worker for it.
 *
 *   device_plan     features -> I/O path, partitions
 *   device_add      ADD_DEV, SET_PARAMS, GET_PARAMS
 *   device_open_char, device_queue_cpus     for whoever serves it
 *   control_start   START_DEV, once every tag is fetched
 *   device_tune     settings of the block device
 *   device_set_size UPDATE_SIZE
 *   device_stop     STOP_DEV
 *   device_delete   DEL_DEV
 *
 * Where control has hooks (wait, pause, write_attribute) the calls wait by these instead
 * of blocking the thread.
 *
 * Thread: one at a time, control's.  Errors: each returns 0, or -errno with err filled.
 */
#ifndef UBLKD_DEVICE_H
#define UBLKD_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/cpus.h"
#include "engine/control.h"
#include "engine/io_path.h"

struct backend_limits;
struct error;
struct spec;

/* Owner: the caller, who sets the first part before device_plan(). */
struct device {
	const char *name; /* of its export, for messages; NULL: none */
	struct control *control;
	uint64_t features;    /* the driver's, control_get_features() */
	bool outlives_server; /* the kernel is to keep it over its server's death */
	/*
	 * The server_flags of a device that outlives its server: by them it is known again,
	 * as its id may be another's by now.  A device that does not keeps its id by the
	 * ublkcN that its server has open.
	 */
	uint64_t cookie;

	/* By device_plan(), or from a record. */
	enum io_path path;
	const char *path_reason; /* static text */
	uint32_t max_io;         /* bytes of the largest request */
	bool partitions;         /* are wanted */

	/* By the driver. */
	bool exists;               /* it was added and not deleted */
	struct ublk_dev_info info; /* as granted, or as read last */
};

/*
 * Chooses the I/O path, and checks that this kernel has what is asked for.  EOPNOTSUPP: it
 * has not, as before Linux 6.5 for a device that outlives its server.
 */
int device_plan(struct device *device, const struct spec *spec, struct error *err);

/*
 * Whether partitions are kept off by a server without CAP_SYS_ADMIN when it fetches (the
 * driver scans for nobody else), as this kernel has no flag against the scan.
 */
bool device_scans_by_privilege(const struct device *device);

/*
 * Adds the device; id may be UBLK_ID_AUTO.  One that the driver grants less than is
 * needed is deleted again.
 */
int device_add(struct device *device, uint32_t id, unsigned nr_queues, unsigned depth,
	       struct error *err);

/* Gives it the limits' parameters, and checks that the driver kept them all. */
int device_set_params(struct device *device, const struct backend_limits *limits,
		      struct error *err);

/* "/dev/ublkb0"; "" where it does not exist.  Returns out. */
const char *device_path(const struct device *device, char *out, size_t size);

/*
 * Opens /dev/ublkcN, within ms milliseconds: udev may make it late, and a dead server's
 * descriptors are let go of a little later (EBUSY).  Returns a descriptor, the caller's.
 */
int device_open_char(const struct device *device, unsigned ms, struct error *err);

/*
 * The CPUs for a queue's thread, those near to who submits (nodes.h); none where the kernel names
 * none.
 */
void device_queue_cpus(const struct device *device, unsigned queue, struct cpus *cpus);

/* Settings of a live block device.  Once more does no harm; a failure is logged only. */
void device_tune(const struct device *device);

/*
 * Reads its state into device->info.  ENODEV: it is gone, or the id is another device's.
 */
int device_find(struct device *device, struct error *err);

/* Whether this kernel resizes a live device (Linux 6.16). */
bool device_can_resize(const struct device *device);

/* Makes a device that was started as large as that, in bytes. */
int device_set_size(struct device *device, uint64_t size, struct error *err);

/*
 * Stops it while its server still serves, which waits for all requests and for write-back
 * as long as done(), how many requests were answered so far, goes on.  ENODEV: it is gone.
 */
int device_stop(struct device *device, uint64_t (*done)(void *context), void *context,
		struct error *err);

/*
 * Deletes it; one that is gone already counts as deleted.
 *
 *   char_fd   /dev/ublkcN, or -1: closed here.  Where nothing is in flight the open
 *             descriptor keeps the id taken until the deletion is under way, so that it
 *             cannot hit a device that another program makes under this id.
 *   idle      nothing is in flight.  Else the kernel needs ublkcN closed first, to fail
 *             what is in flight.
 *   wait      until its last user has let go of it; else (Linux 6.9) it goes then.
 */
int device_delete(struct device *device, int char_fd, bool idle, bool wait, struct error *err);

#endif
