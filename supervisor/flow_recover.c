/* SPDX-License-Identifier: MIT */
/*
 * A new worker under a device that lives: after the old one's death, or after it has handed over.
 *
 * replace() is the sequence: the old worker ends, the new one opens the storage, is checked to
 * have the same (check_same()), old connections are over (check_fence()), and only then the
 * kernel is told (take_over()). Until that point nothing has changed for the device, whose I/O
 * waits in the kernel.
 *
 * Storage is the same by its identity and by limits that still fit; another disk with the same
 * path is refused, as a file system on it would be destroyed.
 *
 * Kernels before 6.16 need the waits of wait_for_last_cancel(), which says why.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/export.h"
#include "supervisor/record.h"
#include "supervisor/worker_socket.h"
#include "worker/conditions.h"
#include "worker/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS         10u
#define RELEASE_MS      5000u /* for the kernel to let go of a suspended worker's files */
#define SETTLE_MS       5000u
#define SETTLE_BLIND_MS 200u /* where the kernel does not let us wait for it */

/* After how long waiting is worth a word; a server mostly ends a connection at once. */
#define FENCE_TELL_MS 1000u

/* Whether old connections are left; what of: err. */
static int check_fence(struct export *export, bool silent_too, struct error *err)
{
	unsigned there, nr = fence_check(&export->worker.fence, export->name,
					 export->storage.opened_ms, &there);

	if (!(silent_too ? nr : there))
		return 0;
	error_set(err, EINPROGRESS,
		  "the server has not closed %u connections of the previous worker, and may still "
		  "carry out writes that were sent on them: restart the server if it never closes "
		  "them, or create the export with the option ghost-wait",
		  nr);
	if (!export->worker.fence_recorded &&
	    clock_ms() - export->worker.fence.since_ms >= FENCE_TELL_MS) {
		export->worker.fence_recorded = true;
		flow_record(export);
	}
	return -EINPROGRESS;
}

int flow_fence(struct export *export, struct error *err)
{
	/* A worker that holds the memory for the next one has no connection. */
	int ret = export->worker.holding ? 0 : flow_end_worker(export, 0, err);

	if (ret)
		return ret;
	if (export->worker.unfenced)
		return error_set(
			err, EINPROGRESS,
			"when ublkd stopped, the server had not closed the connections of a "
			"dead worker, and may still carry out writes that were sent on "
			"them: restart the server, then resume %s",
			export->name);
	/* Whether a silent server is reached, only opening the storage tells. */
	return check_fence(export, false, err);
}

static const char *why_other(const struct export *export, const char *identity)
{
	if (!*export->storage.identity)
		return NULL;
	if (export->spec.backend->differs)
		return export->spec.backend->differs(export->storage.identity, identity);
	return strcmp(export->storage.identity, identity) ? "its identity differs" : NULL;
}

/* Whether the storage is the device's; it is known by this identity from then on. */
static int check_same(struct export *export, const struct backend_limits *now, const char *identity,
		      struct error *err)
{
	const char *other = why_other(export, identity);
	int ret;

	if (other && !export->wanted.accept_storage)
		return error_set(err, ESTALE,
				 "the storage is not what the device was created for: %s: restore "
				 "the right storage, or, to accept this storage, resume %s with "
				 "accept-storage",
				 other, export->name);
	ret = limits_fit(&export->storage.limits, now, err);
	if (ret)
		return ret;
	if (other)
		log_warning(export->name, "accepting other storage, as requested: %s (%s, not %s)",
			    other, identity, export->storage.identity);
	snprintf(export->storage.identity, sizeof(export->storage.identity), "%s", identity);
	return 0;
}

static int find_living(struct export *export, struct error *err)
{
	int ret = device_find(&export->device, err);

	if (!ret && export->device.info.state == UBLK_DEV_DEAD)
		ret = error_set(err, ENODEV, "the device was stopped by another program");
	return ret;
}

/*
 * Until 6.16 the driver cancels a dead server's commands once more after it has said that
 * the device is quiesced (ublk_quiesce_work_fn() in drivers/block/ublk_drv.c of 6.12). A
 * recovery that had begun by then was an oops, or the end of the new server's commands,
 * and the device had no server for ever.  That work was queued before the last of the
 * server's references went: once it is gone, what is queued is waited for.
 */
static int wait_for_last_cancel(struct export *export)
{
	struct blocking_for who = { export->name, BLOCKING_DEVICE };
	char path[32];
	int fd;

	if (control_async_features() & UBLK_FEAT_QUIESCE)
		return 0;
	snprintf(path, sizeof(path), UBLK_CHAR_PREFIX "%u", export->device.info.dev_id);
	fd = blocking_open(who, path, O_RDWR, 0, SETTLE_MS);
	if (fd < 0)
		return fd == -EBUSY ? fd : 0; /* START_USER_RECOVERY tells */
	if (blocking_settle(who, SETTLE_MS))
		fiber_sleep(SETTLE_BLIND_MS);
	blocking_close(who, fd, SETTLE_MS);
	return 0;
}

/* The kernel lets go of a dead server when the last of its references is gone. */
static int begin_recovery(struct export *export, struct error *err)
{
	uint64_t end = clock_ms() + FLOW_RELEASE_MS;
	bool last;
	int ret;

	for (;;) {
		last = clock_ms() > end;
		ret = find_living(export, err);
		if (ret)
			return ret;
		ret = wait_for_last_cancel(export);
		if (!ret || last)
			ret = control_start_recovery(&export->control, export->device.info.dev_id,
						     err);
		/* Begun before, by a server that died over it: all is as it should be. */
		if (ret == -EINVAL && export->device.info.state == UBLK_DEV_QUIESCED)
			return 0;
		if (ret != -EBUSY || last)
			return ret;
		fiber_sleep(POLL_MS);
	}
}

