/* SPDX-License-Identifier: MIT */
#include "common/error.h"
#include "engine/ring.h"
#include "engine/ring_policy.h"
#include "tests/unit/fake-kernel.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>

/* ---- how it is set up ---- */

static void opens_as(const struct fake_kernel *kernel, const char *mode)
{
	struct ring ring;
	struct error err;

	fake_start(kernel);
	assert_int_equal(ring_open(&ring, 8, RING_OP(IORING_OP_NOP), false, &err), 0);
	assert_string_equal(ring.mode, mode);
	ring_close(&ring);
	fake_stop();
}

static void test_takes_the_best_that_there_is(void **state)
{
	struct fake_kernel kernel = fake_linux_7_2;

	(void)state;
	opens_as(&kernel, "single issuer, deferred task work");
	kernel.registers_ring_fd = false;
	opens_as(&kernel, "single issuer, deferred task work");
	kernel.ring_flags &= ~(uint32_t)IORING_SETUP_DEFER_TASKRUN;
	opens_as(&kernel, "cooperative task work");
	kernel.ring_flags = 0;
	opens_as(&kernel, "plain");
}

static void test_says_why_io_uring_is_refused(void **state)
{
	static const struct {
		int code;
		const char *about;
	} refusals[] = {
		{ EPERM, "seccomp" }, { ENOSYS, "seccomp" }, { ENOMEM, "ulimit -l" },
		{ EINVAL, "set up" }, { EMFILE, "set up" },
	};
	struct ring ring;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
		struct fake_kernel kernel = fake_linux_7_2;

		kernel.ring_refusal = refusals[i].code;
		fake_start(&kernel);
		assert_int_equal(ring_open(&ring, 8, RING_OP(IORING_OP_NOP), false, &err),
				 -refusals[i].code);
		assert_int_equal(err.code, refusals[i].code);
		assert_non_null(strstr(err.text, refusals[i].about));
		fake_stop();
		assert_int_equal(ring_error(&err, -refusals[i].code), -refusals[i].code);
	}
}

/* The settings as they would be read, the group NULL where the kernel has none. */
static void set_policy(const char *disabled, const char *group)
{
	char directory[] = "/tmp/ublkd-test-XXXXXX", path[64];
	const char *const names[] = { "io_uring_disabled", "io_uring_group" };
	const char *const values[] = { disabled, group };
	FILE *f;

	assert_non_null(mkdtemp(directory));
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		if (!values[i])
			continue;
		f = fopen(path, "w");
		assert_non_null(f);
		fprintf(f, "%s\n", values[i]);
		fclose(f);
	}
	ring_policy_read(directory);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(directory), 0);
}

static void test_names_the_setting_that_refuses(void **state)
{
	struct error err;

	(void)state;
	set_policy("0", "-1");
	assert_false(ring_policy_refuses(77, false, &err));
	set_policy("1", "-1");
	assert_true(ring_policy_refuses(77, false, &err));
	assert_int_equal(err.code, EPERM);
	assert_non_null(strstr(err.text, "kernel.io_uring_disabled is 1"));
	assert_non_null(strstr(err.text, "sysctl kernel.io_uring_group=77"));
	set_policy("1", "77");
	assert_false(ring_policy_refuses(77, false, &err));
	assert_true(ring_policy_refuses(78, false, &err));
	assert_false(ring_policy_refuses(78, true, &err));
	set_policy("1", NULL);
	assert_true(ring_policy_refuses(77, false, &err));
	/* Nobody, whatever the group and the privilege. */
	set_policy("2", "77");
	assert_true(ring_policy_refuses(77, true, &err));
	assert_true(ring_policy_refuses(77, false, &err));
	assert_non_null(strstr(err.text, "kernel.io_uring_disabled is 2"));
	/* The settings stay where there is nothing to read: in a worker's root. */
	ring_policy_read("/nonexistent");
	assert_true(ring_policy_refuses(77, false, &err));
	set_policy("0", NULL);
	assert_false(ring_policy_refuses(77, false, &err));
}

/* ---- a round ---- */

