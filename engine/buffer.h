/* SPDX-License-Identifier: MIT */
/*
 * How a request's data crosses between the kernel and the server, on each of the
 * ways of io_path.h: the only place that knows.
 *
 * Buffers are mapped for all tags and cost memory only once touched.
 */
#ifndef UBLKD_BUFFER_H
#define UBLKD_BUFFER_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/backend.h"
#include "engine/io_path.h"
#include "engine/ring.h"
#include "engine/ublk_abi.h"

/* State of a tag's buffer. */
struct tag_buffer {
	uint32_t dirty; /* bytes of it, from its start, that may not be zero */
	bool pinned;    /* its first BUFFERS_PINNED bytes are registered with the ring */
};

/*
 * I/O on files from and to our own buffers is cheaper if the ring knows their
 * pages, but a known page cannot be given back.  So a tag's first bytes are made
 * known by the first small request that uses them.
 */
#define BUFFERS_PINNED (16u << 10)

/* Owner: a queue; every call on its thread. */
struct buffers {
	enum io_path path;
	enum backend_access access;
	bool staged;  /* data the backend touches must be carried to or from a buffer by us */
	bool can_pin; /* the ring's buffer table is there for our buffers */
	unsigned depth;
	int char_fd;        /* /dev/ublkcN, for user copy */
	uint64_t user_copy; /* where it has the queue's first tag */
	struct ring *ring;
	uint32_t stride;       /* bytes of one tag's buffer */
	uint8_t *arena;        /* depth * stride */
	const uint8_t *zeroes; /* stride bytes, never written */
	struct tag_buffer *tags;
};

/*
 * max_io: bytes of the largest request.  ring stays until buffers_close(); its
 * buffer table is made here, one slot a tag, where it is of use.  Returns 0 or
 * -errno.
 */
int buffers_open(struct buffers *buffers, enum io_path path, enum backend_access access,
		 unsigned queue, int char_fd, unsigned depth, uint32_t max_io, struct ring *ring);
void buffers_close(struct buffers *buffers);

/* Addresses of a tag's fetch or commit: ublk_io_cmd.addr, and the SQE's own addr. */
static inline uint64_t buffers_cmd_addr(const struct buffers *b, unsigned tag)
{
	return b->path == IO_PATH_COPY ? (uint64_t)(uintptr_t)(b->arena + (uint64_t)tag * b->stride)
				       : 0;
}
static inline uint64_t buffers_sqe_addr(const struct buffers *b, unsigned tag)
{
	union {
		struct ublk_auto_buf reg;
		uint64_t addr;
	} u = { .reg = { .index = (uint16_t)tag, .flags = UBLK_AUTO_BUF_FALLBACK } };

	return b->path == IO_PATH_ZERO_COPY ? u.addr : 0;
}

/* Whether what the backend touches is a buffer of ours that must be carried. */
static inline bool buffers_staged(const struct buffers *b, const struct io *io)
{
	return b->staged || (io->flags & IO_UNREGISTERED && b->access == ACCESS_RING);
}

static inline void buffers_mark_dirty(struct buffers *b, unsigned tag, uint32_t end)
{
	if (end > b->tags[tag].dirty)
		b->tags[tag].dirty = end;
}

/* To and from the tag's buffer. */
void buffers_copy_into(struct buffers *buffers, const struct io *io, uint32_t at, const void *from,
		       uint32_t length);
void buffers_copy_out_of(struct buffers *buffers, const struct io *io, uint32_t at, void *to,
			 uint32_t length);
int buffers_carry_in(struct buffers *buffers, const struct io *io);
int buffers_carry_out(struct buffers *buffers, const struct io *io, int result);

/*
 * A request is there: brings a write's data to where the backend looks for it.
 * Returns 0 or -errno.
 */
static inline int buffers_arrive(struct buffers *b, const struct io *io)
{
	if (io->op != IO_WRITE)
		return 0;
	if (b->path == IO_PATH_COPY) {
		buffers_mark_dirty(b, io->tag, io->length);
		return 0;
	}
	return buffers_staged(b, io) ? buffers_carry_in(b, io) : 0;
}

