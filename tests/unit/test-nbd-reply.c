/* SPDX-License-Identifier: MIT */
/*
 * Replies taken apart, without a socket: structured ones in every order, cut at every byte, and
 * those that break the protocol.
 */
#include "backends/nbd/command.h"
#include "backends/nbd/reply.h"
#include "tests/unit/test.h"

#include <endian.h>
#include <errno.h>

#define NR     4u
#define OFFSET (1u << 20) /* of the read */
#define LARGE  (128u << 10)
#define SMALL  4096u
#define ENDS   1u /* the flag DONE */

enum type {
	NONE = 0,
	DATA = 1,
	HOLE = 2,
	STATUS = 5,
	UNKNOWN = 77,
	ERROR = 0x8001,
	ERROR_AT = 0x8002,
	ERROR_UNKNOWN = 0x8077,
};

static struct nbd_commands commands;
static struct nbd_replies *replies;
static const char *fault;

static uint8_t place[LARGE], wanted[LARGE]; /* the read's buffer, and what it has to be */
static uint64_t cookie, sent_ns;
/* The commands in flight, by index. */
static struct read {
	void *place;
	const void *came;
	uint32_t length;
} reads[NR];
static unsigned ended;
static int ended_with;

/* What the server sends. */
static uint8_t stream[1u << 20];
static size_t size, at;
static size_t heads[32]; /* where its chunks begin */
static unsigned nr_heads;

static int done(void *context, int *error)
{
	struct read *r = context;

	ended++;
	ended_with = *error;
	/* The buffer gets what was not received there. */
	if (r->place && !*error && !r->came)
		memset(r->place, 0, r->length);
	else if (r->place && !*error)
		memmove(r->place, r->came, r->length);
	return 1;
}

static unsigned start(enum nbd_command_type type, uint32_t length, void *data)
{
	struct nbd_command command = {
		.type = type,
		.length = length,
		.offset = OFFSET,
		.data = data,
		.sent_ns = &sent_ns,
		.done = done,
	};
	unsigned index = nbd_commands_add(&commands, &command);
	struct nbd_command *c = &commands.entries[index].command;

	reads[index] = (struct read){ data, data, length };
	c->came = &reads[index].came;
	c->context = &reads[index];
	cookie = nbd_commands_cookie(&commands, index);
	return index;
}

/* One command, in flight on a new socket; a read's buffer is dirty, and its data 1, 2, 3... */
static void begin(enum nbd_command_type type, uint32_t length, bool structured)
{
	nbd_commands_reset(&commands);
	nbd_replies_reset(replies, structured);
	fault = NULL;
	ended = 0;
	ended_with = -1;
	size = at = nr_heads = 0;
	memset(place, 0xee, sizeof(place));
	for (size_t i = 0; i < sizeof(wanted); i++)
		wanted[i] = (uint8_t)(i * 7 + i / 256 + 1);
	start(type, length, type == NBD_COMMAND_READ ? place : NULL);
}

static int create(void **state)
{
	(void)state;
	if (nbd_commands_create(&commands, NR))
		return -1;
	replies = nbd_replies_create(&commands, &fault);
	return replies ? 0 : -1;
}

static int destroy(void **state)
{
	(void)state;
	nbd_replies_destroy(replies);
	nbd_commands_destroy(&commands);
	return 0;
}

/* ---- what the server sends ---- */

static void put(uint64_t value, unsigned bytes)
{
	while (bytes--)
		stream[size++] = (uint8_t)(value >> 8 * bytes);
}

static void put_bytes(const void *bytes, size_t n)
{
	memcpy(stream + size, bytes, n);
	size += n;
}

static void put_chunk(unsigned flags, enum type type, uint32_t length)
{
	heads[nr_heads++ % 32] = size;
	put(0x668e33ef, 4);
	put(flags, 2);
	put(type, 2);
	put(cookie, 8);
	put(length, 4);
}

static void put_simple(uint32_t error)
{
	put(0x67446698, 4);
	put(error, 4);
	put(cookie, 8);
}

static void put_end(void)
{
	put_chunk(ENDS, NONE, 0);
}

