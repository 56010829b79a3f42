/* SPDX-License-Identifier: MIT */
/*
 * The lifecycle of a device on the fake kernel: in order, and with each step of
 * it failing.
 */
#include "common/log.h"
#include "engine/queue.h"
#include "tests/unit/served.h"
#include "tests/unit/temp.h"
#include "tests/unit/test.h"
#include "tests/unit/fake-kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#define MIB (1u << 20)

/* ---- a backend that keeps what it gets, until it is told to let go ---- */

static bool keeper_lets_go;
static unsigned keeper_opens, keeper_closes, keeper_max_queues;

static int keeper_open(struct instance *instance, struct error *err)
{
	struct backend_limits *l = &instance->limits;

	(void)err;
	l->logical_block = 512;
	l->size = MIB;
	l->volatile_cache = true;
	l->max_queues = keeper_max_queues;
	keeper_opens++;
	return 0;
}

static void keeper_close(struct instance *instance)
{
	(void)instance;
	keeper_closes++;
}

/* When told to, all queues but the first open only once that one has failed. */
static bool keeper_waits;

static int keeper_queue_open(struct queue *queue, struct error *err)
{
	(void)err;
	while (keeper_waits && queue_index(queue) && !queue_has_failed(queue - queue_index(queue)))
		sleep_us(1000);
	return 0;
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
	.queue_open = keeper_queue_open,
	.submit = keeper_submit,
};
BACKEND_REGISTER(keeper_backend);

/* ---- and one that keeps its queue's thread ---- */

static bool blocker_lets_go = true;

static void blocker_submit(struct io *io)
{
	while (!__atomic_load_n(&blocker_lets_go, __ATOMIC_RELAXED))
		sleep_us(1000);
	io_complete(io, (int)io->length);
}

static const struct backend blocker_backend = {
	.scheme = "blocker",
	.syntax = "blocker:",
	.summary = "for tests",
	.access = ACCESS_NONE,
	.open = keeper_open,
	.close = keeper_close,
	.submit = blocker_submit,
};
BACKEND_REGISTER(blocker_backend);

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
		sleep_us(1000);
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
	if (s->spec.backend->access != ACCESS_NONE)
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
	assert_int_equal(s.standalone.state, EXPORT_LIVE);
	assert_string_equal(s.standalone.path_name, "/dev/ublkb0");
	assert_int_equal(s.standalone.device.path, path);
	for (unsigned q = 0; q < s.standalone.device.info.nr_hw_queues; q++)
		write_and_read_back(&s, q);
	assert_int_equal(served_stop(&s), 0);
	assert_int_equal(s.standalone.state, EXPORT_GONE);
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

/* ADD_DEV clears in silence what it does not grant: served so, data would be lost. */
static void test_flags_that_are_not_granted(void **state)
{
	struct fake_kernel kernel = fake_linux_7_2;
	struct served s;

	(void)state;
	kernel.withheld = UBLK_FEAT_USER_COPY;
	fake_start(&kernel);
	served_open(&s, "memory:8M queues=1 depth=4");
	assert_int_equal(served_start(&s), -EOPNOTSUPP);
	assert_non_null(strstr(s.err.text, "user-copy"));
	assert_int_equal(fake_devices(), 0);
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

static void test_the_kernel_has_the_device_as_planned(void **state)
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
	assert_int_equal(s.standalone.device.info.nr_hw_queues, fake_linux_7_2.cpus);
	for (unsigned q = 0; q < fake_linux_7_2.cpus; q++)
		write_and_read_back(&s, q);
	served_end(&s);
	fake_stop();
}

