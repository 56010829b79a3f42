/* SPDX-License-Identifier: MIT */
/*
 * Finds hung workers: the counters of a hung worker stand still while the kernel has requests for
 * it. Counters are memory and requests are in sysfs, so an idle export costs one read. Only a
 * worker that stands still for BEATS beats is asked itself (flow_check()), since it may merely wait
 * for its storage.
 */
#include "supervisor/heartbeat.h"
#include "common/error.h"
#include "common/log.h"
#include "common/small_file.h"
#include "supervisor/reconcile.h"
#include "supervisor/request.h"
#include "supervisor/record.h"

#include <stdio.h>

#define BEAT_MS 7000 /* two beats and a check take less than 30 s */
#define BEATS   2u   /* without a completed round, until the worker is checked */

static uv_timer_t beat;
static struct export *const *exports;

/* Whether the block layer has requests in flight. */
static bool has_requests(const struct export *export)
{
	char path[64], text[64];
	unsigned long reads = 0, writes = 0;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/inflight", export->device.info.dev_id);
	if (small_file_line(path, text, sizeof(text)) > 0)
		sscanf(text, "%lu %lu", &reads, &writes);
	return reads || writes;
}

static void check_all(uv_timer_t *timer)
{
	struct error err;

	(void)timer;
	for (struct export *export = *exports; export; export = export->next) {
		uint64_t rounds;

		rates_sample(export);
		if (export->state != EXPORT_LIVE || !export->worker.counters ||
		    export->reconciler.busy)
			continue;
		/* The counters do not survive the worker and ublkd; the record does. */
		if (export_check_lost(export) && record_write(export, &err))
			log_error(export->name, "%s", err.text);
		rounds = counters_rounds(export->worker.counters);
		if (rounds != export->heartbeat.rounds || !has_requests(export)) {
			export->heartbeat.rounds = rounds;
			export->heartbeat.silent = 0;
			continue;
		}
		if (++export->heartbeat.silent < BEATS)
			continue;
		export->heartbeat.silent = 0;
		request_release(request_add(export, REQUEST_CHECK));
		reconcile_kick(export);
	}
}

void heartbeat_start(uv_loop_t *loop, struct export *const *list)
{
	exports = list;
	uv_timer_init(loop, &beat);
	uv_timer_start(&beat, check_all, BEAT_MS, BEAT_MS);
}
