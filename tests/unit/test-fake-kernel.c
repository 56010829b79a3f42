/* SPDX-License-Identifier: MIT */
/*
 * The fake kernel itself: a server by hand does what no server may, and each
 * such thing is noted.
 */
#include "engine/control.h"
#include "common/error.h"
#include "tests/unit/fake-kernel.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define DEPTH 2u
#define SIZE  65536u

/* A server of one queue, with nothing between it and the kernel. */
static struct {
	struct control control;
	struct error err;
	struct io_uring ring;
	int char_fd;
	uint8_t *buffers;
	void *descs;
	uint64_t feature;
} server;

static const struct ublk_io_desc *desc_of(unsigned tag)
{
	return (const struct ublk_io_desc *)server.descs + tag;
}

static void send_command(uint32_t op, unsigned tag, int result, bool with_address)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&server.ring);
	struct ublk_io_cmd cmd = { .tag = (uint16_t)tag, .result = result };

	if (with_address)
		cmd.addr = (uint64_t)(uintptr_t)(server.buffers + (size_t)tag * SIZE);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = server.char_fd;
	sqe->cmd_op = op;
	sqe->user_data = tag;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	assert_int_equal(io_uring_submit(&server.ring), 1);
}

/* The result of the next completion, and whose it is. */
static int next_result(unsigned *tag)
{
	struct io_uring_cqe *cqe;
	unsigned head;
	int result = 0;

	assert_true(io_uring_submit_and_wait(&server.ring, 1) >= 0);
	io_uring_for_each_cqe(&server.ring, head, cqe)
	{
		*tag = (unsigned)cqe->user_data;
		result = cqe->res;
		break;
	}
	io_uring_cq_advance(&server.ring, 1);
	return result;
}

static void begin(uint64_t feature)
{
	struct ublk_dev_info info = {
		.dev_id = 0,
		.nr_hw_queues = 1,
		.queue_depth = DEPTH,
		.max_io_buf_bytes = SIZE,
		.flags = feature,
	};
	struct ublk_dev_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAMS_BASIC,
		.basic = { .logical_bs_shift = 9,
			   .physical_bs_shift = 9,
			   .max_sectors = SIZE / 512,
			   .dev_sectors = 2048 },
	};
	struct io_uring_params setup = { 0 };

	fake_start(&fake_linux_7_2);
	server.feature = feature;
	assert_int_equal(control_open(&server.control, 1000, &server.err), 0);
	assert_int_equal(control_add(&server.control, &info, &server.err), 0);
	assert_int_equal(control_set_params(&server.control, 0, &params, &server.err), 0);
	server.char_fd = open("/dev/ublkc0", O_RDWR | O_CLOEXEC);
	assert_true(server.char_fd >= 0);
	assert_int_equal(io_uring_queue_init_params(8, &server.ring, &setup), 0);
	server.buffers = fake_data(DEPTH * SIZE, 0);
	server.descs = mmap(NULL, 4096, PROT_READ, MAP_SHARED, server.char_fd, 0);
	assert_true(server.descs != MAP_FAILED);
	for (unsigned tag = 0; tag < DEPTH; tag++)
		send_command(UBLK_IO_FETCH, tag, 0, !feature);
	assert_int_equal(control_start(&server.control, 0, getpid(), &server.err), 0);
	assert_true(fake_is_live(0));
}

/* Violations that the test has caused on purpose: so many are expected. */
static void finish(unsigned expected)
{
	unsigned noted = fake_violations();

	io_uring_queue_exit(&server.ring);
	munmap(server.descs, 4096);
	close(server.char_fd);
	fake_data_free(server.buffers);
	assert_int_equal(control_delete(&server.control, 0, &server.err), 0);
	control_close(&server.control);
	fake_forgive();
	fake_stop();
	assert_int_equal(noted, expected);
}

static struct fake_request *take(unsigned op, uint32_t length, void *data, unsigned *tag)
{
	struct fake_request *r = fake_request_start(0, 0, op, 0, 4096, length, data);

	assert_int_equal(next_result(tag), UBLK_RES_OK);
	assert_int_equal(desc_of(*tag)->op_flags, op);
	assert_int_equal(desc_of(*tag)->start_sector, 8);
	assert_int_equal(desc_of(*tag)->nr_sectors, length / 512);
	return r;
}

/* ---- as it should be ---- */