/* A backend that cannot serve as many reduces them too. */
static void test_fewer_queues_than_the_backend_can(void **state)
{
	static const struct {
		unsigned asked, can, got;
	} cases[] = {
		{ 4, 0, 4 }, { 4, 1, 1 }, { 4, 3, 3 }, { 4, 4, 4 }, { 2, 3, 2 }, { 16, 9, 4 },
	};
	struct ublk_dev_info info;
	char words[64];
	struct served s;

	(void)state;
	keeper_lets_go = true;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		keeper_max_queues = cases[i].can;
		snprintf(words, sizeof(words), "keeper: queues=%u depth=2", cases[i].asked);
		fake_start(&fake_linux_7_2);
		served_begin(&s, words);
		assert_true(fake_device(served_id(&s), &info, NULL));
		assert_int_equal(info.nr_hw_queues, cases[i].got);
		assert_int_equal(s.standalone.device.info.nr_hw_queues, cases[i].got);
		for (unsigned q = 0; q < cases[i].got; q++)
			assert_int_equal(fake_request(0, q, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
		served_end(&s);
		fake_stop();
	}
	keeper_max_queues = 0;
	keeper_lets_go = false;
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

static void wait_for_event(const struct standalone *d)
{
	struct pollfd pfd = { .fd = standalone_event(d), .events = POLLIN };

	assert_int_equal(poll(&pfd, 1, 20000), 1);
}

static void test_another_program_stops_the_device(void **state)
{
	struct held before = what_is_held();
	struct served s;

	(void)state;
	for (unsigned gone = 0; gone < 2; gone++) {
		struct pollfd pfd;

		fake_start(&fake_linux_7_2);
		served_begin(&s, "memory:8M queues=2 depth=4");
		pfd = (struct pollfd){ .fd = standalone_event(&s.standalone), .events = POLLIN };
		assert_int_equal(poll(&pfd, 1, 0), 0);
		write_and_read_back(&s, 1);
		fake_other_stops(served_id(&s), gone);
		wait_for_event(&s.standalone);
		assert_int_equal(served_stop(&s), 0);
		assert_int_equal(s.standalone.state, EXPORT_GONE);
		served_close(&s);
		fake_stop();
	}
	same_as(before, "stopped by somebody else");
}

/* ---- growing ---- */

static uint64_t sectors_of(unsigned id)
{
	struct ublk_dev_params params;
	struct ublk_dev_info info;

	assert_true(fake_device(id, &info, &params));
	return params.basic.dev_sectors;
}

static void test_a_device_grows_with_its_storage(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_begin(&s, "keeper: queues=1 depth=3");
	instance_grow(&s.standalone.serving.instance, 2 * MIB);
	standalone_follow_size(&s.standalone);
	assert_int_equal(sectors_of(served_id(&s)), 2 * MIB / 512);
	assert_int_equal(s.standalone.serving.instance.limits.size, 2 * MIB);
	assert_int_equal(served_stop(&s), 0);
	served_close(&s);
	fake_stop();
}

/* The fake kernel notes a violation, where 6.16 and 6.17 crash. */
static void test_a_stopped_device_is_not_resized(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_begin(&s, "keeper: queues=1 depth=3");
	fake_other_stops(served_id(&s), false);
	wait_for_event(&s.standalone);
	instance_grow(&s.standalone.serving.instance, 2 * MIB);
	standalone_follow_size(&s.standalone);
	assert_int_equal(sectors_of(served_id(&s)), MIB / 512);
	assert_int_equal(s.standalone.serving.instance.limits.size, MIB);
	assert_int_equal(served_stop(&s), 0);
	served_close(&s);
	fake_stop();
}

/* ---- each call failing ---- */

/* Calls without which there is no device. */
static bool is_vital(const char *call)
{
	static const char *const vital[] = {
		"ADD_DEV",        "SET_PARAMS",
		"GET_PARAMS",     "START_DEV",
		"FETCH",          "mmap",
		"eventfd",        "memfd_create",
		"pthread_create", "io_uring_register_files",
	};

	for (unsigned i = 0; i < sizeof(vital) / sizeof(*vital); i++)
		if (!strcmp(vital[i], call))
			return true;
	return false;
}

/*
 * Starts a device again and again, the first call failing, the second, and so on
 * until one round has no such call any more.  What fails leaves nothing and says
 * why; what does not fail all the same serves as if nothing had happened.
 */
static void fail_each_call_of_start(const struct fake_kernel *kernel, const char *words,
				    const char *created)
{
	struct held before = what_is_held();
	const char *failed = "";
	unsigned n, refused = 0;
	struct served s;

	for (n = 1; failed; n++) {
		char what[100];
		int ret;

		fake_start(kernel);
		served_open(&s, words);
		s.control.deadline_ms = 1000;
		fake_hasten(20);
		fake_fail(NULL, n, 0);
		ret = served_start(&s);
		failed = fake_failed();
		fake_fail(NULL, 0, 0);
		snprintf(what, sizeof(what), "call %u of a start, %s", n, failed ? failed : "none");
		if (ret) {
			refused++;
			assert_int_equal(s.err.code, -ret);
			if (!failed || !*s.err.text)
				fail_msg("%s: it fails with '%s'", what, s.err.text);
			if (fake_devices())
				fail_msg("%s: a device is left", what);
		} else {
			if (failed && is_vital(failed))
				fail_msg("%s: it failed, and yet there is a device", what);
			write_and_read_back(&s, 0);
			if (served_stop(&s))
				fail_msg("%s: it does not stop: %s", what, s.err.text);
		}
		if (created && !access(created, F_OK)) {
			/* A lock that is held means that somebody else has it already. */
			if (ret && strcmp(failed, "flock") != 0)
				fail_msg("%s: the new file is left", what);
			unlink(created);
		}
		served_close(&s);
		fake_stop();
		same_as(before, what);
	}
	/* A start has some fifty calls; the most are vital. */
	assert_true(n > 30 && refused > 15);
}

static void test_each_call_of_a_start_fails(void **state)
{
	static const struct fake_kernel *const kernels[] = { &fake_linux_6_0, &fake_linux_6_12,
							     &fake_linux_7_2 };
	char words[600];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		fail_each_call_of_start(kernels[i], "memory:8M queues=1 depth=3", NULL);
		fail_each_call_of_start(kernels[i], "null:8M queues=2 depth=3", NULL);
		snprintf(words, sizeof(words), "%s queues=2 depth=3 -ocreate=8M",
			 temp_path("new.img"));
		fail_each_call_of_start(kernels[i], words, temp_path("new.img"));
	}
}

static void fail_each_call_of_stop(const struct fake_kernel *kernel, const char *words)
{
	struct held before = what_is_held();
	const char *failed = "";
	struct served s;

	for (unsigned n = 1; failed; n++) {
		char what[100];
		int ret;

		fake_start(kernel);
		served_begin(&s, words);
		s.control.deadline_ms = 1000;
		fake_hasten(20);
		write_and_read_back(&s, 0);
		fake_fail(NULL, n, 0);
		ret = served_stop(&s);
		failed = fake_failed();
		fake_fail(NULL, 0, 0);
		snprintf(what, sizeof(what), "call %u of a stop, %s", n, failed ? failed : "none");
		if (ret && (!failed || !*s.err.text))
			fail_msg("%s: it fails with '%s'", what, s.err.text);
		if (fake_devices()) {
			if (!ret)
				fail_msg("%s: a device is left, and nobody says so", what);
			fake_other_stops(0, true);
		}
		served_close(&s);
		fake_stop();
		same_as(before, what);
	}
}

static void test_each_call_of_a_stop_fails(void **state)
{
	char words[600];

	(void)state;
	fail_each_call_of_stop(&fake_linux_6_12, "memory:8M queues=1 depth=3");
	fail_each_call_of_stop(&fake_linux_7_2, "memory:8M queues=2 depth=3");
	snprintf(words, sizeof(words), "%s queues=2 depth=3", temp_file("disk.img", 8 * MIB));
	fail_each_call_of_stop(&fake_linux_7_2, words);
}

/* ---- commands that the kernel never answers ---- */

static void test_a_command_is_not_answered(void **state)
{
	static const uint32_t ops[] = { UBLK_CTRL_GET_FEATURES, UBLK_CTRL_ADD_DEV,
					UBLK_CTRL_SET_PARAMS, UBLK_CTRL_GET_PARAMS,
					UBLK_CTRL_START_DEV };
	struct held before = what_is_held();
	struct served s;

	(void)state;
	for (unsigned i = 0; i < 2 * sizeof(ops) / sizeof(*ops); i++) {
		bool cancels = i % 2;

		fake_start(&fake_linux_7_2);
		served_open(&s, "memory:8M queues=2 depth=4");
		s.control.deadline_ms = 1000;
		fake_hang(ops[i / 2], cancels);
		fake_leaks(true);
		assert_int_equal(served_start(&s), -ETIMEDOUT);
		fake_leaks(false);
		assert_true(*s.err.text);
		assert_int_equal(s.control.nr_abandoned, !cancels);
		served_close(&s);
		/* The command comes through after all, with nobody left to hear it. */
		fake_hang(0, false);
		if (fake_devices())
			fake_other_stops(0, true);
		fake_stop();
		same_as(before, "a command that is not answered");
	}
}

static void test_a_stop_is_not_answered(void **state)
{
	static const uint32_t ops[] = { UBLK_CTRL_STOP_DEV, UBLK_CTRL_DEL_DEV_ASYNC };
	struct held before = what_is_held();
	struct served s;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		fake_start(&fake_linux_7_2);
		served_begin(&s, "memory:8M queues=2 depth=4");
		s.control.deadline_ms = 1000;
		fake_hang(ops[i / 2], i % 2);
		fake_leaks(true);
		assert_int_equal(served_stop(&s), -ETIMEDOUT);
		fake_leaks(false);
		assert_true(*s.err.text);
		served_close(&s);
		fake_hang(0, false);
		if (fake_devices())
			fake_other_stops(0, true);
		fake_stop();
		same_as(before, "a stop that is not answered");
	}
}

