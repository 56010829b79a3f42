/* SPDX-License-Identifier: MIT */
/*
 * JSON for the types of io.ublkd.varlink: Export, Details, Stats and Change.
 *
 * Numbers come from the export, from its counters and from the kernel. The counters are shared
 * memory that a worker updates during the read: two numbers may belong to two moments, and a
 * difference of two is checked before use. Names of gauges come from a worker, and names of
 * holders from any process; text_escape() and text_make_printable() clean both.
 *
 * Asking the kernel or searching for holders suspends the fiber, and a removal may proceed
 * meanwhile. Loops over queues therefore check the number of queues again after each wait, and
 * describe_all() lists ublkd's own exports before its first wait.
 *
 * Read describe_export() first; describe_details() and describe_stats() extend it. describe_all()
 * adds the devices of other servers.
 */
#include "supervisor/describe.h"
#include "common/cpus.h"
#include "common/error.h"
#include "engine/device_list.h"
#include "engine/holders.h"
#include "supervisor/control_async.h"
#include "supervisor/describe_counters.h"
#include "supervisor/describe_device.h"
#include "supervisor/export.h"
#include "common/json_set.h"
#include "supervisor/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- counters ---- */

static uint64_t load(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

/* Counters, and rates made of them. */
static void set_rates(const struct export *export, json_t *json)
{
	struct rates_sample total;
	struct rates_now now;

	if (!export->worker.counters)
		return;
	rates_count(export, &total);
	rates_now(export, &now);
	json_set_number(json, "reads", total.reads);
	json_set_number(json, "writes", total.writes);
	json_set_number(json, "readBytes", total.read_bytes);
	json_set_number(json, "writtenBytes", total.written_bytes);
	json_object_set_new(json, "readsPerSecond", json_real(now.reads));
	json_object_set_new(json, "writesPerSecond", json_real(now.writes));
	json_object_set_new(json, "readBytesPerSecond", json_real(now.read_bytes));
	json_object_set_new(json, "writtenBytesPerSecond", json_real(now.written_bytes));
}

static json_t *queues(const struct export *export)
{
	const struct option_value *asked = &export->spec.values[SPEC_CPUS];
	json_t *array = json_array();
	struct control control;
	char text[512];

	control_async_init(&control, NULL);
	for (unsigned i = 0; i < export_nr_queues(export); i++) {
		const struct queue_counters *c;
		uint64_t started, completed;
		struct cpus cpus = { 0 };
		struct error err;
		json_t *queue, *thread;

		if (!asked->set && export->device.exists)
			control_get_affinity(&control, export->device.info.dev_id, i, &cpus,
					     sizeof(cpus), &err);
		/* The export may have been removed meanwhile. */
		if (i >= export_nr_queues(export))
			break;
		c = counters_queue(export->worker.counters, i);
		started = load(&c->started);
		completed = load(&c->completed);
		queue = json_pack("{s:i, s:s}", "index", (int)i, "cpus",
				  asked->set ? asked->text
					     : cpus_format(&cpus, text, sizeof(text)));
		thread = json_array_get(export->worker.threads, i);
		if (json_is_integer(thread))
			json_object_set(queue, "thread", thread);
		json_set_number(queue, "inFlight", started > completed ? started - completed : 0);
		json_set_number(queue, "requests", started);
		json_set_number(queue, "rounds", load(&c->rounds));
		json_set_number(queue, "copied", load(&c->fallbacks));
		if (load(&c->polls)) {
			json_set_number(queue, "polls", load(&c->polls));
			json_set_number(queue, "pollHits", load(&c->poll_hits));
			json_set_number(queue, "pollNsec", load(&c->poll_ns));
		}
		json_array_append_new(array, queue);
	}
	return array;
}

/* ---- an export ---- */

json_t *describe_export(struct export *export)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", export->name, "uri",
				 export->uri, "origin", export_origin_name(export->origin), "state",
				 export_state_name(export->state), "backend",
				 export->spec.backend->scheme);
	char device[32], link[NAME_MAX_LENGTH + 16];
	struct export_health health;

	export_health(export, &health);
	json_set_text(json, "health", health_name(health.health));
	json_set_text(json, "cause", health.cause);
	json_set_text(json, "reason", health.reason);
	json_set_text(json, "cure", health.cure);
	json_set_number(json, "healthSinceUsec", (uint64_t)health.since_s * 1000000);
	device_path(&export->device, device, sizeof(device));
	if (*device) {
		snprintf(link, sizeof(link), NAME_DIRECTORY "/%s", export->name);
		json_set_text(json, "device", device);
		json_set_number(json, "id", export->device.info.dev_id);
		json_set_text(json, "link", link);
		json_set_number(json, "size", export->storage.limits.size);
		json_object_set_new(json, "readOnly",
				    json_boolean(export->storage.limits.read_only));
	}
	if (export->worker.handle && !worker_has_ended(export->worker.handle))
		json_set_number(json, "pid", (uint64_t)worker_pid(export->worker.handle));
	set_rates(export, json);
	return json;
}

