/* SPDX-License-Identifier: MIT */
/*
 * Duties of every backend, asked of all that are registered.  Nothing here
 * knows one by name: what to open comes from the syntax that a backend states
 * ("SIZE" becomes a size, "PATH" a file of that size, "//HOST…" a server of such a
 * file), and one whose syntax says something else, or whose server is not to be had
 * here, is left out, which is said.
 */
#include "engine/params.h"
#include "tests/unit/remote.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>

#define SIZE   (8u << 20)
#define MAX_IO (256u << 10)
#define BLOCK  512u
#define BLOCKS (SIZE / BLOCK)

static bool is_remote(const struct backend *b)
{
	return strstr(b->syntax, "://HOST");
}

/* A URI of this backend's for SIZE bytes; NULL: it is not to be had. */
static const char *uri_of(const struct backend *b)
{
	static char uri[600];
	const char *wants = b->syntax + strlen(b->scheme) + 1, *path;

	if (!strcmp(wants, "SIZE"))
		snprintf(uri, sizeof(uri), "%s:%u", b->scheme, SIZE);
	else if (!strcmp(wants, "PATH"))
		snprintf(uri, sizeof(uri), "%s:%s", b->scheme, temp_file("disk.img", SIZE));
	else if (is_remote(b) && (path = remote_file(temp_file("disk.img", SIZE))))
		snprintf(uri, sizeof(uri), "%s+unix:///?socket=%s", b->scheme, path);
	else
		return NULL;
	return uri;
}

static bool has_a_file(const struct backend *b)
{
	return strstr(b->syntax, "PATH") || is_remote(b);
}

/* Writes that nobody looks at cannot be read back. */
static bool keeps(const struct backend *b)
{
	return b->access != ACCESS_NONE;
}

/* Calls body for each backend and each path of data, on a device with these options. */
static void on_each(const char *options, void (*body)(struct served *s, const struct backend *b))
{
	const struct backend *b;
	unsigned done = 0;

	for (unsigned i = 0; (b = backend_at(i)); i++)
		for (unsigned path = 0; path < IO_PATHS; path++) {
			const char *uri = uri_of(b);
			struct served s;
			char words[1000];

			if (!uri) {
				print_message("%s is left out: %s '%s'\n", b->scheme,
					      is_remote(b) ? "there is no nbdkit for" : "what is",
					      b->syntax);
				break;
			}
			snprintf(words, sizeof(words),
				 "%s queues=2 depth=8 max-io=%u io-path=%s%s%s", uri, MAX_IO,
				 io_path_name((enum io_path)path), *options ? " " : "", options);
			fake_start(&fake_linux_7_2);
			served_begin(&s, words);
			body(&s, b);
			served_end(&s);
			fake_stop();
			done++;
		}
	assert_true(done >= 3);
}

/* ---- what it says of itself ---- */

static bool power_of_2(uint64_t n)
{
	return n && !(n & (n - 1));
}

static void check_limits(struct served *s, const struct backend *b)
{
	const struct backend_limits *l = &s->standalone.serving.instance.limits;

	assert_int_equal(l->size, SIZE);
	assert_true(power_of_2(l->logical_block) && l->logical_block >= PARAMS_BLOCK_MIN &&
		    l->logical_block <= PARAMS_BLOCK_MAX);
	assert_true(power_of_2(l->physical_block) && l->physical_block >= l->logical_block);
	assert_true(power_of_2(l->discard_granularity));
	assert_true(!l->fua || l->volatile_cache);
	assert_true(!l->max_discard || l->max_discard >= l->logical_block);
	assert_true(!l->max_write_zeroes || l->max_write_zeroes >= l->logical_block);
	assert_true(!l->dma_align || power_of_2(l->dma_align));
	assert_false(l->read_only);
	/* Writes go somewhere that can lose them, or need no flush. */
	if (has_a_file(b))
		assert_true(l->volatile_cache && l->fua);
}

static void test_limits_make_sense(void **state)
{
	(void)state;
	on_each("", check_limits);
}

static void check_block_size(struct served *s, const struct backend *b)
{
	struct ublk_dev_params params;

	(void)b;
	assert_int_equal(s->standalone.serving.instance.limits.logical_block, 4096);
	assert_true(fake_device(served_id(s), NULL, &params));
	assert_int_equal(params.basic.logical_bs_shift, 12);
}

static void test_block_size_is_as_asked(void **state)
{
	(void)state;
	on_each("block-size=4096", check_block_size);
}