/* ---- refusals ---- */

static void test_the_kernel_refuses_a_step(void **state)
{
	static const struct {
		uint32_t op;
		int code, expected;
	} steps[] = {
		{ UBLK_CTRL_GET_FEATURES, EPERM, EPERM }, { UBLK_CTRL_ADD_DEV, EEXIST, EEXIST },
		{ UBLK_CTRL_ADD_DEV, EACCES, EACCES },    { UBLK_CTRL_ADD_DEV, EINVAL, EINVAL },
		{ UBLK_CTRL_SET_PARAMS, EINVAL, EINVAL }, { UBLK_CTRL_GET_PARAMS, EINVAL, EINVAL },
		{ UBLK_CTRL_START_DEV, EINVAL, EINVAL },  { UBLK_CTRL_START_DEV, ENODEV, ENODEV },
		{ UBLK_CTRL_START_DEV, EINTR, EINTR },
	};
	struct served s;

	(void)state;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		fake_start(&fake_linux_7_2);
		served_open(&s, "memory:8M queues=2 depth=4");
		fake_refuse(steps[i].op, steps[i].code);
		assert_int_equal(served_start(&s), -steps[i].expected);
		assert_true(*s.err.text);
		assert_int_equal(s.standalone.state,
				 fake_calls() ? s.standalone.state : EXPORT_FAILED);
		served_close(&s);
		fake_stop();
	}
}

