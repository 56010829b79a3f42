/* SPDX-License-Identifier: MIT */
/*
 * Requests and results of a queue, with backends of every kind of
 * access on every path of data, whenever they complete.
 */
#include "engine/queue.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define SIZE  (1u << 20)
#define DEPTH 4u

/* ---- backends that do as they are told ---- */

enum when {
	IN_SUBMIT,
	AT_ROUND_END,
	LATER, /* after work of the ring's */
	WHENS
};

/* The test's orders; set before the device is live, or between its requests. */
static struct {
	struct backend_limits limits;
	enum when when;
	int results[16]; /* of the next requests, whatever was done; RIGHT: what was done */
	unsigned nr_results, next_result;
	unsigned files;    /* that a queue adds */
	unsigned together; /* AT_ROUND_END: so many requests complete in one round */
} told;

#define RIGHT (-100000)

/* Their calls. */
static struct {
	struct io last;
	unsigned submitted, of_op[IO_OPS], rounds;
	unsigned queues_open;
	int last_file;
} asked;

struct keeping {
	uint8_t *store;
	int fd;
};

struct queue_keeping {
	int file;
	struct io *waiting[DEPTH];
	int results[DEPTH];
	unsigned nr_waiting, touched;
};

struct io_keeping {
	uint32_t uses;
	int result;
};

static int scripted_open(struct instance *instance, struct error *err)
{
	struct keeping *k = instance->private;

	instance->limits = told.limits;
	k->fd = memfd_create("scripted", MFD_CLOEXEC);
	if (k->fd < 0 || ftruncate(k->fd, SIZE))
		return error_set(err, errno, "memfd");
	k->store = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	return k->store == MAP_FAILED ? error_set(err, errno, "mmap") : 0;
}

static void scripted_close(struct instance *instance)
{
	struct keeping *k = instance->private;

	munmap(k->store, SIZE);
	close(k->fd);
}

static int scripted_queue_open(struct queue *queue, struct error *err)
{
	struct keeping *k = queue_instance(queue)->private;
	struct queue_keeping *qk = queue_private(queue);

	/* Zeroed, and this queue's alone. */
	if (qk->touched++)
		return error_set(err, EINVAL, "the queue's memory was used");
	for (unsigned i = 0; i < told.files; i++) {
		asked.last_file = qk->file = queue_add_file(queue, k->fd);
		if (qk->file < 0)
			return error_set(err, qk->file, "file %u", i);
	}
	__atomic_fetch_add(&asked.queues_open, 1, __ATOMIC_RELAXED);
	return 0;
}

static void scripted_queue_close(struct queue *queue)
{
	(void)queue;
	__atomic_fetch_sub(&asked.queues_open, 1, __ATOMIC_RELAXED);
}

static int forced(int result)
{
	if (told.next_result < told.nr_results && told.results[told.next_result++] != RIGHT)
		return told.results[told.next_result - 1];
	return result;
}

static void end_later(struct io *io, int result)
{
	struct io_keeping *mine = io_private(io);

	(void)result;
	io_complete(io, mine->result);
}

/* All is done but the completion. */
static void end(struct io *io, int result)
{
	struct queue_keeping *qk = queue_private(io->queue);
	struct io_keeping *mine = io_private(io);

	result = forced(result);
	switch (told.when) {
	case AT_ROUND_END:
		qk->results[qk->nr_waiting] = result;
		qk->waiting[qk->nr_waiting++] = io;
		break;
	case LATER:
		mine->result = result;
		io_datasync(io, qk->file, end_later);
		break;
	default:
		io_complete(io, result);
		break;
	}
}

static void note(const struct io *io)
{
	asked.last = *io;
	asked.submitted++;
	asked.of_op[io->op]++;
}

static bool is_data(const struct io *io)
{
	return io->op <= IO_WRITE;
}

static void none_submit(struct io *io)
{
	note(io);
	end(io, io->op == IO_READ && io_fill_zero(io, 0, io->length) ? -EIO : (int)io->length);
}

static void memory_submit(struct io *io)
{
	struct keeping *k = queue_instance(io->queue)->private;
	uint32_t half = io->length / 1024 * 512;
	int ret = 0;

	note(io);
	/* In two pieces, the second first. */
	if (io->op == IO_READ) {
		ret = io_copy_to(io, half, k->store + io->offset + half, io->length - half);
		if (!ret && half)
			ret = io_copy_to(io, 0, k->store + io->offset, half);
	} else if (io->op == IO_WRITE) {
		ret = io_copy_from(io, half, k->store + io->offset + half, io->length - half);
		if (!ret && half)
			ret = io_copy_from(io, 0, k->store + io->offset, half);
	}
	end(io, ret ? ret : (int)io->length);
}

static void pointer_submit(struct io *io)
{
	struct keeping *k = queue_instance(io->queue)->private;

	note(io);
	if (io->op == IO_READ)
		memcpy(io_data(io), k->store + io->offset, io->length);
	else if (io->op == IO_WRITE)
		memcpy(k->store + io->offset, io_data(io), io->length);
	end(io, (int)io->length);
}

/* The first half from and to a place of its own, the second one by way of the request's buffer. */
static void socket_submit(struct io *io)
{
	struct keeping *k = queue_instance(io->queue)->private;
	uint32_t half = io->length / 1024 * 512, rest = io->length - half;
	uint8_t *store = k->store + io->offset;
	int ret = 0;

	note(io);
	if (io->op == IO_READ) {
		memcpy((uint8_t *)io_data(io) + half, store + half, rest);
		ret = io_copy_to(io, half, (uint8_t *)io_data(io) + half, rest);
		if (!ret && half)
			ret = io_copy_to(io, 0, store, half);
	} else if (io->op == IO_WRITE) {
		ret = io_copy_from(io, half, (uint8_t *)io_data(io) + half, rest);
		memcpy(store + half, (uint8_t *)io_data(io) + half, rest);
		if (!ret && half)
			ret = io_copy_from(io, 0, store, half);
	}
	end(io, ret ? ret : (int)io->length);
}

static void ring_submit_io(struct io *io)
{
	struct queue_keeping *qk = queue_private(io->queue);

	note(io);
	if (is_data(io))
		io_transfer(io, qk->file, io->offset, 0, 0, end);
	else
		io_datasync(io, qk->file, end);
}

