/* SPDX-License-Identifier: MIT */
/*
 * Structured replies, on the ring and by libnbd: a server that answers in parts, with holes and
 * errors, is cut off, or breaks the protocol. test-nbd-reply.c has more ways, without a server.
 */
/* tests: tsan */
#include "tests/unit/scripted.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#define BLOCK 4096u
#define LARGE (64u << 10)
#define DONE  SCRIPTED_DONE

static struct scripted server;
static atomic_int faults; /* so many answers are still to break the protocol */

static void begin(struct served *s, const char *options)
{
	server.structured = true;
	scripted_start(&server, 1, 0);
	atomic_store(&faults, 0);
	scripted_serve(&server, s, options);
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
	scripted_end(&server);
}

/* ---- answers ---- */

static bool is_read(struct scripted_answer *a)
{
	if (a->command == SCRIPTED_READ)
		return true;
	scripted_simple(a, 0);
	return false;
}

static bool is_fault(void)
{
	return atomic_fetch_sub(&faults, 1) > 0;
}

/* Sixteen parts, those with an even number first, and an end of its own. */
static void answer_in_parts(struct scripted_answer *a)
{
	uint32_t part = a->length / 16;

	if (!is_read(a))
		return;
	for (unsigned i = 0; i < 16; i++)
		scripted_data(a, 0, (i % 8 * 2 + i / 8) * part, part);
	scripted_chunk(a, DONE, 0, NULL, 0);
}

/* One large part, which is received into its place, between smaller ones. */
static void answer_backwards(struct scripted_answer *a)
{
	uint32_t part = a->length / 8;

	if (!is_read(a))
		return;
	scripted_data(a, 0, 7 * part, part);
	scripted_data(a, 0, part, 6 * part);
	scripted_data(a, DONE, 0, part);
}

/* The first half is one. */
static void answer_with_a_hole(struct scripted_answer *a)
{
	if (!is_read(a))
		return;
	scripted_data(a, 0, a->length / 2, a->length / 2);
	scripted_hole(a, DONE, 0, a->length / 2);
}

static void answer_by_chunks_alone(struct scripted_answer *a)
{
	if (a->command == SCRIPTED_READ)
		scripted_data(a, 0, 0, a->length);
	scripted_chunk(a, DONE, 0, NULL, 0);
}

/* ---- reads that succeed ---- */

static void test_parts_come_in_any_order(void **state)
{
	static const uint32_t lengths[] = { BLOCK, LARGE };
	struct served s;

	(void)state;
	for (unsigned n = 0; n < 6; n++) {
		uint32_t length = lengths[n & 1];

		begin(&s, "");
		atomic_store(&server.answer, n < 2   ? answer_in_parts
					     : n < 4 ? answer_backwards
						     : answer_by_chunks_alone);
		scripted_reads_at_once(&server, length);
		assert_int_equal(server.accepted, 1);
		finish(&s);
	}
}

/* The buffer of the read held something else before. */
static void test_holes_read_as_zeroes(void **state)
{
	static const uint32_t lengths[] = { BLOCK, LARGE };
	struct served s;

	(void)state;
	begin(&s, "");
	for (unsigned n = 0; n < 2; n++) {
		uint32_t half = lengths[n] / 2;
		uint8_t *data = fake_data(lengths[n], 3), *wanted = fake_data(lengths[n], 3);

		for (unsigned i = 0; i < 16; i++)
			scripted_fill(0, lengths[n], 3);
		atomic_store(&server.answer, answer_with_a_hole);
		for (unsigned i = 0; i < 16; i++) {
			assert_int_equal(scripted_transfer(UBLK_OP_READ, 0, lengths[n], data), 0);
			for (uint32_t at = 0; at < half; at++)
				assert_int_equal(data[at], 0);
			assert_memory_equal(data + half, wanted + half, half);
		}
		atomic_store(&server.answer, NULL);
		fake_data_free(data);
		fake_data_free(wanted);
	}
	assert_int_equal(server.accepted, 1);
	finish(&s);
}

/* ---- a connection that ends ---- */

/*
 * In a header, in what goes through the stage, and in what is received into its place. The large
 * part is behind 28 + 8192 + 28 bytes.
 */
