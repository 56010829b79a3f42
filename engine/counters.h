/* SPDX-License-Identifier: MIT */
/*
 * Counters of a device's queues, which write them into shared memory.
 *
 * The memory is a memfd ("ublkd-counters") that any process with the right to
 * open /proc/PID/fd/N can map read-only: a struct counters, then one struct
 * queue_counters for each queue at header_bytes + i * queue_bytes.  Every number
 * is written by one thread only and with relaxed atomic stores, so that a reader
 * sees each number whole, but not two numbers of the same instant.
 */
#ifndef UBLKD_COUNTERS_H
#define UBLKD_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/backend.h"

#define COUNTERS_MAGIC   0x746e636b6c627500ull
#define COUNTERS_VERSION 2u
#define COUNTERS_NAME    "ublkd-counters"

/*
 * Latency buckets: 4 for each power of 2 of nanoseconds, so that a bucket's
 * bounds are at most a quarter apart; the last one holds all that is longer
 * than about 18 minutes.
 */
#define COUNTERS_BUCKETS 160

/* Kinds of failed requests; counters_error_name() says which errno each is. */
#define COUNTERS_ERRORS 10

struct op_counters {
	uint64_t completed; /* requests ended, failed ones too */
	uint64_t bytes;     /* done by them */
	uint64_t failed;
	uint64_t latency_ns; /* their sum */
	uint64_t latency[COUNTERS_BUCKETS];
};

struct queue_counters {
	uint64_t started; /* requests taken from the kernel */
	uint64_t
		completed; /* given back, or left to the next server: in flight is the difference */
	uint64_t rounds;   /* turns of the loop, one system call each */
	uint64_t fallbacks; /* zero copy requests that had to be copied */
	uint64_t errors[COUNTERS_ERRORS];
	struct op_counters op[IO_OPS];
	uint64_t polls; /* spins before a sleep, in what was padding before: version 2 has them */
	uint64_t poll_hits; /* of these, how many a completion ended */
	uint64_t poll_ns;   /* how long they took together */
} __attribute__((aligned(64)));

struct counters {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes;
	uint32_t queue_bytes;
	uint32_t nr_queues; /* at most as many as there is room for */
	uint32_t nr_ops;
	uint32_t nr_buckets;
	uint64_t bytes;    /* of the whole memory */
	int64_t started_s; /* CLOCK_REALTIME at creation, seconds */
	uint64_t gauges[INSTANCE_GAUGES];
	char gauge_names[INSTANCE_GAUGES][32];
	int32_t lost; /* -errno of the first flush that failed, see instance_lost() */
} __attribute__((aligned(64)));

/*
 * Creates the memory for nr_queues queues; *fd is the caller's to close, the
 * mapping counters_destroy()'s.  gauges: names, NULL-terminated, or NULL.
 * Returns NULL with errno set.
 */
struct counters *counters_create(unsigned nr_queues, const char *const *gauges, int *fd);
void counters_destroy(struct counters *counters);

/*
 * Maps what another process has made, for a server (writable) or a reader, after
 * a look that it is what it should be.  Returns NULL with errno set (EBADMSG: it
 * is no such memory, or could be made smaller under us).
 */
struct counters *counters_map(int fd, bool writable);

/*
 * How many queues there are, and no more than the mapping has room for, whatever
 * the process that shares it writes there.
 */
unsigned counters_nr_queues(const struct counters *counters);

/* queue: below counters_nr_queues().  Sizes are ours, not those that stand there. */
static inline struct queue_counters *counters_queue(struct counters *counters, unsigned queue)
{
	return (struct queue_counters *)(counters + 1) + queue;
}

/* Requests that all queues have completed, and rounds that they have done.  Any thread. */
uint64_t counters_completed(struct counters *counters);
uint64_t counters_rounds(struct counters *counters);

/* Adds to a number that only this thread writes. */
static inline void counters_add(uint64_t *number, uint64_t n)
{
	__atomic_store_n(number, *number + n, __ATOMIC_RELAXED);
}

static inline unsigned counters_bucket(uint64_t ns)
{
	unsigned log, bucket;

	if (ns < 4)
		return (unsigned)ns;
	log = 63u - (unsigned)__builtin_clzll(ns);
	bucket = (log - 1) * 4 + (unsigned)(ns >> (log - 2) & 3);
	return bucket < COUNTERS_BUCKETS ? bucket : COUNTERS_BUCKETS - 1;
}

/* The least latency, in ns, that falls into a bucket. */
uint64_t counters_bucket_start(unsigned bucket);

/* The latency in ns that `percent` of op's requests did not exceed; 0 without any. */
uint64_t counters_percentile(const struct op_counters *op, double percent);

/* "read" …; "EIO" …, "other". */
const char *counters_op_name(enum io_op op);
const char *counters_error_name(unsigned kind);
/* The kind of an errno (positive). */
unsigned counters_error_kind(int code);

/* Adds up the queues' counters of one op (latencies too) and of all errors. */
void counters_sum(struct counters *counters, enum io_op op, struct op_counters *sum);
uint64_t counters_sum_errors(struct counters *counters, unsigned kind);

#endif
