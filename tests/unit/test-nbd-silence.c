/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend before a server that is silent: a slow one keeps its connection and gets
 * each request once, a dead one is found, and a lost one is not besieged.  The queues'
 * clock is the test's (fake_clock_pass()), so that no test waits for a time-out.
 */
/* tests: tsan */
#include "tests/unit/scripted.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define BLOCK 4096u

static struct scripted server;

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
	scripted_end(&server);
	fake_clock_reset();
}

static uint64_t gauge(const struct served *s, const char *name)
{
	const char *const *names = backend_find("nbd")->gauges;
	unsigned i = 0;

	while (strcmp(names[i], name) != 0)
		i++;
	return __atomic_load_n(&s->standalone.serving.instance.gauges[i], __ATOMIC_RELAXED);
}

static void wait_for_gauge(const struct served *s, const char *name, uint64_t wanted)
{
	for (unsigned ms = 0; gauge(s, name) != wanted; ms++) {
		if (ms > 30000)
			fail_msg("%s: %llu, and never %llu", name,
				 (unsigned long long)gauge(s, name), (unsigned long long)wanted);
		poll(NULL, 0, 1);
	}
}

/* A few ticks of the queue's; what it must not do then it must never do. */
static void some_ticks(void)
{
	poll(NULL, 0, 500);
}

static const struct {
	unsigned op;
	int command;
	uint32_t length;
} slow_ones[] = {
	{ UBLK_OP_FLUSH, SCRIPTED_FLUSH, 0 },      { UBLK_OP_WRITE_ZEROES, SCRIPTED_ZERO, BLOCK },
	{ UBLK_OP_DISCARD, SCRIPTED_TRIM, BLOCK }, { UBLK_OP_WRITE, SCRIPTED_WRITE, BLOCK },
	{ UBLK_OP_READ, SCRIPTED_READ, BLOCK },
};

static struct fake_request *start(unsigned i, uint8_t *data)
{
	return fake_request_start(0, 0, slow_ones[i].op, 0, 0, slow_ones[i].length, data);
}

/* Five time-outs long; the server serves one request at a time, and negotiates. */
static void test_a_slow_request_is_sent_once(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct served s;

	(void)state;
	for (unsigned i = 0; i < sizeof(slow_ones) / sizeof(*slow_ones); i++) {
		struct fake_request *r;

		scripted_start(&server, 1, 0);
		atomic_store(&server.serial, true);
		scripted_serve(&server, &s, "-orequest-timeout=30");
		atomic_store(&server.hold, slow_ones[i].command);
		r = start(i, data);
		scripted_wait(&server.requests[slow_ones[i].command], 1, "requests");
		for (unsigned probes = 1; probes <= 10; probes++) {
			fake_clock_pass(16);
			scripted_wait(&server.ended, probes, "probes");
		}
		assert_false(fake_request_ended(r));
		atomic_store(&server.hold, -1);
		assert_int_equal(fake_request_wait(r), 0);
		assert_int_equal(atomic_load(&server.requests[slow_ones[i].command]), 1);
		assert_int_equal(gauge(&s, "reconnects"), 0);
		finish(&s);
	}
	fake_data_free(data);
}

/* Others are answered on its connection: no probe is needed. */
static void test_a_slow_request_among_others_is_sent_once(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct fake_request *r;
	struct served s;

	(void)state;
	scripted_start(&server, 1, 0);
	scripted_serve(&server, &s, "-orequest-timeout=30");
	atomic_store(&server.hold, SCRIPTED_FLUSH);
	r = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
	scripted_wait(&server.requests[SCRIPTED_FLUSH], 1, "flushes");
	/* For longer than a time-out there is nothing that a probe could tell. */
	atomic_store(&server.mute, true);
	for (unsigned i = 0; i < 20; i++) {
		fake_clock_pass(14);
		assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data), 0);
	}
	assert_false(fake_request_ended(r));
	atomic_store(&server.hold, -1);
	assert_int_equal(fake_request_wait(r), 0);
	assert_int_equal(atomic_load(&server.requests[SCRIPTED_FLUSH]), 1);
	assert_int_equal(gauge(&s, "reconnects"), 0);
	finish(&s);
	fake_data_free(data);
}

