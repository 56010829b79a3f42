/* SPDX-License-Identifier: MIT */
#include "engine/counters.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

static void test_buckets_are_in_order_and_tight(void **state)
{
	(void)state;
	for (unsigned b = 0; b < COUNTERS_BUCKETS; b++) {
		uint64_t start = counters_bucket_start(b), next = counters_bucket_start(b + 1);

		assert_true(next > start);
		assert_int_equal(counters_bucket(start), b);
		if (b + 1 < COUNTERS_BUCKETS)
			assert_int_equal(counters_bucket(next - 1), b);
		/* At most a quarter apart: what a percentile may be off by. */
		if (b >= 4)
			assert_true((next - start) * 4 <= start);
	}
	assert_int_equal(counters_bucket_start(0), 0);
	assert_int_equal(counters_bucket(UINT64_MAX), COUNTERS_BUCKETS - 1);
	assert_int_equal(counters_bucket(1ull << 62), COUNTERS_BUCKETS - 1);
	/* The last bucket begins beyond any latency that is not a hang. */
	assert_true(counters_bucket_start(COUNTERS_BUCKETS - 1) > 15 * 60 * 1000000000ull);
}

static void test_every_latency_has_its_bucket(void **state)
{
	(void)state;
	for (uint64_t ns = 0; ns < 100000; ns++) {
		unsigned b = counters_bucket(ns);

		assert_true(counters_bucket_start(b) <= ns && ns < counters_bucket_start(b + 1));
	}
	for (unsigned bit = 2; bit < 40; bit++)
		for (int off = -1; off <= 1; off++) {
			uint64_t ns = (1ull << bit) + (uint64_t)off;
			unsigned b = counters_bucket(ns);

			assert_true(counters_bucket_start(b) <= ns &&
				    ns < counters_bucket_start(b + 1));
		}
}

static void record(struct op_counters *op, uint64_t ns, unsigned times)
{
	op->latency[counters_bucket(ns)] += times;
}

static void test_percentiles(void **state)
{
	struct op_counters op = { 0 };
	uint64_t last = 0;

	(void)state;
	assert_int_equal(counters_percentile(&op, 50), 0);
	record(&op, 1000, 90);
	record(&op, 50000, 9);
	record(&op, 7000000, 1);
	/* No request of the bucket may have taken longer, and the bound is tight. */
	assert_true(is_between(counters_percentile(&op, 50), 1000, 1250));
	assert_true(is_between(counters_percentile(&op, 90), 1000, 1250));
	assert_true(is_between(counters_percentile(&op, 95), 50000, 62500));
	assert_true(is_between(counters_percentile(&op, 99), 50000, 62500));
	assert_true(is_between(counters_percentile(&op, 100), 7000000, 8750000));
	for (double percent = 0; percent <= 100; percent += 0.25) {
		uint64_t now = counters_percentile(&op, percent);

		assert_true(now >= last);
		last = now;
	}
}

static void test_percentile_of_few_and_of_endless(void **state)
{
	struct op_counters op = { 0 };

	(void)state;
	record(&op, 3, 1);
	assert_int_equal(counters_percentile(&op, 0.1), 3);
	assert_int_equal(counters_percentile(&op, 100), 3);
	record(&op, UINT64_MAX, 1);
	assert_int_equal(counters_percentile(&op, 100),
			 counters_bucket_start(COUNTERS_BUCKETS - 1));
}

/*
 * Of three requests two are done when half are asked for: one of them does not
 * make a half.
 */
static void test_percentile_is_not_exceeded(void **state)
{
	struct op_counters op = { 0 };

	(void)state;
	record(&op, 1000, 1);
	record(&op, 1000000, 2);
	assert_true(counters_percentile(&op, 50) >= 1000000);
}