static void add_options(json_t *array, const struct option_def *table,
			const struct option_value *values)
{
	for (; table && table->name; table++, values++) {
		const char *text = values->given && values->text ? values->text : table->dflt;

		if (!text)
			text = values->given ? "on" : NULL;
		if (text)
			json_array_append_new(array, json_pack("{s:s, s:s, s:b}", "name",
							       table->name, "value", text, "given",
							       (int)values->given));
	}
}

static json_t *limits(const struct backend_limits *l)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:b, s:b, s:b, s:b}",
			 "logicalBlock", (int)l->logical_block, "physicalBlock",
			 (int)l->physical_block, "minIo", (int)l->min_io, "optimalIo",
			 (int)l->opt_io, "maxIo", (int)l->max_io, "discardGranularity",
			 (int)l->discard_granularity, "maxDiscard", (json_int_t)l->max_discard,
			 "maxWriteZeroes", (json_int_t)l->max_write_zeroes, "readOnly",
			 (int)l->read_only, "rotational", (int)l->rotational, "volatileCache",
			 (int)l->volatile_cache, "fua", (int)l->fua);
}

json_t *describe_change(const struct export *export, unsigned at)
{
	const struct export_change *change = &export->history[at % EXPORT_HISTORY];
	json_t *json = json_pack("{s:I, s:s}", "timeUsec", (json_int_t)change->time_us, "state",
				 export_state_name(change->state));

	json_set_text(json, "reason", change->reason);
	if (change->repeated) {
		json_set_number(json, "repeated", change->repeated);
		json_set_number(json, "lastUsec", (uint64_t)change->last_us);
	}
	return json;
}

static json_t *holders_of(const struct export *export)
{
	struct holders holders;
	json_t *array;

	export_find_holders(export, &holders, EXPORT_HOLDERS_MS);
	array = describe_holders(&holders);
	holders_close(&holders);
	return array;
}

json_t *describe_details(struct export *export)
{
	json_t *json = json_object(), *options = json_array(), *history = json_array();
	struct ublk_dev_info info = export->device.info;
	struct control control;
	struct error err;

	add_options(options, spec_options, export->spec.values);
	add_options(options, export->spec.backend->options, export->spec.backend_values);
	for (unsigned i = export->first_change; i < export->nr_changes; i++)
		json_array_append_new(history, describe_change(export, i));
	json_object_set_new(json, "export", describe_export(export));
	json_object_set_new(json, "options", options);
	json_object_set_new(json, "queues", queues(export));
	if (export->device.exists) {
		control_async_init(&control, NULL);
		if (!control_get_info(&control, export->device.info.dev_id, &info, &err))
			json_set_text(json, "kernelState", devices_state_name(info.state));
		json_object_set_new(json, "limits", limits(&export->storage.limits));
		json_set_number(json, "depth", export->device.info.queue_depth);
		json_set_text(json, "ioPath", io_path_name(export->device.path));
		json_set_text(json, "ioPathReason", export->device.path_reason);
	}
	json_object_set_new(json, "kernelFlags",
			    describe_kernel_flags(export->device.exists ? info.flags : 0));
	json_object_set_new(json, "facts", describe_facts(export->worker.counters));
	json_set_number(json, "recoveries", export->reconciler.recoveries);
	json_object_set_new(json, "history", history);
	json_object_set_new(json, "holders", holders_of(export));
	return json;
}

