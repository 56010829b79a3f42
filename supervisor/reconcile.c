/* SPDX-License-Identifier: MIT */
#include "supervisor/reconcile.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FIRST_DELAY_MS   100u
#define RECOVER_DELAY_MS 5000u  /* the longest between two tries */
#define START_DELAY_MS   60000u /* the same for a device that is not there yet */
#define STABLE_MS        10000u /* a worker that lived so long did not die at once */
#define WORKING_MS       2000u  /* nor one that lived so long and served so much */
#define WORKING_SERVED   100u
#define GROW_EVERY_MS    1000u
#define FENCE_OPEN_MS    2000u
#define FENCE_TELL_MS    1000u /* a server mostly ends a dead worker's connections sooner */
#define DEATHS_MAX       10u   /* in a row; then it is given up */

unsigned reconcile_max_jobs = 8;
void (*reconcile_gone)(struct managed *m);

/* Starts and recoveries have separate slots: starts stuck on absent storage delay no recovery. */
static struct jobs {
	unsigned nr;
	struct fiber_event done;
} starts, recoveries;

/* ---- a worker's events ---- */

void reconcile_worker_ended(struct worker *worker, void *context)
{
	struct managed *m = context;

	/* Not one that has kept the memory for it. */
	if (m->failing && worker == m->worker)
		m->control.abort = 1;
	reconcile_kick(m);
}

void reconcile_worker_grown(struct worker *worker, uint64_t size, void *context)
{
	struct managed *m = context;

	(void)worker;
	m->grow_to = size;
	fiber_raise(&m->moved);
	reconcile_kick(m);
}

int reconcile_worker_asks(struct worker *worker, const char *kind, const json_t *question,
			  void *context)
{
	(void)worker;
	return host_answer(context, kind, question);
}

/* ---- tries ---- */

static void retry(uv_timer_t *timer)
{
	struct managed *m = timer->data;

	/* The loop's clock may be coarser than ours, and there is no other call. */
	m->retry_at_ms = 0;
	reconcile_kick(m);
}

static void try_later(struct managed *m, unsigned most_ms)
{
	unsigned delay = FIRST_DELAY_MS;

	for (unsigned i = 1; i < m->failures && delay < most_ms; i++)
		delay *= 2;
	if (delay > most_ms)
		delay = most_ms;
	m->retry_at_ms = clock_ms() + delay;
	uv_update_time(m->retry.loop);
	uv_timer_start(&m->retry, retry, delay, 0);
}

static bool is_due(const struct managed *m)
{
	return clock_ms() >= m->retry_at_ms;
}

void reconcile_retry(struct managed *m)
{
	m->failures = 0;
	m->retry_at_ms = 0;
	m->given_up = m->unknown;
	reconcile_kick(m);
}

static void begin_job(struct jobs *jobs)
{
	while (jobs->nr >= reconcile_max_jobs)
		fiber_wait(&jobs->done, 0);
	jobs->nr++;
}

static void end_job(struct jobs *jobs)
{
	jobs->nr--;
	fiber_raise(&jobs->done);
}

/* ---- what is done in which state ---- */

static void give_up(struct managed *m, const struct error *err)
{
	m->given_up = true;
	managed_set_fault(m, err);
	if (m->state != EXPORT_FAILED)
		managed_move(m, EXPORT_FAILED, err->text);
	log_error(m->name, "%s: it is given up: 'ublkctl resume %s' tries again", err->text,
		  m->name);
}

static bool start(struct managed *m)
{
	struct error err;
	int ret;

	if (m->want != WANT_LIVE || m->given_up || !is_due(m))
		return false;
	begin_job(&starts);
	/* The device may have been removed meanwhile. */
	if (m->want != WANT_LIVE) {
		end_job(&starts);
		return true;
	}
	if (m->state == EXPORT_FAILED)
		managed_move(m, EXPORT_DECLARED, NULL);
	ret = flow_start(m, &err);
	end_job(&starts);
	managed_set_fault(m, ret ? &err : NULL);
	if (!ret) {
		m->failures = 0;
		return true;
	}
	m->failures++;
	if (m->origin == ORIGIN_REQUESTED) {
		m->given_up = true;
		return false;
	}
	if (m->failures == 1)
		log_error(m->name, "%s: it is tried again", err.text);
	/* A declared one may wait for a network or a disk: failed is what is given up. */
	managed_move(m, EXPORT_DECLARED, err.text);
	try_later(m, START_DELAY_MS);
	return false;
}

