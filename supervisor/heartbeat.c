/* SPDX-License-Identifier: MIT */
/*
 * A worker that hangs says nothing: its counters stand still while the kernel has requests
 * for it. Both are read from memory and sysfs, so an idle export costs one read; only one
 * that stands still for BEATS beats is asked itself (flow_look()).
 */
#include "supervisor/heartbeat.h"
#include "common/error.h"
#include "common/log.h"
#include "common/small_file.h"
#include "supervisor/reconcile.h"

#include <stdio.h>

#define BEAT_MS 7000 /* two beats and a look are less than 30 s */
#define BEATS   2u   /* without a sign of life, until it is looked at */

static uv_timer_t beat;
static struct managed *const *exports;

/* Requests that the kernel has and nobody has answered. */
static bool has_requests(const struct managed *m)
{
	char path[64], text[64];
	unsigned long reads = 0, writes = 0;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/inflight", m->device.info.dev_id);
	if (small_file_line(path, text, sizeof(text)) > 0)
		sscanf(text, "%lu %lu", &reads, &writes);
	return reads || writes;
}

static void check_all(uv_timer_t *timer)
{
	struct error err;

	(void)timer;
	for (struct managed *m = *exports; m; m = m->next) {
		uint64_t rounds;

		if (m->state != EXPORT_LIVE || !m->counters || m->keeping)
			continue;
		if (managed_look_lost(m) && managed_write(m, &err))
			log_error(m->name, "%s", err.text);
		rounds = counters_rounds(m->counters);
		if (rounds != m->seen_rounds || !has_requests(m)) {
			m->seen_rounds = rounds;
			m->silent = 0;
			continue;
		}
		if (++m->silent < BEATS)
			continue;
		m->silent = 0;
		m->look = true;
		reconcile_kick(m);
	}
}

void heartbeat_start(uv_loop_t *loop, struct managed *const *list)
{
	exports = list;
	uv_timer_init(loop, &beat);
	uv_timer_start(&beat, check_all, BEAT_MS, BEAT_MS);
}
