/* SPDX-License-Identifier: MIT */
/*
 * A new server under a device that lives: after the old one's death, or after it
 * has handed over.
 */
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/blocking.h"
#include "supervisor/control_async.h"
#include "supervisor/flow.h"
#include "supervisor/flow_parts.h"
#include "supervisor/managed.h"
#include "supervisor/worker_socket.h"
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
static int check_fence(struct managed *m, bool silent_too, struct error *err)
{
	unsigned there, nr = fence_check(&m->fence, m->name, m->reached_ms, &there);

	if (!(silent_too ? nr : there))
		return 0;
	error_set(err, EINPROGRESS,
		  "the server has not ended %u connections of the former worker, and may still "
		  "carry out writes that were sent on them: restart the server if it never does, "
		  "or export it with -o ghost-wait=TIME",
		  nr);
	if (!m->fence_told && clock_ms() - m->fence.since_ms >= FENCE_TELL_MS) {
		m->fence_told = true;
		flow_record(m);
	}
	return -EINPROGRESS;
}

int flow_fence(struct managed *m, struct error *err)
{
	/* A worker that holds the memory for the next one has no connection. */
	int ret = m->holding ? 0 : flow_end_worker(m, 0, err);

	if (ret)
		return ret;
	if (m->unfenced)
		return error_set(err, EINPROGRESS,
				 "the server had not ended connections of a dead worker when ublkd "
				 "ended: see that it has by now (restart it), then "
				 "'ublkctl resume %s'",
				 m->name);
	/* Whether a silent server is reached, only opening the storage tells. */
	return check_fence(m, false, err);
}

static const char *why_other(const struct managed *m, const char *identity)
{
	if (!*m->identity)
		return NULL;
	if (m->spec.backend->differs)
		return m->spec.backend->differs(m->identity, identity);
	return strcmp(m->identity, identity) ? "it is another one" : NULL;
}

/* Whether the storage is the device's; it is known by this identity from then on. */
static int check_same(struct managed *m, const struct backend_limits *now, const char *identity,
		      struct error *err)
{
	const char *other = why_other(m, identity);
	int ret;

	if (other && !m->accept)
		return error_set(err, ESTALE,
				 "the storage is not what the device was made for: %s: it was "
				 "replaced: bring the right one back, or, if this is the one to "
				 "serve, 'ublkctl resume %s --accept-storage' has it so",
				 other, m->name);
	ret = limits_fit(&m->limits, now, err);
	if (ret)
		return ret;
	if (other)
		log_warning(m->name, "other storage is accepted, as asked for: %s (%s, not %s)",
			    other, identity, m->identity);
	snprintf(m->identity, sizeof(m->identity), "%s", identity);
	return 0;
}

