/* SPDX-License-Identifier: MIT */
/*
 * How data crosses: which path is chosen, and what is in a tag's buffer when it
 * is handed over.  Whole requests on every path are test-queue's.
 */
#include "engine/buffer.h"
#include "common/error.h"
#include "tests/unit/fake-kernel.h"
#include "tests/unit/served.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <sys/mman.h>

/* ---- the choice ---- */

#define OLD    0x5full  /* 6.0 to 6.4 */
#define COPIER 0x1feull /* 6.12 */
#define NEW    0xfffffull

static void test_the_choice(void **state)
{
	static const struct {
		enum io_path wanted;
		enum backend_access access;
		uint64_t features;
		int chosen; /* a path, or -errno */
	} table[] = {
		{ IO_PATH_AUTO, ACCESS_NONE, OLD, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_NONE, COPIER, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_NONE, NEW, IO_PATH_ZERO_COPY },
		{ IO_PATH_AUTO, ACCESS_RING, OLD, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_RING, COPIER, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_RING, NEW, IO_PATH_ZERO_COPY },
		{ IO_PATH_AUTO, ACCESS_RING, NEW & ~UBLK_FEAT_USER_COPY, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_RING, NEW & ~UBLK_FEAT_ZERO_COPY, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_RING, NEW & ~UBLK_FEAT_AUTO_BUF_REG, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_MEMORY, OLD, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_MEMORY, COPIER, IO_PATH_USER_COPY },
		{ IO_PATH_AUTO, ACCESS_MEMORY, NEW, IO_PATH_USER_COPY },
		{ IO_PATH_AUTO, ACCESS_POINTER, OLD, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_POINTER, NEW, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_SOCKET, OLD, IO_PATH_COPY },
		{ IO_PATH_AUTO, ACCESS_SOCKET, COPIER, IO_PATH_USER_COPY },
		{ IO_PATH_AUTO, ACCESS_SOCKET, NEW, IO_PATH_USER_COPY },
		{ IO_PATH_AUTO, ACCESS_MEMORY, 0, IO_PATH_COPY },
		{ IO_PATH_COPY, ACCESS_RING, NEW, IO_PATH_COPY },
		{ IO_PATH_COPY, ACCESS_MEMORY, 0, IO_PATH_COPY },
		{ IO_PATH_USER_COPY, ACCESS_NONE, COPIER, IO_PATH_USER_COPY },
		{ IO_PATH_USER_COPY, ACCESS_RING, OLD, -EOPNOTSUPP },
		{ IO_PATH_USER_COPY, ACCESS_MEMORY, 0, -EOPNOTSUPP },
		{ IO_PATH_ZERO_COPY, ACCESS_MEMORY, NEW, IO_PATH_ZERO_COPY },
		{ IO_PATH_ZERO_COPY, ACCESS_RING, COPIER, -EOPNOTSUPP },
		{ IO_PATH_ZERO_COPY, ACCESS_RING, NEW & ~UBLK_FEAT_USER_COPY, -EOPNOTSUPP },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(table) / sizeof(*table); i++) {
		const char *reason = NULL;
		struct error err = { 0 };
		enum io_path path;
		int ret = io_path_choose(table[i].wanted, table[i].access, table[i].features, &path,
					 &reason, &err);

		if (table[i].chosen < 0) {
			assert_int_equal(ret, table[i].chosen);
			assert_non_null(strstr(err.text, io_path_name(table[i].wanted)));
			continue;
		}
		assert_int_equal(ret, 0);
		if ((int)path != table[i].chosen)
			fail_msg("row %u: %s is chosen", i, io_path_name(path));
		assert_true(reason && *reason);
		assert_int_equal(io_path_features(path) & ~table[i].features, 0);
	}
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(io_path_name(IO_PATH_COPY), "copy");
	assert_string_equal(io_path_name(IO_PATH_USER_COPY), "user-copy");
	assert_string_equal(io_path_name(IO_PATH_ZERO_COPY), "zero-copy");
	assert_string_equal(io_path_name(IO_PATH_AUTO), "auto");
}

/* ---- buffers ---- */

#define DEPTH  3u
#define MAX_IO (64u << 10)

struct set {
	struct ring ring;
	struct buffers buffers;
};

static int driver = -1; /* ublkcN; a file where its content counts */

