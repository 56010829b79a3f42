/* SPDX-License-Identifier: MIT */
/*
 * The server's half of a device: opens a backend's instance, runs its queues, drains or stops them,
 * closes it. ublkcN arrives as a descriptor, from standalone.c or, in a worker, from ublkd. No
 * kernel command is given here, so the same code runs with and without privilege.
 *
 * Opening and starting are two steps, since the backend's limits become the device's parameters and
 * the device must exist before a queue can fetch.
 *
 * A thread that is blocked in its backend cannot be ended. serving_join() waits for a bounded time
 * and then sets `stuck`: the thread and all that it uses stay until the process ends, as freeing
 * them would crash a thread that wakes up.
 *
 * Read serving_open() with open_backend(), then serving_start() and serving_join(). For growth read
 * instance_grow(), called by the backend, and serving_grown(), called by the owner.
 */
#include "engine/serve.h"
#include "common/clock.h"
#include "engine/params.h"
#include "engine/queue.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/*
 * open() before any queue: the limits decide on the device's parameters and on how many queues
 * there are.
 */
static int open_backend(struct instance *e, struct error *err)
{
	int ret;

	e->private = calloc(1, e->backend->instance_size ? e->backend->instance_size : 1);
	if (!e->private)
		return error_set(err, ENOMEM, "no memory");
	ret = e->backend->open(e, err);
	if (ret)
		goto free_private;
	ret = params_complete_limits(&e->limits, err);
	if (ret) {
		error_prefix(err, "%s", e->uri);
		goto close;
	}
	if (e->limits.max_queues && e->limits.max_queues < e->nr_queues)
		e->nr_queues = e->limits.max_queues;
	return 0;

close:
	e->backend->close(e);
free_private:
	free(e->private);
	return ret;
}

int serving_open(struct serving *s, const struct serving_of *of, struct error *err)
{
	int ret;

	*s = (struct serving){
		.counters = of->counters,
		.end_event = -1,
		.poll_us = spec_poll_us(of->spec),
	};
	spec_to_instance(of->spec, &s->instance);
	if (of->shape.nr_queues)
		s->instance.nr_queues = of->shape.nr_queues;
	if (of->shape.depth)
		s->instance.depth = of->shape.depth;
	if (of->shape.max_io)
		s->instance.max_io = of->shape.max_io;
	if (of->name)
		s->instance.name = of->name;
	s->instance.reason = of->reason;
	s->instance.live_block = of->live_block;
	s->instance.host = of->host;
	s->instance.gauges = of->counters->gauges;
	s->instance.lost = &of->counters->lost;
	s->instance.grown_event = -1;
	s->instance.conditions = &s->conditions;
	pthread_mutex_init(&s->conditions.lock, NULL);
	s->end_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->instance.grown_event = s->end_event < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->instance.grown_event < 0) {
		ret = error_set(err, errno, "eventfd: %s", strerror(errno));
		goto close_events;
	}
	s->queues = calloc(s->instance.nr_queues, sizeof(*s->queues));
	if (!s->queues) {
		ret = error_set(err, ENOMEM, "no memory for %u queues", s->instance.nr_queues);
		goto close_events;
	}
	ret = open_backend(&s->instance, err);
	if (ret)
		goto free_queues;
	return 0;

free_queues:
	free(s->queues);
close_events:
	if (s->instance.grown_event >= 0)
		close(s->instance.grown_event);
	if (s->end_event >= 0)
		close(s->end_event);
	return ret;
}

