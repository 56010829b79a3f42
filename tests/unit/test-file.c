/* SPDX-License-Identifier: MIT */
/*
 * The file backend beyond what every backend must do: durability, what it finds
 * out about a file, and files that cannot be served.
 */
#include "engine/counters.h"
#include "engine/host_local.h"
#include "engine/serve.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>

#define KIB 1024u
#define MIB (1024u * KIB)

/* ---- one device on disk.img ---- */

static void begin_sized(struct served *s, uint64_t size, const char *options)
{
	char words[700];

	snprintf(words, sizeof(words), "%s queues=2 depth=4 %s", temp_file("disk.img", size),
		 options);
	fake_start(&fake_linux_7_2);
	served_begin(s, words);
}

static void begin(struct served *s, const char *options)
{
	begin_sized(s, 8 * MIB, options);
}

static void finish(struct served *s)
{
	served_end(s);
	fake_stop();
}

static int request(unsigned queue, unsigned op, uint32_t flags, uint64_t offset, uint32_t length,
		   uint8_t byte)
{
	void *data = fake_data(length, byte);
	int ret = fake_request(0, queue, op, flags, offset, length, data);

	fake_data_free(data);
	return ret;
}

static int flush(unsigned queue)
{
	return fake_request(0, queue, UBLK_OP_FLUSH, 0, 0, 0, NULL);
}

static bool reads_as(uint64_t offset, uint32_t length, uint8_t byte)
{
	uint8_t *got = fake_data(length, (uint8_t)~byte);
	bool same;

	assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, offset, length, got), 0);
	same = got[0] == byte && !memcmp(got, got + 1, length - 1);
	fake_data_free(got);
	return same;
}

static uint64_t blocks_taken(void)
{
	struct stat st;

	assert_int_equal(stat(temp_path("disk.img"), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* ---- durability ---- */

static void test_a_flush_is_one_fdatasync(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "");
	assert_int_equal(request(0, UBLK_OP_WRITE, 0, 0, 4096, 1), 0);
	assert_int_equal(fake_work_done(IORING_OP_FSYNC), 0);
	assert_int_equal(flush(0), 0);
	assert_int_equal(fake_work_done(IORING_OP_FSYNC), 1);
	assert_int_equal(flush(1), 0);
	assert_int_equal(fake_work_done(IORING_OP_FSYNC), 2);
	finish(&s);
}

static void test_a_fua_write_is_synchronous_and_others_are_not(void **state)
{
	char options[40];
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		snprintf(options, sizeof(options), "io-path=%s", io_path_name((enum io_path)path));
		begin(&s, options);
		assert_int_equal(request(0, UBLK_OP_WRITE, 0, 0, 4096, 1), 0);
		assert_int_equal(fake_dsyncs(), 0);
		assert_int_equal(request(0, UBLK_OP_WRITE, UBLK_REQ_FUA, 0, 4096, 1), 0);
		assert_int_equal(fake_dsyncs(), 1);
		/* Each part of one that is done in parts. */
		fake_work(IORING_OP_WRITE, 0, 1, 512);
		assert_int_equal(request(0, UBLK_OP_WRITE, UBLK_REQ_FUA, 0, 4096, 1), 0);
		assert_int_equal(fake_dsyncs(), 3);
		assert_int_equal(request(0, UBLK_OP_READ, UBLK_REQ_FUA, 0, 4096, 1), 0);
		assert_int_equal(fake_dsyncs(), 3);
		finish(&s);
	}
}

/* Data that a flush has lost no later one brings back, on any queue. */
static void test_after_a_failed_flush_all_fail(void **state)
{
	struct served s;

	(void)state;
	begin(&s, "");
	fake_work(IORING_OP_FSYNC, 0, 1, -EIO);
	assert_int_equal(flush(0), -EIO);
	assert_int_equal(flush(0), -EIO);
	assert_int_equal(flush(1), -EIO);
	/* Reads and writes go on: whoever wants to save what can be saved. */
	assert_int_equal(request(0, UBLK_OP_WRITE, 0, 0, 4096, 1), 0);
	assert_int_equal(request(1, UBLK_OP_READ, 0, 0, 4096, 1), 0);
	assert_int_equal(flush(1), -EIO);
	served_end(&s);
	/* Opened anew it starts anew. */
	begin(&s, "");
	assert_int_equal(flush(0), 0);
	finish(&s);
}

/* A flush that fails while another is under way: neither has kept its promise. */
static void test_flushes_at_once_fail_together(void **state)
{
	struct fake_request *a, *b;
	struct served s;

	(void)state;
	begin(&s, "");
	fake_hold_work(true);
	fake_work(IORING_OP_FSYNC, 1, 1, -EIO);
	a = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
	while (fake_work_held() < 1)
		sleep_us(100);
	b = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
	while (fake_work_held() < 2)
		sleep_us(100);
	/* The last is told first. */
	fake_hold_work(false);
	assert_int_equal(fake_request_wait(b), -EIO);
	assert_int_equal(fake_request_wait(a), -EIO);
	finish(&s);
}

/* ---- space ---- */

static void test_holes_are_punched_and_kept(void **state)
{
	struct served s;
	uint64_t full;

	(void)state;
	begin(&s, "max-io=1M");
	if (!s.standalone.serving.instance.limits.max_discard ||
	    !s.standalone.serving.instance.limits.max_write_zeroes) {
		finish(&s);
		print_message("this file system cannot punch holes or zero ranges\n");
		skip();
	}
	assert_int_equal(blocks_taken(), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(request(0, UBLK_OP_WRITE, 0, i * MIB, MIB, 7), 0);
	assert_int_equal(flush(0), 0);
	full = blocks_taken();
	assert_true(full >= 8 * MIB);
	assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE_ZEROES, UBLK_REQ_NOUNMAP, MIB, MIB, NULL),
			 0);
	assert_true(blocks_taken() >= full - 64 * KIB);
	assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE_ZEROES, 0, 2 * MIB, MIB, NULL), 0);
	assert_true(blocks_taken() <= full - MIB + 64 * KIB);
	assert_int_equal(fake_request(0, 0, UBLK_OP_DISCARD, 0, 3 * MIB, 2 * MIB, NULL), 0);
	assert_true(blocks_taken() <= full - 3 * MIB + 64 * KIB);
	/* The file is as long as ever. */
	served_end(&s);
	fake_stop();
	fake_start(&fake_linux_7_2);
	served_begin(&s, temp_path("disk.img"));
	assert_int_equal(s.standalone.serving.instance.limits.size, 8 * MIB);
	finish(&s);
}