/* A request is there that no backend will see: a write's data may be in its buffer. */
static inline void buffers_refuse(struct buffers *b, const struct io *io)
{
	if (b->path == IO_PATH_COPY && io->op == IO_WRITE)
		buffers_mark_dirty(b, io->tag, io->length);
}

/* A request is done: hands a read's first `result` bytes over.  Returns result or -errno. */
static inline int buffers_finish(struct buffers *b, const struct io *io, int result)
{
	/* Nothing is staged on the path "copy". */
	if (!buffers_staged(b, io) || io->op != IO_READ || result <= 0)
		return result;
	return buffers_carry_out(b, io, result);
}

/* Whether the ring has the request's own pages, so that a transfer copies nothing. */
static inline bool buffers_registered(const struct buffers *b, const struct io *io)
{
	return b->path == IO_PATH_ZERO_COPY && !(io->flags & IO_UNREGISTERED);
}

/*
 * Prepares the read or write of io's data, skip bytes into it, on a file at offset: on the
 * request's pages, where the ring has them, or on the tag's buffer.
 */
static inline void buffers_prep_pages(const struct io *io, struct io_uring_sqe *sqe, int fd,
				      uint64_t offset, uint32_t skip)
{
	/* The kernel's pages are addressed from 0. */
	io_uring_prep_rw(io->op == IO_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED, sqe, fd,
			 (void *)(uintptr_t)skip, io->length - skip, offset + skip);
	sqe->buf_index = io->tag;
}
void buffers_prep_staged(struct buffers *buffers, const struct io *io, struct io_uring_sqe *sqe,
			 int fd, uint64_t offset, uint32_t skip);

/*
 * User copy, between memory and the request's data from `at` on: pread(2) or pwrite(2) on ublkcN.
 * Not by libc's functions of these names: they are cancellation points, with two locked
 * instructions around each call, and nobody cancels a queue's thread.  A short copy is an error,
 * although the driver has moved some bytes: the request would be completed with data missing.
 * Each returns 0 or -errno.
 */
static inline int buffers_user_copy_from(const struct buffers *b, const struct io *io, uint32_t at,
					 void *to, uint32_t length)
{
	uint64_t offset = b->user_copy + UBLK_USER_COPY_TAG(io->tag) + at;
#if __SIZEOF_LONG__ == 8
	ssize_t ret = syscall(SYS_pread64, b->char_fd, to, (size_t)length, offset);
#else /* the offset's place is each architecture's own */
	ssize_t ret = pread(b->char_fd, to, length, (off_t)offset);
#endif

	return ret == (ssize_t)length ? 0 : ret < 0 ? -errno : -EIO;
}
static inline int buffers_user_copy_to(const struct buffers *b, const struct io *io, uint32_t at,
				       const void *from, uint32_t length)
{
	uint64_t offset = b->user_copy + UBLK_USER_COPY_TAG(io->tag) + at;
#if __SIZEOF_LONG__ == 8
	ssize_t ret = syscall(SYS_pwrite64, b->char_fd, from, (size_t)length, offset);
#else
	ssize_t ret = pwrite(b->char_fd, from, length, (off_t)offset);
#endif

	return ret == (ssize_t)length ? 0 : ret < 0 ? -errno : -EIO;
}

/* io_copy_to() and its like. */
static inline int buffers_copy_to(struct buffers *b, const struct io *io, uint32_t at,
				  const void *from, uint32_t length)
{
	if (__builtin_expect(b->path != IO_PATH_COPY, 1))
		return buffers_user_copy_to(b, io, at, from, length);
	buffers_copy_into(b, io, at, from, length);
	return 0;
}
static inline int buffers_copy_from(struct buffers *b, const struct io *io, uint32_t at, void *to,
				    uint32_t length)
{
	if (__builtin_expect(b->path != IO_PATH_COPY, 1))
		return buffers_user_copy_from(b, io, at, to, length);
	buffers_copy_out_of(b, io, at, to, length);
	return 0;
}
int buffers_fill_zero(struct buffers *buffers, const struct io *io, uint32_t at, uint32_t length);
void *buffers_data(struct buffers *buffers, const struct io *io);

#endif
