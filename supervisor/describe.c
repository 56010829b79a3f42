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
#include "common/clock.h"
#include "common/cpus.h"
#include "common/error.h"
#include "engine/device_list.h"
#include "engine/holders.h"
#include "supervisor/control_async.h"
#include "supervisor/export.h"
#include "supervisor/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RATES_MS 500u /* less between two questions says nothing */

static void set_text(json_t *json, const char *key, const char *text)
{
	if (text && *text)
		json_object_set_new(json, key, json_string(text));
}

static void set_number(json_t *json, const char *key, uint64_t number)
{
	json_object_set_new(json, key, json_integer((json_int_t)number));
}

/* ---- counters ---- */

static uint64_t load(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

static unsigned queues_of(const struct export *export)
{
	unsigned nr = export->worker.counters ? counters_nr_queues(export->worker.counters) : 0;

	return export->device.info.nr_hw_queues < nr ? export->device.info.nr_hw_queues : nr;
}

/* Sums an op over all queues; counters_sum() adds up latencies as well, which takes longer. */
static void sum_op(struct export *export, enum io_op op, uint64_t *requests, uint64_t *bytes)
{
	*requests = *bytes = 0;
	for (unsigned i = 0; i < queues_of(export); i++) {
		const struct op_counters *c = &counters_queue(export->worker.counters, i)->op[op];

		*requests += load(&c->completed);
		*bytes += load(&c->bytes);
	}
}

static void set_rates(struct export *export, json_t *json)
{
	struct export_rates *r = &export->rates, now = { .at_ms = clock_ms() };
	double seconds = (double)(now.at_ms - r->at_ms) / 1000;

	if (!export->worker.counters)
		return;
	sum_op(export, IO_READ, &now.reads, &now.read_bytes);
	sum_op(export, IO_WRITE, &now.writes, &now.written_bytes);
	if (!r->at_ms) {
		*r = now;
	} else if (now.at_ms - r->at_ms >= RATES_MS) {
		now.reads_s = (double)(now.reads - r->reads) / seconds;
		now.writes_s = (double)(now.writes - r->writes) / seconds;
		now.read_bytes_s = (double)(now.read_bytes - r->read_bytes) / seconds;
		now.written_bytes_s = (double)(now.written_bytes - r->written_bytes) / seconds;
		*r = now;
	}
	json_object_set_new(json, "readsPerSecond", json_real(r->reads_s));
	json_object_set_new(json, "writesPerSecond", json_real(r->writes_s));
	json_object_set_new(json, "readBytesPerSecond", json_real(r->read_bytes_s));
	json_object_set_new(json, "writtenBytesPerSecond", json_real(r->written_bytes_s));
}

static json_t *facts(const struct export *export)
{
	json_t *json = json_object();

	for (unsigned i = 0; export->worker.counters && i < INSTANCE_GAUGES; i++) {
		char name[sizeof(export->worker.counters->gauge_names[i])];

		/* A worker could write there. */
		memcpy(name, export->worker.counters->gauge_names[i], sizeof(name));
		name[sizeof(name) - 1] = 0;
		text_make_printable(name);
		if (*name)
			set_number(json, name, load(&export->worker.counters->gauges[i]));
	}
	return json;
}

static json_t *queues(const struct export *export)
{
	const struct option_value *asked = &export->spec.values[SPEC_CPUS];
	json_t *array = json_array();
	struct control control;
	char text[512];

	control_async_init(&control, NULL);
	for (unsigned i = 0; i < queues_of(export); i++) {
		const struct queue_counters *c;
		uint64_t started, completed;
		struct cpus cpus = { 0 };
		struct error err;
		json_t *queue, *thread;

		if (!asked->set && export->device.exists)
			control_get_affinity(&control, export->device.info.dev_id, i, &cpus,
					     sizeof(cpus), &err);
		/* The export may have been removed meanwhile. */
		if (i >= queues_of(export))
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
		set_number(queue, "inFlight", started > completed ? started - completed : 0);
		set_number(queue, "requests", started);
		set_number(queue, "rounds", load(&c->rounds));
		set_number(queue, "fallbacks", load(&c->fallbacks));
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
	set_text(json, "health", health_name(health.health));
	set_text(json, "cause", health.cause);
	set_text(json, "reason", health.reason);
	set_text(json, "cure", health.cure);
	set_number(json, "healthSince", (uint64_t)health.since_s);
	device_path(&export->device, device, sizeof(device));
	if (*device) {
		snprintf(link, sizeof(link), NAME_DIRECTORY "/%s", export->name);
		set_text(json, "device", device);
		set_number(json, "id", export->device.info.dev_id);
		set_text(json, "link", link);
		set_number(json, "size", export->storage.limits.size);
		json_object_set_new(json, "readOnly",
				    json_boolean(export->storage.limits.read_only));
	}
	if (export->worker.handle && !worker_has_ended(export->worker.handle))
		set_number(json, "pid", (uint64_t)worker_pid(export->worker.handle));
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

static json_t *kernel_flags(uint64_t flags)
{
	static const char *const names[UBLK_FEAT_COUNT] = {
		"SUPPORT_ZERO_COPY",
		"URING_CMD_COMP_IN_TASK",
		"NEED_GET_DATA",
		"USER_RECOVERY",
		"USER_RECOVERY_REISSUE",
		"UNPRIVILEGED_DEV",
		"CMD_IOCTL_ENCODE",
		"USER_COPY",
		"ZONED",
		"USER_RECOVERY_FAIL_IO",
		"UPDATE_SIZE",
		"AUTO_BUF_REG",
		"QUIESCE",
		"PER_IO_DAEMON",
		"BUF_REG_OFF_DAEMON",
		"BATCH_IO",
		"INTEGRITY",
		"SAFE_STOP_DEV",
		"NO_AUTO_PART_SCAN",
		"SHMEM_ZC",
	};
	json_t *array = json_array();

	for (unsigned i = 0; i < UBLK_FEAT_COUNT; i++)
		if (flags & 1ull << i)
			json_array_append_new(array, json_string(names[i]));
	return array;
}

json_t *describe_change(const struct export *export, unsigned at)
{
	const struct export_change *change = &export->history[at % EXPORT_HISTORY];
	json_t *json = json_pack("{s:I, s:s}", "time", (json_int_t)change->time_us, "state",
				 export_state_name(change->state));

	set_text(json, "reason", change->reason);
	return json;
}

json_t *describe_holders(const struct holders *holders)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < holders->nr; i++) {
		const struct holder *h = &holders->list[i];
		json_t *json = json_pack("{s:s}", "kind", holder_kind_name(h->kind));
		char text[400];

		if (h->pid) {
			set_number(json, "pid", (uint64_t)h->pid);
			set_text(json, "command", text_escape(h->command, text, sizeof(text)));
		}
		if (h->path)
			set_text(json, "path", text_escape(h->path, text, sizeof(text)));
		json_array_append_new(array, json);
	}
	return array;
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
	unsigned first =
		export->nr_changes > EXPORT_HISTORY ? export->nr_changes - EXPORT_HISTORY : 0;

	add_options(options, spec_options, export->spec.values);
	add_options(options, export->spec.backend->options, export->spec.backend_values);
	for (unsigned i = first; i < export->nr_changes; i++)
		json_array_append_new(history, describe_change(export, i));
	json_object_set_new(json, "export", describe_export(export));
	json_object_set_new(json, "options", options);
	json_object_set_new(json, "queues", queues(export));
	if (export->device.exists) {
		control_async_init(&control, NULL);
		if (!control_get_info(&control, export->device.info.dev_id, &info, &err))
			set_text(json, "kernelState", devices_state_name(info.state));
		json_object_set_new(json, "limits", limits(&export->storage.limits));
		set_number(json, "depth", export->device.info.queue_depth);
		set_text(json, "ioPath", io_path_name(export->device.path));
		set_text(json, "ioPathReason", export->device.path_reason);
	}
	json_object_set_new(json, "kernelFlags",
			    kernel_flags(export->device.exists ? info.flags : 0));
	json_object_set_new(json, "facts", facts(export));
	set_number(json, "recoveries", export->reconciler.recoveries);
	json_object_set_new(json, "history", history);
	json_object_set_new(json, "holders", holders_of(export));
	return json;
}

json_t *describe_stats(struct export *export)
{
	json_t *json = json_pack("{s:s}", "name", export->name), *ops = json_array();
	json_t *errors = json_object();
	uint64_t in_flight = 0, n;
	char device[32];

	device_path(&export->device, device, sizeof(device));
	set_text(json, "device", device);
	set_number(json, "since",
		   export->worker.counters ? (uint64_t) export->worker.counters->started_s : 0);
	for (unsigned op = 0; export->worker.counters && op < IO_OPS; op++) {
		struct op_counters sum;
		json_t *o;

		counters_sum(export->worker.counters, op, &sum);
		o = json_pack("{s:s}", "name", counters_op_name(op));
		set_number(o, "completed", sum.completed);
		set_number(o, "failed", sum.failed);
		set_number(o, "bytes", sum.bytes);
		set_number(o, "mean", sum.completed ? sum.latency_ns / sum.completed : 0);
		set_number(o, "p50", counters_percentile(&sum, 50));
		set_number(o, "p90", counters_percentile(&sum, 90));
		set_number(o, "p99", counters_percentile(&sum, 99));
		set_number(o, "p999", counters_percentile(&sum, 99.9));
		json_array_append_new(ops, o);
	}
	for (unsigned kind = 0; export->worker.counters && kind < COUNTERS_ERRORS; kind++) {
		n = counters_sum_errors(export->worker.counters, kind);
		if (n)
			set_number(errors, counters_error_name(kind), n);
	}
	for (unsigned i = 0; i < queues_of(export); i++) {
		const struct queue_counters *c = counters_queue(export->worker.counters, i);
		uint64_t started = load(&c->started), completed = load(&c->completed);

		in_flight += started > completed ? started - completed : 0;
	}
	set_number(json, "inFlight", in_flight);
	json_object_set_new(json, "operations", ops);
	json_object_set_new(json, "errors", errors);
	json_object_set_new(json, "facts", facts(export));
	json_object_set_new(json, "queues", queues(export));
	return json;
}

/* ---- all ---- */

static json_t *describe_foreign(uint32_t id)
{
	struct ublk_dev_params params = { 0 };
	struct ublk_dev_info info;
	struct control control;
	struct error err;
	char device[32];
	json_t *json;

	control_async_init(&control, NULL);
	if (control_get_info(&control, id, &info, &err))
		return NULL;
	snprintf(device, sizeof(device), UBLK_BLOCK_PREFIX "%u", id);
	json = json_pack("{s:s, s:s, s:s, s:s}", "name", device, "origin", "foreign", "state",
			 "foreign", "device", device);
	set_number(json, "id", id);
	set_text(json, "reason", devices_state_name(info.state));
	if (!control_get_params(&control, id, &params, &err))
		set_number(json, "size", params.basic.dev_sectors << UBLK_SECTOR_SHIFT);
	if (info.server_pid > 0)
		set_number(json, "pid", (uint64_t)info.server_pid);
	return json;
}

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

json_t *describe_all(void)
{
	json_t *array = json_array(), *foreign;
	uint32_t *ours, *all;
	unsigned nr_ours, nr;

	/* Without a wait in between: the table stays as it is. */
	add_ours(array);
	ours = our_devices(&nr_ours);
	device_list_find(&all, &nr);
	for (unsigned i = 0; ours && i < nr; i++) {
		if (bsearch(&all[i], ours, nr_ours, sizeof(*ours), device_list_by_id))
			continue;
		foreign = describe_foreign(all[i]);
		if (foreign)
			json_array_append_new(array, foreign);
	}
	free(all);
	free(ours);
	return array;
}