/* An operation that was found not to work is not offered, and the file is as it was. */
static void test_offers_only_what_the_file_system_can(void **state)
{
	char words[600];
	struct served s;

	(void)state;
	for (unsigned n = 1; n <= 2; n++) {
		snprintf(words, sizeof(words), "%s queues=1 depth=4",
			 temp_file("disk.img", 8 * MIB));
		fake_start(&fake_linux_7_2);
		served_open(&s, words);
		fake_fail("fallocate", n, EOPNOTSUPP);
		assert_int_equal(served_start(&s), 0);
		if (!fake_failed()) {
			/* The one before has failed by itself. */
			finish(&s);
			continue;
		}
		fake_fail(NULL, 0, 0);
		assert_int_equal(!!s.standalone.serving.instance.limits.max_discard, n == 2);
		/* Either will do for zeroes. */
		assert_int_equal(s.standalone.serving.instance.limits.max_write_zeroes, 1u << 30);
		assert_int_equal(blocks_taken(), 0);
		finish(&s);
	}
}

static void test_a_tail_that_is_no_block_is_left_out(void **state)
{
	static const struct {
		uint64_t file, exported;
		const char *options;
	} sizes[] = {
		{ 8 * MIB + 1, 8 * MIB, "block-size=512" },
		{ 8 * MIB + 511, 8 * MIB, "block-size=512" },
		{ 8 * MIB + 512, 8 * MIB + 512, "block-size=512" },
		{ 8 * MIB + 4095, 8 * MIB, "block-size=4096" },
		{ 4096, 4096, "block-size=4096" },
		{ 513, 512, "block-size=512 -odirect=off" },
	};
	struct served s;

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct stat st;

		begin_sized(&s, sizes[i].file, sizes[i].options);
		assert_int_equal(s.standalone.serving.instance.limits.size, sizes[i].exported);
		assert_int_equal(request(0, UBLK_OP_READ, 0, 0,
					 s.standalone.serving.instance.limits.logical_block, 1),
				 0);
		finish(&s);
		assert_int_equal(stat(temp_path("disk.img"), &st), 0);
		assert_int_equal(st.st_size, sizes[i].file);
	}
}

