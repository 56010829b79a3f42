/* SPDX-License-Identifier: MIT */
/*
 * A single ring carries the commands of all fibers; the loop watches it. A fiber puts itself on
 * the list of waiters with its command's number, and completions(), which the loop calls,
 * wakes it. A fiber whose deadline has passed is off the list when its command's completion
 * comes, which is dropped then.
 */
#include "supervisor/control_async.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/blocking.h"
#include "supervisor/fiber.h"

#include <errno.h>

#define ATTRIBUTE_MS 5000u /* for an attribute of a device to be written */

/* A fiber that waits for a completion; on its stack. */
struct waiter {
	uint64_t number;
	int result;
	bool done;
	struct fiber_event event;
	struct waiter *next;
};

static uv_loop_t *loop;
static uv_poll_t watch;
static struct control driver;
static uint64_t features;
static struct waiter *waiters;

static void completions(uv_poll_t *handle, int status, int events)
{
	uint64_t number;
	int result;

	(void)handle;
	(void)status;
	(void)events;
	/* Completions that no fiber waits for any more are dropped. */
	while (control_take(&driver, &number, &result)) {
		for (struct waiter *w = waiters; w; w = w->next) {
			if (w->number != number)
				continue;
			w->result = result;
			w->done = true;
			fiber_raise(&w->event);
			break;
		}
	}
}

static int wait_for(struct control *control, uint64_t number, unsigned ms, int *result)
{
	struct waiter w = { .number = number, .next = waiters }, **at;

	(void)control;
	waiters = &w;
	/* The completion may be there already. */
	completions(NULL, 0, 0);
	if (!w.done)
		fiber_wait(&w.event, ms);
	for (at = &waiters; *at != &w; at = &(*at)->next)
		;
	*at = w.next;
	*result = w.result;
	return w.done ? 0 : -ETIME;
}

static void pause_fiber(struct control *control, unsigned ms)
{
	(void)control;
	fiber_sleep(ms);
}

static int write_attribute(struct control *control, const char *path, const char *value)
{
	return blocking_write_attribute(control->context, path, value, ATTRIBUTE_MS);
}

int control_async_open(uv_loop_t *of, unsigned deadline_ms, struct error *err)
{
	int ret = control_open(&driver, deadline_ms, err);

	if (ret)
		return ret;
	loop = of;
	/* Blocks, as there are no fibers yet; this command never waits for a device. */
	ret = control_get_features(&driver, &features, err);
	if (ret) {
		control_close(&driver);
		return ret;
	}
	driver.wait = wait_for;
	driver.pause = pause_fiber;
	driver.write_attribute = write_attribute;
	if (control_set_max_inflight(&driver, CONTROL_MAX_INFLIGHT))
		log_debug(NULL, "io_uring's number of workers stays as it is");
	uv_poll_init(loop, &watch, control_event(&driver));
	uv_poll_start(&watch, UV_READABLE, completions);
	return 0;
}

uint64_t control_async_features(void)
{
	return features;
}

void control_async_init(struct control *control, const char *export)
{
	control_share(control, &driver);
	control->context = (void *)(uintptr_t) export;
}
