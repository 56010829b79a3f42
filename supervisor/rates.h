/* SPDX-License-Identifier: MIT */
/*
 * What an export does: totals of its counters, and rates that do not depend on who asks.
 *
 * Thread: the loop's.
 */
#ifndef UBLKD_RATES_H
#define UBLKD_RATES_H

#include <stdint.h>

struct export;

/* Totals of the counters at one moment. */
struct rates_sample {
	uint64_t at_ms; /* clock_ms(); 0: no sample */
	uint64_t reads, writes, read_bytes, written_bytes;
};

/* The last two samples, which the heartbeat takes. Owner: the export. */
struct rates {
	struct rates_sample last, before;
};

/* A second. */
struct rates_now {
	double reads, writes, read_bytes, written_bytes;
};

/* The totals by now; all 0 where the export has no counters. */
void rates_count(const struct export *export, struct rates_sample *out);

/* Takes a sample; for the heartbeat. */
void rates_sample(struct export *export);

/*
 * Averages from the sample before the last one to now: over one to two heartbeats, or less
 * in an export's first seconds. Without counters, or a sample, all 0.
 */
void rates_now(const struct export *export, struct rates_now *out);

#endif