static int find_living(struct managed *m, struct error *err)
{
	int ret = device_find(&m->device, err);

	if (!ret && m->device.info.state == UBLK_DEV_DEAD)
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
static int wait_for_last_cancel(struct managed *m)
{
	struct blocking_for who = { m->name, BLOCKING_DEVICE };
	char path[32];
	int fd;

	if (control_async_features() & UBLK_FEAT_QUIESCE)
		return 0;
	snprintf(path, sizeof(path), UBLK_CHAR_PREFIX "%u", m->device.info.dev_id);
	fd = blocking_open(who, path, O_RDWR, 0, SETTLE_MS);
	if (fd < 0)
		return fd == -EBUSY ? fd : 0; /* START_USER_RECOVERY tells */
	if (blocking_settle(who, SETTLE_MS))
		fiber_sleep(SETTLE_BLIND_MS);
	blocking_close(who, fd, SETTLE_MS);
	return 0;
}

/* The kernel lets go of a dead server when the last of its references is gone. */
static int begin(struct managed *m, struct error *err)
{
	uint64_t end = clock_ms() + FLOW_RELEASE_MS;
	bool last;
	int ret;

	for (;;) {
		last = clock_ms() > end;
		ret = find_living(m, err);
		if (ret)
			return ret;
		ret = wait_for_last_cancel(m);
		if (!ret || last)
			ret = control_start_recovery(&m->control, m->device.info.dev_id, err);
		/* Begun before, by a server that died over it: all is as it should be. */
		if (ret == -EINVAL && m->device.info.state == UBLK_DEV_QUIESCED)
			return 0;
		if (ret != -EBUSY || last)
			return ret;
		fiber_sleep(POLL_MS);
	}
}

static int open_again(struct managed *m, struct error *err)
{
	struct backend_limits now;
	unsigned nr_queues, depth;
	char identity[IDENTITY_BYTES];
	int ret = flow_open(m, &now, identity, &nr_queues, &depth, err);

	if (!ret)
		ret = check_same(m, &now, identity, err);
	if (!ret && nr_queues < m->device.info.nr_hw_queues)
		ret = error_set(
			err, ESTALE,
			"the storage serves %u queues at the most by now, and the device has "
			"%u: remove the export and make it anew",
			nr_queues, m->device.info.nr_hw_queues);
	if (!ret && now.size > m->limits.size)
		m->grow_to = now.size;
	return ret;
}

static int take_over(struct managed *m, struct worker *held, struct error *err)
{
	int ret = begin(m, err);

	if (!ret)
		ret = flow_publish(m, held, err);
	if (!ret)
		ret = flow_serve(m, err);
	if (!ret)
		ret = flow_unless_worker_dies(m, control_end_recovery, err);
	return ret;
}

/*
 * What is told by the result: -ENODEV is the kernel's word, and what a server says
 * of its storage (an address that does not answer, a disk that is away) is not its
 * own death.
 */
static int result_of(struct managed *m, int ret, bool refused)
{
	struct error ignored;

	if (ret == -ENODEV && device_find(&m->device, &ignored) != -ENODEV &&
	    m->device.info.state != UBLK_DEV_DEAD)
		return -EIO;
	return refused && (ret == -EPIPE || ret == -ETIMEDOUT) ? -EIO : ret;
}

int flow_recover(struct managed *m, struct worker *ready, struct error *err)
{
	struct worker *held = m->holding ? m->worker : NULL;
	struct error ignored;
	bool refused = false;
	int ret = 0;

	flow_begin(m);
	if (held)
		m->worker = NULL;
	else
		ret = flow_end_worker(m, 0, err);
	m->worker = ready;
	if (!ret)
		ret = find_living(m, err);
	managed_look_lost(m);
	if (!ret)
		flow_record(m);
	if (!ret && !m->worker)
		ret = flow_prepare(m, true, &m->worker, err);
	/* Lost with the last server, if ublkd was not there to keep them. */
	if (!ret && !m->counters)
		ret = flow_create_counters(m, err);
	if (!ret)
		ret = open_again(m, err);
	m->reached_ms = ret ? 0 : clock_ms();
	if (!ret)
		ret = check_fence(m, true, err);
	if (!ret)
		m->fence_told = false;
	if (!ret)
		ret = take_over(m, held, err);
	if (ret) {
		refused = m->worker && worker_has_refused(m->worker);
		flow_end_worker(m, 0, &ignored);
		ret = result_of(m, ret, refused);
	}
	if (ret && held && !worker_has_ended(held)) {
		m->worker = held; /* for the next try */
		m->holding = true;
		return ret;
	}
	m->holding = false;
	if (!ret)
		flow_finish_start(m);
	if (held)
		worker_finish(held, 0);
	worker_forget(held);
	return ret;
}

/*
 * Until 6.16 the kernel lets go of a drained worker's files a moment after its process has
 * ended, ublkcN among them: a suspended export's storage could not be unmounted before.
 */
static void wait_for_release(struct managed *m)
{
	uint64_t end = clock_ms() + RELEASE_MS;

	while (wait_for_last_cancel(m) == -EBUSY && clock_ms() < end)
		fiber_sleep(POLL_MS);
}

int flow_leave(struct managed *m, bool suspend, struct error *err)
{
	/* The drain has to be on record: without room for that, the worker keeps running. */
	int ret = managed_write(m, err);
	bool drained;

	if (ret)
		return ret;
	ret = flow_drain(m, err);
	/* Dead over it: there is nothing to hand over, and its requests come again. */
	if (ret && !worker_has_ended(m->worker) && ret != -EPIPE)
		return ret;
	drained = !ret;
	ret = 0;
	if (!m->holding || worker_has_ended(m->worker)) {
		ret = flow_end_worker(m, FLOW_WORKER_MS, err);
		if (suspend) {
			worker_socket_remove(m->name);
			wait_for_release(m);
		}
	}
	/* The worker had nothing in flight, and no old connection either. */
	if (drained)
		fence_close(&m->fence);
	/* Nobody else has it, once ublkd dies too. */
	managed_look_lost(m);
	managed_move(m, suspend ? EXPORT_SUSPENDED : EXPORT_RECOVERING,
		     suspend ? "asked for" : "a new server was asked for");
	return ret;
}
