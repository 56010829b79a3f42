/* SPDX-License-Identifier: MIT */
/*
 * The end of an export: what is dirty is written, the device stops while its server
 * still serves (the last writes come through it), then both go.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/holders.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/managed.h"
#include "supervisor/worker_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_MS      60000u
#define HOLDERS_MS    30000u /* it is refused then: with thousands of processes it takes long */
#define FORCED_MS     5000u
#define CLAIM_MS      30000u /* of hundreds that are removed at once each waits for its turn */
#define FENCE_MS      5000u  /* for a server to end the last connections */
#define FENCE_POLL_MS 5u
#define BRIEF_MS      1000u /* for who opens it for a moment, as what probes new devices */
#define BRIEF_POLL_MS 50u

static uint64_t requests_done(void *context)
{
	const struct managed *m = context;

	return m->counters ? counters_completed(m->counters) : 0;
}

static int look_for_holders(struct managed *m, bool *brief, struct error *err)
{
	struct holders holders;
	int ret = managed_holders(m, &holders, HOLDERS_MS);

	if (ret)
		ret = error_set(
			err, ret,
			"%s: who uses it cannot be told: %s: end its users, and give --force",
			m->name, blocking_reason(ret));
	else if (holders.nr)
		ret = error_set(err, EBUSY,
				"%s is in use: end that first, or give --wait or --force", m->name);
	*brief = holders_are_processes(&holders);
	holders_close(&holders);
	return ret;
}

/* How the users of a device are kept away while it is stopped.  Owner: flow_stop(). */
struct claim {
	struct managed *m;
	int fd; /* of the block device; -1: it is not claimed */
};

static void release(struct claim *claim)
{
	if (claim->fd >= 0)
		blocking_close((struct blocking_for){ claim->m->name, BLOCKING_DEVICE }, claim->fd,
			       CLAIM_MS);
	claim->fd = -1;
}

/*
 * Opens the device as a mount does (O_EXCL): from then on nothing can mount it, and what
 * is mounted or held by another device is refused here.  -EBUSY: it is in use; 0 also
 * where it has no disk.
 */
static int take(struct claim *claim, struct error *err)
{
	struct managed *m = claim->m;
	char device[32];
	int fd;

	if (claim->fd >= 0)
		return 0;
	device_path(&m->device, device, sizeof(device));
	fd = blocking_open((struct blocking_for){ m->name, BLOCKING_DEVICE }, device,
			   O_RDONLY | O_EXCL, 0, CLAIM_MS);
	if (fd >= 0)
		claim->fd = fd;
	if (fd >= 0 || fd == -ENOENT || fd == -ENXIO)
		return 0;
	if (fd == -EBUSY)
		return error_set(err, EBUSY,
				 "%s is in use: who holds it is not to be seen: give --wait or "
				 "--force",
				 m->name);
	return error_set(err, fd, "%s: %s: give --force to remove it all the same", device,
			 blocking_reason(fd));
}

/* Claims the device and refuses with -EBUSY where it is open; brief: for a moment, maybe. */
static int claim_unused(struct claim *claim, bool *brief, struct error *err)
{
	struct error held;
	int ret = look_for_holders(claim->m, brief, err);

	if (ret)
		return ret;
	ret = take(claim, err);
	/* Holders that came before the claim are seen now. */
	if (!ret)
		return look_for_holders(claim->m, brief, err);
	*brief = true;
	if (ret == -EBUSY && look_for_holders(claim->m, brief, &held) == -EBUSY)
		*err = held;
	return ret;
}

static int refuse_if_held(struct claim *claim, struct error *err)
{
	uint64_t end = clock_ms() + BRIEF_MS;
	bool brief;
	int ret;

	while ((ret = claim_unused(claim, &brief, err)) == -EBUSY && brief && clock_ms() < end)
		fiber_sleep(BRIEF_POLL_MS);
	return ret;
}

/*
 * The driver refuses a device that is open (Linux 7.0), the claim included.  -EBUSY: it is
 * open, or was opened again all the time.
 */
static int stop_unless_open(struct claim *claim, struct error *err)
{
	struct managed *m = claim->m;
	uint64_t end = clock_ms() + BRIEF_MS;
	int ret;

	release(claim);
	while ((ret = control_try_stop(&m->control, m->device.info.dev_id, err)) == -EBUSY) {
		if (refuse_if_held(claim, err)) {
			err->code = EBUSY;
			return -EBUSY;
		}
		if (clock_ms() > end)
			return error_set(err, EBUSY,
					 "%s is in use: who has it open is not to be seen: "
					 "give --wait or --force",
					 m->name);
		release(claim);
		fiber_sleep(BRIEF_POLL_MS);
	}
	return ret;
}

