/* SPDX-License-Identifier: MIT */
/*
 * Steps that several flows share: start and end of the counters and of the worker, and the last
 * steps for a live device. Each function takes one step; the flow decides the order.
 *
 * flow_publish() makes a change of workers final. Until then the record names the old worker, which
 * still holds the memory; afterwards the new one. ublkd may die at any point, and its successor
 * finds a worker that can go on.
 *
 * flow_unless_worker_dies() bounds START_DEV and END_USER_RECOVERY. Both wait in the driver until
 * the worker has fetched every tag, forever if the worker is dead.
 *
 * Read in the order of a start (flow_start.c): flow_create_counters(), flow_prepare(), flow_open(),
 * flow_publish(), flow_serve(), flow_unless_worker_dies(), flow_finish_start(). flow_drain() and
 * flow_end_worker() lead back.
 */
#include "supervisor/flow_parts.h"
#include "common/clock.h"
#include "common/cpus.h"
#include "common/error.h"
#include "common/log.h"
#include "common/process.h"
#include "engine/params.h"
#include "supervisor/control_async.h"
#include "supervisor/flow.h"
#include "supervisor/host.h"
#include "supervisor/export.h"
#include "supervisor/record.h"
#include "worker/conditions.h"
#include "worker/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LIVE_MS  5000u
#define PARTX_MS 5000u

void flow_drop_counters(struct export *export)
{
	if (export->worker.counters)
		counters_destroy(export->worker.counters);
	if (export->worker.counters_fd >= 0)
		close(export->worker.counters_fd);
	export->worker.counters = NULL;
	export->worker.counters_fd = -1;
}

/*
 * The shape of an existing device is fixed. For a new device ublkd decides once, and does not leave
 * it to the worker: the default number of queues depends on the CPUs that a process may use, which
 * can differ between ublkd and worker, and change.
 */
static void shape_of(const struct export *export, struct device_shape *shape)
{
	struct instance instance;

	spec_to_instance(&export->spec, &instance);
	*shape = (struct device_shape){ instance.nr_queues, instance.depth, instance.max_io };
	if (export->device.exists)
		*shape = (struct device_shape){ export->device.info.nr_hw_queues,
						export->device.info.queue_depth,
						export->device.max_io };
	else if (export->worker.counters)
		shape->nr_queues = counters_nr_queues(export->worker.counters);
}

int flow_create_counters(struct export *export, struct error *err)
{
	struct device_shape shape;

	flow_drop_counters(export);
	shape_of(export, &shape);
	export->worker.counters = counters_create(shape.nr_queues, export->spec.backend->gauges,
						  &export->worker.counters_fd);
	if (!export->worker.counters)
		return error_set(err, errno, "memory for counters: %s", strerror(errno));
	export->worker.counters->lost = export->storage.lost;
	return 0;
}

void flow_drop_memory(struct export *export)
{
	if (export->storage.memory_fd < 0)
		return;
	host_unstore_memory(export);
	close(export->storage.memory_fd);
	export->storage.memory_fd = -1;
}

/* ---- the worker ---- */

int flow_prepare(struct export *export, bool resumed, struct worker **worker, struct error *err)
{
	json_t *request;
	int ret;

	ret = worker_start(worker, export->name, &export->worker.events, err);
	if (ret)
		return ret;
	request = worker_request("setup");
	json_object_set_new(request, "name", json_string(export->name));
	json_object_set_new(request, "uri", json_string(export->uri));
	json_object_set(request, "options", export->options);
	json_object_set_new(request, "uid", json_integer(worker_setup.uid));
	json_object_set_new(request, "gid", json_integer(worker_setup.gid));
	json_object_set_new(request, "owner", owner_to_json(&export->owner));
	json_object_set_new(request, "resumed", json_boolean(resumed));
	if (resumed)
		json_object_set_new(request, "block",
				    json_integer(export->storage.limits.logical_block));
	json_object_set_new(request, "restored", json_boolean(export->origin != ORIGIN_REQUESTED));
	ret = worker_call_with_ask(*worker, request, FLOW_WORKER_MS, NULL, NULL, err);
	if (!ret)
		return 0;
	worker_finish(*worker, 0);
	worker_forget(*worker);
	*worker = NULL;
	return ret;
}