static void test_a_fetch_is_refused(void **state)
{
	struct served s;

	(void)state;
	for (unsigned n = 1; n <= 8; n++) {
		fake_start(&fake_linux_7_2);
		served_open(&s, "memory:8M queues=2 depth=4");
		fake_fail("FETCH", n, EINVAL);
		assert_int_equal(served_start(&s), -EINVAL);
		assert_non_null(strstr(s.err.text, "queue"));
		served_close(&s);
		fake_stop();
	}
}

static void test_the_driver_lacks_a_parameter(void **state)
{
	struct fake_kernel kernel = fake_linux_7_2;
	struct served s;

	(void)state;
	/* Else a discard would be sent and do nothing, in silence. */
	kernel.params = UBLK_PARAMS_BASIC;
	fake_start(&kernel);
	served_open(&s, "memory:8M queues=1 depth=4");
	assert_int_equal(served_start(&s), -EOPNOTSUPP);
	assert_non_null(strstr(s.err.text, "discard"));
	served_close(&s);
	fake_stop();
}

static void test_ids_and_numbers_of_devices(void **state)
{
	struct fake_kernel kernel = fake_linux_7_2;
	struct served a, b, c;

	(void)state;
	kernel.devices = 2;
	fake_start(&kernel);
	served_begin(&a, "null:8M queues=1 id=5");
	served_open(&b, "null:8M queues=1 id=5");
	assert_int_equal(served_start(&b), -EEXIST);
	assert_non_null(strstr(b.err.text, "5"));
	served_close(&b);
	served_begin(&b, "null:8M queues=1");
	assert_int_equal(served_id(&b), 0);
	served_open(&c, "null:8M queues=1");
	assert_int_equal(served_start(&c), -EACCES);
	assert_non_null(strstr(c.err.text, "ublks_max"));
	served_close(&c);
	assert_int_equal(fake_devices(), 2);
	served_end(&a);
	served_end(&b);
	fake_stop();
}

static void test_a_start_that_is_hurried(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_open(&s, "memory:8M queues=1 depth=4");
	/* As a signal handler would, while START_DEV waits. */
	fake_hang(UBLK_CTRL_START_DEV, true);
	s.control.abort = 1;
	assert_int_equal(served_start(&s), -ETIMEDOUT);
	assert_int_equal(fake_devices(), 0);
	served_close(&s);
	fake_hang(0, false);
	fake_stop();
}