/* A part of the data that the read has to get. */
static void put_data(unsigned flags, uint32_t from, uint32_t length)
{
	put_chunk(flags, DATA, 8 + length);
	put(OFFSET + from, 8);
	put_bytes(wanted + from, length);
}

static void put_hole(unsigned flags, uint32_t from, uint32_t length)
{
	put_chunk(flags, HOLE, 12);
	put(OFFSET + from, 8);
	put(length, 4);
	memset(wanted + from, 0, length);
}

static void put_error(unsigned flags, enum type type, uint32_t error, uint32_t text, uint32_t tail)
{
	put_chunk(flags, type, 6 + text + tail);
	put(error, 4);
	put(text, 2);
	for (uint32_t i = 0; i < text; i++)
		put('!', 1);
	if (type == ERROR_AT)
		put(OFFSET, 8);
	else
		for (uint32_t i = 0; i < tail; i++)
			put(0, 1);
}

/* ---- what comes ---- */

/* The stream comes up to there; as much at a time as is asked for. */
static void arrive(size_t until)
{
	while (at < until && !fault) {
		size_t length;
		bool all;
		void *to = nbd_replies_where(replies, &length, &all);

		assert_true(length > 0);
		if (length > until - at)
			length = until - at;
		memcpy(to, stream + at, length);
		at += length;
		nbd_replies_came(replies, length);
	}
}

static void ends_well(uint32_t length)
{
	assert_null(fault);
	assert_int_equal(ended, 1);
	assert_int_equal(ended_with, 0);
	assert_memory_equal(place, wanted, length);
}

/* The stream is the protocol's breach, and whose command has not ended. */
static void is_refused(void)
{
	arrive(size);
	assert_non_null(fault);
	assert_string_equal(fault, "the server breaks the protocol");
	assert_int_equal(ended, 0);
}

/* ---- reads ---- */

static void test_parts_come_in_any_order(void **state)
{
	static const unsigned orders[][8] = {
		{ 0, 1, 2, 3, 4, 5, 6, 7 },
		{ 7, 6, 5, 4, 3, 2, 1, 0 },
		{ 0, 2, 4, 6, 1, 3, 5, 7 },
		{ 3, 7, 1, 5, 0, 4, 2, 6 },
	};
	static const uint32_t lengths[] = { SMALL, LARGE };

	(void)state;
	for (unsigned i = 0; i < 16; i++) {
		uint32_t length = lengths[i & 1], part = length / 8;
		bool holes = i & 2;

		begin(NBD_COMMAND_READ, length, true);
		for (unsigned j = 0; j < 8; j++) {
			unsigned n = orders[i / 4][j];

			if (holes && n % 3 == 0)
				put_hole(0, n * part, part);
			else
				put_data(holes && j == 7 ? ENDS : 0, n * part, part);
			if (j < 7)
				put_data(0, n * part, 0); /* nothing */
		}
		if (!holes || orders[i / 4][7] % 3 == 0)
			put_end();
		arrive(size);
		ends_well(length);
	}
}

/* Many small chunks, as a server with small clusters sends them. */
static void test_there_may_be_many_parts(void **state)
{
	(void)state;
	begin(NBD_COMMAND_READ, LARGE, true);
	for (uint32_t from = 0; from < LARGE; from += 64)
		put_data(0, from, 64);
	put_end();
	arrive(size);
	ends_well(LARGE);
}

/* Data before and behind holes; some of it large enough to be received into its place. */
static void put_mixture(uint32_t length)
{
	uint32_t quarter = length / 4;

	put_data(0, 2 * quarter, quarter + 100);
	put_hole(0, 0, quarter);
	put_data(0, 3 * quarter + 100, quarter - 100);
	put_hole(0, quarter, 10);
	put_data(ENDS, quarter + 10, quarter - 10);
}

/* In a chunk's header, or just beside it. */
static bool is_near_a_head(size_t cut)
{
	for (unsigned i = 0; i < nr_heads; i++)
		if (cut + 2 >= heads[i] && cut <= heads[i] + 34)
			return true;
	return cut + 2 >= size;
}

