/* SPDX-License-Identifier: MIT */
/*
 * Commands and replies on the ring: answers in any order, cut anywhere, given twice, and while
 * sending is blocked.
 */
/* tests: tsan */
#include "tests/unit/scripted.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <string.h>

#define BLOCK 4096u
#define LARGE (64u << 10)
#define NR    SCRIPTED_READS

static struct scripted server;

static void begin(struct served *s, bool narrow)
{
	server.narrow = narrow;
	scripted_start(&server, 1, 0);
	scripted_serve(&server, s, "");
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
	scripted_end(&server);
	server.narrow = false;
}

/* The server lets go of what it holds from both ends. */
static void answers_in_any_order(uint32_t length)
{
	struct served s;

	begin(&s, false);
	scripted_reads_at_once(&server, length);
	assert_int_equal(server.accepted, 1);
	finish(&s);
}

static void test_answers_in_any_order(void **state)
{
	(void)state;
	answers_in_any_order(BLOCK);
	answers_in_any_order(LARGE);
}

/* In the header, in what goes through the stage, and in what is received into its place. */
static void test_a_read_that_is_cut_anywhere_is_read_again(void **state)
{
	static const unsigned cuts[] = { 0,    1,     4,     8,     15,    16,    17,    18,   4111,
					 4112, 16399, 16400, 16401, 30000, 65535, 65550, 65551 };
	unsigned accepted;
	struct served s;

	(void)state;
	begin(&s, false);
	scripted_fill(0, LARGE, 7);
	scripted_fill(LARGE, BLOCK, 8);
	for (unsigned i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
		/* A large read's answer is expected after a large one, a small one's after a small one. */
		for (unsigned before = 0; before < 2; before++) {
			scripted_holds(before ? LARGE : 0, before ? BLOCK : LARGE, before ? 8 : 7);
			accepted = atomic_load(&server.accepted);
			atomic_store(&server.cut, cuts[i] + 1);
			scripted_holds(0, LARGE, 7);
			if (atomic_load(&server.accepted) == accepted)
				fail_msg("cut after %u bytes: not noticed", cuts[i]);
		}
	}
	finish(&s);
}

/* The second answer has a cookie of nobody's: the connection cannot be trusted any more. */
static void test_an_answer_that_comes_twice_ends_the_connection(void **state)
{
	static const int commands[] = { SCRIPTED_READ, SCRIPTED_WRITE, SCRIPTED_FLUSH };
	struct served s;

	(void)state;
	begin(&s, false);
	for (unsigned i = 0; i < 3; i++) {
		scripted_fill(0, BLOCK, i + 1);
		atomic_store(&server.twice, commands[i]);
		if (commands[i] == SCRIPTED_FLUSH)
			assert_int_equal(fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
		else if (commands[i] == SCRIPTED_READ)
			scripted_holds(0, BLOCK, i + 1);
		else
			scripted_fill(0, BLOCK, i + 1);
		scripted_wait(&server.accepted, i + 2, "a new connection");
		scripted_holds(0, BLOCK, i + 1);
	}
	finish(&s);
}

/* A late answer must not pass for that of the command which has its place by now. */
static void test_a_late_answer_is_not_the_next_commands(void **state)
{
	uint8_t *data = fake_data(BLOCK, 1);
	struct fake_request *r;
	struct served s;

	(void)state;
	begin(&s, false);
	atomic_store(&server.late, true);
	assert_int_equal(scripted_transfer(UBLK_OP_WRITE, 0, BLOCK, data), 0);
	/* Nothing is to be sent again on another connection but what is in flight. */
	assert_int_equal(fake_request(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
	atomic_store(&server.twice, SCRIPTED_READ);
	scripted_holds(0, BLOCK, 1);
	/* The write has the place of that read, whose second answer comes before another's first. */
	atomic_store(&server.hold, SCRIPTED_WRITE);
	r = fake_request_start(0, 0, UBLK_OP_WRITE, 0, BLOCK, BLOCK, data);
	scripted_wait(&server.requests[SCRIPTED_WRITE], 2, "writes");
	scripted_holds(0, BLOCK, 1);
	/* The write was not acknowledged by that: it is under way still, on a new connection. */
	assert_int_equal(atomic_load(&server.accepted), 2);
	assert_false(fake_request_ended(r));
	atomic_store(&server.hold, -1);
	assert_int_equal(fake_request_wait(r), 0);
	finish(&s);
	atomic_store(&server.late, false);
	fake_data_free(data);
}

/*
 * A server that takes nothing more until its answers are taken. All requests go out at once, as
 * they do after the connection was lost.
 */
static void answers_are_taken_while_sending_is_blocked(void)
{
	struct fake_request *r[NR];
	uint8_t *data[NR];
	struct served s;

	begin(&s, true);
	for (unsigned round = 0; round < 3; round++) {
		atomic_store(&server.cut, 1);
		for (unsigned i = 0; i < NR; i++) {
			data[i] = fake_data(LARGE, i + 1);
			r[i] = fake_request_start(0, 0, i & 1 ? UBLK_OP_READ : UBLK_OP_WRITE, 0,
						  i / 2 * LARGE, LARGE, data[i]);
		}
		for (unsigned i = 0; i < NR; i++) {
			assert_int_equal(fake_request_wait(r[i]), 0);
			fake_data_free(data[i]);
		}
	}
	for (unsigned i = 0; i < NR; i += 2)
		scripted_holds(i / 2 * LARGE, LARGE, i + 1);
	assert_int_equal(server.accepted, 4);
	finish(&s);
}

static void test_answers_are_taken_while_sending_is_blocked(void **state)
{
	(void)state;
	answers_are_taken_while_sending_is_blocked();
}

/* The kernel's TLS sends what a socket has room for, and no more. */
static void test_the_rest_of_what_a_full_socket_took_is_sent(void **state)
{
	(void)state;
	atomic_store(&scripted_kernel_tls, true);
	answers_are_taken_while_sending_is_blocked();
	atomic_store(&scripted_kernel_tls, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers_in_any_order),
		cmocka_unit_test(test_a_read_that_is_cut_anywhere_is_read_again),
		cmocka_unit_test(test_an_answer_that_comes_twice_ends_the_connection),
		cmocka_unit_test(test_a_late_answer_is_not_the_next_commands),
		cmocka_unit_test(test_answers_are_taken_while_sending_is_blocked),
		cmocka_unit_test(test_the_rest_of_what_a_full_socket_took_is_sent),
	};

	int failed = cmocka_run_group_tests_name("user copy", tests, NULL, NULL);

	scripted_io_path = "copy";
	return failed + cmocka_run_group_tests_name("copy", tests, NULL, NULL);
}
