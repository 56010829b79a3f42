/* SPDX-License-Identifier: MIT */
/*
 * A device and its server in one process, for `ublkctl run`: brings device.c's kernel commands and
 * serve.c's queues into one order. Nothing outlives the process; ublkd's flows serve that need.
 *
 * The backend opens before ADD_DEV, since its limits become the device's parameters. The queues
 * fetch every tag before START_DEV, since the driver waits for them.
 *
 * The end is the delicate part. STOP_DEV waits for all requests, so the queues serve until it
 * returns. With a failed queue it would wait forever; then closing ublkcN makes the kernel fail the
 * requests, and the device is deleted. A thread stuck in its backend keeps ublkcN open: its device
 * goes with the process, which abandon_device() prepares.
 *
 * Read standalone_start() first, then standalone_stop() with stop_in_order(), then
 * standalone_follow_size().
 */
#include "engine/standalone.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHAR_MS 2000u /* for udev to make ublkcN, where devtmpfs does not */

static void move(struct standalone *s, enum export_state to)
{
	assert(export_state_may(s->state, to));
	log_debug(s->serving.instance.name, "%s -> %s", export_state_name(s->state),
		  export_state_name(to));
	s->state = to;
}

/* ---- queues ---- */

/* The CPUs of each queue; the caller frees them.  NULL where there is no memory. */
static struct cpus *choose_cpus(const struct standalone *s)
{
	unsigned nr = s->device.info.nr_hw_queues;
	struct cpus *cpus = calloc(nr, sizeof(*cpus));

	for (unsigned i = 0; cpus && i < nr; i++) {
		cpus[i] = s->cpus;
		if (cpus_empty(&cpus[i]))
			device_queue_cpus(&s->device, i, &cpus[i]);
	}
	return cpus;
}

static int start_queues(struct standalone *s, struct error *err)
{
	struct cpus *cpus = choose_cpus(s);
	struct serving_setup setup = {
		.char_fd = s->char_fd,
		.path = s->device.path,
		.max_io = s->device.max_io,
		.nr_queues = s->device.info.nr_hw_queues,
		.depth = s->device.info.queue_depth,
		.unprivileged = device_scans_by_privilege(&s->device),
		.cpus = cpus,
	};
	int ret = serving_start(&s->serving, &setup, err);

	free(cpus);
	return ret;
}

/* ---- growing ---- */

void standalone_follow_size(struct standalone *s)
{
	struct instance *e = &s->serving.instance;
	uint64_t size, before = e->limits.size;
	char now[24], then[24];
	struct error err;

	size = serving_grown(&s->serving);
	if (size <= before)
		return;
	size_format(size, now, sizeof(now));
	size_format(before, then, sizeof(then));
	if (!device_can_resize(&s->device)) {
		log_warning(e->name,
			    "the storage has grown to %s, the device stays at %s: this kernel "
			    "cannot resize a live device (Linux 6.16 can): restart 'ublkctl run'",
			    now, then);
		return;
	}
	/* First for us, then for the kernel: nothing it sends may be refused. */
	serving_set_size(&s->serving, size);
	if (device_set_size(&s->device, size, &err)) {
		serving_set_size(&s->serving, before);
		log_error(e->name, "the device stays at %s: %s", then, err.text);
		return;
	}
	log_info(e->name, "%s has grown from %s to %s", s->path_name, then, now);
}

int standalone_resize(struct standalone *s, struct error *err)
{
	struct instance *e = &s->serving.instance;

	if (!e->backend->resize)
		return error_set(err, EOPNOTSUPP, "%s: this kind of storage does not grow",
				 e->name);
	return e->backend->resize(e, err);
}

/* ---- start and stop ---- */

/* A thread that does not end keeps ublkcN: the device goes when the process does. */
static void abandon_device(struct standalone *s)
{
	struct error err;

	/* The deletion may not even begin before the process ends: no use to wait for it. */
	s->device.control->abort = 1;
	if (control_delete_async(s->device.control, s->device.info.dev_id, &err))
		log_error(s->serving.instance.name, "device %u is left: %s", s->device.info.dev_id,
			  err.text);
}

/* Closes ublkcN and deletes the device.  idle: nothing is in flight. */
static int delete (struct standalone *s, bool idle, struct error *err)
{
	s->device.control->abort = 0;
	return device_delete(&s->device, s->char_fd, idle, false, err);
}

static int prepare(struct standalone *s, const struct spec *spec, struct control *control,
		   struct error *err)
{
	const struct option_value *v = spec->values;
	struct instance instance;
	int ret;

