/* SPDX-License-Identifier: MIT */
/*
 * What an earlier ublkd has left of an export: the record says what it was about to
 * do, the kernel and the worker what came of it.
 */
#include "common/error.h"
#include "common/log.h"
#include "engine/device_list.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/host.h"
#include "supervisor/reconcile.h"

#include "supervisor/managed.h"
#include "supervisor/worker_memory.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIES  3u
#define TRY_MS 500u

/* A device that was added and not yet on record has our cookie. */
static int search_device(struct managed *m, struct error *err)
{
	struct error each;
	uint32_t *ids;
	unsigned nr;
	int ret = device_list_find(&ids, &nr);

	if (ret)
		return error_set(err, ret, "/dev: %s", strerror(-ret));
	m->device.exists = false;
	for (unsigned i = 0; !m->device.exists && i < nr; i++) {
		int found;

		m->device.info.dev_id = ids[i];
		found = device_find(&m->device, &each);
		m->device.exists = !found;
		/* A device that the kernel told nothing of may have been it. */
		if (found && found != -ENODEV && !ret) {
			*err = each;
			ret = found;
		}
	}
	free(ids);
	if (m->device.exists)
		return 0;
	return ret ? ret : error_set(err, ENODEV, "it has no device");
}

/* The kernel has to say: nothing is known of a device that it tells nothing of. */
static int look_for_device(struct managed *m, struct error *err)
{
	bool on_record = m->device.exists;
	int ret;

	for (unsigned i = 0;; i++) {
		ret = on_record ? device_find(&m->device, err) : search_device(m, err);
		if (!ret || ret == -ENODEV || i == TRIES)
			return ret;
		fiber_sleep(TRY_MS);
	}
}

/* Its device is gone: so is what says that it is there, unless that is another's by now. */
static void forget_device(struct managed *m)
{
	char device[32], name[NAME_MAX_LENGTH + 1];
	struct error ignored;

	device_path(&m->device, device, sizeof(device));
	name_unlink(m->name, device, &ignored);
	if (!name_lookup(NAME_RECORDS, device, name, &ignored) && !strcmp(name, m->name))
		name_forget(NAME_RECORDS, device, &ignored);
	m->device.exists = false;
}

/* State of a worker that was found. */
static int greet(struct managed *m, bool *serving, json_int_t *size, struct error *err)
{
	struct link_fds fds;
	json_t *reply;
	int memory;
	int ret = worker_call_with_ask(m->worker, worker_request("hello"), FLOW_WORKER_MS, &reply,
				       &fds, err);

	if (ret)
		return ret;
	*serving = json_is_true(json_object_get(reply, "serving")) && m->device.exists &&
		   json_integer_value(json_object_get(reply, "device")) == m->device.info.dev_id;
	*size = json_integer_value(json_object_get(reply, "size"));
	json_decref(reply);
	flow_drop_counters(m);
	m->counters_fd = link_take_fd(&fds, 0);
	m->counters = m->counters_fd < 0 ? NULL : counters_map(m->counters_fd, false);
	memory = link_take_fd(&fds, 1);
	if (m->memory_fd < 0 && memory >= 0 && worker_is_memory(memory, m->limits.size))
		host_take_memory(m, memory);
	else if (memory >= 0)
		link_close(memory);
	link_close_fds(&fds);
	return 0;
}

/* Adopts, drains or kills m->worker, which was found; ret and err: why it does not answer. */
static void use_worker(struct managed *m, int ret, struct error *err)
{
	struct error ignored;
	bool serving = false;
	json_int_t size = 0;

	m->process = worker_process(m->worker);
	if (!ret)
		ret = greet(m, &serving, &size, err);
	/* Whatever becomes of it: its content is not to go with it. */
	host_save_memory(m, m->worker);
	if (ret)
		goto kill;
	if (serving && m->counters && m->device.info.state == UBLK_DEV_LIVE) {
		/* The storage may have grown while no ublkd ran. */
		if (size > 0 && (uint64_t)size > m->limits.size)
			m->grow_to = (uint64_t)size;
		return;
	}
	/* The worker keeps the memory until another one has it. */
	m->holding = !serving && m->device.exists && m->memory_fd >= 0;
	if (m->holding)
		return;
	/* The worker was to take over, and was the only one to have the memory. */
	if (serving && m->memory_fd >= 0 && m->device.info.state != UBLK_DEV_DEAD &&
	    !flow_drain(m, &ignored))
		return;
	if (!serving)
		error_set(err, ESTALE, "it does not serve the device");
	else if (!m->counters)
		error_set(err, ESTALE, "its counters are not to be had");
	else
		error_set(err, ESTALE, "the device is not live (state %u)", m->device.info.state);
kill:
	log_warning(m->name, "its worker (process %d) is replaced: %s", (int)worker_pid(m->worker),
		    err->text);
	flow_end_worker(m, 0, err);
}