/* ---- content, against a model ---- */

enum content {
	KNOWN,        /* the model's byte */
	KNOWN_OR_ZERO /* it was discarded */
};

static uint8_t model[SIZE];
static uint8_t certainty[BLOCKS];

static int request(struct served *s, unsigned op, uint32_t flags, uint64_t offset, uint32_t length,
		   void *data)
{
	unsigned queue = offset / BLOCK % 2;

	return fake_request(served_id(s), queue, op, flags, offset, length, data);
}

static void compare(const uint8_t *in, uint64_t offset, uint32_t length)
{
	for (uint32_t at = 0; at < length; at += BLOCK) {
		uint64_t block = (offset + at) / BLOCK;
		static const uint8_t zeroes[BLOCK];

		if (certainty[block] == KNOWN_OR_ZERO) {
			/* Which of both it is stays so from now on. */
			certainty[block] = KNOWN;
			if (!memcmp(in + at, zeroes, BLOCK))
				memset(model + offset + at, 0, BLOCK);
		}
		if (memcmp(in + at, model + offset + at, BLOCK))
			fail_msg("byte %llu reads as %#x, not as %#x",
				 (unsigned long long)(offset + at), in[at], model[offset + at]);
	}
}

static void read_and_compare(struct served *s, uint64_t offset, uint32_t length)
{
	uint8_t *in = fake_data(length, 0xee);

	assert_int_equal(request(s, UBLK_OP_READ, 0, offset, length, in), 0);
	compare(in, offset, length);
	fake_data_free(in);
}

static void write_random(struct served *s, const struct backend *b, uint32_t flags, uint64_t offset,
			 uint32_t length, uint64_t seed)
{
	uint8_t *out = fake_data(length, 0);

	for (uint32_t i = 0; i < length; i += 8) {
		uint64_t word = next_random(&seed) | 1;

		memcpy(out + i, &word, 8);
	}
	assert_int_equal(request(s, UBLK_OP_WRITE, flags, offset, length, out), 0);
	if (keeps(b)) {
		memcpy(model + offset, out, length);
		memset(certainty + offset / BLOCK, KNOWN, length / BLOCK);
	}
	fake_data_free(out);
}

static void discard(struct served *s, uint64_t offset, uint32_t length)
{
	if (!s->standalone.serving.instance.limits.max_discard) {
		assert_int_equal(request(s, UBLK_OP_DISCARD, 0, offset, length, NULL), -EOPNOTSUPP);
		return;
	}
	assert_int_equal(request(s, UBLK_OP_DISCARD, 0, offset, length, NULL), 0);
	memset(certainty + offset / BLOCK, KNOWN_OR_ZERO, length / BLOCK);
}

static void write_zeroes(struct served *s, uint32_t flags, uint64_t offset, uint32_t length)
{
	if (!s->standalone.serving.instance.limits.max_write_zeroes) {
		assert_int_equal(request(s, UBLK_OP_WRITE_ZEROES, flags, offset, length, NULL),
				 -EOPNOTSUPP);
		return;
	}
	assert_int_equal(request(s, UBLK_OP_WRITE_ZEROES, flags, offset, length, NULL), 0);
	memset(model + offset, 0, length);
	memset(certainty + offset / BLOCK, KNOWN, length / BLOCK);
}

static void forget_model(void)
{
	memset(model, 0, sizeof(model));
	memset(certainty, KNOWN, sizeof(certainty));
}

static void some_range(const struct served *s, uint64_t *seed, uint32_t most, uint64_t *offset,
		       uint32_t *length)
{
	uint32_t block = s->standalone.serving.instance.limits.logical_block;

	/* Small ones and large ones alike. */
	*length = block << next_random(seed) % 12;
	*length -= (uint32_t)(next_random(seed) % (*length / block)) * block;
	if (*length > most)
		*length = most;
	*offset = next_random(seed) % ((SIZE - *length) / block + 1) * block;
}

