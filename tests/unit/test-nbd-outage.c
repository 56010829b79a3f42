/* SPDX-License-Identifier: MIT */
/*
 * What an outage reports, by which connections of which queues are lost: two queues with two
 * connections each, and calls as connection.c makes them.
 */
#include "backends/nbd/outage.h"
#include "engine/serve.h"
#include "tests/unit/test.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define QUEUES 2u
#define EACH   2u

static struct conditions conditions;
static struct instance instance;
static uint64_t now_ns;
static uint64_t gauges[INSTANCE_GAUGES];
static struct nbd nbd;
static struct nbd_queue queues[QUEUES];
static struct nbd_connection connections[QUEUES][EACH];

static int setup(void **state)
{
	(void)state;
	now_ns = 5000000000;
	memset(gauges, 0, sizeof(gauges));
	memset(&conditions, 0, sizeof(conditions));
	pthread_mutex_init(&conditions.lock, NULL);
	instance = (struct instance){
		.name = "test",
		.nr_queues = QUEUES,
		.conditions = &conditions,
		.gauges = gauges,
		.grown_event = eventfd(0, EFD_CLOEXEC),
	};
	nbd = (struct nbd){
		.instance = &instance,
		.nr_connections = QUEUES * EACH,
		.deadline_ns = NBD_FOREVER,
	};
	pthread_mutex_init(&nbd.outage_lock, NULL);
	for (unsigned q = 0; q < QUEUES; q++) {
		queues[q] = (struct nbd_queue){
			.nbd = &nbd,
			.index = q,
			.connections = connections[q],
			.nr_connections = EACH,
		};
		for (unsigned c = 0; c < EACH; c++)
			connections[q][c] = (struct nbd_connection){
				.owner = &queues[q],
				.number = c * QUEUES + q,
				.state = NBD_CONNECTION_READY,
			};
	}
	nbd_gauge_add(&nbd, NBD_GAUGE_CONNECTED, QUEUES * EACH);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pthread_mutex_destroy(&nbd.outage_lock);
	pthread_mutex_destroy(&conditions.lock);
	close(instance.grown_event);
	return 0;
}

static void lose(unsigned q, unsigned c, const char *reason)
{
	nbd_gauge_add(&nbd, NBD_GAUGE_CONNECTED, -1);
	connections[q][c].lost_ns = now_ns;
	nbd_outage_failed(&nbd, reason, false);
	connections[q][c].state = NBD_CONNECTION_DOWN;
}

/* So much time passes, in which each queue looks twice. */
static void pass(unsigned ms)
{
	for (unsigned i = 0; i < 2; i++) {
		now_ns += ms * 500000ull;
		for (unsigned q = 0; q < QUEUES; q++)
			nbd_outage_tick(&queues[q], now_ns);
	}
}

static void refuse(unsigned q, unsigned c, const char *reason, bool refused)
{
	connections[q][c].state = NBD_CONNECTION_CONNECTING;
	nbd_outage_failed(&nbd, reason, refused);
	connections[q][c].state = NBD_CONNECTION_DOWN;
}

static void connect_again(unsigned q, unsigned c)
{
	connections[q][c].state = NBD_CONNECTION_READY;
	nbd_gauge_add(&nbd, NBD_GAUGE_CONNECTED, 1);
	nbd_outage_connected(&queues[q]);
}

/* detail NULL: there is no trouble. */
static void expect_worst(enum health_cause cause, const char *detail)
{
	enum health_cause worst = health_worst(conditions.list);

	if (!detail) {
		assert_int_equal(worst, CAUSES);
		return;
	}
	assert_int_equal(worst, cause);
	assert_string_equal(conditions.list[worst].detail, detail);
}

static void test_a_queue_with_another_connection_is_degraded(void **state)
{
	(void)state;
	lose(0, 0, "reset");
	expect_worst(CAUSE_CONNECTIONS, "3 of 4 connections to the server: reset");
	lose(1, 1, "reset");
	expect_worst(CAUSE_CONNECTIONS, "2 of 4 connections to the server: reset");
	connect_again(0, 0);
	expect_worst(CAUSE_CONNECTIONS, "3 of 4 connections to the server: reset");
	pass(5000);
	expect_worst(CAUSE_CONNECTIONS, "3 of 4 connections to the server: reset");
	connect_again(1, 1);
	expect_worst(CAUSES, NULL);
}