static void scripted_round_end(struct queue *queue)
{
	struct queue_keeping *qk = queue_private(queue);

	__atomic_fetch_add(&asked.rounds, 1, __ATOMIC_RELAXED);
	if (qk->nr_waiting < told.together)
		return;
	/* The last first: the order is the backend's affair. */
	while (qk->nr_waiting) {
		qk->nr_waiting--;
		io_complete(qk->waiting[qk->nr_waiting], qk->results[qk->nr_waiting]);
	}
}

#define SCRIPTED(kind, kind_access, kind_submit)            \
	static const struct backend kind##_backend = {      \
		.scheme = "test-" #kind,                    \
		.syntax = "test-" #kind ":",                \
		.summary = "for tests",                     \
		.access = kind_access,                      \
		.instance_size = sizeof(struct keeping),    \
		.queue_size = sizeof(struct queue_keeping), \
		.io_size = sizeof(struct io_keeping),       \
		.open = scripted_open,                      \
		.close = scripted_close,                    \
		.queue_open = scripted_queue_open,          \
		.queue_close = scripted_queue_close,        \
		.submit = kind_submit,                      \
		.round_end = scripted_round_end,            \
	};                                                  \
	BACKEND_REGISTER(kind##_backend)

SCRIPTED(none, ACCESS_NONE, none_submit);
SCRIPTED(memory, ACCESS_MEMORY, memory_submit);
SCRIPTED(pointer, ACCESS_POINTER, pointer_submit);
SCRIPTED(socket, ACCESS_SOCKET, socket_submit);
SCRIPTED(ring, ACCESS_RING, ring_submit_io);

static const char *const kinds[] = { "none", "memory", "pointer", "socket", "ring" };
#define KINDS 5

/* ---- one device of one kind, on one path ---- */

static void begin(struct served *s, const char *kind, enum io_path path, unsigned queues,
		  unsigned depth)
{
	char words[200];

	memset(&asked, 0, sizeof(asked));
	snprintf(words, sizeof(words), "test-%s: queues=%u depth=%u max-io=64K io-path=%s", kind,
		 queues, depth, io_path_name(path));
	fake_start(&fake_linux_7_2);
	served_begin(s, words);
}

static void tell(enum when when)
{
	memset(&told, 0, sizeof(told));
	told.limits = (struct backend_limits){
		.size = SIZE,
		.logical_block = 512,
		.max_discard = SIZE,
		.max_write_zeroes = SIZE,
		.volatile_cache = true,
		.fua = true,
	};
	told.when = when;
	told.files = 1;
}

static void finish(struct served *s)
{
	served_end(s);
	assert_int_equal(asked.queues_open, 0);
	fake_stop();
}

static void tell_result(int result)
{
	told.results[0] = result;
	told.nr_results = 1;
	told.next_result = 0;
}

static int data_request(unsigned op, uint32_t flags, uint64_t offset, uint32_t length, uint8_t fill)
{
	uint8_t *data = fake_data(length, fill);
	int ret = fake_request(0, 0, op, flags, offset, length, data);

	fake_data_free(data);
	return ret;
}

/* Fails unless the device reads as `expected` over the range. */
static void reads_as(uint64_t offset, uint32_t length, const uint8_t *expected)
{
	uint8_t *in = fake_data(length, 0xee);

	assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, offset, length, in), 0);
	assert_memory_equal(in, expected, length);
	fake_data_free(in);
}

static void fill_random(uint8_t *data, uint32_t length, uint64_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		data[i] = (uint8_t)next_random(&seed);
}

/* ---- data crosses whole ---- */

static void write_and_read(bool keeps)
{
	static uint8_t model[SIZE];
	uint8_t *out = fake_data(65536, 0);
	uint64_t seed = 7;

	memset(model, 0, sizeof(model));
	for (unsigned i = 0; i < 60; i++) {
		uint32_t length = 512 * (1 + (uint32_t)(next_random(&seed) % 128));
		uint64_t offset = 512 * (next_random(&seed) % ((SIZE - length) / 512 + 1));

		if (i % 3) {
			fill_random(out, length, i);
			if (keeps)
				memcpy(model + offset, out, length);
			assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, offset, length, out),
					 0);
		}
		/* Whatever was in the tag's buffer before: all of it is what is read. */
		offset = 512 * (next_random(&seed) % ((SIZE - length) / 512 + 1));
		reads_as(offset, length, model + offset);
	}
	fake_data_free(out);
}

static void test_data_of_every_access_on_every_path(void **state)
{
	struct served s;

	(void)state;
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned path = 0; path < IO_PATHS; path++)
			for (unsigned when = 0; when < WHENS; when++) {
				tell((enum when)when);
				begin(&s, kinds[kind], (enum io_path)path, 1, 1 + when);
				write_and_read(kind > 0);
				if (when == AT_ROUND_END)
					assert_true(asked.rounds > 0);
				finish(&s);
			}
}

/* A registration that fails falls back to a copy, in the midst of others. */
static void test_failed_registrations_fall_back(void **state)
{
	struct served s;

	(void)state;
	for (unsigned kind = 0; kind < KINDS; kind++)
		for (unsigned every = 1; every < 4; every++) {
			tell(IN_SUBMIT);
			begin(&s, kinds[kind], IO_PATH_ZERO_COPY, 1, 2);
			fake_registration_fails(every);
			write_and_read(kind > 0);
			assert_true(counters_queue(s.standalone.counters, 0)->fallbacks >
				    90 / every);
			finish(&s);
		}
}

static void test_small_and_large_reads_share_a_buffer(void **state)
{
	uint8_t *all = fake_data(65536, 0x11);
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		/* A read of nothing gives zeroes, and not what a write has left in the buffer. */
		tell(IN_SUBMIT);
		begin(&s, "none", (enum io_path)path, 1, 1);
		memset(all, 0x11, 65536);
		assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, 0, 65536, all), 0);
		memset(all, 0, 65536);
		reads_as(0, 512, all);
		reads_as(4096, 65536, all);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 1024, 0x22), 0);
		reads_as(0, 65536, all);
		finish(&s);
	}
	fake_data_free(all);
}

/* ---- results ---- */

