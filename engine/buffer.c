/* SPDX-License-Identifier: MIT */
#include "engine/buffer.h"
#include "engine/ublk_abi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
	const char *name;
	uint64_t features; /* that the device is made with */
	const char *since;
} paths[IO_PATHS] = {
	[IO_PATH_COPY] = { "copy", 0, "6.0" },
	[IO_PATH_USER_COPY] = { "user-copy", UBLK_FEAT_USER_COPY, "6.5" },
	/* User copy too: for what must be copied after all. */
	[IO_PATH_ZERO_COPY] = { "zero-copy",
				UBLK_FEAT_ZERO_COPY | UBLK_FEAT_AUTO_BUF_REG | UBLK_FEAT_USER_COPY,
				"6.16" },
};

const char *io_path_name(enum io_path path)
{
	return path < IO_PATHS ? paths[path].name : "auto";
}

uint64_t io_path_features(enum io_path path)
{
	return paths[path].features;
}

static bool path_possible(enum io_path path, uint64_t features)
{
	return (paths[path].features & ~features) == 0;
}

int io_path_choose(enum io_path wanted, enum backend_access access, uint64_t features,
		   enum io_path *path, const char **reason, struct error *err)
{
	if (wanted != IO_PATH_AUTO) {
		if (!path_possible(wanted, features))
			return error_set(
				err, EOPNOTSUPP,
				"--io-path %s: this kernel's ublk driver does not have it (Linux %s "
				"or later is needed): leave --io-path out",
				paths[wanted].name, paths[wanted].since);
		*path = wanted;
		*reason = "asked for";
		return 0;
	}
	*path = IO_PATH_COPY;
	switch (access) {
	case ACCESS_NONE:
		*reason = "no data is looked at: the driver's own copy of zeroes is the cheapest";
		break;
	case ACCESS_RING:
		*reason = "the kernel registers no buffers by itself (Linux 6.16 or later would)";
		if (path_possible(IO_PATH_ZERO_COPY, features)) {
			*path = IO_PATH_ZERO_COPY;
			*reason = "the backend does I/O on a file, straight to the request's pages";
		}
		break;
	case ACCESS_MEMORY:
		*reason = "the kernel has no user copy (Linux 6.5 or later would)";
		if (path_possible(IO_PATH_USER_COPY, features)) {
			*path = IO_PATH_USER_COPY;
			*reason =
				"the backend is memory: one copy between it and the request's pages";
		}
		break;
	case ACCESS_POINTER:
		*reason = "the backend's library needs the data at an address";
		break;
	}
	return 0;
}

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
		.queue = (uint16_t)queue,
		.depth = depth,
		.char_fd = char_fd,
		.stride = max_io,
	};
	b->dirty = calloc(depth, sizeof(*b->dirty));
	b->unregistered = calloc(depth, sizeof(*b->unregistered));
	if (!b->dirty || !b->unregistered) {
		ret = -ENOMEM;
		goto free_arrays;
	}
	b->arena = mmap(NULL, bytes + max_io, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->arena == MAP_FAILED) {
		ret = -errno;
		goto free_arrays;
	}
	b->zeroes = b->arena + bytes;
	/* A huge page for a tag's first 4 KiB would make idle devices expensive. */
	madvise(b->arena, bytes + max_io, MADV_NOHUGEPAGE);
	if (path == IO_PATH_ZERO_COPY) {
		ret = io_uring_register_buffers_sparse(&ring->uring, depth);
		if (ret < 0)
			goto unmap;
	}
	return 0;

unmap:
	munmap(b->arena, bytes + max_io);
free_arrays:
	free(b->unregistered);
	free(b->dirty);
	return ret;
}

void buffers_close(struct buffers *b)
{
	munmap(b->arena, (size_t)b->depth * b->stride + b->stride);
	free(b->unregistered);
	free(b->dirty);
}

static uint8_t *tag_buffer(const struct buffers *b, unsigned tag)
{
	return b->arena + (size_t)tag * b->stride;
}

static void mark_dirty(struct buffers *b, unsigned tag, uint32_t end)
{
	if (end > b->dirty[tag])
		b->dirty[tag] = end;
}

