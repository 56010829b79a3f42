/* SPDX-License-Identifier: MIT */
/*
 * Changes of size: a device adopts the size of its storage, and a file gets another size.
 *
 * Growing goes bottom up (storage, worker, kernel) and shrinking top down, so that the kernel never
 * sends a request beyond the end of the storage. The backend reports a new size by an event, which
 * the flow waits for. Kernels before 6.16 cannot resize a live device.
 *
 * Read flow_resize() first, then make_smaller().
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"

#include "supervisor/export.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define GROW_MS  10000u /* for a backend to report a size that was set */
#define CHECK_MS 500u   /* for a backend to report a size that may not have changed */

static int set_device_size(struct export *export, uint64_t size, struct error *err)
{
	char now[24], then[24];
	int ret = device_set_size(&export->device, size, err);

	if (ret)
		return error_prefix(err, "%s", export->name);
	log_info(export->name, "resized from %s to %s",
		 size_format(export->storage.limits.size, then, sizeof(then)),
		 size_format(size, now, sizeof(now)));
	export->storage.limits.size = size;
	export_changed(export);
	flow_record(export);
	return 0;
}

static int needs_kernel(struct export *export, struct error *err)
{
	flow_begin(export);
	if (device_can_resize(&export->device))
		return 0;
	return error_set(err, EOPNOTSUPP,
			 "%s: this kernel cannot resize a live device (Linux 6.16 or later is "
			 "required): remove the export and create it again",
			 export->name);
}

int flow_grow(struct export *export, uint64_t size, struct error *err)
{
	int ret = needs_kernel(export, err);

	size -= size % export->storage.limits.logical_block;
	if (!ret && size > export->storage.limits.size)
		ret = set_device_size(export, size, err);
	return ret;
}

static int send_size(struct export *export, const char *verb, uint64_t size, uint64_t *is,
		     struct error *err)
{
	json_t *request = worker_request(verb), *reply;
	int ret;

	json_object_set_new(request, "size", json_integer((json_int_t)size));
	ret = worker_call(export->worker.handle, request, NULL, 0, FLOW_WORKER_MS, &reply, NULL,
			  err);
	if (ret)
		return ret;
	*is = (uint64_t)json_integer_value(json_object_get(reply, "size"));
	json_decref(reply);
	return 0;
}

/* -ENOSYS: a worker of an earlier version, which refuses at "resize" if it must. */
static int check_resizable(struct export *export, struct error *err)
{
	int ret = worker_call(export->worker.handle, worker_request("can-resize"), NULL, 0,
			      FLOW_WORKER_MS, NULL, NULL, err);

	return ret == -ENOSYS ? 0 : ret;
}

/*
 * Asks the worker first whether its storage can shrink, as the kernel's device must not change if
 * it cannot. Then the kernel shrinks, so that no request is for blocks that go away, then the
 * storage.
 */
static int make_smaller(struct export *export, uint64_t size, struct error *err)
{
	uint64_t before = export->storage.limits.size, is;
	struct error ignored;
	int ret = check_resizable(export, err);

	if (ret)
		return ret;
	ret = set_device_size(export, size, err);
	if (!ret)
		ret = send_size(export, "size", size, &is, err);
	if (!ret)
		ret = send_size(export, "resize", size, &is, err);
	if (ret && export->storage.limits.size != before) {
		/* The storage did not shrink: restore the worker's limit and the kernel's size. */
		send_size(export, "size", before, &is, &ignored);
		set_device_size(export, before, &ignored);
	}
	return ret;
}

/* True also if the users cannot be determined. */
static bool is_open(const struct export *export)
{
	struct holders holders;
	bool open = export_find_holders(export, &holders, EXPORT_HOLDERS_MS) || holders.nr;

	holders_close(&holders);
	return open;
}

int flow_resize(struct export *export, uint64_t size, bool shrink, struct error *err)
{
	uint64_t end = clock_ms() + GROW_MS, is;
	char asked[24], now[24];
	int ret = needs_kernel(export, err);

	if (ret)
		return ret;
	if (size % export->storage.limits.logical_block)
		return error_set(err, EINVAL,
				 "%s: the size must be a multiple of the block size, %" PRIu32,
				 export->name, export->storage.limits.logical_block);
	if (size && size < export->storage.limits.size && is_open(export))
		return error_set(err, EBUSY,
				 "%s is in use: it can only be shrunk while its device is not open",
				 export->name);
	if (size && size < export->storage.limits.size && !shrink)
		return error_set(
			err, EINVAL,
			"%s has %s, and data beyond %s would be lost: use force to shrink it",
			export->name, size_format(export->storage.limits.size, now, sizeof(now)),
			size_format(size, asked, sizeof(asked)));
	if (size && size < export->storage.limits.size)
		return make_smaller(export, size, err);
	ret = send_size(export, "resize", size, &is, err);
	if (ret)
		return ret;
	/* worker_grown() sets grown_to: at once for a file, after the server's answer for NBD. */
	while (export->storage.grown_to < size && size > export->storage.limits.size &&
	       clock_ms() < end)
		fiber_wait(&export->changed, 100);
	end = clock_ms() + CHECK_MS;
	while (!size && !export->storage.grown_to && clock_ms() < end)
		fiber_wait(&export->changed, 100);
	size = export->storage.grown_to;
	export->storage.grown_to = 0;
	return size ? flow_grow(export, size, err) : 0;
}