struct heard {
	struct ring_op op;
	struct ring *ring;
	unsigned count, order;
	int result;
	unsigned again; /* sends itself so many times more */
};

static unsigned order;

static void send_nop(struct ring *ring, struct heard *h)
{
	struct io_uring_sqe *sqe = ring_sqe(ring);

	io_uring_prep_nop(sqe);
	ring_sqe_for(sqe, &h->op);
}

static void hear(struct ring_op *op, int result)
{
	struct heard *h = (struct heard *)op;

	h->count++;
	h->order = order++;
	h->result = result;
	if (h->again) {
		h->again--;
		send_nop(h->ring, h);
	}
}

static void begin(struct ring *ring, struct heard *h, unsigned n)
{
	struct error err;

	order = 0;
	fake_start(&fake_linux_7_2);
	assert_int_equal(ring_open(ring, 8, RING_OP(IORING_OP_NOP), false, &err), 0);
	for (unsigned i = 0; i < n; i++)
		h[i] = (struct heard){ .op.done = hear, .ring = ring };
}

static void finish(struct ring *ring)
{
	ring_close(ring);
	fake_stop();
}

static void test_each_completion_goes_to_its_own(void **state)
{
	struct heard h[6];
	struct ring ring;

	(void)state;
	begin(&ring, h, 6);
	fake_work(IORING_OP_NOP, 3, 1, -EIO);
	for (unsigned i = 0; i < 6; i++)
		send_nop(&ring, &h[i]);
	assert_int_equal(ring_wait(&ring), 0);
	ring_dispatch(&ring);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(h[i].count, 1);
		assert_int_equal(h[i].order, i);
		assert_int_equal(h[i].result, i == 3 ? -EIO : 0);
	}
	/* Nothing is told twice. */
	ring_dispatch(&ring);
	assert_int_equal(order, 6);
	finish(&ring);
}

/* A newer liburing prepares only the fields that an operation has: the rest is to be zero. */
static void test_an_sqe_has_nothing_of_an_older_one(void **state)
{
	static const struct io_uring_sqe zero;
	struct io_uring_sqe *sqe;
	struct heard h[12];
	struct ring ring;

	(void)state;
	begin(&ring, h, 12);
	for (unsigned i = 0; i < 12; i++) {
		sqe = ring_sqe(&ring);
		assert_memory_equal(sqe, &zero, sizeof(zero));
		io_uring_prep_nop(sqe);
		ring_sqe_for(sqe, &h[i].op);
		assert_int_equal(ring_wait(&ring), 0);
		ring_dispatch(&ring);
		memset(sqe, 0xff, sizeof(*sqe));
	}
	assert_int_equal(order, 12);
	finish(&ring);
}

/* Whoever gets hold of a ring can do with it what its queue does, and no more. */
static void test_does_only_what_it_was_opened_for(void **state)
{
	struct io_uring_sqe *sqe;
	struct heard h[2];
	struct ring ring;
	char byte;

	(void)state;
	begin(&ring, h, 2);
	sqe = ring_sqe(&ring);
	io_uring_prep_read(sqe, 0, &byte, 1, 0);
	ring_sqe_for(sqe, &h[0].op);
	sqe = ring_sqe(&ring);
	io_uring_prep_nop(sqe);
	sqe->flags |= IOSQE_ASYNC;
	ring_sqe_for(sqe, &h[1].op);
	assert_int_equal(ring_wait(&ring), 0);
	ring_dispatch(&ring);
	assert_int_equal(h[0].result, -EACCES);
	assert_int_equal(h[1].result, -EACCES);
	assert_int_equal(fake_work_done(IORING_OP_READ), 0);
	assert_int_equal(fake_violations(), 2);
	fake_forgive();
	finish(&ring);
}

static void test_is_not_opened_without_its_limits(void **state)
{
	struct ring ring;
	struct error err;

	(void)state;
	/* The limits, and the ring's enabling with them. */
	for (unsigned call = 1; call <= 2; call++) {
		fake_start(&fake_linux_7_2);
		fake_fail("io_uring_register", call, EACCES);
		assert_int_equal(ring_open(&ring, 8, RING_OP(IORING_OP_NOP), false, &err), -EACCES);
		assert_non_null(strstr(err.text, "cannot restrict"));
		fake_stop();
	}
}