static int short_copy(ssize_t ret)
{
	return ret < 0 ? -errno : -EIO;
}

/* user copy: a write's data -> to */
static int user_copy_from(struct buffers *b, const struct io *io, uint32_t at, void *to,
			  uint32_t length)
{
	ssize_t ret =
		pread(b->char_fd, to, length, (off_t)UBLK_USER_COPY_OFFSET(b->queue, io->tag, at));

	return ret == (ssize_t)length ? 0 : short_copy(ret);
}

/* user copy: from -> a read's pages */
static int user_copy_to(struct buffers *b, const struct io *io, uint32_t at, const void *from,
			uint32_t length)
{
	ssize_t ret = pwrite(b->char_fd, from, length,
			     (off_t)UBLK_USER_COPY_OFFSET(b->queue, io->tag, at));

	return ret == (ssize_t)length ? 0 : short_copy(ret);
}

static bool is_staged(const struct buffers *b, const struct io *io)
{
	return b->staged || b->unregistered[io->tag];
}

int buffers_arrive(struct buffers *b, const struct io *io, uint32_t op_flags)
{
	if (b->path == IO_PATH_COPY) {
		if (io->op == IO_WRITE)
			mark_dirty(b, io->tag, io->length);
		return 0;
	}
	b->unregistered[io->tag] = b->access == ACCESS_RING && op_flags & UBLK_REQ_NEED_REG_BUF;
	if (io->op == IO_WRITE && is_staged(b, io))
		return user_copy_from(b, io, 0, tag_buffer(b, io->tag), io->length);
	return 0;
}

int buffers_finish(struct buffers *b, const struct io *io, int result)
{
	int ret;

	if (b->path == IO_PATH_COPY || io->op != IO_READ || result <= 0 || !is_staged(b, io))
		return result;
	ret = user_copy_to(b, io, 0, tag_buffer(b, io->tag), (uint32_t)result);
	return ret < 0 ? ret : result;
}

void buffers_prep_transfer(struct buffers *b, const struct io *io, struct io_uring_sqe *sqe, int fd,
			   uint64_t offset, uint32_t skip)
{
	bool fixed = b->path == IO_PATH_ZERO_COPY && !is_staged(b, io);
	/* Registered buffers are addressed from 0. */
	void *addr = fixed ? (void *)(uintptr_t)skip : tag_buffer(b, io->tag) + skip;
	int op;

	if (io->op == IO_READ) {
		op = fixed ? IORING_OP_READ_FIXED : IORING_OP_READ;
		if (!fixed)
			mark_dirty(b, io->tag, io->length);
	} else {
		op = fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE;
	}
	io_uring_prep_rw(op, sqe, fd, addr, io->length - skip, offset + skip);
	sqe->buf_index = fixed ? io->tag : 0;
}

int buffers_copy_to(struct buffers *b, const struct io *io, uint32_t at, const void *from,
		    uint32_t length)
{
	if (b->path != IO_PATH_COPY)
		return user_copy_to(b, io, at, from, length);
	mark_dirty(b, io->tag, at + length);
	memcpy(tag_buffer(b, io->tag) + at, from, length);
	return 0;
}

int buffers_copy_from(struct buffers *b, const struct io *io, uint32_t at, void *to,
		      uint32_t length)
{
	if (b->path != IO_PATH_COPY)
		return user_copy_from(b, io, at, to, length);
	memcpy(to, tag_buffer(b, io->tag) + at, length);
	return 0;
}

int buffers_fill_zero(struct buffers *b, const struct io *io, uint32_t at, uint32_t length)
{
	uint32_t dirty;

	if (b->path != IO_PATH_COPY)
		return user_copy_to(b, io, at, b->zeroes, length);
	/* What was never written in the buffer is zero still. */
	dirty = b->dirty[io->tag];
	if (at < dirty)
		memset(tag_buffer(b, io->tag) + at, 0,
		       (at + length < dirty ? at + length : dirty) - at);
	if (!at && length >= dirty)
		b->dirty[io->tag] = 0;
	return 0;
}

void *buffers_data(struct buffers *b, const struct io *io)
{
	mark_dirty(b, io->tag, io->length);
	return tag_buffer(b, io->tag);
}