static int open_again(struct export *export, struct error *err)
{
	struct backend_limits now;
	unsigned nr_queues, depth;
	char identity[IDENTITY_BYTES];
	int ret = flow_open(export, &now, identity, &nr_queues, &depth, err);

	if (!ret)
		ret = check_same(export, &now, identity, err);
	if (!ret && nr_queues < export->device.info.nr_hw_queues)
		ret = error_set(
			err, ESTALE,
			"the storage now supports at most %u queues, and the device has %u: remove "
			"the export and create it again",
			nr_queues, export->device.info.nr_hw_queues);
	if (!ret && now.size > export->storage.limits.size)
		export->storage.grown_to = now.size;
	return ret;
}

static int take_over(struct export *export, struct worker *held, struct error *err)
{
	int ret = begin_recovery(export, err);

	if (ret)
		return ret;
	ret = flow_publish(export, held, err);
	if (ret)
		return ret;
	ret = flow_serve(export, err);
	return ret ? ret : flow_unless_worker_dies(export, control_end_recovery, err);
}

/*
 * What is told by the result: -ENODEV is the kernel's word, and what a server says
 * of its storage (an address that does not answer, a disk that is away) is not its
 * own death.
 */
static int result_of(struct export *export, int ret, bool refused)
{
	struct error ignored;

	if (ret == -ENODEV && device_find(&export->device, &ignored) != -ENODEV &&
	    export->device.info.state != UBLK_DEV_DEAD)
		return -EIO;
	return refused && (ret == -EPIPE || ret == -ETIMEDOUT) ? -EIO : ret;
}

/*
 * All steps from the old worker's end to the new one that serves. held: the old worker, which
 * keeps the memory until the new one has it; NULL: it is to be ended.
 */
static int replace(struct export *export, struct worker *held, struct worker *ready,
		   struct error *err)
{
	int ret = held ? 0 : flow_end_worker(export, 0, err);

	export->worker.handle = ready;
	/* What the old worker reported was its own. */
	conditions_from_json(NULL, export->conditions);
	if (ret)
		return ret;
	ret = find_living(export, err);
	if (ret)
		return ret;
	export_check_lost(export);
	flow_record(export);
	if (!export->worker.handle) {
		ret = flow_prepare(export, true, &export->worker.handle, err);
		if (ret)
			return ret;
	}
	/* Lost with the last worker, if ublkd was not there to keep them. */
	if (!export->worker.counters) {
		ret = flow_create_counters(export, err);
		if (ret)
			return ret;
	}
	ret = open_again(export, err);
	if (ret)
		return ret;
	export->storage.opened_ms = clock_ms();
	ret = check_fence(export, true, err);
	if (ret)
		return ret;
	export->worker.fence_recorded = false;
	return take_over(export, held, err);
}

int flow_recover(struct export *export, struct worker *ready, struct error *err)
{
	struct worker *held = export->worker.holding ? export->worker.handle : NULL;
	struct error ignored;
	bool refused;
	int ret;

	flow_begin(export);
	export->storage.opened_ms = 0;
	ret = replace(export, held, ready, err);
	if (ret) {
		refused = export->worker.handle && worker_has_refused(export->worker.handle);
		flow_end_worker(export, 0, &ignored);
		ret = result_of(export, ret, refused);
	}
	if (ret && held && !worker_has_ended(held)) {
		export->worker.handle = held; /* for the next try */
		export->worker.holding = true;
		return ret;
	}
	export->worker.holding = false;
	if (!ret)
		flow_finish_start(export);
	if (held)
		worker_finish(held, 0);
	worker_forget(held);
	return ret;
}

/*
 * Until 6.16 the kernel lets go of a drained worker's files a moment after its process has
 * ended, ublkcN among them: a suspended export's storage could not be unmounted before.
 */
static void wait_for_release(struct export *export)
{
	uint64_t end = clock_ms() + RELEASE_MS;

	while (wait_for_last_cancel(export) == -EBUSY && clock_ms() < end)
		fiber_sleep(POLL_MS);
}

int flow_leave(struct export *export, bool suspend, struct error *err)
{
	/* The drain has to be on record: without room for that, the worker keeps running. */
	int ret = record_write(export, err);
	bool drained;

	if (ret)
		return ret;
	ret = flow_drain(export, err);
	/* Dead over it: there is nothing to hand over, and its requests come again. */
	if (ret && !worker_has_ended(export->worker.handle) && ret != -EPIPE)
		return ret;
	drained = !ret;
	ret = 0;
	if (!export->worker.holding || worker_has_ended(export->worker.handle)) {
		ret = flow_end_worker(export, FLOW_WORKER_MS, err);
		if (suspend) {
			worker_socket_remove(export->name);
			wait_for_release(export);
		}
	}
	/* The worker had nothing in flight, and no old connection either. */
	if (drained)
		fence_close(&export->worker.fence);
	/* Nobody else has it, once ublkd dies too. */
	export_check_lost(export);
	export_move(export, suspend ? EXPORT_SUSPENDED : EXPORT_RECOVERING,
		    suspend ? "suspend requested" : "upgrade requested");
	return ret;
}
