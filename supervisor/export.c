/* SPDX-License-Identifier: MIT */
/*
 * The life of an export: created from a URI and options, compared with a later declaration of the
 * same name, moved from state to state, destroyed.
 *
 * export_move() alone changes the state. The function asserts that engine/state.c allows the
 * transition, notes it with its reason in the history and reports it to monitors, so that no flow
 * can invent a transition or forget a subscriber. Flows and the reconciler write the other members
 * themselves; export.h names the writer of each.
 *
 * A worker can write into the counters at any time, so values from there are checked before use.
 *
 * Read export_create() and read_options() first, then export_move() with export_note(), then
 * export_is_same(), by which a reload decides. record.c writes an export to disk; reconcile.c
 * decides its next step.
 */
#include "supervisor/export.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "supervisor/blocking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

void (*export_changed)(struct export *export);

struct worker_events export_worker_events;

const char *export_origin_name(enum export_origin origin)
{
	static const char *const origins[] = {
		[ORIGIN_DECLARED] = "declared",
		[ORIGIN_REQUESTED] = "requested",
		[ORIGIN_PERSISTENT] = "persistent",
	};

	return origins[origin];
}

static void note_relative(void *context, enum backend_need need, const char *path)
{
	(void)need;
	if (path && *path != '/')
		*(bool *)context = true;
}

/* ublkd's working directory means nothing to a client: require absolute paths. */
static int check_paths(const struct export *export, struct error *err)
{
	struct instance instance;
	bool relative = false;

	spec_to_instance(&export->spec, &instance);
	if (export->spec.backend->needs)
		export->spec.backend->needs(&instance, note_relative, &relative);
	return relative ? error_set(err, EINVAL, "'%s' has a relative path: use absolute paths",
				    export->uri)
			: 0;
}

static int read_options(struct export *export, struct error *err)
{
	const char *name;
	json_t *value;
	int ret;

	json_object_foreach(export->options, name, value) {
		ret = spec_set_any(&export->spec, name, json_string_value(value), err);
		if (ret)
			return ret;
	}
	ret = spec_check(&export->spec, err);
	return ret ? ret : check_paths(export, err);
}

int export_create(struct export **made, const char *name, const char *uri, json_t *options,
		  enum export_origin origin, struct error *err)
{
	struct export *export = calloc(1, sizeof(*export));
	int ret;

	if (!export || !options) {
		free(export);
		json_decref(options);
		return error_set(err, ENOMEM, "no memory for an export");
	}
	export->options = options;
	export->origin = origin;
	export->device.name = export->name;
	export->device.control = &export->control;
	export->device.outlives_server = true;
	export->worker.events = export_worker_events;
	export->worker.events.context = export;
	export->worker.counters_fd = export->storage.memory_fd = -1;
	export->reconciler.retry.data = export;
	export->health_cause = CAUSES;
	export->health_since_s = time(NULL);
	export->uri = strdup(uri);
	ret = export->uri ? name_check(name, err)
			  : error_set(err, ENOMEM, "no memory for an export");
	if (ret)
		goto free;
	snprintf(export->name, sizeof(export->name), "%s", name);
	ret = spec_open(&export->spec, uri, err);
	if (ret)
		goto free;
	ret = read_options(export, err);
	if (ret)
		goto close;
	export->device.partitions = export->spec.values[SPEC_PARTITIONS].set
					    ? !export->spec.values[SPEC_PARTITIONS].word
					    : export->spec.backend->partitions;
	uv_timer_init(uv_default_loop(), &export->reconciler.retry);
	*made = export;
	return 0;

close:
	spec_close(&export->spec);
free:
	json_decref(export->options);
	free(export->uri);
	free(export);
	return ret;
}

/* uv keeps the timer, a member of the export, until this callback. */
static void timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void export_destroy(struct export *export)
{
	worker_forget(export->worker.handle);
	fence_close(&export->worker.fence);
	if (export->worker.counters)
		counters_destroy(export->worker.counters);
	if (export->worker.counters_fd >= 0)
		close(export->worker.counters_fd);
	if (export->storage.memory_fd >= 0)
		close(export->storage.memory_fd);
	for (unsigned i = 0; i < EXPORT_HISTORY; i++)
		free(export->history[i].reason);
	spec_close(&export->spec);
	json_decref(export->options);
	json_decref(export->worker.threads);
	free(export->fault);
	free(export->uri);
	uv_close((uv_handle_t *)&export->reconciler.retry, timer_closed);
}

bool export_is_same(const struct export *export, const char *uri, const json_t *options)
{
	char difference[1024];

	return !*export_difference(export, uri, options, difference, sizeof(difference));
}

/*
 * --persist records some defaults as options, so that boot makes the same device again. A client
 * that repeats its request without them asks for the same export.
 */
static bool is_recorded(const struct export *export, const char *option)
{
	const char *const *recorded = export->spec.backend->recorded;

	for (unsigned i = 0; recorded && recorded[i]; i++)
		if (!strcmp(recorded[i], option))
			return true;
	return false;
}

static const char *option_text(const json_t *options, const char *name)
{
	const json_t *value = json_object_get(options, name);

	if (!value)
		return "not set";
	return json_is_string(value) ? json_string_value(value) : "on";
}

static void add_difference(char *out, size_t size, const char *name, const char *is,
			   const char *asked)
{
	size_t used = strlen(out);

	snprintf(out + used, size - used, "%s%s is %s, not %s", used ? ", " : "", name, is, asked);
	text_make_printable(out);
}

