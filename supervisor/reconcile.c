/* SPDX-License-Identifier: MIT */
/*
 * The reconciler of an export: a fiber that compares what is wanted with what there is and takes
 * the next flow, until the two are the same. Nothing else begins a flow, so that two never work
 * on one device; whoever wants something changes `wanted` or adds a request, and kicks.
 *
 * A kick while the fiber is at work makes it compare once more (`again`), so that no change is
 * missed between its last comparison and its end.
 *
 * Failures end in a later try. Starts and recoveries wait differently: an absent server may take
 * a minute to come back, but I/O waits for a recovery. A worker that dies again and again without
 * having done work is given up, as each try would end the same way.
 *
 * Read from below: take_step() is the whole decision, by state. keep_live() decides for a live
 * device: notice_death() replaces a dead worker, carry_out() does a client's request.
 * recover_now() is every recovery's last part.
 */
#include "supervisor/reconcile.h"
#include "supervisor/record.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/flow.h"
#include "supervisor/host.h"
#include "supervisor/request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FIRST_DELAY_MS   100u
#define RECOVER_DELAY_MS 5000u  /* longest delay between two recoveries: I/O waits */
#define START_DELAY_MS   60000u /* longest delay between two starts: no I/O waits yet */
#define STABLE_MS        10000u /* a worker that lived this long did not die at once */
#define WORKING_MS       2000u  /* nor did one that lived this long and served WORKING_SERVED */
#define WORKING_SERVED   100u
#define GROW_EVERY_MS    1000u
#define FENCE_OPEN_MS    2000u
#define FENCE_REPORT_MS  1000u /* most servers close a dead worker's connections sooner */
#define RELEASE_MS       5000u /* for the kernel to let go of a dead worker's files */
#define RELEASE_POLL_MS  50u
#define DEATHS_MAX       10u /* of workers in a row; then the export is given up */

unsigned reconcile_max_jobs = 8;
void (*reconcile_gone)(struct export *export);
void (*reconcile_adopted)(struct export *export);

/* Starts and recoveries have separate slots: starts stuck on absent storage delay no recovery. */
static struct jobs {
	unsigned nr;
	struct fiber_event done;
} starts, recoveries;

/* ---- a worker's events ---- */

static void worker_ended(struct worker *worker, void *context)
{
	struct export *export = context;

	/*
	 * START_DEV and END_USER_RECOVERY wait for the worker to fetch its tags, forever if it is
	 * dead: abandon the command. A former worker that only holds the memory does not matter.
	 */
	if (export->worker.command_waits && worker == export->worker.handle)
		export->control.abort = 1;
	reconcile_kick(export);
}

static void worker_grown(struct worker *worker, uint64_t size, void *context)
{
	struct export *export = context;

	(void)worker;
	export->storage.grown_to = size;
	fiber_raise(&export->changed);
	reconcile_kick(export);
}

static void worker_health(struct worker *worker, const json_t *conditions, void *context)
{
	struct export *export = context;

	if (worker == export->worker.handle)
		export_take_conditions(export, conditions);
}

static int worker_asks(struct worker *worker, const char *kind, const json_t *question,
		       void *context)
{
	(void)worker;
	return host_answer(context, kind, question);
}

const struct worker_events reconcile_worker_events = {
	.ended = worker_ended,
	.grown = worker_grown,
	.health = worker_health,
	.ask = worker_asks,
};

/* ---- tries ---- */

static void retry_due(uv_timer_t *timer)
{
	struct export *export = timer->data;

	/*
	 * libuv's clock is coarser than clock_ms(), so that is_due() might say no by a millisecond,
	 * and nothing else would call again.
	 */
	export->reconciler.retry_at_ms = 0;
	reconcile_kick(export);
}

/* Sets the next try, after a delay that doubles with each failure in a row. */
static void try_later(struct export *export, unsigned most_ms)
{
	unsigned delay = FIRST_DELAY_MS;

	for (unsigned i = 1; i < export->reconciler.failures && delay < most_ms; i++)
		delay *= 2;
	if (delay > most_ms)
		delay = most_ms;
	export->reconciler.retry_at_ms = clock_ms() + delay;
	/* libuv counts from its cached time, which is old if the loop was busy. */
	uv_update_time(export->reconciler.retry.loop);
	uv_timer_start(&export->reconciler.retry, retry_due, delay, 0);
}

static bool is_due(const struct export *export)
{
	return clock_ms() >= export->reconciler.retry_at_ms;
}

void reconcile_retry(struct export *export)
{
	export->reconciler.failures = 0;
	export->reconciler.retry_at_ms = 0;
	export->reconciler.given_up = export->reconciler.unknown;
	reconcile_kick(export);
}

/* Waits for a free slot. Compares again after each wait: a reload may change the limit. */
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

