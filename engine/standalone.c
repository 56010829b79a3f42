/* SPDX-License-Identifier: MIT */
#include "engine/standalone.h"
#include "common/nodes.h"
#include "engine/attribute.h"
#include "engine/params.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void device_move(struct standalone *d, enum export_state to)
{
	assert(export_state_may(d->state, to));
	log_debug(d->serving.export.name, "%s -> %s", export_state_name(d->state),
		  export_state_name(to));
	d->state = to;
}

/* ---- what the kernel has of it ---- */

/* Linux 6.16 learnt to notice a dead server by itself; QUIESCE came with it. */
static bool notices_dead_server(const struct standalone *d)
{
	return d->features & UBLK_FEAT_QUIESCE;
}

static uint64_t device_features(const struct standalone *d)
{
	uint64_t flags = UBLK_FEAT_IOCTL_ENCODE | io_path_features(d->path);

	if (!d->partitions && !d->scan_by_privilege)
		flags |= UBLK_FEAT_NO_PART_SCAN;
	return flags;
}

static int add_device(struct standalone *d, uint32_t id, struct error *err)
{
	uint64_t wanted = device_features(d);
	struct error ignored;
	int ret;

	d->info = (struct ublk_dev_info){
		.dev_id = id,
		.nr_hw_queues = (uint16_t)d->serving.export.nr_queues,
		.queue_depth = (uint16_t)d->serving.export.depth,
		.max_io_buf_bytes = d->max_io,
		.flags = wanted,
	};
	ret = control_add(d->control, &d->info, err);
	if (ret)
		return ret;
	/* The driver clears what it does not know; ENCODE is older than its being said. */
	wanted &= ~UBLK_FEAT_IOCTL_ENCODE;
	if ((d->info.flags & wanted) != wanted) {
		control_delete(d->control, d->info.dev_id, &ignored);
		return error_set(
			err, EOPNOTSUPP,
			"the kernel has not granted what I/O path %s needs (asked for %#" PRIx64
			", got %#" PRIx64 "): choose another --io-path",
			io_path_name(d->path), wanted, d->info.flags);
	}
	snprintf(d->path_name, sizeof(d->path_name), UBLK_BLOCK_PREFIX "%u", d->info.dev_id);
	return 0;
}

/*
 * Lets go of ublkcN and deletes the device.  idle: nothing is in service.  Then
 * the open descriptor keeps the id taken until the deletion is under way, so that
 * it cannot hit the device that somebody else makes under this id.  Else the
 * kernel needs ublkcN closed first, to fail what is in service.
 */
static int delete_device(struct standalone *d, bool idle, struct error *err)
{
	struct ublk_dev_info info;
	int ret = -EOPNOTSUPP;

	d->control->hurry = 0;
	if (idle)
		ret = control_delete_async(d->control, d->info.dev_id, err);
	if (d->char_fd >= 0)
		close(d->char_fd);
	if (ret == -EOPNOTSUPP) { /* not idle, or before 6.9 */
		ret = control_get_info(d->control, d->info.dev_id, &info, err);
		if (!ret && info.server_pid > 0 && info.server_pid != getpid())
			return 0;
		if (!ret)
			ret = control_delete_async(d->control, d->info.dev_id, err);
		if (ret == -EOPNOTSUPP)
			ret = control_delete(d->control, d->info.dev_id, err);
	}
	/* Somebody else may have removed it: that is what was wanted. */
	return ret == -ENODEV ? 0 : ret;
}

static int set_params(struct standalone *d, struct error *err)
{
	struct ublk_dev_params asked, kept;
	int ret;

	params_make(&d->serving.export.limits, d->max_io, d->path == IO_PATH_ZERO_COPY, &asked);
	ret = control_set_params(d->control, d->info.dev_id, &asked, err);
	if (!ret)
		ret = control_get_params(d->control, d->info.dev_id, &kept, err);
	return ret ? ret : params_check_kept(&asked, &kept, err);
}

static int open_char(struct standalone *d, struct error *err)
{
	char path[32];

	snprintf(path, sizeof(path), UBLK_CHAR_PREFIX "%u", d->info.dev_id);
	/* devtmpfs makes the node at once; where only a udev makes it, it may be late. */
	for (unsigned tries = 0; tries < 100; tries++) {
		d->char_fd = open(path, O_RDWR | O_CLOEXEC);
		if (d->char_fd >= 0)
			return 0;
		if (errno != ENOENT)
			break;
		usleep(20000);
	}
	if (errno == ENOENT)
		return error_set(err, ENOENT, "%s has not appeared: is devtmpfs mounted on /dev?",
				 path);
	return error_set(err, errno, "%s: %s", path, strerror(errno));
}