/* The server accepts connections, as a stopped process's kernel does, and does not negotiate. */
static void test_a_stopped_server_is_found(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct fake_request *r;
	struct served s;

	(void)state;
	scripted_start(&server, 1, 0);
	scripted_serve(&server, &s, "-orequest-timeout=30");
	atomic_store(&server.hold, SCRIPTED_READ);
	atomic_store(&server.mute, true);
	r = fake_request_start(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data);
	scripted_wait(&server.requests[SCRIPTED_READ], 1, "reads");
	fake_clock_pass(16);
	scripted_wait(&server.accepted, 2, "probes");
	assert_int_equal(gauge(&s, "connected"), 1);
	fake_clock_pass(15);
	wait_for_gauge(&s, "connected", 0);
	atomic_store(&server.hold, -1);
	atomic_store(&server.mute, false);
	assert_int_equal(fake_request_wait(r), 0);
	assert_int_equal(gauge(&s, "reconnects"), 1);
	finish(&s);
	fake_data_free(data);
}

/* A request that a living server has forgotten: that takes ten time-outs, and no more. */
static void test_a_forgotten_request_is_sent_again(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct fake_request *r;
	struct served s;

	(void)state;
	scripted_start(&server, 1, 0);
	scripted_serve(&server, &s, "-orequest-timeout=30");
	atomic_store(&server.hold, SCRIPTED_READ);
	r = fake_request_start(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data);
	scripted_wait(&server.requests[SCRIPTED_READ], 1, "reads");
	fake_clock_pass(301);
	scripted_wait(&server.requests[SCRIPTED_READ], 2, "reads");
	atomic_store(&server.hold, -1);
	assert_int_equal(fake_request_wait(r), 0);
	finish(&s);
	fake_data_free(data);
}

/*
 * A server of one connection cannot be probed: what is slow is given up for its age once,
 * and has twice the time then.
 */
static void test_a_request_that_timed_out_has_twice_the_time(void **state)
{
	struct fake_request *r;
	struct served s;

	(void)state;
	scripted_start(&server, 1, 0);
	atomic_store(&server.single, true);
	scripted_serve(&server, &s, "-orequest-timeout=30");
	atomic_store(&server.hold, SCRIPTED_FLUSH);
	r = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
	for (unsigned cuts = 0; cuts < 3; cuts++) {
		unsigned time_out = 30u << cuts;

		scripted_wait(&server.requests[SCRIPTED_FLUSH], cuts + 1, "flushes");
		fake_clock_pass(time_out / 2 + 1);
		/* The link's own, and a probe. */
		scripted_wait(&server.accepted, 2 * (cuts + 1), "probes");
		fake_clock_pass(time_out / 2 - 3);
		some_ticks();
		assert_int_equal(atomic_load(&server.requests[SCRIPTED_FLUSH]), cuts + 1);
		fake_clock_pass(3);
	}
	scripted_wait(&server.requests[SCRIPTED_FLUSH], 4, "flushes");
	atomic_store(&server.hold, -1);
	assert_int_equal(fake_request_wait(r), 0);
	finish(&s);
}

/* The longer it is away, the more seldom it is asked, up to five seconds. */
static void test_a_server_that_is_away_is_asked_seldom(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct fake_request *r;
	unsigned before, tries;
	struct served s;
	time_t began;

	(void)state;
	scripted_start(&server, 1, 0);
	scripted_serve(&server, &s, "-orequest-timeout=30");
	atomic_store(&server.rejects, true);
	atomic_store(&server.hold, SCRIPTED_READ);
	r = fake_request_start(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data);
	scripted_wait(&server.requests[SCRIPTED_READ], 1, "reads");
	fake_clock_pass(301);
	wait_for_gauge(&s, "connected", 0);
	scripted_wait(&server.accepted, 2, "tries");
	fake_clock_pass(4000);
	before = atomic_load(&server.accepted);
	scripted_wait(&server.accepted, before + 1, "tries");
	before = atomic_load(&server.accepted);
	began = time(NULL);
	poll(NULL, 0, 2000);
	/* At least half of the five seconds are between two. */
	tries = atomic_load(&server.accepted) - before;
	if (tries > 1 + (unsigned)(time(NULL) - began + 1) * 2 / 5)
		fail_msg("%u tries", tries);
	atomic_store(&server.hold, -1);
	atomic_store(&server.rejects, false);
	before = atomic_load(&server.accepted);
	fake_clock_pass(6);
	scripted_wait(&server.accepted, before + 1, "tries");
	assert_int_equal(fake_request_wait(r), 0);
	finish(&s);
	fake_data_free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_slow_request_is_sent_once),
		cmocka_unit_test(test_a_slow_request_among_others_is_sent_once),
		cmocka_unit_test(test_a_stopped_server_is_found),
		cmocka_unit_test(test_a_forgotten_request_is_sent_again),
		cmocka_unit_test(test_a_request_that_timed_out_has_twice_the_time),
		cmocka_unit_test(test_a_server_that_is_away_is_asked_seldom),
	};

	bound_time(200);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
