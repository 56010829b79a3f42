/* SPDX-License-Identifier: MIT */
/*
 * Removal of an export: flush dirty pages, stop the device while its worker still serves (the last
 * writes go through it), then end the worker and delete the device.
 *
 * A device in use is refused. Finding its holders takes time, and a mount could come in between: so
 * find them, claim the device (O_EXCL, as a mount does), and find them again. The claim is released
 * for the driver's own check (Linux 7.0), which refuses any open device.
 *
 * Force skips the checks and bounds each step; requests may fail then. A client may add force
 * while a removal is under way, so each step asks is_forced().
 *
 * Read flow_stop() first, then stop_and_delete().
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/holders.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/export.h"
#include "supervisor/record.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_MS      60000u
#define HOLDERS_MS    30000u /* with thousands of processes the search takes long */
#define FORCED_MS     5000u
#define CLAIM_MS      30000u /* long, as hundreds of removals may queue in the kernel */
#define FENCE_MS      5000u  /* for a server to close the last connections */
#define FENCE_POLL_MS 5u
#define BRIEF_MS      1000u /* for programs that open a new device briefly, such as udev */
#define BRIEF_POLL_MS 50u

static uint64_t requests_done(void *context)
{
	const struct export *export = context;

	return export->worker.counters ? counters_completed(export->worker.counters) : 0;
}

static int refuse_holders(struct export *export, bool *brief, struct error *err)
{
	struct holders holders;
	int ret = export_find_holders(export, &holders, HOLDERS_MS);

	if (ret)
		ret = error_set(
			err, ret,
			"cannot determine what uses %s: %s: stop its users, then remove it with force",
			export->name, blocking_reason(ret));
	else if (holders.nr)
		ret = error_set(
			err, EBUSY,
			"%s is in use: stop its users first, or remove it with wait or with force",
			export->name);
	*brief = holders_are_processes(&holders);
	holders_close(&holders);
	return ret;
}

/* A removal under way, with its claim on the device. Owner: flow_stop(). */
struct removal {
	struct export *export;
	bool force; /* whatever the goal says; see is_forced() */
	int fd;     /* of the block device; -1: it is not claimed */
};

/* A client may ask for force while the removal is under way. */
static bool is_forced(const struct removal *removal)
{
	return removal->force || removal->export->wanted.force;
}

static void release_claim(struct removal *removal)
{
	if (removal->fd >= 0)
		blocking_close((struct blocking_for){ removal->export->name, BLOCKING_DEVICE },
			       removal->fd, CLAIM_MS);
	removal->fd = -1;
}

/*
 * Opens the device as a mount does (O_EXCL): from then on nothing can mount it, and what
 * is mounted or held by another device is refused here.  -EBUSY: it is in use; 0 also
 * where it has no disk.
 */
static int take_claim(struct removal *removal, struct error *err)
{
	struct export *export = removal->export;
	char device[32];
	int fd;

	if (removal->fd >= 0)
		return 0;
	device_path(&export->device, device, sizeof(device));
	fd = blocking_open((struct blocking_for){ export->name, BLOCKING_DEVICE }, device,
			   O_RDONLY | O_EXCL, 0, CLAIM_MS);
	if (fd >= 0)
		removal->fd = fd;
	if (fd >= 0 || fd == -ENOENT || fd == -ENXIO)
		return 0;
	if (fd == -EBUSY)
		return error_set(err, EBUSY,
				 "%s is in use by a mount or device that is not visible to ublkd: "
				 "remove it with wait or with force",
				 export->name);
	return error_set(err, fd, "cannot open %s: %s: remove it with force", device,
			 blocking_reason(fd));
}

/* Claims the device, or fails with -EBUSY if it is in use; *brief: by processes alone, so retry. */
static int claim_unused(struct removal *removal, bool *brief, struct error *err)
{
	struct error held;
	int ret = refuse_holders(removal->export, brief, err);

	if (ret)
		return ret;
	ret = take_claim(removal, err);
	/* A holder that came between the search and the claim is found now. */
	if (!ret)
		return refuse_holders(removal->export, brief, err);
	*brief = true;
	if (ret == -EBUSY && refuse_holders(removal->export, brief, &held) == -EBUSY)
		*err = held;
	return ret;
}

static int refuse_if_held(struct removal *removal, struct error *err)
{
	uint64_t end = clock_ms() + BRIEF_MS;
	bool brief;
	int ret;

	while ((ret = claim_unused(removal, &brief, err)) == -EBUSY && brief && clock_ms() < end)
		fiber_sleep(BRIEF_POLL_MS);
	return ret;
}

/*
 * Linux 7.0: the driver refuses to stop an open device; the claim would count, so it is released
 * first.  -EBUSY: the device is open, or is opened again and again.
 */
static int stop_unless_open(struct removal *removal, struct error *err)
{
	struct export *export = removal->export;
	uint64_t end = clock_ms() + BRIEF_MS;
	int ret;

	release_claim(removal);
	while ((ret = control_try_stop(&export->control, export->device.info.dev_id, err)) ==
	       -EBUSY) {
		if (refuse_if_held(removal, err)) {
			err->code = EBUSY;
			return -EBUSY;
		}
		if (clock_ms() > end)
			return error_set(err, EBUSY,
					 "%s is in use by a user that is not visible to ublkd: "
					 "remove it with wait or with force",
					 export->name);
		release_claim(removal);
		fiber_sleep(BRIEF_POLL_MS);
	}
	return ret;
}