/* ---- requests in service when it ends ---- */

static void start_some(struct fake_request **r, unsigned n, void *data)
{
	for (unsigned i = 0; i < n; i++)
		r[i] = fake_request_start(0, i % 2, UBLK_OP_WRITE, 0, i * 4096, 4096, data);
	for (unsigned i = 0; i < 2000 && fake_in_service(0) < n; i++)
		sleep_us(1000);
	assert_int_equal(fake_in_service(0), n);
}

static void *let_go_later(void *arg)
{
	struct timespec little = { .tv_nsec = 50000000 };

	(void)arg;
	nanosleep(&little, NULL);
	fake_hold_work(false);
	return NULL;
}

static void test_a_stop_waits_for_requests_in_flight(void **state)
{
	void *data = fake_data(4096, 1);
	struct fake_request *r[6];
	struct served s;
	pthread_t thread;
	char words[600];

	(void)state;
	fake_start(&fake_linux_7_2);
	snprintf(words, sizeof(words), "%s queues=2 depth=4", temp_file("disk.img", 8 * MIB));
	served_begin(&s, words);
	fake_hold_work(true);
	start_some(r, 6, data);
	pthread_create(&thread, NULL, let_go_later, NULL);
	served_end(&s);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(fake_request_wait(r[i]), 0);
	fake_data_free(data);
	fake_stop();
}

/* An abort gives up requests that a backend never answers: they fail for the application. */
static void test_an_aborted_stop_abandons_requests_in_flight(void **state)
{
	struct held before = what_is_held();
	void *data = fake_data(4096, 1);
	struct fake_request *r[6];
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_begin(&s, "keeper: queues=2 depth=4");
	start_some(r, 6, data);
	s.control.abort = 1;
	assert_int_equal(served_stop(&s), 0);
	served_close(&s);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(fake_request_wait(r[i]), -EIO);
	assert_int_equal(keeper_opens, keeper_closes);
	fake_stop();
	fake_data_free(data);
	same_as(before, "a hurried stop");
}

static void test_a_stop_that_the_backend_blocks_has_a_deadline(void **state)
{
	void *data = fake_data(4096, 1);
	struct fake_request *r[2];
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_begin(&s, "keeper: queues=2 depth=4");
	s.control.deadline_ms = 400;
	start_some(r, 2, data);
	assert_int_equal(served_stop(&s), -ETIMEDOUT);
	served_close(&s);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(fake_request_wait(r[i]), -EIO);
	fake_stop();
	fake_data_free(data);
}

/* ---- a queue that fails while it serves ---- */

static void test_a_queue_that_fails_ends_the_device(void **state)
{
	static const char *const calls[] = { "io_uring_submit_and_wait", "COMMIT" };
	void *data = fake_data(4096, 1);
	struct fake_request *r;
	struct served s;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		fake_start(&fake_linux_7_2);
		served_begin(&s, "memory:8M queues=1 depth=4");
		fake_fail(calls[i], 1, EINVAL);
		r = fake_request_start(0, 0, UBLK_OP_WRITE, 0, 0, 4096, data);
		wait_for_event(&s.standalone);
		fake_fail(NULL, 0, 0);
		assert_int_equal(served_stop(&s), -EINVAL);
		assert_non_null(strstr(s.err.text, "queue 0"));
		assert_int_equal(s.standalone.state, EXPORT_FAILED);
		served_close(&s);
		assert_int_equal(fake_request_wait(r), -EIO);
		fake_stop();
	}
	fake_data_free(data);
}

/* A queue that ends before START_DEV: that is why, whatever the kernel makes of it. */
static void test_a_queue_that_fails_during_the_start(void **state)
{
	struct served s;

	(void)state;
	fake_start(&fake_linux_7_2);
	served_open(&s, "keeper: queues=2 depth=4");
	s.control.deadline_ms = 1000;
	keeper_waits = true;
	fake_fail("io_uring_submit_and_wait", 1, EINVAL);
	assert_int_equal(served_start(&s), -EINVAL);
	keeper_waits = false;
	assert_non_null(strstr(s.err.text, "queue"));
	assert_int_equal(fake_devices(), 0);
	served_close(&s);
	fake_stop();
}

/*
 * A thread that its backend never lets go is left behind, and said to be; when it
 * comes back after all it finds what it uses.
 */