/* Another program has taken it away: it is not made anew behind that one's back. */
static void lose_device(struct managed *m)
{
	struct error err;

	m->force = true;
	if (flow_stop(m, &err))
		log_error(m->name, "%s", err.text);
	/* Unless a client has asked for it meanwhile. */
	if (m->want != WANT_GONE)
		m->force = false;
	if (m->state == EXPORT_GONE)
		managed_move(m, EXPORT_DECLARED, NULL);
	error_set(&err, ENODEV, "its device was stopped or removed by another program");
	m->given_up = true;
	managed_set_fault(m, &err);
	managed_note(m, err.text);
	log_error(m->name, "%s: 'ublkctl resume %s' makes it anew", err.text, m->name);
}

/* Looks again after `least` milliseconds, and less often the longer it lasts. */
static void wait_for_fence(struct managed *m, unsigned least, const struct error *err)
{
	uint64_t age = m->fence.nr ? clock_ms() - m->fence.since_ms : FENCE_TELL_MS;
	unsigned delay = age < FENCE_TELL_MS ? 10 : age < 20 * FENCE_TELL_MS ? 100 : 500;

	if (delay < least)
		delay = least;
	if (age >= FENCE_TELL_MS) {
		if (!m->fault || strcmp(m->fault->text, err->text) != 0)
			log_error(m->name, "%s; I/O waits", err->text);
		managed_set_fault(m, err);
	}
	m->retry_at_ms = clock_ms() + delay;
	uv_update_time(m->retry.loop);
	uv_timer_start(&m->retry, retry, delay, 0);
}

/* With a job begun. */
static bool recover_now(struct managed *m, struct worker *ready)
{
	struct error err;
	bool died;
	int ret = flow_recover(m, ready, &err);

	if (!ret) {
		managed_set_fault(m, NULL);
		return true;
	}
	/* Its server is opened anew each time, to hear whether it is there. */
	if (ret == -EINPROGRESS) {
		wait_for_fence(m, FENCE_OPEN_MS, &err);
		return false;
	}
	/* Each reason is told once. */
	if (!m->fault || strcmp(m->fault->text, err.text) != 0)
		log_error(m->name, "%s: I/O waits; it is tried again", err.text);
	managed_set_fault(m, &err);
	if (ret == -ENODEV) {
		lose_device(m);
		return false;
	}
	m->failures++;
	/* Its worker dies of it each time; storage that is away only has to come back. */
	died = ret == -EPIPE || ret == -ETIMEDOUT || ret == -ENODATA;
	if (died && m->failures >= DEATHS_MAX) {
		give_up(m, &err);
		return false;
	}
	try_later(m, RECOVER_DELAY_MS);
	return false;
}

static bool recover(struct managed *m)
{
	struct error err;
	bool done;

	/* Without a job: it may last, and others have theirs to do. */
	if (flow_fence(m, &err) == -EINPROGRESS) {
		wait_for_fence(m, 0, &err);
		return false;
	}
	begin_job(&recoveries);
	done = recover_now(m, NULL);
	end_job(&recoveries);
	return done;
}

bool reconcile_died_at_once(uint64_t lived_ms, uint64_t served)
{
	return lived_ms < WORKING_MS || (lived_ms < STABLE_MS && served < WORKING_SERVED);
}

/* Its server is gone, or has said that it goes. */
static void notice_death(struct managed *m)
{
	uint64_t now = clock_ms(), lived = now > m->live_since_ms ? now - m->live_since_ms : 0;
	bool at_once = reconcile_died_at_once(lived, managed_served(m) - m->live_served);
	struct error err;

	if (!worker_fault(m->worker, &err))
		error_set(&err, EPIPE, "its worker (process %d) has died",
			  (int)worker_pid(m->worker));
	log_warning(m->name, "%s: a new one takes its place", err.text);
	m->recoveries++;
	m->failures = at_once ? m->failures + 1 : 0;
	managed_set_fault(m, &err);
	managed_move(m, EXPORT_RECOVERING, err.text);
	if (m->failures >= DEATHS_MAX) {
		give_up(m, &err);
		return;
	}
	if (m->failures > 1)
		try_later(m, RECOVER_DELAY_MS);
	else
		m->retry_at_ms = 0;
}

static void upgrade(struct managed *m)
{
	struct worker *ready = NULL;
	struct error err;
	int ret;

	m->upgrade = false;
	/* A single job: I/O is blocked from the one worker's end until the other one serves. */
	begin_job(&recoveries);
	ret = flow_prepare(m, true, &ready, &err);
	if (!ret)
		ret = flow_leave(m, false, &err);
	if (ret && m->state == EXPORT_LIVE) {
		end_job(&recoveries);
		if (ready) {
			worker_finish(ready, 0);
			worker_forget(ready);
		}
		error_prefix(&err, "the upgrade has failed, the old server serves on");
		log_error(m->name, "%s", err.text);
		managed_set_fault(m, &err);
		return;
	}
	m->retry_at_ms = 0;
	m->failures = 0;
	/* The old one may have died over it, with requests in flight. */
	if (flow_fence(m, &err) == -EINPROGRESS) {
		worker_finish(ready, 0);
		worker_forget(ready);
		wait_for_fence(m, 0, &err);
	} else {
		recover_now(m, ready);
	}
	end_job(&recoveries);
}