static void test_data_is_copied_when_the_driver_does(void **state)
{
	uint8_t *data = fake_data(1024, 0x11);
	struct fake_request *r;
	unsigned tag;

	(void)state;
	begin(0);
	r = take(UBLK_OP_WRITE, 1024, data, &tag);
	assert_int_equal(server.buffers[tag * SIZE + 1023], 0x11);
	assert_int_equal(server.buffers[tag * SIZE + 1024], 0);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 1024, true);
	assert_int_equal(fake_request_wait(r), 0);
	r = take(UBLK_OP_READ, 1024, data, &tag);
	memset(server.buffers + tag * SIZE, 0x22, 1024);
	assert_int_equal(data[0], 0x11);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 512, true);
	/* The rest comes again, on the same tag. */
	assert_int_equal(data[511], 0x22);
	assert_int_equal(data[512], 0x11);
	assert_false(fake_request_ended(r));
	assert_int_equal(next_result(&tag), UBLK_RES_OK);
	assert_int_equal(desc_of(tag)->start_sector, 9);
	assert_int_equal(desc_of(tag)->nr_sectors, 1);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 512, true);
	assert_int_equal(fake_request_wait(r), 0);
	finish(0);
	fake_data_free(data);
}

/* ---- and as it must not be ---- */

static void test_results_that_no_server_may_give(void **state)
{
	static const struct {
		unsigned op;
		int result, heard;
	} bad[] = {
		{ UBLK_OP_WRITE, 0, -EIO },          { UBLK_OP_READ, 0, -EIO },
		{ UBLK_OP_WRITE, -EAGAIN, -EAGAIN }, { UBLK_OP_FLUSH, -EAGAIN, -EAGAIN },
		{ UBLK_OP_READ, 4097, 0 },           { UBLK_OP_WRITE, -5000, -5000 },
	};
	uint8_t *data = fake_data(4096, 1);

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct fake_request *r;
		unsigned tag;

		begin(0);
		r = fake_request_start(0, 0, bad[i].op, 0, 0, 4096, data);
		assert_int_equal(next_result(&tag), UBLK_RES_OK);
		send_command(UBLK_IO_COMMIT_AND_FETCH, tag, bad[i].result, true);
		assert_int_equal(fake_request_wait(r), bad[i].heard);
		finish(1);
	}
	fake_data_free(data);
}

static void test_commits_that_no_server_may_send(void **state)
{
	uint8_t *data = fake_data(4096, 1);
	struct fake_request *r;
	unsigned tag, answered;

	(void)state;
	/* A buffer that it has not, one that it has given back, one without its address. */
	begin(0);
	send_command(UBLK_IO_COMMIT_AND_FETCH, 1, 0, true);
	assert_int_equal(next_result(&answered), -EBUSY);
	r = take(UBLK_OP_WRITE, 4096, data, &tag);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 4096, false);
	assert_int_equal(next_result(&answered), -EINVAL);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 4096, true);
	assert_int_equal(fake_request_wait(r), 0);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 4096, true);
	assert_int_equal(next_result(&answered), -EBUSY);
	/* No such tag; and a fetch of a live device's. */
	send_command(UBLK_IO_COMMIT_AND_FETCH, DEPTH, 0, true);
	assert_int_equal(next_result(&answered), -EINVAL);
	send_command(UBLK_IO_FETCH, 0, 0, true);
	assert_int_equal(next_result(&answered), -EBUSY);
	finish(4);
	fake_data_free(data);
}

static void *commit_tag_0(void *arg)
{
	(void)arg;
	send_command(UBLK_IO_COMMIT_AND_FETCH, 0, 4096, true);
	return NULL;
}

static void test_only_its_own_thread_commits(void **state)
{
	uint8_t *data = fake_data(4096, 1);
	struct fake_request *r;
	pthread_t thread;
	unsigned tag;

	(void)state;
	begin(0);
	r = take(UBLK_OP_WRITE, 4096, data, &tag);
	pthread_create(&thread, NULL, commit_tag_0, NULL);
	pthread_join(thread, NULL);
	assert_int_equal(next_result(&tag), -EINVAL);
	send_command(UBLK_IO_COMMIT_AND_FETCH, 0, 4096, true);
	assert_int_equal(fake_request_wait(r), 0);
	finish(1);
	fake_data_free(data);
}