static void test_a_queue_without_connection_waits(void **state)
{
	(void)state;
	lose(0, 0, "reset");
	lose(0, 1, "reset");
	expect_worst(CAUSE_CONNECTIONS, "2 of 4 connections to the server: reset");
	pass(900);
	expect_worst(CAUSE_CONNECTIONS, "2 of 4 connections to the server: reset");
	pass(100);
	expect_worst(CAUSE_SERVER_AWAY, "1 of 2 queues have no connection: reset");
	refuse(0, 0, "refused", false);
	expect_worst(CAUSE_SERVER_AWAY, "1 of 2 queues have no connection: refused");
	connect_again(0, 1);
	expect_worst(CAUSE_CONNECTIONS, "3 of 4 connections to the server: refused");
	connect_again(0, 0);
	expect_worst(CAUSES, NULL);
}

/* As one that was made again for a larger size, whose loss is no outage. */
static void test_a_connection_that_was_not_lost_and_is_refused_counts(void **state)
{
	(void)state;
	nbd_gauge_add(&nbd, NBD_GAUGE_CONNECTED, -2);
	connections[1][0].state = connections[1][1].state = NBD_CONNECTION_DOWN;
	connections[1][0].lost_ns = connections[1][1].lost_ns = now_ns;
	refuse(1, 0, "refused", false);
	expect_worst(CAUSE_CONNECTIONS, "2 of 4 connections to the server: refused");
	pass(1000);
	expect_worst(CAUSE_SERVER_AWAY, "1 of 2 queues have no connection: refused");
	connect_again(1, 1);
	connect_again(1, 0);
	expect_worst(CAUSES, NULL);
}

static void test_the_whole_server_comes_back_queue_by_queue(void **state)
{
	(void)state;
	for (unsigned q = 0; q < QUEUES; q++)
		for (unsigned c = 0; c < EACH; c++)
			lose(q, c, "reset");
	expect_worst(CAUSE_SERVER_AWAY, "no connection to the server: reset");
	refuse(0, 0, "too small", true);
	pass(1000);
	expect_worst(CAUSE_OTHER_EXPORT, "too small");
	connect_again(1, 0);
	expect_worst(CAUSE_SERVER_AWAY, "1 of 2 queues have no connection: too small");
	connect_again(0, 0);
	expect_worst(CAUSE_CONNECTIONS, "2 of 4 connections to the server: too small");
	connect_again(0, 1);
	connect_again(1, 1);
	expect_worst(CAUSES, NULL);
}

static void test_a_silent_server_that_answers_leaves_a_queue_waiting(void **state)
{
	(void)state;
	nbd_outage_silent(&nbd, true);
	expect_worst(CAUSE_SERVER_AWAY, "the server does not answer requests");
	lose(0, 0, "silent");
	lose(0, 1, "silent");
	pass(1000);
	nbd_outage_silent(&nbd, false);
	expect_worst(CAUSE_SERVER_AWAY, "1 of 2 queues have no connection: silent");
	connect_again(0, 0);
	connect_again(0, 1);
	expect_worst(CAUSES, NULL);
}

static void test_without_a_deadline_a_lost_server_fails_io(void **state)
{
	(void)state;
	nbd.deadline_ns = 0;
	for (unsigned q = 0; q < QUEUES; q++)
		for (unsigned c = 0; c < EACH; c++)
			lose(q, c, "reset");
	pass(1000);
	expect_worst(CAUSE_DEADLINE, "no connection to the server: reset");
	for (unsigned q = 0; q < QUEUES; q++)
		for (unsigned c = 0; c < EACH; c++)
			connect_again(q, c);
	expect_worst(CAUSES, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_queue_with_another_connection_is_degraded,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_queue_without_connection_waits, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			test_a_connection_that_was_not_lost_and_is_refused_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_whole_server_comes_back_queue_by_queue,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_a_silent_server_that_answers_leaves_a_queue_waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_a_deadline_a_lost_server_fails_io,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