/* Cut off while it is served: reads of what is gone fail, and give no stale data. */
static void test_a_file_that_is_cut_off(void **state)
{
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		char options[40];

		snprintf(options, sizeof(options), "io-path=%s", io_path_name((enum io_path)path));
		begin(&s, options);
		assert_int_equal(request(0, UBLK_OP_WRITE, 0, 4 * MIB, 8192, 9), 0);
		assert_int_equal(truncate(temp_path("disk.img"), 4 * MIB + 4096), 0);
		assert_int_equal(request(0, UBLK_OP_READ, 0, 5 * MIB, 4096, 1), -EIO);
		assert_int_equal(request(0, UBLK_OP_READ, 0, 4 * MIB, 8192, 1), -EIO);
		assert_int_equal(request(0, UBLK_OP_READ, 0, 4 * MIB, 4096, 1), 0);
		finish(&s);
	}
}

/* tmpfs: a hole where that will do, and one that is filled again where it must not stay. */
static void test_write_zeroes_without_zero_range(void **state)
{
	struct served s;

	(void)state;
	fake_no_fallocate(FALLOC_FL_ZERO_RANGE);
	begin(&s, "");
	assert_int_equal(s.standalone.serving.instance.limits.max_write_zeroes, 1u << 30);
	assert_int_equal(blocks_taken(), 0);
	assert_int_equal(request(0, UBLK_OP_WRITE, 0, 0, MIB, 7), 0);
	assert_int_equal(request(0, UBLK_OP_WRITE, 0, MIB, MIB, 7), 0);
	assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE_ZEROES, UBLK_REQ_NOUNMAP, 0, MIB, NULL),
			 0);
	assert_true(reads_as(0, MIB, 0) && reads_as(MIB, MIB, 7));
	assert_true(blocks_taken() >= 2 * MIB);
	assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE_ZEROES, 0, MIB, MIB, NULL), 0);
	assert_true(reads_as(MIB, MIB, 0));
	assert_true(blocks_taken() <= MIB + 64 * KIB);
	/* A hole that cannot be filled again: it is zero, and the promise is not kept. */
	fake_work(IORING_OP_FALLOCATE, 1, 1, -ENOSPC);
	assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE_ZEROES, UBLK_REQ_NOUNMAP, 0, MIB, NULL),
			 -ENOSPC);
	finish(&s);
	fake_no_fallocate(0);
}

static void test_discard_off_gives_no_block_back(void **state)
{
	struct served s;

	(void)state;
	for (int lacks = 0; lacks <= FALLOC_FL_ZERO_RANGE; lacks += FALLOC_FL_ZERO_RANGE) {
		bool zeroes = !lacks;

		fake_no_fallocate(lacks);
		begin(&s, "-odiscard=off");
		assert_int_equal(s.standalone.serving.instance.limits.max_discard, 0);
		assert_int_equal(s.standalone.serving.instance.limits.max_write_zeroes,
				 zeroes ? 1u << 30 : 0);
		assert_int_equal(request(0, UBLK_OP_WRITE, 0, 0, MIB, 7), 0);
		assert_int_equal(fake_request(0, 0, UBLK_OP_DISCARD, 0, 0, MIB, NULL), -EOPNOTSUPP);
		assert_true(reads_as(0, MIB, 7));
		assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE_ZEROES, 0, 0, MIB, NULL),
				 zeroes ? 0 : -EOPNOTSUPP);
		assert_true(reads_as(0, MIB, zeroes ? 0 : 7));
		assert_true(blocks_taken() >= MIB);
		finish(&s);
	}
	fake_no_fallocate(0);
}

/* ---- the block size ---- */

static void needs_4096(struct statx *stx)
{
	stx->stx_mask |= STATX_DIOALIGN;
	stx->stx_dio_offset_align = 4096;
	stx->stx_dio_mem_align = 512;
}