/* A long one not at each byte of its data. */
static void test_a_reply_may_be_cut_anywhere_in_two(void **state)
{
	static const uint32_t lengths[] = { SMALL, LARGE };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		begin(NBD_COMMAND_READ, lengths[i], true);
		put_mixture(lengths[i]);
		for (size_t cut = 0, end = size; cut < end; cut++) {
			if (i && cut % 509 && !is_near_a_head(cut))
				continue;
			begin(NBD_COMMAND_READ, lengths[i], true);
			put_mixture(lengths[i]);
			arrive(cut);
			/* The last byte is the one that ends it. */
			assert_null(fault);
			assert_int_equal(ended, 0);
			arrive(size);
			ends_well(lengths[i]);
		}
	}
}

static void test_a_reply_may_come_byte_by_byte(void **state)
{
	(void)state;
	begin(NBD_COMMAND_READ, LARGE, true);
	put_mixture(LARGE);
	for (size_t n = 1; n <= size; n++) {
		assert_int_equal(ended, 0);
		arrive(n);
	}
	ends_well(LARGE);
}

/* A chunk that the stage has no room for is not waited for there. */
static void test_a_part_may_be_larger_than_the_stage(void **state)
{
	static uint8_t huge[512u << 10];
	uint32_t length = sizeof(huge);

	(void)state;
	for (unsigned structured = 0; structured < 2; structured++)
		/* All but little of it comes at once. */
		for (uint32_t late = 1; late < 300000; late *= 8) {
			begin(NBD_COMMAND_FLUSH, 0, structured);
			commands.entries[start(NBD_COMMAND_READ, length, huge)].command.offset =
				OFFSET;
			if (structured) {
				put_chunk(ENDS, DATA, 8 + length);
				put(OFFSET, 8);
			} else {
				put_simple(0);
			}
			memset(stream + size, 0x5a, length);
			memset(huge, 0, length);
			size += length;
			arrive(size - late);
			assert_int_equal(ended, 0);
			arrive(size);
			assert_null(fault);
			assert_int_equal(ended, 1);
			for (uint32_t i = 0; i < length; i++)
				assert_true(huge[i] == 0x5a);
		}
}

/* Chunks of two commands alternate. */
static void test_replies_may_alternate(void **state)
{
	static uint8_t other[LARGE];
	uint64_t first, second;

	(void)state;
	begin(NBD_COMMAND_READ, LARGE, true);
	first = cookie;
	start(NBD_COMMAND_READ, LARGE, other);
	second = cookie;
	for (unsigned i = 0; i < 4; i++) {
		cookie = i & 1 ? second : first;
		put_data(0, i / 2 * (LARGE / 2), LARGE / 2);
	}
	cookie = second;
	put_end();
	cookie = first;
	arrive(size);
	assert_int_equal(ended, 1);
	assert_memory_equal(other, wanted, LARGE);
	put_end();
	ended = 0;
	arrive(size);
	ends_well(LARGE);
}

/* Others come between all of its data and the chunk that ends it. */
static void test_data_stays_until_the_reply_ends(void **state)
{
	static uint8_t other[SMALL];
	uint64_t first, second;

	(void)state;
	begin(NBD_COMMAND_READ, SMALL, true);
	first = cookie;
	put_data(0, 0, SMALL);
	arrive(size);
	start(NBD_COMMAND_READ, SMALL, other);
	second = cookie;
	put_chunk(ENDS, DATA, 8 + SMALL);
	put(OFFSET, 8);
	memset(stream + size, 0x5a, SMALL);
	size += SMALL;
	arrive(size);
	assert_int_equal(ended, 1);
	assert_int_equal(other[0], 0x5a);
	assert_true(first != second);
	cookie = first;
	put_end();
	ended = 0;
	arrive(size);
	ends_well(SMALL);
}

/* ---- errors ---- */

