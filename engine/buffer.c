/* SPDX-License-Identifier: MIT */
/*
 * Moves a request's data between the kernel and this process, on each I/O path (io_path.h). A
 * backend declares only how it accesses data and never asks for the path, so that a new path is a
 * change to this file and not to each backend.
 *
 * Copy: the driver copies to or from the tag's buffer. User copy: pread(2) or pwrite(2) on ublkcN,
 * at the request's place. Zero copy: the driver registers the request's pages in the ring's table.
 * Where a backend needs an address and the path gives none, data is staged in the tag's buffer; a
 * backend with access SOCKET does that itself, and only for the parts that it cannot copy at once.
 *
 * A tag's buffer has room for the largest request but takes memory only where it was touched.
 * `dirty` bounds the bytes that may differ from zero, so that a read of a hole rarely writes.
 *
 * Read buffers_open() first, then buffers_arrive() and buffers_finish() in buffer.h, the two ends
 * of a request, then buffers_prep_staged() with pin().
 */
#include "engine/buffer.h"
#include "engine/ublk_abi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int buffers_open(struct buffers *b, enum io_path path, enum backend_access access, unsigned queue,
		 int char_fd, unsigned depth, uint32_t max_io, struct ring *ring)
{
	size_t bytes = (size_t)depth * max_io;
	int ret;

	*b = (struct buffers){
		.path = path,
		.access = access,
		.staged = path != IO_PATH_COPY &&
			  (access == ACCESS_POINTER ||
			   (access == ACCESS_RING && path != IO_PATH_ZERO_COPY)),
		.user_copy = UBLK_USER_COPY_OFFSET(queue, 0, 0),
		.depth = depth,
		.char_fd = char_fd,
		.ring = ring,
		.stride = max_io,
	};
	b->tags = calloc(depth, sizeof(*b->tags));
	if (!b->tags)
		return -ENOMEM;
	b->arena = mmap(NULL, bytes + max_io, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->arena == MAP_FAILED) {
		ret = -errno;
		goto free_tags;
	}
	/*
	 * One more stride behind the tags' buffers stays untouched: the source of zeroes for user
	 * copy.
	 */
	b->zeroes = b->arena + bytes;
	/* A huge page for a tag's first 4 KiB would make idle devices expensive. */
	madvise(b->arena, bytes + max_io, MADV_NOHUGEPAGE);
	if (path == IO_PATH_ZERO_COPY || access == ACCESS_RING) {
		/*
		 * Zero copy cannot do without the table: the driver puts the requests' pages into
		 * it. On the other paths it only saves pinning pages for each transfer, and its
		 * absence is no error.
		 */
		ret = io_uring_register_buffers_sparse(&ring->uring, depth);
		b->can_pin = ret >= 0 && path != IO_PATH_ZERO_COPY;
		if (ret < 0 && path == IO_PATH_ZERO_COPY)
			goto unmap;
	}
	return 0;

unmap:
	munmap(b->arena, bytes + max_io);
free_tags:
	free(b->tags);
	return ret;
}

void buffers_close(struct buffers *b)
{
	munmap(b->arena, (size_t)b->depth * b->stride + b->stride);
	free(b->tags);
}

static uint8_t *buffer_of(const struct buffers *b, unsigned tag)
{
	return b->arena + (size_t)tag * b->stride;
}

int buffers_carry_in(struct buffers *b, const struct io *io)
{
	return buffers_user_copy_from(b, io, 0, buffer_of(b, io->tag), io->length);
}

int buffers_carry_out(struct buffers *b, const struct io *io, int result)
{
	int ret = buffers_user_copy_to(b, io, 0, buffer_of(b, io->tag), (uint32_t)result);

	return ret < 0 ? ret : result;
}

/* Once in a tag's life.  Refused (by a limit of locked memory): then never again. */
static __attribute__((noinline)) bool pin(struct buffers *b, unsigned tag)
{
	struct iovec start = { .iov_base = buffer_of(b, tag), .iov_len = BUFFERS_PINNED };

	if (!b->can_pin || b->stride < BUFFERS_PINNED)
		return false;
	b->can_pin =
		io_uring_register_buffers_update_tag(&b->ring->uring, tag, &start, NULL, 1) == 1;
	b->tags[tag].pinned = b->can_pin;
	return b->can_pin;
}

/* Whether the ring knows all that a request of this length uses of its tag's buffer. */
static bool is_pinned(struct buffers *b, unsigned tag, uint32_t length)
{
	if (length > BUFFERS_PINNED)
		return false;
	return __builtin_expect(b->tags[tag].pinned, 1) || pin(b, tag);
}

void buffers_prep_staged(struct buffers *b, const struct io *io, struct io_uring_sqe *sqe, int fd,
			 uint64_t offset, uint32_t skip)
{
	bool fixed = is_pinned(b, io->tag, io->length);
	int op;

	if (io->op == IO_READ)
		op = fixed ? IORING_OP_READ_FIXED : IORING_OP_READ;
	else
		op = fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE;
	io_uring_prep_rw(op, sqe, fd, buffer_of(b, io->tag) + skip, io->length - skip,
			 offset + skip);
	sqe->buf_index = fixed ? io->tag : 0;
	/* A read fills the buffer behind our back: the bytes count as dirty before it starts. */
	if (io->op == IO_READ)
		buffers_mark_dirty(b, io->tag, io->length);
}

void buffers_copy_into(struct buffers *b, const struct io *io, uint32_t at, const void *from,
		       uint32_t length)
{
	uint8_t *to = buffer_of(b, io->tag) + at;

	buffers_mark_dirty(b, io->tag, at + length);
	/* What was received in io_data() is where the driver looks for it. */
	if (from != to)
		memcpy(to, from, length);
}

void buffers_copy_out_of(struct buffers *b, const struct io *io, uint32_t at, void *to,
			 uint32_t length)
{
	const uint8_t *from = buffer_of(b, io->tag) + at;

	if (to != from)
		memcpy(to, from, length);
}

int buffers_fill_zero(struct buffers *b, const struct io *io, uint32_t at, uint32_t length)
{
	uint32_t dirty;

	if (b->path != IO_PATH_COPY)
		return buffers_user_copy_to(b, io, at, b->zeroes, length);
	/* Bytes of the buffer that were never written are zero still. */
	dirty = b->tags[io->tag].dirty;
	if (at < dirty)
		memset(buffer_of(b, io->tag) + at, 0,
		       (at + length < dirty ? at + length : dirty) - at);
	if (!at && length >= dirty)
		b->tags[io->tag].dirty = 0;
	return 0;
}

/* The backend may write anywhere in the data, so all of it counts as dirty. */
void *buffers_data(struct buffers *b, const struct io *io)
{
	buffers_mark_dirty(b, io->tag, io->length);
	return buffer_of(b, io->tag);
}