static void test_errors_arrive_as_they_are(void **state)
{
	static const struct {
		int told, heard;
	} results[] = {
		{ -EIO, -EIO },
		{ -ENOSPC, -ENOSPC },
		{ -ENOMEM, -ENOMEM },
		{ -EPERM, -EPERM },
		{ -EROFS, -EROFS },
		{ -ENOLINK, -ENOLINK },
		{ -ETIMEDOUT, -ETIMEDOUT },
		{ -4095, -4095 },
		/* Results that the block layer would not understand. */
		{ -EAGAIN, -EIO },
		{ -4096, -EIO },
		{ -100001, -EIO },
	};
	static const unsigned ops[] = { UBLK_OP_READ, UBLK_OP_WRITE, UBLK_OP_FLUSH, UBLK_OP_DISCARD,
					UBLK_OP_WRITE_ZEROES };
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		tell(IN_SUBMIT);
		begin(&s, "memory", (enum io_path)path, 1, 2);
		for (unsigned i = 0; i < sizeof(results) / sizeof(*results); i++)
			for (unsigned op = 0; op < sizeof(ops) / sizeof(*ops); op++) {
				tell_result(results[i].told);
				assert_int_equal(data_request(ops[op], 0, 0,
							      ops[op] == UBLK_OP_FLUSH ? 0 : 4096,
							      1),
						 results[i].heard);
			}
		finish(&s);
	}
}

/* A kernel may take a part for all of it (7.3 does, where it copies no data itself). */
static void test_a_part_is_an_error(void **state)
{
	static const int parts[] = { 0, 1, 511, 512, 1024, 1500, 4095, 4096, 65024, 65535 };
	void *out = fake_data(65536, 1);
	struct served s;

	(void)state;
	for (unsigned kind = 1; kind < KINDS; kind++)
		for (unsigned path = 0; path < IO_PATHS; path++) {
			tell(IN_SUBMIT);
			begin(&s, kinds[kind], (enum io_path)path, 1, 1);
			for (unsigned i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
				tell_result(parts[i]);
				assert_int_equal(fake_request(0, 0, UBLK_OP_WRITE, 0, 4096, 65536,
							      out),
						 -EIO);
				tell_result(parts[i]);
				assert_int_equal(fake_request(0, 0, UBLK_OP_READ, 0, 4096, 65536,
							      out),
						 -EIO);
			}
			assert_int_equal(fake_requeues(), 0);
			finish(&s);
		}
	fake_data_free(out);
}

static void test_a_result_beyond_the_length_counts_as_the_length(void **state)
{
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		tell(IN_SUBMIT);
		begin(&s, "memory", (enum io_path)path, 1, 1);
		tell_result(INT32_MAX);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 4096, 1), 0);
		tell_result(4097);
		assert_int_equal(data_request(UBLK_OP_READ, 0, 0, 4096, 1), 0);
		tell_result(1);
		assert_int_equal(data_request(UBLK_OP_FLUSH, 0, 0, 0, 0), 0);
		tell_result(INT32_MAX);
		assert_int_equal(data_request(UBLK_OP_DISCARD, 0, 0, 4096, 0), 0);
		finish(&s);
	}
}

/* ---- requests ---- */

static void test_the_backend_sees_the_request(void **state)
{
	struct served s;

	(void)state;
	tell(IN_SUBMIT);
	begin(&s, "memory", IO_PATH_USER_COPY, 2, 2);
	assert_int_equal(data_request(UBLK_OP_WRITE, UBLK_REQ_FUA, 8192, 1024, 1), 0);
	assert_int_equal(asked.last.op, IO_WRITE);
	assert_int_equal(asked.last.flags, IO_FUA);
	assert_int_equal(asked.last.offset, 8192);
	assert_int_equal(asked.last.length, 1024);
	assert_int_equal(data_request(UBLK_OP_WRITE_ZEROES, UBLK_REQ_NOUNMAP, 512, SIZE - 512, 0),
			 0);
	assert_int_equal(asked.last.op, IO_WRITE_ZEROES);
	assert_int_equal(asked.last.flags, IO_KEEP);
	assert_int_equal(asked.last.length, SIZE - 512);
	assert_int_equal(data_request(UBLK_OP_READ,
				      UBLK_REQ_META | UBLK_REQ_SWAP | UBLK_REQ_FAILFAST_DEV, 0, 512,
				      0),
			 0);
	assert_int_equal(asked.last.flags, 0);
	assert_int_equal(data_request(UBLK_OP_FLUSH, 0, 0, 0, 0), 0);
	assert_int_equal(asked.last.op, IO_FLUSH);
	assert_int_equal(asked.last.offset + asked.last.length, 0);
	assert_int_equal(data_request(UBLK_OP_DISCARD, 0, SIZE - 512, 512, 0), 0);
	assert_int_equal(asked.last.op, IO_DISCARD);
	assert_int_equal(queue_index(asked.last.queue), 0);
	assert_int_equal(fake_request(0, 1, UBLK_OP_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(queue_index(asked.last.queue), 1);
	finish(&s);
}

static void test_refuses_requests_before_the_backend(void **state)
{
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		tell(IN_SUBMIT);
		told.limits.max_discard = 0;
		begin(&s, "memory", (enum io_path)path, 1, 1);
		/* Never offered, or not known. */
		assert_int_equal(data_request(UBLK_OP_DISCARD, 0, 0, 4096, 0), -EOPNOTSUPP);
		assert_int_equal(data_request(UBLK_OP_WRITE_SAME, 0, 0, 512, 0), -EOPNOTSUPP);
		for (unsigned op = UBLK_OP_WRITE_ZEROES + 1; op < 256; op += op < 20 ? 1 : 47)
			assert_int_equal(data_request(op, 0, 0, 512, 0), -EOPNOTSUPP);
		/* Beyond the end. */
		assert_int_equal(data_request(UBLK_OP_READ, 0, SIZE, 512, 0), -EIO);
		assert_int_equal(data_request(UBLK_OP_READ, 0, SIZE - 512, 1024, 0), -EIO);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, SIZE - 512, 1024, 0), -EIO);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, ~0ull << 9, 1024, 0), -EIO);
		assert_int_equal(data_request(UBLK_OP_WRITE_ZEROES, 0, 512, SIZE, 0), -EIO);
		assert_int_equal(asked.submitted, 0);
		/* The last block is there. */
		assert_int_equal(data_request(UBLK_OP_READ, 0, SIZE - 512, 512, 0), 0);
		finish(&s);
	}
}