	spec_to_instance(spec, &instance);
	*s = (struct standalone){
		.state = EXPORT_DECLARED,
		.device = { .name = instance.name, .control = control },
		/* Its name is for messages even where it is never opened. */
		.serving.instance = instance,
		.counters_fd = -1,
		.char_fd = -1,
	};
	if (v[SPEC_CPUS].set)
		cpus_parse(v[SPEC_CPUS].text, &s->cpus, err);
	ret = control_get_features(control, &s->device.features, err);
	if (ret)
		return ret;
	ret = device_plan(&s->device, spec, err);
	if (ret)
		return ret;
	s->counters = counters_create(instance.nr_queues, spec->backend->gauges, &s->counters_fd);
	if (!s->counters)
		return error_set(err, errno, "memory for counters: %s", strerror(errno));
	return 0;
}

int standalone_start(struct standalone *s, const struct spec *spec, const struct backend_host *host,
		     struct control *control, struct error *err)
{
	const struct option_value *id = &spec->values[SPEC_ID];
	struct error later;
	int ret;

	ret = prepare(s, spec, control, err);
	if (ret)
		return ret;
	move(s, EXPORT_OPENING);
	ret = serving_open(&s->serving,
			   &(struct serving_of){
				   .spec = spec,
				   .shape.nr_queues = counters_nr_queues(s->counters),
				   .host = host,
				   .counters = s->counters,
			   },
			   err);
	if (ret)
		goto forget;
	ret = device_add(&s->device, id->set ? (uint32_t)id->number : UBLK_ID_AUTO,
			 s->serving.instance.nr_queues, s->serving.instance.depth, err);
	if (ret)
		goto close_serving;
	device_path(&s->device, s->path_name, sizeof(s->path_name));
	ret = device_set_params(&s->device, &s->serving.instance.limits, err);
	if (ret)
		goto remove;
	move(s, EXPORT_ADDED);

	ret = device_open_char(&s->device, CHAR_MS, err);
	if (ret < 0)
		goto remove;
	s->char_fd = ret;
	ret = start_queues(s, err);
	if (ret)
		goto stop_queues;
	move(s, EXPORT_STARTING);
	ret = control_start(control, s->device.info.dev_id, getpid(), err);
	if (ret)
		goto stop_queues;
	move(s, EXPORT_LIVE);
	s->serving.instance.was_live = true;
	device_tune(&s->device);
	return 0;

stop_queues:
	serving_quit(&s->serving);
	switch (serving_join(&s->serving, &later)) {
	case 0:
		break;
	case -ETIMEDOUT:
		log_error(s->serving.instance.name, "%s", later.text);
		abandon_device(s);
		move(s, EXPORT_FAILED);
		return ret;
	default:
		/* Why a queue ended is why START_DEV waited in vain. */
		*err = later;
		ret = -err->code;
	}
remove:
	if (delete (s, s->state != EXPORT_STARTING, &later))
		log_error(s->serving.instance.name, "device %u is left: %s", s->device.info.dev_id,
			  later.text);
close_serving:
	serving_close(&s->serving);
forget:
	move(s, EXPORT_FAILED);
	standalone_forget(s);
	return ret;
}

static uint64_t requests_done(void *context)
{
	return serving_done(context);
}

/*
 * STOP_DEV waits for all requests, so it is only for a device whose queues all
 * serve.  Returns false where requests in flight are to be given up instead: the
 * kernel fails them once ublkcN is closed.
 */
static bool stop_in_order(struct standalone *s, struct error *fault)
{
	int ret;

	if (s->device.control->abort || serving_has_failed(&s->serving))
		return false;
	ret = device_stop(&s->device, requests_done, &s->serving, fault);
	if (!ret)
		return true;
	/* Aborted meanwhile, or gone already: neither is a fault of the device's. */
	if (s->device.control->abort || fault->code == ENODEV)
		fault->code = 0;
	return false;
}

int standalone_stop(struct standalone *s, struct error *err)
{
	struct error fault = { 0 }, step;
	bool in_order;
	int ret;

	move(s, EXPORT_STOPPING);
	in_order = stop_in_order(s, &fault);
	if (!in_order)
		serving_quit(&s->serving);
	ret = serving_join(&s->serving, &step);
	if (ret)
		fault = step;
	if (s->serving.stuck) {
		abandon_device(s);
	} else {
		if (delete (s, in_order, &step) && !fault.code)
			fault = step;
		serving_close(&s->serving);
	}
	move(s, fault.code ? EXPORT_FAILED : EXPORT_GONE);
	if (!fault.code)
		return 0;
	*err = fault;
	return -fault.code;
}

void standalone_forget(struct standalone *s)
{
	if (s->serving.stuck)
		return;
	counters_destroy(s->counters);
	close(s->counters_fd);
}