int flow_open(struct export *export, struct backend_limits *limits, char identity[IDENTITY_BYTES],
	      unsigned *nr_queues, unsigned *depth, struct error *err)
{
	json_t *request = worker_request("open"), *reply;
	struct device_shape asked;
	const char *text;
	int ret;

	shape_of(export, &asked);
	json_object_set_new(request, "queues", json_integer(asked.nr_queues));
	json_object_set_new(request, "depth", json_integer(asked.depth));
	json_object_set_new(request, "max-io", json_integer(asked.max_io));
	ret = worker_call(export->worker.handle, request, &export->worker.counters_fd, 1,
			  FLOW_OPEN_MS, &reply, NULL, err);
	if (ret)
		return ret;
	*nr_queues = (unsigned)json_integer_value(json_object_get(reply, "queues"));
	*depth = (unsigned)json_integer_value(json_object_get(reply, "depth"));
	text = json_string_value(json_object_get(reply, "identity"));
	snprintf(identity, IDENTITY_BYTES, "%s", text ? text : "");
	/* The record is UTF-8, and the limit may have cut the text within a character. */
	text_make_printable(identity);
	ret = limits_from_json(json_object_get(reply, "limits"), limits);
	json_decref(reply);
	/* A server may have compromised the worker: check what it sends. */
	if (ret || !*nr_queues || *nr_queues > asked.nr_queues || !*depth || *depth > asked.depth)
		return error_set(err, EBADMSG, "the worker sent invalid limits");
	return params_complete_limits(limits, err);
}

static json_t *queue_cpus(const struct export *export)
{
	const struct option_value *asked = &export->spec.values[SPEC_CPUS];
	json_t *array = json_array();
	struct error err;
	char text[512];

	for (unsigned i = 0; i < export->device.info.nr_hw_queues; i++) {
		struct cpus cpus = { 0 };

		if (asked->set)
			cpus_parse(asked->text, &cpus, &err);
		else
			device_queue_cpus(&export->device, i, &cpus);
		json_array_append_new(array, json_string(cpus_format(&cpus, text, sizeof(text))));
	}
	return array;
}

void flow_record(const struct export *export)
{
	struct error err;

	if (record_write(export, &err))
		log_error(
			export->name,
			"%s: still serving; free space in /run, or a restarted ublkd will use the "
			"previous record",
			err.text);
}

int flow_publish(struct export *export, struct worker *before, struct error *err)
{
	int ret = worker_publish(export->worker.handle, err);

	if (ret)
		return ret;
	/*
	 * Before the record names the new worker: if ublkd dies here, its successor kills the old
	 * one.
	 */
	if (before)
		worker_kill(before);
	export->worker.process = worker_process(export->worker.handle);
	flow_record(export);
	return 0;
}

int flow_serve(struct export *export, struct error *err)
{
	json_t *request, *reply;
	int ret, fd = device_open_char(&export->device, FLOW_RELEASE_MS, err);

	if (fd < 0)
		return fd;
	request = worker_request("serve");
	json_object_set_new(request, "device", json_integer(export->device.info.dev_id));
	json_object_set_new(request, "queues", json_integer(export->device.info.nr_hw_queues));
	json_object_set_new(request, "depth", json_integer(export->device.info.queue_depth));
	json_object_set_new(request, "path", json_integer(export->device.path));
	json_object_set_new(request, "max-io", json_integer(export->device.max_io));
	json_object_set_new(request, "cpus", queue_cpus(export));
	ret = worker_call(export->worker.handle, request, &fd, 1, FLOW_WORKER_MS * 2, &reply, NULL,
			  err);
	close(fd);
	if (!ret)
		json_decref(reply);
	return ret;
}

int flow_drain(struct export *export, struct error *err)
{
	json_t *request = worker_request("drain");
	int ret;

	export->worker.holding = export->storage.memory_fd >= 0;
	json_object_set_new(request, "hold", json_boolean(export->worker.holding));
	ret = worker_call(export->worker.handle, request, NULL, 0, FLOW_WORKER_MS, NULL, NULL, err);
	if (ret)
		export->worker.holding = false;
	return ret;
}

