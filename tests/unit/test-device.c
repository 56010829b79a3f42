/* SPDX-License-Identifier: MIT */
/*
 * The lifecycle of a device on the fake kernel: in order, and with each step of
 * it failing.
 */
#include "engine/log.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"
#include "tests/unit/fake-kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#define MIB (1u << 20)

/* ---- a backend that keeps what it gets, until it is told to let go ---- */

static bool keeper_lets_go;
static unsigned keeper_opens, keeper_closes;

static int keeper_open(struct export *export, struct error *err)
{
	struct backend_limits *l = &export->limits;

	(void)err;
	l->logical_block = 512;
	l->size = MIB;
	l->volatile_cache = true;
	keeper_opens++;
	return 0;
}

static void keeper_close(struct export *export)
{
	(void)export;
	keeper_closes++;
}

static void keeper_submit(struct io *io)
{
	if (__atomic_load_n(&keeper_lets_go, __ATOMIC_RELAXED))
		io_complete(io, (int)io->length);
}

static const struct backend keeper_backend = {
	.scheme = "keeper",
	.syntax = "keeper:",
	.summary = "for tests",
	.access = ACCESS_NONE,
	.open = keeper_open,
	.close = keeper_close,
	.submit = keeper_submit,
};
BACKEND_REGISTER(keeper_backend);

/* ---- what a process has, before and after ---- */

struct held {
	unsigned files, threads;
};

static struct held what_is_held(void)
{
	return (struct held){ fake_open_files(), fake_threads() };
}

static void same_as(struct held before, const char *after)
{
	struct held now = what_is_held();

	/* A thread that was joined may be in the list for another moment. */
	for (unsigned i = 0; now.threads > before.threads && i < 1000; i++) {
		usleep(1000);
		now = what_is_held();
	}
	if (now.files != before.files || now.threads != before.threads)
		fail_msg("%s: %d descriptors and %d threads too many", after,
			 (int)(now.files - before.files), (int)(now.threads - before.threads));
}

/* ---- in order ---- */

static void write_and_read_back(const struct served *s, unsigned queue)
{
	unsigned id = served_id(s);
	uint8_t *out = fake_data(65536, 0x5a), *in = fake_data(65536, 0xff);

	out[0] = (uint8_t)queue;
	assert_int_equal(fake_request(id, queue, UBLK_OP_WRITE, 0, 65536, 65536, out), 0);
	assert_int_equal(fake_request(id, queue, UBLK_OP_READ, 0, 65536, 65536, in), 0);
	assert_memory_equal(in, out, 65536);
	assert_int_equal(fake_request(id, queue, UBLK_OP_READ, 0, 4096, 512, in), 0);
	assert_int_equal(in[0], 0);
	assert_int_equal(fake_request(id, queue, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
	fake_data_free(out);
	fake_data_free(in);
}

static void live_and_gone(const struct fake_kernel *kernel, const char *words, enum io_path path)
{
	struct held before = what_is_held();
	struct served s;

	fake_start(kernel);
	served_begin(&s, words);
	assert_int_equal(fake_devices(), 1);
	assert_true(fake_is_live(served_id(&s)));
	assert_int_equal(s.device.state, EXPORT_LIVE);
	assert_string_equal(s.device.path_name, "/dev/ublkb0");
	assert_int_equal(s.device.path, path);
	for (unsigned q = 0; q < s.device.info.nr_hw_queues; q++)
		write_and_read_back(&s, q);
	assert_int_equal(served_stop(&s), 0);
	assert_int_equal(s.device.state, EXPORT_GONE);
	assert_int_equal(fake_devices(), 0);
	served_close(&s);
	fake_stop();
	same_as(before, words);
}

static void test_lives_on_old_and_new_kernels(void **state)
{
	static const struct fake_kernel *const kernels[] = { &fake_linux_6_0, &fake_linux_6_12,
							     &fake_linux_7_2 };
	static const enum io_path memory_path[] = { IO_PATH_COPY, IO_PATH_USER_COPY,
						    IO_PATH_USER_COPY };
	static const enum io_path file_path[] = { IO_PATH_COPY, IO_PATH_COPY, IO_PATH_ZERO_COPY };
	char words[600];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		live_and_gone(kernels[i], "memory:8M queues=2 depth=4", memory_path[i]);
		snprintf(words, sizeof(words), "%s queues=2 depth=4",
			 temp_file("disk.img", 8 * MIB));
		live_and_gone(kernels[i], words, file_path[i]);
	}
}

static void test_each_path_can_be_forced(void **state)
{
	char words[600];

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		snprintf(words, sizeof(words), "memory:8M queues=1 depth=4 io-path=%s",
			 io_path_name((enum io_path)path));
		live_and_gone(&fake_linux_7_2, words, (enum io_path)path);
		snprintf(words, sizeof(words), "%s queues=1 depth=4 io-path=%s",
			 temp_file("disk.img", 8 * MIB), io_path_name((enum io_path)path));
		live_and_gone(&fake_linux_7_2, words, (enum io_path)path);
	}
}

