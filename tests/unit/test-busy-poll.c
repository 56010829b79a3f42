/* SPDX-License-Identifier: MIT */
/*
 * A queue's thread that spins before it sleeps: when it does and when it gives that up, what ends
 * a spin, and what the counters say of it.
 */
#include "common/clock.h"
#include "common/cpus.h"
#include "common/error.h"
#include "engine/busy_poll.h"
#include "engine/ring.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <sched.h>

/* Rounds up to the next spin. */
static unsigned rounds_to_spin(struct busy_poll *poll)
{
	unsigned n = 0;

	while (!busy_poll_is_due(poll, 1))
		n++;
	return n;
}

static void miss(struct busy_poll *poll, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		assert_int_equal(rounds_to_spin(poll), 0);
		busy_poll_ended(poll, false, 0);
	}
}

static void test_rests_twice_as_long_each_time_that_it_does_not_pay(void **state)
{
	struct busy_poll poll = { .bound_ns = 1000 };

	(void)state;
	for (unsigned rest = BUSY_POLL_REST; rest < BUSY_POLL_REST_MAX; rest *= 2) {
		miss(&poll, BUSY_POLL_MISSES);
		assert_int_equal(rounds_to_spin(&poll), rest);
	}
	for (unsigned i = 0; i < 2; i++) {
		miss(&poll, BUSY_POLL_MISSES);
		assert_int_equal(rounds_to_spin(&poll), BUSY_POLL_REST_MAX);
	}
}

static void test_each_that_pays_halves_the_next_rest(void **state)
{
	struct busy_poll poll = { .bound_ns = 1000 };

	(void)state;
	for (unsigned rest = BUSY_POLL_REST; rest <= 4 * BUSY_POLL_REST; rest *= 2) {
		miss(&poll, BUSY_POLL_MISSES);
		assert_int_equal(rounds_to_spin(&poll), rest);
	}
	miss(&poll, BUSY_POLL_MISSES - 1);
	busy_poll_ended(&poll, true, 0);
	busy_poll_ended(&poll, true, 0);
	/* It ended that row of misses, too. */
	miss(&poll, BUSY_POLL_MISSES);
	assert_int_equal(rounds_to_spin(&poll), 2 * BUSY_POLL_REST);
	for (unsigned i = 0; i < 10; i++)
		busy_poll_ended(&poll, true, 0);
	miss(&poll, BUSY_POLL_MISSES);
	assert_int_equal(rounds_to_spin(&poll), BUSY_POLL_REST);
}

static void test_rests_at_once_where_the_cpu_is_wanted(void **state)
{
	struct busy_poll poll = { .bound_ns = 1000 };

	(void)state;
	busy_poll_ended(&poll, true, 7);
	assert_int_equal(rounds_to_spin(&poll), BUSY_POLL_REST);
	busy_poll_ended(&poll, true, 7);
	assert_int_equal(rounds_to_spin(&poll), 0);
	busy_poll_ended(&poll, false, 8);
	assert_int_equal(rounds_to_spin(&poll), BUSY_POLL_REST);
	busy_poll_ended(&poll, true, 9);
	assert_int_equal(rounds_to_spin(&poll), 2 * BUSY_POLL_REST);
}

static void test_neither_when_off_nor_when_busy(void **state)
{
	struct busy_poll poll = { .bound_ns = 0 };

	(void)state;
	assert_false(busy_poll_is_due(&poll, 0));
	poll.bound_ns = 1000;
	assert_true(busy_poll_is_due(&poll, BUSY_POLL_BUSY - 1));
	assert_false(busy_poll_is_due(&poll, BUSY_POLL_BUSY));
}

static void nothing(struct ring_op *op, int result)
{
	(void)op;
	(void)result;
}

static void test_a_spin_ends_with_a_completion_or_with_its_time(void **state)
{
	struct ring_op op = { .done = nothing };
	struct io_uring_sqe *sqe;
	struct ring ring;
	struct error err;
	uint64_t began;

	(void)state;
	fake_start(&fake_linux_7_2);
	assert_int_equal(ring_open(&ring, 8, RING_OP(IORING_OP_NOP), true, &err), 0);
	began = clock_ns();
	assert_false(ring_poll(&ring, began + 2000000));
	assert_true(clock_ns() - began >= 2000000);
	fake_hold_work(true);
	sqe = ring_sqe(&ring);
	io_uring_prep_nop(sqe);
	ring_sqe_for(sqe, &op);
	assert_int_equal(ring_submit(&ring), 0);
	assert_false(ring_poll(&ring, clock_ns() + 2000000));
	fake_hold_work(false);
	assert_true(ring_poll(&ring, UINT64_MAX));
	assert_int_equal(ring_wait(&ring), 0);
	assert_int_equal(ring_dispatch(&ring), 1);
	assert_false(ring_poll(&ring, clock_ns()));
	ring_close(&ring);
	fake_stop();
}

/* What the queue counted while a device of these words served 50 requests. */
static struct queue_counters serve(const char *words)
{
	struct queue_counters counters;
	struct served s;

	fake_start(&fake_linux_7_2);
	served_begin(&s, words);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(standalone_stop(&s.standalone, &s.err), 0);
	counters = *counters_queue(s.standalone.counters, 0);
	standalone_forget(&s.standalone);
	served_close(&s);
	fake_stop();
	return counters;
}

static void test_a_queue_counts_its_spins(void **state)
{
	struct queue_counters c;

	(void)state;
	if (cpus_available() < 2)
		skip();
	c = serve("null:1M queues=1 poll-us=10000");
	assert_true(c.polls > 0 && c.poll_hits <= c.polls);
	assert_true(c.poll_ns > 0);
}

static void test_off_is_the_default(void **state)
{
	(void)state;
	assert_int_equal(serve("null:1M queues=1").polls, 0);
}

static void test_on_one_cpu_it_never_spins(void **state)
{
	char words[64];

	(void)state;
	snprintf(words, sizeof(words), "null:1M queues=1 poll-us=auto cpus=%d", sched_getcpu());
	assert_int_equal(serve(words).polls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rests_twice_as_long_each_time_that_it_does_not_pay),
		cmocka_unit_test(test_each_that_pays_halves_the_next_rest),
		cmocka_unit_test(test_rests_at_once_where_the_cpu_is_wanted),
		cmocka_unit_test(test_neither_when_off_nor_when_busy),
		cmocka_unit_test(test_a_spin_ends_with_a_completion_or_with_its_time),
		cmocka_unit_test(test_a_queue_counts_its_spins),
		cmocka_unit_test(test_off_is_the_default),
		cmocka_unit_test(test_on_one_cpu_it_never_spins),
	};

	bound_time(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