static void test_an_error_ends_a_read_at_its_last_chunk(void **state)
{
	static const struct {
		enum type type;
		uint32_t error, text, tail;
		int expected;
	} errors[] = {
		{ ERROR, 5, 0, 0, EIO },
		{ ERROR, 28, 3, 0, ENOSPC },
		{ ERROR, 1, 4096, 0, EPERM },
		{ ERROR, 12345, 10, 0, EINVAL },
		{ ERROR, 0, 0, 0, EINVAL }, /* an error that is none */
		{ ERROR, 108, 0, 0, ESHUTDOWN },
		{ ERROR_AT, 5, 0, 8, EIO },
		{ ERROR_AT, 12, 20, 8, ENOMEM },
		{ ERROR_UNKNOWN, 95, 5, 0, ENOTSUP },
		{ ERROR_UNKNOWN, 75, 5, 100, EOVERFLOW },
	};

	(void)state;
	for (unsigned i = 0; i < 4 * sizeof(errors) / sizeof(*errors); i++) {
		unsigned n = i / 4;
		bool before = i & 1, ends = i & 2;
		size_t last;

		begin(NBD_COMMAND_READ, LARGE, true);
		if (before)
			put_data(0, 0, LARGE / 2);
		put_error(ends ? ENDS : 0, errors[n].type, errors[n].error, errors[n].text,
			  errors[n].tail);
		last = size - 1;
		if (!ends) {
			put_data(0, LARGE / 2, LARGE / 4);
			/* The first one counts. */
			put_error(0, ERROR, 22, 0, 0);
			last = size;
			put_end();
		}
		arrive(last);
		assert_int_equal(ended, 0);
		arrive(size);
		assert_null(fault);
		assert_int_equal(ended, 1);
		assert_int_equal(ended_with, errors[n].expected);
	}
}

static void test_an_error_is_not_the_next_commands(void **state)
{
	(void)state;
	begin(NBD_COMMAND_READ, SMALL, true);
	put_error(ENDS, ERROR, 5, 0, 0);
	arrive(size);
	assert_int_equal(ended_with, EIO);
	start(NBD_COMMAND_READ, SMALL, place);
	put_data(ENDS, 0, SMALL);
	ended = 0;
	arrive(size);
	ends_well(SMALL);
	/* Nor is what has come of it. */
	start(NBD_COMMAND_READ, SMALL, place);
	put_data(0, 0, SMALL / 2);
	put_error(ENDS, ERROR, 5, 0, 0);
	arrive(size);
	memset(place, 0, sizeof(place));
	ended = 0;
	start(NBD_COMMAND_READ, SMALL, place);
	put_data(ENDS, 0, SMALL);
	arrive(size);
	ends_well(SMALL);
}

static void test_other_commands_end_either_way(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		static const int expected[] = { 0, ENOSPC, 0, ENOSPC, EIO };

		begin(NBD_COMMAND_WRITE, SMALL, true);
		if (i >= 3)
			put_error(0, ERROR, i == 3 ? 28 : 5, 2, 0);
		if (i < 2)
			put_simple(i ? 28 : 0);
		else if (i < 4)
			put_end();
		else
			put_simple(28);
		arrive(size - 1);
		assert_int_equal(ended, 0);
		arrive(size);
		assert_null(fault);
		assert_int_equal(ended, 1);
		assert_int_equal(ended_with, expected[i]);
	}
}

/* ---- what breaks the protocol ---- */

static void test_a_read_that_lacks_data_does_not_succeed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 7; i++) {
		begin(NBD_COMMAND_READ, SMALL, true);
		if (i == 0)
			put_data(0, 0, SMALL - 1);
		if (i == 1)
			put_data(0, 1, SMALL - 1);
		if (i == 2) {
			put_data(0, 0, SMALL / 2);
			put_hole(0, SMALL / 2 + 1, SMALL / 2 - 1);
		}
		if (i == 3)
			put_hole(ENDS, 0, SMALL - 1);
		if (i == 4)
			put_data(ENDS, 0, SMALL - 1);
		if (i == 5)
			put_data(0, 0, 0);
		if (i < 3 || i > 4)
			put_end();
		is_refused();
	}
	/* Its place is as large as to be received into. */
	begin(NBD_COMMAND_READ, LARGE, true);
	put_data(ENDS, 0, LARGE - 1);
	is_refused();
}

