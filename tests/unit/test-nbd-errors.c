/* SPDX-License-Identifier: MIT */
/*
 * The nbd backend before a server that answers with errors: each arrives as it is, and
 * after a flush that failed no other succeeds.
 */
/* tests: tsan */
#include "tests/unit/scripted.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>

#define BLOCK 4096u

static struct scripted server;

static void begin(struct served *s, const char *options)
{
	scripted_start(&server, 1, 0);
	scripted_serve(&server, s, options);
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
	scripted_end(&server);
}

/* The next answers of the server to the command are this error. */
static void set_failing(int command, unsigned times, unsigned error)
{
	atomic_store(&server.error[command], error);
	atomic_store(&server.fails[command], times);
}

static int flush(void)
{
	return fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
}

static void test_each_error_arrives(void **state)
{
	static const struct {
		unsigned op;
		int command;
	} requests[] = {
		{ UBLK_OP_READ, SCRIPTED_READ },
		{ UBLK_OP_WRITE, SCRIPTED_WRITE },
		{ UBLK_OP_DISCARD, SCRIPTED_TRIM },
		{ UBLK_OP_WRITE_ZEROES, SCRIPTED_ZERO },
	};
	/* NBD protocol, "Error values", and what it is here. */
	static const struct {
		unsigned sent;
		int arrives;
	} errors[] = {
		{ 1, -EPERM },   { 5, -EIO },        { 12, -ENOMEM },     { 22, -EINVAL },
		{ 28, -ENOSPC }, { 75, -EOVERFLOW }, { 95, -EOPNOTSUPP },
	};
	uint8_t *data = fake_data(BLOCK, 1);
	struct served s;

	(void)state;
	begin(&s, "");
	for (unsigned r = 0; r < sizeof(requests) / sizeof(*requests); r++)
		for (unsigned e = 0; e < sizeof(errors) / sizeof(*errors); e++) {
			int result;

			set_failing(requests[r].command, 1, errors[e].sent);
			result = fake_request(0, 0, requests[r].op, 0, 0, BLOCK, data);
			if (result != errors[e].arrives)
				fail_msg("command %d, error %u: %d", requests[r].command,
					 errors[e].sent, result);
			assert_int_equal(fake_request(0, 0, requests[r].op, 0, 0, BLOCK, data), 0);
		}
	assert_int_equal(flush(), 0);
	finish(&s);
	fake_data_free(data);
}

static void test_after_a_failed_flush_none_succeeds(void **state)
{
	static const struct {
		unsigned sent;
		int arrives;
	} errors[] = { { 5, -EIO }, { 28, -ENOSPC } };
	uint8_t *data = fake_data(BLOCK, 1);
	struct served s;

	(void)state;
	for (unsigned e = 0; e < 2; e++) {
		begin(&s, "");
		assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, 0, BLOCK, data), 0);
		assert_int_equal(flush(), 0);
		set_failing(SCRIPTED_FLUSH, 1, errors[e].sent);
		assert_int_equal(flush(), errors[e].arrives);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(flush(), errors[e].arrives);
		/* All else goes on. */
		assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, 0, BLOCK, data), 0);
		assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data), 0);
		assert_int_equal(flush(), errors[e].arrives);
		finish(&s);
	}
	fake_data_free(data);
}

/* The server may have told its loss to the first, and then has nothing more to tell. */
static void test_a_flush_beside_one_that_fails_fails(void **state)
{
	struct fake_request *r[2];
	struct served s;

	(void)state;
	begin(&s, "");
	atomic_store(&server.hold, SCRIPTED_FLUSH);
	for (unsigned i = 0; i < 2; i++) {
		r[i] = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
		scripted_wait(&server.requests[SCRIPTED_FLUSH], i + 1, "flushes");
	}
	set_failing(SCRIPTED_FLUSH, 1, 5);
	atomic_store(&server.hold, -1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(fake_request_wait(r[i]), -EIO);
	finish(&s);
}

/* The one that keeps what is retained within its bound. */
static void test_a_flush_of_our_own_that_fails_counts(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct fake_request *r;
	struct served s;

	(void)state;
	begin(&s, "-oretain=64K");
	atomic_store(&server.hold, SCRIPTED_FLUSH);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(
			fake_request(0, 0, UBLK_OP_WRITE, 0, (uint64_t)i * BLOCK, BLOCK, data), 0);
	scripted_wait(&server.requests[SCRIPTED_FLUSH], 1, "flushes");
	/* The server answers the two in the order in which they came. */
	r = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
	scripted_wait(&server.requests[SCRIPTED_FLUSH], 2, "flushes");
	set_failing(SCRIPTED_FLUSH, 1, 5);
	atomic_store(&server.hold, -1);
	assert_int_equal(fake_request_wait(r), -EIO);
	assert_int_equal(flush(), -EIO);
	finish(&s);
	fake_data_free(data);
}

/* A write that the server acknowledged once, lost with a connection and refuses then. */
static void test_a_replay_that_is_refused_fails_the_flush(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct served s;

	(void)state;
	begin(&s, "");
	assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, 0, BLOCK, data), 0);
	set_failing(SCRIPTED_WRITE, 1, 28);
	/* ESHUTDOWN: the connection is lost, and the read is sent again on the next one. */
	set_failing(SCRIPTED_READ, 1, 108);
	assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, 0, BLOCK, data), 0);
	assert_int_equal(atomic_load(&server.requests[SCRIPTED_WRITE]), 2);
	assert_int_equal(flush(), -ENOSPC);
	finish(&s);
	fake_data_free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_error_arrives),
		cmocka_unit_test(test_after_a_failed_flush_none_succeeds),
		cmocka_unit_test(test_a_flush_beside_one_that_fails_fails),
		cmocka_unit_test(test_a_flush_of_our_own_that_fails_counts),
		cmocka_unit_test(test_a_replay_that_is_refused_fails_the_flush),
	};

	bound_time(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