static void test_user_copy_is_of_requests_in_service(void **state)
{
	uint8_t *data = fake_data(4096, 0x11), buffer[4096];
	struct fake_request *r;
	unsigned tag;

	(void)state;
	begin(UBLK_FEAT_USER_COPY);
	assert_int_equal(pread(server.char_fd, buffer, 4096, (off_t)UBLK_USER_COPY_OFFSET(0, 0, 0)),
			 -1);
	r = take(UBLK_OP_WRITE, 4096, data, &tag);
	assert_int_equal(pread(server.char_fd, buffer, 4096,
			       (off_t)UBLK_USER_COPY_OFFSET(0, tag, 1024)),
			 3072);
	assert_int_equal(buffer[3071], 0x11);
	/* Against its direction, beyond its end, of another queue. */
	assert_int_equal(
		pwrite(server.char_fd, buffer, 512, (off_t)UBLK_USER_COPY_OFFSET(0, tag, 0)), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(
		pread(server.char_fd, buffer, 512, (off_t)UBLK_USER_COPY_OFFSET(0, tag, 8192)), -1);
	assert_int_equal(
		pread(server.char_fd, buffer, 512, (off_t)UBLK_USER_COPY_OFFSET(1, tag, 0)), -1);
	send_command(UBLK_IO_COMMIT_AND_FETCH, tag, 4096, false);
	assert_int_equal(fake_request_wait(r), 0);
	finish(4);
	fake_data_free(data);
}

static void test_mappings_have_their_one_length(void **state)
{
	(void)state;
	begin(0);
	assert_ptr_equal(mmap(NULL, 8192, PROT_READ, MAP_SHARED, server.char_fd, 0), MAP_FAILED);
	assert_int_equal(errno, EINVAL);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, server.char_fd, 0),
			 MAP_FAILED);
	assert_int_equal(errno, EPERM);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, server.char_fd, 4096), MAP_FAILED);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, server.char_fd,
			      (off_t)UBLK_DESC_STRIDE(4096u)),
			 MAP_FAILED);
	assert_int_equal(open("/dev/ublkc0", O_RDWR), -1);
	assert_int_equal(errno, EBUSY);
	assert_int_equal(open("/dev/ublkc1", O_RDWR), -1);
	assert_int_equal(errno, ENOENT);
	finish(0);
}

/* A descriptor that is left behind keeps a deletion waiting, and is found at the end. */
static void test_leftovers_are_reported(void **state)
{
	uint8_t *data = fake_data(4096, 0);
	struct fake_request *r;
	unsigned tag;

	(void)state;
	begin(0);
	r = take(UBLK_OP_READ, 4096, data, &tag);
	io_uring_queue_exit(&server.ring);
	close(server.char_fd);
	/* The mapping holds it still. */
	assert_false(fake_request_ended(r));
	munmap(server.descs, 4096);
	assert_int_equal(fake_request_wait(r), -EIO);
	assert_false(fake_is_live(0));
	assert_int_equal(fake_devices(), 1);
	assert_int_equal(fake_violations(), 0);
	assert_int_equal(control_delete(&server.control, 0, &server.err), 0);
	assert_int_equal(fake_devices(), 0);
	control_close(&server.control);
	fake_data_free(server.buffers);
	fake_data_free(data);
	fake_stop();
}

/* ---- polls, timeouts, and the end of both ---- */

enum {
	A_POLL = 100,
	A_TIMEOUT,
	A_CANCEL,
};

static void send_poll(int fd, unsigned events)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&server.ring);

	io_uring_prep_poll_add(sqe, fd, events);
	sqe->user_data = A_POLL;
}

static struct io_uring_sqe *send_timeout(struct __kernel_timespec *ts)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&server.ring);

	io_uring_prep_timeout(sqe, ts, 0, 0);
	sqe->user_data = A_TIMEOUT;
	return sqe;
}

static void send_cancel(uint64_t of)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&server.ring);

	io_uring_prep_cancel64(sqe, of, 0);
	sqe->user_data = A_CANCEL;
}

static void expect(unsigned whose, int result)
{
	unsigned who;

	assert_int_equal(next_result(&who), result);
	assert_int_equal(who, whose);
}

static void test_polls_and_timeouts(void **state)
{
	struct __kernel_timespec ts = { .tv_nsec = 1 }, hour = { .tv_sec = 3600 };
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1;

	(void)state;
	begin(0);
	send_poll(fd, POLLOUT | POLLIN);
	expect(A_POLL, POLLOUT);
	/* A poll fires once, and not before it is ready. */
	send_poll(fd, POLLIN);
	send_timeout(&ts);
	expect(A_TIMEOUT, -ETIME);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	expect(A_POLL, POLLIN);
	send_timeout(&ts);
	expect(A_TIMEOUT, -ETIME);
	/* The time is read when it is submitted. */
	send_timeout(&hour);
	assert_int_equal(io_uring_submit(&server.ring), 1);
	hour.tv_sec = 0;
	send_cancel(A_TIMEOUT);
	expect(A_TIMEOUT, -ECANCELED);
	expect(A_CANCEL, 0);
	finish(0);
	close(fd);
}

