/* SPDX-License-Identifier: MIT */
/*
 * Recovery: a new worker for a live device, after the old worker died or drained.
 *
 * replace() has the sequence: end the old worker, have the new one open the storage, check that it
 * is the same storage (check_same()) and that old connections are over (check_fence()), and only
 * then start the recovery in the kernel (take_over()). A failure before that changes nothing for
 * the device, whose I/O waits in the kernel.
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

/* A wait this long goes on record; most servers close a connection at once. */
#define FENCE_RECORD_MS 1000u

/*
 * -EINPROGRESS with err filled if old connections are left. silent_too: count also those that the
 * server does not answer on, and may no longer have.
 */
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
	    clock_ms() - export->worker.fence.since_ms >= FENCE_RECORD_MS) {
		export->worker.fence_recorded = true;
		flow_record(export);
	}
	return -EINPROGRESS;
}

int flow_fence(struct export *export, struct error *err)
{
	/*
	 * A worker that holds the memory has no connection, and must live until its successor
	 * serves.
	 */
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
	/*
	 * Silent connections count later: only opening the storage shows whether the server is
	 * back.
	 */
	return check_fence(export, false, err);
}

static const char *storage_difference(const struct export *export, const char *identity)
{
	if (!*export->storage.identity)
		return NULL;
	if (export->spec.backend->differs)
		return export->spec.backend->differs(export->storage.identity, identity);
	return strcmp(export->storage.identity, identity) ? "its identity differs" : NULL;
}

/* Checks that the storage is the device's, and keeps the identity that it has now. */
static int check_same(struct export *export, const struct backend_limits *now, const char *identity,
		      struct error *err)
{
	const char *other = storage_difference(export, identity);
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
 * recovery that had begun by then caused an oops, or cancelled the new worker's commands, and the
 * device had no server for ever.  The driver queues that work before it drops the dead server's
 * last reference. So once ublkcN can be opened again, wait until the queued work is done.
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
		return fd == -EBUSY ? fd : 0; /* START_USER_RECOVERY reports other errors */
	if (blocking_settle(who, SETTLE_MS))
		fiber_sleep(SETTLE_BLIND_MS);
	blocking_close(who, fd, SETTLE_MS);
	return 0;
}

/* Retries while the kernel holds references of the dead worker (-EBUSY). */
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
		/* An earlier recovery began, and its worker died: the device is ready for END. */
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
 * Makes the result unambiguous for the reconciler: -ENODEV only if the kernel has lost the device,
 * and -EPIPE or -ETIMEDOUT only if the worker died or hung. The same errno from a worker about its
 * storage (a server that does not answer, a disk that is gone) becomes -EIO.
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
 * All steps from the end of the old worker until the new one serves. held: the old worker, which
 * holds the memory until the new one has it; NULL: the old worker is ended first.
 */
static int replace(struct export *export, struct worker *held, struct worker *ready,
		   struct error *err)
{
	int ret = held ? 0 : flow_end_worker(export, 0, err);

	export->worker.handle = ready;
	/* Conditions that the old worker reported say nothing about the new one. */
	conditions_from_json(NULL, export->conditions);
	if (ret)
		return ret;
	ret = find_living(export, err);
	if (ret)
		return ret;
	/* On record first: a flush that the old worker failed must fail in the new one, too. */
	export_check_lost(export);
	flow_record(export);
	if (!export->worker.handle) {
		ret = flow_prepare(export, true, &export->worker.handle, err);
		if (ret)
			return ret;
	}
	/* Lost if the worker died while no ublkd ran. */
	if (!export->worker.counters) {
		ret = flow_create_counters(export, err);
		if (ret)
			return ret;
	}
	ret = open_again(export, err);
	if (ret)
		return ret;
	/* The server has answered the new worker: from now on silence on an old one counts. */
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
		/* Before the worker is ended, which makes every failure look like a death. */
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
 * Until 6.16 the kernel releases a drained worker's files, ublkcN among them, a moment after its
 * process has exited. Suspend waits for that, so that the storage can be unmounted afterwards.
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
	/* If the worker died, continue: the kernel reissues its requests to the next worker. */
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
	/* A drained worker had nothing in flight, so that no connection of it can write later. */
	if (drained)
		fence_close(&export->worker.fence);
	/* Only the counters have a failed flush, and they are lost if ublkd dies, too. */
	export_check_lost(export);
	export_move(export, suspend ? EXPORT_SUSPENDED : EXPORT_RECOVERING,
		    suspend ? "suspend requested" : "upgrade requested");
	return ret;
}