static void test_read_only_is_kept(void **state)
{
	struct served s;

	(void)state;
	tell(IN_SUBMIT);
	told.limits.read_only = true;
	begin(&s, "memory", IO_PATH_COPY, 1, 1);
	assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 512, 0), -EROFS);
	assert_int_equal(data_request(UBLK_OP_DISCARD, 0, 0, 512, 0), -EROFS);
	assert_int_equal(data_request(UBLK_OP_WRITE_ZEROES, 0, 0, 512, 0), -EROFS);
	assert_int_equal(asked.submitted, 0);
	assert_int_equal(data_request(UBLK_OP_READ, 0, 0, 512, 0), 0);
	assert_int_equal(data_request(UBLK_OP_FLUSH, 0, 0, 0, 0), 0);
	assert_int_equal(asked.submitted, 2);
	finish(&s);
}

/* The driver has put its data in the tag's buffer all the same. */
static void test_a_refused_write_is_not_read(void **state)
{
	uint8_t *zeroes = fake_data(4096, 0);
	struct served s;

	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++) {
		tell(IN_SUBMIT);
		begin(&s, "none", (enum io_path)path, 1, 1);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, SIZE, 4096, 0x77), -EIO);
		reads_as(0, 4096, zeroes);
		finish(&s);
		told.limits.read_only = true;
		begin(&s, "none", (enum io_path)path, 1, 1);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 4096, 0x77), -EROFS);
		reads_as(0, 4096, zeroes);
		finish(&s);
	}
	fake_data_free(zeroes);
}

static void test_a_copy_that_fails_is_the_requests_error(void **state)
{
	struct served s;

	(void)state;
	for (unsigned kind = 1; kind < 3; kind++) {
		tell(IN_SUBMIT);
		begin(&s, kinds[kind], IO_PATH_USER_COPY, 1, 1);
		fake_fail("pread", 1, EFAULT);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 512, 1), -EFAULT);
		fake_fail("pwrite", 1, EFAULT);
		assert_int_equal(data_request(UBLK_OP_READ, 0, 0, 512, 1), -EFAULT);
		fake_fail(NULL, 0, 0);
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 512, 1), 0);
		finish(&s);
	}
}

/* ---- many at once ---- */

static void many_in_flight(const char *kind, enum io_path path, enum when when, unsigned queues)
{
	enum {
		EACH = 48
	};
	struct fake_request *r[EACH];
	uint8_t *data[EACH];
	struct served s;

	tell(when);
	begin(&s, kind, path, queues, DEPTH);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < EACH; i++) {
			data[i] = fake_data(8192, round ? 0 : (uint8_t)(i + 1));
			r[i] = fake_request_start(0, i % queues,
						  round ? UBLK_OP_READ : UBLK_OP_WRITE, 0, i * 8192,
						  8192, data[i]);
		}
		for (unsigned i = 0; i < EACH; i++) {
			assert_int_equal(fake_request_wait(r[i]), 0);
			for (unsigned at = 0; round && at < 8192; at += 511)
				assert_int_equal(data[i][at], i + 1);
			fake_data_free(data[i]);
		}
	}
	finish(&s);
}

static void test_many_in_flight(void **state)
{
	(void)state;
	for (unsigned kind = 1; kind < KINDS; kind++)
		for (unsigned path = 0; path < IO_PATHS; path++)
			for (unsigned when = 0; when < WHENS; when++)
				many_in_flight(kinds[kind], (enum io_path)path, (enum when)when, 1);
}

/* Several queues at once; the backends' notes are one queue's, so not with them. */
static void test_queues_do_not_mix(void **state)
{
	(void)state;
	for (unsigned path = 0; path < IO_PATHS; path++)
		many_in_flight("ring-alone", (enum io_path)path, IN_SUBMIT, 4);
}

static void alone_end(struct io *io, int result)
{
	io_complete(io, result);
}

static void alone_submit(struct io *io)
{
	struct queue_keeping *qk = queue_private(io->queue);

	if (is_data(io))
		io_transfer(io, qk->file, io->offset, 0, 0, alone_end);
	else
		io_datasync(io, qk->file, alone_end);
}

static int alone_queue_open(struct queue *queue, struct error *err)
{
	struct keeping *k = queue_instance(queue)->private;
	struct queue_keeping *qk = queue_private(queue);

	qk->file = queue_add_file(queue, k->fd);
	return qk->file < 0 ? error_set(err, qk->file, "file") : 0;
}

static const struct backend alone_backend = {
	.scheme = "test-ring-alone",
	.syntax = "test-ring-alone:",
	.summary = "for tests",
	.access = ACCESS_RING,
	.instance_size = sizeof(struct keeping),
	.queue_size = sizeof(struct queue_keeping),
	.open = scripted_open,
	.close = scripted_close,
	.queue_open = alone_queue_open,
	.submit = alone_submit,
};
BACKEND_REGISTER(alone_backend);

/* ---- counters ---- */

static void check_op(struct served *s, enum io_op op, unsigned completed, uint64_t bytes,
		     unsigned failed)
{
	struct op_counters sum;
	uint64_t in_buckets = 0;

	counters_sum(s->standalone.counters, op, &sum);
	assert_int_equal(sum.completed, completed);
	assert_int_equal(sum.bytes, bytes);
	assert_int_equal(sum.failed, failed);
	for (unsigned i = 0; i < COUNTERS_BUCKETS; i++)
		in_buckets += sum.latency[i];
	assert_int_equal(in_buckets, completed);
	assert_true(sum.latency_ns > 0);
}