static void suspend(struct managed *m)
{
	struct error err;

	if (!flow_leave(m, true, &err)) {
		managed_set_fault(m, NULL);
		managed_write(m, &err);
		return;
	}
	if (m->state != EXPORT_LIVE)
		return;
	m->want = WANT_LIVE;
	log_error(m->name, "%s", err.text);
	managed_set_fault(m, &err);
}

/* Its worker may tell of it as often as it likes; what it told last counts. */
static bool grow(struct managed *m)
{
	uint64_t size = m->grow_to, now = clock_ms(), due = m->grown_at_ms + GROW_EVERY_MS;
	struct error err;

	if (m->grown_at_ms && now < due) {
		uv_update_time(m->retry.loop);
		uv_timer_start(&m->retry, retry, due - now, 0);
		return false;
	}
	m->grow_to = 0;
	if (flow_grow(m, size, &err))
		log_warning(m->name, "its storage has grown: %s", err.text);
	m->grown_at_ms = clock_ms();
	return true;
}

/* Something is to be done for a live one.  Returns false where there is nothing. */
static bool serve(struct managed *m)
{
	struct error err;

	if (!m->worker || worker_has_ended(m->worker) || worker_fault(m->worker, &err)) {
		notice_death(m);
	} else if (m->want == WANT_SUSPENDED) {
		suspend(m);
	} else if (m->upgrade) {
		upgrade(m);
	} else if (m->resize) {
		m->resize_result = flow_resize(m, m->resize_to, m->shrink, m->resize_error);
		m->resize = false;
		fiber_raise(&m->moved);
	} else if (m->look) {
		m->look = false;
		flow_look(m);
	} else if (m->grow_to) {
		return grow(m);
	} else {
		return false;
	}
	return true;
}

static bool remove_it(struct managed *m)
{
	bool forced = m->force;
	struct error err;
	int ret;

	if (m->state == EXPORT_GONE)
		return false;
	ret = flow_stop(m, &err);
	if (!ret)
		return false;
	/* Force was asked for meanwhile. */
	if (m->force && !forced)
		return true;
	managed_set_fault(m, &err);
	/* The export goes on as it was; the client is told, and the next ublkd does not try. */
	m->want = m->state == EXPORT_SUSPENDED ? WANT_SUSPENDED : WANT_LIVE;
	m->force = m->anew = false;
	m->given_up = m->state == EXPORT_FAILED;
	if (managed_write(m, &err))
		log_error(m->name, "%s", err.text);
	return false;
}

static bool step(struct managed *m)
{
	if (m->want == WANT_GONE)
		return remove_it(m);
	switch (m->state) {
	case EXPORT_FAILED:
		if (m->given_up || m->want != WANT_LIVE || !is_due(m))
			return false;
		if (!m->device.exists)
			return start(m);
		managed_move(m, EXPORT_RECOVERING, NULL);
		return true;
	case EXPORT_DECLARED:
		return start(m);
	case EXPORT_LIVE:
		return serve(m);
	case EXPORT_RECOVERING:
		if (m->want == WANT_SUSPENDED) {
			managed_move(m, EXPORT_SUSPENDED, "asked for");
			return true;
		}
		return is_due(m) ? recover(m) : false;
	case EXPORT_SUSPENDED:
		if (m->want != WANT_LIVE)
			return false;
		managed_move(m, EXPORT_RECOVERING, "asked for");
		m->retry_at_ms = 0;
		return true;
	default:
		return false;
	}
}

static void keep(void *context)
{
	struct managed *m = context;

	do {
		m->again = false;
		while (step(m))
			;
	} while (m->again);
	m->keeping = false;
	fiber_raise(&m->moved);
	if (m->state == EXPORT_GONE)
		reconcile_gone(m);
}

void reconcile_kick(struct managed *m)
{
	m->again = true;
	if (m->keeping || m->dropped)
		return;
	m->keeping = true;
	if (fiber_start(keep, m)) {
		m->keeping = false;
		log_error(m->name, "no memory to look after it: it is tried again");
		try_later(m, RECOVER_DELAY_MS);
	}
}

bool reconcile_is_settled(const struct managed *m)
{
	return !m->keeping;
}
