/* SPDX-License-Identifier: MIT */
/*
 * The commands of /dev/ublk-control: what is sent, how long it is waited for,
 * and the words of what is refused.
 */
#include "engine/control.h"
#include "common/cpus.h"
#include "common/error.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>

#define DEADLINE_MS 2000u

static struct control control;
static struct error err;

static void begin(const struct fake_kernel *kernel)
{
	fake_start(kernel);
	err = (struct error){ 0 };
	assert_int_equal(control_open(&control, DEADLINE_MS, &err), 0);
}

static void finish(void)
{
	control_close(&control);
	fake_stop();
}

static uint32_t add_device(uint32_t id)
{
	struct ublk_dev_info info = {
		.dev_id = id,
		.nr_hw_queues = 2,
		.queue_depth = 8,
		.max_io_buf_bytes = 65536,
		.flags = UBLK_FEAT_USER_COPY | UBLK_FEAT_IOCTL_ENCODE,
	};

	if (control_add(&control, &info, &err))
		fail_msg("%s", err.text);
	return info.dev_id;
}

/* ---- what is sent ---- */

static void check_sent(uint32_t op, uint32_t id, uint16_t queue, unsigned len, uint64_t data)
{
	struct ublk_ctrl_cmd sent;

	assert_int_equal(fake_last_command(&sent), op);
	assert_int_equal(sent.dev_id, id);
	assert_int_equal(sent.queue_id, queue);
	assert_int_equal(sent.len, len);
	assert_int_equal(!!sent.addr, !!len);
	assert_int_equal(sent.data, data);
	assert_int_equal(sent.dev_path_len, 0);
	assert_int_equal(sent.pad, 0);
	assert_int_equal(sent.reserved, 0);
}

static void test_each_command_as_the_driver_wants_it(void **state)
{
	struct ublk_dev_params params = { .len = sizeof(params), .types = UBLK_PARAMS_BASIC };
	struct ublk_dev_info info;
	struct cpus cpus;
	uint64_t features;
	uint32_t id;

	(void)state;
	begin(&fake_linux_7_2);
	id = add_device(9);
	assert_int_equal(id, 9);
	check_sent(UBLK_CTRL_ADD_DEV, 9, UBLK_QUEUE_NONE, 64, 0);
	control_get_features(&control, &features, &err);
	check_sent(UBLK_CTRL_GET_FEATURES, 0, UBLK_QUEUE_NONE, 8, 0);
	control_set_params(&control, 9, &params, &err);
	check_sent(UBLK_CTRL_SET_PARAMS, 9, UBLK_QUEUE_NONE, sizeof(params), 0);
	control_get_params(&control, 9, &params, &err);
	check_sent(UBLK_CTRL_GET_PARAMS, 9, UBLK_QUEUE_NONE, sizeof(params), 0);
	control_get_info(&control, 9, &info, &err);
	check_sent(UBLK_CTRL_GET_DEV_INFO, 9, UBLK_QUEUE_NONE, 64, 0);
	control_get_affinity(&control, 9, 1, &cpus, sizeof(cpus), &err);
	check_sent(UBLK_CTRL_GET_QUEUE_AFFINITY, 9, UBLK_QUEUE_NONE, sizeof(cpus), 1);
	control_start(&control, 9, 1234, &err);
	check_sent(UBLK_CTRL_START_DEV, 9, UBLK_QUEUE_NONE, 0, 1234);
	control_start_recovery(&control, 9, &err);
	check_sent(UBLK_CTRL_START_USER_RECOVERY, 9, UBLK_QUEUE_NONE, 0, 0);
	control_end_recovery(&control, 9, 4321, &err);
	check_sent(UBLK_CTRL_END_USER_RECOVERY, 9, UBLK_QUEUE_NONE, 0, 4321);
	control_update_size(&control, 9, 1ull << 40, &err);
	check_sent(UBLK_CTRL_UPDATE_SIZE, 9, UBLK_QUEUE_NONE, 0, 1ull << 40);
	/* The device was not started, as its tags were not fetched. */
	fake_forgive();
	control_try_stop(&control, 9, &err);
	check_sent(UBLK_CTRL_TRY_STOP_DEV, 9, UBLK_QUEUE_NONE, 0, 0);
	control_stop(&control, 9, &err);
	check_sent(UBLK_CTRL_STOP_DEV, 9, UBLK_QUEUE_NONE, 0, 0);
	assert_int_equal(control_delete(&control, 9, &err), 0);
	check_sent(UBLK_CTRL_DEL_DEV, 9, UBLK_QUEUE_NONE, 0, 0);
	id = add_device(UBLK_ID_AUTO);
	assert_int_equal(id, 0);
	assert_int_equal(control_delete_async(&control, id, &err), 0);
	check_sent(UBLK_CTRL_DEL_DEV_ASYNC, 0, UBLK_QUEUE_NONE, 0, 0);
	finish();
}