static void give_up(struct export *export, const struct error *err)
{
	export->reconciler.given_up = true;
	export_set_fault(export, err);
	if (export->state != EXPORT_FAILED)
		export_move(export, EXPORT_FAILED, err->text);
	log_error(export->name, "%s; giving up: 'ublkctl resume %s' retries", err->text,
		  export->name);
}

/*
 * flow_start(), retried while the storage is still in use by the previous worker: the files of a
 * killed worker belong to its io_uring, which the kernel closes a moment after the process has
 * exited.
 */
static int start_once_released(struct export *export, struct error *err)
{
	uint64_t ended = export->worker.ended_ms, until = ended ? ended + RELEASE_MS : 0;
	int ret;

	for (;;) {
		if (export->state == EXPORT_FAILED)
			export_move(export, EXPORT_DECLARED, NULL);
		ret = flow_start(export, err);
		/* flow_start() noted the end of its own worker, which held nothing. */
		export->worker.ended_ms = ended;
		if (ret != -EBUSY || clock_ms() >= until || export->wanted.goal != GOAL_LIVE)
			return ret;
		fiber_sleep(RELEASE_POLL_MS);
	}
}

static bool start_device(struct export *export)
{
	struct error err;
	int ret;

	if (export->wanted.goal != GOAL_LIVE || export->reconciler.given_up || !is_due(export))
		return false;
	begin_job(&starts);
	/* A client may have removed the export while it waited for the slot. */
	if (export->wanted.goal != GOAL_LIVE) {
		end_job(&starts);
		return true;
	}
	ret = start_once_released(export, &err);
	end_job(&starts);
	export_set_fault(export, ret ? &err : NULL);
	if (!ret) {
		export->reconciler.failures = 0;
		return true;
	}
	export->reconciler.failures++;
	/* The client waits for the answer, and decides itself whether to try again. */
	if (export->origin == ORIGIN_REQUESTED) {
		export->reconciler.given_up = true;
		return false;
	}
	if (export->reconciler.failures == 1)
		log_error(export->name, "%s; retrying", err.text);
	/* A declared export may wait for a network or a disk; state failed means given up. */
	export_move(export, EXPORT_DECLARED, err.text);
	try_later(export, START_DELAY_MS);
	return false;
}

/* Another program removed the device, surely on purpose: do not create it again unasked. */
static void lose_device(struct export *export)
{
	struct error err;

	if (flow_stop(export, true, &err))
		log_error(export->name, "%s", err.text);
	if (export->state == EXPORT_GONE)
		export_move(export, EXPORT_DECLARED, NULL);
	error_set(&err, ENODEV, "another program stopped or removed the device");
	export->reconciler.given_up = true;
	export_set_fault(export, &err);
	export_note(export, err.text);
	log_error(export->name, "%s; 'ublkctl resume %s' creates it again", err.text, export->name);
}

/*
 * Sets the next check of a dead worker's connections. Nothing signals their end, so it polls: often
 * in the first second, as most servers close them at once, then less and less, but not more often
 * than every `least` milliseconds. A wait longer than FENCE_REPORT_MS is reported.
 */
static void wait_for_fence(struct export *export, unsigned least, const struct error *err)
{
	uint64_t age = export->worker.fence.nr ? clock_ms() - export->worker.fence.since_ms
					       : FENCE_REPORT_MS;
	unsigned delay = age < FENCE_REPORT_MS ? 10 : age < 20 * FENCE_REPORT_MS ? 100 : 500;

	if (delay < least)
		delay = least;
	if (age >= FENCE_REPORT_MS) {
		if (!export->fault || strcmp(export->fault->text, err->text) != 0)
			log_error(export->name, "%s; I/O waits", err->text);
		export_set_fault(export, err);
	}
	export->reconciler.retry_at_ms = clock_ms() + delay;
	uv_update_time(export->reconciler.retry.loop);
	uv_timer_start(&export->reconciler.retry, retry_due, delay, 0);
}

/*
 * With a job begun: puts a worker (ready; NULL: a new one) under the device. Returns 0, or
 * -errno with err filled: then the next try is set up, or the export given up.
 */
static int recover_now(struct export *export, struct worker *ready, struct error *err)
{
	bool died;
	int ret = flow_recover(export, ready, err);

	if (!ret) {
		export_set_fault(export, NULL);
		return 0;
	}
	/* Each try opens the storage, which shows whether the server is back: not too often. */
	if (ret == -EINPROGRESS) {
		wait_for_fence(export, FENCE_OPEN_MS, err);
		return ret;
	}
	/* Log each reason once, not with each try. */
	if (!export->fault || strcmp(export->fault->text, err->text) != 0)
		log_error(export->name, "%s; I/O waits; retrying", err->text);
	export_set_fault(export, err);
	if (ret == -ENODEV) {
		lose_device(export);
		return ret;
	}
	export->reconciler.failures++;
	/* These mean a dead or hung worker, as opposed to storage that is only absent for now. */
	died = ret == -EPIPE || ret == -ETIMEDOUT || ret == -ENODATA;
	if (died && export->reconciler.failures >= DEATHS_MAX)
		give_up(export, err);
	else
		try_later(export, RECOVER_DELAY_MS);
	return ret;
}

