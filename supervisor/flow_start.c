/* SPDX-License-Identifier: MIT */
/*
 * From a declaration to a live device.  What a step has made the steps after it undo
 * in reverse order, where they fail.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/params.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/host.h"
#include "supervisor/kernel.h"
#include "supervisor/managed.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static int choose(struct managed *m, struct error *err)
{
	const struct option_value *v = m->spec.values;
	uint64_t features = kernel_features();
	int ret;

	m->device.max_io = (uint32_t)v[SPEC_MAX_IO].number;
	if (!(features & UBLK_FEAT_RECOVERY))
		return error_set(
			err, EOPNOTSUPP,
			"this kernel's ublk keeps no device over its server's death: Linux "
			"6.5 or later is needed ('ublkctl run' works without)");
	ret = spec_check_cpus(&m->spec, err);
	if (ret)
		return ret;
	return io_path_choose((enum io_path)v[SPEC_IO_PATH].word, m->spec.backend->access, features,
			      &m->device.path, &m->device.path_reason, err);
}

static int add(struct managed *m, unsigned nr_queues, unsigned depth, struct error *err)
{
	uint64_t wanted = UBLK_FEAT_IOCTL_ENCODE | UBLK_FEAT_RECOVERY | UBLK_FEAT_RECOVERY_REISSUE |
			  io_path_features(m->device.path),
		 lacks;
	const struct option_value *id = &m->spec.values[SPEC_ID];
	struct error ignored;
	int ret;

	/* A worker without privilege gets no scan anyway; partitions are added later. */
	wanted |= kernel_features() & UBLK_FEAT_NO_PART_SCAN;
	m->device.info = (struct ublk_dev_info){
		.dev_id = id->set ? (uint32_t)id->number : UBLK_ID_AUTO,
		.nr_hw_queues = (uint16_t)nr_queues,
		.queue_depth = (uint16_t)depth,
		.max_io_buf_bytes = m->device.max_io,
		.flags = wanted,
		.server_flags = m->device.cookie,
	};
	ret = control_add(&m->control, &m->device.info, err);
	if (ret)
		return ret;
	lacks = wanted & ~m->device.info.flags & ~UBLK_FEAT_IOCTL_ENCODE;
	if (!lacks) {
		m->device.exists = true;
		return 0;
	}
	control_delete(&m->control, m->device.info.dev_id, &ignored);
	return error_set(
		err, EOPNOTSUPP,
		"the kernel has not granted what I/O path %s needs (it lacks %#llx): choose "
		"another --io-path",
		io_path_name(m->device.path), (unsigned long long)lacks);
}

static int set_params(struct managed *m, struct error *err)
{
	struct ublk_dev_params asked, kept;
	int ret;

	params_make(&m->limits, m->device.max_io, m->device.path == IO_PATH_ZERO_COPY, &asked);
	ret = control_set_params(&m->control, m->device.info.dev_id, &asked, err);
	if (!ret)
		ret = control_get_params(&m->control, m->device.info.dev_id, &kept, err);
	return ret ? ret : params_check_kept(&asked, &kept, err);
}

/* All that a device is; the worker is there, and has its storage open. */
static int make_device(struct managed *m, unsigned nr_queues, unsigned depth, struct error *err)
{
	char device[32];
	int ret;

	ret = add(m, nr_queues, depth, err);
	if (ret)
		return ret;
	managed_move(m, EXPORT_ADDED, NULL);
	ret = managed_write(m, err);
	if (ret)
		return ret;
	ret = set_params(m, err);
	if (ret)
		return ret;
	managed_device(m, device, sizeof(device));
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
		managed_device(m, device, sizeof(device));
		if (control_delete(&m->control, m->device.info.dev_id, &err) && err.code != ENODEV)
			log_error(m->name, "%s is left behind: %s", device, err.text);
		else
			m->device.exists = false;
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

	kernel_control(&m->control);
	managed_move(m, EXPORT_OPENING, NULL);
	m->lost = 0;
	if (getrandom(&m->device.cookie, sizeof(m->device.cookie), 0) != sizeof(m->device.cookie) ||
	    !m->device.cookie)
		m->device.cookie = (uint64_t)(uintptr_t)m ^ clock_ms();
	ret = choose(m, err);
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
	flow_is_live(m);
	return 0;
}