static void test_answers_come_back(void **state)
{
	struct ublk_dev_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAMS_BASIC,
		.basic = { .logical_bs_shift = 9,
			   .physical_bs_shift = 12,
			   .max_sectors = 128,
			   .dev_sectors = 4711 },
	};
	struct ublk_dev_info info = { 0 };
	struct ublk_dev_params kept = { 0 };
	struct cpus cpus = { 0 };
	uint64_t features;

	(void)state;
	begin(&fake_linux_7_2);
	assert_int_equal(control_get_features(&control, &features, &err), 0);
	assert_int_equal(features, 0xfffff);
	add_device(3);
	assert_int_equal(control_get_info(&control, 3, &info, &err), 0);
	assert_int_equal(info.dev_id, 3);
	assert_int_equal(info.nr_hw_queues, 2);
	assert_int_equal(info.queue_depth, 8);
	assert_int_equal(control_set_params(&control, 3, &params, &err), 0);
	assert_int_equal(control_get_params(&control, 3, &kept, &err), 0);
	assert_int_equal(kept.basic.dev_sectors, 4711);
	assert_int_equal(kept.types, UBLK_PARAMS_BASIC | UBLK_PARAMS_DEVT);
	assert_int_equal(control_get_affinity(&control, 3, 1, &cpus, sizeof(cpus), &err), 0);
	assert_int_equal(cpus.bits[0], 2);
	assert_int_equal(control_delete(&control, 3, &err), 0);
	finish();
}

/* Before 6.5 there is no such command: whatever the driver says then means "none". */
static void test_features_of_a_kernel_that_cannot_tell(void **state)
{
	static const int answers[] = { EOPNOTSUPP, ENODEV, 524 };
	uint64_t features;

	(void)state;
	begin(&fake_linux_6_0);
	features = 1;
	assert_int_equal(control_get_features(&control, &features, &err), 0);
	assert_int_equal(features, 0);
	for (unsigned i = 0; i < 3; i++) {
		features = 1;
		fake_refuse(UBLK_CTRL_GET_FEATURES, answers[i]);
		assert_int_equal(control_get_features(&control, &features, &err), 0);
		assert_int_equal(features, 0);
	}
	fake_refuse(UBLK_CTRL_GET_FEATURES, EPERM);
	assert_int_equal(control_get_features(&control, &features, &err), -EPERM);
	finish();
}

static void test_deleting_without_waiting_is_newer(void **state)
{
	static const int answers[] = { EOPNOTSUPP, 524 };
	struct ublk_ctrl_cmd sent;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		begin(&fake_linux_7_2);
		add_device(0);
		fake_refuse(UBLK_CTRL_DEL_DEV_ASYNC, answers[i]);
		assert_int_equal(control_delete_async(&control, 0, &err), -EOPNOTSUPP);
		assert_int_equal(fake_last_command(&sent), UBLK_CTRL_DEL_DEV_ASYNC);
		assert_int_equal(control_delete(&control, 0, &err), 0);
		finish();
	}
}

/* ---- opening ---- */

static void open_fails(const struct fake_kernel *kernel, int code, const char *about)
{
	unsigned before = fake_open_files();

	fake_start(kernel);
	assert_int_equal(control_open(&control, DEADLINE_MS, &err), -code);
	assert_int_equal(err.code, code);
	if (!strstr(err.text, about))
		fail_msg("'%s' does not say '%s'", err.text, about);
	fake_stop();
	assert_int_equal(fake_open_files(), before);
}