static void test_errors_have_kinds(void **state)
{
	static const struct {
		int code;
		const char *name;
	} known[] = {
		{ EIO, "EIO" },     { ENOSPC, "ENOSPC" },   { ENOMEM, "ENOMEM" },
		{ EPERM, "EPERM" }, { EINVAL, "EINVAL" },   { EOPNOTSUPP, "EOPNOTSUPP" },
		{ EROFS, "EROFS" }, { ENOLINK, "ENOLINK" }, { ETIMEDOUT, "ETIMEDOUT" },
		{ EBADF, "other" }, { 4095, "other" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(known) / sizeof(*known); i++) {
		unsigned kind = counters_error_kind(known[i].code);

		assert_true(kind < COUNTERS_ERRORS);
		assert_string_equal(counters_error_name(kind), known[i].name);
	}
	assert_string_equal(counters_error_name(COUNTERS_ERRORS), "?");
	for (unsigned op = 0; op < IO_OPS; op++)
		assert_string_not_equal(counters_op_name((enum io_op)op), "?");
	assert_string_equal(counters_op_name(IO_OPS), "?");
}

static void fill(struct counters *counters, unsigned queues)
{
	for (unsigned q = 0; q < queues; q++) {
		struct queue_counters *c = counters_queue(counters, q);

		assert_int_equal((uintptr_t)c % 64, 0);
		for (unsigned op = 0; op < IO_OPS; op++) {
			counters_add(&c->op[op].completed, 10 * (q + 1) + op);
			counters_add(&c->op[op].bytes, 4096 * (q + 1));
			counters_add(&c->op[op].failed, q);
			counters_add(&c->op[op].latency_ns, 7);
			counters_add(&c->op[op].latency[q], 3);
		}
		for (unsigned kind = 0; kind < COUNTERS_ERRORS; kind++)
			counters_add(&c->errors[kind], kind + q);
	}
}

static void test_sums_over_queues(void **state)
{
	struct counters *counters;
	struct op_counters sum;
	int fd;

	(void)state;
	counters = counters_create(3, NULL, &fd);
	assert_non_null(counters);
	fill(counters, 3);
	for (unsigned op = 0; op < IO_OPS; op++) {
		counters_sum(counters, (enum io_op)op, &sum);
		assert_int_equal(sum.completed, 60 + 3 * op);
		assert_int_equal(sum.bytes, 4096 * 6);
		assert_int_equal(sum.failed, 3);
		assert_int_equal(sum.latency_ns, 21);
		for (unsigned q = 0; q < 3; q++)
			assert_int_equal(sum.latency[q], 3);
		assert_int_equal(sum.latency[3], 0);
	}
	for (unsigned kind = 0; kind < COUNTERS_ERRORS; kind++)
		assert_int_equal(counters_sum_errors(counters, kind), 3 * kind + 3);
	counters_destroy(counters);
	close(fd);
}

/* A monitor maps it read-only through /proc, knowing only the header. */
static void test_another_process_can_read(void **state)
{
	static const char *const gauges[] = { "allocated-bytes", "limit-bytes", NULL };
	struct counters *counters;
	char path[64];
	int fd, status;
	pid_t child;

	(void)state;
	counters = counters_create(2, gauges, &fd);
	assert_non_null(counters);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	__atomic_store_n(&counters->gauges[1], 4711, __ATOMIC_RELAXED);
	fill(counters, 2);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
	child = fork();
	if (!child) {
		int seen = open(path, O_RDONLY);
		const struct counters *c = mmap(NULL, sizeof(*c), PROT_READ, MAP_SHARED, seen, 0);
		size_t bytes = c->header_bytes + (size_t)c->nr_queues * c->queue_bytes;
		const char *all = mmap(NULL, bytes, PROT_READ, MAP_SHARED, seen, 0);
		const struct queue_counters *second =
			(const void *)(all + c->header_bytes + c->queue_bytes);

		_exit(seen < 0 || c == MAP_FAILED || all == MAP_FAILED ||
		      c->magic != COUNTERS_MAGIC || c->version != COUNTERS_VERSION ||
		      c->nr_queues != 2 || c->nr_ops != IO_OPS ||
		      c->nr_buckets != COUNTERS_BUCKETS || c->gauges[1] != 4711 ||
		      strcmp(c->gauge_names[0], "allocated-bytes") ||
		      strcmp(c->gauge_names[1], "limit-bytes") || c->gauge_names[2][0] ||
		      second->op[IO_WRITE].completed != 21);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	counters_destroy(counters);
	close(fd);
}

static void test_as_many_gauges_as_fit(void **state)
{
	static const char *const many[] = {
		"a", "b", "c", "d", "e", "f", "g", "h", "too-many", NULL
	};
	static const char *const lengthy[] = { "a-name-of-a-gauge-that-is-too-long-for-its-place",
					       NULL };
	struct counters *counters;
	int fd;

	(void)state;
	counters = counters_create(1, many, &fd);
	assert_non_null(counters);
	assert_string_equal(counters->gauge_names[INSTANCE_GAUGES - 1], "h");
	counters_destroy(counters);
	close(fd);
	counters = counters_create(1, lengthy, &fd);
	assert_non_null(counters);
	assert_int_equal(strlen(counters->gauge_names[0]), sizeof(counters->gauge_names[0]) - 1);
	counters_destroy(counters);
	close(fd);
}

/* Another process, which shares the memory, writes what it likes there. */
static void test_counters_in_shared_memory_are_not_trusted(void **state)
{
	struct counters *counters, *seen;
	struct op_counters sum;
	int fd;

	(void)state;
	counters = counters_create(2, NULL, &fd);
	assert_non_null(counters);
	seen = counters_map(fd, false);
	assert_non_null(seen);
	counters->nr_queues = UINT32_MAX;
	counters->header_bytes = counters->queue_bytes = 0xfffffff0;
	counters->bytes = UINT64_MAX;
	assert_int_equal(counters_nr_queues(seen), 2);
	counters_sum(seen, IO_READ, &sum);
	assert_int_equal(counters_sum_errors(seen, 0), 0);
	assert_ptr_equal(counters_queue(seen, 1),
			 (char *)(seen + 1) + sizeof(struct queue_counters));
	assert_null(counters_map(fd, false));
	assert_int_equal(errno, EBADMSG);
	counters_destroy(seen);
	counters_destroy(counters);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buckets_are_in_order_and_tight),
		cmocka_unit_test(test_every_latency_has_its_bucket),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_percentile_of_few_and_of_endless),
		cmocka_unit_test(test_percentile_is_not_exceeded),
		cmocka_unit_test(test_errors_have_kinds),
		cmocka_unit_test(test_sums_over_queues),
		cmocka_unit_test(test_another_process_can_read),
		cmocka_unit_test(test_as_many_gauges_as_fit),
		cmocka_unit_test(test_counters_in_shared_memory_are_not_trusted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