static void test_a_read_whose_parts_overlap_does_not_succeed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		begin(NBD_COMMAND_READ, LARGE, true);
		put_data(0, 0, LARGE / 2);
		if (i == 0)
			put_data(0, 0, LARGE / 2);
		if (i == 1)
			put_data(0, LARGE / 2 - 1, 1);
		if (i == 2)
			put_hole(0, 0, LARGE);
		if (i == 3)
			put_data(0, LARGE / 2 - 1, LARGE / 2 + 1);
		if (i != 3)
			put_data(0, LARGE / 2, LARGE / 2);
		if (i == 4)
			put_hole(ENDS, 100, 1);
		else
			put_end();
		is_refused();
	}
	/* What has failed has failed, and the error counts. */
	begin(NBD_COMMAND_READ, SMALL, true);
	put_data(0, 0, SMALL);
	put_data(0, 0, SMALL);
	put_error(ENDS, ERROR, 5, 0, 0);
	arrive(size);
	assert_null(fault);
	assert_int_equal(ended_with, EIO);
}

/* Nothing is ever written beside the read's buffer: the sanitizer sees to it. */
static void test_parts_outside_of_the_read_are_refused(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t length;
	} parts[] = {
		{ OFFSET - 1, 1 },           { OFFSET - 1, 0 },
		{ OFFSET - 1, SMALL },       { OFFSET + SMALL, 1 },
		{ OFFSET + SMALL + 1, 0 },   { OFFSET + 1, SMALL },
		{ OFFSET, SMALL + 1 },       { 0, SMALL },
		{ UINT64_MAX, 1 },           { UINT64_MAX, 2 },
		{ UINT64_MAX - 4095, 4096 }, { 1ull << 62, 512 },
	};

	(void)state;
	for (unsigned i = 0; i < 2 * sizeof(parts) / sizeof(*parts); i++) {
		begin(NBD_COMMAND_READ, SMALL, true);
		put_chunk(0, i & 1 ? HOLE : DATA, i & 1 ? 12 : 8 + parts[i / 2].length);
		put(parts[i / 2].offset, 8);
		if (i & 1)
			put(parts[i / 2].length, 4);
		else
			put_bytes(wanted, parts[i / 2].length);
		is_refused();
	}
	begin(NBD_COMMAND_READ, SMALL, true);
	put_chunk(0, HOLE, 12);
	put(OFFSET, 8);
	put(UINT32_MAX, 4);
	is_refused();
}

static void put_chunk_of(unsigned flags, enum type type, uint32_t length)
{
	put_chunk(flags, type, length);
	/* As much as the stage may wait for. */
	memset(stream + size, 0, 8192);
	size += 8192;
}