static void test_names_a_missing_driver_or_right(void **state)
{
	static const struct {
		int control, ring, code;
		const char *about;
	} cases[] = {
		{ ENOENT, 0, ENOENT, "modprobe ublk_drv" },
		{ ENODEV, 0, ENOENT, "modprobe ublk_drv" },
		{ ENXIO, 0, ENOENT, "modprobe ublk_drv" },
		{ EACCES, 0, EACCES, "run as root" },
		{ EPERM, 0, EACCES, "run as root" },
		{ EMFILE, 0, EMFILE, "/dev/ublk-control" },
		{ 0, EPERM, EPERM, "io_uring" },
		{ 0, ENOSYS, ENOSYS, "io_uring" },
		{ 0, ENOMEM, ENOMEM, "ulimit -l" },
		{ 0, EINVAL, EINVAL, "too old" },
		{ 0, EBUSY, EBUSY, "io_uring" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fake_kernel kernel = fake_linux_7_2;

		kernel.control_refusal = cases[i].control;
		kernel.ring_refusal = cases[i].ring;
		open_fails(&kernel, cases[i].code, cases[i].about);
	}
}

/* ---- refusals ---- */

static int run(uint32_t op)
{
	struct ublk_dev_params params = { .len = sizeof(params), .types = UBLK_PARAMS_BASIC };
	struct ublk_dev_info info = { .dev_id = 7, .nr_hw_queues = 1, .queue_depth = 1 };
	struct cpus cpus;
	uint64_t features;

	switch (op) {
	case UBLK_CTRL_ADD_DEV:
		return control_add(&control, &info, &err);
	case UBLK_CTRL_DEL_DEV:
		return control_delete(&control, 7, &err);
	case UBLK_CTRL_START_DEV:
		return control_start(&control, 7, getpid(), &err);
	case UBLK_CTRL_STOP_DEV:
		return control_stop(&control, 7, &err);
	case UBLK_CTRL_SET_PARAMS:
		return control_set_params(&control, 7, &params, &err);
	case UBLK_CTRL_GET_PARAMS:
		return control_get_params(&control, 7, &params, &err);
	case UBLK_CTRL_GET_DEV_INFO:
		return control_get_info(&control, 7, &info, &err);
	case UBLK_CTRL_GET_QUEUE_AFFINITY:
		return control_get_affinity(&control, 7, 0, &cpus, sizeof(cpus), &err);
	case UBLK_CTRL_GET_FEATURES:
		return control_get_features(&control, &features, &err);
	case UBLK_CTRL_START_USER_RECOVERY:
		return control_start_recovery(&control, 7, &err);
	case UBLK_CTRL_END_USER_RECOVERY:
		return control_end_recovery(&control, 7, getpid(), &err);
	case UBLK_CTRL_UPDATE_SIZE:
		return control_update_size(&control, 7, 1, &err);
	case UBLK_CTRL_TRY_STOP_DEV:
		return control_try_stop(&control, 7, &err);
	}
	fail_msg("no such command");
	return 0;
}

static const struct {
	uint32_t op;
	const char *name;
	bool waits;
} commands[] = {
	{ UBLK_CTRL_ADD_DEV, "ADD_DEV", false },
	{ UBLK_CTRL_DEL_DEV, "DEL_DEV", true },
	{ UBLK_CTRL_START_DEV, "START_DEV", true },
	{ UBLK_CTRL_STOP_DEV, "STOP_DEV", true },
	{ UBLK_CTRL_SET_PARAMS, "SET_PARAMS", false },
	{ UBLK_CTRL_GET_PARAMS, "GET_PARAMS", false },
	{ UBLK_CTRL_GET_DEV_INFO, "GET_DEV_INFO", false },
	{ UBLK_CTRL_GET_QUEUE_AFFINITY, "GET_QUEUE_AFFINITY", false },
	{ UBLK_CTRL_GET_FEATURES, "GET_FEATURES", false },
	{ UBLK_CTRL_START_USER_RECOVERY, "START_USER_RECOVERY", true },
	{ UBLK_CTRL_END_USER_RECOVERY, "END_USER_RECOVERY", true },
	{ UBLK_CTRL_UPDATE_SIZE, "UPDATE_SIZE", false },
	{ UBLK_CTRL_TRY_STOP_DEV, "TRY_STOP_DEV", true },
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

static void test_every_refusal_has_words(void **state)
{
	static const int codes[] = { EPERM, ENOENT, EINTR,  EIO,    ENOMEM, EACCES,
				     EBUSY, EEXIST, ENODEV, EINVAL, EFAULT, EOPNOTSUPP };

	(void)state;
	begin(&fake_linux_7_2);
	for (unsigned i = 0; i < COMMANDS; i++)
		for (unsigned c = 0; c < sizeof(codes) / sizeof(*codes); c++) {
			int ret;

			err = (struct error){ 0 };
			fake_refuse(commands[i].op, codes[c]);
			ret = run(commands[i].op);
			/* GET_FEATURES takes two of them for "none". */
			if (!ret && commands[i].op == UBLK_CTRL_GET_FEATURES)
				continue;
			/* sent again as for an unprivileged device */
			if (commands[i].op == UBLK_CTRL_GET_DEV_INFO && codes[c] == EINVAL) {
				assert_int_equal(ret, -ENODEV);
				continue;
			}
			assert_int_equal(ret, -codes[c]);
			assert_int_equal(err.code, codes[c]);
			assert_true(strlen(err.text) > 10);
			/* Which command, or which device. */
			if (!strstr(err.text, commands[i].name) && !strstr(err.text, "device"))
				fail_msg("'%s' names neither command nor device", err.text);
		}
	finish();
}

static void test_known_traps_say_what_to_do(void **state)
{
	static const struct {
		uint32_t op;
		int code, heard;
		const char *about[3];
	} traps[] = {
		{ UBLK_CTRL_ADD_DEV,
		  EEXIST,
		  EEXIST,
		  { "7", "another id", "ublkctl remove /dev/ublkb7" } },
		{ UBLK_CTRL_ADD_DEV, EACCES, EACCES, { "limit", "ublks_max", "remove" } },
		{ UBLK_CTRL_ADD_DEV, EPERM, EPERM, { "CAP_SYS_ADMIN", "root", "ADD_DEV" } },
		{ UBLK_CTRL_ADD_DEV, EINVAL, EINVAL, { "queues", "depth", "ADD_DEV" } },
		{ UBLK_CTRL_SET_PARAMS, EACCES, EACCES, { "7", "started", "SET_PARAMS" } },
		{ UBLK_CTRL_START_DEV, EINVAL, EINVAL, { "7", "parameters", "PID namespace" } },
		{ UBLK_CTRL_STOP_DEV, ENODEV, ENODEV, { "7", "ublkctl list", "no ublk device" } },
		{ UBLK_CTRL_GET_DEV_INFO, ENODEV, ENODEV, { "7", "ublkctl list", "device" } },
		{ UBLK_CTRL_START_USER_RECOVERY, EBUSY, EBUSY, { "7", "/dev/ublkc7", "server" } },
		{ UBLK_CTRL_TRY_STOP_DEV, EBUSY, EBUSY, { "7", "in use", "device" } },
		{ UBLK_CTRL_UPDATE_SIZE,
		  EOPNOTSUPP,
		  EOPNOTSUPP,
		  { "UPDATE_SIZE", "6.16", "Linux" } },
		{ UBLK_CTRL_UPDATE_SIZE, 524, EOPNOTSUPP, { "UPDATE_SIZE", "6.16", "Linux" } },
		{ UBLK_CTRL_TRY_STOP_DEV, EOPNOTSUPP, EOPNOTSUPP, { "7.0", "Linux", "TRY_STOP" } },
	};

	(void)state;
	begin(&fake_linux_7_2);
	for (unsigned i = 0; i < sizeof(traps) / sizeof(*traps); i++) {
		fake_refuse(traps[i].op, traps[i].code);
		assert_int_equal(run(traps[i].op), -traps[i].heard);
		for (unsigned w = 0; w < 3; w++)
			if (!strstr(err.text, traps[i].about[w]))
				fail_msg("'%s' does not say '%s'", err.text, traps[i].about[w]);
	}
	finish();
}

/* ---- deadlines ---- */

/* With what is not answered the fake kernel's clock runs by itself, one wait a step. */
static unsigned waits_until_given_up(uint32_t op)
{
	fake_fail("io_uring_wait_cqe_timeout", UINT32_MAX, 0);
	assert_int_equal(run(op), -ETIMEDOUT);
	return fake_calls();
}

static void test_every_command_has_a_deadline(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COMMANDS; i++) {
		unsigned waits, expected;

		begin(&fake_linux_7_2);
		if (commands[i].op != UBLK_CTRL_ADD_DEV)
			add_device(7);
		fake_hang(commands[i].op, true);
		waits = waits_until_given_up(commands[i].op);
		/* In steps of a fifth of a second; then the cancelled command comes back. */
		expected = (commands[i].waits ? DEADLINE_MS : CONTROL_SHORT_MS) / 200;
		assert_true(is_between(waits, expected, expected + 2));
		assert_non_null(strstr(err.text, commands[i].name));
		assert_int_equal(control.nr_abandoned, 0);
		fake_hang(0, false);
		if (commands[i].op != UBLK_CTRL_ADD_DEV)
			assert_int_equal(control_delete(&control, 7, &err), 0);
		finish();
	}
}

static void test_abort_ends_a_wait(void **state)
{
	(void)state;
	begin(&fake_linux_7_2);
	control.deadline_ms = 1000000;
	add_device(7);
	fake_hang(UBLK_CTRL_STOP_DEV, true);
	control.abort = 1;
	assert_true(is_between(waits_until_given_up(UBLK_CTRL_STOP_DEV), 1, 3));
	control.abort = 0;
	fake_hang(0, false);
	assert_int_equal(control_delete(&control, 7, &err), 0);
	finish();
}

/* An answer that comes too late is for nobody: least of all for the next command. */
static void test_a_late_answer_is_not_the_next_ones(void **state)
{
	struct ublk_dev_info info;

	(void)state;
	begin(&fake_linux_7_2);
	add_device(7);
	fake_hang(UBLK_CTRL_GET_DEV_INFO, false);
	fake_leaks(true);
	assert_int_equal(control_get_info(&control, 7, &info, &err), -ETIMEDOUT);
	fake_leaks(false);
	assert_int_equal(control.nr_abandoned, 1);
	fake_hang(0, false);
	fake_refuse(UBLK_CTRL_STOP_DEV, EIO);
	assert_int_equal(control_stop(&control, 7, &err), -EIO);
	assert_int_equal(control_get_info(&control, 7, &info, &err), 0);
	assert_int_equal(info.dev_id, 7);
	assert_int_equal(control_delete(&control, 7, &err), 0);
	finish();
}

static void test_interrupted_waits_go_on(void **state)
{
	(void)state;
	begin(&fake_linux_7_2);
	for (unsigned i = 0; i < 3; i++) {
		fake_fail("io_uring_wait_cqe_timeout", 1, EINTR);
		add_device(7);
		assert_non_null(fake_failed());
		fake_fail("io_uring_wait_cqe_timeout", 1, EINTR);
		assert_int_equal(control_delete(&control, 7, &err), 0);
	}
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_command_as_the_driver_wants_it),
		cmocka_unit_test(test_answers_come_back),
		cmocka_unit_test(test_features_of_a_kernel_that_cannot_tell),
		cmocka_unit_test(test_deleting_without_waiting_is_newer),
		cmocka_unit_test(test_names_a_missing_driver_or_right),
		cmocka_unit_test(test_every_refusal_has_words),
		cmocka_unit_test(test_known_traps_say_what_to_do),
		cmocka_unit_test(test_every_command_has_a_deadline),
		cmocka_unit_test(test_abort_ends_a_wait),
		cmocka_unit_test(test_a_late_answer_is_not_the_next_ones),
		cmocka_unit_test(test_interrupted_waits_go_on),
	};

	bound_time(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
