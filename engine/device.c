/* SPDX-License-Identifier: MIT */
/*
 * The order of the commands is in device.h.  What is said here once, and was learnt by
 * kernels that crash, hang or forget:
 *
 *   - the driver clears flags that it does not know, so each grant is checked;
 *   - parameters that it does not keep are found by reading them back;
 *   - a dead server is noticed late before Linux 6.16 (device_tune());
 *   - UPDATE_SIZE of a stopped device crashes 6.16 and 6.17 (device_set_size());
 *   - an id is reused as soon as its last user has let go (device_find(), device_delete()).
 */
#include "engine/device.h"
#include "common/error.h"
#include "common/log.h"
#include "common/nodes.h"
#include "engine/params.h"
#include "engine/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OPEN_POLL_MS 10u

/* ---- before it is there ---- */

int device_plan(struct device *d, const struct spec *spec, struct error *err)
{
	const struct option_value *v = spec->values;

	d->max_io = (uint32_t)v[SPEC_MAX_IO].number;
	d->partitions =
		v[SPEC_PARTITIONS].set ? !v[SPEC_PARTITIONS].word : spec->backend->partitions;
	if (d->outlives_server && !(d->features & UBLK_FEAT_RECOVERY))
		return error_set(
			err, EOPNOTSUPP,
			"this kernel's ublk driver lacks user recovery (UBLK_F_USER_RECOVERY): "
			"Linux 6.5 or later is needed ('ublkctl run' works without)");
	return io_path_choose((enum io_path)v[SPEC_IO_PATH].word, spec->backend->access,
			      d->features, &d->path, &d->path_reason, err);
}

bool device_scans_by_privilege(const struct device *d)
{
	return !d->outlives_server && !d->partitions && !(d->features & UBLK_FEAT_NO_PART_SCAN);
}

static uint64_t wanted_flags(const struct device *d)
{
	uint64_t flags = UBLK_FEAT_IOCTL_ENCODE | io_path_features(d->path);

	if (d->outlives_server)
		flags |= UBLK_FEAT_RECOVERY | UBLK_FEAT_RECOVERY_REISSUE;
	/* A worker without privilege gets no scan anyway; ublkd adds partitions later. */
	if (d->outlives_server || !d->partitions)
		flags |= d->features & UBLK_FEAT_NO_PART_SCAN;
	return flags;
}

int device_add(struct device *d, uint32_t id, unsigned nr_queues, unsigned depth, struct error *err)
{
	uint64_t wanted = wanted_flags(d), lacks;
	int ret;

	d->info = (struct ublk_dev_info){
		.dev_id = id,
		.nr_hw_queues = (uint16_t)nr_queues,
		.queue_depth = (uint16_t)depth,
		.max_io_buf_bytes = d->max_io,
		.flags = wanted,
		.server_flags = d->cookie,
	};
	ret = control_add(d->control, &d->info, err);
	if (ret)
		return ret;
	/* The driver clears what it does not know; ENCODE is older than its being said. */
	lacks = wanted & ~d->info.flags & ~UBLK_FEAT_IOCTL_ENCODE;
	if (lacks) {
		control_delete(d->control, d->info.dev_id, err);
		return error_set(err, EOPNOTSUPP,
				 "the kernel did not grant the features of I/O path %s (it lacks "
				 "%#" PRIx64 "): choose another io-path",
				 io_path_name(d->path), lacks);
	}
	if (d->info.nr_hw_queues < nr_queues)
		log_warning(d->name,
			    "the device has %u queues, not %u: one for each CPU is the most",
			    d->info.nr_hw_queues, nr_queues);
	d->exists = true;
	return 0;
}

int device_set_params(struct device *d, const struct backend_limits *limits, struct error *err)
{
	struct ublk_dev_params asked, kept;
	int ret;

	params_make(limits, d->max_io, d->path == IO_PATH_ZERO_COPY, &asked);
	ret = control_set_params(d->control, d->info.dev_id, &asked, err);
	if (!ret)
		ret = control_get_params(d->control, d->info.dev_id, &kept, err);
	return ret ? ret : params_check_kept(&asked, &kept, err);
}

/* ---- for its server ---- */

const char *device_path(const struct device *d, char *out, size_t size)
{
	out[0] = 0;
	if (d->exists)
		snprintf(out, size, UBLK_BLOCK_PREFIX "%u", d->info.dev_id);
	return out;
}