static void begin(struct set *s, enum io_path path, enum backend_access access)
{
	struct error err;

	fake_start(&fake_linux_7_2);
	assert_int_equal(ring_open(&s->ring, 16, RING_OP(IORING_OP_NOP), false, &err), 0);
	assert_int_equal(
		buffers_open(&s->buffers, path, access, 0, driver, DEPTH, MAX_IO, &s->ring), 0);
}

static void finish(struct set *s)
{
	ring_close(&s->ring);
	buffers_close(&s->buffers);
	fake_stop();
}

static struct io an_io(unsigned tag, enum io_op op, uint32_t length)
{
	return (struct io){ .tag = (uint16_t)tag, .op = (uint8_t)op, .length = length };
}

static uint8_t *driver_buffer(struct set *s, unsigned tag)
{
	return (uint8_t *)(uintptr_t)buffers_cmd_addr(&s->buffers, tag);
}

/*
 * Whatever a buffer was used for, zeroes are zeroes to the last byte: what is
 * skipped because it was never written must not have been.
 */
static void test_zeroes_after_anything(void **state)
{
	static const enum backend_access accesses[] = { ACCESS_MEMORY, ACCESS_RING };
	struct io_uring_sqe sqe;
	uint8_t data[4096];
	uint64_t seed = 5;
	struct set s;

	(void)state;
	memset(data, 0xaa, sizeof(data));
	for (unsigned n = 0; n < 20000; n++) {
		unsigned tag = (unsigned)(next_random(&seed) % DEPTH);
		uint32_t length = 512u << next_random(&seed) % 8, at = 0, part;
		struct io io = an_io(tag, IO_READ, length);
		uint8_t *buffer;

		/* Anew now and then: what a buffer never held is an own case. */
		if (n % 200 == 0) {
			if (n)
				finish(&s);
			begin(&s, IO_PATH_COPY, accesses[n / 200 % 2]);
		}
		buffer = driver_buffer(&s, tag);
		/* Half of them from the start, which is what makes a buffer clean again. */
		if (next_random(&seed) % 2)
			at = 512u * (uint32_t)(next_random(&seed) % (length / 512));
		part = length - at < sizeof(data) ? length - at : (uint32_t)sizeof(data);
		switch (next_random(&seed) % 8) {
		case 0: /* a write: the driver has put its data there */
			io.op = IO_WRITE;
			memset(buffer, 0xbb, length);
			assert_int_equal(buffers_arrive(&s.buffers, &io), 0);
			break;
		case 1:
			assert_int_equal(buffers_copy_to(&s.buffers, &io, at, data, part), 0);
			assert_memory_equal(buffer + at, data, part);
			break;
		case 2:
			memset(buffers_data(&s.buffers, &io), 0xcc, length);
			break;
		case 3: /* a read of a file: the ring fills it, from where it was told */
			memset(&sqe, 0, sizeof(sqe));
			buffers_prep_staged(&s.buffers, &io, &sqe, 5, 0, 0);
			assert_ptr_equal((void *)(uintptr_t)sqe.addr, buffer);
			memset(buffer, 0xdd, length);
			break;
		default:
			part = length - at;
			assert_int_equal(buffers_fill_zero(&s.buffers, &io, at, part), 0);
			for (uint32_t i = at; i < length; i++)
				if (buffer[i])
					fail_msg("use %u: byte %u of %u zeroes is %#x", n, i, part,
						 buffer[i]);
			break;
		}
	}
	finish(&s);
}

static void test_tags_have_their_own(void **state)
{
	struct set s;

	(void)state;
	begin(&s, IO_PATH_COPY, ACCESS_POINTER);
	for (unsigned tag = 0; tag < DEPTH; tag++) {
		struct io io = an_io(tag, IO_READ, MAX_IO);

		assert_ptr_equal(buffers_data(&s.buffers, &io), driver_buffer(&s, tag));
		assert_int_equal((uintptr_t)driver_buffer(&s, tag) % 4096, 0);
		memset(buffers_data(&s.buffers, &io), (int)tag + 1, MAX_IO);
	}
	for (unsigned tag = 0; tag < DEPTH; tag++)
		for (unsigned i = 0; i < MAX_IO; i++)
			assert_int_equal(driver_buffer(&s, tag)[i], tag + 1);
	finish(&s);
}

