/* SPDX-License-Identifier: MIT */
/*
 * From a declaration to a live device: the plan, the record, the counters, the worker, its
 * storage, then the device itself (make_live(), make_device()).
 *
 * The storage is opened before the device is added, since the device's size and limits come from
 * it; so an absent server leaves nothing in the kernel.
 *
 * If a step fails, undo() reverts the earlier steps, and the state is failed with the reason. Each
 * step that leaves something in the kernel is on record before it is taken: if ublkd dies in
 * between, its successor finds the device by its cookie and removes it.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/host.h"

#include "supervisor/export.h"
#include "supervisor/record.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* All steps that make the device; the worker runs and has opened its storage. */
static int make_device(struct export *export, unsigned nr_queues, unsigned depth, struct error *err)
{
	const struct option_value *id = &export->spec.values[SPEC_ID];
	char device[32];
	int ret;

	ret = device_add(&export->device, id->set ? (uint32_t)id->number : UBLK_ID_AUTO, nr_queues,
			 depth, err);
	if (ret)
		return ret;
	export_move(export, EXPORT_ADDED, NULL);
	ret = record_write(export, err);
	if (ret)
		return ret;
	ret = device_set_params(&export->device, &export->storage.limits, err);
	if (ret)
		return ret;
	device_path(&export->device, device, sizeof(device));
	/* Before START_DEV announces the disk to udev, whose rule reads this record. */
	ret = name_record(NAME_RECORDS, device, export->name, export->spec.backend->scheme,
			  export->device.partitions, err);
	if (ret)
		return ret;
	/* From here on the worker outlives ublkd: it must be found before the device starts. */
	ret = flow_publish(export, NULL, err);
	if (!ret)
		ret = flow_serve(export, err);
	if (ret)
		return ret;
	export_move(export, EXPORT_STARTING, NULL);
	return flow_unless_worker_dies(export, control_start, err);
}

static void undo(struct export *export)
{
	struct error err;
	char device[32];

	if (export->worker.handle && !worker_has_ended(export->worker.handle))
		worker_call(export->worker.handle, worker_request("end"), NULL, 0, FLOW_WORKER_MS,
			    NULL, NULL, &err);
	flow_end_worker(export, FLOW_WORKER_MS, &err);
	/* The device was never live, so no write was sent on these connections. */
	fence_close(&export->worker.fence);
	if (export->device.exists) {
		device_path(&export->device, device, sizeof(device));
		if (device_delete(&export->device, -1, true, true, &err))
			log_error(export->name, "cannot delete %s: %s", device, err.text);
		name_forget(NAME_RECORDS, device, &err);
	}
	flow_drop_counters(export);
	flow_drop_memory(export);
	worker_socket_remove(export->name);
}

/* All steps from the plan to a device that the kernel has live; undo() is due on failure. */
static int make_live(struct export *export, struct error *err)
{
	struct export_storage *storage = &export->storage;
	unsigned nr_queues, depth;
	int ret = device_plan(&export->device, &export->spec, err);

	if (ret)
		return ret;
	ret = spec_check_cpus(&export->spec, err);
	if (ret)
		return ret;
	ret = record_write(export, err);
	if (ret)
		return ret;
	ret = flow_create_counters(export, err);
	if (ret)
		return ret;
	ret = flow_prepare(export, false, &export->worker.handle, err);
	if (ret)
		return ret;
	ret = flow_open(export, &storage->limits, storage->identity, &nr_queues, &depth, err);
	return ret ? ret : make_device(export, nr_queues, depth, err);
}

int flow_start(struct export *export, struct error *err)
{
	uint64_t *cookie = &export->device.cookie;
	struct error ignored;
	int ret;

	flow_begin(export);
	export_move(export, EXPORT_OPENING, NULL);
	export->storage.lost = 0;
	/* Identifies the device in the kernel, as its number may be reused; never 0. */
	if (getrandom(cookie, sizeof(*cookie), 0) != sizeof(*cookie) || !*cookie)
		*cookie = (uint64_t)(uintptr_t) export ^ clock_ms();
	ret = make_live(export, err);
	if (ret) {
		undo(export);
		export_move(export, EXPORT_FAILED, err->text);
		record_write(export, &ignored);
		return ret;
	}
	flow_finish_start(export);
	return 0;
}
