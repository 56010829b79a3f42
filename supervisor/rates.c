/* SPDX-License-Identifier: MIT */
/*
 * Counters begin again with a new device, and a worker can write anything there: a difference
 * that would be negative counts as nothing.
 */
#include "supervisor/rates.h"
#include "common/clock.h"
#include "supervisor/export.h"

static uint64_t load(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

/* Not counters_sum(), which adds up histograms as well. */
static void count_op(const struct export *export, enum io_op op, uint64_t *requests,
		     uint64_t *bytes)
{
	*requests = *bytes = 0;
	for (unsigned i = 0; i < export_nr_queues(export); i++) {
		const struct op_counters *c = &counters_queue(export->worker.counters, i)->op[op];

		*requests += load(&c->completed);
		*bytes += load(&c->bytes);
	}
}

void rates_count(const struct export *export, struct rates_sample *out)
{
	*out = (struct rates_sample){ .at_ms = clock_ms() };
	count_op(export, IO_READ, &out->reads, &out->read_bytes);
	count_op(export, IO_WRITE, &out->writes, &out->written_bytes);
}

void rates_sample(struct export *export)
{
	/* Of a worker that is adopted the counters have run for long: its first sample is the start. */
	if (!export->worker.counters) {
		export->rates = (struct rates){ 0 };
		return;
	}
	export->rates.before = export->rates.last;
	rates_count(export, &export->rates.last);
}

static double rate(uint64_t from, uint64_t to, double seconds)
{
	return to > from ? (double)(to - from) / seconds : 0;
}

void rates_now(const struct export *export, struct rates_now *out)
{
	const struct rates *r = &export->rates;
	const struct rates_sample *from = r->before.at_ms ? &r->before : &r->last;
	struct rates_sample now;
	double seconds;

	*out = (struct rates_now){ 0 };
	rates_count(export, &now);
	if (!from->at_ms || now.at_ms <= from->at_ms)
		return;
	seconds = (double)(now.at_ms - from->at_ms) / 1000;
	out->reads = rate(from->reads, now.reads, seconds);
	out->writes = rate(from->writes, now.writes, seconds);
	out->read_bytes = rate(from->read_bytes, now.read_bytes, seconds);
	out->written_bytes = rate(from->written_bytes, now.written_bytes, seconds);
}