static void test_chunks_without_sense_are_refused(void **state)
{
	static const struct {
		enum nbd_command_type command;
		unsigned flags;
		enum type type;
		uint32_t length;
	} chunks[] = {
		{ NBD_COMMAND_READ, 0, DATA, 7 },
		{ NBD_COMMAND_READ, 0, DATA, 0 },
		{ NBD_COMMAND_READ, 0, DATA, UINT32_MAX },
		{ NBD_COMMAND_READ, ENDS, HOLE, 8 },
		{ NBD_COMMAND_READ, ENDS, HOLE, 13 },
		{ NBD_COMMAND_READ, 0, NONE, 0 }, /* it must be the last one */
		{ NBD_COMMAND_READ, ENDS, NONE, 1 },
		{ NBD_COMMAND_READ, ENDS, STATUS, 12 },
		{ NBD_COMMAND_READ, ENDS, UNKNOWN, 0 },
		{ NBD_COMMAND_READ, ENDS, 0x7fff, 0 },
		{ NBD_COMMAND_READ, ENDS, ERROR, 5 },
		{ NBD_COMMAND_READ, ENDS, ERROR, 7 },
		{ NBD_COMMAND_READ, ENDS, ERROR, UINT32_MAX },
		{ NBD_COMMAND_READ, ENDS, ERROR_AT, 6 },
		{ NBD_COMMAND_READ, ENDS, ERROR_AT, 14 }, /* at offset 0 */
		{ NBD_COMMAND_READ, ENDS, ERROR_UNKNOWN, 3 },
		{ NBD_COMMAND_READ, ENDS, ERROR_UNKNOWN, UINT32_MAX },
		{ NBD_COMMAND_WRITE, 0, DATA, 8 + SMALL },
		{ NBD_COMMAND_WRITE, ENDS, HOLE, 12 },
		{ NBD_COMMAND_FLUSH, ENDS, STATUS, 12 },
		{ NBD_COMMAND_FLUSH, 0, NONE, 0 },
		{ NBD_COMMAND_FLUSH, ENDS, ERROR_AT, 14 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
		begin(chunks[i].command, chunks[i].command == NBD_COMMAND_FLUSH ? 0 : SMALL, true);
		put_chunk_of(chunks[i].flags, chunks[i].type, chunks[i].length);
		is_refused();
	}
	/* An error's text is longer than its chunk, or than any may be. */
	for (unsigned i = 0; i < 2; i++) {
		begin(NBD_COMMAND_READ, SMALL, true);
		put_chunk(ENDS, ERROR, i ? 6 + 4097 : 6 + 2);
		put(5, 4);
		put(i ? 4097 : 3, 2);
		is_refused();
	}
}

static void test_a_reply_of_the_wrong_kind_is_refused(void **state)
{
	(void)state;
	/* With structured replies no simple one ends a read, be it an error. */
	for (uint32_t error = 0; error < 6; error += 5) {
		begin(NBD_COMMAND_READ, SMALL, true);
		put_simple(error);
		put_bytes(wanted, SMALL);
		is_refused();
	}
	/* Without them there are no chunks. */
	begin(NBD_COMMAND_READ, SMALL, false);
	put_data(ENDS, 0, SMALL);
	is_refused();
	begin(NBD_COMMAND_FLUSH, 0, false);
	put_end();
	is_refused();
	/* And no other message at all. */
	begin(NBD_COMMAND_READ, SMALL, true);
	put(0x668e33ee, 4);
	put_bytes(wanted, 1000);
	is_refused();
}

/* DONE comes twice, or something behind it, or for a cookie of nobody's. */
static void test_a_chunk_finds_its_command_or_is_refused(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		begin(NBD_COMMAND_READ, SMALL, true);
		put_data(ENDS, 0, SMALL);
		arrive(size);
		ends_well(SMALL);
		ended = 0;
		if (i == 1)
			put_data(0, 0, SMALL);
		else
			put_end();
		/* The entry is another command's by now. */
		if (i == 2)
			start(NBD_COMMAND_READ, SMALL, place);
		is_refused();
	}
	/* Never used, an index that is none, and an entry that is idle. */
	for (unsigned i = 0; i < 3; i++) {
		begin(NBD_COMMAND_READ, SMALL, true);
		if (i == 0)
			cookie += 1 << 16;
		else
			cookie = (cookie & ~(uint64_t)UINT16_MAX) | (i == 1 ? NR : 0);
		put_data(ENDS, 0, SMALL);
		is_refused();
	}
	/* One that was not sent yet. */
	begin(NBD_COMMAND_READ, SMALL, true);
	commands.entries[cookie & UINT16_MAX].is_sent = false;
	put_data(ENDS, 0, SMALL);
	is_refused();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_come_in_any_order),
		cmocka_unit_test(test_there_may_be_many_parts),
		cmocka_unit_test(test_a_reply_may_be_cut_anywhere_in_two),
		cmocka_unit_test(test_a_reply_may_come_byte_by_byte),
		cmocka_unit_test(test_a_part_may_be_larger_than_the_stage),
		cmocka_unit_test(test_replies_may_alternate),
		cmocka_unit_test(test_data_stays_until_the_reply_ends),
		cmocka_unit_test(test_an_error_ends_a_read_at_its_last_chunk),
		cmocka_unit_test(test_an_error_is_not_the_next_commands),
		cmocka_unit_test(test_other_commands_end_either_way),
		cmocka_unit_test(test_a_read_that_lacks_data_does_not_succeed),
		cmocka_unit_test(test_a_read_whose_parts_overlap_does_not_succeed),
		cmocka_unit_test(test_parts_outside_of_the_read_are_refused),
		cmocka_unit_test(test_chunks_without_sense_are_refused),
		cmocka_unit_test(test_a_reply_of_the_wrong_kind_is_refused),
		cmocka_unit_test(test_a_chunk_finds_its_command_or_is_refused),
	};

	return cmocka_run_group_tests(tests, create, destroy);
}