static void use_it(struct served *s, const struct backend *b)
{
	uint64_t seed = 3, offset;
	uint32_t length;

	forget_model();
	read_and_compare(s, 0, MAX_IO);
	for (unsigned i = 0; i < 250; i++) {
		unsigned what = (unsigned)(next_random(&seed) % 16);

		some_range(s, &seed, what == 6 || what == 7 ? SIZE : MAX_IO, &offset, &length);
		if (what < 6)
			write_random(s, b, 0, offset, length, i);
		else if (what == 6)
			discard(s, offset, length);
		else if (what == 7)
			write_zeroes(s, i % 2 ? UBLK_REQ_NOUNMAP : 0, offset, length);
		else if (what == 8)
			write_random(s, b,
				     s->standalone.serving.instance.limits.fua ? UBLK_REQ_FUA : 0,
				     offset, length, i);
		else if (what == 9)
			assert_int_equal(request(s, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
		else
			read_and_compare(s, offset, length);
	}
	for (offset = 0; offset < SIZE; offset += MAX_IO)
		read_and_compare(s, offset, MAX_IO);
	/* Both ends of it. */
	write_random(s, b, 0, 0, BLOCK * 8, 1);
	write_random(s, b, 0, SIZE - BLOCK * 8, BLOCK * 8, 2);
	read_and_compare(s, 0, MAX_IO);
	read_and_compare(s, SIZE - MAX_IO, MAX_IO);
	assert_int_equal(request(s, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
}

static void test_reads_give_what_writes_put(void **state)
{
	(void)state;
	on_each("", use_it);
	on_each("block-size=4096", use_it);
}

/* Content that a backend keeps in a file is there when it is opened again, and beside it. */
static void test_files_keep_their_content(void **state)
{
	const struct backend *b;

	(void)state;
	for (unsigned i = 0; (b = backend_at(i)); i++)
		for (unsigned path = 0; path < IO_PATHS; path++) {
			uint8_t *in = fake_data(SIZE, 0);
			struct served s;
			char words[1000];
			int fd;

			if (!has_a_file(b) || !uri_of(b)) {
				fake_data_free(in);
				continue;
			}
			snprintf(words, sizeof(words), "%s queues=2 depth=8 max-io=%u io-path=%s",
				 uri_of(b), MAX_IO, io_path_name((enum io_path)path));
			fake_start(&fake_linux_7_2);
			served_begin(&s, words);
			use_it(&s, b);
			served_end(&s);
			fd = open(temp_path("disk.img"), O_RDONLY);
			assert_int_equal(pread(fd, in, SIZE, 0), SIZE);
			close(fd);
			compare(in, 0, SIZE);
			served_begin(&s, words);
			for (uint64_t at = 0; at < SIZE; at += MAX_IO)
				read_and_compare(&s, at, MAX_IO);
			served_end(&s);
			fake_stop();
			fake_data_free(in);
		}
}

/* ---- zeroes and discards of all that there is ---- */

static void zero_and_discard(struct served *s, const struct backend *b)
{
	forget_model();
	for (unsigned keep = 0; keep < 2; keep++) {
		for (uint64_t at = 0; at < SIZE; at += MAX_IO)
			write_random(s, b, 0, at, MAX_IO, at + keep);
		/* Not a byte beside the range. */
		write_zeroes(s, keep ? UBLK_REQ_NOUNMAP : 0, 3 * 4096, SIZE - 7 * 4096);
		for (uint64_t at = 0; at < SIZE; at += MAX_IO)
			read_and_compare(s, at, MAX_IO);
	}
	for (uint64_t at = 0; at < SIZE; at += MAX_IO)
		write_random(s, b, 0, at, MAX_IO, at);
	discard(s, 5 * 4096, SIZE - 9 * 4096);
	for (uint64_t at = 0; at < SIZE; at += MAX_IO)
		read_and_compare(s, at, MAX_IO);
	/* And it can be written again. */
	for (uint64_t at = 0; at < SIZE; at += MAX_IO)
		write_random(s, b, 0, at, MAX_IO, at + 9);
	for (uint64_t at = 0; at < SIZE; at += MAX_IO)
		read_and_compare(s, at, MAX_IO);
}

static void test_zeroes_and_discards(void **state)
{
	(void)state;
	on_each("", zero_and_discard);
}

/* ---- read-only ---- */

static void refuse_writes(struct served *s, const struct backend *b)
{
	uint8_t *data = fake_data(4096, 0x77);
	struct ublk_dev_params params;

	assert_true(fake_device(served_id(s), NULL, &params));
	assert_true(params.basic.attrs & UBLK_DEVATTR_READ_ONLY);
	assert_int_equal(request(s, UBLK_OP_WRITE, 0, 0, 4096, data), -EROFS);
	assert_int_equal(request(s, UBLK_OP_WRITE_ZEROES, 0, 0, 4096, NULL), -EROFS);
	assert_int_equal(request(s, UBLK_OP_DISCARD, 0, 0, 4096, NULL), -EROFS);
	assert_int_equal(request(s, UBLK_OP_READ, 0, 0, 4096, data), 0);
	for (unsigned i = 0; i < 4096; i++)
		if (data[i])
			fail_msg("%s, %s: byte %u of nothing is %#x", b->scheme,
				 io_path_name(s->standalone.device.path), i, data[i]);
	assert_int_equal(request(s, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
	fake_data_free(data);
}

static void test_read_only_refuses(void **state)
{
	(void)state;
	on_each("read-only", refuse_writes);
}

/* ---- many in flight ---- */

static void many_at_once(struct served *s, const struct backend *b)
{
	enum {
		MANY = 64,
		EACH = 16384
	};
	struct fake_request *r[MANY];
	uint8_t *data[MANY];

	for (unsigned round = 0; round < 4; round++) {
		bool reads = round % 2;

		/* Completions come late and in another order. */
		fake_hold_work(true);
		for (unsigned i = 0; i < MANY; i++) {
			data[i] = fake_data(EACH, reads ? 0 : (uint8_t)(i + round + 1));
			r[i] = fake_request_start(served_id(s), i % 2,
						  reads ? UBLK_OP_READ : UBLK_OP_WRITE, 0,
						  (uint64_t)i * EACH * 2, EACH, data[i]);
			if (i % 16 == 15) {
				fake_hold_work(false);
				fake_hold_work(true);
			}
		}
		fake_hold_work(false);
		for (unsigned i = 0; i < MANY; i++) {
			assert_int_equal(fake_request_wait(r[i]), 0);
			for (unsigned at = 0; reads && at < EACH; at += 1021)
				assert_int_equal(data[i][at], keeps(b) ? i + round : 0);
			fake_data_free(data[i]);
		}
	}
}

static void test_many_in_flight(void **state)
{
	(void)state;
	on_each("", many_at_once);
}

/* ---- what the ring answers ---- */

/* Short, interrupted and refused work of the ring is gone on with, until it is done. */
static void with_a_ring_in_a_mood(struct served *s, const struct backend *b)
{
	static const int moods[] = { 512, 4096, -EINTR, -EAGAIN, 0 };

	forget_model();
	for (unsigned i = 0; moods[i]; i++)
		for (unsigned skip = 0; skip < 2; skip++) {
			uint64_t offset = (i * 2 + skip) * 131072ull;

			fake_work(IORING_OP_WRITE, skip, 1, moods[i]);
			fake_work(IORING_OP_READ, skip, 2, moods[i]);
			write_random(s, b, 0, offset, 65536, i);
			write_random(s, b, 0, offset + 65536, 65536, i);
			read_and_compare(s, offset, 65536);
			read_and_compare(s, offset + 65536, 65536);
		}
}

static void test_short_and_interrupted_transfers_continue(void **state)
{
	(void)state;
	on_each("", with_a_ring_in_a_mood);
}

static void hear_errors(struct served *s, const struct backend *b)
{
	static const int codes[] = { -EIO, -ENOSPC, -EDQUOT };
	uint8_t *data = fake_data(8192, 1);

	if (b->access == ACCESS_RING)
		for (unsigned i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
			fake_work(IORING_OP_WRITE, 0, 1, codes[i]);
			assert_int_equal(request(s, UBLK_OP_WRITE, 0, 0, 8192, data), codes[i]);
			fake_work(IORING_OP_READ, 0, 1, codes[i]);
			assert_int_equal(request(s, UBLK_OP_READ, 0, 0, 8192, data), codes[i]);
			/* The same after a part was done. */
			fake_work(IORING_OP_WRITE, 0, 1, 4096);
			fake_work(IORING_OP_WRITE, 0, 1, codes[i]);
			assert_int_equal(request(s, UBLK_OP_WRITE, 0, 0, 8192, data), codes[i]);
		}
	fake_data_free(data);
}

static void test_errors_arrive_as_they_are(void **state)
{
	(void)state;
	on_each("", hear_errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_make_sense),
		cmocka_unit_test(test_block_size_is_as_asked),
		cmocka_unit_test(test_reads_give_what_writes_put),
		cmocka_unit_test(test_files_keep_their_content),
		cmocka_unit_test(test_zeroes_and_discards),
		cmocka_unit_test(test_read_only_refuses),
		cmocka_unit_test(test_many_in_flight),
		cmocka_unit_test(test_short_and_interrupted_transfers_continue),
		cmocka_unit_test(test_errors_arrive_as_they_are),
	};
	int failed;

	bound_time(250);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	remote_end();
	temp_remove();
	return failed;
}