static void test_a_path_that_the_kernel_lacks_is_refused(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_6_12);
	served_open(&s, "memory:8M queues=1 io-path=zero-copy");
	assert_int_equal(served_start(&s), -EOPNOTSUPP);
	assert_non_null(strstr(s.err.text, "zero-copy"));
	assert_non_null(strstr(s.err.text, "6.16"));
	served_close(&s);
	fake_stop();
}

static void test_rings_are_set_up_as_the_kernel_can(void **state)
{
	struct fake_kernel kernel = fake_linux_6_12;
	struct served s;

	(void)state;
	kernel.ring_flags &= ~(uint32_t)IORING_SETUP_DEFER_TASKRUN;
	kernel.registers_ring_fd = false;
	for (unsigned i = 0; i < 2; i++) {
		fake_start(&kernel);
		served_begin(&s, "memory:8M queues=1 depth=4");
		write_and_read_back(&s, 0);
		served_end(&s);
		fake_stop();
		kernel.ring_flags = IORING_SETUP_SQE128;
	}
}

static void test_what_the_kernel_has_of_it(void **state)
{
	struct ublk_dev_params params;
	struct ublk_dev_info info;
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_begin(&s, "null:1G id=7 queues=3 depth=9 block-size=4096 max-io=64K read-only");
	assert_int_equal(served_id(&s), 7);
	assert_true(fake_device(7, &info, &params));
	assert_int_equal(info.nr_hw_queues, 3);
	assert_int_equal(info.queue_depth, 9);
	assert_int_equal(info.max_io_buf_bytes, 65536);
	assert_int_equal(info.server_pid, getpid());
	assert_int_equal(params.basic.dev_sectors, 1 << 21);
	assert_int_equal(params.basic.logical_bs_shift, 12);
	assert_int_equal(params.basic.max_sectors, 128);
	assert_true(params.basic.attrs & UBLK_DEVATTR_READ_ONLY);
	served_end(&s);
	fake_stop();
}

/* A kernel of fewer CPUs reduces the queues; the device has those that there are. */
static void test_fewer_queues_than_asked_for(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_begin(&s, "memory:8M queues=16 depth=2");
	assert_int_equal(s.device.info.nr_hw_queues, fake_linux_7_2.cpus);
	for (unsigned q = 0; q < fake_linux_7_2.cpus; q++)
		write_and_read_back(&s, q);
	served_end(&s);
	fake_stop();
}