int device_open_char(const struct device *d, unsigned ms, struct error *err)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), UBLK_CHAR_PREFIX "%u", d->info.dev_id);
	for (unsigned waited = 0;; waited += OPEN_POLL_MS) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		/* The dead server's are let go of a little later; a udev may be late. */
		if ((errno != EBUSY && errno != ENOENT) || waited >= ms)
			break;
		control_pause(d->control, OPEN_POLL_MS);
	}
	if (errno == ENOENT)
		return error_set(err, ENOENT, "%s did not appear: is devtmpfs mounted on /dev?",
				 path);
	return error_set(err, errno, "%s: %s", path, strerror(errno));
}

void device_queue_cpus(const struct device *d, unsigned queue, struct cpus *cpus)
{
	struct error err;

	*cpus = (struct cpus){ 0 };
	if (control_get_affinity(d->control, d->info.dev_id, queue, cpus, sizeof(*cpus), &err)) {
		log_debug(d->name, "queue %u is not pinned: %s", queue, err.text);
		*cpus = (struct cpus){ 0 };
		return;
	}
	nodes_widen(cpus, NODES_DIRECTORY);
}

/* ---- while it is live ---- */

static void tune(const struct device *d, const char *attribute, const char *value)
{
	char path[96];
	int ret;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/%s", d->info.dev_id, attribute);
	ret = control_write_attribute(d->control, path, value);
	if (ret)
		log_debug(d->name, "%s: cannot set it to %s: %s", path, value, strerror(-ret));
}

void device_tune(const struct device *d)
{
	/*
	 * Until 6.16, which QUIESCE came with, a dead server is noticed only when a request
	 * times out (30 s). First, since the next one may wait for storage that does not
	 * answer.
	 */
	if (!(d->features & UBLK_FEAT_QUIESCE))
		tune(d, "io_timeout", "1000");
	/* A device of one queue gets mq-deadline, which only adds work here. */
	tune(d, "scheduler", "none");
}

int device_find(struct device *d, struct error *err)
{
	struct ublk_dev_info info;
	int ret = control_get_info(d->control, d->info.dev_id, &info, err);
	bool ours;

	if (ret)
		return ret;
	/* Without a cookie it has never been made; others' devices have none either. */
	if (d->outlives_server)
		ours = d->cookie && info.server_flags == d->cookie;
	else
		ours = info.server_pid <= 0 || info.server_pid == getpid();
	if (!ours)
		return error_set(err, ENODEV, "device %u no longer belongs to this export",
				 d->info.dev_id);
	d->info = info;
	return 0;
}

bool device_can_resize(const struct device *d)
{
	return d->features & UBLK_FEAT_UPDATE_SIZE;
}

int device_set_size(struct device *d, uint64_t size, struct error *err)
{
	int ret = device_find(d, err);

	/* Of a device that another program has stopped 6.16 and 6.17 crash over it. */
	if (!ret && d->info.state == UBLK_DEV_DEAD)
		ret = error_set(err, ENODEV, "the device was stopped by another program");
	return ret ? ret
		   : control_update_size(d->control, d->info.dev_id, size >> UBLK_SECTOR_SHIFT,
					 err);
}

/* ---- its end ---- */

int device_stop(struct device *d, uint64_t (*done)(void *context), void *context, struct error *err)
{
	int ret;

	d->control->progress = done;
	d->control->progress_context = context;
	ret = control_stop(d->control, d->info.dev_id, err);
	d->control->progress = NULL;
	return ret;
}

int device_delete(struct device *d, int char_fd, bool idle, bool wait, struct error *err)
{
	int ret = -EOPNOTSUPP;

	if (char_fd >= 0) {
		if (idle)
			ret = control_delete_async(d->control, d->info.dev_id, err);
		close(char_fd);
	}
	if (ret == -EOPNOTSUPP) { /* not idle, or before 6.9 */
		ret = device_find(d, err);
		if (!ret) {
			ret = wait ? -EOPNOTSUPP
				   : control_delete_async(d->control, d->info.dev_id, err);
			if (ret == -EOPNOTSUPP)
				ret = control_delete(d->control, d->info.dev_id, err);
		}
	}
	/* Already removed by another program: not an error. */
	if (ret && ret != -ENODEV)
		return ret;
	d->exists = false;
	return 0;
}
