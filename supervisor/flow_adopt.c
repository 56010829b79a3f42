/* SPDX-License-Identifier: MIT */
/*
 * Adoption of an export after a restart of ublkd. The record says what the earlier ublkd was about
 * to do; the kernel and the worker say what came of it. This file compares the three, once, before
 * any other flow runs.
 *
 * The device is found by its cookie, since its number may belong to another device by now. If the
 * kernel does not answer, nothing is changed: the device may be live and in use.
 *
 * A worker that serves is adopted as it is, and I/O never stops. Any other worker is ended, except
 * the only holder of a memory export's content, which is kept for its successor.
 *
 * Half-created devices are removed. A device without a worker is left in state recovering, and the
 * reconciler recovers it.
 *
 * Read flow_adopt() first, then take_worker() and use_worker().
 */
#include "common/error.h"
#include "common/log.h"
#include "engine/device_list.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/host.h"

#include "supervisor/export.h"
#include "supervisor/record.h"
#include "supervisor/worker_memory.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIES  3u
#define TRY_MS 500u

/* ublkd may have died between ADD_DEV and the record: search all devices for the cookie. */
static int search_device(struct export *export, struct error *err)
{
	struct error each;
	uint32_t *ids;
	unsigned nr;
	int ret = device_list_find(&ids, &nr);

	if (ret)
		return error_set(err, ret, "/dev: %s", strerror(-ret));
	export->device.exists = false;
	for (unsigned i = 0; !export->device.exists && i < nr; i++) {
		int found;

		export->device.info.dev_id = ids[i];
		found = device_find(&export->device, &each);
		export->device.exists = !found;
		/* The kernel did not answer for this device, which may be ours. */
		if (found && found != -ENODEV && !ret) {
			*err = each;
			ret = found;
		}
	}
	free(ids);
	if (export->device.exists)
		return 0;
	return ret ? ret : error_set(err, ENODEV, "the export has no device");
}

/* Finds the device, with retries. -ENODEV: there is none; other errors: the kernel did not say. */
static int find_device(struct export *export, struct error *err)
{
	bool on_record = export->device.exists;
	int ret;

	for (unsigned i = 0;; i++) {
		ret = on_record ? device_find(&export->device, err) : search_device(export, err);
		if (!ret || ret == -ENODEV || i == TRIES)
			return ret;
		fiber_sleep(TRY_MS);
	}
}

/* The device is gone: removes its symlink and name record, unless they are another device's now. */
static void forget_device(struct export *export)
{
	char device[32], name[NAME_MAX_LENGTH + 1];
	struct error ignored;

	device_path(&export->device, device, sizeof(device));
	name_unlink(export->name, device, &ignored);
	if (!name_lookup(NAME_RECORDS, device, name, &ignored) && !strcmp(name, export->name))
		name_forget(NAME_RECORDS, device, &ignored);
	export->device.exists = false;
}

/* Asks a found worker for its state, and takes its counters and memory. */
static int greet(struct export *export, bool *serving, json_int_t *size, struct error *err)
{
	struct link_fds fds;
	json_t *reply;
	int memory;
	int ret = worker_call_with_ask(export->worker.handle, worker_request("hello"),
				       FLOW_WORKER_MS, &reply, &fds, err);

	if (ret)
		return ret;
	*serving =
		json_is_true(json_object_get(reply, "serving")) && export->device.exists &&
		json_integer_value(json_object_get(reply, "device")) == export->device.info.dev_id;
	*size = json_integer_value(json_object_get(reply, "size"));
	export_take_conditions(export, json_object_get(reply, "conditions"));
	json_decref(reply);
	flow_drop_counters(export);
	export->worker.counters_fd = link_take_fd(&fds, 0);
	export->worker.counters = export->worker.counters_fd < 0
					  ? NULL
					  : counters_map(export->worker.counters_fd, false);
	memory = link_take_fd(&fds, 1);
	if (export->storage.memory_fd < 0 && memory >= 0 &&
	    worker_is_memory(memory, export->storage.limits.size))
		host_take_memory(export, memory);
	else if (memory >= 0)
		link_close(memory);
	link_close_fds(&fds);
	return 0;
}

