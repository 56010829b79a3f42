/* SPDX-License-Identifier: MIT */
/*
 * A device that follows its storage, and storage that is made to another size.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"

#include "supervisor/managed.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define GROW_MS 10000u /* for a backend to find out how big it is */

static int set_device_size(struct managed *m, uint64_t size, struct error *err)
{
	char now[24], then[24];
	int ret = device_set_size(&m->device, size, err);

	if (ret)
		return error_prefix(err, "%s", m->name);
	log_info(m->name, "its size is %s now, it was %s", size_format(size, now, sizeof(now)),
		 size_format(m->limits.size, then, sizeof(then)));
	m->limits.size = size;
	managed_changed(m);
	flow_record(m);
	return 0;
}

static int needs_kernel(struct managed *m, struct error *err)
{
	flow_begin(m);
	if (device_can_resize(&m->device))
		return 0;
	return error_set(err, EOPNOTSUPP,
			 "%s: this kernel cannot resize a live device (Linux 6.16 can): remove it "
			 "and make it anew",
			 m->name);
}

int flow_grow(struct managed *m, uint64_t size, struct error *err)
{
	int ret = needs_kernel(m, err);

	size -= size % m->limits.logical_block;
	return ret || size <= m->limits.size ? ret : set_device_size(m, size, err);
}

static int tell_worker(struct managed *m, const char *verb, uint64_t size, uint64_t *is,
		       struct error *err)
{
	json_t *request = worker_request(verb), *reply;
	int ret;

	json_object_set_new(request, "size", json_integer((json_int_t)size));
	ret = worker_call(m->worker, request, NULL, 0, FLOW_WORKER_MS, &reply, NULL, err);
	if (ret)
		return ret;
	*is = (uint64_t)json_integer_value(json_object_get(reply, "size"));
	json_decref(reply);
	return 0;
}

/* The kernel first, so that nothing is asked for that goes away. */
static int make_smaller(struct managed *m, uint64_t size, struct error *err)
{
	uint64_t before = m->limits.size, is;
	struct error ignored;
	int ret = set_device_size(m, size, err);

	if (!ret)
		ret = tell_worker(m, "size", size, &is, err);
	if (!ret)
		ret = tell_worker(m, "resize", size, &is, err);
	if (ret && m->limits.size != before) {
		/* The storage is what it was. */
		tell_worker(m, "size", before, &is, &ignored);
		set_device_size(m, before, &ignored);
	}
	return ret;
}

int flow_resize(struct managed *m, uint64_t size, bool shrink, struct error *err)
{
	uint64_t end = clock_ms() + GROW_MS, is;
	char asked[24], now[24];
	int ret = needs_kernel(m, err);

	if (ret)
		return ret;
	if (size % m->limits.logical_block)
		return error_set(err, EINVAL,
				 "%s: a size is a multiple of the block size, %" PRIu32, m->name,
				 m->limits.logical_block);
	if (size && size < m->limits.size && !shrink)
		return error_set(err, EINVAL,
				 "%s: it has %s, and what is beyond %s would be lost: give --force "
				 "to make it smaller",
				 m->name, size_format(m->limits.size, now, sizeof(now)),
				 size_format(size, asked, sizeof(asked)));
	if (size && size < m->limits.size)
		return make_smaller(m, size, err);
	ret = tell_worker(m, "resize", size, &is, err);
	if (ret)
		return ret;
	/* The backend reports the size by an event, at once or once its server has answered. */
	while (m->grow_to < size && size > m->limits.size && clock_ms() < end)
		fiber_wait(&m->moved, 100);
	if (!m->grow_to && !size)
		fiber_wait(&m->moved, 500);
	size = m->grow_to;
	m->grow_to = 0;
	return size ? flow_grow(m, size, err) : 0;
}