static void test_a_thread_that_does_not_come_back(void **state)
{
	void *data = fake_data(4096, 1);
	struct fake_request *r;
	struct served s;
	pthread_t thread;

	(void)state;
	fake_start(&fake_linux_7_2);
	fake_leaks(true);
	served_begin(&s, "blocker: queues=1 depth=4");
	s.control.deadline_ms = 600;
	fake_hasten(100);
	thread = s.standalone.serving.queues[0].thread;
	blocker_lets_go = false;
	r = fake_request_start(0, 0, UBLK_OP_WRITE, 0, 0, 4096, data);
	while (!fake_in_service(0))
		sleep_us(1000);
	s.control.abort = 1;
	assert_int_equal(served_stop(&s), -ETIMEDOUT);
	assert_non_null(strstr(s.err.text, "queue 0"));
	fake_leaks(false);
	__atomic_store_n(&blocker_lets_go, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	/* Content that nobody could take from under it. */
	counters_destroy(s.standalone.counters);
	close(s.standalone.counters_fd);
	close(s.standalone.serving.end_event);
	close(s.standalone.char_fd);
	assert_int_equal(fake_request_wait(r), -EIO);
	fake_other_stops(0, true);
	served_close(&s);
	fake_stop();
	fake_data_free(data);
}

/* ---- the file that a start makes ---- */

static void test_a_new_file_stays_once_it_was_served(void **state)
{
	const char *path = temp_path("new.img");
	struct served s;
	struct stat st;
	char words[600];

	(void)state;
	snprintf(words, sizeof(words), "%s queues=1 depth=4 -ocreate=8M", path);
	fake_start(&fake_linux_7_2);
	served_open(&s, words);
	fake_refuse(UBLK_CTRL_START_DEV, EINVAL);
	assert_int_equal(served_start(&s), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
	served_close(&s);
	served_begin(&s, words);
	write_and_read_back(&s, 0);
	served_end(&s);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 8 * MIB);
	/* And is not made anew. */
	served_open(&s, words);
	assert_int_equal(served_start(&s), -EEXIST);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 8 * MIB);
	served_close(&s);
	fake_stop();
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lives_on_old_and_new_kernels),
		cmocka_unit_test(test_each_path_can_be_forced),
		cmocka_unit_test(test_a_path_that_the_kernel_lacks_is_refused),
		cmocka_unit_test(test_flags_that_are_not_granted),
		cmocka_unit_test(test_rings_are_set_up_as_the_kernel_can),
		cmocka_unit_test(test_the_kernel_has_the_device_as_planned),
		cmocka_unit_test(test_fewer_queues_than_asked_for),
		cmocka_unit_test(test_fewer_queues_than_the_backend_can),
		cmocka_unit_test(test_block_device_is_tuned),
		cmocka_unit_test(test_partitions_on_and_off),
		cmocka_unit_test(test_char_device_may_appear_late),
		cmocka_unit_test(test_another_program_stops_the_device),
		cmocka_unit_test(test_each_call_of_a_start_fails),
		cmocka_unit_test(test_each_call_of_a_stop_fails),
		cmocka_unit_test(test_a_command_is_not_answered),
		cmocka_unit_test(test_a_stop_is_not_answered),
		cmocka_unit_test(test_the_kernel_refuses_a_step),
		cmocka_unit_test(test_a_fetch_is_refused),
		cmocka_unit_test(test_the_driver_lacks_a_parameter),
		cmocka_unit_test(test_ids_and_numbers_of_devices),
		cmocka_unit_test(test_a_start_that_is_hurried),
		cmocka_unit_test(test_a_stop_waits_for_requests_in_flight),
		cmocka_unit_test(test_an_aborted_stop_abandons_requests_in_flight),
		cmocka_unit_test(test_a_device_grows_with_its_storage),
		cmocka_unit_test(test_a_stopped_device_is_not_resized),
		cmocka_unit_test(test_a_stop_that_the_backend_blocks_has_a_deadline),
		cmocka_unit_test(test_a_queue_that_fails_ends_the_device),
		cmocka_unit_test(test_a_queue_that_fails_during_the_start),
		cmocka_unit_test(test_a_thread_that_does_not_come_back),
		cmocka_unit_test(test_a_new_file_stays_once_it_was_served),
	};
	int failed;

	bound_time(200);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove();
	return failed;
}