/* Writes dirty pages now, while a failure can still refuse the removal. */
static int flush(const struct removal *removal, struct error *err)
{
	struct export *export = removal->export;
	int ret;

	if (removal->fd < 0)
		return 0;
	ret = blocking_fsync((struct blocking_for){ export->name, BLOCKING_DEVICE }, removal->fd,
			     FLUSH_MS);
	return ret ? error_set(
			     err, ret,
			     "cannot flush %s: %s: remove it with force, if its unwritten data may be "
			     "lost",
			     export->name, blocking_reason(ret))
		   : 0;
}

/* Stops the device in the kernel while the worker still serves.  -EBUSY: it is open. */
static int stop_device(struct removal *removal, struct error *err)
{
	struct export *export = removal->export;
	int ret;

	if (!is_forced(removal) && control_async_features() & UBLK_FEAT_SAFE_STOP) {
		ret = stop_unless_open(removal, err);
		if (ret == -EBUSY)
			return ret;
		if (!ret || ret == -ENODEV)
			return 0;
	}
	if (is_forced(removal))
		export->control.deadline_ms = FORCED_MS;
	ret = device_stop(&export->device, requests_done, export, err);
	export->control.deadline_ms = CONTROL_DEADLINE_MS;
	return ret == -ENODEV ? 0 : ret;
}

static int delete_device(const struct removal *removal, struct error *err)
{
	struct export *export = removal->export;
	struct error ignored;
	char device[32];
	int ret;

	device_path(&export->device, device, sizeof(device));
	/* Forced: delete without waiting for those who still have the device open. */
	ret = device_delete(&export->device, -1, true, !is_forced(removal), err);
	if (ret)
		return ret;
	name_unlink(export->name, device, &ignored);
	name_forget(NAME_RECORDS, device, &ignored);
	return 0;
}

/*
 * Waits for late writes of dead workers, for a bounded time: this device is gone, but its storage
 * may be exported again at once.
 */
static void end_fence(struct export *export)
{
	uint64_t end = clock_ms() + FENCE_MS;

	while (fence_check(&export->worker.fence, export->name, 0, NULL) && clock_ms() < end)
		fiber_sleep(FENCE_POLL_MS);
	if (export->worker.fence.nr)
		log_warning(
			export->name,
			"the server has not closed %u connections, and may still carry out writes "
			"that were sent on them, over newer writes of another client",
			export->worker.fence.nr);
	fence_close(&export->worker.fence);
	export->worker.fence_recorded = export->worker.unfenced = false;
}

static int stop_and_delete(struct removal *removal, struct error *err)
{
	struct export *export = removal->export;
	struct error ignored;
	int ret;

	if (export->worker.handle && !worker_has_ended(export->worker.handle)) {
		ret = stop_device(removal, err);
		if (ret == -EBUSY || (ret && !is_forced(removal)))
			return ret;
		/*
		 * The worker sees its queues stop, and exits; force kills one that hangs earlier.
		 */
		ret = flow_end_worker(export, is_forced(removal) ? FORCED_MS : FLOW_WORKER_MS, err);
	} else {
		ret = flow_end_worker(export, 0, err);
	}
	if (ret && !is_forced(removal))
		return ret;
	end_fence(export);
	if (!export->device.exists)
		return 0;
	/* Without a worker the kernel holds requests: STOP_DEV fails them. */
	control_stop(&export->control, export->device.info.dev_id, &ignored);
	release_claim(removal);
	return delete_device(removal, err);
}

int flow_stop(struct export *export, bool force, struct error *err)
{
	struct removal removal = { .export = export, .force = force, .fd = -1 };
	bool live = export->state == EXPORT_LIVE;
	struct error ignored;
	int ret = 0;

	flow_begin(export);
	/* Also without a worker: data that its users wait to write would be lost. */
	if (export->device.exists && !is_forced(&removal))
		ret = refuse_if_held(&removal, err);
	if (!ret && live && !is_forced(&removal))
		ret = flush(&removal, err);
	if (ret) {
		release_claim(&removal);
		return ret;
	}
	if (export->state != EXPORT_DECLARED && export->state != EXPORT_FAILED)
		export_move(export, EXPORT_STOPPING, NULL);
	/* On record: if ublkd dies from here on, its successor tries the removal again. */
	record_write(export, &ignored);
	if (export->device.exists || export->worker.handle)
		ret = stop_and_delete(&removal, err);
	release_claim(&removal);
	if (ret == -EBUSY && live) {
		export_move(export, EXPORT_LIVE, err->text);
		record_write(export, &ignored);
		return ret;
	}
	if (ret) {
		if (export->state != EXPORT_FAILED)
			export_move(export, EXPORT_FAILED, err->text);
		return ret;
	}
	flow_drop_counters(export);
	flow_drop_memory(export);
	worker_socket_remove(export->name);
	export_move(export, EXPORT_GONE, NULL);
	/* Last: until then the record leads to whatever is left. */
	record_remove(export);
	return 0;
}
