/* SPDX-License-Identifier: MIT */
/*
 * From a declaration to a live device.  What a step has made the steps after it undo
 * in reverse order, where they fail.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/host.h"

#include "supervisor/managed.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* All that a device is; the worker is there, and has its storage open. */
static int make_device(struct managed *m, unsigned nr_queues, unsigned depth, struct error *err)
{
	const struct option_value *id = &m->spec.values[SPEC_ID];
	char device[32];
	int ret;

	ret = device_add(&m->device, id->set ? (uint32_t)id->number : UBLK_ID_AUTO, nr_queues,
			 depth, err);
	if (ret)
		return ret;
	managed_move(m, EXPORT_ADDED, NULL);
	ret = managed_write(m, err);
	if (ret)
		return ret;
	ret = device_set_params(&m->device, &m->limits, err);
	if (ret)
		return ret;
	device_path(&m->device, device, sizeof(device));
	/* Before the device is there, so that udev finds it. */
	ret = name_record(NAME_RECORDS, device, m->name, m->spec.backend->scheme, err);
	if (ret)
		return ret;
	ret = flow_publish(m, NULL, err);
	if (!ret)
		ret = flow_serve(m, err);
	if (ret)
		return ret;
	managed_move(m, EXPORT_STARTING, NULL);
	return flow_unless_worker_dies(m, control_start, err);
}

static void undo(struct managed *m)
{
	struct error err;
	char device[32];

	if (m->worker && !worker_has_ended(m->worker))
		worker_call(m->worker, worker_request("end"), NULL, 0, FLOW_WORKER_MS, NULL, NULL,
			    &err);
	flow_end_worker(m, FLOW_WORKER_MS, &err);
	/* The device was never live: no write was sent. */
	fence_close(&m->fence);
	if (m->device.exists) {
		device_path(&m->device, device, sizeof(device));
		if (device_delete(&m->device, -1, true, true, &err))
			log_error(m->name, "%s is left behind: %s", device, err.text);
		name_forget(NAME_RECORDS, device, &err);
	}
	flow_drop_counters(m);
	flow_drop_memory(m);
	worker_socket_remove(m->name);
}

int flow_start(struct managed *m, struct error *err)
{
	unsigned nr_queues, depth;
	struct error ignored;
	int ret;

	flow_begin(m);
	managed_move(m, EXPORT_OPENING, NULL);
	m->lost = 0;
	if (getrandom(&m->device.cookie, sizeof(m->device.cookie), 0) != sizeof(m->device.cookie) ||
	    !m->device.cookie)
		m->device.cookie = (uint64_t)(uintptr_t)m ^ clock_ms();
	ret = device_plan(&m->device, &m->spec, err);
	if (!ret)
		ret = spec_check_cpus(&m->spec, err);
	if (!ret)
		ret = managed_write(m, err);
	if (!ret)
		ret = flow_create_counters(m, err);
	if (!ret)
		ret = flow_prepare(m, false, &m->worker, err);
	if (!ret)
		ret = flow_open(m, &m->limits, m->identity, &nr_queues, &depth, err);
	if (!ret)
		ret = make_device(m, nr_queues, depth, err);
	if (ret) {
		undo(m);
		managed_move(m, EXPORT_FAILED, err->text);
		managed_write(m, &ignored);
		return ret;
	}
	flow_finish_start(m);
	return 0;
}