/* Each byte of a request has a place of its own in ublkcN (ublk_abi.h). */
static void test_user_copy_knows_the_place_in_a_request(void **state)
{
	struct io io = an_io(1, IO_READ, 8192);
	uint8_t data[4096], found[4096];
	struct set s;

	(void)state;
	driver = memfd_create("ublkc", MFD_CLOEXEC);
	assert_true(driver >= 0);
	begin(&s, IO_PATH_USER_COPY, ACCESS_MEMORY);
	memset(data, 0xaa, sizeof(data));
	assert_int_equal(buffers_copy_to(&s.buffers, &io, 4096, data, sizeof(data)), 0);
	assert_int_equal(pread(driver, found, sizeof(found),
			       (off_t)UBLK_USER_COPY_OFFSET(0, 1, 4096)),
			 sizeof(found));
	assert_memory_equal(found, data, sizeof(data));
	assert_int_equal(pread(driver, found, 1, (off_t)UBLK_USER_COPY_OFFSET(0, 1, 0)), 1);
	assert_int_equal(found[0], 0);
	memset(found, 0, sizeof(found));
	assert_int_equal(buffers_copy_from(&s.buffers, &io, 4096, found, sizeof(found)), 0);
	assert_memory_equal(found, data, sizeof(data));
	finish(&s);
	close(driver);
	driver = -1;
}

static void test_addresses_of_each_path(void **state)
{
	struct ublk_auto_buf buf;
	uint64_t addr;
	struct set s;

	(void)state;
	begin(&s, IO_PATH_USER_COPY, ACCESS_MEMORY);
	assert_int_equal(buffers_cmd_addr(&s.buffers, 1), 0);
	assert_int_equal(buffers_sqe_addr(&s.buffers, 1), 0);
	finish(&s);
	begin(&s, IO_PATH_ZERO_COPY, ACCESS_RING);
	assert_int_equal(buffers_cmd_addr(&s.buffers, 2), 0);
	addr = buffers_sqe_addr(&s.buffers, 2);
	memcpy(&buf, &addr, sizeof(buf));
	assert_int_equal(buf.index, 2);
	assert_int_equal(buf.flags, UBLK_AUTO_BUF_FALLBACK);
	assert_int_equal(buf.reserved0 | buf.reserved1, 0);
	finish(&s);
	begin(&s, IO_PATH_COPY, ACCESS_RING);
	assert_int_equal(buffers_sqe_addr(&s.buffers, 2), 0);
	finish(&s);
}

/* ---- I/O on files ---- */

static struct io_uring_sqe prepared(struct set *s, const struct io *io, uint64_t offset,
				    uint32_t skip)
{
	struct io_uring_sqe sqe = { 0 };

	if (buffers_registered(&s->buffers, io))
		buffers_prep_pages(io, &sqe, 5, offset, skip);
	else
		buffers_prep_staged(&s->buffers, io, &sqe, 5, offset, skip);
	assert_int_equal(sqe.fd, 5);
	assert_int_equal(sqe.off, offset + skip);
	assert_int_equal(sqe.len, io->length - skip);
	return sqe;
}

static void test_file_io_goes_to_the_requests_pages(void **state)
{
	struct io io = an_io(2, IO_READ, 8192);
	struct io_uring_sqe sqe;
	struct set s;

	(void)state;
	begin(&s, IO_PATH_ZERO_COPY, ACCESS_RING);
	assert_int_equal(buffers_arrive(&s.buffers, &io), 0);
	sqe = prepared(&s, &io, 1 << 20, 512);
	assert_int_equal(sqe.opcode, IORING_OP_READ_FIXED);
	assert_int_equal(sqe.buf_index, 2);
	assert_int_equal(sqe.addr, 512);
	io.op = IO_WRITE;
	sqe = prepared(&s, &io, 1 << 20, 0);
	assert_int_equal(sqe.opcode, IORING_OP_WRITE_FIXED);
	assert_int_equal(sqe.addr, 0);
	/* Not registered: through the tag's buffer, this once. */
	io.op = IO_READ;
	io.flags = IO_UNREGISTERED;
	assert_int_equal(buffers_arrive(&s.buffers, &io), 0);
	sqe = prepared(&s, &io, 0, 512);
	assert_int_equal(sqe.opcode, IORING_OP_READ);
	assert_ptr_equal((void *)(uintptr_t)sqe.addr,
			 (uint8_t *)buffers_data(&s.buffers, &io) + 512);
	io.flags = 0;
	assert_int_equal(buffers_arrive(&s.buffers, &io), 0);
	sqe = prepared(&s, &io, 0, 0);
	assert_int_equal(sqe.opcode, IORING_OP_READ_FIXED);
	finish(&s);
}