static void test_cancels(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1;

	(void)state;
	begin(0);
	send_cancel(A_POLL);
	expect(A_CANCEL, -ENOENT);
	send_poll(fd, POLLIN);
	send_cancel(A_POLL);
	expect(A_POLL, -ECANCELED);
	expect(A_CANCEL, 0);
	/* Work that is done, but not reported yet, is done. */
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	fake_hold_work(true);
	send_poll(fd, POLLIN);
	send_cancel(A_POLL);
	expect(A_CANCEL, -ENOENT);
	assert_int_equal(fake_work_held(), 1);
	fake_hold_work(false);
	expect(A_POLL, POLLIN);
	finish(0);
	close(fd);
}

static void test_polls_and_timeouts_that_the_kernel_refuses(void **state)
{
	struct __kernel_timespec ts = { .tv_sec = -1 };
	struct io_uring_sqe *sqe;

	(void)state;
	begin(0);
	send_poll(-1, POLLIN);
	expect(A_POLL, -EBADF);
	send_timeout(&ts);
	expect(A_TIMEOUT, -EINVAL);
	ts.tv_sec = 0;
	/* A count of completions, and flags: of those that the fake kernel has not. */
	send_timeout(&ts)->off = 1;
	expect(A_TIMEOUT, -EINVAL);
	send_timeout(&ts)->timeout_flags = IORING_TIMEOUT_ABS;
	expect(A_TIMEOUT, -EINVAL);
	sqe = io_uring_get_sqe(&server.ring);
	io_uring_prep_poll_multishot(sqe, server.char_fd, POLLIN);
	sqe->user_data = A_POLL;
	expect(A_POLL, -EINVAL);
	finish(0);
}

static void test_waits_that_no_server_may_have(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), files;

	(void)state;
	begin(0);
	files = (int)fake_open_files();
	/* Given twice. */
	send_poll(fd, POLLIN);
	send_poll(fd, POLLIN);
	send_cancel(A_POLL);
	expect(A_POLL, -ECANCELED);
	expect(A_CANCEL, 0);
	assert_int_equal(fake_violations(), 1);
	/* Closed, while it is polled. */
	assert_int_equal(io_uring_submit(&server.ring), 0);
	assert_int_equal(fake_violations(), 1);
	close(fd);
	assert_int_equal(io_uring_submit(&server.ring), 0);
	assert_true(fake_violations() > 1);
	fake_forgive();
	send_cancel(A_POLL);
	assert_int_equal(io_uring_submit(&server.ring), 1);
	/* The kernel's own hold on the file is gone with the poll. */
	assert_int_equal(fake_open_files(), files - 1);
	fake_forgive();
	finish(0);
}

static void test_the_nth_call_fails(void **state)
{
	unsigned n;
	int fd;

	(void)state;
	fake_start(&fake_linux_7_2);
	for (n = 1;; n++) {
		fake_fail(NULL, n, 0);
		if (!control_open(&server.control, 1000, &server.err))
			break;
		assert_non_null(fake_failed());
	}
	/* open, and io_uring_queue_init_params. */
	assert_int_equal(n, 3);
	assert_int_equal(fake_calls(), 2);
	assert_null(fake_failed());
	control_close(&server.control);
	fake_fail("memfd_create", 2, ENOSPC);
	fd = memfd_create("one", 0);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(memfd_create("two", 0), -1);
	assert_int_equal(errno, ENOSPC);
	assert_string_equal(fake_failed(), "memfd_create");
	fake_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_is_copied_when_the_driver_does),
		cmocka_unit_test(test_results_that_no_server_may_give),
		cmocka_unit_test(test_commits_that_no_server_may_send),
		cmocka_unit_test(test_only_its_own_thread_commits),
		cmocka_unit_test(test_user_copy_is_of_requests_in_service),
		cmocka_unit_test(test_mappings_have_their_one_length),
		cmocka_unit_test(test_leftovers_are_reported),
		cmocka_unit_test(test_polls_and_timeouts),
		cmocka_unit_test(test_cancels),
		cmocka_unit_test(test_polls_and_timeouts_that_the_kernel_refuses),
		cmocka_unit_test(test_waits_that_no_server_may_have),
		cmocka_unit_test(test_the_nth_call_fails),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