json_t *describe_stats(struct export *export)
{
	struct counters *counters = export->worker.counters;
	json_t *json = json_pack("{s:s}", "name", export->name);
	uint64_t in_flight = 0;
	char device[32];

	device_path(&export->device, device, sizeof(device));
	json_set_text(json, "device", device);
	json_set_number(json, "sinceUsec", counters ? (uint64_t)counters->started_s * 1000000 : 0);
	for (unsigned i = 0; i < export_nr_queues(export); i++) {
		const struct queue_counters *c = counters_queue(export->worker.counters, i);
		uint64_t started = load(&c->started), completed = load(&c->completed);

		in_flight += started > completed ? started - completed : 0;
	}
	json_set_number(json, "inFlight", in_flight);
	json_object_set_new(json, "operations", describe_operations(counters));
	json_object_set_new(json, "errors", describe_errors(counters));
	json_object_set_new(json, "facts", describe_facts(counters));
	json_object_set_new(json, "queues", queues(export));
	return json;
}

/* ---- all ---- */

/* Numbers of the devices that are ours, sorted; the caller frees them. */
static uint32_t *our_devices(unsigned *nr)
{
	uint32_t *ids;
	unsigned n = 0;

	for (struct export *export = supervisor_exports; export; export = export->next)
		n++;
	ids = calloc(n ? n : 1, sizeof(*ids));
	*nr = 0;
	for (struct export *export = supervisor_exports; ids && export && *nr < n;
	     export = export->next)
		if (export->device.exists)
			ids[(*nr)++] = export->device.info.dev_id;
	if (ids)
		qsort(ids, *nr, sizeof(*ids), device_list_by_id);
	return ids;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct export *const *)a)->name, (*(struct export *const *)b)->name);
}

static void add_ours(json_t *array)
{
	struct export **all, *export;
	unsigned nr = 0, i = 0;

	for (export = supervisor_exports; export; export = export->next)
		nr++;
	all = calloc(nr ? nr : 1, sizeof(struct export *));
	for (export = supervisor_exports; all && export; export = export->next)
		all[i++] = export;
	if (all)
		qsort(all, i, sizeof(struct export *), by_name);
	for (nr = i, i = 0; i < nr; i++)
		json_array_append_new(array, describe_export(all[i]));
	free(all);
}

/* ExportInfo of what a wrong declaration would have made. */
static json_t *refused_info(const struct settings_error *e)
{
	const struct health_cause_def *cause = &health_causes[CAUSE_CONFIGURATION];
	json_t *json =
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", e->name, "origin", "declared",
			  "state", export_state_name(EXPORT_FAILED), "health",
			  health_name(cause->health), "cause", cause->name, "cure", cause->cure);
	char reason[SETTINGS_ERROR_TEXT];

	settings_error_text(e->file, e->line, e->text, reason, sizeof(reason));
	json_set_text(json, "reason", reason);
	json_set_number(json, "healthSinceUsec", (uint64_t)supervisor_settings_read_s * 1000000);
	return json;
}

json_t *describe_refused(const char *name)
{
	const struct settings_error *e = settings_find_error(&supervisor_settings, name);

	return e ? json_pack("{s:o, s:[], s:[], s:{}, s:i, s:[], s:[], s:[]}", "export",
			     refused_info(e), "options", "queues", "facts", "recoveries", 0,
			     "history", "holders", "kernelFlags")
		 : NULL;
}

static void add_refused(json_t *array)
{
	for (unsigned i = 0; i < supervisor_settings.nr_errors; i++) {
		const struct settings_error *e = &supervisor_settings.errors[i];

		/* Once for each name, whatever else is wrong with it. */
		if (e->name && settings_find_error(&supervisor_settings, e->name) == e &&
		    !supervisor_find(e->name))
			json_array_append_new(array, refused_info(e));
	}
}

json_t *describe_all(void)
{
	json_t *array = json_array(), *foreign;
	struct control control;
	uint32_t *ours, *all;
	unsigned nr_ours, nr;

	control_async_init(&control, NULL);
	/* Without a wait in between: the table stays as it is. */
	add_ours(array);
	add_refused(array);
	ours = our_devices(&nr_ours);
	device_list_find(&all, &nr);
	for (unsigned i = 0; ours && i < nr; i++) {
		if (bsearch(&all[i], ours, nr_ours, sizeof(*ours), device_list_by_id))
			continue;
		foreign = describe_device(&control, all[i]);
		if (foreign)
			json_array_append_new(array, foreign);
	}
	free(all);
	free(ours);
	return array;
}