static bool recover_device(struct export *export)
{
	struct error err;
	int ret;

	/*
	 * Before a slot is taken: waiting for a server may take long, and would block other
	 * recoveries.
	 */
	if (flow_fence(export, &err) == -EINPROGRESS) {
		wait_for_fence(export, 0, &err);
		return false;
	}
	begin_job(&recoveries);
	ret = recover_now(export, NULL, &err);
	end_job(&recoveries);
	return !ret;
}

bool reconcile_died_at_once(uint64_t lived_ms, uint64_t served)
{
	return lived_ms < WORKING_MS || (lived_ms < STABLE_MS && served < WORKING_SERVED);
}

/* The worker has died, or reported that it will exit: starts a recovery, or gives up. */
static void notice_death(struct export *export)
{
	uint64_t now = clock_ms(), live_since = export->worker.live_since_ms;
	uint64_t lived = now > live_since ? now - live_since : 0;
	uint64_t served = export_served(export) - export->worker.live_served;
	bool at_once = reconcile_died_at_once(lived, served);
	struct error err;

	if (!worker_fault(export->worker.handle, &err))
		error_set(&err, EPIPE, "the worker (process %d) died",
			  (int)worker_pid(export->worker.handle));
	log_warning(export->name, "%s; starting a new worker", err.text);
	export->reconciler.recoveries++;
	export->reconciler.failures = at_once ? export->reconciler.failures + 1 : 0;
	export_set_fault(export, &err);
	export_move(export, EXPORT_RECOVERING, err.text);
	if (export->reconciler.failures >= DEATHS_MAX) {
		give_up(export, &err);
		return;
	}
	if (export->reconciler.failures > 1)
		try_later(export, RECOVER_DELAY_MS);
	else
		export->reconciler.retry_at_ms = 0;
}

static void end_unused(struct worker *worker)
{
	if (worker)
		worker_finish(worker, 0);
	worker_forget(worker);
}

/*
 * Replaces the worker. Returns 0 once the new worker serves, or -errno with err filled.
 *
 * The new worker is started before the old one leaves, so that a broken installation fails while
 * the old worker still serves, and I/O waits only while the storage is opened.
 */
static int upgrade_worker(struct export *export, struct error *err)
{
	struct worker *ready = NULL;
	int ret = flow_prepare(export, true, &ready, err);

	if (!ret)
		ret = flow_leave(export, false, err);
	/* Still live: the new worker did not start, or the old one could not drain. */
	if (ret && export->state == EXPORT_LIVE) {
		end_unused(ready);
		error_prefix(err, "the upgrade failed, and the previous worker keeps serving");
		log_error(export->name, "%s", err->text);
		export_set_condition(export, CAUSE_UPGRADE, err->text);
		return ret;
	}
	export->reconciler.retry_at_ms = 0;
	export->reconciler.failures = 0;
	/* The old worker may have died while it drained, with requests in flight. */
	ret = flow_fence(export, err);
	if (ret == -EINPROGRESS) {
		end_unused(ready);
		wait_for_fence(export, 0, err);
		return ret;
	}
	return recover_now(export, ready, err);
}

static void suspend_export(struct export *export)
{
	struct error err;

	if (!flow_leave(export, true, &err)) {
		export_set_fault(export, NULL);
		record_write(export, &err);
		return;
	}
	if (export->state != EXPORT_LIVE)
		return;
	export->wanted.goal = GOAL_LIVE;
	log_error(export->name, "%s", err.text);
	export_set_fault(export, &err);
}

/*
 * Has the device adopt the size that the worker reported last. A worker may report new sizes at any
 * rate, so the kernel sees at most one change in GROW_EVERY_MS.
 */
static bool grow_device(struct export *export)
{
	uint64_t size = export->storage.grown_to, now = clock_ms(),
		 due = export->reconciler.grown_at_ms + GROW_EVERY_MS;
	struct error err;

	if (export->reconciler.grown_at_ms && now < due) {
		uv_update_time(export->reconciler.retry.loop);
		uv_timer_start(&export->reconciler.retry, retry_due, due - now, 0);
		return false;
	}
	export->storage.grown_to = 0;
	if (flow_grow(export, size, &err))
		log_warning(export->name, "cannot adopt the new size of the storage: %s", err.text);
	export->reconciler.grown_at_ms = clock_ms();
	return true;
}