/* Writes that applications have not flushed go out now, while there is time. */
static int flush(const struct claim *claim, struct error *err)
{
	struct managed *m = claim->m;
	int ret;

	if (claim->fd < 0)
		return 0;
	ret = blocking_fsync((struct blocking_for){ m->name, BLOCKING_DEVICE }, claim->fd,
			     FLUSH_MS);
	return ret ? error_set(err, ret,
			       "%s: what was written cannot be flushed: %s: give --force "
			       "to remove it all the same",
			       m->name, blocking_reason(ret))
		   : 0;
}

/* The kernel's side, while the worker serves.  -EBUSY: it is open. */
static int stop_device(struct claim *claim, struct error *err)
{
	struct managed *m = claim->m;
	int ret;

	if (!m->force && control_async_features() & UBLK_FEAT_SAFE_STOP) {
		ret = stop_unless_open(claim, err);
		if (ret == -EBUSY)
			return ret;
		if (!ret || ret == -ENODEV)
			return 0;
	}
	if (m->force)
		m->control.deadline_ms = FORCED_MS;
	ret = device_stop(&m->device, requests_done, m, err);
	m->control.deadline_ms = CONTROL_DEADLINE_MS;
	return ret == -ENODEV ? 0 : ret;
}

static int delete_device(struct managed *m, struct error *err)
{
	struct error ignored;
	char device[32];
	int ret;

	device_path(&m->device, device, sizeof(device));
	/* By force it goes now, and the rest of it when its user lets go. */
	ret = device_delete(&m->device, -1, true, !m->force, err);
	if (ret)
		return ret;
	name_unlink(m->name, device, &ignored);
	name_forget(NAME_RECORDS, device, &ignored);
	return 0;
}

/* Nobody serves the device again, so this is only not to surprise who exports the storage next. */
static void end_fence(struct managed *m)
{
	uint64_t end = clock_ms() + FENCE_MS;

	while (fence_check(&m->fence, m->name, 0, NULL) && clock_ms() < end)
		fiber_sleep(FENCE_POLL_MS);
	if (m->fence.nr)
		log_warning(
			m->name,
			"the server has not ended %u connections: it may still carry out writes "
			"that were sent on them, over newer ones of another client",
			m->fence.nr);
	fence_close(&m->fence);
	m->fence_told = m->unfenced = false;
}

static int stop_and_delete(struct claim *claim, struct error *err)
{
	struct managed *m = claim->m;
	struct error ignored;
	int ret;

	if (m->worker && !worker_has_ended(m->worker)) {
		ret = stop_device(claim, err);
		if (ret == -EBUSY || (ret && !m->force))
			return ret;
		/* The worker sees its queues stop, and ends; force gives up on a hang. */
		ret = flow_end_worker(m, m->force ? FORCED_MS : FLOW_WORKER_MS, err);
	} else {
		ret = flow_end_worker(m, 0, err);
	}
	if (ret && !m->force)
		return ret;
	end_fence(m);
	if (!m->device.exists)
		return 0;
	/* Without a server requests that wait are failed by this. */
	control_stop(&m->control, m->device.info.dev_id, &ignored);
	release(claim);
	return delete_device(m, err);
}

int flow_stop(struct managed *m, struct error *err)
{
	struct claim claim = { .m = m, .fd = -1 };
	bool live = m->state == EXPORT_LIVE;
	struct error ignored;
	int ret = 0;

	flow_begin(m);
	/* Without a server, too: what its users wait for would be lost. */
	if (m->device.exists && !m->force)
		ret = refuse_if_held(&claim, err);
	if (!ret && live && !m->force)
		ret = flush(&claim, err);
	if (ret) {
		release(&claim);
		return ret;
	}
	if (m->state != EXPORT_DECLARED && m->state != EXPORT_FAILED)
		managed_move(m, EXPORT_STOPPING, NULL);
	managed_write(m, &ignored);
	if (m->device.exists || m->worker)
		ret = stop_and_delete(&claim, err);
	release(&claim);
	if (ret == -EBUSY && live) {
		managed_move(m, EXPORT_LIVE, err->text);
		managed_write(m, &ignored);
		return ret;
	}
	if (ret) {
		if (m->state != EXPORT_FAILED)
			managed_move(m, EXPORT_FAILED, err->text);
		return ret;
	}
	flow_drop_counters(m);
	flow_drop_memory(m);
	worker_socket_remove(m->name);
	managed_move(m, EXPORT_GONE, NULL);
	managed_unwrite(m);
	return 0;
}