int flow_unless_worker_dies(struct export *export,
			    int (*command)(struct control *control, uint32_t id, int tgid,
					   struct error *err),
			    struct error *err)
{
	int ret;

	export->worker.command_waits = true;
	export->control.abort = worker_has_ended(export->worker.handle);
	/* The driver requires the process that opened ublkcN, and ublkd did (flow_serve()). */
	ret = command(&export->control, export->device.info.dev_id, getpid(), err);
	export->worker.command_waits = false;
	if (export->control.abort && ret) {
		export->control.abort = 0;
		if (!worker_fault(export->worker.handle, err))
			error_set(err, EPIPE, "the worker (process %d) died",
				  (int)worker_pid(export->worker.handle));
		return -err->code;
	}
	export->control.abort = 0;
	return ret;
}

int flow_end_worker(struct export *export, unsigned ms, struct error *err)
{
	int ret = 0;

	if (!export->worker.handle)
		return 0;
	/* A worker that only holds the memory does not exit by itself. */
	if (export->worker.holding)
		ms = 0;
	export->worker.holding = false;
	if (worker_finish(export->worker.handle, ms))
		ret = error_set(
			err, ETIMEDOUT,
			"the worker (process %d) was killed and does not exit: it waits for a disk "
			"or for the kernel",
			(int)worker_pid(export->worker.handle));
	else
		worker_give_connections(export->worker.handle, &export->worker.fence);
	export->worker.ended_ms = clock_ms();
	/* The next state reports the trouble: clear conditions without a note. */
	conditions_from_json(NULL, export->conditions);
	worker_forget(export->worker.handle);
	export->worker.handle = NULL;
	return ret;
}

/* ---- the device ---- */

void flow_begin(struct export *export)
{
	control_async_init(&export->control, export->name);
	export->device.features = control_async_features();
}

/* The driver suppresses the partition scan for a worker without privileges; partx scans instead. */
static void add_partitions(struct export *export, const char *device)
{
	const char *const words[] = { "partx", "--add", device, NULL };
	uint64_t end = clock_ms() + PARTX_MS;
	posix_spawn_file_actions_t quiet;
	int ret, child;
	pid_t pid;

	posix_spawn_file_actions_init(&quiet);
	for (int fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_RDWR, 0);
	ret = posix_spawnp(&pid, words[0], &quiet, NULL, (char *const *)(uintptr_t)words, environ);
	posix_spawn_file_actions_destroy(&quiet);
	if (ret) {
		log_warning(export->name, "cannot scan for partitions: partx: %s", strerror(ret));
		return;
	}
	child = process_open_child(pid);
	if (child < 0)
		return; /* partx has ended already */
	/* partx reads the device: if that does not answer, do not wait for it for ever. */
	while (!process_child_ended(child)) {
		if (clock_ms() > end) {
			log_warning(
				export->name,
				"giving up the scan for partitions: the device does not answer");
			process_kill(child);
			break;
		}
		fiber_sleep(10);
	}
	close(child);
}

void flow_finish(struct export *export, bool partitions)
{
	char device[32];
	struct error err;

	device_path(&export->device, device, sizeof(device));
	if (worker_call(export->worker.handle, worker_request("live"), NULL, 0, LIVE_MS, NULL, NULL,
			&err))
		log_debug(export->name, "%s", err.text);
	if (name_link(export->name, device, &err))
		log_warning(export->name, "%s", err.text);
	device_tune(&export->device);
	if (partitions && export->device.partitions)
		add_partitions(export, device);
}

void flow_finish_start(struct export *export)
{
	bool is_new = export->state == EXPORT_STARTING;
	char device[32];

	device_path(&export->device, device, sizeof(device));
	/* Before the state: a condition that ends with this (upgrade) is not reported as live. */
	export_note_live(export);
	export_move(export, EXPORT_LIVE, NULL);
	flow_finish(export, is_new);
	/* Last: if ublkd dies before this, its successor repeats flow_finish() (flow_adopt()). */
	flow_record(export);
	log_event(LOG_EVENT_STATE, LOG_LEVEL_INFO, export->name, "%s is live", device);
}