static void test_counters_are_exact(void **state)
{
	struct queue_counters *c;
	struct served s;

	(void)state;
	tell(IN_SUBMIT);
	begin(&s, "memory", IO_PATH_COPY, 1, 2);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(data_request(UBLK_OP_WRITE, 0, i * 4096, 4096, 1), 0);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(data_request(UBLK_OP_READ, 0, 0, 1024, 1), 0);
	tell_result(-ENOSPC);
	assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 4096, 1), -ENOSPC);
	tell_result(-EBADF);
	assert_int_equal(data_request(UBLK_OP_FLUSH, 0, 0, 0, 0), -EBADF);
	assert_int_equal(data_request(UBLK_OP_DISCARD, 0, 0, 65536, 0), 0);
	assert_int_equal(data_request(UBLK_OP_WRITE_ZEROES, 0, 0, 512, 0), 0);
	assert_int_equal(data_request(UBLK_OP_READ, 0, SIZE, 512, 0), -EIO);
	assert_int_equal(data_request(99, 0, 0, 512, 0), -EOPNOTSUPP);

	c = counters_queue(s.standalone.counters, 0);
	assert_int_equal(standalone_stop(&s.standalone, &s.err), 0);
	assert_int_equal(c->started, 23);
	assert_int_equal(c->completed, 23);
	assert_int_equal(c->fallbacks, 0);
	assert_true(c->rounds >= 23);
	check_op(&s, IO_WRITE, 11, 10 * 4096, 1);
	check_op(&s, IO_READ, 8, 7 * 1024, 1);
	check_op(&s, IO_FLUSH, 1, 0, 1);
	check_op(&s, IO_DISCARD, 1, 65536, 0);
	check_op(&s, IO_WRITE_ZEROES, 1, 512, 0);
	for (unsigned kind = 0; kind < COUNTERS_ERRORS; kind++) {
		bool one = kind == counters_error_kind(EIO) ||
			   kind == counters_error_kind(ENOSPC) ||
			   kind == counters_error_kind(EBADF) ||
			   kind == counters_error_kind(EOPNOTSUPP);

		assert_int_equal(counters_sum_errors(s.standalone.counters, kind), one);
	}
	standalone_forget(&s.standalone);
	served_close(&s);
	fake_stop();
}

/* Requests of one operation are counted together: those of the others must not get lost. */
static void test_counters_of_a_round_with_several_operations(void **state)
{
	static const unsigned ops[DEPTH] = { UBLK_OP_WRITE, UBLK_OP_READ, UBLK_OP_FLUSH,
					     UBLK_OP_WRITE };
	struct fake_request *r[DEPTH];
	uint8_t *data[DEPTH];
	struct served s;

	(void)state;
	tell(AT_ROUND_END);
	told.together = DEPTH;
	begin(&s, "memory", IO_PATH_COPY, 1, DEPTH);
	for (unsigned i = 0; i < DEPTH; i++) {
		data[i] = fake_data(8192, 1);
		r[i] = fake_request_start(0, 0, ops[i], 0, i * 8192,
					  ops[i] == UBLK_OP_FLUSH ? 0 : 1024 * (i + 1), data[i]);
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		assert_int_equal(fake_request_wait(r[i]), 0);
		fake_data_free(data[i]);
	}
	assert_int_equal(standalone_stop(&s.standalone, &s.err), 0);
	check_op(&s, IO_WRITE, 2, 1024 + 4096, 0);
	check_op(&s, IO_READ, 1, 2048, 0);
	check_op(&s, IO_FLUSH, 1, 0, 0);
	standalone_forget(&s.standalone);
	served_close(&s);
	fake_stop();
}

static void test_as_many_files_as_fit(void **state)
{
	struct served s;

	(void)state;
	tell(IN_SUBMIT);
	told.files = QUEUE_FILES - 1;
	begin(&s, "ring", IO_PATH_COPY, 1, 1);
	assert_int_equal(data_request(UBLK_OP_WRITE, 0, 0, 512, 1), 0);
	finish(&s);

	told.files = QUEUE_FILES;
	fake_start(&fake_linux_7_2);
	served_open(&s, "test-ring: queues=1");
	assert_int_equal(served_start(&s), -ENFILE);
	served_close(&s);
	fake_stop();
}

/* ---- what else a backend waits for ---- */

#define WAITS 40u /* more at once than the ring has SQEs for */
#define HOUR  3600000000000ull

/* Orders to the backend, by a request's offset in blocks. */
enum {
	POLL_IT,  /* end with a poll */
	TIME_IT,  /* end with a timer */
	ARM_POLL, /* and end at once */
	ARM_TIMER,
	CANCEL_POLL,
	CANCEL_TIMER,
	TIME_MANY,   /* end with the last of WAITS timers */
	TO_BE_WOKEN, /* end in a round_end() that finds `woken` set */
	NOTHING,
};

static struct {
	int fd;
	unsigned events;
	uint64_t ns;
	bool poll_at_open, wake_at_open, woken;
} waits_told;

/* Events of the backend; the queue's thread's, and the test's between requests. */
static struct {
	int poll_result, timer_result;
	unsigned polls, timers, many, rounds;
	struct queue *queue;
	uint64_t now_ns;
	bool went_back; /* the clock */
} heard;

struct waits {
	struct queue *queue;
	struct ring_op poll;
	struct queue_timer timer, many[WAITS];
	struct io *ends_poll, *ends_timer, *ends_many, *ends_woken;
};

#define waits_of(op, member) ((struct waits *)((char *)(op)-offsetof(struct waits, member)))

static void end_one(struct io **io)
{
	struct io *ended = *io;

	*io = NULL;
	if (ended)
		io_complete(ended, (int)ended->length);
}

static void poll_done(struct ring_op *op, int result)
{
	heard.poll_result = result;
	__atomic_fetch_add(&heard.polls, 1, __ATOMIC_RELEASE);
	end_one(&waits_of(op, poll)->ends_poll);
}

static void timer_done(struct ring_op *op, int result)
{
	heard.timer_result = result;
	heard.timers++;
	end_one(&waits_of(op, timer.op)->ends_timer);
}

static void many_done(struct ring_op *op, int result)
{
	struct waits *w = queue_private(heard.queue);

	(void)op;
	if (result == -ETIME)
		heard.many++;
	if (heard.many == WAITS)
		end_one(&w->ends_many);
}

static int waits_open(struct instance *instance, struct error *err)
{
	(void)err;
	instance->limits = (struct backend_limits){ .size = SIZE, .logical_block = 512 };
	return 0;
}

static void waits_close(struct instance *instance)
{
	(void)instance;
}

static int waits_queue_open(struct queue *queue, struct error *err)
{
	struct waits *w = queue_private(queue);

	(void)err;
	w->queue = heard.queue = queue;
	w->poll.done = poll_done;
	w->timer.op.done = timer_done;
	for (unsigned i = 0; i < WAITS; i++)
		w->many[i].op.done = many_done;
	if (waits_told.poll_at_open)
		queue_poll(queue, &w->poll, waits_told.fd, waits_told.events);
	if (waits_told.wake_at_open)
		queue_wake(queue);
	return 0;
}

