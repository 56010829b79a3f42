/* SPDX-License-Identifier: MIT */
/*
 * What an earlier ublkd has left of an export: the record says what it was about to do, the kernel
 * and the worker what came of it. The three are put together here, once, before anything is done.
 *
 * The device is known by its cookie, as its number may be another's by now. Where the kernel does
 * not say what there is, nothing is done at all: the device may be live and in use.
 *
 * A worker that serves is adopted as it is, and I/O never stops. One that does not is ended, but
 * for the only holder of a memory export's content, which is kept for its successor.
 *
 * Half-made devices are removed; one without a worker is recovered by the reconciler, which goes
 * on from the state that this leaves.
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

/* A device that was added and not yet on record has our cookie. */
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
		/* A device that the kernel told nothing of may have been it. */
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

/* The kernel has to say: nothing is known of a device that it tells nothing of. */
static int look_for_device(struct export *export, struct error *err)
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

/* Its device is gone: so is what says that it is there, unless that is another's by now. */
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

/* State of a worker that was found. */
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

/* Adopts, drains or kills export->worker.handle, which was found; ret and err: why it does not answer. */
static void use_worker(struct export *export, int ret, struct error *err)
{
	struct error ignored;
	bool serving = false;
	json_int_t size = 0;

	export->worker.process = worker_process(export->worker.handle);
	if (!ret)
		ret = greet(export, &serving, &size, err);
	/* Whatever becomes of it: its content is not to go with it. */
	host_save_memory(export, export->worker.handle);
	if (ret)
		goto kill;
	if (serving && export->worker.counters && export->device.info.state == UBLK_DEV_LIVE) {
		/* The storage may have grown while no ublkd ran. */
		if (size > 0 && (uint64_t)size > export->storage.limits.size)
			export->storage.grown_to = (uint64_t)size;
		return;
	}
	/* The worker keeps the memory until another one has it. */
	export->worker.holding =
		!serving && export->device.exists && export->storage.memory_fd >= 0;
	if (export->worker.holding)
		return;
	/* The worker was to take over, and was the only one to have the memory. */
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

/* Another worker that kept the memory, in a change that was cut short; NULL: none. */
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
static void take_of_two(struct export *export, const struct worker_process *known)
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
		take_of_two(export, &known);
	/* Any other ends with the ublkd that has started it. */
	if (!export->worker.handle && ret == -ESRCH)
		worker_socket_remove(export->name);
	else
		worker_socket_remove_new(export->name);
}

static void find(struct export *export, enum export_state state, const char *reason)
{
	export->state = state;
	export_note(export, reason);
}

int flow_adopt(struct export *export, struct error *err)
{
	bool finished = export->state == EXPORT_LIVE;
	int ret;

	flow_begin(export);
	ret = look_for_device(export, err);
	if (ret && ret != -ENODEV) {
		/* The device may be live and in use: its worker is left to serve. */
		find(export, EXPORT_FAILED, err->text);
		export_set_fault(export, err);
		log_error(export->name, "%s: leaving it alone; restart ublkd to retry", err->text);
		return ret;
	}
	if (ret && export->device.exists)
		forget_device(export);
	take_worker(export);
	if (!export->device.exists || export->device.info.state == UBLK_DEV_DEAD) {
		/* Half made, or stopped: nobody uses it; it goes, and comes again if it is wanted. */
		if (export->device.exists || export->worker.handle) {
			find(export, EXPORT_FAILED, "found half created");
			if (flow_stop(export, true, err))
				log_error(export->name, "%s", err->text);
			if (export->state == EXPORT_GONE)
				export_move(export, EXPORT_DECLARED, NULL);
			return 0;
		}
		find(export, EXPORT_DECLARED, "no device was found");
		return 0;
	}
	if (export->worker.handle && !export->worker.holding) {
		find(export, EXPORT_LIVE, "found with its worker");
		export->worker.unfenced = false;
		export_note_live(export);
		record_write(export, err);
		/* Else its settings may be somebody's choice by now. */
		if (!finished)
			flow_finish(export, true);
		log_info(export->name,
			 UBLK_BLOCK_PREFIX "%u is live: found with its worker (process %d)",
			 export->device.info.dev_id, (int)worker_pid(export->worker.handle));
		return 0;
	}
	find(export, export->wanted.goal == GOAL_SUSPENDED ? EXPORT_SUSPENDED : EXPORT_RECOVERING,
	     "found without a worker");
	return 0;
}