/* Adopts, drains or kills the found worker.handle; ret and err: why it does not answer. */
static void use_worker(struct export *export, int ret, struct error *err)
{
	struct error ignored;
	bool serving = false;
	json_int_t size = 0;

	export->worker.process = worker_process(export->worker.handle);
	if (!ret)
		ret = greet(export, &serving, &size, err);
	/* In any case save the content of a memory export before the worker may be killed. */
	host_save_memory(export, export->worker.handle);
	if (ret)
		goto kill;
	if (serving && export->worker.counters && export->device.info.state == UBLK_DEV_LIVE) {
		/* The storage may have grown while no ublkd ran. */
		if (size > 0 && (uint64_t)size > export->storage.limits.size)
			export->storage.grown_to = (uint64_t)size;
		return;
	}
	/* A drained worker that holds the memory: keep it until a successor has taken that. */
	export->worker.holding =
		!serving && export->device.exists && export->storage.memory_fd >= 0;
	if (export->worker.holding)
		return;
	/*
	 * A replacement that was about to serve, and is the only holder of the memory: drain, keep.
	 */
	if (serving && export->storage.memory_fd >= 0 &&
	    export->device.info.state != UBLK_DEV_DEAD && !flow_drain(export, &ignored))
		return;
	if (!serving)
		error_set(err, ESTALE, "it does not serve the device");
	else if (!export->worker.counters)
		error_set(err, ESTALE, "its counters are not available");
	else
		error_set(err, ESTALE, "the device is not live (state %u)",
			  export->device.info.state);
kill:
	log_warning(export->name, "replacing the worker (process %d): %s",
		    (int)worker_pid(export->worker.handle), err->text);
	flow_end_worker(export, 0, err);
}

/* Ends a second worker, left by a replacement that was interrupted. NULL: there is none. */
static void end_other(struct export *export, struct worker *other)
{
	if (!other)
		return;
	host_save_memory(export, other);
	log_info(export->name, "ending a worker (process %d) that another worker has replaced",
		 (int)worker_pid(other));
	worker_finish(other, 0);
	worker_forget(other);
}

/*
 * A memory export may have two workers: the old one, which still holds the memfd, and its
 * replacement, if ublkd was killed before it published that one. Both live on without ublkd;
 * one is adopted, and the other ended once that is done.
 */
static void adopt_of_two(struct export *export, const struct worker_process *known)
{
	struct worker *fresh = worker_adopt_new(export->name, &export->worker.events);
	struct error err;

	if (export->worker.handle || !fresh) {
		end_other(export, fresh);
	} else {
		export->worker.handle = fresh;
		use_worker(export, 0, &err);
		if (export->worker.handle && worker_publish(export->worker.handle, &err))
			log_warning(export->name, "%s", err.text);
	}
	if (!export->worker.handle || worker_pid(export->worker.handle) != known->pid)
		end_other(export, worker_adopt_known(export->name, known, &export->worker.events));
}

static void take_worker(struct export *export)
{
	const struct worker_process known = export->worker.process;
	struct error err;
	int ret = worker_adopt(&export->worker.handle, export->name, &known, FLOW_WORKER_MS,
			       &export->worker.events, &err);

	if (export->worker.handle)
		use_worker(export, ret, &err);
	else if (ret != -ESRCH)
		log_warning(export->name, "cannot find the worker: %s", err.text);
	if (host_has_memory(export))
		adopt_of_two(export, &known);
	/* Any other worker was not published, and exits with the ublkd that started it. */
	if (!export->worker.handle && ret == -ESRCH)
		worker_socket_remove(export->name);
	else
		worker_socket_remove_new(export->name);
}

static void set_found(struct export *export, enum export_state state, const char *reason)
{
	export->state = state;
	export_note(export, reason);
}

int flow_adopt(struct export *export, struct error *err)
{
	bool finished = export->state == EXPORT_LIVE;
	int ret;

	flow_begin(export);
	ret = find_device(export, err);
	if (ret && ret != -ENODEV) {
		/* The device may be live and in use: leave its worker alone, too. */
		set_found(export, EXPORT_FAILED, err->text);
		export_set_fault(export, err);
		log_error(export->name, "%s: leaving it alone; restart ublkd to retry", err->text);
		return ret;
	}
	if (ret && export->device.exists)
		forget_device(export);
	take_worker(export);
	if (!export->device.exists || export->device.info.state == UBLK_DEV_DEAD) {
		/*
		 * Half created, or stopped, so not in use: remove it; the reconciler starts it
		 * again.
		 */
		if (export->device.exists || export->worker.handle) {
			set_found(export, EXPORT_FAILED, "found half created");
			if (flow_stop(export, true, err))
				log_error(export->name, "%s", err->text);
			if (export->state == EXPORT_GONE)
				export_move(export, EXPORT_DECLARED, NULL);
			return 0;
		}
		set_found(export, EXPORT_DECLARED, "no device was found");
		return 0;
	}
	if (export->worker.handle && !export->worker.holding) {
		set_found(export, EXPORT_LIVE, "found with its worker");
		export->worker.unfenced = false;
		export_note_live(export);
		record_write(export, err);
		/* After a finished start, sysfs settings may be an administrator's: leave them. */
		if (!finished)
			flow_finish(export, true);
		log_info(export->name,
			 UBLK_BLOCK_PREFIX "%u is live: found with its worker (process %d)",
			 export->device.info.dev_id, (int)worker_pid(export->worker.handle));
		return 0;
	}
	set_found(export,
		  export->wanted.goal == GOAL_SUSPENDED ? EXPORT_SUSPENDED : EXPORT_RECOVERING,
		  "found without a worker");
	return 0;
}