static void waits_submit(struct io *io)
{
	struct waits *w = queue_private(io->queue);

	if (queue_now_ns(io->queue) < heard.now_ns)
		heard.went_back = true;
	heard.now_ns = queue_now_ns(io->queue);
	switch (io->offset / 512) {
	case POLL_IT:
		w->ends_poll = io;
		queue_poll(w->queue, &w->poll, waits_told.fd, waits_told.events);
		return;
	case TIME_IT:
		w->ends_timer = io;
		queue_timer(w->queue, &w->timer, waits_told.ns);
		return;
	case ARM_POLL:
		queue_poll(w->queue, &w->poll, waits_told.fd, waits_told.events);
		break;
	case ARM_TIMER:
		queue_timer(w->queue, &w->timer, waits_told.ns);
		break;
	case CANCEL_POLL:
		queue_cancel(w->queue, &w->poll);
		break;
	case CANCEL_TIMER:
		queue_cancel(w->queue, &w->timer.op);
		break;
	case TIME_MANY:
		w->ends_many = io;
		for (unsigned i = 0; i < WAITS; i++)
			queue_timer(w->queue, &w->many[i], 1000 * (WAITS - i));
		return;
	case TO_BE_WOKEN:
		w->ends_woken = io;
		return;
	}
	io_complete(io, (int)io->length);
}

static void waits_round_end(struct queue *queue)
{
	struct waits *w = queue_private(queue);

	__atomic_fetch_add(&heard.rounds, 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&waits_told.woken, __ATOMIC_ACQUIRE))
		end_one(&w->ends_woken);
}

static const struct backend waits_backend = {
	.scheme = "test-waits",
	.syntax = "test-waits:",
	.summary = "for tests",
	.access = ACCESS_NONE,
	.queue_size = sizeof(struct waits),
	.open = waits_open,
	.close = waits_close,
	.queue_open = waits_queue_open,
	.submit = waits_submit,
	.round_end = waits_round_end,
};
BACKEND_REGISTER(waits_backend);

static uint8_t *block; /* the data of all requests here */

static struct fake_request *begin_wait(unsigned what)
{
	return fake_request_start(0, 0, UBLK_OP_WRITE, 0, what * 512, 512, block);
}

static void do_wait(unsigned what)
{
	assert_int_equal(fake_request_wait(begin_wait(what)), 0);
}

static void begin_waits(struct served *s, unsigned depth)
{
	char words[100];

	block = fake_data(512, 0);
	memset(&heard, 0, sizeof(heard));
	snprintf(words, sizeof(words), "test-waits: queues=1 depth=%u", depth);
	fake_start(&fake_linux_7_2);
	served_begin(s, words);
}

static void end_waits(struct served *s)
{
	served_end(s);
	fake_stop();
	assert_false(heard.went_back);
	fake_data_free(block);
	memset(&waits_told, 0, sizeof(waits_told));
}