static void put(uint64_t offset, const void *bytes, size_t length)
{
	int fd = open(temp_path("disk.img"), O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
	close(fd);
}

static void put_gpt(uint64_t offset)
{
	uint8_t header[92] = "EFI PART\0\0\1\0\x5c";

	header[24] = 1;
	put(offset, header, sizeof(header));
}

/* Begins on disk.img as it is. */
static int start_on(struct served *s, const char *options)
{
	char words[700];

	snprintf(words, sizeof(words), "%s queues=1 depth=4 %s", temp_path("disk.img"), options);
	fake_start(&fake_linux_7_2);
	served_open(s, words);
	return served_start(s);
}

static void has_blocks(const char *options, uint32_t block, bool direct)
{
	struct served s;

	if (start_on(&s, options))
		fail_msg("%s: %s", options, s.err.text);
	assert_int_equal(s.standalone.serving.instance.limits.logical_block, block);
	/* Only direct I/O asks anything of memory. */
	assert_int_equal(s.standalone.serving.instance.limits.dma_align, direct ? 512 : 0);
	assert_int_equal(request(0, UBLK_OP_WRITE, UBLK_REQ_FUA, block, block, 0x5a), 0);
	assert_true(reads_as(block, block, 0x5a));
	finish(&s);
}

static void test_an_image_has_the_same_blocks_wherever_it_lies(void **state)
{
	struct served s;

	(void)state;
	fake_statx(needs_4096);
	temp_file("disk.img", 8 * MIB);
	has_blocks("", 512, false);
	has_blocks("block-size=4096", 4096, true);
	has_blocks("block-size=512", 512, false);
	assert_int_equal(start_on(&s, "-odirect=on"), -EINVAL);
	assert_non_null(strstr(s.err.text, "block-size"));
	served_close(&s);
	fake_stop();
	/* Made on a disk with blocks of 4096; then anew on one of 512. */
	temp_file("disk.img", 8 * MIB);
	put_gpt(4096);
	has_blocks("", 4096, true);
	put_gpt(4096);
	put_gpt(512);
	has_blocks("", 512, false);
	fake_statx(NULL);
	temp_file("disk.img", 8 * MIB);
	put_gpt(4096);
	assert_int_equal(start_on(&s, ""), 0);
	assert_int_equal(s.standalone.serving.instance.limits.logical_block, 4096);
	finish(&s);
}

/* An image whose start cannot be read might be of either kind. */
static void test_an_image_that_cannot_be_read_is_refused(void **state)
{
	struct served s;

	(void)state;
	temp_file("disk.img", 8 * MIB);
	fake_start(&fake_linux_7_2);
	served_open(&s, temp_path("disk.img"));
	fake_fail("pread", 1, EIO);
	assert_int_equal(served_start(&s), -EIO);
	assert_non_null(strstr(s.err.text, "cannot read"));
	fake_fail(NULL, 0, 0);
	served_close(&s);
	fake_stop();
}

/* ---- direct and not ---- */

static void test_without_direct_io(void **state)
{
	uint8_t *in = fake_data(4096, 0);
	struct served s;

	(void)state;
	begin(&s, "-odirect=off");
	assert_int_equal(s.standalone.serving.instance.limits.logical_block, 512);
	assert_int_equal(s.standalone.serving.instance.limits.dma_align, 0);
	assert_int_equal(request(0, UBLK_OP_WRITE, 0, 512, 512, 0x3c), 0);
	assert_int_equal(fake_request(0, 1, UBLK_OP_READ, 0, 0, 4096, in), 0);
	assert_int_equal(in[511], 0);
	assert_int_equal(in[512], 0x3c);
	assert_int_equal(in[1024], 0);
	finish(&s);
	fake_data_free(in);
}

/* ---- files that cannot be served ---- */

static void refused(const char *words, int code, const char *about)
{
	unsigned before = fake_open_files();
	struct served s;

	fake_start(&fake_linux_7_2);
	served_open(&s, words);
	if (served_start(&s) != -code || !strstr(s.err.text, about))
		fail_msg("%s: %s", words, s.err.text);
	/* The file is named. */
	assert_non_null(strstr(s.err.text, "/"));
	assert_int_equal(fake_devices(), 0);
	served_close(&s);
	fake_stop();
	assert_int_equal(fake_open_files(), before);
}

static void test_refuses_other_kinds_of_files(void **state)
{
	char words[700];

	(void)state;
	refused("/nowhere/at/all queues=1", ENOENT, "no such file");
	refused("/dev/zero queues=1", ENOTBLK, "neither a regular file nor a block device");
	refused("/tmp queues=1", EISDIR, "directory");
	snprintf(words, sizeof(words), "%s queues=1", temp_path("fifo"));
	assert_int_equal(mkfifo(temp_path("fifo"), 0600), 0);
	refused(words, ENOTBLK, "neither");
	snprintf(words, sizeof(words), "%s queues=1", temp_file("empty", 0));
	refused(words, EINVAL, "empty");
	snprintf(words, sizeof(words), "%s queues=1 -odirect=off", temp_file("tiny", 511));
	refused(words, EINVAL, "empty, or smaller than one block");
	snprintf(words, sizeof(words), "%s queues=1 -ocreate=1M", temp_file("disk.img", MIB));
	refused(words, EEXIST, "option create");
	snprintf(words, sizeof(words), "%s/no/directory queues=1 -ocreate=1M", temp_path("none"));
	refused(words, ENOENT, "directory does not exist");
}

static void test_one_writer_or_many_readers(void **state)
{
	char words[700];
	struct served a, b;
	int fd;

	(void)state;
	snprintf(words, sizeof(words), "%s queues=1 depth=4", temp_file("disk.img", MIB));
	fake_start(&fake_linux_7_2);
	served_begin(&a, words);
	served_open(&b, words);
	assert_int_equal(served_start(&b), -EBUSY);
	assert_non_null(strstr(b.err.text, "locked"));
	served_close(&b);
	strcat(words, " read-only");
	served_open(&b, words);
	assert_int_equal(served_start(&b), -EBUSY);
	served_close(&b);
	served_end(&a);
	served_begin(&a, words);
	served_begin(&b, words);
	served_end(&b);
	served_end(&a);
	fd = open(temp_path("disk.img"), O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(fd);
	fake_stop();
}

static void *let_go_soon(void *fd)
{
	sleep_us(50000);
	close(*(int *)fd);
	return NULL;
}

/* The kernel lets go of an earlier worker's files a little after that has ended. */
static void test_a_file_is_taken_over_from_an_earlier_server(void **state)
{
	struct serving_of of = { .host = &host_here };
	struct serving serving;
	struct served s;
	pthread_t thread;
	char words[700];
	int fd, counters_fd;

	(void)state;
	snprintf(words, sizeof(words), "%s queues=1 depth=4", temp_file("disk.img", MIB));
	fake_start(&fake_linux_7_2);
	served_open(&s, words);
	of.spec = &s.spec;
	of.counters = counters_create(1, s.spec.backend->gauges, &counters_fd);
	assert_non_null(of.counters);
	fd = open(temp_path("disk.img"), O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	of.reason = OPEN_FIRST;
	assert_int_equal(serving_open(&serving, &of, &s.err), -EBUSY);
	of.reason = OPEN_TAKEOVER;
	assert_int_equal(pthread_create(&thread, NULL, let_go_soon, &fd), 0);
	if (serving_open(&serving, &of, &s.err))
		fail_msg("%s", s.err.text);
	assert_int_equal(pthread_join(thread, NULL), 0);
	serving_close(&serving);
	counters_destroy(of.counters);
	close(counters_fd);
	served_close(&s);
	fake_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_flush_is_one_fdatasync),
		cmocka_unit_test(test_a_fua_write_is_synchronous_and_others_are_not),
		cmocka_unit_test(test_after_a_failed_flush_all_fail),
		cmocka_unit_test(test_flushes_at_once_fail_together),
		cmocka_unit_test(test_holes_are_punched_and_kept),
		cmocka_unit_test(test_offers_only_what_the_file_system_can),
		cmocka_unit_test(test_a_tail_that_is_no_block_is_left_out),
		cmocka_unit_test(test_a_file_that_is_cut_off),
		cmocka_unit_test(test_write_zeroes_without_zero_range),
		cmocka_unit_test(test_discard_off_gives_no_block_back),
		cmocka_unit_test(test_an_image_has_the_same_blocks_wherever_it_lies),
		cmocka_unit_test(test_an_image_that_cannot_be_read_is_refused),
		cmocka_unit_test(test_without_direct_io),
		cmocka_unit_test(test_refuses_other_kinds_of_files),
		cmocka_unit_test(test_one_writer_or_many_readers),
		cmocka_unit_test(test_a_file_is_taken_over_from_an_earlier_server),
	};
	int failed;

	bound_time(60);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