static void test_block_device_is_tuned(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_6_12);
	served_begin(&s, "memory:8M queues=1");
	assert_string_equal(fake_attribute(0, "scheduler"), "none");
	/* Else a dead server would be noticed after half a minute. */
	assert_string_equal(fake_attribute(0, "io_timeout"), "1000");
	served_end(&s);
	fake_stop();
	fake_start(&fake_linux_7_2);
	served_begin(&s, "memory:8M queues=1");
	assert_string_equal(fake_attribute(0, "scheduler"), "none");
	assert_null(fake_attribute(0, "io_timeout"));
	served_end(&s);
	fake_stop();
}

static void test_partitions_on_and_off(void **state)
{
	static const struct {
		const struct fake_kernel *kernel;
		const char *words;
		bool scans;
	} cases[] = {
		{ &fake_linux_6_12, "memory:8M queues=2", true },
		{ &fake_linux_6_12, "memory:8M queues=2 partitions=off", false },
		{ &fake_linux_6_12, "null:8M queues=2", false },
		{ &fake_linux_6_12, "null:8M queues=2 partitions=on", true },
		{ &fake_linux_7_2, "memory:8M queues=2", true },
		{ &fake_linux_7_2, "memory:8M queues=2 partitions=off", false },
	};
	struct served s;

	(void)state;
	if (geteuid()) {
		print_message("without CAP_SYS_ADMIN no thread can drop it\n");
		skip();
	}
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		fake_start(cases[i].kernel);
		served_begin(&s, cases[i].words);
		if (fake_scans_partitions(0) != cases[i].scans)
			fail_msg("%s: partitions are %slooked for", cases[i].words,
				 cases[i].scans ? "not " : "");
		served_end(&s);
		fake_stop();
	}
}

static void test_char_device_may_appear_late(void **state)
{
	struct fake_kernel kernel = fake_linux_7_2;
	struct served s;

	(void)state;
	kernel.char_late = 20;
	fake_start(&kernel);
	served_begin(&s, "memory:8M queues=1");
	served_end(&s);
	fake_stop();
	kernel.char_late = 1000000;
	fake_start(&kernel);
	served_open(&s, "memory:8M queues=1");
	assert_int_equal(served_start(&s), -ENOENT);
	assert_non_null(strstr(s.err.text, "/dev/ublkc0"));
	served_close(&s);
	fake_stop();
}

/* ---- stopped by others ---- */

static void wait_for_event(const struct device *d)
{
	struct pollfd pfd = { .fd = device_event(d), .events = POLLIN };

	assert_int_equal(poll(&pfd, 1, 20000), 1);
}

static void test_somebody_else_stops_it(void **state)
{
	struct held before = what_is_held();
	struct served s;

	(void)state;
	for (unsigned gone = 0; gone < 2; gone++) {
		struct pollfd pfd;

		fake_start(&fake_linux_7_2);
		served_begin(&s, "memory:8M queues=2 depth=4");
		pfd = (struct pollfd){ .fd = device_event(&s.device), .events = POLLIN };
		assert_int_equal(poll(&pfd, 1, 0), 0);
		write_and_read_back(&s, 1);
		fake_other_stops(served_id(&s), gone);
		wait_for_event(&s.device);
		assert_int_equal(served_stop(&s), 0);
		assert_int_equal(s.device.state, EXPORT_GONE);
		served_close(&s);
		fake_stop();
	}
	same_as(before, "stopped by somebody else");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lives_on_old_and_new_kernels),
		cmocka_unit_test(test_each_path_can_be_forced),
		cmocka_unit_test(test_a_path_that_the_kernel_lacks_is_refused),
		cmocka_unit_test(test_rings_are_set_up_as_the_kernel_can),
		cmocka_unit_test(test_what_the_kernel_has_of_it),
		cmocka_unit_test(test_fewer_queues_than_asked_for),
		cmocka_unit_test(test_block_device_is_tuned),
		cmocka_unit_test(test_partitions_on_and_off),
		cmocka_unit_test(test_char_device_may_appear_late),
		cmocka_unit_test(test_somebody_else_stops_it),
	};
	int failed;

	bound_time(120);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