static void write_attribute(const struct standalone *d, const char *attribute, const char *value)
{
	struct control *control = d->control;
	char path[96];
	int ret;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/%s", d->info.dev_id, attribute);
	ret = control->write_attribute ? control->write_attribute(control, path, value)
				       : attribute_write_file(path, value);
	if (ret)
		log_debug(d->serving.export.name, "%s: cannot set it to %s: %s", path, value,
			  strerror(-ret));
}

static void tune_block_device(const struct standalone *d)
{
	/*
	 * Until 6.16 a dead server is noticed only when a request times out (30 s). First,
	 * since the next one may wait for storage that does not answer.
	 */
	if (!notices_dead_server(d))
		write_attribute(d, "io_timeout", "1000");
	/* A device of one queue gets mq-deadline, which only adds work here. */
	write_attribute(d, "scheduler", "none");
}

/* ---- queues ---- */

/* The CPUs of each queue; the caller frees them.  NULL where there is no memory. */
static struct cpus *choose_cpus(struct standalone *d)
{
	unsigned nr = d->info.nr_hw_queues;
	struct cpus *cpus = calloc(nr, sizeof(*cpus));
	struct error err;

	for (unsigned i = 0; cpus && i < nr; i++) {
		cpus[i] = d->cpus;
		if (!cpus_empty(&cpus[i]))
			continue;
		if (control_get_affinity(d->control, d->info.dev_id, i, &cpus[i], sizeof(*cpus),
					 &err)) {
			log_debug(d->serving.export.name, "queue %u is not pinned: %s", i,
				  err.text);
			cpus[i] = (struct cpus){ 0 };
			continue;
		}
		nodes_widen(&cpus[i], NODES_FOLDER);
	}
	return cpus;
}

static int start_queues(struct standalone *d, struct error *err)
{
	struct cpus *cpus = choose_cpus(d);
	struct serving_setup setup = {
		.char_fd = d->char_fd,
		.path = d->path,
		.max_io = d->max_io,
		.nr_queues = d->info.nr_hw_queues,
		.depth = d->info.queue_depth,
		.unprivileged = d->scan_by_privilege,
		.cpus = cpus,
	};
	int ret = serving_start(&d->serving, &setup, err);

	free(cpus);
	return ret;
}

/* ---- growing ---- */

void standalone_follow_size(struct standalone *d)
{
	struct export *e = &d->serving.export;
	uint64_t size, before = e->limits.size;
	char now[24], then[24];
	struct error err;

	size = serving_grown(&d->serving);
	if (size <= before)
		return;
	size_format(size, now, sizeof(now));
	size_format(before, then, sizeof(then));
	if (!(d->features & UBLK_FEAT_UPDATE_SIZE)) {
		log_warning(e->name,
			    "the storage has grown to %s, the device stays at %s: this kernel "
			    "cannot resize a live one (Linux 6.16 can): export it anew",
			    now, then);
		return;
	}
	/* First for us, then for the kernel: nothing it sends may be refused. */
	serving_set_size(&d->serving, size);
	if (control_update_size(d->control, d->info.dev_id, size >> UBLK_SECTOR_SHIFT, &err)) {
		serving_set_size(&d->serving, before);
		log_error(e->name, "the device stays at %s: %s", then, err.text);
		return;
	}
	log_info(e->name, "%s has grown from %s to %s", d->path_name, then, now);
}

int standalone_resize(struct standalone *d, struct error *err)
{
	struct export *e = &d->serving.export;

	if (!e->backend->resize)
		return error_set(err, EOPNOTSUPP, "%s: storage of this kind does not grow",
				 e->name);
	return e->backend->resize(e, err);
}

/* ---- start and stop ---- */

/* A thread that does not end keeps ublkcN: the device goes when the process does. */
static void abandon_device(struct standalone *d)
{
	struct error err;

	/* It may not even begin before the process ends: no use to wait for it. */
	d->control->hurry = 1;
	if (control_delete_async(d->control, d->info.dev_id, &err))
		log_error(d->serving.export.name, "device %u is left behind: %s", d->info.dev_id,
			  err.text);
}

static int prepare(struct standalone *d, const struct spec *spec, struct control *control,
		   struct error *err)
{
	const struct option_value *v = spec->values;
	struct export export;
	int ret;