/* The test's end of it speaks by send(), which the fake kernel is not told of. */
static void open_pair(int pair[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	waits_told.fd = pair[0];
	waits_told.events = POLLIN;
}

static void close_pair(const int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

static void test_a_poll_ends_when_its_file_is_ready(void **state)
{
	struct fake_request *r;
	struct served s;
	int pair[2];
	char byte;

	(void)state;
	open_pair(pair);
	begin_waits(&s, 2);
	/* Ready before it is asked for, and after; one op for all of them. */
	for (unsigned i = 0; i < 20; i++) {
		if (i % 2)
			assert_int_equal(send(pair[1], "x", 1, 0), 1);
		r = begin_wait(POLL_IT);
		do_wait(NOTHING);
		if (!(i % 2)) {
			assert_false(fake_request_ended(r));
			assert_int_equal(send(pair[1], "x", 1, 0), 1);
		}
		assert_int_equal(fake_request_wait(r), 0);
		assert_int_equal(heard.poll_result, POLLIN);
		assert_int_equal(heard.polls, i + 1);
		assert_int_equal(recv(pair[0], &byte, 1, 0), 1);
	}
	/* Of two events, the one that is there; and one that was not asked for. */
	waits_told.events = POLLIN | POLLOUT;
	do_wait(POLL_IT);
	assert_int_equal(heard.poll_result, POLLOUT);
	waits_told.events = POLLIN;
	r = begin_wait(POLL_IT);
	do_wait(NOTHING);
	close(pair[1]);
	assert_int_equal(fake_request_wait(r), 0);
	assert_int_equal(heard.poll_result, POLLIN | POLLHUP);
	end_waits(&s);
	close(pair[0]);
}

static void test_a_poll_of_room_to_write(void **state)
{
	static char much[65536];
	struct fake_request *r;
	struct served s;
	int pair[2];

	(void)state;
	open_pair(pair);
	waits_told.events = POLLOUT;
	begin_waits(&s, 2);
	while (send(pair[0], much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	r = begin_wait(POLL_IT);
	do_wait(NOTHING);
	assert_false(fake_request_ended(r));
	while (recv(pair[1], much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(fake_request_wait(r), 0);
	assert_int_equal(heard.poll_result, POLLOUT);
	end_waits(&s);
	close_pair(pair);
}

static void test_a_poll_that_fails(void **state)
{
	struct served s;

	(void)state;
	waits_told.fd = -1;
	begin_waits(&s, 1);
	do_wait(POLL_IT);
	assert_int_equal(heard.poll_result, -EBADF);
	fake_work(IORING_OP_POLL_ADD, 0, 1, -ENOMEM);
	do_wait(POLL_IT);
	assert_int_equal(heard.poll_result, -ENOMEM);
	assert_int_equal(heard.polls, 2);
	end_waits(&s);
}

static void test_a_timer_ends_when_its_time_has_passed(void **state)
{
	static const uint64_t times[] = { 0, 1, 999999, 20000000 };
	struct served s;

	(void)state;
	begin_waits(&s, 2);
	for (unsigned i = 0; i < sizeof(times) / sizeof(*times); i++) {
		waits_told.ns = times[i];
		do_wait(TIME_IT);
		assert_int_equal(heard.timer_result, -ETIME);
		assert_int_equal(heard.timers, i + 1);
	}
	end_waits(&s);
}

/* More of them in a round than the ring has room for. */
static void test_many_timers_at_once(void **state)
{
	struct served s;

	(void)state;
	begin_waits(&s, 1);
	for (unsigned i = 0; i < 3; i++) {
		heard.many = 0;
		do_wait(TIME_MANY);
		assert_int_equal(heard.many, WAITS);
	}
	end_waits(&s);
}

static void test_a_cancelled_wait_is_reported(void **state)
{
	struct fake_request *poll_request, *timer_request;
	struct waits *w;
	struct served s;
	int pair[2];

	(void)state;
	open_pair(pair);
	waits_told.ns = HOUR + 1500000001;
	begin_waits(&s, 3);
	for (unsigned i = 1; i <= 5; i++) {
		poll_request = begin_wait(POLL_IT);
		timer_request = begin_wait(TIME_IT);
		do_wait(NOTHING);
		w = queue_private(heard.queue);
		assert_int_equal(w->timer.sec, 3601);
		assert_int_equal(w->timer.nsec, 500000001);
		/* Each alone, and in either order. */
		do_wait(i % 2 ? CANCEL_POLL : CANCEL_TIMER);
		assert_int_equal(fake_request_wait(i % 2 ? poll_request : timer_request), 0);
		do_wait(NOTHING);
		assert_false(fake_request_ended(i % 2 ? timer_request : poll_request));
		do_wait(i % 2 ? CANCEL_TIMER : CANCEL_POLL);
		assert_int_equal(fake_request_wait(i % 2 ? timer_request : poll_request), 0);
		assert_int_equal(heard.poll_result, -ECANCELED);
		assert_int_equal(heard.timer_result, -ECANCELED);
		assert_int_equal(heard.polls, i);
		assert_int_equal(heard.timers, i);
	}
	end_waits(&s);
	close_pair(pair);
}

/* Nothing waits any more, or never did: nobody hears anything. */
static void test_a_cancel_that_comes_too_late(void **state)
{
	struct served s;
	int pair[2];

	(void)state;
	open_pair(pair);
	begin_waits(&s, 2);
	do_wait(CANCEL_POLL);
	do_wait(CANCEL_TIMER);
	assert_int_equal(send(pair[1], "x", 1, 0), 1);
	do_wait(POLL_IT);
	do_wait(TIME_IT);
	do_wait(CANCEL_POLL);
	do_wait(CANCEL_TIMER);
	do_wait(NOTHING);
	assert_int_equal(heard.polls, 1);
	assert_int_equal(heard.poll_result, POLLIN);
	assert_int_equal(heard.timers, 1);
	assert_int_equal(heard.timer_result, -ETIME);
	end_waits(&s);
	close_pair(pair);
}

/* Both at the same time: told once, whichever it is. */
static void test_a_cancel_that_comes_at_that_moment(void **state)
{
	struct fake_request *r;
	struct served s;
	int pair[2];
	char byte;

	(void)state;
	open_pair(pair);
	begin_waits(&s, 2);
	for (unsigned i = 1; i <= 50; i++) {
		r = begin_wait(POLL_IT);
		do_wait(NOTHING);
		assert_int_equal(send(pair[1], "x", 1, 0), 1);
		do_wait(CANCEL_POLL);
		assert_int_equal(fake_request_wait(r), 0);
		do_wait(NOTHING);
		assert_int_equal(heard.polls, i);
		assert_true(heard.poll_result == POLLIN || heard.poll_result == -ECANCELED);
		assert_int_equal(recv(pair[0], &byte, 1, 0), 1);
	}
	end_waits(&s);
	close_pair(pair);
}

/* The kernel holds finished work back: it is told late, the last first, and each once. */
static void test_late_completions_of_waits(void **state)
{
	struct fake_request *poll_request, *timer_request;
	struct served s;
	int pair[2];

	(void)state;
	open_pair(pair);
	begin_waits(&s, 3);
	assert_int_equal(send(pair[1], "x", 1, 0), 1);
	fake_hold_work(true);
	poll_request = begin_wait(POLL_IT);
	timer_request = begin_wait(TIME_IT);
	while (fake_work_held() < 2)
		do_wait(NOTHING);
	/* The timer is done already, and so cannot be cancelled. */
	do_wait(CANCEL_POLL);
	assert_int_equal(heard.polls + heard.timers, 0);
	fake_hold_work(false);
	assert_int_equal(fake_request_wait(poll_request), 0);
	assert_int_equal(fake_request_wait(timer_request), 0);
	assert_int_equal(heard.poll_result, POLLIN);
	assert_int_equal(heard.timer_result, -ETIME);
	assert_int_equal(heard.polls + heard.timers, 2);
	end_waits(&s);
	close_pair(pair);
}

/* Waits are forgotten when the queue ends. */
static void test_a_queue_ends_with_waits(void **state)
{
	struct served s;
	int pair[2];

	(void)state;
	for (unsigned at_open = 0; at_open < 2; at_open++) {
		open_pair(pair);
		waits_told.ns = HOUR;
		waits_told.poll_at_open = at_open;
		begin_waits(&s, 2);
		if (!at_open)
			do_wait(ARM_POLL);
		do_wait(ARM_TIMER);
		end_waits(&s);
		assert_int_equal(heard.polls + heard.timers, 0);
		close_pair(pair);
	}
}

/* Given at queue_open(), before there is any request. */
static void test_a_poll_from_the_start(void **state)
{
	struct served s;
	int pair[2];

	(void)state;
	for (unsigned ready = 0; ready < 2; ready++) {
		open_pair(pair);
		waits_told.poll_at_open = true;
		if (ready)
			assert_int_equal(send(pair[1], "x", 1, 0), 1);
		begin_waits(&s, 1);
		do_wait(NOTHING);
		assert_int_equal(heard.polls, ready);
		if (!ready)
			assert_int_equal(send(pair[1], "x", 1, 0), 1);
		while (!__atomic_load_n(&heard.polls, __ATOMIC_ACQUIRE))
			do_wait(NOTHING);
		assert_int_equal(heard.polls, 1);
		assert_int_equal(heard.poll_result, POLLIN);
		end_waits(&s);
		close_pair(pair);
	}
}

static void *wake_often(void *arg)
{
	for (unsigned i = 0; i < 200; i++)
		queue_wake(arg);
	return NULL;
}

static void test_a_wake_makes_a_round(void **state)
{
	struct fake_request *r;
	pthread_t threads[4];
	struct served s;

	(void)state;
	begin_waits(&s, 2);
	for (unsigned i = 0; i < 10; i++) {
		r = begin_wait(TO_BE_WOKEN);
		do_wait(NOTHING);
		assert_false(fake_request_ended(r));
		__atomic_store_n(&waits_told.woken, true, __ATOMIC_RELEASE);
		queue_wake(heard.queue);
		assert_int_equal(fake_request_wait(r), 0);
		__atomic_store_n(&waits_told.woken, false, __ATOMIC_RELEASE);
	}
	/* From many threads, while the queue is at work. */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wake_often, heard.queue), 0);
	for (unsigned i = 0; i < 200; i++)
		do_wait(NOTHING);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	r = begin_wait(TO_BE_WOKEN);
	do_wait(NOTHING);
	__atomic_store_n(&waits_told.woken, true, __ATOMIC_RELEASE);
	queue_wake(heard.queue);
	assert_int_equal(fake_request_wait(r), 0);
	end_waits(&s);
}

/* Events before the first round of all have a round_end(), too. */
static void test_a_wake_before_the_first_round(void **state)
{
	struct served s;
	int pair[2];

	(void)state;
	for (unsigned poll_too = 0; poll_too < 2; poll_too++) {
		open_pair(pair);
		assert_int_equal(send(pair[1], "x", 1, 0), 1);
		waits_told.poll_at_open = poll_too;
		waits_told.wake_at_open = !poll_too;
		begin_waits(&s, 1);
		for (unsigned ms = 0; !__atomic_load_n(&heard.rounds, __ATOMIC_RELAXED); ms++) {
			assert_true(ms < 20000);
			poll(NULL, 0, 1);
		}
		assert_int_equal(heard.polls, poll_too);
		end_waits(&s);
		close_pair(pair);
	}
}

/*
 * A round that was under way when the drain began may have seen none, and may have taken a
 * request that it has not counted yet: equal counters say nothing before the next round
 * has ended as well.
 */
static void test_is_drained_after_two_rounds_only(void **state)
{
	struct queue_counters counters = { .rounds = 5, .started = 7, .completed = 7 };
	struct queue q = { .counters = &counters, .wake = eventfd(0, EFD_CLOEXEC) };
	uint64_t wakes;

	(void)state;
	assert_true(q.wake >= 0);
	queue_drain(&q, true);
	assert_false(queue_is_drained(&q));
	counters.rounds = 6;
	assert_false(queue_is_drained(&q));
	/* The call has the thread do these rounds. */
	assert_int_equal(read(q.wake, &wakes, sizeof(wakes)), sizeof(wakes));
	assert_int_equal(wakes, 3);
	counters.rounds = 7;
	counters.started = 8;
	assert_false(queue_is_drained(&q));
	counters.completed = 8;
	assert_true(queue_is_drained(&q));
	queue_drain(&q, false);
	counters.rounds = 9;
	assert_false(queue_is_drained(&q));
	close(q.wake);
}

/* Requests that come then wait for the next server, or for the drain's end. */
static void test_nothing_is_served_while_it_drains(void **state)
{
	struct fake_request *r;
	struct serving *serving;
	struct served s;

	(void)state;
	tell(IN_SUBMIT);
	begin(&s, kinds[0], IO_PATH_USER_COPY, 1, 1);
	serving = &s.standalone.serving;
	serving_drain(serving, true);
	for (unsigned ms = 0; !serving_is_drained(serving); ms++) {
		assert_true(ms < 20000);
		poll(NULL, 0, 1);
	}
	r = fake_request_start(0, 0, UBLK_OP_FLUSH, 0, 0, 0, NULL);
	for (unsigned ms = 0; !atomic_load(&serving->queues[0].nr_parked); ms++) {
		assert_false(fake_request_ended(r));
		assert_true(ms < 20000);
		poll(NULL, 0, 1);
	}
	assert_true(serving_is_drained(serving));
	assert_false(fake_request_ended(r));
	serving_drain(serving, false);
	assert_int_equal(fake_request_wait(r), 0);
	finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_is_drained_after_two_rounds_only),
		cmocka_unit_test(test_nothing_is_served_while_it_drains),
		cmocka_unit_test(test_data_of_every_access_on_every_path),
		cmocka_unit_test(test_failed_registrations_fall_back),
		cmocka_unit_test(test_small_and_large_reads_share_a_buffer),
		cmocka_unit_test(test_errors_arrive_as_they_are),
		cmocka_unit_test(test_a_part_is_an_error),
		cmocka_unit_test(test_a_result_beyond_the_length_counts_as_the_length),
		cmocka_unit_test(test_the_backend_sees_the_request),
		cmocka_unit_test(test_refuses_requests_before_the_backend),
		cmocka_unit_test(test_read_only_is_kept),
		cmocka_unit_test(test_a_refused_write_is_not_read),
		cmocka_unit_test(test_a_copy_that_fails_is_the_requests_error),
		cmocka_unit_test(test_many_in_flight),
		cmocka_unit_test(test_queues_do_not_mix),
		cmocka_unit_test(test_counters_are_exact),
		cmocka_unit_test(test_counters_of_a_round_with_several_operations),
		cmocka_unit_test(test_as_many_files_as_fit),
		cmocka_unit_test(test_a_poll_ends_when_its_file_is_ready),
		cmocka_unit_test(test_a_poll_of_room_to_write),
		cmocka_unit_test(test_a_poll_that_fails),
		cmocka_unit_test(test_a_timer_ends_when_its_time_has_passed),
		cmocka_unit_test(test_many_timers_at_once),
		cmocka_unit_test(test_a_cancelled_wait_is_reported),
		cmocka_unit_test(test_a_cancel_that_comes_too_late),
		cmocka_unit_test(test_a_cancel_that_comes_at_that_moment),
		cmocka_unit_test(test_late_completions_of_waits),
		cmocka_unit_test(test_a_queue_ends_with_waits),
		cmocka_unit_test(test_a_poll_from_the_start),
		cmocka_unit_test(test_a_wake_makes_a_round),
		cmocka_unit_test(test_a_wake_before_the_first_round),
	};

	bound_time(200);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