static void test_file_io_goes_to_the_tags_buffer(void **state)
{
	struct io io = an_io(1, IO_READ, MAX_IO);
	struct io_uring_sqe sqe;
	struct set s;

	(void)state;
	begin(&s, IO_PATH_COPY, ACCESS_RING);
	sqe = prepared(&s, &io, 4096, 1024);
	assert_int_equal(sqe.opcode, IORING_OP_READ);
	assert_ptr_equal((void *)(uintptr_t)sqe.addr, driver_buffer(&s, 1) + 1024);
	io.op = IO_WRITE;
	sqe = prepared(&s, &io, 4096, 0);
	assert_int_equal(sqe.opcode, IORING_OP_WRITE);
	/* A small one: the ring knows these pages from now on. */
	fake_fail("io_uring_register_buffers_update_tag", UINT32_MAX, 0);
	for (unsigned i = 0; i < 3; i++) {
		io = an_io(1, i % 2 ? IO_WRITE : IO_READ, 4096);
		sqe = prepared(&s, &io, 4096, 512);
		assert_int_equal(sqe.opcode, i % 2 ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED);
		assert_int_equal(sqe.buf_index, 1);
		assert_ptr_equal((void *)(uintptr_t)sqe.addr, driver_buffer(&s, 1) + 512);
	}
	assert_int_equal(fake_calls(), 1);
	io = an_io(1, IO_READ, BUFFERS_PINNED + 512);
	sqe = prepared(&s, &io, 0, 0);
	assert_int_equal(sqe.opcode, IORING_OP_READ);
	finish(&s);
}

/* A limit on locked memory: told once, and then it is left at that. */
static void test_pages_that_the_ring_may_not_know(void **state)
{
	struct io io = an_io(0, IO_READ, 4096);
	struct io_uring_sqe sqe;
	struct set s;

	(void)state;
	begin(&s, IO_PATH_COPY, ACCESS_RING);
	fake_fail("io_uring_register_buffers_update_tag", 1, ENOMEM);
	for (unsigned tag = 0; tag < DEPTH; tag++) {
		io.tag = (uint16_t)tag;
		sqe = prepared(&s, &io, 0, 0);
		assert_int_equal(sqe.opcode, IORING_OP_READ);
	}
	assert_int_equal(fake_calls(), 1);
	finish(&s);
	/* And the same where there is not even a table. */
	fake_start(&fake_linux_7_2);
	assert_int_equal(ring_open(&s.ring, 16, RING_OP(IORING_OP_NOP), false, NULL), 0);
	fake_fail("io_uring_register_buffers_sparse", 1, ENOMEM);
	assert_int_equal(buffers_open(&s.buffers, IO_PATH_COPY, ACCESS_RING, 0, -1, DEPTH, MAX_IO,
				      &s.ring),
			 0);
	sqe = prepared(&s, &io, 0, 0);
	assert_int_equal(sqe.opcode, IORING_OP_READ);
	ring_close(&s.ring);
	buffers_close(&s.buffers);
	/* Without which zero copy is not to be had. */
	assert_int_equal(ring_open(&s.ring, 16, RING_OP(IORING_OP_NOP), false, NULL), 0);
	fake_fail("io_uring_register_buffers_sparse", 1, ENOMEM);
	assert_int_equal(buffers_open(&s.buffers, IO_PATH_ZERO_COPY, ACCESS_RING, 0, -1, DEPTH,
				      MAX_IO, &s.ring),
			 -ENOMEM);
	ring_close(&s.ring);
	fake_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_choice),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_zeroes_after_anything),
		cmocka_unit_test(test_tags_have_their_own),
		cmocka_unit_test(test_user_copy_knows_the_place_in_a_request),
		cmocka_unit_test(test_addresses_of_each_path),
		cmocka_unit_test(test_file_io_goes_to_the_requests_pages),
		cmocka_unit_test(test_file_io_goes_to_the_tags_buffer),
		cmocka_unit_test(test_pages_that_the_ring_may_not_know),
	};

	bound_time(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