static void test_submits_without_waiting(void **state)
{
	struct heard h[1];
	struct ring ring;

	(void)state;
	begin(&ring, h, 1);
	assert_int_equal(ring_submit(&ring), 0);
	fake_hold_work(true);
	send_nop(&ring, h);
	assert_int_equal(fake_work_done(IORING_OP_NOP), 0);
	assert_int_equal(ring_submit(&ring), 0);
	assert_int_equal(fake_work_done(IORING_OP_NOP), 1);
	ring_dispatch(&ring);
	assert_int_equal(h->count, 0);
	fake_hold_work(false);
	assert_int_equal(ring_wait(&ring), 0);
	ring_dispatch(&ring);
	assert_int_equal(h->count, 1);
	finish(&ring);
}

/* More than there is room for goes out early, and is heard of all the same. */
static void test_more_than_fits_in_a_round(void **state)
{
	struct heard h[64];
	struct ring ring;
	unsigned rounds;

	(void)state;
	begin(&ring, h, 64);
	for (unsigned i = 0; i < 64; i++)
		send_nop(&ring, &h[i]);
	assert_true(fake_work_done(IORING_OP_NOP) >= 56);
	for (rounds = 0; order < 64 && rounds < 64; rounds++) {
		assert_int_equal(ring_wait(&ring), 0);
		ring_dispatch(&ring);
	}
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(h[i].count, 1);
	finish(&ring);
}

/* Completions of a callback's SQEs come in a later round, for as long as it goes on. */
static void test_callbacks_send_more(void **state)
{
	struct heard h[8];
	struct ring ring;

	(void)state;
	begin(&ring, h, 8);
	for (unsigned i = 0; i < 8; i++) {
		h[i].again = 10 * i;
		send_nop(&ring, &h[i]);
	}
	for (unsigned round = 0; round <= 70; round++) {
		assert_int_equal(ring_wait(&ring), 0);
		ring_dispatch(&ring);
	}
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(h[i].count, 10 * i + 1);
	finish(&ring);
}

static void test_other_errors_are_not_the_rings(void **state)
{
	static const struct {
		int code, heard;
	} cases[] = { { EINTR, 0 },      { EAGAIN, 0 },       { EBUSY, 0 },
		      { EBADF, -EBADF }, { ENOMEM, -ENOMEM }, { EINVAL, -EINVAL } };
	struct heard h[1];
	struct ring ring;

	(void)state;
	begin(&ring, h, 1);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		fake_fail("io_uring_submit_and_wait", 1, cases[i].code);
		assert_int_equal(ring_wait(&ring), cases[i].heard);
		fake_fail("io_uring_submit", 1, cases[i].code);
		assert_int_equal(ring_submit(&ring), cases[i].heard);
	}
	/* Nothing that was prepared is lost by it. */
	fake_fail("io_uring_submit_and_wait", 1, EAGAIN);
	send_nop(&ring, h);
	assert_int_equal(ring_wait(&ring), 0);
	ring_dispatch(&ring);
	assert_int_equal(h->count, 0);
	assert_int_equal(ring_wait(&ring), 0);
	ring_dispatch(&ring);
	assert_int_equal(h->count, 1);
	finish(&ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes_the_best_that_there_is),
		cmocka_unit_test(test_names_the_setting_that_refuses),
		cmocka_unit_test(test_says_why_io_uring_is_refused),
		cmocka_unit_test(test_each_completion_goes_to_its_own),
		cmocka_unit_test(test_an_sqe_has_nothing_of_an_older_one),
		cmocka_unit_test(test_does_only_what_it_was_opened_for),
		cmocka_unit_test(test_is_not_opened_without_its_limits),
		cmocka_unit_test(test_submits_without_waiting),
		cmocka_unit_test(test_more_than_fits_in_a_round),
		cmocka_unit_test(test_callbacks_send_more),
		cmocka_unit_test(test_other_errors_are_not_the_rings),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