static void carry_out(struct export *export, struct export_request *request)
{
	struct error err;
	int ret = 0;

	switch (request->kind) {
	case REQUEST_UPGRADE:
		/* A single job: I/O is blocked from the one worker's end until the other serves. */
		begin_job(&recoveries);
		ret = upgrade_worker(export, &err);
		end_job(&recoveries);
		break;
	case REQUEST_RESIZE:
		ret = flow_resize(export, request->size, request->shrink, &err);
		break;
	case REQUEST_CHECK:
		flow_check(export);
		break;
	}
	request_finish(export, request, ret, &err);
}

/* Takes the next step for a live export. Returns false if nothing is to be done. */
static bool keep_live(struct export *export)
{
	struct export_request *request;
	struct error err;

	if (!export->worker.handle || worker_has_ended(export->worker.handle) ||
	    worker_fault(export->worker.handle, &err)) {
		notice_death(export);
	} else if (export->wanted.goal == GOAL_SUSPENDED) {
		suspend_export(export);
	} else if ((request = request_next(export))) {
		carry_out(export, request);
	} else if (export->storage.grown_to) {
		return grow_device(export);
	} else {
		return false;
	}
	return true;
}

static bool remove_export(struct export *export)
{
	bool forced = export->wanted.force;
	struct error err;
	int ret;

	if (export->state == EXPORT_GONE)
		return false;
	ret = flow_stop(export, false, &err);
	if (!ret)
		return false;
	/* A client asked for force while the removal failed without it: try again. */
	if (export->wanted.force && !forced)
		return true;
	export_set_fault(export, &err);
	/*
	 * Keep the export as it was. On record, so that an ublkd that starts now does not remove
	 * it.
	 */
	export->wanted.goal = export->state == EXPORT_SUSPENDED ? GOAL_SUSPENDED : GOAL_LIVE;
	export->wanted.force = export->wanted.recreate = false;
	export->reconciler.given_up = export->state == EXPORT_FAILED;
	if (record_write(export, &err))
		log_error(export->name, "%s", err.text);
	return false;
}

/* Takes the next flow, by state and goal. Returns true if there may be another step to take. */
static bool take_step(struct export *export)
{
	if (export->wanted.goal == GOAL_GONE)
		return remove_export(export);
	switch (export->state) {
	case EXPORT_FAILED:
		if (export->reconciler.given_up || export->wanted.goal != GOAL_LIVE ||
		    !is_due(export))
			return false;
		if (!export->device.exists)
			return start_device(export);
		export_move(export, EXPORT_RECOVERING, NULL);
		return true;
	case EXPORT_DECLARED:
		return start_device(export);
	case EXPORT_LIVE:
		return keep_live(export);
	case EXPORT_RECOVERING:
		if (export->wanted.goal == GOAL_SUSPENDED) {
			export_move(export, EXPORT_SUSPENDED, "suspend requested");
			return true;
		}
		return is_due(export) ? recover_device(export) : false;
	case EXPORT_SUSPENDED:
		if (export->wanted.goal != GOAL_LIVE)
			return false;
		export_move(export, EXPORT_RECOVERING, "resume requested");
		export->reconciler.retry_at_ms = 0;
		return true;
	default:
		return false;
	}
}

static void run_reconciler(void *context)
{
	struct export *export = context;

	do {
		export->reconciler.again = false;
		while (take_step(export))
			;
	} while (export->reconciler.again || (export->state == EXPORT_LIVE && export->requests));
	/* Not live any more: requests that have not begun would wait for ever. */
	request_refuse_all(export);
	export->reconciler.busy = false;
	fiber_raise(&export->changed);
	if (export->state == EXPORT_GONE)
		reconcile_gone(export);
}

void reconcile_kick(struct export *export)
{
	export->reconciler.again = true;
	if (export->reconciler.busy || export->dropped)
		return;
	export->reconciler.busy = true;
	if (fiber_start(run_reconciler, export)) {
		export->reconciler.busy = false;
		log_error(export->name, "no memory to work on the export; retrying");
		try_later(export, RECOVER_DELAY_MS);
	}
}

static void adopt_export(void *context)
{
	struct export *export = context;
	struct error err;

	if (flow_adopt(export, &err))
		export->reconciler.given_up = export->reconciler.unknown = true;
	reconcile_adopted(export);
	run_reconciler(export);
}

int reconcile_adopt(struct export *export)
{
	export->reconciler.busy = true;
	if (!fiber_start(adopt_export, export))
		return 0;
	export->reconciler.busy = false;
	return -ENOMEM;
}

bool reconcile_is_settled(const struct export *export)
{
	return !export->reconciler.busy;
}