/* Another worker that kept the memory, in a change that was cut short; NULL: none. */
static void end_other(struct managed *m, struct worker *other)
{
	if (!other)
		return;
	host_save_memory(m, other);
	log_info(m->name, "a worker (process %d) that another one has replaced is ended",
		 (int)worker_pid(other));
	worker_finish(other, 0);
	worker_forget(other);
}

/*
 * Of an export whose content is memory there may be two: the one that has kept it, and
 * the one that has it by now and was to serve.  Both live on without ublkd; one is taken,
 * and the other ended once that is done.
 */
static void take_of_two(struct managed *m, const struct worker_process *known,
			const struct worker_events *events)
{
	struct worker *fresh = worker_adopt_new(m->name, events);
	struct error err;

	if (m->worker || !fresh) {
		end_other(m, fresh);
	} else {
		m->worker = fresh;
		use_worker(m, 0, &err);
		if (m->worker && worker_publish(m->worker, &err))
			log_warning(m->name, "%s", err.text);
	}
	if (!m->worker || worker_pid(m->worker) != known->pid)
		end_other(m, worker_adopt_known(m->name, known, events));
}

static void take_worker(struct managed *m)
{
	const struct worker_events events = { RECONCILE_WORKER_EVENTS(m) };
	const struct worker_process known = m->process;
	struct error err;
	int ret = worker_adopt(&m->worker, m->name, &known, FLOW_WORKER_MS, &events, &err);

	if (m->worker)
		use_worker(m, ret, &err);
	else if (ret != -ESRCH)
		log_warning(m->name, "its worker is not found: %s", err.text);
	if (host_has_memory(m))
		take_of_two(m, &known, &events);
	/* Any other ends with the ublkd that has started it. */
	if (!m->worker && ret == -ESRCH)
		worker_socket_remove(m->name);
	else
		worker_socket_remove_new(m->name);
}

static void find(struct managed *m, enum export_state state, const char *reason)
{
	m->state = state;
	managed_note(m, reason);
}

void flow_adopt(struct managed *m)
{
	bool finished = m->state == EXPORT_LIVE;
	struct error err;
	int ret;

	flow_begin(m);
	ret = look_for_device(m, &err);
	if (ret && ret != -ENODEV) {
		/* The device may be live and in use: its worker is left to serve. */
		find(m, EXPORT_FAILED, err.text);
		m->given_up = true;
		m->unknown = true;
		managed_set_fault(m, &err);
		log_error(m->name, "%s: it is left alone: start ublkd anew to have it looked for",
			  err.text);
		return;
	}
	if (ret && m->device.exists)
		forget_device(m);
	take_worker(m);
	if (!m->device.exists || m->device.info.state == UBLK_DEV_DEAD) {
		/* Half made, or stopped: nobody uses it; it goes, and comes anew if it is wanted. */
		if (m->device.exists || m->worker) {
			bool force = m->force;

			find(m, EXPORT_FAILED, "left half made");
			m->force = true;
			if (flow_stop(m, &err))
				log_error(m->name, "%s", err.text);
			m->force = force;
			if (m->state == EXPORT_GONE)
				managed_move(m, EXPORT_DECLARED, NULL);
			return;
		}
		find(m, EXPORT_DECLARED, "it was not there");
		return;
	}
	if (m->worker && !m->holding) {
		find(m, EXPORT_LIVE, "found");
		m->unfenced = false;
		managed_note_live(m);
		managed_write(m, &err);
		/* Else its settings may be somebody's choice by now. */
		if (!finished)
			flow_finish(m, true);
		log_info(m->name,
			 UBLK_BLOCK_PREFIX "%u is live: found with its worker (process %d)",
			 m->device.info.dev_id, (int)worker_pid(m->worker));
		return;
	}
	find(m, m->want == WANT_SUSPENDED ? EXPORT_SUSPENDED : EXPORT_RECOVERING,
	     "found without its server");
}