static void test_a_read_that_is_cut_anywhere_is_read_again(void **state)
{
	static const unsigned cuts[] = { 0,     1,     15,    16,    19,    20,    27,   28,
					 29,    8219,  8220,  8236,  8247,  8248,  8249, 20000,
					 57399, 57400, 57401, 57419, 57428, 57429, 65619 };
	unsigned accepted;
	struct served s;

	(void)state;
	begin(&s, "");
	scripted_fill(0, LARGE, 7);
	scripted_fill(LARGE, BLOCK, 8);
	atomic_store(&server.answer, answer_backwards);
	for (unsigned i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
		/* A large read's answer is expected after a large one, a small one's after a small one. */
		scripted_holds(i & 1 ? LARGE : 0, i & 1 ? BLOCK : LARGE, i & 1 ? 8 : 7);
		accepted = atomic_load(&server.accepted);
		atomic_store(&server.cut, cuts[i] + 1);
		scripted_holds(0, LARGE, 7);
		if (atomic_load(&server.accepted) == accepted)
			fail_msg("cut after %u bytes: not noticed", cuts[i]);
	}
	finish(&s);
}

/* ---- errors ---- */

static void answer_with_an_error(struct scripted_answer *a)
{
	scripted_error(a, DONE, 5);
}

static void answer_with_an_error_after_data(struct scripted_answer *a)
{
	if (!is_read(a))
		return;
	scripted_data(a, 0, 0, a->length / 2);
	scripted_error(a, 0, 28);
	scripted_error(a, DONE, 5);
}

static void answer_with_an_error_before_data(struct scripted_answer *a)
{
	if (!is_read(a))
		return;
	scripted_error(a, 0, 1);
	scripted_data(a, 0, 0, a->length);
	scripted_chunk(a, DONE, 0, NULL, 0);
}

/* An error that is none. */
static void answer_with_no_error(struct scripted_answer *a)
{
	scripted_error(a, DONE, 0);
}

static void test_errors_arrive(void **state)
{
	static const struct {
		void (*answer)(struct scripted_answer *);
		int arrives;
		bool of_writes;
	} errors[] = {
		{ answer_with_an_error, -EIO, true },
		{ answer_with_an_error_after_data, -ENOSPC, false },
		{ answer_with_an_error_before_data, -EPERM, false },
		{ answer_with_no_error, -EINVAL, true },
	};
	uint8_t *data = fake_data(LARGE, 0);
	struct served s;

	(void)state;
	begin(&s, "");
	scripted_fill(0, LARGE, 1);
	for (unsigned i = 0; i < 2 * sizeof(errors) / sizeof(*errors); i++) {
		uint32_t length = i & 1 ? LARGE : BLOCK;

		/* Since 1.18 libnbd takes an error that is none for a breach of the protocol. */
		if (errors[i / 2].answer == answer_with_no_error &&
		    atomic_load(&scripted_without_wire))
			continue;
		atomic_store(&server.answer, errors[i / 2].answer);
		assert_int_equal(scripted_transfer(UBLK_OP_READ, 0, length, data),
				 errors[i / 2].arrives);
		if (errors[i / 2].of_writes)
			assert_int_equal(scripted_transfer(UBLK_OP_WRITE, LARGE, length, data),
					 errors[i / 2].arrives);
		atomic_store(&server.answer, NULL);
		scripted_holds(0, length, 1);
	}
	/* Each was the server's word, and none a reason to leave it. */
	assert_int_equal(server.accepted, 1);
	finish(&s);
	fake_data_free(data);
}

/* ---- a server that breaks the protocol ---- */

static void give_half(struct scripted_answer *a)
{
	scripted_data(a, DONE, 0, a->length / 2);
}

static void give_a_half_twice(struct scripted_answer *a)
{
	scripted_data(a, 0, 0, a->length / 2);
	scripted_data(a, 0, 0, a->length / 2);
	scripted_chunk(a, DONE, 0, NULL, 0);
}

static void give_all_and_more(struct scripted_answer *a)
{
	scripted_data(a, 0, 0, a->length);
	scripted_hole(a, DONE, 1, 1);
}

static void end_twice(struct scripted_answer *a)
{
	scripted_data(a, DONE, 0, a->length);
	scripted_chunk(a, DONE, 0, NULL, 0);
}

static void answer_simply(struct scripted_answer *a)
{
	uint8_t zeroes[BLOCK] = { 0 };

	scripted_simple(a, 0);
	memcpy(a->bytes + a->size, zeroes, sizeof(zeroes));
	a->size += sizeof(zeroes);
}