int serving_start(struct serving *s, const struct serving_setup *setup, struct error *err)
{
	int ret;

	s->instance.nr_queues = s->counters->nr_queues = setup->nr_queues;
	s->instance.depth = setup->depth;
	for (unsigned i = 0; i < setup->nr_queues; i++) {
		struct queue_counters *counters = counters_queue(s->counters, i);
		struct queue_setup queue = {
			.instance = &s->instance,
			.index = i,
			.char_fd = setup->char_fd,
			.path = setup->path,
			.max_io = setup->max_io,
			.poll_us = s->poll_us,
			.unprivileged = setup->unprivileged,
			.recoverable = setup->recoverable,
			.counters = counters,
			.end_event = s->end_event,
		};

		/* Requests that the last server left unanswered come again. */
		counters->completed = counters->started;
		if (setup->cpus)
			queue.cpus = setup->cpus[i];
		ret = queue_start(&s->queues[i], &queue, err);
		if (ret)
			return ret;
		s->nr_started++;
	}
	/*
	 * All threads are started before the first is waited for, since they open at the same time.
	 * On an error the caller joins them: nr_started says how many.
	 */
	for (unsigned i = 0; i < s->nr_started; i++) {
		ret = queue_wait_ready(&s->queues[i], SERVING_QUEUE_MS, err);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Any thread may call it. Only the larger size is stored and the event written; the device's thread
 * reads both in serving_grown() and changes limits.size, in whichever order the kernel needs.
 */
void instance_grow(struct instance *instance, uint64_t size)
{
	uint64_t one = 1;

	size -= size % instance->limits.logical_block;
	if (size <= __atomic_load_n(&instance->limits.size, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&instance->grown, size, __ATOMIC_RELAXED);
	if (write(instance->grown_event, &one, sizeof(one)) < 0)
		log_error(instance->name,
			  "cannot report that the storage has grown: "
			  "%s",
			  strerror(errno));
}

/* Returns true for a change. */
static bool set_condition(struct conditions *conditions, enum health_cause cause,
			  const char *detail)
{
	bool changed;

	pthread_mutex_lock(&conditions->lock);
	changed = health_set(&conditions->list[cause], detail);
	conditions->changed |= changed;
	pthread_mutex_unlock(&conditions->lock);
	return changed;
}

static void change_condition(struct instance *instance, enum health_cause cause, const char *detail)
{
	uint64_t one = 1;

	if (instance->conditions && set_condition(instance->conditions, cause, detail) &&
	    write(instance->grown_event, &one, sizeof(one)) < 0)
		log_error(instance->name, "cannot report a change of health: %s", strerror(errno));
}

void instance_report(struct instance *instance, enum health_cause cause, const char *fmt, ...)
{
	char detail[sizeof(instance->conditions->list[0].detail)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	change_condition(instance, cause, detail);
}

void instance_resolve(struct instance *instance, enum health_cause cause)
{
	change_condition(instance, cause, NULL);
}

void instance_settle(struct instance *instance, enum health_cause cause, _Atomic uint64_t *last_ms)
{
	uint64_t last = atomic_load(last_ms);

	if (!last || clock_ms() - last < HEALTH_SETTLE_MS)
		return;
	atomic_store(last_ms, 0);
	instance_resolve(instance, cause);
}

bool serving_conditions(struct serving *s, struct health_condition list[CAUSES])
{
	bool changed;

	pthread_mutex_lock(&s->conditions.lock);
	memcpy(list, s->conditions.list, sizeof(s->conditions.list));
	changed = s->conditions.changed;
	s->conditions.changed = false;
	pthread_mutex_unlock(&s->conditions.lock);
	return changed;
}

uint64_t serving_grown(struct serving *s)
{
	uint64_t size, events;

	/*
	 * EAGAIN: nothing was written since the last call. A change of conditions uses the same
	 * event.
	 */
	if (read(s->instance.grown_event, &events, sizeof(events)) < 0)
		return s->instance.limits.size;
	size = __atomic_load_n(&s->instance.grown, __ATOMIC_RELAXED);
	return size > s->instance.limits.size ? size : s->instance.limits.size;
}

void serving_set_size(struct serving *s, uint64_t size)
{
	__atomic_store_n(&s->instance.limits.size, size, __ATOMIC_RELAXED);
}

bool serving_has_failed(struct serving *s)
{
	for (unsigned i = 0; i < s->nr_started; i++)
		if (queue_has_failed(&s->queues[i]))
			return true;
	return false;
}

uint64_t serving_done(const struct serving *s)
{
	return counters_completed(s->counters);
}

void serving_wake(struct serving *s)
{
	for (unsigned i = 0; i < s->nr_started; i++)
		queue_wake(&s->queues[i]);
}

int serving_thread(const struct serving *s, unsigned queue)
{
	return atomic_load(&s->queues[queue].thread_id);
}

void serving_drain(struct serving *s, bool on)
{
	for (unsigned i = 0; i < s->nr_started; i++)
		queue_drain(&s->queues[i], on);
}

bool serving_is_drained(struct serving *s)
{
	bool drained = true;

	for (unsigned i = 0; i < s->nr_started; i++)
		drained = queue_is_drained(&s->queues[i]) && drained;
	return drained;
}

void serving_quit(struct serving *s)
{
	for (unsigned i = 0; i < s->nr_started; i++)
		queue_quit(&s->queues[i]);
}

int serving_join(struct serving *s, struct error *err)
{
	struct error fault;
	int ret = 0;

	for (unsigned i = 0; i < s->nr_started; i++) {
		fault.code = 0;
		/* Queues share a backend: after one time-out the others get no time of their own. */
		if (queue_join(&s->queues[i], s->stuck ? 0 : SERVING_QUEUE_MS, &fault)) {
			if (!s->stuck)
				ret = error_set(err, ETIMEDOUT,
						"queue %u did not end: the backend does not answer",
						i);
			/* The thread's memory must stay; only the end of the process frees it. */
			s->stuck = true;
		} else if (fault.code && !ret) {
			*err = fault;
			ret = -fault.code;
		}
	}
	s->nr_started = 0;
	return ret;
}

void serving_close(struct serving *s)
{
	s->instance.backend->close(&s->instance);
	free(s->instance.private);
	free(s->queues);
	close(s->instance.grown_event);
	close(s->end_event);
}