	*d = (struct standalone){
		.state = EXPORT_DECLARED,
		.control = control,
		.counters_fd = -1,
		.char_fd = -1,
		.max_io = (uint32_t)v[SPEC_MAX_IO].number,
	};
	spec_to_export(spec, &export);
	d->serving.export = export; /* its name is for messages even where it is never opened */
	d->partitions =
		v[SPEC_PARTITIONS].set ? !v[SPEC_PARTITIONS].word : spec->backend->partitions;
	if (v[SPEC_CPUS].set)
		cpus_parse(v[SPEC_CPUS].text, &d->cpus, err);
	ret = control_get_features(control, &d->features, err);
	if (ret)
		return ret;
	d->scan_by_privilege = !d->partitions && !(d->features & UBLK_FEAT_NO_PART_SCAN);
	ret = io_path_choose((enum io_path)v[SPEC_IO_PATH].word, spec->backend->access, d->features,
			     &d->path, &d->path_reason, err);
	if (ret)
		return ret;
	d->counters = counters_create(export.nr_queues, spec->backend->gauges, &d->counters_fd);
	if (!d->counters)
		return error_set(err, errno, "memory for counters: %s", strerror(errno));
	return 0;
}

int standalone_start(struct standalone *d, const struct spec *spec, const struct backend_host *host,
		     struct control *control, struct error *err)
{
	const struct option_value *id = &spec->values[SPEC_ID];
	struct error later;
	int ret;

	ret = prepare(d, spec, control, err);
	if (ret)
		return ret;
	device_move(d, EXPORT_OPENING);
	ret = serving_open(&d->serving,
			   &(struct serving_of){
				   .spec = spec,
				   .shape.nr_queues = counters_nr_queues(d->counters),
				   .host = host,
				   .counters = d->counters,
			   },
			   err);
	if (ret)
		goto forget;
	ret = add_device(d, id->set ? (uint32_t)id->number : UBLK_ID_AUTO, err);
	if (ret)
		goto close_serving;
	ret = set_params(d, err);
	if (ret)
		goto remove;
	device_move(d, EXPORT_ADDED);

	ret = open_char(d, err);
	if (ret)
		goto remove;
	ret = start_queues(d, err);
	if (ret)
		goto stop_queues;
	device_move(d, EXPORT_STARTING);
	ret = control_start(control, d->info.dev_id, getpid(), err);
	if (ret)
		goto stop_queues;
	device_move(d, EXPORT_LIVE);
	d->serving.export.served = true;
	tune_block_device(d);
	return 0;

stop_queues:
	serving_quit(&d->serving);
	switch (serving_join(&d->serving, &later)) {
	case 0:
		break;
	case -ETIMEDOUT:
		log_error(d->serving.export.name, "%s", later.text);
		abandon_device(d);
		device_move(d, EXPORT_FAILED);
		return ret;
	default:
		/* Why a queue ended is why START_DEV waited in vain. */
		*err = later;
		ret = -err->code;
	}
remove:
	if (delete_device(d, d->state != EXPORT_STARTING, &later))
		log_error(d->serving.export.name, "device %u is left behind: %s", d->info.dev_id,
			  later.text);
close_serving:
	serving_close(&d->serving);
forget:
	device_move(d, EXPORT_FAILED);
	standalone_forget(d);
	return ret;
}

static uint64_t requests_done(void *context)
{
	return serving_done(context);
}

/*
 * STOP_DEV waits for all requests, so it is only for a device whose queues all
 * serve.  Returns false where requests in service are to be given up instead: the
 * kernel fails them once ublkcN is closed.
 */
static bool stop_in_order(struct standalone *d, struct error *fault)
{
	int ret;

	if (d->control->hurry || serving_has_failed(&d->serving))
		return false;
	d->control->progress = requests_done;
	d->control->progress_context = &d->serving;
	ret = control_stop(d->control, d->info.dev_id, fault);
	d->control->progress = NULL;
	if (!ret)
		return true;
	/* Told to hurry meanwhile, or gone already: neither is a fault of the device's. */
	if (d->control->hurry || fault->code == ENODEV)
		fault->code = 0;
	return false;
}

int standalone_stop(struct standalone *d, struct error *err)
{
	struct error fault = { 0 }, step;
	bool in_order;
	int ret;

	device_move(d, EXPORT_STOPPING);
	in_order = stop_in_order(d, &fault);
	if (!in_order)
		serving_quit(&d->serving);
	ret = serving_join(&d->serving, &step);
	if (ret)
		fault = step;
	if (d->serving.stuck) {
		abandon_device(d);
	} else {
		if (delete_device(d, in_order, &step) && !fault.code)
			fault = step;
		serving_close(&d->serving);
	}
	device_move(d, fault.code ? EXPORT_FAILED : EXPORT_GONE);
	if (!fault.code)
		return 0;
	*err = fault;
	return -fault.code;
}

void standalone_forget(struct standalone *d)
{
	if (d->serving.stuck)
		return;
	counters_destroy(d->counters);
	close(d->counters_fd);
}