static void answer_of_old(struct scripted_answer *a)
{
	uint8_t old[8];

	/* As often used as it was before. */
	memcpy(old, a->cookie, 8);
	old[5]--;
	a->cookie = old;
	scripted_data(a, DONE, 0, a->length);
}

static void give_nothing_for_ever(struct scripted_answer *a)
{
	for (unsigned i = 0; i < 100; i++)
		scripted_data(a, 0, 0, 0);
	scripted_chunk(a, 0, 0, NULL, 0);
}

static void (*breaks)(struct scripted_answer *);

static void answer_break(struct scripted_answer *a)
{
	if (!is_read(a))
		return;
	if (is_fault())
		breaks(a);
	else
		answer_in_parts(a);
}

static void answer_write_with_data(struct scripted_answer *a)
{
	if (a->command == SCRIPTED_WRITE && is_fault())
		scripted_data(a, DONE, 0, 0);
	else
		answer_by_chunks_alone(a);
}

/* The connection is given up, and the read made again on the next one. */
static void is_left(void (*way)(struct scripted_answer *))
{
	struct served s;

	begin(&s, "");
	scripted_fill(0, BLOCK, 1);
	breaks = way;
	atomic_store(&server.answer, answer_break);
	atomic_store(&faults, 1);
	scripted_holds(0, BLOCK, 1);
	/* Some answers are whole, and break it behind that. */
	scripted_wait(&server.accepted, 2, "a new connection");
	scripted_holds(0, BLOCK, 1);
	assert_int_equal(server.accepted, 2);
	finish(&s);
}

static void test_a_read_without_each_byte_once_is_made_again(void **state)
{
	(void)state;
	is_left(give_half);
	is_left(give_a_half_twice);
	is_left(give_all_and_more);
}

static void test_a_server_that_breaks_the_protocol_is_left(void **state)
{
	struct served s;

	(void)state;
	is_left(end_twice);
	is_left(answer_simply);
	is_left(answer_of_old);
	is_left(give_nothing_for_ever);
	begin(&s, "");
	atomic_store(&server.answer, answer_write_with_data);
	atomic_store(&faults, 1);
	scripted_fill(0, BLOCK, 9);
	assert_int_equal(server.accepted, 2);
	scripted_holds(0, BLOCK, 9);
	finish(&s);
}

/* All of it again: its cookie is nobody's by now. */
static void test_an_answer_that_comes_twice_ends_the_connection(void **state)
{
	static const int commands[] = { SCRIPTED_READ, SCRIPTED_WRITE };
	struct served s;

	(void)state;
	begin(&s, "");
	for (unsigned i = 0; i < 2; i++) {
		atomic_store(&server.twice, commands[i]);
		scripted_fill(0, BLOCK, i + 1);
		scripted_holds(0, BLOCK, i + 1);
		scripted_wait(&server.accepted, i + 2, "a new connection");
		scripted_holds(0, BLOCK, i + 1);
	}
	finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_come_in_any_order),
		cmocka_unit_test(test_holes_read_as_zeroes),
		cmocka_unit_test(test_a_read_that_is_cut_anywhere_is_read_again),
		cmocka_unit_test(test_errors_arrive),
		cmocka_unit_test(test_a_read_without_each_byte_once_is_made_again),
		cmocka_unit_test(test_a_server_that_breaks_the_protocol_is_left),
		cmocka_unit_test(test_an_answer_that_comes_twice_ends_the_connection),
	};

	/* As with TLS. What breaks the protocol is libnbd's to say there, and its releases differ. */
	const struct CMUnitTest by_libnbd[] = {
		cmocka_unit_test(test_parts_come_in_any_order),
		cmocka_unit_test(test_holes_read_as_zeroes),
		cmocka_unit_test(test_a_read_that_is_cut_anywhere_is_read_again),
		cmocka_unit_test(test_errors_arrive),
		cmocka_unit_test(test_a_read_without_each_byte_once_is_made_again),
	};
	int failed = 0;

	for (unsigned i = 0; i < 2; i++) {
		scripted_io_path = i ? "copy" : "user-copy";
		atomic_store(&scripted_without_wire, false);
		failed += cmocka_run_group_tests_name("on the ring", tests, NULL, NULL);
		atomic_store(&scripted_without_wire, true);
		failed += cmocka_run_group_tests_name("by libnbd", by_libnbd, NULL, NULL);
	}
	return failed;
}