const char *export_difference(const struct export *export, const char *uri, const json_t *options,
			      char *out, size_t size)
{
	const char *name;
	json_t *value;

	*out = 0;
	if (strcmp(export->uri, uri) != 0)
		add_difference(out, size, "the URI", export->uri, uri);
	json_object_foreach(export->options, name, value) {
		const json_t *asked = json_object_get(options, name);

		if (asked ? !json_equal(value, asked) : !is_recorded(export, name))
			add_difference(out, size, name, option_text(export->options, name),
				       option_text(options, name));
	}
	json_object_foreach((json_t *)options, name, value) {
		if (!json_object_get(export->options, name))
			add_difference(out, size, name, "not set", option_text(options, name));
	}
	return out;
}

int export_record_option(struct export *export, const char *option, const char *value,
			 struct error *err)
{
	int ret = spec_set_any(&export->spec, option, value, err);

	if (!ret && json_object_set_new(export->options, option, json_string(value)))
		ret = error_set(err, ENOMEM, "no memory for an option");
	return ret;
}

static struct export_change *change_at(struct export *export, unsigned at)
{
	return &export->history[at % EXPORT_HISTORY];
}

static bool changes_match(const struct export_change *a, const struct export_change *b)
{
	if (a->state != b->state || !a->reason != !b->reason)
		return false;
	return !a->reason || !strcmp(a->reason, b->reason);
}

/* Whether the last `length` changes are those before them once more. */
static bool repeats(struct export *export, unsigned length)
{
	unsigned end = export->nr_changes;

	if (end - export->first_change < 2 * length)
		return false;
	for (unsigned i = 1; i <= length; i++)
		if (!changes_match(change_at(export, end - i), change_at(export, end - i - length)))
			return false;
	return true;
}

static void fold_history(struct export *export)
{
	unsigned length = 1, end = export->nr_changes;

	while (length <= EXPORT_CYCLE && !repeats(export, length))
		length++;
	if (length > EXPORT_CYCLE)
		return;
	for (unsigned i = 1; i <= length; i++) {
		struct export_change *again = change_at(export, end - i);
		struct export_change *kept = change_at(export, end - i - length);

		kept->repeated += again->repeated + 1;
		kept->last_us = again->last_us ? again->last_us : again->time_us;
		free(again->reason);
		*again = (struct export_change){ 0 };
	}
	export->nr_changes -= length;
	/* All had been reported as they came. */
	export->nr_reported = export->nr_changes;
}

void export_note(struct export *export, const char *reason)
{
	struct export_change *change = change_at(export, export->nr_changes);
	struct timeval now;

	gettimeofday(&now, NULL);
	free(change->reason);
	*change = (struct export_change){
		.time_us = (int64_t)now.tv_sec * 1000000 + now.tv_usec,
		.state = export->state,
		.reason = reason ? strdup(reason) : NULL,
	};
	export->nr_changes++;
	if (export->nr_changes - export->first_change > EXPORT_HISTORY)
		export->first_change++;
	export_changed(export);
	fold_history(export);
	fiber_raise(&export->changed);
}

void export_move(struct export *export, enum export_state to, const char *reason)
{
	assert(export_state_may(export->state, to));
	log_debug(export->name, "%s -> %s%s%s", export_state_name(export->state),
		  export_state_name(to), reason ? ": " : "", reason ? reason : "");
	export->state = to;
	if (to == EXPORT_SUSPENDED)
		log_event(LOG_EVENT_STATE, LOG_LEVEL_INFO, export->name,
			  "suspended: I/O is blocked");
	if (to == EXPORT_GONE)
		log_event(LOG_EVENT_STATE, LOG_LEVEL_INFO, export->name, "removed");
	export_note_health(export);
	export_note(export, reason);
}

void export_set_fault(struct export *export, const struct error *err)
{
	free(export->fault);
	export->fault = NULL;
	if (err) {
		export->fault = malloc(sizeof(*export->fault));
		if (export->fault)
			*export->fault = *err;
	}
	export_note_health(export);
	export_changed(export);
}

int export_find_holders(const struct export *export, struct holders *holders, unsigned ms)
{
	char block[32];
	int ret;

	*holders = (struct holders){ 0 };
	if (!export->device.exists)
		return 0;
	snprintf(block, sizeof(block), "ublkb%u", export->device.info.dev_id);
	ret = blocking_find_holders(export->name, block, holders, ms);
	/* Not started, or stopped already: there is nothing to be open. */
	return ret == -ENODEV ? 0 : ret;
}

bool export_check_lost(struct export *export)
{
	int lost = export->worker.counters
			   ? __atomic_load_n(&export->worker.counters->lost, __ATOMIC_RELAXED)
			   : 0;

	if (!lost || export->storage.lost)
		return false;
	/* The worker may have written any number: only an errno goes on record. */
	export->storage.lost = lost < 0 && lost >= -4095 ? lost : -EIO;
	export_note_health(export);
	return true;
}

unsigned export_nr_queues(const struct export *export)
{
	unsigned nr = export->worker.counters ? counters_nr_queues(export->worker.counters) : 0;

	return export->device.info.nr_hw_queues < nr ? export->device.info.nr_hw_queues : nr;
}

uint64_t export_served(const struct export *export)
{
	struct op_counters sum;
	uint64_t served = 0;

	/* Not the queues' sums: a new worker adds to them what the last one did not answer. */
	for (unsigned op = 0; export->worker.counters && op < IO_OPS; op++) {
		counters_sum(export->worker.counters, (enum io_op)op, &sum);
		served += sum.completed;
	}
	return served;
}

void export_note_live(struct export *export)
{
	export->worker.live_since_ms = clock_ms();
	export->worker.live_served = export_served(export);
	export_set_condition(export, CAUSE_UPGRADE, NULL);
}
